"""Commands: place, cancel and amend orders, and what follows from them.

Each answers with a code of `refusals.py`, 0 for done, and leaves the row of the order in `words[ROW]`. After every one
of them the last price may trigger stop orders, which trade in turn; `settle_down` sees to that.
"""

from __future__ import annotations

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.contingency import cancel_legs, follow_up, lock_pair, locking_price
from shrivenq.pipeline.exchange.crossing import market_step, survey, would_take
from shrivenq.pipeline.exchange.filters import (
    EXCHANGE_MAX_NUM_ORDERS,
    LOT_SIZE,
    MARKET_LOT_SIZE,
    NONE,
    OVERFLOWS,
    check,
    check_amounts,
    check_notional,
    check_quantity,
)
from shrivenq.pipeline.exchange.ledger import lock, locked_asset, locking, relock
from shrivenq.pipeline.exchange.lifecycle import begin, claim, close, end, is_waiting, partner_of, stop_waiting
from shrivenq.pipeline.exchange.refusals import CODE
from shrivenq.pipeline.exchange.reports import has_room, report, report_position, report_touch
from shrivenq.pipeline.exchange.state import Exchange, has_limit, is_stop, leaves_of
from shrivenq.pipeline.exchange.stops import NOBODY, is_reached, next_triggered, wait
from shrivenq.pipeline.exchange.working import work
from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching
from shrivenq.stages.id_map import ABSENT, find
from shrivenq.stages.messages import BUY, GTC, LIMIT_MAKER, MARKET
from shrivenq.stages.money import OVERFLOW

MARKET_CLOSED = CODE["market_closed"]
BALANCE = CODE["balance"]
WOULD_TRIGGER = CODE["would_trigger"]
WOULD_MATCH = CODE["would_match"]
THIN_BOOK = CODE["thin_book"]
THIN_MARKET_BOOK = CODE["thin_market_book"]
EMPTY_BOOK = CODE["empty_book"]
UNKNOWN_ORDER = CODE["unknown_order"]
CANCEL_CLOSED = CODE["cancel_closed"]
RESTRICTED = CODE["restricted"]
AMEND_UNKNOWN = CODE["amend_unknown"]
AMEND_CLOSED = CODE["amend_closed"]
AMEND_QUANTITY = CODE["amend_quantity"]
AMEND_FILTER = CODE["amend_filter"]
AMEND_NOTIONAL = CODE["amend_notional"]
AMEND_MIN_NOTIONAL = CODE["amend_min_notional"]
MAX_AMENDS = CODE["max_amends"]

# `restrictions` of a cancel.
ANY, ONLY_NEW, ONLY_PARTIALLY_FILLED = range(3)


@kernel
def _quote_quantity(exchange: Exchange) -> int:
    """Find, in `words[SURVEYED]`, the quantity that the quote quantity of `requests[0]` buys or needs sold."""
    order, words = exchange.requests[0], exchange.words
    symbol = order["symbol"]
    survey(exchange, order["account"], order["stp"], symbol, order["side"], 0, 0, order["quote_quantity"])
    words[s.SURVEYED] -= words[s.SURVEYED] % market_step(exchange, symbol)
    if words[s.SURVEYED] == 0 and words[s.SHORT] != 0:
        return EMPTY_BOOK
    code = check_quantity(exchange, symbol, MARKET, words[s.SURVEYED])
    if words[s.SHORT] != 0:
        if code == LOT_SIZE:
            return THIN_BOOK
        if code == MARKET_LOT_SIZE:
            return THIN_MARKET_BOOK
    return check_amounts(exchange, words[s.SURVEYED], order["quote_quantity"]) if code == NONE else code


@kernel
def _needed(exchange: Exchange) -> int:
    """Work out what the order in `requests[0]` must lock; its quantity is in `words[SURVEYED]` afterwards."""
    order, words = exchange.requests[0], exchange.words
    symbol, side, quantity = order["symbol"], order["side"], order["quantity"]
    if order["quote_quantity"] > 0:
        return order["quote_quantity"] if side == BUY else locking(exchange, symbol, side, 0, words[s.SURVEYED])
    words[s.SHORT] = 0
    if order["type"] == MARKET and side == BUY:
        survey(exchange, order["account"], order["stp"], symbol, side, 0, quantity, 0)
        words[s.SURVEYED], words[s.SHORT] = quantity, 0
        return words[s.COST]
    words[s.SURVEYED] = quantity
    return locking(exchange, symbol, side, locking_price(exchange), quantity)


