"""FIX on the wire: bytes of a connection → messages, and messages → bytes, with `simplefix`.

    frames.add(bytes) ──▶ frames.next() ──▶ Message(kind, fields)        write(kind, …) ──▶ bytes

Where a message ends is decided here, by BodyLength and CheckSum, before anything is made of it. What is garbled ends
the session, since nothing behind it can be trusted. Source: section 15 of the protocol sheet; FIX 4.4.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

import simplefix

MESSAGE_MAX = 8_192
"""Longest body taken; the longest order has some 400 bytes."""
BEGIN = b"8=FIX.4.4\x019="
HEAD = re.compile(rb"8=FIX\.4\.4\x019=([0-9]{1,7})\x01")
HEAD_MAX = len(BEGIN) + 8
TRAILER = re.compile(rb"10=([0-9]{3})\x01")
TRAILER_BYTES = 7
FIELDS = re.compile(rb"(?:[1-9][0-9]{0,8}=[^\x01]*\x01)+")
PRINTABLE = re.compile(rb"[\x20-\x7e]*")
SPOKEN = frozenset({15, 55, 107, 138, 25019, 25028})
"""Tags whose values may be any UTF-8."""
TIME = re.compile(
    r"([0-9]{4})([0-9]{2})([0-9]{2})-([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}|[0-9]{6}))?", re.ASCII
)

GARBLED, INVALID_TAG = -1177, -1169

Fields = list[tuple[int, str]]


class GarbledError(Exception):
    """What came is no message; the session is over."""

    def __init__(self, text: str, code: int = GARBLED) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Message(NamedTuple):
    """One message: its MsgType, and all fields between that and CheckSum, in order."""

    kind: str
    fields: Fields

    def get(self, tag: int) -> str | None:
        """Give the value of a field, the first if there are several, None if there is none."""
        return next((value for found, value in self.fields if found == tag), None)


class Frames:
    """What was received on one connection and is no message yet."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Take what was received."""
        self._data += data

    def next(self) -> Message | None:
        """Give the next whole message, None if there is none yet. Raises GarbledError."""
        data = self._data
        head = HEAD.match(data)
        if head is None:
            if not BEGIN.startswith(bytes(data[: len(BEGIN)])):
                raise GarbledError("`BeginString (8)` is not the first tag in a message.")
            digits = bytes(data[len(BEGIN) :])
            if len(data) >= HEAD_MAX or (digits and not digits.isdigit()):
                raise GarbledError("`BodyLength (9)` does not contain the correct byte count.")
            return None
        length = int(head[1])
        end = head.end() + length
        if length > MESSAGE_MAX:
            raise GarbledError("`BodyLength (9)` does not contain the correct byte count.")
        if len(data) < end + TRAILER_BYTES:
            return None
        frame = bytes(data[: end + TRAILER_BYTES])
        del data[: end + TRAILER_BYTES]
        return _read(frame, head.end(), end)


def _read(frame: bytes, start: int, end: int) -> Message:
    """Read a frame whose body is `frame[start:end]`. Raises GarbledError."""
    trailer = TRAILER.fullmatch(frame[end:])
    if trailer is None or frame[end - 1] != 1:
        raise GarbledError("`BodyLength (9)` does not contain the correct byte count.")
    if sum(frame[:end]) % 256 != int(trailer[1]):
        raise GarbledError("`CheckSum(10)` contains an incorrect value.")
    if not frame.startswith(b"35=", start):
        raise GarbledError("`MsgType (35)` is not the third tag in a message.")
    if not FIELDS.fullmatch(frame[start:end]):
        raise GarbledError("Invalid tag number.", INVALID_TAG)
    parser = simplefix.FixParser(allow_empty_values=True)
    try:
        parser.append_buffer(frame)
        message = parser.get_message()
    except simplefix.errors.ParsingError:  # the length of RawData is no number, or leaves half a field behind it
        message = None
    if message is None or parser.get_buffer():
        raise GarbledError("`RawDataLength (95)` does not contain the correct byte count.")
    pairs = [(int(tag), value) for tag, value in message.pairs]
    return Message(_text(*pairs[2]), [(tag, _text(tag, value)) for tag, value in pairs[3:-1]])


def _text(tag: int, value: bytes) -> str:
    """Read a value. Raises GarbledError for what may not be in one."""
    if not PRINTABLE.fullmatch(value):
        text = value.decode(errors="replace") if tag in SPOKEN else "\ufffd"
        if not text.isprintable() or "\ufffd" in text:
            raise GarbledError("Only printable ASCII characters and SOH (Start of Header) are allowed.")
        return text
    return value.decode("ascii")


def write(kind: str, sender: str, target: str, sequence: int, now_us: int, fields: Fields) -> bytes:
    """Write a message."""
    message = simplefix.FixMessage()
    message.append_pair(8, "FIX.4.4")
    message.append_pair(35, kind)
    message.append_pair(34, sequence)
    message.append_pair(49, sender)
    message.append_pair(52, time_text(now_us))
    message.append_pair(56, target)
    for tag, value in fields:
        message.append_pair(tag, value)
    encoded: bytes = message.encode()
    return encoded


def time_text(time_us: int) -> str:
    """Write a moment as the venue does, in microseconds."""
    seconds, part = divmod(time_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%d-%H:%M:%S}.{part:06d}"


def time_us(text: str) -> int | None:
    """Read a moment of seconds, milliseconds or microseconds; None for what is none."""
    found = TIME.fullmatch(text)
    if found is None:
        return None
    try:
        moment = datetime(*(int(one) for one in found.groups()[:6]), tzinfo=UTC)  # type: ignore[misc, arg-type]
    except ValueError:
        return None
    return int(moment.timestamp()) * 1_000_000 + int((found[7] or "").ljust(6, "0"))
