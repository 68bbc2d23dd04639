"""Binance spot market data in SBE, the strict slow path: what the compiled decoder does not recognise, decided here.

This is the authority on what a binary frame means, and it reads like the schema. A frame that is cut short, of another
schema, of a template that is not known, or with a value the instrument cannot hold is refused with one line that says
where and why.

Source: Binance `stream_1_0.xml` (schema id 1, version 0).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from shrivenq.stages.messages import DIFF, END, LEVEL, QUOTE, SELLER_AGGRESSED, SIDE_ASK, SNAPSHOT, TRADE
from shrivenq.stages.venues.binance import EVENT_MAX
from shrivenq.stages.venues.binance_sbe import BEST, DEPTH, DEPTH20, SCHEMA_ID, TRADES, TRADES_MAX, US_MAX
from shrivenq.stages.venues.binance_slow import ID_MAX, LIMIT, Record, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shrivenq.stages.venues.binance_symbols import Symbols

TEMPLATES = {
    TRADES: ("TradesStreamEvent", "<qqbb"),
    BEST: ("BestBidAskStreamEvent", "<qqbbqqqq"),
    DEPTH20: ("DepthSnapshotStreamEvent", "<qqbb"),
    DEPTH: ("DepthDiffStreamEvent", "<qqqbb"),
}
"""Name and root block of each template."""

_TRADE, _LEVEL = "<qqqB", "<qq"
_DIMENSION, _DIMENSION16 = "<HI", "<HH"


def decode_slow(frame: bytes, symbols: Symbols, instruments: Any, target: Any, time_ns: int, cause: int) -> int:
    """Decode `frame` into an event in `target`; return its records, 0 for what is known and carries no market data.

    Arguments and result are those of `binance_sbe.decode`. Raises Refused.
    """
    reader = _Reader(frame)
    template, name, fields = _open(reader)
    if template == BEST:
        event = _Event(reader, symbols, instruments, *fields[2:4])
        records = _read_best(event, fields)
    elif template == TRADES:
        trades = list(reader.group(_DIMENSION, _TRADE, "trades", TRADES_MAX))
        event = _Event(reader, symbols, instruments, *fields[2:4])
        records = [_read_trade(event, fields[0], number, trade) for number, trade in enumerate(trades)]
    else:
        sides = [list(reader.group(_DIMENSION16, _LEVEL, side, EVENT_MAX)) for side in ("bids", "asks")]
        event = _Event(reader, symbols, instruments, *fields[-2:])
        records = _read_depth(event, fields, sides)
    if not records:
        return 0
    room = min(len(target), EVENT_MAX)
    if len(records) + 1 > room:
        raise Refused(f"{name}: {len(records)} records, room for {room - 1}")
    records.append((END, 0, 0, 0, len(records), 0))
    for index, (kind, flags, first, second, third, venue_ns) in enumerate(records):
        target[index]["cause"], target[index]["time_ns"] = cause, time_ns
        target[index]["instrument"], target[index]["kind"], target[index]["flags"] = event.row, kind, flags
        target[index]["price"], target[index]["quantity"], target[index]["id"] = first, second, third
        target[index]["venue_ns"] = venue_ns
    return len(records)


def read_ids(frame: bytes) -> tuple[int, bytes, int, int, bool]:
    """Read which part of which stream a frame is: template, symbol, first and last id, and whether ids jump.

    Ids are those of trades or of the book. They jump in what is sent anew each time (best bid and ask, partial depth).
    Raises Refused.
    """
    reader = _Reader(frame)
    template, _, fields = _open(reader)
    first, last = fields[1], fields[2] if template == DEPTH else fields[1]
    if template == TRADES:
        trades = list(reader.group(_DIMENSION, _TRADE, "trades", TRADES_MAX))
        if not trades:
            raise Refused("trades: none")
        first, last = trades[0][0], trades[-1][0]
    elif template != BEST:
        for side in ("bids", "asks"):
            for _ in reader.group(_DIMENSION16, _LEVEL, side, EVENT_MAX):
                pass
    return template, reader.text("symbol"), first, last, template in (BEST, DEPTH20)


def _open(reader: _Reader) -> tuple[int, str, tuple[int, ...]]:
    """Read the header and the root block: template, its name, the block's fields."""
    block, template, schema, _ = reader.take("<HHHH", "the message header")
    if schema != SCHEMA_ID:
        raise Refused(f"schema {schema}: {SCHEMA_ID} expected")
    if template not in TEMPLATES:
        raise Refused(f"template {template}: {', '.join(map(str, TEMPLATES))} expected")
    name, form = TEMPLATES[template]
    return template, name, reader.block(block, form, name)


