"""Binance market data, the strict slow path: what the compiled scanner does not recognise, decided here.

This is the authority on what a frame means. Numbers are exact from text to integer, never floats; a key that stands
twice, a wrong type, or a value the instrument cannot hold refuses the frame with one line that says where and why.
Keys may come in any order, between any white space, and keys that are not known are passed over: a field the venue adds
slows decoding down and does not stop it.

Source: Binance spot API, WebSocket streams; captured USD-M and COIN-M frames for the futures' spelling.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from shrivenq.stages.messages import DIFF, END, LEVEL, LOST, QUOTE, SELLER_AGGRESSED, SIDE_ASK, SNAPSHOT, TRADE
from shrivenq.stages.venues.binance import EVENT_MAX, MS_MAX

if TYPE_CHECKING:
    from shrivenq.stages.venues.binance_symbols import Symbols

LIMIT = 10**18
"""Scaled prices and quantities stay below this."""

ID_MAX = 2**63 - 1

_DECIMAL = re.compile(r"([0-9]+)(?:\.([0-9]+))?", re.ASCII)
_STREAM = re.compile(
    r"([^@]+)@(?:(bookTicker|trade|aggTrade|snapshot|lost)|(depth)(?:@[0-9]+ms)?|depth(?:5|10|20)(?:@[0-9]+ms)?)",
    re.ASCII,
)
_KINDS = {
    "bookTicker": QUOTE,
    "trade": TRADE,
    "aggTrade": TRADE,
    "depth": DIFF,
    "snapshot": SNAPSHOT,
    "lost": LOST,
    None: SNAPSHOT,  # partial depth
}
_NAMES = {DIFF: "depthUpdate", TRADE: "trade", QUOTE: "bookTicker", SNAPSHOT: "snapshot"}
_NO_TRADE = ("NA", "INSURANCE_FUND", "ADL")
"""Futures `trade` events that never met the order book: liquidation by the insurance fund, auto-deleveraging."""


Record = tuple[int, int, int, int, int, int]
"""Kind, flags, the three words of a TICK's body, venue_ns."""


class Refused(ValueError):  # noqa: N818 - it is the slow path's answer, not an error of the program
    """A frame that means nothing here; its text is one line: where, what was found, what was expected."""


def decode_slow(frame: bytes, symbols: Symbols, instruments: Any, target: Any, time_ns: int, cause: int) -> int:
    """Decode `frame` into an event in `target`; return its records, 0 for what is known and carries no market data.

    Arguments and result are those of `binance.decode`. Raises Refused.
    """
    message = _parse(frame)
    row, promised, where = -1, 0, ""
    if "stream" in message or "data" in message:
        row, promised = _stream(message, symbols)
        message, where = _field(message, "data", dict, ""), "data."
    if promised == LOST:
        return _write([(LOST, 0, 0, 0, 0, 0)], row, target, time_ns, cause)
    if _is_silent(message):
        return 0
    kind = _kind(message, where)
    if promised and kind != promised:
        raise Refused(f"stream: {_NAMES[promised]} expected, the data is {_NAMES[kind]}")
    event = _Event(message, where, symbols, instruments, row)
    if kind == TRADE and message.get("X") in _NO_TRADE:
        return 0
    records = _READERS[kind](event)
    room = min(len(target), EVENT_MAX)
    if len(records) + 1 > room:
        raise Refused(f"{_NAMES[kind]}: {len(records) - 1} levels, room for {room - 2}")
    return _write(records, event.row, target, time_ns, cause)


def _write(records: list[Record], row: int, target: Any, time_ns: int, cause: int) -> int:
    """Write an event, and END behind it; return its records."""
    records.append((END, 0, 0, 0, len(records), 0))
    for index, (kind, flags, first, second, third, venue_ns) in enumerate(records):
        target[index]["cause"], target[index]["time_ns"] = cause, time_ns
        target[index]["instrument"], target[index]["kind"], target[index]["flags"] = row, kind, flags
        target[index]["price"], target[index]["quantity"], target[index]["id"] = first, second, third
        target[index]["venue_ns"] = venue_ns
    return len(records)


def _short(value: object) -> str:
    """Spell a value on one line, however long it is."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("ascii", "backslashreplace").decode().replace("\n", "\\n").replace("\r", "\\r")
    return text if len(text) <= 60 else text[:57] + "..."


def _refuse_number(text: str) -> Any:
    """Refuse NaN, Infinity, fractions and exponents: the venue writes integers and strings."""
    raise Refused(f"{_short(text)} is no integer")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; a key that stands twice has no meaning."""
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise Refused(f"key {_short(next(key for key in keys if keys.count(key) > 1))!r} stands twice")
    return made


