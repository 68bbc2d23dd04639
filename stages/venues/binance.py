"""Binance: market-data text → TICK records, compiled.

The scanner knows the venue's own spelling of each message: spot, USD-M and COIN-M, combined (`{"stream":…,"data":…}`)
and raw. It verifies every byte of a frame against that spelling, so that a frame is either decoded exactly or not
recognised at all; what it does not recognise goes to `binance_slow`, which decides. It never raises and never reads
outside the frame and the PADDING bytes behind it.

An event is one record that opens it (SNAPSHOT or DIFF, then LEVELs in the frame's order, bids first), one TRADE, or two
QUOTEs (bid, then ask), closed by END. An aggTrade is a TRADE with an id of its own, a partial book (`@depth5`, `10`,
`20`) a SNAPSHOT: a symbol has either those or trades and diffs, never both. `venue_ns` is the venue's event time `E`, 0
where it sends none (spot bookTicker and snapshots). A side of bookTicker without orders is price 0 and quantity 0.

Source: Binance spot API, WebSocket streams; captured USD-M and COIN-M frames for the futures' spelling.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages.messages import DIFF, END, LEVEL, QUOTE, SELLER_AGGRESSED, SIDE_ASK, SNAPSHOT, TRADE
from shrivenq.stages.venues.binance_symbols import Symbols, find, read_pair, read_symbol
from shrivenq.stages.venues.text import PADDING, POWERS, digits, fraction, load, matches, whole

__all__ = ["EVENT_MAX", "PADDING", "decode"]

EVENT_MAX = 16_384
"""Records `target` must hold: a 5,000-level snapshot makes 10,002."""

MS_MAX = 9_223_372_036_854
"""Latest event time whose nanoseconds fit in int64."""

DECIMALS_MAX = 8
"""Most decimals of an instrument that this scanner reads; more go to the slow path."""

AT = 64


@inlined
def _integer(data: Any, at: int, stop: int) -> tuple[int, int]:
    """Read a JSON integer of 1 to 16 digits; return it and where it ends, (0, -1) for anything else."""
    word = load(data, at)
    count = digits(word)
    if count == 0 or at > stop or (count > 1 and matches(data, at, "0")):
        return 0, -1
    value = whole(word, count)
    if count < 8:
        return value, at + count
    word = load(data, at + 8)
    count = digits(word)
    if count == 8:
        return 0, -1
    return value * POWERS[count] + whole(word, count), at + 8 + count


@inlined
def _decimal(data: Any, at: int, stop: int, decimals: int, power: int) -> tuple[int, int]:
    """Read a decimal at an exponent (`power` is 10**decimals); return it and where it ends, (-1, -1) for anything else.

    More digits than the exponent must be zeros. The result is below 10**18.
    """
    word = load(data, at)
    count = digits(word)
    if count == 0 or at > stop:
        return -1, -1
    value = whole(word, count)
    at += count
    if count == 8:
        word = load(data, at)
        count = digits(word)
        value = value * POWERS[count] + whole(word, count)
        at += count
        if count == 8 or value >= POWERS[18 - decimals]:
            return -1, -1
    if not matches(data, at, "."):
        return value * power, at
    word = load(data, at + 1)
    count = digits(word)
    part = fraction(word, count, decimals)
    if count == 0 or part < 0:
        return -1, -1
    return value * power + part, at + 1 + count


@inlined
def _header(target: Any, index: int, kind: int, flags: int, row: int, time_ns: int, cause: int) -> None:
    target[index]["cause"] = cause
    target[index]["time_ns"] = time_ns
    target[index]["instrument"] = row
    target[index]["kind"] = kind
    target[index]["flags"] = flags


@inlined
def _entry(target: Any, index: int, price: int, quantity: int, identity: int, venue_ns: int) -> None:
    target[index]["price"] = price
    target[index]["quantity"] = quantity
    target[index]["id"] = identity
    target[index]["venue_ns"] = venue_ns


@inlined
def _levels(
    data: Any,
    at: int,
    stop: int,
    instruments: Any,
    row: int,
    target: Any,
    index: int,
    flags: int,
    time_ns: int,
    cause: int,
) -> tuple[int, int]:
    """Read `["price","quantity"],…]` into LEVELs from `index` on; return the next index and where the list ends."""
    if matches(data, at, "]"):
        return index, at + 1
    price_decimals, quantity_decimals = instruments[row]["price_decimals"], instruments[row]["quantity_decimals"]
    price_power, quantity_power = POWERS[price_decimals], POWERS[quantity_decimals]
    room = min(len(target), EVENT_MAX) - 1
    while index < room and matches(data, at, '["'):
        price, at = _decimal(data, at + 2, stop, price_decimals, price_power)
        if price <= 0 or not matches(data, at, '","'):
            return 0, -1
        quantity, at = _decimal(data, at + 3, stop, quantity_decimals, quantity_power)
        if quantity < 0:
            return 0, -1
        _header(target, index, LEVEL, flags, row, time_ns, cause)
        _entry(target, index, price, quantity, 0, 0)
        index += 1
        if not matches(data, at, '"],'):
            return (index, at + 3) if matches(data, at, '"]]') else (0, -1)
        at += 3
    return 0, -1


@inlined
def _sides(
    data: Any, at: int, stop: int, instruments: Any, row: int, target: Any, time_ns: int, cause: int, is_snapshot: bool
) -> tuple[int, int]:
    """Read both lists of levels, from the comma before the first key on, behind the opening record."""
    if is_snapshot:
        if not matches(data, at, ',"bids":['):
            return 0, -1
        at += 9
    else:
        if not matches(data, at, ',"b":['):
            return 0, -1
        at += 6
    index, at = _levels(data, at, stop, instruments, row, target, 1, 0, time_ns, cause)
    if at < 0 or at > stop:
        return 0, -1
    if is_snapshot:
        if not matches(data, at, ',"asks":['):
            return 0, -1
        at += 9
    else:
        if not matches(data, at, ',"a":['):
            return 0, -1
        at += 6
    return _levels(data, at, stop, instruments, row, target, index, SIDE_ASK, time_ns, cause)


@kernel
def _depth(
    data: Any, at: int, stop: int, symbols: Symbols, instruments: Any, row: int, target: Any, time_ns: int, cause: int
) -> tuple[int, int]:
    """Read a depthUpdate from the value of `E` on."""
    event_ms, at = _integer(data, at, stop)
    if at < 0 or event_ms > MS_MAX:
        return 0, -1
    futures = 0
    if matches(data, at, ',"T":'):
        futures = 1
        _, at = _integer(data, at + 5, stop)
        if at < 0:
            return 0, -1
    if not matches(data, at, ',"s":"'):
        return 0, -1
    row, at = read_symbol(data, at + 6, stop, symbols, row)
    if row < 0 or instruments[row]["futures"] != futures:
        return 0, -1
    if futures == 1 and matches(data, at, ',"ps":"'):
        at = read_pair(data, at + 7, symbols, row)
        if at < 0:
            return 0, -1
    if not matches(data, at, ',"U":'):
        return 0, -1
    first_id, at = _integer(data, at + 5, stop)
    if at < 0 or not matches(data, at, ',"u":'):
        return 0, -1
    last_id, at = _integer(data, at + 5, stop)
    previous_id = -1
    if futures == 1:
        if at < 0 or not matches(data, at, ',"pu":'):
            return 0, -1
        previous_id, at = _integer(data, at + 6, stop)
    if at < 0 or first_id > last_id:
        return 0, -1
    _header(target, 0, DIFF, 0, row, time_ns, cause)
    _entry(target, 0, first_id, last_id, previous_id, event_ms * 1_000_000)
    return _sides(data, at, stop, instruments, row, target, time_ns, cause, False)


@kernel
def _snapshot(
    data: Any, at: int, stop: int, symbols: Symbols, instruments: Any, row: int, target: Any, time_ns: int, cause: int
) -> tuple[int, int]:
    """Read a REST snapshot from the value of `lastUpdateId` on; without a symbol it is the stream's, `row`."""
    last_id, at = _integer(data, at, stop)
    event_ms, futures, promised = 0, 0, row
    if row < 0:
        row = symbols.snapshot_row[0]
    if at >= 0 and matches(data, at, ',"E":'):
        futures = 1
        event_ms, at = _integer(data, at + 5, stop)
        if at < 0 or event_ms > MS_MAX or not matches(data, at, ',"T":'):
            return 0, -1
        _, at = _integer(data, at + 5, stop)
        if at >= 0 and matches(data, at, ',"symbol":"'):
            row, at = read_symbol(data, at + 11, stop, symbols, promised)
            if row < 0 or not matches(data, at, ',"pair":"'):
                return 0, -1
            at = read_pair(data, at + 9, symbols, row)
    if at < 0 or instruments[row]["futures"] != futures:
        return 0, -1
    _header(target, 0, SNAPSHOT, 0, row, time_ns, cause)
    _entry(target, 0, 0, last_id, 0, event_ms * 1_000_000)
    return _sides(data, at, stop, instruments, row, target, time_ns, cause, True)


