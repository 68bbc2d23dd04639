"""Contingency: what follows for the other orders of a list when one of them was closed.

    OCO      two orders of one quantity; when one trades, or is triggered, the other expires (`lifecycle.claim`)
    OTO      a working order and one that waits for it to be filled; it expires when the working order ends otherwise
    OTOCO    a working order and a pair that waits for it

What is locked for a pair is the larger of what its orders need, and stands with one of them. Pending orders lock
nothing: what cannot be paid, or would trigger or match at once, when its time comes expires then. Source: the venue's
pages on order lists.
"""

from __future__ import annotations

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.crossing import survey, would_take
from shrivenq.pipeline.exchange.ledger import lock, locked_asset, locking
from shrivenq.pipeline.exchange.lifecycle import end, is_waiting
from shrivenq.pipeline.exchange.reports import report, report_list, report_position
from shrivenq.pipeline.exchange.state import Exchange, has_limit, is_stop, leaves_of
from shrivenq.pipeline.exchange.stops import follow, is_reached, wait
from shrivenq.pipeline.exchange.working import work
from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching
from shrivenq.stages.messages import BUY, LIMIT_MAKER
from shrivenq.stages.money import OVERFLOW


@kernel
def locking_price(exchange: Exchange) -> int:
    """Choose the price at which the order in `requests[0]` locks: its limit, its stop price, or the last price."""
    order, words = exchange.requests[0], exchange.words
    words[s.LOCK_PRICE] = order["stop_price"]
    if has_limit(order["type"]):
        words[s.LOCK_PRICE] = order["price"]
    elif order["stop_price"] == 0:
        words[s.LOCK_PRICE] = exchange.symbols[order["symbol"]]["last_price"]
    return words[s.LOCK_PRICE]


@kernel
def row_of(exchange: Exchange, at: int, leg: int) -> int:
    """Find the row of an order of a list."""
    one = exchange.lists[at]
    return one["row_0"] if leg == 0 else one["row_1"] if leg == 1 else one["row_2"]


@kernel
def is_open(exchange: Exchange, at: int, leg: int) -> bool:
    """Tell whether an order of a list is still open."""
    return exchange.orders[row_of(exchange, at, leg)]["list"] == at + 1


@kernel
def need_of(exchange: Exchange, row: int) -> int:
    """Work out what an order that is to be open by itself must lock."""
    order = exchange.orders[row]
    symbol, side, leaves = order["symbol"], order["side"], leaves_of(exchange, row)
    if side == BUY and not has_limit(order["type"]) and not is_stop(order["type"]):
        survey(exchange, order["account"], order["stp"], symbol, side, 0, leaves, 0)
        return exchange.words[s.COST]
    price = order["price"] if has_limit(order["type"]) else order["lock_price"]
    return locking(exchange, symbol, side, price, leaves)


@kernel
def lock_pair(exchange: Exchange, row: int, other: int) -> None:
    """Lock for two orders what the dearer needs, with the one that has something locked already, or with `row`."""
    holder = other if exchange.orders[other]["locked"] != 0 else row
    lock(exchange, holder, max(need_of(exchange, row), need_of(exchange, other)))


@kernel
def cancel_legs(exchange: Exchange, at: int) -> None:
    """Cancel what is open of a list."""
    for leg in range(exchange.lists[at]["legs"]):
        if is_open(exchange, at, leg):
            row = row_of(exchange, at, leg)
            matching.cancel(exchange.core, exchange.orders[row]["handle"])
            end(exchange, row, s.CANCELED, s.NOT_EXPIRED, s.X_CANCELED)


@kernel
def _may_begin(exchange: Exchange, at: int) -> bool:
    """Tell whether the pending orders of a list may be placed now."""
    needed, order = 0, exchange.orders[row_of(exchange, at, 1)]
    for leg in range(1, exchange.lists[at]["legs"]):
        row = row_of(exchange, at, leg)
        one = exchange.orders[row]
        symbol, side = one["symbol"], one["side"]
        if one["stop_price"] > 0 and is_reached(exchange, symbol, side, one["type"], one["stop_price"]):
            return False
        if one["type"] == LIMIT_MAKER and would_take(exchange, symbol, side, one["price"]):
            return False
        if is_stop(one["type"]) and one["stop_price"] == 0:
            one["lock_price"] = exchange.symbols[symbol]["last_price"]
        need = need_of(exchange, row)
        if need == OVERFLOW:
            return False
        needed = max(needed, need)
    exchange.words[s.COST] = needed
    asset = locked_asset(exchange, order["symbol"], order["side"])
    return exchange.balances[order["account"], asset]["free"] >= needed


@kernel
def start(exchange: Exchange, at: int, first: int, end_leg: int) -> None:
    """Let orders of a list that were just opened, from `first` to before `end_leg`, wait for their price, or work.

    A stop order waits before another works: whatever that does, it finds it in its place.
    """
    for leg in range(first, end_leg):
        if is_waiting(exchange, row_of(exchange, at, leg)):
            wait(exchange, row_of(exchange, at, leg))
    for leg in range(first, end_leg):
        if is_open(exchange, at, leg) and not is_waiting(exchange, row_of(exchange, at, leg)):
            work(exchange, row_of(exchange, at, leg))


@kernel
def _activate(exchange: Exchange, at: int) -> None:
    """Place the pending orders of a list."""
    legs = exchange.lists[at]["legs"]
    if not _may_begin(exchange, at):
        _expire(exchange, at, s.BY_REJECTION)
        return
    lock(exchange, row_of(exchange, at, 1), exchange.words[s.COST])
    for leg in range(1, legs):
        row = row_of(exchange, at, leg)
        order = exchange.orders[row]
        order["status"], order["updated_us"] = s.OPEN, exchange.words[s.NOW_US]
        if not is_stop(order["type"]):
            order["working_us"] = exchange.words[s.NOW_US]
        elif order["trailing_delta"] != 0:
            follow(exchange, row, exchange.symbols[order["symbol"]]["last_price"])
        report(exchange, row, s.X_NEW)
        report_position(exchange, order["account"], order["symbol"])
    start(exchange, at, 1, legs)


@kernel
def _expire(exchange: Exchange, at: int, why: int) -> None:
    """End the pending orders of a list."""
    for leg in range(1, exchange.lists[at]["legs"]):
        if is_open(exchange, at, leg):
            end(exchange, row_of(exchange, at, leg), s.EXPIRED, why, s.X_EXPIRED)


@kernel
def _is_pending(exchange: Exchange, at: int) -> bool:
    """Tell whether orders of a list wait for its working order."""
    return is_open(exchange, at, 1) and exchange.orders[row_of(exchange, at, 1)]["status"] == s.PENDING


@kernel
def follow_up(exchange: Exchange, at: int) -> None:
    """Look at a list of which an order was closed: let the pending orders begin or end, and tell when all is done."""
    one = exchange.lists[at]
    one["waits"] = 0
    if one["kind"] != s.OCO and not is_open(exchange, at, 0) and _is_pending(exchange, at):
        if exchange.orders[one["row_0"]]["status"] == s.FILLED:
            _activate(exchange, at)
        else:
            _expire(exchange, at, s.BY_OTO)
    for leg in range(one["legs"]):
        if is_open(exchange, at, leg):
            return
    if one["executing"] != 0:
        one["executing"] = 0
        one["updated_us"] = exchange.words[s.NOW_US]
        exchange.counts[one["account"], one["symbol"]]["order_lists"] -= 1
        exchange.accounts[one["account"]]["order_lists"] -= 1
        report_list(exchange, at, s.ALL_DONE)
