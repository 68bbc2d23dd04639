"""Instruments: an annotated TOML file in human units → the INSTRUMENT and CURRENCY tables in integers.

One file describes one venue, since venues share symbols. Everything that is wrong with it is said at once.
"""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np

from shrivenq.pipeline.tables import read_table
from shrivenq.stages.messages import CURRENCY, INSTRUMENT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SYMBOL = re.compile(r"[A-Z0-9_]{1,16}", re.ASCII)
CODE = re.compile(r"[A-Z0-9]{1,8}", re.ASCII)
DECIMAL = re.compile(r"-?\d{1,19}(\.\d{1,18})?", re.ASCII)
NUMBER_MAX = 1 << 62
"""Every number in the table is less, so that sums of two fit 64 bits."""
FEE_UNIT = 10_000
"""A basis point in the table's unit, 1e-8 of the notional."""

Decimals = Annotated[int, msgspec.Meta(ge=0, le=18)]


class Instrument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[instruments.SYMBOL]`: numbers are strings, so that nothing is rounded on the way in."""

    kind: Literal["spot", "linear", "inverse"]
    """Inverse contracts are worth a fixed sum of quote currency and settle in the base currency."""
    base: str
    quote: str
    price_decimals: Decimals
    """Decimals of any price the feed can carry."""
    quantity_decimals: Decimals
    """Decimals of any quantity the feed can carry, which may be more than the step has."""
    tick: str
    """Smallest price step of our own orders."""
    step: str
    """Smallest quantity step of our own orders."""
    price_min: str
    price_max: str
    quantity_min: str
    quantity_max: str
    notional_min: str
    """Smallest price × quantity × contract size, in quote currency."""
    notional_max: str
    """Largest, "0" for no such limit."""
    contract_size: str
    """Base units a contract (spot: "1"), or quote units a contract (inverse)."""
    maker_fee_bps: str
    """Negative is a rebate."""
    taker_fee_bps: str
    tradable: bool = True


class Tables(NamedTuple):
    """What the stages are given."""

    instruments: Any  # INSTRUMENT
    currencies: Any  # CURRENCY


def read_instruments(path: Path, symbols: Sequence[str] = ()) -> tuple[Tables | None, list[str]]:
    """Read an instrument file; keep the `symbols` named, all of them for none. Returns the tables, or None and errors.

    An error is one line: file, key, what was found, what is allowed.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return None, [f"{path}: cannot be read: {error.strerror}"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return None, [f"{path}: is not TOML: {error}"]
    errors: list[str] = []
    currencies = _read_currencies(path, document.pop("currencies", None), errors)
    found = document.pop("instruments", None)
    errors += [f"{path}: {key}: unknown, allowed: currencies, instruments" for key in document]
    if not isinstance(found, dict) or not found:
        errors.append(f"{path}: instruments: found nothing, allowed: tables [instruments.SYMBOL]")
        found = {}
    chosen = list(symbols or found)
    errors += [
        f"{path}: instruments: found no {symbol}, allowed: {', '.join(found)}"
        for symbol in chosen
        if symbol not in found
    ]
    errors += [f"{path}: instruments: {symbol} asked for twice" for symbol in set(chosen) if chosen.count(symbol) > 1]
    instruments = np.zeros(len(chosen), INSTRUMENT)
    rows = {symbol: row for row, symbol in enumerate(chosen)}
    for symbol, table in found.items():
        # Checked although it may not be chosen: a mistake in a file is a mistake.
        key = f"{path}: instruments.{symbol}"
        if not SYMBOL.fullmatch(symbol):
            errors.append(f"{key}: not a symbol, allowed: 1 to 16 of A-Z, 0-9 and _")
        one, problems = read_table(table, Instrument, f"instruments.{symbol}")
        errors += [f"{path}: {problem}" for problem in problems]
        if one is None:
            continue
        record = np.zeros(1, INSTRUMENT)
        record["symbol"] = symbol
        errors += [f"{key}.{problem}" for problem in _fill(record[0], one, currencies)]
        if symbol in rows:
            instruments[rows[symbol]] = record[0]
    if errors:
        return None, errors
    table = np.zeros(len(currencies), CURRENCY)
    table["code"], table["decimals"] = list(currencies), list(currencies.values())
    return Tables(instruments, table), []


def _read_currencies(path: Path, found: Any, errors: list[str]) -> dict[str, int]:
    """Read `[currencies]`: the decimals of money in each."""
    if not isinstance(found, dict) or not found:
        errors.append(f"{path}: currencies: found nothing, allowed: a table such as USDT = 8")
        return {}
    good = {}
    for code, decimals in found.items():
        if not CODE.fullmatch(code):
            errors.append(f"{path}: currencies.{code}: not a code, allowed: 1 to 8 of A-Z and 0-9")
        if type(decimals) is not int or not 0 <= decimals <= 12:
            errors.append(f"{path}: currencies.{code}: found {decimals!r}, allowed: 0 to 12 decimals")
            decimals = 8  # noqa: PLW2901 - so that what refers to it is not wrong because of it
        good[code] = decimals
    return good


def _fill(record: Any, one: Instrument, currencies: dict[str, int]) -> list[str]:
    """Fill an INSTRUMENT row; return what is wrong, each beginning with its key."""
    problems = []
    rows = {code: row for row, code in enumerate(currencies)}
    for key in ("base", "quote"):
        code = getattr(one, key)
        if code not in rows:
            problems.append(f'{key}: found "{code}", allowed: a currency of this file: {", ".join(rows)}')
    if problems:
        return problems
    quote_decimals = currencies[one.quote]
    exponents = {
        "tick": one.price_decimals,
        "price_min": one.price_decimals,
        "price_max": one.price_decimals,
        "step": one.quantity_decimals,
        "quantity_min": one.quantity_decimals,
        "quantity_max": one.quantity_decimals,
        "notional_min": quote_decimals,
        "notional_max": quote_decimals,
        "contract_size": quote_decimals if one.kind == "inverse" else one.quantity_decimals,
    }
    for key, decimals in exponents.items():
        lowest = 0 if key.startswith("notional") else 1
        problems += _set(record, key, getattr(one, key), 10**decimals, lowest, f"at most {decimals} decimals")
    for key in ("maker_fee", "taker_fee"):
        lowest = -1000 * FEE_UNIT if key == "maker_fee" else 0
        problems += _set(record, key, getattr(one, f"{key}_bps"), FEE_UNIT, lowest, "at most 4 decimals", "_bps")
    record["price_decimals"], record["quantity_decimals"] = one.price_decimals, one.quantity_decimals
    record["base_currency"], record["quote_currency"] = rows[one.base], rows[one.quote]
    record["settle_currency"] = rows[one.base if one.kind == "inverse" else one.quote]
    record["inverse"], record["futures"] = one.kind == "inverse", one.kind != "spot"
    record["tradable"] = one.tradable
    return problems or _contradictions(record, one)


def _set(record: Any, key: str, text: str, unit: int, lowest: int, allowed: str, suffix: str = "") -> list[str]:
    """Set one number, `text` × `unit`; return what is wrong with it."""
    if DECIMAL.fullmatch(text):
        value = Decimal(text) * unit
        if value == int(value) and lowest <= value < NUMBER_MAX:
            record[key] = int(value)
            return []
    bound = "above 0" if lowest == 1 else f"{Decimal(lowest) / unit:f} or more"
    return [f'{key}{suffix}: found "{text}", allowed: a decimal number in quotes, {bound}, {allowed}']


def _contradictions(record: Any, one: Instrument) -> list[str]:
    """Check the numbers of a row against one another."""
    problems = []
    for low, high in (("price_min", "price_max"), ("quantity_min", "quantity_max"), ("notional_min", "notional_max")):
        if record[low] > record[high] and not (high == "notional_max" and record[high] == 0):
            problems.append(f'{low}: found "{getattr(one, low)}", allowed: not above {high} = "{getattr(one, high)}"')
    for unit, keys in (("tick", ("price_min", "price_max")), ("step", ("quantity_min", "quantity_max"))):
        problems += [
            f'{key}: found "{getattr(one, key)}", allowed: a multiple of {unit} = "{getattr(one, unit)}"'
            for key in keys
            if record[key] % record[unit]
        ]
    if one.kind == "spot" and record["contract_size"] != 10**one.quantity_decimals:
        problems.append(f'contract_size: found "{one.contract_size}", allowed: "1" for spot')
    return problems
