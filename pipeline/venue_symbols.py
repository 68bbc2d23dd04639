"""The venue's symbols (exchangeInfo) against the configured instruments: what is obeyed, what is refused.

Limits on our own orders differ from time to time: the stricter of both is obeyed, and the difference told. Assets,
decimals, tick and step are what strategies, ladders and journals are built on: a difference there refuses the start, so
that a person changes the instrument file and whatever relied on it. What is not what it should be (no number, negative,
missing) is refused too: one line, and nothing is guessed.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation, getcontext
from math import lcm
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from shrivenq.pipeline.instruments import NUMBER_MAX, Tables
from shrivenq.stages import control, risk_limits
from shrivenq.stages import messages as m

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
COUNTS = (("MAX_NUM_ORDERS", "maxNumOrders"), ("EXCHANGE_MAX_NUM_ORDERS", "maxNumOrders"))
"""Upper limits of `risk.limits.SYMBOL.open_orders_max`."""
STOP_COUNTS = (("MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders"), ("EXCHANGE_MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders"))
MULTIPLIERS = (
    ("PERCENT_PRICE", "multiplierUp", "multiplierDown"),
    ("PERCENT_PRICE_BY_SIDE", "bidMultiplierUp", "bidMultiplierDown"),
    ("PERCENT_PRICE_BY_SIDE", "askMultiplierUp", "askMultiplierDown"),
)
ORDER_TYPES = ("LIMIT", "MARKET", "LIMIT_MAKER", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
SELF_TRADE_MODES = ("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER")
# The venue's list, our field of what it lacks, and the names of its bits from the lowest on.
LISTS = (
    ("orderTypes", "refused_types", ORDER_TYPES),
    ("allowedSelfTradePreventionModes", "refused_modes", SELF_TRADE_MODES),
)
REQUESTS = (("amendAllowed", m.NO_AMEND), ("cancelReplaceAllowed", m.NO_REPLACE))


class SymbolsError(Exception):
    """exchangeInfo, or something in it, is not what was expected; one line says where."""


class Symbol(NamedTuple):
    """One symbol of exchangeInfo; if it makes no sense, `problem` says why in one line."""

    name: str
    said: Mapping[str, Any]
    filters: Mapping[str, Mapping[str, Any]]  # its own and those of the whole exchange
    problem: str = ""


class Rules(NamedTuple):
    """What our own orders obey."""

    tables: Tables
    risk: risk_limits.Config


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

    def obeyed(self, said: str) -> None:
        """Note a limit of the venue's that is stricter than ours, and obeyed."""
        self.notes.append(f"{said}: the venue's is obeyed")
        self.stricter.append(said)


class Compared(NamedTuple):
    """What came of comparing all: a Comparison for each instrument, and the stricter of both rules."""

    instruments: list[Comparison]
    rules: Rules


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_symbols(info: Any) -> dict[str, Symbol]:
    """Read exchangeInfo. Raises SymbolsError where it does not even say of which symbols it speaks, or for all."""
    try:
        common = _filters(info, "exchangeFilters")
        return {_text(one, "symbol"): _read_symbol(one, common) for one in _list(info, "symbols")}
    except (KeyError, TypeError) as error:
        raise SymbolsError(f"exchangeInfo: symbols are not what was expected: {error!r}"[:200]) from None


def _filters(one: Any, key: str) -> dict[str, Any]:
    return {_text(row, "filterType"): row for row in _list(one, key)}


def _list(one: Any, key: str) -> list[Any]:
    if not isinstance(found := one[key], list):
        raise TypeError(f"{key} is no list")
    return found


def _text(one: Any, key: str) -> str:
    if not isinstance(found := one[key], str):
        raise TypeError(f"{key} is no text")
    return found


def _read_symbol(one: Any, common: Mapping[str, Any]) -> Symbol:
    name = _text(one, "symbol")
    try:
        for key in ("status", "baseAsset", "quoteAsset"):
            _text(one, key)
        return Symbol(name, one, {**_filters(one, "filters"), **common})
    except (KeyError, TypeError) as error:
        return Symbol(name, one, {}, f"{name}: exchangeInfo is not what was expected: {error!r}"[:200])


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


def _flag(symbol: Symbol, key: str) -> bool:
    """Read what is true or false. Raises SymbolsError."""
    if not isinstance(found := symbol.said.get(key), bool):
        said = "missing" if found is None else repr(found)
        raise SymbolsError(f"{symbol.name}: {key} is {said}: true or false expected"[:200])
    return found


def _names(symbol: Symbol, key: str) -> Sequence[str]:
    """Read a list of names. Raises SymbolsError."""
    found = symbol.said.get(key)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        said = "missing" if found is None else repr(found)
        raise SymbolsError(f"{symbol.name}: {key} is {said}: a list of names expected"[:200])
    return found


