"""Risk's decision: an INTENT is admitted and becomes an ORDER, or comes back denied with its reason."""

from __future__ import annotations

from typing import Any

from shrivenq.shm import pool, ring
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import control, open_orders, orders
from shrivenq.stages import messages as m
from shrivenq.stages import risk_checks as c
from shrivenq.stages import stage as s
from shrivenq.stages.money import CEIL, notional, quote_notional
from shrivenq.stages.risk_state import (
    ADMITTED,
    DENIED,
    HELD,
    LAST_ID,
    LEVEL,
    MESSAGE_MAX,
    NEWEST,
    ORDER_FULL,
    REJECTS,
    REJECTS_MAX,
    RESERVE,
    SPARED,
    TIME_NS,
    WINDOW_NS,
    Risk,
    next_feedback,
    note_message,
)

NO_SLOT, UNKNOWN_ORDER, RING_FULL = m.REASON["no_slot"], m.REASON["unknown_order"], m.REASON["ring_full"]


@inlined
def deny(context: Risk, slot: int, reason: int, now_ns: int, position: int) -> None:
    """Answer an intent with a REPORT DENIED."""
    intent = context.intent.slots
    context.words[DENIED] += 1
    at = next_feedback(context.feedback, context.holds, context.words)
    if at < 0:
        return
    out = context.feedback.slots
    i = intent[slot]["instrument"]
    out[at]["sequence"] = context.feedback.own[ring.NEXT] - 1
    out[at]["cause"] = position
    out[at]["time_ns"] = now_ns
    out[at]["instrument"] = i if 0 <= i < context.rows.shape[0] else -1
    out[at]["kind"] = m.DENIED
    out[at]["flags"] = m.FINAL
    out[at]["order_id"] = intent[slot]["order_id"]
    out[at]["target_id"] = intent[slot]["target_id"]
    out[at]["venue_order_id"] = 0
    out[at]["trade_id"] = 0
    out[at]["last_price"] = 0
    out[at]["last_quantity"] = 0
    out[at]["filled"] = 0
    out[at]["leaves"] = 0
    out[at]["fee"] = 0
    out[at]["venue_ns"] = intent[slot]["venue_ns"]
    out[at]["wire_ns"] = intent[slot]["wire_ns"]
    out[at]["ready_ns"] = 0
    out[at]["sent_ns"] = 0
    out[at]["acknowledged_ns"] = 0
    out[at]["slot"] = -1
    out[at]["fee_currency"] = -1
    out[at]["side"] = intent[slot]["side"]
    out[at]["reason"] = reason
    out[at]["price"] = intent[slot]["price"]
    out[at]["quantity"] = intent[slot]["quantity"]
    out[at]["generation"] = 0


@kernel
def check_target(book: open_orders.OpenOrders, i: int, target_id: int) -> int:
    """Find the open order a request names; its row, or NONE if it is none of this instrument's."""
    at = open_orders.find(book, target_id)
    if at != open_orders.NONE and book.slab.slots[at]["instrument"] != i:
        return open_orders.NONE
    return at


@inlined
def check_form(context: Risk, slot: int, reducing: bool) -> int:
    """Check what an order is, before how much it is: armed, instrument, fields, the venue's filters, collar."""
    intent, rows, instruments = context.intent.slots, context.rows, context.instruments
    i, price, quantity = intent[slot]["instrument"], intent[slot]["price"], intent[slot]["quantity"]
    order_type, side = intent[slot]["order_type"], intent[slot]["side"]
    reason = c.armed(context.words[LEVEL], context.words[HELD], reducing)
    if reason != c.PASS:
        return reason
    reason = c.instrument(instruments, context.held, i, reducing)
    if reason != c.PASS:
        return reason
    named = intent[slot]["kind"] == m.REPLACE
    reason = c.identity(intent[slot]["order_id"], intent[slot]["target_id"], intent[slot]["time_ns"], named)
    if reason != c.PASS:
        return reason
    stop_price, mode = intent[slot]["stop_price"], intent[slot]["self_trade"]
    reason = c.well_formed(side, order_type, intent[slot]["time_in_force"], price, quantity, stop_price, mode)
    if reason != c.PASS:
        return reason
    reason = c.supported(instruments, i, order_type, mode, named)
    if reason != c.PASS:
        return reason
    if named:
        at = check_target(context.open, i, intent[slot]["target_id"])
        if at == open_orders.NONE:
            return UNKNOWN_ORDER
        if context.open.slab.slots[at]["side"] != side:
            return c.MALFORMED
    reason = c.filters(instruments, i, order_type, price, quantity, stop_price)
    if reason != c.PASS:
        return reason
    return c.price_collar(rows, i, order_type, price, stop_price)