@kernel
def _trade(
    data: Any, at: int, stop: int, symbols: Symbols, instruments: Any, row: int, target: Any, time_ns: int, cause: int
) -> tuple[int, int]:
    """Read a trade from the value of `E` on."""
    event_ms, at = _integer(data, at, stop)
    if at < 0 or event_ms > MS_MAX:
        return 0, -1
    futures = 0
    if matches(data, at, ',"T":'):
        futures = 1
        _, at = _integer(data, at + 5, stop)
    if at < 0 or not matches(data, at, ',"s":"'):
        return 0, -1
    row, at = read_symbol(data, at + 6, stop, symbols, row)
    if row < 0 or instruments[row]["futures"] != futures or not matches(data, at, ',"t":'):
        return 0, -1
    trade_id, at = _integer(data, at + 5, stop)
    if at < 0 or not matches(data, at, ',"p":"'):
        return 0, -1
    decimals = instruments[row]["price_decimals"]
    price, at = _decimal(data, at + 6, stop, decimals, POWERS[decimals])
    if price <= 0 or not matches(data, at, '","q":"'):
        return 0, -1
    decimals = instruments[row]["quantity_decimals"]
    quantity, at = _decimal(data, at + 7, stop, decimals, POWERS[decimals])
    if quantity <= 0:
        return 0, -1
    if futures == 1:
        if not matches(data, at, '","X":"MARKET"'):
            return 0, -1
        at += 14
    else:
        if not matches(data, at, '","T":'):
            return 0, -1
        _, at = _integer(data, at + 6, stop)
        if at < 0:
            return 0, -1
    flags = 0
    if matches(data, at, ',"m":true'):
        flags = SELLER_AGGRESSED
        at += 9
    elif matches(data, at, ',"m":false'):
        at += 10
    else:
        return 0, -1
    if futures == 0:
        if matches(data, at, ',"M":true'):
            at += 9
        elif matches(data, at, ',"M":false'):
            at += 10
        else:
            return 0, -1
    _header(target, 0, TRADE, flags, row, time_ns, cause)
    _entry(target, 0, price, quantity, trade_id, event_ms * 1_000_000)
    return 1, at


