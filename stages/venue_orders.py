"""What a venue does with orders: filters, placing, amending, cancelling, replacing, triggering, answering queries."""

from __future__ import annotations

from typing import Any

import numpy as np

from shrivenq.shm.kernel import kernel
from shrivenq.stages import book_sync as depth
from shrivenq.stages import fill_model, id_map
from shrivenq.stages import messages as m
from shrivenq.stages import venue_market as market_of
from shrivenq.stages.control import ARMED, kill_level
from shrivenq.stages.orders import has_limit, is_stop
from shrivenq.stages.venue_market import finish
from shrivenq.stages.venue_prevention import first_met, take
from shrivenq.stages.venue_stops import is_reached, next_triggered, wait, wait_no_longer, waits_for_rise, withdraw

REASON_NONE = m.REASON["none"]
UNKNOWN_INSTRUMENT, NOT_TRADABLE, MALFORMED = (
    m.REASON["unknown_instrument"],
    m.REASON["not_tradable"],
    m.REASON["malformed"],
)
TICK_SIZE, PRICE_RANGE = m.REASON["tick_size"], m.REASON["price_range"]
STEP_SIZE, QUANTITY_RANGE = m.REASON["step_size"], m.REASON["quantity_range"]
NO_TOUCH, WOULD_TAKE, DUPLICATE = m.REASON["no_touch"], m.REASON["would_take"], m.REASON["duplicate"]
WOULD_TRIGGER = m.REASON["would_trigger"]
NO_LIQUIDITY, UNFILLED, BY_REQUEST = m.REASON["no_liquidity"], m.REASON["unfilled"], m.REASON["by_request"]
UNKNOWN_ORDER, OPEN_ORDERS, KILLED_REASON = m.REASON["unknown_order"], m.REASON["open_orders"], m.REASON["killed"]


@kernel
def is_live(context: Any, instrument: int) -> bool:
    """Tell whether the venue's book of an instrument is whole."""
    return bool(context.sync.state[instrument]["status"] == depth.LIVE)


@kernel
def _quantity_filter(instruments: Any, i: int, quantity: int) -> int:
    if quantity < max(1, instruments[i]["quantity_min"]) or quantity > instruments[i]["quantity_max"]:
        return QUANTITY_RANGE
    return STEP_SIZE if quantity % instruments[i]["step"] != 0 else REASON_NONE


@kernel
def _price_filter(instruments: Any, i: int, price: int) -> int:
    if price < max(1, instruments[i]["price_min"]) or price > instruments[i]["price_max"]:
        return PRICE_RANGE
    return TICK_SIZE if price % instruments[i]["tick"] != 0 else REASON_NONE


@kernel
def _filters(instruments: Any, orders: Any, at: int) -> int:
    """Check an order against the instrument's filters; return the reason it fails, 0 for none."""
    i: Any = np.int64(orders[at]["instrument"])
    if i < 0 or i >= instruments.shape[0]:
        return UNKNOWN_INSTRUMENT
    if instruments[i]["tradable"] == 0:
        return NOT_TRADABLE
    side, order_type, quantity = orders[at]["side"], orders[at]["order_type"], orders[at]["quantity"]
    if (side not in (m.BUY, m.SELL)) or order_type < m.LIMIT or order_type > m.TAKE_PROFIT_LIMIT:
        return MALFORMED
    if orders[at]["time_in_force"] < m.GTC or orders[at]["time_in_force"] > m.FOK:
        return MALFORMED
    if orders[at]["self_trade"] < 0 or orders[at]["self_trade"] > m.TRANSFER:
        return MALFORMED
    reason = _quantity_filter(instruments, i, quantity)
    if reason == REASON_NONE and has_limit(order_type):
        reason = _price_filter(instruments, i, orders[at]["price"])
    if reason == REASON_NONE and is_stop(order_type):
        reason = _price_filter(instruments, i, orders[at]["stop_price"])
    return reason


@kernel
def _refusal(context: Any, at: int) -> int:
    """Tell why the order in `arrivals[at]` cannot be placed now; 0 if it can."""
    market, orders = context.market, context.arrivals
    reason = _filters(market.instruments, orders, at)
    if reason != REASON_NONE:
        return reason
    if id_map.find(market.ids, orders[at]["order_id"], 0) != id_map.ABSENT:
        return DUPLICATE
    if kill_level(context.kill) != ARMED and orders[at]["flags"] & (m.REDUCING | m.FORCED) == 0:
        return KILLED_REASON
    i: Any = np.int64(orders[at]["instrument"])
    if not is_live(context, i):
        return NO_TOUCH
    side: Any = np.int64(orders[at]["side"])
    order_type: Any = np.int64(orders[at]["order_type"])
    price = orders[at]["price"]
    if order_type == m.LIMIT_MAKER:
        if fill_model.would_take(market, i, side, price):
            return WOULD_TAKE
        if orders[at]["self_trade"] > m.STP_NONE and first_met(market, i, side, order_type, price) >= 0:
            return WOULD_TAKE
    if is_stop(order_type):
        rising = waits_for_rise(side, order_type)
        if is_reached(market, i, rising, orders[at]["stop_price"]):
            return WOULD_TRIGGER
    if market.words[market_of.OPEN_COUNT] >= market.orders.shape[0]:
        return OPEN_ORDERS
    return REASON_NONE


