"""Risk limits: the `risk` table of the configuration, checked once and turned into integers.

Amounts are decimal strings in human units ("0.5" BTC, "25000" USDT), so that nothing is rounded on the way in. Every
limit must be there and above zero; there is no default for a limit.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np

from shrivenq.stages.risk_checks import COLLAR_UNIT, NUMBER_MAX, ROW

_DECIMAL = re.compile(r"\d{1,30}(\.\d{1,30})?", re.ASCII)
NS_PER_MS = 1_000_000
COUNT_MAX = 1 << 24
MS_MAX = 86_400_000


def _positive(table: msgspec.Struct) -> None:
    """Check every amount and count of a table. Raises ValueError: the key, what was found, what is allowed."""
    for key in table.__struct_fields__:
        found = getattr(table, key)
        if isinstance(found, str):
            if not _DECIMAL.fullmatch(found) or Fraction(found) == 0:
                raise ValueError(f'{key}: found "{found}", allowed: a decimal number above 0 in quotes, such as "2.5"')
        elif isinstance(found, int):
            most = MS_MAX if "_ms" in key else COUNT_MAX
            if not 1 <= found <= most:
                raise ValueError(f"{key}: found {found}, allowed: a whole number from 1 to {most}")


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one instrument; money in its settlement currency, quantities in contracts (spot: base units)."""

    price_collar_bps: str  # how far from the touch a limit price may be
    order_quantity_max: str
    order_value_max: str
    position_max: str  # either way, every open order of a side filled
    gross_exposure_max: str  # positions and open orders of all instruments that settle in the same currency
    open_orders_max: int
    duplicate_window_ms: int  # an order equal in side, price and quantity is refused this long
    market_data_age_ms_max: int
    intent_age_ms_max: int  # from the event an order answers to the decision
    daily_loss_max: str  # realised and unrealised, fees deducted, since 0:00 UTC, as gross_exposure_max
    repeated_execution_max: int  # orders executed one after another on one side

    def __post_init__(self) -> None:
        """Check every value. Raises ValueError."""
        _positive(self)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `risk` table."""

    message_rate_max: int  # messages (new, replace, cancel) within the window, all instruments
    message_window_ms: int
    cancel_reserve: int  # of those, how many only cancels may use
    reject_streak_max: (
        int  # rejections by the venue but of a halted symbol, and unknown outcomes, without an acceptance
    )
    limits: dict[str, Limits]  # by symbol

    def __post_init__(self) -> None:
        """Check every value. Raises ValueError."""
        _positive(self)
        if self.cancel_reserve >= self.message_rate_max:
            raise ValueError(
                f"cancel_reserve: found {self.cancel_reserve}, "
                f"allowed: less than message_rate_max, {self.message_rate_max}"
            )


def _scaled(symbol: str, key: str, text: str, unit: int) -> int:
    """Turn a decimal into units. Raises ValueError if it is no whole number of them or too large."""
    value = Fraction(text) * unit
    if value.denominator != 1 or value >= NUMBER_MAX:
        raise ValueError(
            f'risk.limits.{symbol}.{key}: found "{text}", allowed: at most {len(str(unit)) - 1} decimals '
            f"and less than {NUMBER_MAX // unit}"
        )
    return int(value)


def check_instruments(instruments: Any) -> None:
    """Check what the arithmetic relies on. Raises ValueError that names the instrument."""
    for row in instruments:
        symbol = row["symbol"].decode()
        settles = row["base_currency"] if row["inverse"] else row["quote_currency"]
        if row["settle_currency"] != settles:
            raise ValueError(f"{symbol}: linear instruments settle in their quote currency, inverse ones in their base")
        for key in ("tick", "step", "contract_size"):
            if row[key] <= 0:
                raise ValueError(f"{symbol}.{key}: found {row[key]}, allowed: above 0")


def limit_rows(config: Config, instruments: Any, currencies: Any) -> Any:
    """Make a ROW per instrument with its limits as integers.

    Raises ValueError in one line for an instrument without limits, limits without an instrument, or a limit that is
    finer than the instrument's decimals.
    """
    rows = np.zeros(len(instruments), ROW)
    symbols = [row["symbol"].decode() for row in instruments]
    for symbol in config.limits:
        if symbol not in symbols:
            raise ValueError(f"risk.limits.{symbol}: no such instrument, allowed: {', '.join(symbols)}")
    for row, instrument, symbol in zip(rows, instruments, symbols, strict=True):
        limits = config.limits.get(symbol)
        if limits is None:
            raise ValueError(f"risk.limits.{symbol}: missing, every instrument needs limits of its own")
        quantity = 10 ** int(instrument["quantity_decimals"])
        money = 10 ** int(currencies[instrument["settle_currency"]]["decimals"])
        row["collar"] = _scaled(symbol, "price_collar_bps", limits.price_collar_bps, COLLAR_UNIT // 10_000)
        for key in ("order_quantity_max", "position_max"):
            row[key] = _scaled(symbol, key, getattr(limits, key), quantity)
        for key in ("order_value_max", "gross_exposure_max", "daily_loss_max"):
            row[key] = _scaled(symbol, key, getattr(limits, key), money)
        row["open_orders_max"] = limits.open_orders_max
        row["repeated_execution_max"] = limits.repeated_execution_max
        row["duplicate_ns"] = limits.duplicate_window_ms * NS_PER_MS
        row["market_data_age_ns"] = limits.market_data_age_ms_max * NS_PER_MS
        row["intent_age_ns"] = limits.intent_age_ms_max * NS_PER_MS
        row["best_sell"] = NUMBER_MAX
        row["first_buy"] = row["first_sell"] = -1
    return rows
