"""Binance spot market data in SBE: binary frames → TICK records, compiled.

The four templates of stream schema 1 give the records that `binance.decode` makes of the same event in JSON, with two
differences, both in the venue's favour: every event carries its time (µs), best bid and ask and partial depth too; and
all trades of one taker order come in one event. A frame that breaks a rule or has a value the instrument cannot hold is
not recognised and goes to `binance_sbe_slow`, which says why. Never raises, and never reads outside the frame and the
PADDING bytes behind it: lengths are checked before what they span is read.

A newer schema may lengthen blocks and append fields: groups are walked by the lengths on the wire, and what follows the
symbol is passed over. A partial depth (`@depth20`) opens with SNAPSHOT, as its JSON twin does: it is a whole book of
twenty levels a side. So one symbol has either `@depth20` or `@depth`, never both.

Source: Binance `stream_1_0.xml` (schema id 1, version 0).
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages.messages import DIFF, END, LEVEL, QUOTE, SELLER_AGGRESSED, SIDE_ASK, SNAPSHOT, TRADE
from shrivenq.stages.venues.binance import EVENT_MAX, PADDING
from shrivenq.stages.venues.binance_symbols import Symbols, look_up
from shrivenq.stages.venues.text import POWERS, load

__all__ = ["EVENT_MAX", "PADDING", "decode"]

SCHEMA_ID = 1
TRADES, BEST, DEPTH20, DEPTH = 10_000, 10_001, 10_002, 10_003
"""Template ids."""

HEADER_BYTES = 8  # block length, template, schema, version: u16 each
TRADES_BLOCK, BEST_BLOCK, DEPTH20_BLOCK, DEPTH_BLOCK = 18, 50, 18, 26
TRADE_BLOCK, LEVEL_BLOCK = 25, 16
"""Bytes of a block in version 0: the least there must be."""

US_MAX = 9_223_372_036_854_775
"""Latest event time whose nanoseconds fit in int64."""

TRADES_MAX = 1_000
"""Most trades of an event: `book` passes them on at once, through a ring of no more than 1,024 where stages share one
process."""

NUMBER_MAX = 2**63 - 1


@inlined
def _small(word: int) -> int:
    """Read the lowest byte of a word as an int8."""
    return ((word & 0xFF) ^ 0x80) - 0x80


@inlined
def _scale(exponent: int, decimals: int) -> tuple[int, int, int]:
    """Tell how mantissas become integers at `decimals`: multiply, divide, and what they must stay below.

    Values stay below 10**18, as in JSON. At an exponent beyond all use only 0 passes.
    """
    shift = exponent + decimals
    if 0 <= shift <= 18:
        return POWERS[shift], 1, POWERS[18 - shift]
    if -18 <= shift < 0:
        return 1, POWERS[-shift], NUMBER_MAX
    return 1, 1, 1


@inlined
def _scaled(mantissa: int, times: int, over: int, limit: int) -> int:
    """Turn a mantissa into an integer at the instrument's exponent; -1 if that loses a digit or is out of range."""
    if mantissa < 0 or mantissa >= limit:
        return -1
    if over == 1:
        return mantissa * times
    value = mantissa // over
    return value if value * over == mantissa else -1


@inlined
def _put(
    target: Any,
    index: int,
    kind: int,
    flags: int,
    row: int,
    price: int,
    quantity: int,
    identity: int,
    venue_ns: int,
    time_ns: int,
    cause: int,
) -> None:
    target[index]["cause"] = cause
    target[index]["time_ns"] = time_ns
    target[index]["instrument"] = row
    target[index]["kind"] = kind
    target[index]["flags"] = flags
    target[index]["price"] = price
    target[index]["quantity"] = quantity
    target[index]["id"] = identity
    target[index]["venue_ns"] = venue_ns