@kernel
def _answer(context: Any, at: int, kind: int, order_id: int, reason: int) -> None:
    """Queue a report about the request in `arrivals[at]` itself, which has no order here."""
    orders, reports = context.arrivals, context.market.reports
    row = market_of.queue_report(context.market, kind, order_id, orders[at]["target_id"], reason, orders[at]["time_ns"])
    reports[row]["cause"] = orders[at]["cause"]
    reports[row]["instrument"] = orders[at]["instrument"]
    reports[row]["side"] = orders[at]["side"]
    reports[row]["price"] = orders[at]["price"]
    reports[row]["quantity"] = orders[at]["quantity"]
    reports[row]["slot"] = orders[at]["slot"]
    reports[row]["generation"] = orders[at]["generation"]


@kernel
def _place(context: Any, at: int, kind: int) -> None:
    """Open the order in `arrivals[at]`, said with `kind` (ACCEPTED or REPLACED); a stop order then waits."""
    market, arrivals = context.market, context.arrivals
    time_ns = arrivals[at]["time_ns"]
    row = market_of.enter(market, arrivals[at]["order_id"])
    orders = market.orders
    orders[row]["instrument"] = arrivals[at]["instrument"]
    orders[row]["price"] = arrivals[at]["price"]
    orders[row]["stop_price"] = arrivals[at]["stop_price"]
    orders[row]["self_trade"] = arrivals[at]["self_trade"]
    orders[row]["quantity"] = arrivals[at]["quantity"]
    orders[row]["side"] = arrivals[at]["side"]
    orders[row]["order_type"] = arrivals[at]["order_type"]
    orders[row]["time_in_force"] = arrivals[at]["time_in_force"]
    orders[row]["cause"] = arrivals[at]["cause"]
    orders[row]["slot"] = arrivals[at]["slot"]
    orders[row]["generation"] = arrivals[at]["generation"]
    orders[row]["reason"] = REASON_NONE
    target_id = arrivals[at]["target_id"] if kind == m.REPLACED else 0
    market_of.report_order(market, row, kind, orders[row]["order_id"], target_id, REASON_NONE, time_ns)
    if is_stop(orders[row]["order_type"]):
        wait(market, row)
    else:
        _work(market, row, time_ns)


@kernel
def _work(market: Any, row: int, time_ns: int) -> None:
    """Let an order take, then rest or expire with what is left."""
    orders = market.orders
    order_type, order_id = orders[row]["order_type"], orders[row]["order_id"]
    if order_type != m.LIMIT_MAKER:
        take(market, row, time_ns)
    if orders[row]["state"] != market_of.OPEN:
        return
    if not has_limit(order_type):
        finish(market, row, market_of.EXPIRED, NO_LIQUIDITY, order_id, time_ns)
    elif order_type != m.LIMIT_MAKER and orders[row]["time_in_force"] != m.GTC:
        finish(market, row, market_of.EXPIRED, UNFILLED, order_id, time_ns)
    else:
        market_of.rest(market, row)


@kernel
def trigger(context: Any, instrument: int, time_ns: int) -> None:
    """Let the stop orders whose price was reached do what they waited for.

    While the book is not whole, or reports have little room, they wait on: as long as the last price has reached them.
    """
    market = context.market
    row = next_triggered(market, instrument)
    while row != market_of.NONE and is_live(context, instrument):
        if market_of.report_room(market) < market.words[market_of.OPEN_COUNT] + 2 * market_of.LEVELS_MAX:
            return
        wait_no_longer(market, row)
        _work(market, row, time_ns)
        row = next_triggered(market, instrument)


@kernel
def _open_target(context: Any, at: int) -> int:
    """Find the row of the open order that a CANCEL, REPLACE or AMEND means; -1 if it is not there any more."""
    row = id_map.find(context.market.ids, context.arrivals[at]["target_id"], 0)
    if row != id_map.ABSENT and context.market.orders[row]["state"] == market_of.OPEN:
        return row
    return -1


@kernel
def _replace(context: Any, at: int) -> None:
    """Cancel, then place: nothing is placed if there is nothing to cancel (STOP_ON_FAILURE)."""
    arrivals = context.arrivals
    order_id, time_ns = arrivals[at]["order_id"], arrivals[at]["time_ns"]
    row = _open_target(context, at)
    if row < 0:
        _answer(context, at, m.CANCEL_REJECTED, order_id, UNKNOWN_ORDER)
        return
    withdraw(context.market, row)
    reason = _refusal(context, at)
    if reason != REASON_NONE:
        finish(context.market, row, market_of.CANCELLED, BY_REQUEST, order_id, time_ns)
        _answer(context, at, m.REJECTED, order_id, reason)
        return
    market_of.close(context.market, row, market_of.CANCELLED)
    context.market.orders[row]["reason"] = BY_REQUEST
    _place(context, at, m.REPLACED)