@inlined
def check_amount(context: Risk, slot: int, value: int, reducing: bool) -> int:
    """Check how much an order is: the venue's notional, size, position, exposure, open orders."""
    intent, rows, instruments = context.intent.slots, context.rows, context.instruments
    i, side, quantity = intent[slot]["instrument"], intent[slot]["side"], intent[slot]["quantity"]
    quoted = value
    if instruments[i]["inverse"] != 0:
        quoted = quote_notional(instruments, i, intent[slot]["price"], quantity, context.currencies, CEIL)
    reason = c.notional_range(instruments, i, quoted)
    if reason != c.PASS:
        return reason
    reason = c.order_size(rows, i, quantity, value)
    if reason != c.PASS:
        return reason
    reason = c.worst_position(rows, context.positions, i, side, quantity)
    if reason != c.PASS:
        return reason
    if not reducing:
        currency = instruments[i]["settle_currency"]
        reason = c.gross_exposure(rows, context.totals, context.positions, i, currency, value)
        if reason != c.PASS:
            return reason
    return c.open_orders(rows, instruments, i, intent[slot]["order_type"])


@inlined
def check_flow(context: Risk, slot: int, now_ns: int, reducing: bool) -> int:
    """Check how an order fits among the others: rate, duplicates, ages, losses, our own orders, its id."""
    intent, rows, words = context.intent.slots, context.rows, context.words
    i, side, price = intent[slot]["instrument"], intent[slot]["side"], intent[slot]["price"]
    allowed = words[MESSAGE_MAX] - words[RESERVE]
    reason = c.message_rate(context.times, words[NEWEST], allowed, words[WINDOW_NS], now_ns)
    if reason != c.PASS:
        return reason
    price_named = price if price != 0 else intent[slot]["stop_price"]
    reason = c.duplicate(rows, context.recent, i, price_named, side * intent[slot]["quantity"], now_ns)
    if reason != c.PASS:
        return reason
    reason = c.market_data(rows, i, now_ns)
    if reason != c.PASS:
        return reason
    reason = c.intent_age(rows, i, intent[slot]["time_ns"], now_ns)
    if reason != c.PASS:
        return reason
    if not reducing:
        currency = context.instruments[i]["settle_currency"]
        reason = c.daily_loss(rows, context.totals, context.positions, i, currency)
        if reason != c.PASS:
            return reason
        reason = c.repeated_execution(rows, i)
        if reason != c.PASS:
            return reason
        reason = c.reject_streak(words[REJECTS], words[REJECTS_MAX])
        if reason != c.PASS:
            return reason
    reason = c.self_trade(rows, i, side, intent[slot]["order_type"], price, intent[slot]["self_trade"])
    if reason != c.PASS:
        return reason
    return c.repeated_cause(intent[slot]["order_id"], words[LAST_ID])


@inlined
def write_order(order: Any, kind: int, flags: int, i: int, order_id: int, time_ns: int, stamp_ns: int) -> int:
    """Begin an ORDER in a slot that was claimed; its index. The caller fills in the rest."""
    sequence = order.own[ring.NEXT]
    at = ring.next_slot(order)
    out = order.slots
    out[at]["sequence"] = sequence
    out[at]["cause"] = -1
    out[at]["time_ns"] = time_ns
    out[at]["instrument"] = i
    out[at]["kind"] = kind
    out[at]["flags"] = flags
    out[at]["venue_ns"] = 0
    out[at]["wire_ns"] = stamp_ns
    out[at]["decoded_ns"] = stamp_ns
    out[at]["book_ns"] = stamp_ns
    out[at]["signal_ns"] = stamp_ns
    out[at]["risk_ns"] = stamp_ns
    out[at]["order_id"] = order_id
    out[at]["target_id"] = 0
    out[at]["target_slot"] = -1
    out[at]["venue_order_id"] = 0
    out[at]["stop_price"] = 0
    out[at]["self_trade"] = 0
    return at


@kernel
def copy_trace(out: Any, at: int, intent: Any, slot: int) -> None:
    """Carry the cause and its stamps over from an intent."""
    out[at]["cause"] = intent[slot]["sequence"]
    out[at]["venue_ns"] = intent[slot]["venue_ns"]
    out[at]["wire_ns"] = intent[slot]["wire_ns"]
    out[at]["decoded_ns"] = intent[slot]["decoded_ns"]
    out[at]["book_ns"] = intent[slot]["book_ns"]
    out[at]["signal_ns"] = intent[slot]["signal_ns"]