@inlined
def _symbol(data: Any, at: int, stop: int, symbols: Symbols, instruments: Any) -> int:
    """Read the symbol (varString8) that ends a message; return its row, -1 for none or one that is not spot."""
    if at >= stop:
        return -1
    length = load(data, at) & 0xFF
    if length == 0 or length > 16 or at + 1 + length > stop:
        return -1
    first, second = load(data, at + 1), 0
    if length < 8:
        first &= (1 << (8 * length)) - 1
    elif length > 8:
        second = load(data, at + 9)
        if length < 16:
            second &= (1 << (8 * (length - 8))) - 1
    row = look_up(first, second, symbols, True)
    if row < 0 or symbols.table[row]["length"] != length or instruments[row]["futures"] != 0:
        return -1
    return row


@inlined
def _group(data: Any, at: int, stop: int) -> tuple[int, int, int]:
    """Measure a group of levels, its dimension at `at`: entries, bytes of each, and where it ends or -1."""
    if stop - at < 4:
        return 0, 0, -1
    word = load(data, at)
    stride, count = word & 0xFFFF, (word >> 16) & 0xFFFF
    end = at + 4 + stride * count
    if end > stop or (stride < LEVEL_BLOCK and count > 0):
        return 0, 0, -1
    return count, stride, end


@inlined
def _levels(
    data: Any,
    at: int,
    count: int,
    stride: int,
    price_scale: tuple[int, int, int],
    quantity_scale: tuple[int, int, int],
    row: int,
    target: Any,
    index: int,
    flags: int,
    time_ns: int,
    cause: int,
) -> int:
    """Write the levels whose first entry is at `at` from record `index` on; return the next index, -1 for a bad one."""
    for _ in range(count):
        price = _scaled(load(data, at), price_scale[0], price_scale[1], price_scale[2])
        quantity = _scaled(load(data, at + 8), quantity_scale[0], quantity_scale[1], quantity_scale[2])
        if price <= 0 or quantity < 0:
            return -1
        _put(target, index, LEVEL, flags, row, price, quantity, 0, 0, time_ns, cause)
        index += 1
        at += stride
    return index


@kernel
def _depth(
    data: Any,
    body: int,
    at: int,
    stop: int,
    symbols: Symbols,
    instruments: Any,
    target: Any,
    time_ns: int,
    cause: int,
    is_snapshot: bool,
) -> int:
    """Read partial depth or a depth update whose groups begin at `at`; return the records before END, -1 for none."""
    event_us, first_id, last_id, previous_id = load(data, body), 0, load(data, body + 8), 0
    exponents = body + 16
    if not is_snapshot:
        first_id, last_id, previous_id = last_id, load(data, body + 16), -1
        exponents = body + 24
    bids, bid_stride, asks_at = _group(data, at, stop)
    if asks_at < 0:
        return -1
    asks, ask_stride, end = _group(data, asks_at, stop)
    if end < 0 or bids + asks + 2 > min(len(target), EVENT_MAX):
        return -1
    row = _symbol(data, end, stop, symbols, instruments)
    if row < 0 or event_us < 0 or event_us > US_MAX or first_id < 0 or last_id < first_id:
        return -1
    word = load(data, exponents)
    price_scale = _scale(_small(word), instruments[row]["price_decimals"])
    quantity_scale = _scale(_small(word >> 8), instruments[row]["quantity_decimals"])
    kind = SNAPSHOT if is_snapshot else DIFF
    _put(target, 0, kind, 0, row, first_id, last_id, previous_id, event_us * 1000, time_ns, cause)
    index = _levels(
        data, at + 4, bids, bid_stride, price_scale, quantity_scale, row, target, 1, 0, time_ns, cause
    )  # fmt: skip
    if index < 0:
        return -1
    return _levels(
        data, asks_at + 4, asks, ask_stride, price_scale, quantity_scale, row, target, index, SIDE_ASK, time_ns, cause
    )


