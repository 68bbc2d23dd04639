"""Stops: orders that wait for the last price to reach theirs, or to turn back.

Three lists a symbol. Of those that wait for it to rise (a buyer's stop loss, a seller's take profit) and of those that
wait for it to fall; each ordered by stop price, the first to trigger at its head, and by age where prices are equal.
And of trailing stops, by age: each follows the price from where its stop price was reached, or from where it began if
it has none, and triggers `trailing_delta` bips above the lowest (a buyer's) or below the highest (a seller's) since.
Source of the latter: the venue's page on trailing stop orders.
"""

from __future__ import annotations

from shrivenq.pipeline.exchange.state import NOW_US, STOP_LOSS, STOP_LOSS_LIMIT, Exchange
from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import BUY
from shrivenq.stages.money import product_at_most

NOBODY = -1
BIPS = 10_000


@kernel
def waits_for_rise(side: int, order_type: int) -> bool:
    """Tell which way the price must go to reach the stop price of an order."""
    return (side == BUY) == (order_type in (STOP_LOSS, STOP_LOSS_LIMIT))


@kernel
def is_reached(exchange: Exchange, symbol: int, side: int, order_type: int, stop_price: int) -> bool:
    """Tell whether the last price has reached a stop price; never before the first trade."""
    last = exchange.symbols[symbol]["last_price"]
    if last == 0:
        return False
    return last >= stop_price if waits_for_rise(side, order_type) else last <= stop_price


@kernel
def has_turned(exchange: Exchange, row: int) -> bool:
    """Tell whether the last price has turned back as far as triggers a trailing stop order."""
    order = exchange.orders[row]
    if order["trailing_us"] == 0:
        return False
    last, extreme, delta = exchange.symbols[order["symbol"]]["last_price"], order["extreme"], order["trailing_delta"]
    if order["side"] == BUY:
        return product_at_most(extreme, BIPS + delta, last, BIPS)
    return delta < BIPS and product_at_most(last, BIPS, extreme, BIPS - delta)


@kernel
def follow(exchange: Exchange, row: int, price: int) -> None:
    """Let a trailing stop order see the last price, which is 0 before the first trade."""
    order = exchange.orders[row]
    if price == 0:
        return
    if order["trailing_us"] == 0:
        stop_price = order["stop_price"]
        if stop_price > 0 and not is_reached(exchange, order["symbol"], order["side"], order["type"], stop_price):
            return
        order["trailing_us"], order["extreme"] = exchange.words[NOW_US], price
    elif order["side"] == BUY:
        order["extreme"] = min(order["extreme"], price)
    else:
        order["extreme"] = max(order["extreme"], price)


@kernel
def trail(exchange: Exchange, symbol: int, price: int) -> None:
    """Let all trailing stop orders of a symbol see its last price."""
    row = exchange.symbols[symbol]["trailing"]
    while row != NOBODY:
        follow(exchange, row, price)
        row = exchange.orders[row]["next"]


@kernel
def _first(exchange: Exchange, row: int) -> int:
    """Find the head of the list a stop order belongs to."""
    order = exchange.orders[row]
    own = exchange.symbols[order["symbol"]]
    if order["trailing_delta"] != 0:
        return own["trailing"]
    return own["rising"] if waits_for_rise(order["side"], order["type"]) else own["falling"]


@kernel
def _lead(exchange: Exchange, of: int, row: int) -> None:
    """Make a row, or nobody, the head of the list the stop order `of` belongs to."""
    order = exchange.orders[of]
    own = exchange.symbols[order["symbol"]]
    if order["trailing_delta"] != 0:
        own["trailing"] = row
    elif waits_for_rise(order["side"], order["type"]):
        own["rising"] = row
    else:
        own["falling"] = row


@kernel
def _goes_before(exchange: Exchange, row: int, other: int) -> bool:
    """Tell whether a stop order triggers before one that waits already."""
    order, waiting = exchange.orders[row], exchange.orders[other]
    if order["trailing_delta"] != 0:
        return False
    if waits_for_rise(order["side"], order["type"]):
        return waiting["stop_price"] > order["stop_price"]
    return waiting["stop_price"] < order["stop_price"]


@kernel
def wait(exchange: Exchange, row: int) -> None:
    """Let a stop order wait, behind those that trigger before it."""
    order = exchange.orders[row]
    before, behind = NOBODY, _first(exchange, row)
    while behind != NOBODY and not _goes_before(exchange, row, behind):
        before, behind = behind, exchange.orders[behind]["next"]
    order["previous"], order["next"] = before, behind
    if behind != NOBODY:
        exchange.orders[behind]["previous"] = row
    if before != NOBODY:
        exchange.orders[before]["next"] = row
    else:
        _lead(exchange, row, row)


@kernel
def wait_no_longer(exchange: Exchange, row: int) -> None:
    """Take a stop order out of its list."""
    order = exchange.orders[row]
    before, behind = order["previous"], order["next"]
    if behind != NOBODY:
        exchange.orders[behind]["previous"] = before
    if before != NOBODY:
        exchange.orders[before]["next"] = behind
    else:
        _lead(exchange, row, behind)
    order["next"] = order["previous"] = NOBODY


@kernel
def next_triggered(exchange: Exchange, symbol: int) -> int:
    """Find the next stop order that the last price triggers, -1 for none: one that waits for a rise, a fall, a turn."""
    own = exchange.symbols[symbol]
    for row in (own["rising"], own["falling"]):
        if row != NOBODY:
            order = exchange.orders[row]
            if is_reached(exchange, symbol, order["side"], order["type"], order["stop_price"]):
                return row
    row = own["trailing"]
    while row != NOBODY and not has_turned(exchange, row):
        row = exchange.orders[row]["next"]
    return row