def _plain(value: Decimal) -> str:
    """Spell a number without trailing zeros and exponents."""
    return f"{value.normalize():f}"


# ── comparing ────────────────────────────────────────────────────────────────────────────────────────────────────────


def compare(symbols: Mapping[str, Symbol], rules: Rules) -> Compared:
    """Compare the instruments with the venue's symbols."""
    (instruments, currencies), risk = rules.tables, rules.risk
    instruments, limits, found = instruments.copy(), dict(risk.limits), []
    for row in instruments:
        name = row["symbol"].decode()
        made, limits[name] = _compare_one(symbols.get(name), row, currencies, limits[name])
        found.append(made)
    return Compared(found, Rules(Tables(instruments, currencies), msgspec.structs.replace(risk, limits=limits)))


def _compare_one(
    symbol: Symbol | None, row: Any, currencies: Any, limits: risk_limits.Limits
) -> tuple[Comparison, risk_limits.Limits]:
    """Compare one instrument, whose `row` gets the stricter limits; those that are risk's are returned."""
    made = Comparison([], [], [], [])
    if symbol is None:
        made.refusals.append(f"{row['symbol'].decode()}: the venue has no such symbol")
        return made, limits
    if symbol.problem:
        made.refusals.append(symbol.problem)
        return made, limits
    try:
        _compare_status(symbol, made)
        _compare_assets(symbol, row, currencies, made)
        for where, key, ours, exponent in STEPS:
            _compare_step(symbol, row, where, key, ours, exponent, made)
        for where, key, ours, exponent, is_lower in LIMITS:
            decimals = row[exponent] if exponent else currencies[row["quote_currency"]]["decimals"]
            _compare_limit(symbol, row, where, key, ours, int(decimals), made, is_lower=is_lower)
        _compare_market_lot(symbol, row, made)
        _compare_stop_count(symbol, row, made)
        for key, ours, names in LISTS:
            _compare_list(symbol, row, key, ours, names, made)
        _compare_requests(symbol, row, made)
        limits = _compare_counts(symbol, limits, made)
        limits = _compare_position(symbol, int(row["quantity_decimals"]), limits, made)
        limits = _compare_collar(symbol, limits, made)
    except SymbolsError as error:
        made.refusals.append(str(error))
    made.notes[:0] = made.halted
    return made, limits


def _compare_status(symbol: Symbol, made: Comparison) -> None:
    status = ascii(symbol.said["status"])[1:-1]
    if status != TRADING:
        made.halted.append(f"{symbol.name}: status {status:.40}, orders only in {TRADING}")
    if not _flag(symbol, "isSpotTradingAllowed"):
        made.halted.append(f"{symbol.name}: isSpotTradingAllowed is false")


def _compare_assets(symbol: Symbol, row: Any, currencies: Any, made: Comparison) -> None:
    for key in ("base", "quote"):
        ours, theirs = currencies[row[f"{key}_currency"]]["code"].decode(), symbol.said[f"{key}Asset"]
        if ours != theirs:
            made.refusals.append(f"{symbol.name}: {key} is {ours}, the venue's is {ascii(theirs)[1:-1]:.40}")


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
    value = _scaled(theirs, decimals, is_lower=is_lower)
    found = int(row[ours])
    if value == found:
        return
    is_stricter = value > found if is_lower else value < found or (ours == "notional_max" and found == 0)
    said = f"{symbol.name}: {ours} is {_plain(Decimal(found).scaleb(-decimals))}, the venue's {key} is {_plain(theirs)}"
    if is_stricter:
        made.obeyed(said)
        row[ours] = value
    else:
        made.notes.append(f"{said}: the configuration's is obeyed")


def _scaled(value: Decimal, decimals: int, *, is_lower: bool) -> int:
    """Turn a limit into an int at `decimals`, rounded to the stricter side."""
    rounding = ROUND_CEILING if is_lower else ROUND_FLOOR
    return min(int(value.scaleb(decimals).to_integral_value(rounding)), NUMBER_MAX - 1)


