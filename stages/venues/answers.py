"""What a venue's answers become: REPORT rows about orders, and notes about everything else.

The decoders of every protocol fill the same two arrays. A REPORT row says what the decoder knows: `order_id` is 0 for
an order that is not ours, `slot` is -1, and `cause`, `time_ns`, `sequence` and the stamps are left to the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m
from shrivenq.stages.venues.binance_symbols import Symbols, make_symbols
from shrivenq.stages.venues.text import POWERS, digits, load, whole

if TYPE_CHECKING:
    from collections.abc import Iterable

REPORTS_MAX = 1_024
"""Rows a decoder may fill: the trades of one order, or all that a cancel-all cancelled."""
NOTES_MAX = 256

# Kinds of notes.
ANSWER = 1  # a request of ours was answered: `what` is its kind, `status` and `code` the venue's
RATE = 2  # `count` of `limit` used in the running interval of `interval_ns`; `what` is one of the limits below
BALANCE = 3  # of the currency in row `what`: `free` and `locked`
THROTTLED = 4  # 429: new orders are refused until `until_ns`, 0 if the venue did not say
BANNED = 5  # 418: everything is, and the connection is about to be cut
REVOKED = 6  # 401: the session is logged off
STREAM_ENDED = 7  # no user data events any more
SHUTDOWN = 8  # the venue is about to cut the connection
FOREIGN = 9  # an event of an instrument that is not in our table
OTHER = 10  # an answer to a request that was not encoded here, to be read by whoever sent it
MASS_CANCELLED = 11  # FIX: the venue cancelled `count` orders of `instrument`; each has a report of its own
HEARTBEAT = 12  # FIX: `place` and `length` are where its TestReqID lies in the buffer, length 0 for none
TEST_REQUEST = 13  # FIX: to be answered with a Heartbeat of that TestReqID
LOGON, LOGOUT = 14, 15  # FIX
MOVED = 16  # `free` of the currency in row `what` came from outside at `venue_ns`, or went there if negative

WEIGHT, ORDERS, RAW, CONNECTIONS = 1, 2, 3, 4
LIMITS = {"REQUEST_WEIGHT": WEIGHT, "ORDERS": ORDERS, "RAW_REQUESTS": RAW, "CONNECTIONS": CONNECTIONS}
INTERVALS_NS = {"SECOND": 10**9, "MINUTE": 60 * 10**9, "HOUR": 3_600 * 10**9, "DAY": 86_400 * 10**9}

NOTE = np.dtype(
    [
        ("kind", "<i4"),
        ("instrument", "<i4"),  # row of the instrument table, -1 for none
        ("what", "<i4"),
        ("status", "<i4"),  # as HTTP numbers them
        ("code", "<i8"),  # the venue's, 0 for none
        ("order_id", "<i8"),  # of the request
        ("target_id", "<i8"),
        ("interval_ns", "<i8"),
        ("limit", "<i8"),
        ("count", "<i8"),
        ("free", "<i8"),  # at the currency's exponent, rounded down
        ("locked", "<i8"),
        ("until_ns", "<i8"),  # ns since 1970
        ("venue_ns", "<i8"),  # venue's event time, ns since 1970
        ("place", "<i8"),  # of text in the buffer
        ("length", "<i8"),
    ],
    align=True,
)

FIELDS = 64
FEE_DECIMALS = 8
"""Decimals of a fee in a currency that is not in the table."""


@by_reference
class Answers(NamedTuple):
    """What a decoder of answers needs to know, and where it keeps an object's values while it reads."""

    symbols: Symbols
    instruments: Any
    currencies: Any
    assets: Any  # int64: codes of the currencies as words
    run: Any  # uint8: the run id that our client order ids begin with
    values: Any  # int64[FIELDS]: numbers, or where a text begins …
    lengths: Any  # … and how long it is


def make_answers(instruments: Any, currencies: Any, run: Any, rows: Iterable[int] | None = None) -> Answers:
    """Make what decoders of answers need; `run` is the run id (uint8), `rows` the venue's instruments, by default all.

    Raises ValueError for symbols that are not unique.
    """
    codes = [bytes(row["code"]) for row in currencies]
    return Answers(
        symbols=make_symbols(instruments, rows),
        instruments=instruments,
        currencies=currencies,
        assets=np.array([int.from_bytes(code, "little") for code in codes], np.int64),
        run=run,
        values=np.zeros(FIELDS, np.int64),
        lengths=np.zeros(FIELDS, np.int64),
    )


