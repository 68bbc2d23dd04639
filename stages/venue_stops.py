"""Stop orders of a paper venue: they wait until the last price reaches theirs.

Two lists an instrument: of those that wait for it to rise (a buyer's stop loss, a seller's take profit) and of those
that wait for it to fall; each ordered by stop price, the first to trigger at its head, and by age where it is equal.
The last price is the market's: what our own orders trade moves nothing.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m
from shrivenq.stages.venue_market import NONE, unlink


@kernel
def waits_for_rise(side: int, order_type: int) -> bool:
    """Tell which way the price must go to trigger a stop order."""
    return (side == m.BUY) == (order_type in (m.STOP_LOSS, m.STOP_LOSS_LIMIT))


@kernel
def is_reached(market: Any, instrument: int, rising: bool, stop_price: int) -> bool:
    """Tell whether the last price triggers a stop order; never before the first trade."""
    last = market.stops[instrument]["last_price"]
    if last == 0:
        return False
    return bool(last >= stop_price if rising else last <= stop_price)


@inlined
def note_price(market: Any, instrument: int, price: int) -> None:
    """Take the price of a trade of the market."""
    market.stops[instrument]["last_price"] = price


@kernel
def _set_head(market: Any, row: int, head: int) -> None:
    """Make `head` the first of the list to which the order in `row` belongs."""
    orders, stops = market.orders, market.stops
    instrument = orders[row]["instrument"]
    if waits_for_rise(orders[row]["side"], orders[row]["order_type"]):
        stops[instrument]["rising"] = head
    else:
        stops[instrument]["falling"] = head


@kernel
def wait(market: Any, row: int) -> None:
    """Let a stop order wait, behind those that trigger before it."""
    orders, stops = market.orders, market.stops
    instrument, price = orders[row]["instrument"], orders[row]["stop_price"]
    rising = waits_for_rise(orders[row]["side"], orders[row]["order_type"])
    before, behind = NONE, stops[instrument]["rising"] if rising else stops[instrument]["falling"]
    while behind != NONE:
        other = orders[behind]["stop_price"]
        if other > price if rising else other < price:
            break
        before, behind = behind, orders[behind]["next"]
    orders[row]["previous"] = before
    orders[row]["next"] = behind
    orders[row]["waiting"] = 1
    if behind != NONE:
        orders[behind]["previous"] = row
    if before != NONE:
        orders[before]["next"] = row
    else:
        _set_head(market, row, row)


@kernel
def wait_no_longer(market: Any, row: int) -> None:
    """Take a stop order out of its list."""
    orders = market.orders
    before, behind = orders[row]["previous"], orders[row]["next"]
    if behind != NONE:
        orders[behind]["previous"] = before
    if before != NONE:
        orders[before]["next"] = behind
    else:
        _set_head(market, row, behind)
    orders[row]["waiting"] = 0


@kernel
def withdraw(market: Any, row: int) -> None:
    """Take an open order out of wherever it waits or rests."""
    if market.orders[row]["waiting"] != 0:
        wait_no_longer(market, row)
    else:
        unlink(market, row)


@inlined
def next_triggered(market: Any, instrument: int) -> int:
    """Find the next stop order that the last price triggers, NONE for none; those that wait for a rise come first."""
    row = market.stops[instrument]["rising"]
    if row != NONE and is_reached(market, instrument, True, market.orders[row]["stop_price"]):
        return row
    row = market.stops[instrument]["falling"]
    if row != NONE and is_reached(market, instrument, False, market.orders[row]["stop_price"]):
        return row
    return NONE