@kernel
def _aggregate(
    data: Any, at: int, stop: int, symbols: Symbols, instruments: Any, row: int, target: Any, time_ns: int, cause: int
) -> tuple[int, int]:
    """Read a spot aggTrade from the value of `E` on."""
    event_ms, at = _integer(data, at, stop)
    if at < 0 or event_ms > MS_MAX or not matches(data, at, ',"s":"'):
        return 0, -1
    row, at = read_symbol(data, at + 6, stop, symbols, row)
    if row < 0 or instruments[row]["futures"] != 0 or not matches(data, at, ',"a":'):
        return 0, -1
    trade_id, at = _integer(data, at + 5, stop)
    if at < 0 or not matches(data, at, ',"p":"'):
        return 0, -1
    decimals = instruments[row]["price_decimals"]
    price, at = _decimal(data, at + 6, stop, decimals, POWERS[decimals])
    if price <= 0 or not matches(data, at, '","q":"'):
        return 0, -1
    decimals = instruments[row]["quantity_decimals"]
    quantity, at = _decimal(data, at + 7, stop, decimals, POWERS[decimals])
    if quantity <= 0 or not matches(data, at, '","f":'):
        return 0, -1
    _, at = _integer(data, at + 6, stop)
    if at < 0 or not matches(data, at, ',"l":'):
        return 0, -1
    _, at = _integer(data, at + 5, stop)
    if at < 0 or not matches(data, at, ',"T":'):
        return 0, -1
    _, at = _integer(data, at + 5, stop)
    if at < 0:
        return 0, -1
    flags = 0
    if matches(data, at, ',"m":true,"M":'):
        flags = SELLER_AGGRESSED
        at += 14
    elif matches(data, at, ',"m":false,"M":'):
        at += 15
    else:
        return 0, -1
    if matches(data, at, "true"):
        at += 4
    elif matches(data, at, "false"):
        at += 5
    else:
        return 0, -1
    _header(target, 0, TRADE, flags, row, time_ns, cause)
    _entry(target, 0, price, quantity, trade_id, event_ms * 1_000_000)
    return 1, at