@kernel
def admit(exchange: Exchange) -> int:
    """Check whether the order in `requests[0]` may be placed; 0 if so. Nothing changes.

    What it must lock is in `words[COST]`, its quantity in `words[SURVEYED]`.
    """
    order, words = exchange.requests[0], exchange.words
    symbol, side = order["symbol"], order["side"]
    if exchange.symbols[symbol]["status"] != s.TRADING:
        return MARKET_CLOSED
    code = check(exchange)
    if code == NONE and order["quote_quantity"] > 0:
        code = _quote_quantity(exchange)
    if code != NONE:
        return code
    if order["stop_price"] > 0 and is_reached(exchange, symbol, side, order["type"], order["stop_price"]):
        return WOULD_TRIGGER
    if order["type"] == LIMIT_MAKER and would_take(exchange, symbol, side, order["price"]):
        return WOULD_MATCH
    rests = order["time_in_force"] == GTC and has_limit(order["type"]) and not is_stop(order["type"])
    if words[s.QUEUE_HEAD] == words[s.QUEUE_TAIL] or (rests and exchange.core.ladders[symbol]["free"] < 0):
        return EXCHANGE_MAX_NUM_ORDERS
    words[s.COST] = _needed(exchange)
    if words[s.COST] == OVERFLOW:
        return OVERFLOWS
    asset = locked_asset(exchange, symbol, side)
    return BALANCE if exchange.balances[order["account"], asset]["free"] < words[s.COST] else NONE


@kernel
def _trigger(exchange: Exchange, row: int) -> None:
    """Let a stop order whose price was reached do what it waited for."""
    order = exchange.orders[row]
    claim(exchange, row)
    stop_waiting(exchange, row)
    report(exchange, row, s.X_NEW)
    if not has_limit(order["type"]) and order["side"] == BUY:
        # It locked its stop price or the last one there was; what the book asks may be more.
        leaves = leaves_of(exchange, row)
        survey(exchange, order["account"], order["stp"], order["symbol"], BUY, 0, leaves, 0)
        cost = exchange.words[s.COST]
        asset = locked_asset(exchange, order["symbol"], BUY)
        if exchange.balances[order["account"], asset]["free"] + order["locked"] < cost:
            end(exchange, row, s.EXPIRED, s.BY_REJECTION, s.X_EXPIRED)
            return
        lock(exchange, row, cost)
    work(exchange, row)


@kernel
def settle_down(exchange: Exchange, symbol: int) -> bool:
    """Let what follows from a command follow: order lists go on, stop orders that are triggered trade, until none is.

    False if events need room first.
    """
    words = exchange.words
    while True:
        is_due = words[s.DUE_HEAD] != words[s.DUE_TAIL]
        row = NOBODY if is_due else next_triggered(exchange, symbol)
        if row < 0 and not is_due:
            report_touch(exchange, symbol)
            return True
        if not has_room(exchange, symbol):
            return False
        if is_due:
            words[s.DUE_HEAD] += 1
            follow_up(exchange, exchange.due[(words[s.DUE_HEAD] - 1) % exchange.due.shape[0]])
        else:
            _trigger(exchange, row)


@kernel
def place(exchange: Exchange) -> int:
    """Place the order in `requests[0]`."""
    words = exchange.words
    words[s.ROW] = -1
    code = admit(exchange)
    if code != NONE:
        return code
    short = words[s.SHORT]
    row = begin(exchange, words[s.SURVEYED], words[s.COST], NOBODY, s.OPEN)
    words[s.ROW] = row
    exchange.orders[row]["short"] = short
    if is_stop(exchange.orders[row]["type"]):
        wait(exchange, row)
    else:
        work(exchange, row)
    return NONE


@kernel
def _open_row(exchange: Exchange, account: int, symbol: int, order_id: int) -> int:
    """Find an account's open order; -1 if there is none."""
    row = find(exchange.ids, order_id, 0)
    if row == ABSENT:
        return -1
    order = exchange.orders[row]
    if order["account"] != account or order["symbol"] != symbol or order["status"] > s.PARTIALLY_FILLED:
        return -1
    return row


