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

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm.kernel import kernel
from shrivenq.stages import id_map, money
from shrivenq.stages import messages as m
from shrivenq.stages.id_map import IdMap
from shrivenq.stages.order_book import ASK, BID, Books, best_price, quantity_at, set_level, top

QUEUE, TRADE_THROUGH, TOUCH = 0, 1, 2
MODELS = {"queue": QUEUE, "trade_through": TRADE_THROUGH, "touch": TOUCH}

OPEN, FILLED, CANCELLED, EXPIRED = 1, 2, 3, 4

# Fields that are passed on are int64 throughout: each narrower type would compile every kernel they go through again.
VENUE_ORDER = np.dtype(
    [
        ("order_id", "<i8"),
        ("venue_order_id", "<i8"),
        ("instrument", "<i8"),
        ("side", "<i8"),
        ("order_type", "<i8"),
        ("time_in_force", "<i8"),
        ("price", "<i8"),
        ("quantity", "<i8"),
        ("filled", "<i8"),
        ("ahead", "<i8"),  # queue: market quantity in front of it
        ("traded", "<i8"),  # queue: volume traded at its price since the feed last set that level
        ("state", "<i8"),
        ("reason", "<i8"),
        ("next", "<i8"),  # resting orders of one instrument and side, oldest first; -1 ends the list
        ("previous", "<i8"),
        ("cause", "<i8"),
        ("slot", "<i8"),
        ("generation", "<i8"),
    ],
    align=True,
)

LIST = np.dtype(
    [("first", "<i8"), ("last", "<i8"), ("low", "<i8"), ("high", "<i8")],  # lowest and highest price in the list
    align=True,
)
NO_LOW, NO_HIGH = 2**63 - 1, -1

TRADED = np.dtype(
    [
        ("order_id", "<i8"),
        ("trade_id", "<i8"),
        ("price", "<i8"),
        ("quantity", "<i8"),
        ("fee", "<i8"),
        ("venue_ns", "<i8"),
        ("filled", "<i8"),  # of the order, after it
        ("flags", "<i8"),
    ],
    align=True,
)

# Words of a market.
MODEL = 0
REPORT_LATENCY_NS = 1
REPORTS_HEAD, REPORTS_TAIL = 2, 3  # the queue of reports
LAST_DUE_NS = 4
ROWS_USED = 5  # rows of the table ever used
CLOSED_HEAD, CLOSED_TAIL = 6, 7  # rows whose order is over, oldest first
NEXT_ORDER, NEXT_TRADE = 8, 9  # the venue's own ids
OPEN_COUNT = 10
WORDS = 16

LEVELS_MAX = 1024  # visible levels one order may take
NONE = -1


class Market(NamedTuple):
    """Everything the venue knows."""

    instruments: Any
    currencies: Any
    books: Books
    orders: Any  # VENUE_ORDER
    ids: IdMap  # order id → row
    lists: Any  # LIST per instrument and side
    closed: Any  # int64 ring of rows whose order is over
    trades: Any  # TRADED, the last ones: a query is answered from it
    reports: Any  # REPORT, a ring; `time_ns` is when each is due
    prices: Any  # scratch of one walk
    quantities: Any
    words: Any


def make_market(
    instruments: Any, currencies: Any, books: Books, model: str, report_latency_ns: int, count: int = 1 << 14
) -> Market:
    """Allocate a market for `instruments` (INSTRUMENT) beside `books`; it remembers `count` orders, a power of two.

    Raises ValueError for a model that is not in MODELS.
    """
    if model not in MODELS:
        raise ValueError(f"no fill model {model!r}: there are {', '.join(MODELS)}")
    words = np.zeros(WORDS, np.int64)
    words[MODEL] = MODELS[model]
    words[REPORT_LATENCY_NS] = report_latency_ns
    words[NEXT_ORDER] = words[NEXT_TRADE] = 1
    lists = np.zeros(2 * len(instruments), LIST)
    lists["first"] = lists["last"] = NONE
    lists["low"], lists["high"] = NO_LOW, NO_HIGH
    return Market(
        instruments,
        currencies,
        books,
        np.zeros(count, VENUE_ORDER),
        id_map.make_map(count),
        lists,
        np.zeros(count, np.int64),
        np.zeros(4 * count, TRADED),
        np.zeros(4 * count, m.REPORT),
        np.zeros(LEVELS_MAX, np.int64),
        np.zeros(LEVELS_MAX, np.int64),
        words,
    )


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def report_room(market: Any) -> int:
    """Count the reports that still fit the queue."""
    return market.reports.shape[0] - (market.words[REPORTS_TAIL] - market.words[REPORTS_HEAD])


