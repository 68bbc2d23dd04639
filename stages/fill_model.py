"""The fill model: what our orders would have got in a market that did not see them.

A venue's own book of price levels is rebuilt from the feed; our orders rest beside it in lists, one per instrument and
side, in order of arrival. Named models say when a resting order fills:

    queue          it waits behind what rested at its price when it arrived, and comes forward by trades at that price
                   and by reductions of the level beyond the volume already traded there; a trade's volume that is left
                   over when its turn has come fills it
    trade_through  pessimistic: only when the market goes through its price
    touch          optimistic: any trade at its price fills it, up to the trade's volume

In all of them a trade at a price beyond ours, or the book crossing our price, fills the whole order at its own price.
A trade's volume fills our orders once: what the first in line took, the next does not get. An order that takes walks
the visible levels, one fill each, and what it took is gone until the feed next sets that level.

Kernels take a `Market` and act on it; what they have to say goes into its queue of reports, due one latency later.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m
from shrivenq.stages.order_book import ASK, BID, best_price, quantity_at, set_level, top
from shrivenq.stages.orders import has_limit
from shrivenq.stages.venue_market import LEVELS_MAX, MODEL, NONE, fill, fill_resting

QUEUE, TRADE_THROUGH, TOUCH = 0, 1, 2
MODELS = {"queue": QUEUE, "trade_through": TRADE_THROUGH, "touch": TOUCH}


# ── what the market does to resting orders ───────────────────────────────────────────────────────────────────────────


@kernel
def _through(market: Any, instrument: int, side: int, price: int, time_ns: int) -> None:
    """Fill every resting order on `side` whose price is better than `price`: the market went through it."""
    lists, orders = market.lists, market.orders
    at = 2 * instrument + side
    if side == BID and lists[at]["high"] <= price:
        return
    if side == ASK and lists[at]["low"] >= price:
        return
    row = lists[at]["first"]
    while row != NONE:
        following = orders[row]["next"]
        own = orders[row]["price"]
        if (side == BID and own > price) or (side == ASK and own < price):
            fill_resting(market, row, orders[row]["quantity"] - orders[row]["filled"], time_ns)
        row = following


@kernel
def _trade_at(market: Any, instrument: int, side: int, price: int, quantity: int, time_ns: int) -> None:
    """Let a trade at `price` advance and fill the orders resting there, the oldest first."""
    lists, orders = market.lists, market.orders
    at = 2 * instrument + side
    if price < lists[at]["low"] or price > lists[at]["high"]:
        return
    left = quantity  # what our orders have not taken of it
    row = lists[at]["first"]
    while row != NONE:
        following = orders[row]["next"]
        if orders[row]["price"] == price:
            reached = left
            if market.words[MODEL] == QUEUE:
                # The market behind us fills only from what we left, and so does the order behind this one.
                reached = max(0, left - orders[row]["ahead"])
                orders[row]["ahead"] = max(0, orders[row]["ahead"] - left)
                orders[row]["traded"] += quantity
            taken = min(reached, orders[row]["quantity"] - orders[row]["filled"])
            if taken > 0:
                left -= taken
                fill_resting(market, row, taken, time_ns)
        row = following


@kernel
def on_trade(market: Any, instrument: int, price: int, quantity: int, seller_aggressed: bool, time_ns: int) -> None:
    """Let a trade of the market meet our resting orders."""
    _through(market, instrument, BID, price, time_ns)
    _through(market, instrument, ASK, price, time_ns)
    model = market.words[MODEL]
    if model == TOUCH:
        _trade_at(market, instrument, BID, price, quantity, time_ns)
        _trade_at(market, instrument, ASK, price, quantity, time_ns)
    elif model == QUEUE:
        _trade_at(market, instrument, BID if seller_aggressed else ASK, price, quantity, time_ns)


@inlined
def rests_at(market: Any, instrument: int, side: int, price: int) -> bool:
    """Tell whether an order of ours may rest at a price: no is certain."""
    at = 2 * instrument + side
    return bool(market.lists[at]["low"] <= price <= market.lists[at]["high"])


@kernel
def on_level(market: Any, instrument: int, side: int, price: int, previous: int, quantity: int) -> None:
    """Advance the orders queueing at a price: the feed has set the level there from `previous` to `quantity`."""
    orders = market.orders
    row = market.lists[2 * instrument + side]["first"]
    while row != NONE:
        if orders[row]["price"] == price:
            beyond = max(0, previous - quantity - orders[row]["traded"])
            orders[row]["ahead"] = max(0, min(orders[row]["ahead"] - beyond, quantity))
            orders[row]["traded"] = 0
        row = orders[row]["next"]


@kernel
def on_event_end(market: Any, instrument: int, time_ns: int) -> None:
    """After a whole depth event: an order whose price the book has crossed is filled."""
    best_ask = best_price(market.books, instrument, ASK)
    if best_ask != 0:
        _through(market, instrument, BID, best_ask - 1, time_ns)
    best_bid = best_price(market.books, instrument, BID)
    if best_bid != 0:
        _through(market, instrument, ASK, best_bid + 1, time_ns)


@kernel
def requeue(market: Any, instrument: int) -> None:
    """After a new snapshot: nothing more than what rests at its price can be in front of an order."""
    orders = market.orders
    for side in (BID, ASK):
        row = market.lists[2 * instrument + side]["first"]
        while row != NONE:
            level = quantity_at(market.books, instrument, side, orders[row]["price"])
            orders[row]["ahead"] = min(orders[row]["ahead"], level)
            orders[row]["traded"] = 0
            row = orders[row]["next"]


# ── taking ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def would_take(market: Any, instrument: int, side: int, price: int) -> bool:
    """Tell whether a limit order of `side` (BUY or SELL) at `price` would meet the other side's best."""
    best = best_price(market.books, instrument, ASK if side == m.BUY else BID)
    if best == 0:
        return False
    return best <= price if side == m.BUY else best >= price


