"""Listing: what symbols say → the tables and books of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.pipeline.exchange import state as s
from shrivenq.stages import matching, order_flow
from shrivenq.stages.matching import LEVELS
from shrivenq.stages.messages import INSTRUMENT
from shrivenq.stages.order_flow import FLOW, OrderFlow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shrivenq.pipeline.exchange.types import Symbol

LEVELS_MAX = 1 << 24
"""Most prices a book can have, which bounds a configured `price_max`; unused ones take no memory.

Orders further away, where a symbol has no `price_max`, are refused as PERCENT_PRICE_BY_SIDE.
"""
PRICE_MAX = 1 << 62
SCALE_MAX = 18

_SAME = (
    "tick", "price_min", "price_max", "step", "quantity_min", "quantity_max",
    "market_step", "market_quantity_min", "market_quantity_max", "notional_min", "notional_max", "average_minutes",
    "percent_up", "percent_down", "bid_percent_up", "bid_percent_down", "ask_percent_up", "ask_percent_down",
    "orders_max", "algo_orders_max", "position_max", "amends_max",
    "iceberg_parts_max", "icebergs_max", "order_lists_max",
    "trailing_above_min", "trailing_above_max", "trailing_below_min", "trailing_below_max",
    "range_bid_up", "range_bid_down", "range_ask_up", "range_ask_down", "has_reference", "maker_fee", "taker_fee",
)  # fmt: skip


def assets_of(symbols: Sequence[Symbol]) -> dict[str, int]:
    """Collect the assets of all symbols, each with its decimals, in the order in which they come.

    Raises ValueError for an asset with two different decimals.
    """
    found: dict[str, int] = {}
    for one in symbols:
        for asset, decimals in ((one.base, one.base_decimals), (one.quote, one.quote_decimals)):
            if found.setdefault(asset, decimals) != decimals:
                raise ValueError(
                    f"exchange: {one.name}: {asset} has {decimals} decimals here and {found[asset]} before"
                )
    return found


def _check(one: Symbol) -> None:
    """Raise ValueError for what no market can be."""
    shift = one.quote_decimals - one.price_decimals - one.quantity_decimals
    problems = {
        "tick and step must be at least 1": min(one.tick, one.step) < 1,
        "base_decimals must not be below quantity_decimals": one.base_decimals < one.quantity_decimals,
        f"decimals must be 0 to {SCALE_MAX} and their sums no more apart": not -SCALE_MAX <= shift <= SCALE_MAX
        or not 0 <= one.base_decimals - one.quantity_decimals <= SCALE_MAX
        or min(one.price_decimals, one.quantity_decimals, one.quote_decimals) < 0,
        "average_minutes must be 0 to 60": not 0 <= one.average_minutes <= 60,
        "price_max is too high for its decimals": one.price_max * 10 ** max(shift, 0) >= PRICE_MAX,
        "fees must be 0 to 10 %": not 0
        <= min(one.maker_fee, one.taker_fee)
        <= max(one.maker_fee, one.taker_fee)
        <= 10**7,
        "stp_default must be allowed": one.stp_default not in one.stp_allowed,
    }
    for problem, is_so in problems.items():
        if is_so:
            raise ValueError(f"exchange: {one.name}: {problem}")


def symbol_table(symbols: Sequence[Symbol], assets: Mapping[str, int], asset_max: Mapping[str, int]) -> Any:
    """Make the SYMBOL table; `asset_max` is MAX_ASSET by asset. Raises ValueError."""
    if not symbols or len({one.name for one in symbols}) < len(symbols):
        raise ValueError(
            f"exchange: symbols: found {[one.name for one in symbols]}, expected one or more, no name twice"
        )
    rows = {asset: row for row, asset in enumerate(assets)}
    table = np.zeros(len(symbols), s.SYMBOL)
    for record, one in zip(table, symbols, strict=True):
        _check(one)
        for name in _SAME:
            record[name] = getattr(one, name)
        record["base"], record["quote"] = rows[one.base], rows[one.quote]
        record["status"] = s.SYMBOL_STATUSES.index(one.status)
        record["notional_is_range"] = one.notional_filter == "NOTIONAL"
        record["min_to_market"], record["max_to_market"] = one.apply_min_to_market, one.apply_max_to_market
        record["base_max"], record["quote_max"] = asset_max.get(one.base, 0), asset_max.get(one.quote, 0)
        record["base_scale"] = 10 ** (one.base_decimals - one.quantity_decimals)
        shift = one.quote_decimals - one.price_decimals - one.quantity_decimals
        record["multiplier"], record["divisor"] = 10 ** max(shift, 0), 10 ** max(-shift, 0)
    return table


def make_books(symbols: Sequence[Symbol], seed: int, flow: order_flow.Config | None, slots: int) -> OrderFlow:
    """Make the books, `slots` for accounts' orders in each, full of a synthetic flow's orders if there is one.

    Raises ValueError for a starting price that is none.
    """
    instruments = np.zeros(len(symbols), INSTRUMENT)
    for record, one in zip(instruments, symbols, strict=True):
        record["symbol"], record["tick"], record["step"] = one.name.encode(), one.tick, one.step
        record["price_decimals"], record["quantity_decimals"] = one.price_decimals, one.quantity_decimals
        record["price_max"] = one.price_max
    levels = max(_levels(one) for one in symbols)
    if flow is not None:
        return order_flow.make_flow(instruments, flow, seed, levels=levels, spare_slots=slots)
    ticks = [one.tick for one in symbols]
    core = matching.make_matching(ticks, ticks, slots, levels)
    return OrderFlow(core, np.zeros(len(symbols), FLOW), np.zeros(1, np.int64))


def _levels(one: Symbol) -> int:
    """Choose how many prices a book needs: up to its highest, in whole blocks."""
    wanted = one.price_max // one.tick if one.price_max else LEVELS
    return min(max(-(-wanted // 64) * 64, LEVELS), LEVELS_MAX)