def _parse(frame: bytes) -> dict[str, Any]:
    try:
        message = json.loads(
            frame.decode(), object_pairs_hook=_once, parse_constant=_refuse_number, parse_float=_refuse_number
        )
    except Refused:
        raise
    except UnicodeDecodeError as error:
        raise Refused(f"byte {error.start}: not UTF-8") from None
    except RecursionError:
        raise Refused("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Refused(f"character {error.pos}: not JSON: {error.msg}") from None
    except ValueError:  # more digits than Python turns into an integer
        raise Refused("a number of thousands of digits") from None
    if not isinstance(message, dict):
        raise Refused(f"{_short(message)}: an object expected")
    return message


def _is_silent(message: dict[str, Any]) -> bool:
    """Tell the answer to a subscription, and the notice that a server restarts, from market data."""
    if set(message) == {"result", "id"} and message["result"] is None:
        return True
    if "code" in message and "msg" in message:
        raise Refused(f"the venue says {_short(message['msg'])} (code {_short(message['code'])})")
    return message.get("e") == "serverShutdown"


def _stream(message: dict[str, Any], symbols: Symbols) -> tuple[int, int]:
    """Read the stream's name: `<symbol>@<kind>`."""
    name = _field(message, "stream", str, "")
    if name == "!serverShutdown":
        return -1, 0
    found = _STREAM.fullmatch(name)
    if not found:
        raise Refused(
            f"stream {_short(name)!r}: SYMBOL@depth, @depth20, @trade, @aggTrade, @bookTicker or @snapshot expected"
        )
    for row, entry in enumerate(symbols.table):
        if entry["length"] and entry["lower"].tobytes().rstrip(b"\0") == found[1].encode():
            return row, _KINDS[found[2] or found[3]]
    raise Refused(f"stream {_short(name)!r}: unknown symbol")


def _kind(message: dict[str, Any], where: str) -> int:
    event = message.get("e")
    if event is None:
        if "lastUpdateId" in message:
            return SNAPSHOT
        if {"u", "b", "B", "a", "A"} <= set(message):
            return QUOTE
        raise Refused(f"{where}e is missing, and this is neither a snapshot nor a bookTicker")
    if event == "aggTrade":
        return TRADE
    for kind, name in _NAMES.items():
        if event == name and kind != SNAPSHOT:
            return kind
    raise Refused(f"{where}e is {_short(event)}: depthUpdate, trade or bookTicker expected")


def _field(message: dict[str, Any], key: str, kind: type, where: str) -> Any:
    """Take a field of exactly this type: true is no integer."""
    if key not in message:
        raise Refused(f"{where}{key} is missing")
    if type(message[key]) is not kind:
        expected = {int: "an integer", str: "a string", list: "a list", dict: "an object", bool: "true or false"}[kind]
        raise Refused(f"{where}{key} is {_short(message[key])}: {expected} expected")
    return message[key]


class _Event:
    """One message and the instrument it speaks of; what reads its fields."""

    def __init__(self, message: dict[str, Any], where: str, symbols: Symbols, instruments: Any, row: int) -> None:
        self.message, self.where = message, where
        self.row = self._row(symbols, row)
        self.instrument = instruments[self.row]
        if "lastUpdateId" in message:
            is_futures, sign = "E" in message, "E"
        elif "u" in message and "U" in message:
            is_futures, sign = "pu" in message, "pu"
        else:
            is_futures, sign = "T" in message and "M" not in message, "the spelling"
        if is_futures != bool(self.instrument["futures"]):
            market = "futures" if is_futures else "spot"
            raise Refused(f"{where}{sign} says {market}, instrument {self.row} is not")

    def _row(self, symbols: Symbols, row: int) -> int:
        if "lastUpdateId" in self.message and "symbol" not in self.message:
            return int(symbols.snapshot_row[0]) if row < 0 else row
        key = "symbol" if "lastUpdateId" in self.message else "s"
        name = _field(self.message, key, str, self.where)
        for known, entry in enumerate(symbols.table):
            if entry["length"] and entry["upper"].tobytes().rstrip(b"\0") == name.encode(errors="replace"):
                if row not in (-1, known):
                    raise Refused(f"{self.where}{key} is {_short(name)}: not the stream's symbol")
                return known
        raise Refused(f"{self.where}{key} is {_short(name)}: unknown symbol")

    def integer(self, key: str, highest: int = ID_MAX) -> int:
        value: int = _field(self.message, key, int, self.where)
        if not 0 <= value <= highest:
            raise Refused(f"{self.where}{key} is {_short(value)}: 0 to {highest} expected")
        return value

    def venue_ns(self) -> int:
        return self.integer("E", MS_MAX) * 1_000_000

    def truth(self, key: str) -> bool:
        value: bool = _field(self.message, key, bool, self.where)
        return value

    def price(self, text: Any, where: str, lowest: int = 1) -> int:
        return self._scaled(text, int(self.instrument["price_decimals"]), where, lowest)

    def quantity(self, text: Any, where: str, lowest: int = 0) -> int:
        return self._scaled(text, int(self.instrument["quantity_decimals"]), where, lowest)

    def _scaled(self, text: Any, decimals: int, where: str, lowest: int) -> int:
        """Turn decimal text into an integer at the instrument's exponent, exactly."""
        where = self.where + where
        if type(text) is not str:
            raise Refused(f"{where} is {_short(text)}: a decimal in a string expected")
        found = _DECIMAL.fullmatch(text) if len(text) <= 64 else None
        if not found:
            raise Refused(f"{where} is {_short(text)!r}: a plain positive decimal expected")
        part = (found[2] or "").rstrip("0")
        if len(part) > decimals:
            raise Refused(f"{where} is {_short(text)}: the instrument has {decimals} decimals")
        value = int(found[1] + part.ljust(decimals, "0"))
        if not lowest <= value < LIMIT:
            raise Refused(f"{where} is {_short(text)}: out of range")
        return value

    def levels(self, key: str, flags: int) -> list[Record]:
        """Read one side; entries beyond price and quantity are passed over, as the venue's own sheet asks."""
        found: list[Record] = []
        for number, level in enumerate(_field(self.message, key, list, self.where)):
            where = f"{key}[{number}]"
            if type(level) is not list or len(level) < 2:
                raise Refused(f"{self.where}{where} is {_short(level)}: [price, quantity] expected")
            price, quantity = self.price(level[0], f"{where}[0]"), self.quantity(level[1], f"{where}[1]")
            found.append((LEVEL, flags, price, quantity, 0, 0))
        return found


def _read_depth(event: _Event) -> list[Record]:
    first_id, last_id = event.integer("U"), event.integer("u")
    if first_id > last_id:
        raise Refused(f"{event.where}U is {first_id}: more than u, {last_id}")
    previous_id = event.integer("pu") if event.instrument["futures"] else -1
    opening = (DIFF, 0, first_id, last_id, previous_id, event.venue_ns())
    return [opening, *event.levels("b", 0), *event.levels("a", SIDE_ASK)]


def _read_snapshot(event: _Event) -> list[Record]:
    venue_ns = event.venue_ns() if "E" in event.message else 0
    opening = (SNAPSHOT, 0, 0, event.integer("lastUpdateId"), 0, venue_ns)
    return [opening, *event.levels("bids", 0), *event.levels("asks", SIDE_ASK)]


def _read_trade(event: _Event) -> list[Record]:
    if event.instrument["futures"] and event.message.get("X", "MARKET") != "MARKET":
        raise Refused(f"{event.where}X is {_short(event.message['X'])}: MARKET expected")
    flags = SELLER_AGGRESSED if event.truth("m") else 0
    price = event.price(event.message.get("p"), "p")
    quantity = event.quantity(event.message.get("q"), "q", 1)
    identity = event.integer("a" if event.message.get("e") == "aggTrade" else "t")
    return [(TRADE, flags, price, quantity, identity, event.venue_ns())]


def _read_ticker(event: _Event) -> list[Record]:
    venue_ns = event.venue_ns() if event.instrument["futures"] else 0
    records: list[Record] = []
    for flags, price_key, quantity_key in ((0, "b", "B"), (SIDE_ASK, "a", "A")):
        price = event.price(event.message.get(price_key), price_key, 0)
        quantity = event.quantity(event.message.get(quantity_key), quantity_key)
        if (price == 0) != (quantity == 0):
            raise Refused(f"{event.where}{price_key} and {quantity_key}: only an empty side is 0, and then both are")
        records.append((QUOTE, flags, price, quantity, event.integer("u"), venue_ns))
    return records


_READERS = {DIFF: _read_depth, SNAPSHOT: _read_snapshot, TRADE: _read_trade, QUOTE: _read_ticker}
