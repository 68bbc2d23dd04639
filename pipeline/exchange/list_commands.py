"""List commands: place and cancel order lists.

The orders of a list are in `requests[1]` and behind, in the order in which `state.ORDER_LIST` names them. Answers are
codes of `refusals.py`, 0 for done.
"""

from __future__ import annotations

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.commands import (
    BALANCE,
    CANCEL_CLOSED,
    MARKET_CLOSED,
    WOULD_MATCH,
    WOULD_TRIGGER,
)
from shrivenq.pipeline.exchange.contingency import cancel_legs, locking_price, start
from shrivenq.pipeline.exchange.crossing import would_take
from shrivenq.pipeline.exchange.filters import EXCHANGE_MAX_NUM_ORDERS, NONE, OVERFLOWS, check, check_lists
from shrivenq.pipeline.exchange.ledger import locked_asset, locking
from shrivenq.pipeline.exchange.lifecycle import begin
from shrivenq.pipeline.exchange.refusals import CODE
from shrivenq.pipeline.exchange.reports import report_list
from shrivenq.pipeline.exchange.state import Exchange, is_stop
from shrivenq.pipeline.exchange.stops import is_reached
from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import BUY, LIMIT_MAKER
from shrivenq.stages.money import OVERFLOW

OCO_PRICES = CODE["oco_prices"]
UNKNOWN_LIST = CODE["unknown_list"]


@kernel
def _look_at(exchange: Exchange, leg: int) -> None:
    """Make an order of the list the one that is looked at."""
    exchange.requests[0] = exchange.requests[1 + leg]


@kernel
def _count(exchange: Exchange, change: int) -> None:
    """Count the order in `requests[0]` in (1) or out (-1), while those beside it are checked."""
    order = exchange.requests[0]
    here, everywhere = exchange.counts[order["account"], order["symbol"]], exchange.accounts[order["account"]]
    here["orders"] += change
    everywhere["orders"] += change
    if is_stop(order["type"]):
        here["algo_orders"] += change
        everywhere["algo_orders"] += change
    if order["iceberg"] != 0:
        here["icebergs"] += change
        everywhere["icebergs"] += change
    if order["side"] == BUY:
        here["buying"] += change * order["quantity"]


@kernel
def _check_all(exchange: Exchange, legs: int) -> int:
    """Check every order of the list against every filter, each as if those before it were placed."""
    counted, code = 0, NONE
    while counted < legs and code == NONE:
        _look_at(exchange, counted)
        code = check(exchange)
        if code == NONE:
            _count(exchange, 1)
            counted += 1
    for leg in range(counted):
        _look_at(exchange, leg)
        _count(exchange, -1)
    return code


@kernel
def _bound(exchange: Exchange, leg: int) -> int:
    """Find the price of an order of a pair that must be above or below the market; 0 for one that only trails."""
    order = exchange.requests[1 + leg]
    return order["stop_price"] if is_stop(order["type"]) else order["price"]


@kernel
def _prices_fit(exchange: Exchange, kind: int) -> bool:
    """Tell whether one order of a pair is above the other, and, if they are to be placed now, the market between."""
    first = 0 if kind == s.OCO else 1
    above, below = _bound(exchange, first), _bound(exchange, first + 1)
    last = exchange.symbols[exchange.requests[1]["symbol"]]["last_price"]
    if above > 0 and below > 0 and above <= below:
        return False
    if kind != s.OCO or last == 0:
        return True
    return (above == 0 or above > last) and below < last


@kernel
def _admit_now(exchange: Exchange) -> int:
    """Check whether the order in `requests[0]` may be placed at once; what it must lock is in `words[COST]`."""
    order, words = exchange.requests[0], exchange.words
    symbol, side = order["symbol"], order["side"]
    if order["stop_price"] > 0 and is_reached(exchange, symbol, side, order["type"], order["stop_price"]):
        return WOULD_TRIGGER
    if order["type"] == LIMIT_MAKER and would_take(exchange, symbol, side, order["price"]):
        return WOULD_MATCH
    if not is_stop(order["type"]) and exchange.core.ladders[symbol]["free"] < 0:
        return EXCHANGE_MAX_NUM_ORDERS
    words[s.COST] = locking(exchange, symbol, side, locking_price(exchange), order["quantity"])
    return OVERFLOWS if words[s.COST] == OVERFLOW else NONE


