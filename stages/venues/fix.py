"""FIX 4.4 to Binance: ORDER → message, compiled, into a buffer that is there already; and the rules of a session.

NEW is NewOrderSingle (D), CANCEL OrderCancelRequest (F), REPLACE OrderCancelRequestAndNewOrderSingle (XCN) with
STOP_ON_FAILURE, AMEND OrderAmendKeepPriorityRequest (XAK), CANCEL_ALL OrderMassCancelRequest (q). There is no query:
QUERY and TRADES go another way. Logon, which is signed, is `pipeline/signing.py`'s.

A session's messages are numbered from 1 in either direction, Logon being the first. The venue answers no
ResendRequest and takes no gap: after a missing message there is only a new session, and reconciliation. What each
number was is kept for a while, since a Reject names the message by its number alone.

Sources: Binance FIX API; FIX 4.4, session protocol.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m
from shrivenq.stages.venues.binance_orders import RUN_MAX, put_client_id, put_decimal, put_number, put_symbol
from shrivenq.stages.venues.text import load, put, store

MESSAGE_MAX = 768
"""Bytes a buffer must hold."""
BODY_AT = 24
"""Where bodies begin: BeginString and BodyLength, 20 bytes at most, end there."""
SENDER_MAX = 8
TEXT_MAX = 128

# Words of a session.
NEXT_OUT, NEXT_IN = 0, 1  # MsgSeqNum of the next message sent, and of the next expected
SENT_NS, RECEIVED_NS = 2, 3  # when the last was sent and received, ns since 1970
HEARTBEAT_NS = 4
TESTED_NS = 5  # when a TestRequest was sent that is not answered, 0 for none
BROKEN = 6  # 1 once a message was missing or could not be read: the session is of no use any more
SECOND = 7  # which second `clock` spells, s since 1970
WORDS = 8

# What `due` says.
NOTHING, SEND_HEARTBEAT, SEND_TEST, GIVE_UP = 0, 1, 2, 3

CLOCK_BYTES = 24
SENT_MAX = 1 << 12
SENT = np.dtype(
    [("sequence", "<i8"), ("order_id", "<i8"), ("target_id", "<i8"), ("kind", "<i4"), ("instrument", "<i4")], align=True
)


@by_reference
class Session(NamedTuple):
    """One FIX session, from Logon to Logout."""

    sender: Any  # uint8: SenderCompID
    clock: Any  # uint8: a time as `put_time` writes it, whose calendar is worked out once a second
    sent: Any  # SENT, by number
    words: Any


def make_session(sender: str, heartbeat_s: int) -> Session:
    """Make a session whose Logon, number 1, is about to be sent. Raises ValueError for what the venue refuses."""
    if not 5 <= heartbeat_s <= 60:
        raise ValueError(f"HeartBtInt: found {heartbeat_s}, allowed: 5 to 60 s")
    words = np.zeros(WORDS, np.int64)
    words[HEARTBEAT_NS] = heartbeat_s * 10**9
    session = Session(np.zeros(len(sender), np.uint8), np.zeros(CLOCK_BYTES, np.uint8), np.zeros(SENT_MAX, SENT), words)
    begin(session, sender)
    return session


def begin(session: Session, sender: str) -> None:
    """Make a session anew under another name of the same length. Raises ValueError for one the venue refuses."""
    if (
        not 1 <= len(sender) <= SENDER_MAX
        or not sender.isascii()
        or not sender.replace("-", "").replace("_", "").isalnum()
    ):
        raise ValueError(f"SenderCompID: found {sender[:20]!r}, allowed: 1 to 8 letters, digits, - and _")
    session.sender[:] = np.frombuffer(sender.encode(), np.uint8)
    session.sent[:] = 0
    heartbeat_ns = session.words[HEARTBEAT_NS]
    session.words[:] = 0
    session.words[NEXT_OUT], session.words[NEXT_IN], session.words[HEARTBEAT_NS] = 2, 1, heartbeat_ns
    session.words[SECOND] = -1


@inlined
def take_back(session: Session, sent_ns: int) -> None:
    """Undo the last `encode`, whose message was not sent; `sent_ns` is what SENT_NS was before it."""
    session.words[NEXT_OUT] -= 1
    session.words[SENT_NS] = sent_ns


def due_ns(session: Session) -> int:
    """Tell when `due` will have something to say, ns since 1970, if nothing is sent or received before."""
    words = session.words
    return int(min(words[SENT_NS], words[TESTED_NS] or words[RECEIVED_NS]) + words[HEARTBEAT_NS])


@kernel
def due(session: Session, now_ns: int) -> int:
    """Tell what silence asks for: a Heartbeat, a TestRequest, or an end; SENT_NS and RECEIVED_NS are set from Logon on.

    Nothing received for an interval: TestRequest; nothing for another one: the peer is gone.
    """
    words = session.words
    if words[TESTED_NS] != 0:
        if words[RECEIVED_NS] >= words[TESTED_NS]:
            words[TESTED_NS] = 0
        elif now_ns - words[TESTED_NS] >= words[HEARTBEAT_NS]:
            return GIVE_UP
    elif now_ns - words[RECEIVED_NS] >= words[HEARTBEAT_NS]:
        return SEND_TEST
    return SEND_HEARTBEAT if now_ns - words[SENT_NS] >= words[HEARTBEAT_NS] else NOTHING


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _two(buffer: Any, at: int, value: int) -> int:
    buffer[at] = 48 + value // 10
    buffer[at + 1] = 48 + value % 10
    return at + 2


@inlined
def _three(buffer: Any, at: int, value: int) -> int:
    buffer[at] = 48 + value // 100
    return _two(buffer, at + 1, value % 100)


@kernel
def put_time(buffer: Any, at: int, now_ns: int) -> int:
    """Write a UTC time as `YYYYMMDD-HH:MM:SS.mmm`; return where it ends. The date is Hinnant's civil_from_days."""
    milliseconds = now_ns // 1_000_000
    seconds = milliseconds // 1_000
    days = seconds // 86_400
    rest = seconds - days * 86_400
    days += 719_468
    era = days // 146_097
    day = days - era * 146_097
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day = day - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year += era * 400 + (1 if month <= 2 else 0)
    at = _two(buffer, at, year // 100)
    at = _two(buffer, at, year % 100)
    at = _two(buffer, at, month)
    at = put(buffer, _two(buffer, at, day), "-")
    at = put(buffer, _two(buffer, at, rest // 3_600), ":")
    at = put(buffer, _two(buffer, at, rest // 60 % 60), ":")
    at = put(buffer, _two(buffer, at, rest % 60), ".")
    part = milliseconds - seconds * 1_000
    return _three(buffer, at, part)


@inlined
def _put_clock(buffer: Any, at: int, session: Session, now_ns: int) -> int:
    """Write a time as `put_time` does."""
    clock = session.clock
    milliseconds = now_ns // 1_000_000
    second = milliseconds // 1_000
    if session.words[SECOND] != second:
        session.words[SECOND] = second
        put_time(clock, 0, now_ns)
    for word in range(0, CLOCK_BYTES, 8):  # three more bytes than there are: what follows is written over them
        store(buffer, at + word, load(clock, word))
    return _three(buffer, at + 18, milliseconds - second * 1_000)


@inlined
def _type(buffer: Any, at: int, kind: int) -> int:
    """Write MsgType of a kind of ORDER; -1 for one that has no message."""
    if kind == m.NEW:
        return put(buffer, at, "35=D\x0134=")
    if kind == m.CANCEL:
        return put(buffer, at, "35=F\x0134=")
    if kind == m.REPLACE:
        return put(buffer, at, "35=XCN\x0134=")
    if kind == m.AMEND:
        return put(buffer, at, "35=XAK\x0134=")
    return put(buffer, at, "35=q\x0134=") if kind == m.CANCEL_ALL else -1


@inlined
def _header(buffer: Any, at: int, session: Session, now_ns: int) -> int:
    """Write the number and what is behind it in every header."""
    at = put_number(buffer, at, session.words[NEXT_OUT])
    at = put(buffer, at, "\x0149=")
    for index in range(len(session.sender)):
        buffer[at + index] = session.sender[index]
    at = put(buffer, at + len(session.sender), "\x0152=")
    at = _put_clock(buffer, at, session, now_ns)
    return put(buffer, at, "\x0156=SPOT\x01")


@kernel
def _finish(buffer: Any, at: int, session: Session, now_ns: int) -> int:
    """Put BeginString and BodyLength before the body that ends at `at`, CheckSum behind it; return where it begins."""
    length = at - BODY_AT
    begin = BODY_AT - (15 if length < 100 else 16)  # the shortest has more than 9 bytes, the longest fewer than 1,000
    front = put(buffer, begin, "8=FIX.4.4\x019=")
    put(buffer, put_number(buffer, front, length), "\x01")
    total = 0
    for index in range(begin, at):
        total += int(buffer[index])
    end = put(buffer, at, "10=")
    buffer[end] = 48 + (total & 255) // 100
    put(buffer, _two(buffer, end + 1, (total & 255) % 100), "\x01")
    session.words[NEXT_OUT] += 1
    session.words[SENT_NS] = now_ns
    return begin


CHECKSUM = 7
"""Bytes of `10=nnn` and its SOH."""


@kernel
def _order_type(buffer: Any, at: int, order: Any, row: int) -> int:
    """Write OrdType, and TimeInForce where there is one; -1 for an order that is none."""
    order_type, time_in_force = order[row]["order_type"], order[row]["time_in_force"]
    if order_type == m.MARKET:
        return put(buffer, at, "40=1\x01")
    if order_type == m.LIMIT_MAKER:
        return put(buffer, at, "40=2\x0118=6\x01")
    if order_type in (m.STOP_LOSS, m.TAKE_PROFIT):
        return put(buffer, at, "40=3\x01")
    if order_type == m.LIMIT:
        at = put(buffer, at, "40=2\x01")
    elif order_type in (m.STOP_LOSS_LIMIT, m.TAKE_PROFIT_LIMIT):
        at = put(buffer, at, "40=4\x01")
    else:
        return -1
    if time_in_force == m.GTC:
        return put(buffer, at, "59=1\x01")
    if time_in_force == m.IOC:
        return put(buffer, at, "59=3\x01")
    return put(buffer, at, "59=4\x01") if time_in_force == m.FOK else -1


@kernel
def _terms(buffer: Any, at: int, order: Any, row: int, instruments: Any, run: Any) -> int:
    """Write what D and XCN share, from ClOrdID on; -1 for an order that is none."""
    side, order_type, mode = order[row]["side"], order[row]["order_type"], order[row]["self_trade"]
    instrument = order[row]["instrument"]
    price_decimals = instruments[instrument]["price_decimals"]
    if (side not in (m.BUY, m.SELL)) or order[row]["quantity"] <= 0 or mode < 0 or mode > m.TRANSFER:
        return -1
    at = put(buffer, at, "11=")
    at = put_client_id(buffer, at, run, order[row]["order_id"])
    at = put(buffer, at, "\x0138=")
    at = put_decimal(buffer, at, order[row]["quantity"], instruments[instrument]["quantity_decimals"])
    at = put(buffer, at, "\x01")
    at = _order_type(buffer, at, order, row)
    if at < 0:
        return -1
    if order_type not in (m.MARKET, m.STOP_LOSS, m.TAKE_PROFIT):
        if order[row]["price"] <= 0:
            return -1
        at = put(buffer, at, "44=")
        at = put(buffer, put_decimal(buffer, at, order[row]["price"], price_decimals), "\x01")
    at = put(buffer, at, "54=1\x0155=")
    if side == m.SELL:
        buffer[at - 5] = 50
    at = put(buffer, put_symbol(buffer, at, instruments, instrument), "\x01")
    if order_type >= m.STOP_LOSS:
        if order[row]["stop_price"] <= 0:
            return -1
        # A stop loss that buys and a take profit that sells go off when the price goes up.
        up = (order_type in (m.STOP_LOSS, m.STOP_LOSS_LIMIT)) == (side == m.BUY)
        at = put(buffer, at, "1100=4\x011101=1\x011107=2\x011109=U\x011102=")
        if not up:
            buffer[at - 7] = 68
        at = put(buffer, put_decimal(buffer, at, order[row]["stop_price"], price_decimals), "\x01")
    if mode != 0:
        at = put(buffer, at, "25001=")
        buffer[at] = 48 + mode
        at = put(buffer, at + 1, "\x01")
    return at


@inlined
def _target(buffer: Any, at: int, order: Any, row: int, run: Any) -> int:
    """Name the order meant: by the venue's own id where it is known."""
    if order[row]["venue_order_id"] > 0:
        at = put_number(buffer, put(buffer, at, "37="), order[row]["venue_order_id"])
    else:
        at = put_client_id(buffer, put(buffer, at, "41="), run, order[row]["target_id"])
    return put(buffer, at, "\x01")


@kernel
def _about(buffer: Any, at: int, order: Any, row: int, instruments: Any, run: Any) -> int:
    """Write the body of F, XAK and q; -1 for a request that is none."""
    kind, instrument = order[row]["kind"], order[row]["instrument"]
    name = order[row]["target_id"] if kind == m.AMEND else order[row]["order_id"]
    at = put_client_id(buffer, put(buffer, at, "11="), run, name)
    at = put(buffer, at, "\x01")
    if kind == m.AMEND:
        if order[row]["quantity"] <= 0:
            return -1
        at = put(buffer, at, "38=")
        at = put_decimal(buffer, at, order[row]["quantity"], instruments[instrument]["quantity_decimals"])
        at = put(buffer, at, "\x01")
    if kind == m.CANCEL_ALL:
        at = put(buffer, at, "530=1\x01")
    else:
        at = _target(buffer, at, order, row, run)
    at = put_symbol(buffer, put(buffer, at, "55="), instruments, instrument)
    return put(buffer, at, "\x01")


@kernel
def encode(
    order: Any, row: int, instruments: Any, run: Any, session: Session, now_ns: int, buffer: Any
) -> tuple[int, int]:
    """Write the message for `order[row]` as the session's next; return where it begins and ends, (0, 0) for none.

    Arguments are those of `binance_orders.encode`; `now_ns` is the venue's time, `buffer` at least MESSAGE_MAX bytes.
    """
    kind, instrument = order[row]["kind"], order[row]["instrument"]
    order_id, target_id = order[row]["order_id"], order[row]["target_id"]
    if len(buffer) < MESSAGE_MAX or len(run) > RUN_MAX or not 0 <= instrument < len(instruments):
        return 0, 0
    if order_id < 0 or target_id < 0 or now_ns < 0:
        return 0, 0
    at = _type(buffer, BODY_AT, kind)
    if at < 0:
        return 0, 0
    at = _header(buffer, at, session, now_ns)
    if kind in (m.NEW, m.REPLACE, m.AMEND):
        at = put(buffer, at, "25000=2000\x01")
    if kind == m.REPLACE:
        at = put(buffer, at, "25033=1\x01")
        at = _target(buffer, at, order, row, run)
    if kind in (m.NEW, m.REPLACE):
        at = _terms(buffer, at, order, row, instruments, run)
    else:
        at = _about(buffer, at, order, row, instruments, run)
    if at < 0:
        return 0, 0
    sequence = session.words[NEXT_OUT]
    place = sequence & (SENT_MAX - 1)
    session.sent[place]["sequence"] = sequence
    session.sent[place]["order_id"] = target_id if kind == m.AMEND else order_id
    session.sent[place]["target_id"] = target_id
    session.sent[place]["kind"] = kind
    session.sent[place]["instrument"] = instrument
    return _finish(buffer, at, session, now_ns), at + CHECKSUM


@kernel
def encode_heartbeat(session: Session, now_ns: int, data: Any, place: int, length: int, buffer: Any) -> tuple[int, int]:
    """Write a Heartbeat; `data[place:place + length]` is the TestReqID it answers, if any. Results as `encode`."""
    if len(buffer) < MESSAGE_MAX or length > TEXT_MAX:
        return 0, 0
    at = _header(buffer, put(buffer, BODY_AT, "35=0\x0134="), session, now_ns)
    if length > 0:
        at = put(buffer, at, "112=")
        for index in range(length):
            buffer[at + index] = data[place + index]
        at = put(buffer, at + length, "\x01")
    return _finish(buffer, at, session, now_ns), at + CHECKSUM


@kernel
def encode_test(session: Session, now_ns: int, buffer: Any) -> tuple[int, int]:
    """Write a TestRequest, named by its number, and await its Heartbeat. Results as `encode`."""
    if len(buffer) < MESSAGE_MAX:
        return 0, 0
    at = _header(buffer, put(buffer, BODY_AT, "35=1\x0134="), session, now_ns)
    at = put_number(buffer, put(buffer, at, "112="), session.words[NEXT_OUT])
    at = put(buffer, at, "\x01")
    session.words[TESTED_NS] = now_ns
    return _finish(buffer, at, session, now_ns), at + CHECKSUM


@kernel
def encode_limits(session: Session, now_ns: int, buffer: Any) -> tuple[int, int]:
    """Write a LimitQuery, named by its number: what of the venue's limits is used. Results as `encode`."""
    if len(buffer) < MESSAGE_MAX:
        return 0, 0
    at = _header(buffer, put(buffer, BODY_AT, "35=XLQ\x0134="), session, now_ns)
    at = put_number(buffer, put(buffer, at, "6136="), session.words[NEXT_OUT])
    at = put(buffer, at, "\x01")
    return _finish(buffer, at, session, now_ns), at + CHECKSUM


@kernel
def encode_logout(session: Session, now_ns: int, buffer: Any) -> tuple[int, int]:
    """Write a Logout: without it the venue blocks the name for two heartbeats. Results as `encode`."""
    if len(buffer) < MESSAGE_MAX:
        return 0, 0
    at = _header(buffer, put(buffer, BODY_AT, "35=5\x0134="), session, now_ns)
    return _finish(buffer, at, session, now_ns), at + CHECKSUM