@kernel
def _visible(market: Any, row: int) -> int:
    """Copy the levels an order may take into the scratch arrays, best first; return how many."""
    orders = market.orders
    leaves = orders[row]["quantity"] - orders[row]["filled"]
    buying = orders[row]["side"] == m.BUY
    other = ASK if buying else BID
    # A few levels are enough for nearly every order.
    size = 8
    while True:
        count = top(market.books, orders[row]["instrument"], other, market.prices, market.quantities, size)
        reachable, total = 0, 0
        while reachable < count and total < leaves:
            price = market.prices[reachable]
            beyond = price > orders[row]["price"] if buying else price < orders[row]["price"]
            if beyond and has_limit(orders[row]["order_type"]):
                return reachable
            total += market.quantities[reachable]
            reachable += 1
        if count < size or total >= leaves or size >= LEVELS_MAX:
            return reachable
        size *= 4


@kernel
def _before(market: Any, row: int, own: int) -> int:
    """Copy the levels an order may take before it meets our order `own`, if that is not NONE; return how many."""
    orders = market.orders
    levels = _visible(market, row)
    if own == NONE:
        return levels
    limit, side = orders[own]["price"], orders[row]["side"]
    for i in range(levels):
        if market.prices[i] == limit:
            market.quantities[i] = min(market.quantities[i], orders[own]["ahead"])
            return i + 1
        if (market.prices[i] - limit) * side > 0:
            return i
    return levels


@kernel
def can_fill(market: Any, row: int, own: int) -> bool:
    """Tell whether an order could take all it wants before it meets our order `own`, if that is not NONE."""
    total = 0
    for i in range(_before(market, row, own)):
        total += market.quantities[i]
    return bool(total >= market.orders[row]["quantity"] - market.orders[row]["filled"])


@kernel
def take(market: Any, row: int, own: int, time_ns: int) -> None:
    """Let an order take what it can, one fill a level, until it meets our order `own`, if that is not NONE.

    What it takes leaves the venue's book until the feed next sets the level.
    """
    orders = market.orders
    levels = _before(market, row, own)
    other = ASK if orders[row]["side"] == m.BUY else BID
    instrument, left = orders[row]["instrument"], orders[row]["quantity"] - orders[row]["filled"]
    for i in range(levels):
        price, taken = market.prices[i], min(left, market.quantities[i])
        if taken == 0:
            break
        set_level(market.books, instrument, other, price, quantity_at(market.books, instrument, other, price) - taken)
        if own != NONE and price == orders[own]["price"]:
            orders[own]["ahead"] -= taken
        left -= taken
        fill(market, row, price, taken, False, time_ns)