@kernel
def _amend(context: Any, at: int) -> None:
    """Lower an order's quantity where it stands; one with nothing left to fill is over."""
    market, arrivals = context.market, context.arrivals
    order_id, quantity, time_ns = arrivals[at]["order_id"], arrivals[at]["quantity"], arrivals[at]["time_ns"]
    row = _open_target(context, at)
    reason = UNKNOWN_ORDER
    if row >= 0:
        orders = market.orders
        reason = _quantity_filter(market.instruments, orders[row]["instrument"], quantity)
        if quantity >= orders[row]["quantity"] or quantity < orders[row]["filled"]:
            reason = QUANTITY_RANGE
    if reason != REASON_NONE:
        _answer(context, at, m.AMEND_REJECTED, order_id, reason)
        return
    market.orders[row]["quantity"] = quantity
    if quantity == market.orders[row]["filled"]:
        withdraw(market, row)
        market_of.close(market, row, market_of.EXPIRED)
        market.orders[row]["reason"] = BY_REQUEST
    market_of.report_order(market, row, m.AMENDED, order_id, market.orders[row]["order_id"], BY_REQUEST, time_ns)


@kernel
def _query(context: Any, at: int) -> None:
    """Tell all that became of an order: its fills once more, and where it stands."""
    market = context.market
    target_id, time_ns = context.arrivals[at]["target_id"], context.arrivals[at]["time_ns"]
    row = id_map.find(market.ids, target_id, 0)
    if row == id_map.ABSENT:
        _answer(context, at, m.ABSENT, target_id, UNKNOWN_ORDER)
        return
    newest = market.words[market_of.NEXT_TRADE]
    for trade in range(max(1, newest - market.trades.shape[0]), newest):
        slot = trade & (market.trades.shape[0] - 1)
        if market.trades[slot]["order_id"] == target_id:
            market_of.report_trade(market, row, slot, time_ns)
    state, reason = market.orders[row]["state"], market.orders[row]["reason"]
    if state == market_of.OPEN:
        market_of.report_order(market, row, m.ACCEPTED, target_id, 0, REASON_NONE, time_ns)
    elif state == market_of.CANCELLED:
        market_of.report_order(market, row, m.CANCELLED, target_id, target_id, reason, time_ns)
    elif state == market_of.EXPIRED:
        market_of.report_order(market, row, m.EXPIRED, target_id, target_id, reason, time_ns)


@kernel
def _cancel_each(market: Any, instrument: int, reason: int, time_ns: int) -> int:
    """Cancel every open order of an instrument, those that wait included; return how many there were."""
    count = 0
    for source in range(4):
        while True:
            if source < 2:
                row = market.lists[2 * instrument + source]["first"]
            elif source == 2:
                row = market.stops[instrument]["rising"]
            else:
                row = market.stops[instrument]["falling"]
            if row == market_of.NONE:
                break
            withdraw(market, row)
            finish(market, row, market_of.CANCELLED, reason, market.orders[row]["order_id"], time_ns)
            count += 1
    return count


@kernel
def _cancel_all(context: Any, at: int) -> None:
    """Cancel every open order of the instrument in `arrivals[at]`; refused if there is none, as the exchange does."""
    arrivals = context.arrivals
    i: Any = np.int64(arrivals[at]["instrument"])
    count = 0
    if 0 <= i < context.market.instruments.shape[0]:
        count = _cancel_each(context.market, i, BY_REQUEST, arrivals[at]["time_ns"])
    if count == 0:
        _answer(context, at, m.CANCEL_REJECTED, arrivals[at]["order_id"], UNKNOWN_ORDER)


@kernel
def act(context: Any, at: int) -> None:
    """Let the order or request in `arrivals[at]` reach the venue."""
    arrivals = context.arrivals
    kind, order_id = arrivals[at]["kind"], arrivals[at]["order_id"]
    if kind == m.NEW:
        reason = _refusal(context, at)
        if reason != REASON_NONE:
            _answer(context, at, m.REJECTED, order_id, reason)
        else:
            _place(context, at, m.ACCEPTED)
    elif kind == m.CANCEL:
        row = _open_target(context, at)
        if row < 0:
            _answer(context, at, m.CANCEL_REJECTED, order_id, UNKNOWN_ORDER)
        else:
            withdraw(context.market, row)
            finish(context.market, row, market_of.CANCELLED, BY_REQUEST, order_id, arrivals[at]["time_ns"])
    elif kind == m.REPLACE:
        _replace(context, at)
    elif kind == m.AMEND:
        _amend(context, at)
    elif kind == m.CANCEL_ALL:
        _cancel_all(context, at)
    elif kind == m.QUERY:
        _query(context, at)
    elif kind == m.ECHO:
        echo: Any = np.int64(arrivals[at]["echo"])
        reason_given: Any = np.int64(arrivals[at]["reason"])
        _answer(context, at, echo, order_id, reason_given)


@kernel
def cancel_all(context: Any, time_ns: int) -> None:
    """Cancel every open order: the kill switch reaches the paper venue even without a gateway."""
    for instrument in range(context.market.instruments.shape[0]):
        _cancel_each(context.market, instrument, KILLED_REASON, time_ns)