@kernel
def name_target(out: Any, at: int, order: Any, target: int) -> None:
    """Make the ORDER at `at` a CANCEL or AMEND of open order `target`."""
    out[at]["target_id"] = order[target]["order_id"]
    out[at]["price"] = order[target]["price"]
    out[at]["quantity"] = order[target]["leaves"]
    out[at]["side"] = order[target]["side"]
    out[at]["order_type"] = m.LIMIT if order[target]["price"] > 0 else m.MARKET
    out[at]["time_in_force"] = m.GTC
    out[at]["slot"] = order[target]["slot"]
    out[at]["target_slot"] = order[target]["slot"]
    out[at]["generation"] = order[target]["generation"]


@kernel
def name_nobody(out: Any, at: int) -> None:
    """Clear what the ORDER at `at`, a CANCEL_ALL, has no use for."""
    out[at]["price"] = 0
    out[at]["quantity"] = 0
    out[at]["side"] = 0
    out[at]["order_type"] = 0
    out[at]["time_in_force"] = 0
    out[at]["slot"] = -1
    out[at]["generation"] = 0


@inlined
def place(
    context: Risk, at: int, side: int, order_type: int, time_in_force: int, price: int, quantity: int, value: int
) -> int:
    """Take a pool slot for the ORDER begun at `at` and bind what it may trade; its open order, or NONE for no room.

    The whole ORDER must be written: its slot begins as a copy of it.
    """
    out = context.order.slots
    slot = pool.allocate(context.slots)
    if slot < 0:
        return open_orders.NONE
    i = out[at]["instrument"]
    currency = context.instruments[i]["settle_currency"]
    entered = open_orders.enter(
        context.open, context.rows, context.totals, i, currency, out[at]["order_id"], side, price, quantity, value
    )
    if entered < 0:
        pool.give_back(context.slots, slot, context.slots.generation[slot])
        return open_orders.NONE
    order = context.open.slab.slots
    order[entered]["slot"] = slot
    order[entered]["generation"] = context.slots.generation[slot]
    if orders.is_stop(order_type):
        order[entered]["stop"] = 1
        context.rows[i]["open_stops"] += 1
    if context.words[LEVEL] >= control.CANCEL:
        order[entered]["spared"] = open_orders.LET_IN
        context.words[SPARED] += 1
    out[at]["side"] = side
    out[at]["order_type"] = order_type
    out[at]["time_in_force"] = time_in_force
    out[at]["price"] = price
    out[at]["quantity"] = quantity
    out[at]["slot"] = slot
    out[at]["generation"] = context.slots.generation[slot]
    orders.begin(context.slots.slots, slot, out, at)
    return entered


@inlined
def admit(context: Risk, slot: int, now_ns: int, stamp_ns: int, value: int, reducing: bool) -> int:
    """Write the ORDER of a NEW or REPLACE that passed; 0, or the reason why there was no room for it."""
    intent = context.intent.slots
    if not ring.claim(context.order, 1):
        return RING_FULL
    i, side, kind = intent[slot]["instrument"], intent[slot]["side"], intent[slot]["kind"]
    price, quantity = intent[slot]["price"], intent[slot]["quantity"]
    flags = m.REDUCING if reducing else 0
    before = context.order.own[ring.NEXT]
    at = write_order(context.order, kind, flags, i, intent[slot]["order_id"], now_ns, stamp_ns)
    copy_trace(context.order.slots, at, intent, slot)
    stop_price = intent[slot]["stop_price"]
    context.order.slots[at]["stop_price"] = stop_price
    context.order.slots[at]["self_trade"] = intent[slot]["self_trade"]
    if kind == m.REPLACE:
        target = open_orders.find(context.open, intent[slot]["target_id"])
        context.order.slots[at]["target_id"] = intent[slot]["target_id"]
        context.order.slots[at]["target_slot"] = context.open.slab.slots[target]["slot"]
    order_type, time_in_force = intent[slot]["order_type"], intent[slot]["time_in_force"]
    if place(context, at, side, order_type, time_in_force, price, quantity, value) == open_orders.NONE:
        context.order.own[ring.NEXT] = before
        return NO_SLOT
    rows, recent = context.rows, context.recent
    next_recent = rows[i]["recent_next"]
    recent[i, next_recent]["price"] = price if price != 0 else stop_price
    recent[i, next_recent]["quantity"] = side * quantity
    recent[i, next_recent]["time_ns"] = now_ns
    rows[i]["recent_next"] = (next_recent + 1) % c.RECENT
    return c.PASS