@kernel
def _trades(
    data: Any, body: int, at: int, stop: int, symbols: Symbols, instruments: Any, target: Any, time_ns: int, cause: int
) -> int:
    """Read trades whose group begins at `at`; return the records before END, -1 for none."""
    if stop - at < 6:
        return -1
    word = load(data, at)
    stride, count = word & 0xFFFF, (word >> 16) & 0xFFFF_FFFF
    at += 6
    end = at + stride * count
    if end > stop or stride < TRADE_BLOCK or not 0 < count <= min(TRADES_MAX, len(target) - 1):
        return -1
    row = _symbol(data, end, stop, symbols, instruments)
    event_us = load(data, body)
    if row < 0 or event_us < 0 or event_us > US_MAX:
        return -1
    word = load(data, body + 16)
    price_scale = _scale(_small(word), instruments[row]["price_decimals"])
    quantity_scale = _scale(_small(word >> 8), instruments[row]["quantity_decimals"])
    for index in range(count):
        trade_id, is_buyer_maker = load(data, at), load(data, at + 24) & 0xFF
        price = _scaled(load(data, at + 8), price_scale[0], price_scale[1], price_scale[2])
        quantity = _scaled(load(data, at + 16), quantity_scale[0], quantity_scale[1], quantity_scale[2])
        if trade_id < 0 or price <= 0 or quantity <= 0 or is_buyer_maker > 1:
            return -1
        flags = is_buyer_maker * SELLER_AGGRESSED
        _put(target, index, TRADE, flags, row, price, quantity, trade_id, event_us * 1000, time_ns, cause)
        at += stride
    return count


@kernel
def _best(
    data: Any, body: int, at: int, stop: int, symbols: Symbols, instruments: Any, target: Any, time_ns: int, cause: int
) -> int:
    """Read a best bid and ask whose symbol is at `at`; return the records before END, -1 for none."""
    row = _symbol(data, at, stop, symbols, instruments)
    event_us, update_id = load(data, body), load(data, body + 8)
    if row < 0 or event_us < 0 or event_us > US_MAX or update_id < 0 or len(target) < 3:
        return -1
    word = load(data, body + 16)
    price_scale = _scale(_small(word), instruments[row]["price_decimals"])
    quantity_scale = _scale(_small(word >> 8), instruments[row]["quantity_decimals"])
    for side in range(2):
        price = _scaled(load(data, body + 18 + 16 * side), price_scale[0], price_scale[1], price_scale[2])
        quantity = _scaled(load(data, body + 26 + 16 * side), quantity_scale[0], quantity_scale[1], quantity_scale[2])
        if price < 0 or quantity < 0 or (price == 0) != (quantity == 0):
            return -1
        flags = side * SIDE_ASK
        _put(target, side, QUOTE, flags, row, price, quantity, update_id, event_us * 1000, time_ns, cause)
    return 2


@kernel
def decode(
    data: Any, start: int, stop: int, symbols: Symbols, instruments: Any, target: Any, time_ns: int, cause: int
) -> int:
    """Decode the frame `data[start:stop]` into an event in `target`; return its records, 0 if it is not recognised.

    Arguments and result are those of `binance.decode`; an event is a SNAPSHOT or DIFF with its LEVELs, up to TRADES_MAX
    TRADEs, or two QUOTEs, closed by END.
    """
    if stop - start < HEADER_BYTES:
        return 0
    word = load(data, start)
    block, template = word & 0xFFFF, (word >> 16) & 0xFFFF
    body = start + HEADER_BYTES
    at = body + block
    if (word >> 32) & 0xFFFF != SCHEMA_ID or at > stop:
        return 0
    if template == TRADES and block >= TRADES_BLOCK:
        count = _trades(data, body, at, stop, symbols, instruments, target, time_ns, cause)
    elif template == DEPTH and block >= DEPTH_BLOCK:
        count = _depth(data, body, at, stop, symbols, instruments, target, time_ns, cause, False)
    elif template == BEST and block >= BEST_BLOCK:
        count = _best(data, body, at, stop, symbols, instruments, target, time_ns, cause)
    elif template == DEPTH20 and block >= DEPTH20_BLOCK:
        count = _depth(data, body, at, stop, symbols, instruments, target, time_ns, cause, True)
    else:
        return 0
    if count < 0:
        return 0
    _put(target, count, END, 0, target[0]["instrument"], 0, 0, count, 0, time_ns, cause)
    return count + 1