def _compare_market_lot(symbol: Symbol, row: Any, made: Comparison) -> None:
    """Obey what is asked of MARKET orders beyond LOT_SIZE, which the fields of the row are beside; 0 is none."""
    decimals, where = int(row["quantity_decimals"]), "MARKET_LOT_SIZE"
    for key, field, general, is_lower in (
        ("minQty", "market_quantity_min", "quantity_min", True),
        ("maxQty", "market_quantity_max", "quantity_max", False),
    ):
        theirs, ours = _number(symbol, where, key), int(row[field] or row[general])
        if theirs is None:
            continue
        value = _scaled(theirs, decimals, is_lower=is_lower)
        if value > ours if is_lower else value < ours:
            found = _plain(Decimal(ours).scaleb(-decimals))
            made.obeyed(f"{symbol.name}: of MARKET orders {general} is {found}, the venue's {key} is {_plain(theirs)}")
            row[field] = value
    theirs, ours = _number(symbol, where, "stepSize"), int(row["market_step"] or row["step"])
    if theirs is None:
        return
    scaled = theirs.scaleb(decimals)
    if scaled != scaled.to_integral_value():
        raise SymbolsError(f"{symbol.name}: quantity_decimals is {decimals}, the venue's {where}.stepSize needs more")
    if ours % int(scaled):
        found = _plain(Decimal(ours).scaleb(-decimals))
        made.obeyed(f"{symbol.name}: of MARKET orders step is {found}, the venue's stepSize is {_plain(theirs)}")
        row["market_step"] = min(lcm(ours, int(scaled)), NUMBER_MAX - 1)


def _compare_stop_count(symbol: Symbol, row: Any, made: Comparison) -> None:
    """Obey how many stop orders may be open; 0 is no limit."""
    for where, key in STOP_COUNTS:
        theirs = _number(symbol, where, key)
        ours = int(row["stop_orders_max"])
        if theirs is None or 0 < ours <= theirs:
            continue
        made.obeyed(
            f"{symbol.name}: stop_orders_max is {ours or 'none'}, the venue's {where}.{key} is {_plain(theirs)}"
        )
        row["stop_orders_max"] = max(1, min(int(theirs), risk_limits.COUNT_MAX))


def _compare_list(symbol: Symbol, row: Any, key: str, ours: str, names: Sequence[str], made: Comparison) -> None:
    """Refuse what the venue's list lacks."""
    theirs = _names(symbol, key)
    lacking = [(bit, name) for bit, name in enumerate(names) if name not in theirs and not row[ours] >> bit & 1]
    if lacking:
        said = ", ".join(name for _, name in lacking)
        made.obeyed(f"{symbol.name}: orders with {said} are allowed, the venue's {key} has none")
        row[ours] |= sum(1 << bit for bit, _ in lacking)


def _compare_requests(symbol: Symbol, row: Any, made: Comparison) -> None:
    for key, bit in REQUESTS:
        if not _flag(symbol, key) and not row["refused_requests"] & bit:
            what = "amendments" if bit == m.NO_AMEND else "replacements"
            made.obeyed(f"{symbol.name}: {what} are allowed, the venue's {key} is false")
            row["refused_requests"] |= bit


def _compare_counts(symbol: Symbol, limits: risk_limits.Limits, made: Comparison) -> risk_limits.Limits:
    for where, key in COUNTS:
        theirs, ours = _number(symbol, where, key), limits.open_orders_max
        if theirs is not None and theirs < ours:
            made.obeyed(f"{symbol.name}: open_orders_max is {ours}, the venue's {where}.{key} is {_plain(theirs)}")
            limits = msgspec.structs.replace(limits, open_orders_max=max(1, int(theirs)))
    return limits


def _compare_position(
    symbol: Symbol, decimals: int, limits: risk_limits.Limits, made: Comparison
) -> risk_limits.Limits:
    theirs, ours = _number(symbol, "MAX_POSITION", "maxPosition"), Decimal(limits.position_max)
    if theirs is None or theirs >= ours:
        return limits
    said = f"{symbol.name}: position_max is {_plain(ours)}, the venue's maxPosition is {_plain(theirs)}"
    value = theirs.quantize(Decimal(1).scaleb(-decimals), ROUND_FLOOR)
    if not value:
        raise SymbolsError(f"{said}: no position is left")
    made.obeyed(said)
    return msgspec.structs.replace(limits, position_max=_plain(value))


def _compare_collar(symbol: Symbol, limits: risk_limits.Limits, made: Comparison) -> risk_limits.Limits:
    """Keep the collar within the venue's multipliers: each is of a price near the touch, and ours is either way."""
    for where, up_key, down_key in MULTIPLIERS:
        for key, sign in ((up_key, 1), (down_key, -1)):
            theirs, ours = _number(symbol, where, key), Decimal(limits.price_collar_bps)
            if theirs is None or (room := sign * (theirs - 1) * 10_000) >= ours:
                continue
            said = f"{symbol.name}: price_collar_bps is {_plain(ours)}, the venue's {key} is {_plain(theirs)}"
            value = room.quantize(Decimal("0.0001"), ROUND_FLOOR)
            if value <= 0:
                raise SymbolsError(f"{said}: no price near the touch is left")
            made.obeyed(said)
            limits = msgspec.structs.replace(limits, price_collar_bps=_plain(value))
    return limits
