"""Stops: orders that wait for the last price to reach theirs.

Two lists a symbol, of those that wait for it to rise (a buyer's stop loss, a seller's take profit) and of those that
wait for it to fall; each ordered by stop price, the first to trigger at its head, and by age where prices are equal.
"""

from __future__ import annotations

from shrivenq.pipeline.exchange.state import STOP_LOSS, STOP_LOSS_LIMIT, Exchange
from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import BUY

NOBODY = -1


@kernel
def waits_for_rise(side: int, order_type: int) -> bool:
    """Tell which way the price must go to trigger a stop order."""
    return (side == BUY) == (order_type in (STOP_LOSS, STOP_LOSS_LIMIT))


@kernel
def is_reached(exchange: Exchange, symbol: int, side: int, order_type: int, stop_price: int) -> bool:
    """Tell whether the last price triggers a stop order; never before the first trade."""
    last = exchange.symbols[symbol]["last_price"]
    if last == 0:
        return False
    return last >= stop_price if waits_for_rise(side, order_type) else last <= stop_price


@kernel
def wait(exchange: Exchange, row: int) -> None:
    """Let a stop order wait, behind those that trigger before it."""
    order = exchange.orders[row]
    own = exchange.symbols[order["symbol"]]
    rising = waits_for_rise(order["side"], order["type"])
    before, behind = NOBODY, own["rising"] if rising else own["falling"]
    while behind != NOBODY:
        other = exchange.orders[behind]["stop_price"]
        if other > order["stop_price"] if rising else other < order["stop_price"]:
            break
        before, behind = behind, exchange.orders[behind]["next"]
    order["previous"], order["next"] = before, behind
    if behind != NOBODY:
        exchange.orders[behind]["previous"] = row
    if before != NOBODY:
        exchange.orders[before]["next"] = row
    elif rising:
        own["rising"] = row
    else:
        own["falling"] = row


@kernel
def wait_no_longer(exchange: Exchange, row: int) -> None:
    """Take a stop order out of its list."""
    order = exchange.orders[row]
    own = exchange.symbols[order["symbol"]]
    before, behind = order["previous"], order["next"]
    if behind != NOBODY:
        exchange.orders[behind]["previous"] = before
    if before != NOBODY:
        exchange.orders[before]["next"] = behind
    elif waits_for_rise(order["side"], order["type"]):
        own["rising"] = behind
    else:
        own["falling"] = behind
    order["next"] = order["previous"] = NOBODY


@kernel
def next_triggered(exchange: Exchange, symbol: int) -> int:
    """Find the next stop order that the last price triggers, -1 for none; those that wait for a rise come first."""
    own = exchange.symbols[symbol]
    for row in (own["rising"], own["falling"]):
        if row != NOBODY:
            order = exchange.orders[row]
            if is_reached(exchange, symbol, order["side"], order["type"], order["stop_price"]):
                return row
    return NOBODY