@kernel
def put_row(reports: Any, at: int, kind: int, order_id: int, target_id: int, instrument: int, reason: int) -> None:
    """Begin a REPORT: what is not said here is 0."""
    reports[at]["sequence"] = 0
    reports[at]["cause"] = 0
    reports[at]["time_ns"] = 0
    reports[at]["instrument"] = instrument
    reports[at]["kind"] = kind
    reports[at]["flags"] = m.FINAL if kind in (m.REJECTED, m.CANCELLED, m.EXPIRED, m.ABSENT) else 0
    reports[at]["order_id"] = order_id
    reports[at]["target_id"] = target_id
    reports[at]["venue_order_id"] = 0
    reports[at]["trade_id"] = 0
    reports[at]["last_price"] = 0
    reports[at]["last_quantity"] = 0
    reports[at]["filled"] = 0
    reports[at]["leaves"] = 0
    reports[at]["fee"] = 0
    reports[at]["venue_ns"] = 0
    reports[at]["wire_ns"] = 0
    reports[at]["ready_ns"] = 0
    reports[at]["sent_ns"] = 0
    reports[at]["acknowledged_ns"] = 0
    reports[at]["slot"] = -1
    reports[at]["fee_currency"] = 0
    reports[at]["side"] = 0
    reports[at]["reason"] = reason
    reports[at]["price"] = 0
    reports[at]["quantity"] = 0
    reports[at]["generation"] = 0


@kernel
def put_note(notes: Any, at: int, kind: int, what: int, instrument: int) -> None:
    """Begin a note: what is not said here is 0."""
    notes[at]["kind"] = kind
    notes[at]["instrument"] = instrument
    notes[at]["what"] = what
    notes[at]["status"] = 0
    notes[at]["code"] = 0
    notes[at]["order_id"] = 0
    notes[at]["target_id"] = 0
    notes[at]["interval_ns"] = 0
    notes[at]["limit"] = 0
    notes[at]["count"] = 0
    notes[at]["free"] = 0
    notes[at]["locked"] = 0
    notes[at]["until_ns"] = 0
    notes[at]["venue_ns"] = 0
    notes[at]["place"] = 0
    notes[at]["length"] = 0


@inlined
def _part(data: Any, at: int) -> tuple[int, int]:
    """Read a number of 1 to 13 digits without leading zeros; return it and where it ends, (0, -1) for anything else."""
    word = load(data, at)
    count = digits(word)
    if count == 0 or (count > 1 and data[at] == 48):
        return 0, -1
    value = whole(word, count)
    if count < 8:
        return value, at + count
    word = load(data, at + 8)
    count = digits(word)
    if count > 5:
        return 0, -1
    return value * POWERS[count] + whole(word, count), at + 8 + count


@kernel
def read_client_id(data: Any, at: int, length: int, run: Any) -> int:
    """Read `run-epoch-number` as an order id; 0 if the text is not one of ours.

    A quote or another character that is no digit ends it; 64 bytes behind `at` are readable.
    """
    end = at + length
    if length <= len(run) + 3 or length > 36:
        return 0
    for index in range(len(run)):
        if data[at + index] != run[index]:
            return 0
    at += len(run)
    if data[at] != 45:
        return 0
    epoch, at = _part(data, at + 1)
    if at < 0 or data[at] != 45:
        return 0
    number, at = _part(data, at + 1)
    if at != end or epoch >= 1 << (63 - m.EPOCH_SHIFT) or number >= 1 << m.EPOCH_SHIFT:
        return 0
    return epoch << m.EPOCH_SHIFT | number


@inlined
def find_currency(assets: Any, data: Any, at: int, length: int) -> int:
    """Find the row of the currency whose code is the text at `at`; -1 for none."""
    if length < 1 or length > 8:
        return -1
    word = load(data, at)
    if length < 8:
        word &= (1 << (8 * length)) - 1
    for row in range(len(assets)):
        if assets[row] == word:
            return row
    return -1