@inlined
def _quote(data: Any, at: int, stop: int, instruments: Any, row: int, target: Any, index: int) -> int:
    """Read `price","X":"quantity` of one side of a bookTicker into QUOTE `index`; return where it ends, or -1."""
    decimals = instruments[row]["price_decimals"]
    price, at = _decimal(data, at, stop, decimals, POWERS[decimals])
    if price < 0:
        return -1
    if not (matches(data, at, '","B":"') if index == 0 else matches(data, at, '","A":"')):
        return -1
    decimals = instruments[row]["quantity_decimals"]
    quantity, at = _decimal(data, at + 7, stop, decimals, POWERS[decimals])
    if quantity < 0 or (price == 0) != (quantity == 0):
        return -1
    target[index]["price"] = price
    target[index]["quantity"] = quantity
    return at


@kernel
def _ticker(
    data: Any, at: int, stop: int, symbols: Symbols, instruments: Any, row: int, target: Any, time_ns: int, cause: int
) -> tuple[int, int]:
    """Read a bookTicker from its opening brace on: each market orders the keys in its own way."""
    futures, coin = 0, False
    if matches(data, at, '{"e":"bookTicker","u":'):
        futures = 1
        at += 22
    elif matches(data, at, '{"u":'):
        at += 5
    else:
        return 0, -1
    update_id, at = _integer(data, at, stop)
    if at < 0:
        return 0, -1
    if futures == 0 and matches(data, at, ',"e":"bookTicker"'):
        futures, coin = 1, True
        at += 17
    if not matches(data, at, ',"s":"'):
        return 0, -1
    row, at = read_symbol(data, at + 6, stop, symbols, row)
    if row < 0 or instruments[row]["futures"] != futures:
        return 0, -1
    if coin:
        if not matches(data, at, ',"ps":"'):
            return 0, -1
        at = read_pair(data, at + 7, symbols, row)
    if at < 0 or not matches(data, at, ',"b":"'):
        return 0, -1
    at = _quote(data, at + 6, stop, instruments, row, target, 0)
    if at < 0 or not matches(data, at, '","a":"'):
        return 0, -1
    at = _quote(data, at + 7, stop, instruments, row, target, 1)
    if at < 0 or not matches(data, at, '"'):
        return 0, -1
    at += 1
    event_ms = 0
    if futures == 1:
        if not matches(data, at, ',"T":'):
            return 0, -1
        _, at = _integer(data, at + 5, stop)
        if at < 0 or not matches(data, at, ',"E":'):
            return 0, -1
        event_ms, at = _integer(data, at + 5, stop)
        if at < 0 or event_ms > MS_MAX:
            return 0, -1
    for side in range(2):
        _header(target, side, QUOTE, side * SIDE_ASK, row, time_ns, cause)
        target[side]["id"] = update_id
        target[side]["venue_ns"] = event_ms * 1_000_000
    return 2, at


