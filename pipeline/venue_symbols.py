"""The venue's symbols (exchangeInfo) against the configured instruments: what is obeyed, what is refused.

Limits on our own orders differ from time to time: the stricter of both is obeyed, and the difference told. Assets,
decimals, tick and step are what strategies, ladders and journals are built on: a difference there refuses the start, so
that a person changes the instrument file and whatever relied on it.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation, getcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from shrivenq.pipeline.instruments import NUMBER_MAX, Tables
from shrivenq.stages import control

if TYPE_CHECKING:
    from collections.abc import Mapping

TRADING = "TRADING"

# The venue's filter, its key, our field, the exponent's field, and whether it is a lower limit.
LIMITS = (
    ("PRICE_FILTER", "minPrice", "price_min", "price_decimals", True),
    ("PRICE_FILTER", "maxPrice", "price_max", "price_decimals", False),
    ("LOT_SIZE", "minQty", "quantity_min", "quantity_decimals", True),
    ("LOT_SIZE", "maxQty", "quantity_max", "quantity_decimals", False),
    ("NOTIONAL", "minNotional", "notional_min", "", True),
    ("NOTIONAL", "maxNotional", "notional_max", "", False),
    ("MIN_NOTIONAL", "minNotional", "notional_min", "", True),
)
STEPS = (
    ("PRICE_FILTER", "tickSize", "tick", "price_decimals"),
    ("LOT_SIZE", "stepSize", "step", "quantity_decimals"),
)


class SymbolsError(Exception):
    """exchangeInfo, or something in it, is not what was expected; one line says where."""


class Symbol(NamedTuple):
    """One symbol of exchangeInfo; if it makes no sense, `problem` says why in one line."""

    name: str
    status: str
    base: str
    quote: str
    filters: Mapping[str, Mapping[str, Any]]
    problem: str = ""


class Comparison(NamedTuple):
    """What came of comparing one instrument: lines, each beginning with its symbol."""

    halted: list[str]  # not trading now
    refusals: list[str]  # what cannot be obeyed: contradictions, and what makes no sense
    stricter: list[str]  # limits where the venue's is stricter
    notes: list[str]  # everything that differs and can be obeyed, `halted` included

    def holds(self) -> int:
        """Give the bits of `stages/control.py` that hold the instrument for this."""
        halted = control.NOT_TRADING if self.halted else 0
        return halted | (control.OTHER_RULES if self.refusals or self.stricter else 0)


class Compared(NamedTuple):
    """What came of comparing all: a Comparison for each instrument, and the tables with the stricter limits."""

    instruments: list[Comparison]
    tables: Tables


def read_symbols(info: Any) -> dict[str, Symbol]:
    """Read exchangeInfo. Raises SymbolsError where it does not even say of which symbols it speaks."""
    try:
        return {name: _read_symbol(name, one) for one in info["symbols"] for name in [_text(one, "symbol")]}
    except (KeyError, TypeError) as error:
        raise SymbolsError(f"exchangeInfo: symbols are not what was expected: {error!r}"[:200]) from None


def _text(one: Any, key: str) -> str:
    if not isinstance(found := one[key], str):
        raise TypeError(f"{key} is no text")
    return found


def _read_symbol(name: str, one: Any) -> Symbol:
    try:
        filters = {_text(row, "filterType"): row for row in one["filters"]}
        return Symbol(name, _text(one, "status"), _text(one, "baseAsset"), _text(one, "quoteAsset"), filters)
    except (KeyError, TypeError) as error:
        return Symbol(name, "", "", "", {}, f"{name}: exchangeInfo is not what was expected: {error!r}"[:200])


def compare(symbols: Mapping[str, Symbol], tables: Tables) -> Compared:
    """Compare the instruments with the venue's symbols."""
    instruments = tables.instruments.copy()
    found = [_compare_one(symbols.get(row["symbol"].decode()), row, tables.currencies) for row in instruments]
    return Compared(found, Tables(instruments, tables.currencies))