class _Reader:
    """A frame, read from its beginning on."""

    def __init__(self, frame: bytes) -> None:
        self.frame, self.at = frame, 0

    def _need(self, size: int, what: str) -> None:
        if self.at + size > len(self.frame):
            raise Refused(f"byte {self.at}: {what} needs {size} bytes, {len(self.frame) - self.at} are left")

    def take(self, form: str, what: str) -> tuple[int, ...]:
        """Read what `form` says."""
        return self.block(struct.calcsize(form), form, what)

    def block(self, size: int, form: str, what: str) -> tuple[int, ...]:
        """Read the known beginning of a block of `size` bytes and go behind it."""
        known = struct.calcsize(form)
        if size < known:
            raise Refused(f"byte {self.at}: {what} is said to be {size} bytes long, at least {known} expected")
        self._need(size, what)
        values = struct.unpack_from(form, self.frame, self.at)
        self.at += size
        return values

    def group(self, dimension: str, form: str, what: str, most: int) -> Iterator[tuple[int, ...]]:
        """Read the entries of a repeating group; the length of an empty one's block says nothing."""
        size, count = self.take(dimension, f"the dimension of {what}")
        if count > most:
            raise Refused(f"{what}: {count} entries, at most {most} expected")
        for number in range(count):
            yield self.block(size, form, f"{what}[{number}]")

    def text(self, what: str) -> bytes:
        """Read a varString8."""
        (size,) = self.take("<B", f"the length of {what}")
        self._need(size, what)
        self.at += size
        return self.frame[self.at - size : self.at]


class _Event:
    """The instrument a message speaks of and the exponents it speaks in; reads the symbol that ends it."""

    def __init__(
        self, reader: _Reader, symbols: Symbols, instruments: Any, price_exponent: int, quantity_exponent: int
    ) -> None:
        name = reader.text("symbol")
        self.row = _row(name, symbols)
        instrument = instruments[self.row]
        if instrument["futures"]:
            raise Refused(f"symbol {name!r}: SBE says spot, instrument {self.row} is not")
        self._price = price_exponent, int(instrument["price_decimals"])
        self._quantity = quantity_exponent, int(instrument["quantity_decimals"])

    def price(self, mantissa: int, what: str, lowest: int = 1) -> int:
        return _scaled(mantissa, *self._price, what, lowest)

    def quantity(self, mantissa: int, what: str, lowest: int = 0) -> int:
        return _scaled(mantissa, *self._quantity, what, lowest)


def _row(name: bytes, symbols: Symbols) -> int:
    for row, entry in enumerate(symbols.table):
        if entry["length"] and entry["upper"].tobytes()[: int(entry["length"])] == name:
            return row
    raise Refused(f"symbol {name[:16]!r}: unknown symbol")


def _scaled(mantissa: int, exponent: int, decimals: int, what: str, lowest: int) -> int:
    """Turn mantissa × 10**exponent into an integer at the instrument's exponent, exactly."""
    shift = exponent + decimals
    value, lost = (mantissa * 10**shift, 0) if shift >= 0 else divmod(mantissa, 10**-shift)
    if lost:
        raise Refused(f"{what} is {mantissa}e{exponent}: the instrument has {decimals} decimals")
    if not lowest <= value < LIMIT:
        raise Refused(f"{what} is {mantissa}e{exponent}: out of range")
    return value


def _within(value: int, lowest: int, highest: int, what: str) -> int:
    if not lowest <= value <= highest:
        raise Refused(f"{what} is {value}: {lowest} to {highest} expected")
    return value


def _venue_ns(event_us: int) -> int:
    return _within(event_us, 0, US_MAX, "eventTime") * 1000


def _read_depth(event: _Event, fields: tuple[int, ...], sides: list[list[tuple[int, ...]]]) -> list[Record]:
    event_us, *ids, _, _ = fields
    last_id = _within(ids[-1], 0, ID_MAX, "lastBookUpdateId" if len(ids) == 2 else "bookUpdateId")
    if len(ids) == 2:
        first_id = _within(ids[0], 0, last_id, "firstBookUpdateId")
        records: list[Record] = [(DIFF, 0, first_id, last_id, -1, _venue_ns(event_us))]
    else:
        records = [(SNAPSHOT, 0, 0, last_id, 0, _venue_ns(event_us))]
    for flags, side, levels in ((0, "bids", sides[0]), (SIDE_ASK, "asks", sides[1])):
        for number, (price, quantity) in enumerate(levels):
            where = f"{side}[{number}]"
            scaled = event.price(price, f"{where}.price"), event.quantity(quantity, f"{where}.qty")
            records.append((LEVEL, flags, *scaled, 0, 0))
    return records


def _read_trade(event: _Event, event_us: int, number: int, trade: tuple[int, ...]) -> Record:
    trade_id, price, quantity, is_buyer_maker = trade
    where = f"trades[{number}]"
    flags = SELLER_AGGRESSED if _within(is_buyer_maker, 0, 1, f"{where}.isBuyerMaker") else 0
    scaled = event.price(price, f"{where}.price"), event.quantity(quantity, f"{where}.qty", 1)
    return (TRADE, flags, *scaled, _within(trade_id, 0, ID_MAX, f"{where}.id"), _venue_ns(event_us))


def _read_best(event: _Event, fields: tuple[int, ...]) -> list[Record]:
    event_us, update_id, _, _, *values = fields
    update_id = _within(update_id, 0, ID_MAX, "bookUpdateId")
    records: list[Record] = []
    for flags, side, (price, quantity) in ((0, "bid", values[:2]), (SIDE_ASK, "ask", values[2:])):
        scaled = event.price(price, f"{side}Price", 0), event.quantity(quantity, f"{side}Qty")
        if (scaled[0] == 0) != (scaled[1] == 0):
            raise Refused(f"{side}Price and {side}Qty: only an empty side is 0, and then both are")
        records.append((QUOTE, flags, *scaled, update_id, _venue_ns(event_us)))
    return records
