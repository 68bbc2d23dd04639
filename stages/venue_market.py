"""What a paper venue holds: books, our orders beside them, what they traded, and the reports on their way out.

Our resting orders are in lists, one per instrument and side, oldest first. An order keeps its row when it is over, so
that a query finds it, until all older rows have been used again. Reports wait in a queue until they are due.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import kernel
from shrivenq.stages import id_map, money
from shrivenq.stages import messages as m
from shrivenq.stages.id_map import IdMap
from shrivenq.stages.order_book import ASK, BID, Books, quantity_at

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
        ("stop_price", "<i8"),
        ("waiting", "<i8"),  # 1 while it is a stop order that was not triggered yet
        ("self_trade", "<i8"),
        ("quantity", "<i8"),
        ("filled", "<i8"),
        ("ahead", "<i8"),  # queue: market quantity in front of it
        ("traded", "<i8"),  # queue: volume traded at its price since the feed last set that level
        ("state", "<i8"),
        ("reason", "<i8"),
        ("next", "<i8"),  # resting orders of one instrument and side, oldest first, or stop orders; -1 ends the list
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
STOPS = np.dtype(
    [("last_price", "<i8"), ("rising", "<i8"), ("falling", "<i8")],  # first order that waits for that; -1 for none
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


@by_reference
class Market(NamedTuple):
    """Everything the venue knows."""

    instruments: Any
    currencies: Any
    books: Books
    orders: Any  # VENUE_ORDER
    ids: IdMap  # order id → row
    lists: Any  # LIST per instrument and side
    stops: Any  # STOPS per instrument
    closed: Any  # int64 ring of rows whose order is over
    trades: Any  # TRADED, the last ones: a query is answered from it
    reports: Any  # REPORT, a ring; `time_ns` is when each is due
    prices: Any  # scratch of one walk
    quantities: Any
    words: Any


def make_market(
    instruments: Any, currencies: Any, books: Books, model: int, report_latency_ns: int, count: int = 1 << 14
) -> Market:
    """Allocate a market for `instruments` (INSTRUMENT) beside `books`; it remembers `count` orders, a power of two.

    `model` is one of `fill_model.MODELS`.
    """
    words = np.zeros(WORDS, np.int64)
    words[MODEL] = model
    words[REPORT_LATENCY_NS] = report_latency_ns
    words[NEXT_ORDER] = words[NEXT_TRADE] = 1
    lists = np.zeros(2 * len(instruments), LIST)
    lists["first"] = lists["last"] = NONE
    lists["low"], lists["high"] = NO_LOW, NO_HIGH
    stops = np.zeros(len(instruments), STOPS)
    stops["rising"] = stops["falling"] = NONE
    return Market(
        instruments,
        currencies,
        books,
        np.zeros(count, VENUE_ORDER),
        id_map.make_map(count),
        lists,
        stops,
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
    market.orders[row]["waiting"] = 0
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
def finish(market: Any, row: int, state: int, reason: int, request_id: int, time_ns: int) -> None:
    """End an open order that is in no list, CANCELLED or EXPIRED, and say so."""
    close(market, row, state)
    market.orders[row]["reason"] = reason
    kind = m.CANCELLED if state == CANCELLED else m.EXPIRED
    report_order(market, row, kind, request_id, market.orders[row]["order_id"], reason, time_ns)


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
def fill_resting(market: Any, row: int, quantity: int, time_ns: int) -> None:
    """Fill a resting order at its own price; out of its list when nothing is left."""
    if quantity == market.orders[row]["quantity"] - market.orders[row]["filled"]:
        unlink(market, row)
    fill(market, row, market.orders[row]["price"], quantity, True, time_ns)