@kernel
def _stream(data: Any, at: int, symbols: Symbols) -> tuple[int, int, int]:
    """Read a stream name and `","data":`; return the instrument, the kind of event promised, and where it begins."""
    row = find(data, at, AT, symbols, False)
    if row < 0:
        return -1, 0, -1
    at += symbols.table[row]["length"]
    if matches(data, at, '@bookTicker","data":'):
        return row, QUOTE, at + 20
    if matches(data, at, '@trade","data":'):
        return row, TRADE, at + 15
    if matches(data, at, '@snapshot","data":'):
        return row, SNAPSHOT, at + 18
    if matches(data, at, '@aggTrade","data":'):
        return row, TRADE, at + 18
    if not matches(data, at, "@depth"):
        return -1, 0, -1
    at += 6
    kind = DIFF
    if matches(data, at, "5"):
        kind = SNAPSHOT
        at += 1
    elif matches(data, at, "10") or matches(data, at, "20"):
        kind = SNAPSHOT
        at += 2
    if matches(data, at, "@"):
        count = digits(load(data, at + 1))
        if not 0 < count < 8 or not matches(data, at + 1 + count, "ms"):
            return -1, 0, -1
        at += count + 3
    if not matches(data, at, '","data":'):
        return -1, 0, -1
    return row, kind, at + 9


@kernel
def decode(
    data: Any, start: int, stop: int, symbols: Symbols, instruments: Any, target: Any, time_ns: int, cause: int
) -> int:
    """Decode the frame `data[start:stop]` into an event in `target`; return its records, 0 if it is not recognised.

    `data` is a uint8 array with PADDING readable bytes behind `stop`; `target` a private TICK array of EVENT_MAX
    records, of which a frame that is not recognised may have overwritten any. `time_ns` (ns since 1970) and `cause`
    (the frame's number) go into every header; `sequence` and END's stamps are left to the caller (stamps are 0).
    """
    if stop - start < 40:  # no message is shorter
        return 0
    row, promised, at, closing = -1, 0, start, 1
    if matches(data, at, '{"stream":"'):
        row, promised, at = _stream(data, at + 11, symbols)
        if row < 0 or at > stop:
            return 0
        closing = 2
    if matches(data, at, '{"e":"depthUpdate","E":'):
        kind = DIFF
        count, at = _depth(data, at + 23, stop, symbols, instruments, row, target, time_ns, cause)
    elif matches(data, at, '{"e":"trade","E":'):
        kind = TRADE
        count, at = _trade(data, at + 17, stop, symbols, instruments, row, target, time_ns, cause)
    elif matches(data, at, '{"e":"aggTrade","E":'):
        kind = TRADE
        count, at = _aggregate(data, at + 20, stop, symbols, instruments, row, target, time_ns, cause)
    elif matches(data, at, '{"lastUpdateId":'):
        kind = SNAPSHOT
        count, at = _snapshot(data, at + 16, stop, symbols, instruments, row, target, time_ns, cause)
    else:
        kind = QUOTE
        count, at = _ticker(data, at, stop, symbols, instruments, row, target, time_ns, cause)
    if at < 0 or at + closing != stop or (closing == 2 and promised != kind):
        return 0
    if not (matches(data, at, "}}") if closing == 2 else matches(data, at, "}")):
        return 0
    row = target[0]["instrument"]
    _header(target, count, END, 0, row, time_ns, cause)
    _entry(target, count, 0, 0, count, 0)
    return count + 1
