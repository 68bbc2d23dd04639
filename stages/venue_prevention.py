"""Taking at a paper venue, and self-trade prevention: orders of ours that would trade with each other do not.

The mode of the order that takes decides, as at the exchange. It takes what the market has before ours in price and
time; then, at the first of our resting orders, one of the two expires, or both, or both lose what they have in common
(DECREMENT, and TRANSFER, which between orders of one account is the same). Without a mode our orders do not see each
other: they rest beside the market's, and never trade together.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import kernel
from shrivenq.stages import fill_model
from shrivenq.stages import messages as m
from shrivenq.stages import venue_market as market_of
from shrivenq.stages.orders import has_limit
from shrivenq.stages.venue_market import EXPIRED, NONE, OPEN

SELF_TRADE = m.REASON["self_trade"]


@kernel
def first_met(market: Any, instrument: int, side: int, order_type: int, price: int) -> int:
    """Find our resting order that an order of `side` would meet first: the best price, then the oldest; else NONE."""
    orders = market.orders
    found = NONE
    row = market.lists[2 * instrument + market_of.side_of(-side)]["first"]
    while row != NONE:
        own = orders[row]["price"]
        reached = not has_limit(order_type) or (own - price) * side <= 0
        if reached and (found == NONE or (own - orders[found]["price"]) * side < 0):
            found = row
        row = orders[row]["next"]
    return found


@kernel
def _met_by(market: Any, row: int) -> int:
    """Find our resting order that the order in `row` would meet first, if its mode forbids that; else NONE."""
    order = market.orders
    if order[row]["self_trade"] <= m.STP_NONE:
        return NONE
    return first_met(
        market, order[row]["instrument"], order[row]["side"], order[row]["order_type"], order[row]["price"]
    )


@kernel
def _lose(market: Any, row: int, quantity: int, resting: bool, time_ns: int) -> None:
    """Take a prevented quantity from an order; it expires when it has nothing left."""
    orders = market.orders
    order_id = orders[row]["order_id"]
    if quantity < orders[row]["quantity"] - orders[row]["filled"]:
        orders[row]["quantity"] -= quantity
        market_of.report_order(market, row, m.AMENDED, order_id, order_id, SELF_TRADE, time_ns)
    elif quantity > 0:
        if resting:
            market_of.unlink(market, row)
        market_of.finish(market, row, EXPIRED, SELF_TRADE, order_id, time_ns)


@kernel
def _prevent(market: Any, taker: int, maker: int, time_ns: int) -> None:
    """Prevent a match: one or both of the orders lose quantity."""
    orders = market.orders
    mode = orders[taker]["self_trade"]
    from_taker = orders[taker]["quantity"] - orders[taker]["filled"]
    from_maker = orders[maker]["quantity"] - orders[maker]["filled"]
    if mode == m.EXPIRE_TAKER:
        from_maker = 0
    elif mode == m.EXPIRE_MAKER:
        from_taker = 0
    elif mode != m.EXPIRE_BOTH:
        from_taker = from_maker = min(from_taker, from_maker)
    if from_maker > 0:
        _lose(market, maker, from_maker, True, time_ns)
    if from_taker > 0:
        _lose(market, taker, from_taker, False, time_ns)


@kernel
def take(market: Any, row: int, time_ns: int) -> None:
    """Let an order take what it can; nothing at all if it is FOK and that is not enough."""
    orders = market.orders
    met = _met_by(market, row)
    if orders[row]["time_in_force"] == m.FOK:
        passes = orders[row]["self_trade"] == m.EXPIRE_MAKER
        if not fill_model.can_fill(market, row, NONE if passes else met):
            return
    while met != NONE:
        fill_model.take(market, row, met, time_ns)
        if orders[row]["state"] == OPEN:
            _prevent(market, row, met, time_ns)
        if orders[row]["state"] != OPEN:
            return
        met = _met_by(market, row)
    fill_model.take(market, row, NONE, time_ns)