@kernel
def _admit(exchange: Exchange, kind: int, legs: int) -> int:
    """Check whether a list may be placed; nothing changes. What it must lock is in `words[COST]`."""
    order, words = exchange.requests[1], exchange.words
    account, symbol, side = order["account"], order["symbol"], order["side"]
    if exchange.symbols[symbol]["status"] != s.TRADING:
        return MARKET_CLOSED
    code = check_lists(exchange, account, symbol)
    if code == NONE:
        code = _check_all(exchange, legs)
    if code != NONE:
        return code
    if kind != s.OTO and not _prices_fit(exchange, kind):
        return OCO_PRICES
    if words[s.QUEUE_TAIL] - words[s.QUEUE_HEAD] < legs:
        return EXCHANGE_MAX_NUM_ORDERS
    needed = 0
    for leg in range(2 if kind == s.OCO else 1):
        _look_at(exchange, leg)
        code = _admit_now(exchange)
        if code != NONE:
            return code
        needed = max(needed, words[s.COST])
    words[s.COST] = needed
    asset = locked_asset(exchange, symbol, side)
    return BALANCE if exchange.balances[account, asset]["free"] < needed else NONE


@kernel
def _begin(exchange: Exchange, kind: int, legs: int) -> int:
    """Open a list, of which no order is there yet; return its row."""
    words, order = exchange.words, exchange.requests[1]
    words[s.LIST_ID] += 1
    at = words[s.LIST_ID] % exchange.lists.shape[0]
    while exchange.lists[at]["executing"] != 0:
        # One that is older than all that came since; there are never more open ones than rows.
        at = (at + 1) % exchange.lists.shape[0]
    one = exchange.lists[at]
    one["list_id"], one["kind"], one["legs"] = words[s.LIST_ID], kind, legs
    one["account"], one["symbol"] = order["account"], order["symbol"]
    one["executing"], one["waits"] = 1, 0
    one["created_us"] = one["updated_us"] = words[s.NOW_US]
    exchange.counts[one["account"], one["symbol"]]["order_lists"] += 1
    exchange.accounts[one["account"]]["order_lists"] += 1
    return at


@kernel
def place_list(exchange: Exchange, kind: int, legs: int) -> int:
    """Place the list in `requests[1]` and behind; its row is in `words[LIST]`."""
    words = exchange.words
    words[s.LIST] = -1
    code = _admit(exchange, kind, legs)
    if code != NONE:
        return code
    locked = words[s.COST]
    at = _begin(exchange, kind, legs)
    words[s.LIST] = at
    one = exchange.lists[at]
    for leg in range(legs):
        _look_at(exchange, leg)
        locking_price(exchange)
        status = s.PENDING if kind != s.OCO and leg > 0 else s.OPEN
        row = begin(exchange, exchange.requests[0]["quantity"], locked if leg == 0 else 0, at, status)
        order_id = exchange.orders[row]["order_id"]
        if leg == 0:
            one["row_0"], one["id_0"] = row, order_id
        elif leg == 1:
            one["row_1"], one["id_1"] = row, order_id
        else:
            one["row_2"], one["id_2"] = row, order_id
    report_list(exchange, at, s.STARTED)
    start(exchange, at, 0, 2 if kind == s.OCO else 1)
    return NONE


@kernel
def cancel_list(exchange: Exchange, at: int) -> int:
    """Cancel what is open of the list in row `at`."""
    one = exchange.lists[at]
    if exchange.symbols[one["symbol"]]["status"] == s.BREAK:
        return CANCEL_CLOSED
    if one["executing"] == 0:
        return UNKNOWN_LIST
    cancel_legs(exchange, at)
    return NONE