@kernel
def queue_report(market: Any, kind: int, order_id: int, target_id: int, reason: int, time_ns: int) -> int:
    """Queue a report of what happened at `time_ns`, due one latency later; return its row for further fields."""
    words = market.words
    at = words[REPORTS_TAIL] & (market.reports.shape[0] - 1)
    words[REPORTS_TAIL] += 1
    due = max(words[LAST_DUE_NS], time_ns + words[REPORT_LATENCY_NS])
    words[LAST_DUE_NS] = due
    reports = market.reports
    reports[at]["time_ns"] = due
    reports[at]["kind"] = kind
    reports[at]["flags"] = 0
    reports[at]["order_id"] = order_id
    reports[at]["target_id"] = target_id
    reports[at]["reason"] = reason
    reports[at]["venue_ns"] = time_ns
    reports[at]["venue_order_id"] = 0
    reports[at]["trade_id"] = 0
    reports[at]["last_price"] = 0
    reports[at]["last_quantity"] = 0
    reports[at]["filled"] = 0
    reports[at]["leaves"] = 0
    reports[at]["fee"] = 0
    reports[at]["fee_currency"] = 0
    return at


@kernel
def report_order(market: Any, row: int, kind: int, request_id: int, target_id: int, reason: int, time_ns: int) -> int:
    """Queue a report about the order in `row`; `request_id` is the order or the request reported on."""
    at = queue_report(market, kind, request_id, target_id, reason, time_ns)
    order = market.orders
    reports = market.reports
    reports[at]["cause"] = order[row]["cause"]
    reports[at]["instrument"] = order[row]["instrument"]
    reports[at]["venue_order_id"] = order[row]["venue_order_id"]
    reports[at]["filled"] = order[row]["filled"]
    reports[at]["side"] = order[row]["side"]
    reports[at]["price"] = order[row]["price"]
    reports[at]["quantity"] = order[row]["quantity"]
    reports[at]["slot"] = order[row]["slot"]
    reports[at]["generation"] = order[row]["generation"]
    if order[row]["state"] == OPEN:
        reports[at]["leaves"] = order[row]["quantity"] - order[row]["filled"]
    elif kind != m.REPLACED:
        reports[at]["flags"] = m.FINAL
    return at


@kernel
def report_trade(market: Any, row: int, trade: int, time_ns: int) -> None:
    """Queue the FILL that `trades[trade]` was, said at `time_ns`: at once, or again in answer to a query."""
    trades = market.trades
    order_id = market.orders[row]["order_id"]
    at = report_order(market, row, m.FILL, order_id, 0, 0, time_ns)
    reports = market.reports
    leaves = market.orders[row]["quantity"] - trades[trade]["filled"]
    reports[at]["venue_ns"] = trades[trade]["venue_ns"]
    reports[at]["trade_id"] = trades[trade]["trade_id"]
    reports[at]["last_price"] = trades[trade]["price"]
    reports[at]["last_quantity"] = trades[trade]["quantity"]
    reports[at]["filled"] = trades[trade]["filled"]
    reports[at]["leaves"] = leaves
    reports[at]["fee"] = trades[trade]["fee"]
    reports[at]["fee_currency"] = market.instruments[market.orders[row]["instrument"]]["settle_currency"]
    reports[at]["flags"] = trades[trade]["flags"] | (m.FINAL if leaves == 0 else 0)


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def side_of(side: int) -> int:
    """Tell the side of the book on which an order rests."""
    return BID if side == m.BUY else ASK


@kernel
def _widen(market: Any, row: int) -> None:
    """Let the bounds of the order's list include its price."""
    at = 2 * market.orders[row]["instrument"] + side_of(market.orders[row]["side"])
    price = market.orders[row]["price"]
    if price < market.lists[at]["low"]:
        market.lists[at]["low"] = price
    if price > market.lists[at]["high"]:
        market.lists[at]["high"] = price


@kernel
def rest(market: Any, row: int) -> None:
    """Put an order at the end of its list, behind what rests at its price now."""
    orders, lists = market.orders, market.lists
    side = side_of(orders[row]["side"])
    instrument = orders[row]["instrument"]
    at = 2 * instrument + side
    orders[row]["ahead"] = quantity_at(market.books, instrument, side, orders[row]["price"])
    orders[row]["traded"] = 0
    orders[row]["next"] = NONE
    orders[row]["previous"] = lists[at]["last"]
    if lists[at]["last"] == NONE:
        lists[at]["first"] = row
    else:
        orders[lists[at]["last"]]["next"] = row
    lists[at]["last"] = row
    _widen(market, row)


@kernel
def unlink(market: Any, row: int) -> None:
    """Take an order out of its list."""
    orders, lists = market.orders, market.lists
    at = 2 * orders[row]["instrument"] + side_of(orders[row]["side"])
    before, after = orders[row]["previous"], orders[row]["next"]
    if before == NONE:
        lists[at]["first"] = after
    else:
        orders[before]["next"] = after
    if after == NONE:
        lists[at]["last"] = before
    else:
        orders[after]["previous"] = before
    price = orders[row]["price"]
    if price == lists[at]["low"] or price == lists[at]["high"]:
        lists[at]["low"] = NO_LOW
        lists[at]["high"] = NO_HIGH
        other = lists[at]["first"]
        while other != NONE:
            _widen(market, other)
            other = orders[other]["next"]


