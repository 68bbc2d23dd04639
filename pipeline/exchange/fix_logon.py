"""FIX logon: the first message of a session, checked and turned into who the session is.

Source: sections 7 and 15 of the protocol sheet.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from shrivenq.pipeline.exchange.accounts import RECV_WINDOW_MAX_US, RECV_WINDOW_US, check_time
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.fix_dictionary import LOGON, RECV_WINDOW, RefusedError, check, refused
from shrivenq.pipeline.exchange.fix_wire import time_us

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.accounts import Key, Keyring
    from shrivenq.pipeline.exchange.fix_wire import Message

VENUE = "SPOT"
SENDER = re.compile(r"[a-zA-Z0-9\-_]{1,8}", re.ASCII)
SEQUENCE = re.compile(r"0*[1-9][0-9]{0,9}", re.ASCII)
SEQUENCE_MAX = (1 << 32) - 1
SECONDS = re.compile(r"[0-9]{1,3}", re.ASCII)
WINDOW = re.compile(r"([0-9]{1,5})(?:\.([0-9]{1,3}))?", re.ASCII)
BEAT_MIN_S, BEAT_MAX_S = 5, 60


class Logon(NamedTuple):
    """Who logged on, and how they want to be served."""

    sender: str
    key: Key
    beat_s: int
    """HeartBtInt."""
    everything: bool
    """Whether all reports of the account are sent, or answers alone: ResponseMode."""


def check_sequence(message: Message, expected: int) -> None:
    """Check that a message is the next one. Raises RefusedError, which ends the session."""
    text = message.get(34)
    if text is None:
        raise RefusedError(-1102, "Required tag '34' missing.", 34, ends=True)
    if not SEQUENCE.fullmatch(text) or int(text) > SEQUENCE_MAX or int(text) != expected:
        wrong = f"`MsgSeqNum(34)` contains an unexpected value. Expected: '{expected}'."
        raise RefusedError(-1179, wrong, 34, ends=True)


def check_sent(message: Message, now_us: int, window_us: int | None = None) -> None:
    """Check SendingTime, against RecvWindow if it is sent or there is a default. Raises RefusedError."""
    sent_us = time_us(message.get(52) or "")
    if sent_us is None:
        raise RefusedError(-1100, "Illegal characters found in parameter 'SendingTime (52)'.", 52)
    text = message.get(RECV_WINDOW)
    if text is not None:
        found = WINDOW.fullmatch(text)
        if found is None:
            raise RefusedError(-1100, "Illegal characters found in parameter 'RecvWindow (25000)'.", RECV_WINDOW)
        window_us = int(found[1]) * 1000 + int((found[2] or "").ljust(3, "0"))
        if window_us > RECV_WINDOW_MAX_US:
            raise RefusedError(-1131, "recvWindow must be less than 60000", RECV_WINDOW)
    if window_us is not None:
        try:
            check_time(sent_us, window_us, now_us)
        except ApiError as error:
            raise refused(error, 52) from None


def read_logon(message: Message, keyring: Keyring, now_us: int) -> Logon:
    """Read the first message of a session. Raises RefusedError, which ends it."""
    if message.kind != LOGON:
        raise RefusedError(-1180, "Logon `A` must be the first message in the session.", 35)
    if message.get(141) != "Y":
        text = (
            "Continuation of sequence numbers to new session is currently unsupported. "
            "Sequence numbers must be reset for each new session."
        )
        raise RefusedError(-1175, text, 141)
    check(message)
    check_sequence(message, 1)
    fields = dict(message.fields)
    if not SENDER.fullmatch(fields[49]):
        raise RefusedError(-1178, "`SenderCompId(49)` contains an incorrect value.", 49)
    if fields[56] != VENUE:
        raise RefusedError(-1130, "Data sent for parameter '56' is not valid.", 56)
    check_sent(message, now_us, RECV_WINDOW_US)
    if not SECONDS.fullmatch(fields[108]) or not BEAT_MIN_S <= int(fields[108]) <= BEAT_MAX_S:
        raise RefusedError(-1130, "Data sent for parameter '108' is not valid.", 108)
    if fields.get(9406) == "Y":
        text = "DropCopy sessions are not supported on this server. Please reconnect to a drop copy server."
        raise RefusedError(-1184, text, 9406)
    return Logon(fields[49], _signer(fields, keyring), int(fields[108]), fields.get(25036, "1") == "1")


def _signer(fields: dict[int, str], keyring: Keyring) -> Key:
    """Find the key that signed. Raises RefusedError."""
    try:
        key = keyring.find(fields[553])
    except ApiError as error:
        raise refused(error, 553) from None
    if key.public is None:
        raise RefusedError(-4056, "HMAC_SHA256 API key is not supported.", 553)
    payload = "\x01".join((LOGON, fields[49], fields[56], fields[34], fields[52]))
    if fields[95] != str(len(fields[96])) or not key.verify(payload.encode(), fields[96]):
        raise RefusedError(-1022, "Signature for this request is not valid.", 96)
    return key