@kernel
def cancel(exchange: Exchange, account: int, symbol: int, order_id: int, restrictions: int) -> int:
    """Cancel an open order, and with it those of its list."""
    row = _open_row(exchange, account, symbol, order_id)
    exchange.words[s.ROW] = row
    if exchange.symbols[symbol]["status"] == s.BREAK:
        return CANCEL_CLOSED
    if row < 0:
        return UNKNOWN_ORDER
    status = exchange.orders[row]["status"]
    if (restrictions == ONLY_NEW and status != s.OPEN) or (restrictions == ONLY_PARTIALLY_FILLED and status == s.OPEN):
        return RESTRICTED
    at = exchange.orders[row]["list"] - 1
    if at >= 0:
        cancel_legs(exchange, at)
        return NONE
    matching.cancel(exchange.core, exchange.orders[row]["handle"])
    end(exchange, row, s.CANCELED, s.NOT_EXPIRED, s.X_CANCELED)
    return NONE


@kernel
def _amendable(exchange: Exchange, row: int, quantity: int) -> int:
    """Check whether an open order may be reduced to `quantity`."""
    order = exchange.orders[row]
    own = exchange.symbols[order["symbol"]]
    if quantity <= 0 or quantity >= order["quantity"] or quantity < order["executed"] + order["prevented"]:
        return AMEND_QUANTITY
    if own["amends_max"] > 0 and order["amends"] >= own["amends_max"]:
        return MAX_AMENDS
    if check_quantity(exchange, order["symbol"], order["type"], quantity) != NONE:
        return AMEND_FILTER
    if check_notional(exchange, order["symbol"], order["type"], order["price"], quantity) != NONE:
        return AMEND_NOTIONAL if own["notional_is_range"] != 0 else AMEND_MIN_NOTIONAL
    return NONE


@kernel
def _cut(exchange: Exchange, row: int, quantity: int) -> None:
    """Reduce an order to `quantity`; what is locked for it the caller sees to."""
    order = exchange.orders[row]
    cut = order["quantity"] - quantity
    matching.reduce(exchange.core, order["handle"], cut)
    order["quantity"] = quantity
    order["amends"] += 1
    order["updated_us"] = exchange.words[s.NOW_US]
    if order["side"] == BUY:
        exchange.counts[order["account"], order["symbol"]]["buying"] -= cut


@kernel
def amend(exchange: Exchange, account: int, symbol: int, order_id: int, quantity: int) -> int:
    """Reduce an open order to `quantity`, which keeps its place; one with nothing left expires."""
    row = _open_row(exchange, account, symbol, order_id)
    exchange.words[s.ROW] = row
    if exchange.symbols[symbol]["status"] != s.TRADING:
        return AMEND_CLOSED
    if row < 0:
        return AMEND_UNKNOWN
    code = _amendable(exchange, row, quantity)
    partner = partner_of(exchange, row)
    if code == NONE and partner != NOBODY:
        # A pair has one quantity.
        code = _amendable(exchange, partner, quantity)
    if code != NONE:
        return code
    if partner != NOBODY:
        _cut(exchange, partner, quantity)
    _cut(exchange, row, quantity)
    order = exchange.orders[row]
    if partner != NOBODY or order["status"] == s.PENDING:
        if order["status"] != s.PENDING:
            lock_pair(exchange, row, partner)
        if partner != NOBODY:
            report(exchange, partner, s.X_REPLACED)
    elif is_waiting(exchange, row) and not has_limit(order["type"]):
        lock(exchange, row, locking(exchange, symbol, order["side"], order["lock_price"], quantity))
    elif leaves_of(exchange, row) == 0:
        close(exchange, row, s.EXPIRED, s.NOT_EXPIRED)
        relock(exchange, row, 0)
        report(exchange, row, s.X_EXPIRED)
        report_position(exchange, account, symbol)
        return NONE
    else:
        relock(exchange, row, 0)
    report(exchange, row, s.X_REPLACED)
    report_position(exchange, account, symbol)
    return NONE