@inlined
def decide_order(context: Risk, slot: int, now_ns: int, stamp_ns: int) -> int:
    """Decide a NEW or REPLACE; 0, or the reason why not."""
    intent, instruments = context.intent.slots, context.instruments
    i, quantity = intent[slot]["instrument"], intent[slot]["quantity"]
    reducing = c.reduces(context.rows, context.positions, i, intent[slot]["side"], quantity)
    reason = check_form(context, slot, reducing)
    if reason != c.PASS:
        return reason
    price = c.valuation_price(
        context.rows, instruments, i, intent[slot]["order_type"], intent[slot]["price"], intent[slot]["stop_price"]
    )
    value = notional(instruments, i, price, quantity, context.currencies, CEIL)
    reason = check_amount(context, slot, value, reducing)
    if reason != c.PASS:
        return reason
    reason = check_flow(context, slot, now_ns, reducing)
    if reason != c.PASS:
        return reason
    return admit(context, slot, now_ns, stamp_ns, value, reducing)


@kernel
def check_amended(context: Risk, i: int, target: int, quantity: int) -> int:
    """Check the quantity an order is to be lowered to: less than it has now, no less than what is filled."""
    if quantity <= 0 or quantity >= c.NUMBER_MAX:
        return c.MALFORMED
    size = open_orders.size_now(context.open, target)
    if quantity >= size or quantity < size - context.open.slab.slots[target]["leaves"]:
        return c.QUANTITY_RANGE
    return c.quantity_filter(context.instruments, i, quantity)


@inlined
def decide_about(context: Risk, slot: int, now_ns: int, stamp_ns: int) -> int:
    """Decide a CANCEL, AMEND or CANCEL_ALL; 0, or the reason why not.

    They only take away, so they pass a kill and a hold. What they take is released when the venue says so. The reserve
    of the message rate is for cancels.
    """
    intent, words = context.intent.slots, context.words
    i, kind, order_id = intent[slot]["instrument"], intent[slot]["kind"], intent[slot]["order_id"]
    if i < 0 or i >= context.rows.shape[0]:
        return c.UNKNOWN_INSTRUMENT
    named = kind != m.CANCEL_ALL
    reason = c.identity(order_id, intent[slot]["target_id"], intent[slot]["time_ns"], named)
    if reason != c.PASS:
        return reason
    target = open_orders.NONE
    if named:
        target = check_target(context.open, i, intent[slot]["target_id"])
        if target == open_orders.NONE:
            return UNKNOWN_ORDER
    allowed = words[MESSAGE_MAX]
    if kind == m.AMEND:
        allowed -= words[RESERVE]
        if context.instruments[i]["refused_requests"] & m.NO_AMEND != 0:
            return c.NOT_SUPPORTED
        reason = check_amended(context, i, target, intent[slot]["quantity"])
        if reason != c.PASS:
            return reason
    reason = c.message_rate(context.times, words[NEWEST], allowed, words[WINDOW_NS], now_ns)
    if reason != c.PASS:
        return reason
    reason = c.repeated_cause(order_id, words[LAST_ID])
    if reason != c.PASS:
        return reason
    if not ring.claim(context.order, 1):
        return RING_FULL
    out = context.order.slots
    at = write_order(context.order, kind, 0, i, order_id, now_ns, stamp_ns)
    copy_trace(out, at, intent, slot)
    if named:
        name_target(out, at, context.open.slab.slots, target)
    else:
        name_nobody(out, at)
    if kind == m.AMEND:
        out[at]["quantity"] = intent[slot]["quantity"]
    return c.PASS


@inlined
def on_intent(context: Risk, loop: Any, slot: int, position: int) -> None:
    """Decide the intent in `slot`, at `position` of its ring, and answer it."""
    intent, words = context.intent.slots, context.words
    stamp_ns = s.stamp(loop)
    kind = intent[slot]["kind"]
    now_ns = words[TIME_NS]
    if loop[s.VIRTUAL] != 0 and kind in (m.NEW, m.REPLACE):
        # An order that is admitted moves the time, by no more than the age its touch may have; nothing else may.
        now_ns = max(now_ns, intent[slot]["time_ns"])
    if intent[slot]["sequence"] != position:
        reason = c.MALFORMED
    elif kind in (m.NEW, m.REPLACE):
        reason = decide_order(context, slot, now_ns, stamp_ns)
    elif kind in (m.CANCEL, m.AMEND, m.CANCEL_ALL):
        reason = decide_about(context, slot, now_ns, stamp_ns)
    else:
        reason = c.MALFORMED
    # Rubbish must not shut out what makes sense.
    if reason != c.MALFORMED and c.identity(intent[slot]["order_id"], 0, 1, False) == c.PASS:
        words[LAST_ID] = max(words[LAST_ID], intent[slot]["order_id"])
    if reason == RING_FULL:
        words[ORDER_FULL] += 1
    if reason == c.PASS:
        words[ADMITTED] += 1
        words[TIME_NS] = now_ns
        note_message(context.times, context.words, now_ns)
    else:
        deny(context, slot, reason, now_ns, position)