@kernel
def enter(market: Any, order_id: int) -> int:
    """Take a row for an order: one never used, else the one over for longest; NONE if every order is open."""
    words = market.words
    if words[ROWS_USED] < market.orders.shape[0]:
        row = words[ROWS_USED]
        words[ROWS_USED] += 1
    elif words[CLOSED_HEAD] < words[CLOSED_TAIL]:
        row = market.closed[words[CLOSED_HEAD] & (market.closed.shape[0] - 1)]
        words[CLOSED_HEAD] += 1
        id_map.remove(market.ids, market.orders[row]["order_id"], 0)
    else:
        return NONE
    id_map.put(market.ids, order_id, 0, row)
    market.orders[row]["order_id"] = order_id
    market.orders[row]["venue_order_id"] = words[NEXT_ORDER]
    market.orders[row]["filled"] = 0
    market.orders[row]["state"] = OPEN
    words[NEXT_ORDER] += 1
    words[OPEN_COUNT] += 1
    return row


@kernel
def close(market: Any, row: int, state: int) -> None:
    """End an order that is in no list any more; its row is used again when all older ones have been."""
    market.orders[row]["state"] = state
    market.closed[market.words[CLOSED_TAIL] & (market.closed.shape[0] - 1)] = row
    market.words[CLOSED_TAIL] += 1
    market.words[OPEN_COUNT] -= 1


@kernel
def fill(market: Any, row: int, price: int, quantity: int, maker: bool, time_ns: int) -> None:
    """Trade `quantity` of an order at `price`: its account, its fee, its report."""
    orders, words, instruments = market.orders, market.words, market.instruments
    instrument = orders[row]["instrument"]
    orders[row]["filled"] += quantity
    rate = instruments[instrument]["maker_fee"] if maker else instruments[instrument]["taker_fee"]
    rounding = money.CEIL if rate >= 0 else money.FLOOR
    value = money.notional(instruments, instrument, price, quantity, market.currencies, rounding)
    at = words[NEXT_TRADE] & (market.trades.shape[0] - 1)
    trades = market.trades
    trades[at]["order_id"] = orders[row]["order_id"]
    trades[at]["trade_id"] = words[NEXT_TRADE]
    trades[at]["price"] = price
    trades[at]["quantity"] = quantity
    trades[at]["fee"] = money.fee(value, rate)
    trades[at]["venue_ns"] = time_ns
    trades[at]["filled"] = orders[row]["filled"]
    trades[at]["flags"] = m.MAKER if maker else 0
    words[NEXT_TRADE] += 1
    if orders[row]["filled"] == orders[row]["quantity"]:
        close(market, row, FILLED)
    report_trade(market, row, at, time_ns)


@kernel
def _fill_resting(market: Any, row: int, quantity: int, time_ns: int) -> None:
    """Fill a resting order at its own price; out of its list when nothing is left."""
    if quantity == market.orders[row]["quantity"] - market.orders[row]["filled"]:
        unlink(market, row)
    fill(market, row, market.orders[row]["price"], quantity, True, time_ns)


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
            _fill_resting(market, row, orders[row]["quantity"] - orders[row]["filled"], time_ns)
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
                _fill_resting(market, row, taken, time_ns)
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


@kernel
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
    buying = orders[row]["side"] == m.BUY
    other = ASK if buying else BID
    # A few levels are enough for nearly every order.
    size = 8
    while True:
        count = top(market.books, orders[row]["instrument"], other, market.prices, market.quantities, size)
        reachable, total = 0, 0
        while reachable < count and total < orders[row]["quantity"]:
            price = market.prices[reachable]
            beyond = price > orders[row]["price"] if buying else price < orders[row]["price"]
            if beyond and orders[row]["order_type"] != m.MARKET:
                return reachable
            total += market.quantities[reachable]
            reachable += 1
        if count < size or total >= orders[row]["quantity"] or size >= LEVELS_MAX:
            return reachable
        size *= 4


@kernel
def take(market: Any, row: int, time_ns: int) -> None:
    """Let an order take what it can: one fill a level, nothing at all if it is FOK and that is not enough.

    What it takes leaves the venue's book until the feed next sets the level.
    """
    orders = market.orders
    levels = _visible(market, row)
    wanted = orders[row]["quantity"]
    if orders[row]["time_in_force"] == m.FOK:
        total = 0
        for i in range(levels):
            total += market.quantities[i]
        if total < wanted:
            return
    other = ASK if orders[row]["side"] == m.BUY else BID
    left = wanted
    for i in range(levels):
        taken = min(left, market.quantities[i])
        set_level(market.books, orders[row]["instrument"], other, market.prices[i], market.quantities[i] - taken)
        left -= taken
        fill(market, row, market.prices[i], taken, False, time_ns)