def _compare_one(symbol: Symbol | None, row: Any, currencies: Any) -> Comparison:
    """Compare one instrument, whose `row` gets the stricter limits."""
    made = Comparison([], [], [], [])
    if symbol is None:
        made.refusals.append(f"{row['symbol'].decode()}: the venue has no such symbol")
        return made
    if symbol.problem:
        made.refusals.append(symbol.problem)
        return made
    if symbol.status != TRADING:
        made.halted.append(f"{symbol.name}: status {ascii(symbol.status)[1:-1]:.40}, orders only in {TRADING}")
    _compare_assets(symbol, row, currencies, made)
    try:
        for where, key, ours, exponent in STEPS:
            _compare_step(symbol, row, where, key, ours, exponent, made)
        for where, key, ours, exponent, is_lower in LIMITS:
            decimals = row[exponent] if exponent else currencies[row["quote_currency"]]["decimals"]
            _compare_limit(symbol, row, where, key, ours, int(decimals), made, is_lower=is_lower)
    except SymbolsError as error:
        made.refusals.append(str(error))
    made.notes[:0] = made.halted
    return made


def _number(symbol: Symbol, where: str, key: str) -> Decimal | None:
    """Read a filter's number; None where the venue has no such filter, or 0, which disables it. Raises SymbolsError."""
    if where not in symbol.filters:
        return None
    text = symbol.filters[where].get(key)
    try:
        if isinstance(text, bool) or not isinstance(text, (str, int)):
            raise TypeError
        value = Decimal(text)
    except (InvalidOperation, TypeError, ValueError):
        found = "missing" if text is None else repr(text)
        raise SymbolsError(f"{symbol.name}: {where}.{key} is {found}: a number expected"[:200]) from None
    # What has more digits than Decimal keeps would be compared rounded.
    if not value.is_finite() or not 0 <= value < 10**18 or len(value.as_tuple().digits) > getcontext().prec:
        raise SymbolsError(f"{symbol.name}: {where}.{key} is {text!r}: out of range"[:200])
    return value or None


def _plain(value: Decimal) -> str:
    """Spell a number without trailing zeros and exponents."""
    return f"{value.normalize():f}"


def _compare_assets(symbol: Symbol, row: Any, currencies: Any, made: Comparison) -> None:
    for key, theirs in (("base", symbol.base), ("quote", symbol.quote)):
        ours = currencies[row[f"{key}_currency"]]["code"].decode()
        if ours != theirs:
            made.refusals.append(f"{symbol.name}: {key} is {ours}, the venue's is {theirs}")


def _compare_step(symbol: Symbol, row: Any, where: str, key: str, ours: str, exponent: str, made: Comparison) -> None:
    theirs = _number(symbol, where, key)
    decimals = int(row[exponent])
    found = Decimal(int(row[ours])).scaleb(-decimals)
    if theirs is None or theirs == found:
        return
    scaled = theirs.scaleb(decimals)
    if scaled != scaled.to_integral_value():
        made.refusals.append(f"{symbol.name}: {exponent} is {decimals}, the venue's {key} {_plain(theirs)} needs more")
    else:
        made.refusals.append(f"{symbol.name}: {ours} is {_plain(found)}, the venue's {key} is {_plain(theirs)}")


def _compare_limit(
    symbol: Symbol, row: Any, where: str, key: str, ours: str, decimals: int, made: Comparison, *, is_lower: bool
) -> None:
    """Obey the stricter of two limits; a highest notional of 0 is none."""
    theirs = _number(symbol, where, key)
    if theirs is None:
        return
    rounding = ROUND_CEILING if is_lower else ROUND_FLOOR
    value = min(int(theirs.scaleb(decimals).to_integral_value(rounding)), NUMBER_MAX - 1)
    found = int(row[ours])
    if value == found:
        return
    is_stricter = value > found if is_lower else value < found or (ours == "notional_max" and found == 0)
    said = f"{symbol.name}: {ours} is {_plain(Decimal(found).scaleb(-decimals))}, the venue's {key} is {_plain(theirs)}"
    made.notes.append(f"{said}: the {'venue' if is_stricter else 'configuration'}'s is obeyed")
    if is_stricter:
        made.stricter.append(said)
        row[ours] = value
