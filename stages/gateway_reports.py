"""What the venue says: each report advances the order it is about, is journaled, and goes to risk."""

from __future__ import annotations

from typing import Any

from shrivenq.shm import pool, ring
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import control, id_map, journal
from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from shrivenq.stages.gateway_state import (
    FORWARD,
    FROM_RISK,
    FROM_VENUE,
    LOOK_SLOT,
    OVERFILLS,
    PENDING,
    RELEASE,
    REPEATED_FILLS,
    UNMATCHED,
    await_answer,
    unwatch,
)
from shrivenq.stages.stage import stamp

REPORT_WORDS = m.REPORT.itemsize // 8
SELF_TRADE, UNKNOWN_ORDER, VENUE_ERROR = m.REASON["self_trade"], m.REASON["unknown_order"], m.REASON["venue_error"]


@inlined
def _describe(context: Any, slot: int) -> None:
    """Complete `report` with what the slot knows of its order."""
    report, slots = context.report, context.slots
    report[0]["slot"] = slot
    report[0]["generation"] = slots[slot]["generation"]
    report[0]["cause"] = slots[slot]["cause"]
    report[0]["instrument"] = slots[slot]["instrument"]
    report[0]["side"] = slots[slot]["side"]
    report[0]["price"] = slots[slot]["price"]
    report[0]["quantity"] = slots[slot]["quantity"]
    report[0]["filled"] = slots[slot]["filled"]
    report[0]["wire_ns"] = slots[slot]["wire_ns"]
    report[0]["ready_ns"] = slots[slot]["ready_ns"]
    report[0]["sent_ns"] = slots[slot]["sent_ns"]
    if slots[slot]["venue_order_id"] != 0:
        report[0]["venue_order_id"] = slots[slot]["venue_order_id"]
    if slots[slot]["acknowledged_ns"] == 0:
        slots[slot]["acknowledged_ns"] = report[0]["acknowledged_ns"]
    if o.is_terminal(slots, slot):
        report[0]["flags"] |= m.FINAL
        report[0]["leaves"] = 0
    else:
        report[0]["flags"] &= ~m.FINAL
        report[0]["leaves"] = slots[slot]["quantity"] - slots[slot]["filled"]


@inlined
def _settle(context: Any, slot: int) -> None:
    """After a transition: stop awaiting what has come, and give a slot back whose order is over."""
    slots = context.slots
    state = slots[slot]["state"]
    if o.is_terminal(slots, slot):
        unwatch(context, slot)
        order_id = slots[slot]["order_id"]
        if id_map.find(context.ids, order_id, 0) == slot:
            id_map.remove(context.ids, order_id, 0)
        pool.give_back(context.pool, slot, slots[slot]["generation"])
    elif state in (o.ACCEPTED, o.PARTLY_FILLED):
        unwatch(context, slot)
        slots[slot]["cancel_id"] = 0
        slots[slot]["amended"] = 0


@inlined
def _doubt(context: Any, slot: int) -> None:
    """Keep an order that is over but for fills we were not told: the venue is asked unless they come soon."""
    if o.advance(context.slots, slot, o.SEND_CANCEL, context.illegal) and context.watch[slot]["linked"] == 0:
        await_answer(context, slot, context.report[0]["time_ns"])


@inlined
def rests(slots: Any, slot: int) -> bool:
    """Tell whether an order is known to be open at the venue."""
    return bool(slots[slot]["venue_order_id"] != 0 and slots[slot]["state"] in (o.ACCEPTED, o.PARTLY_FILLED))


@kernel
def _happen(context: Any, slot: int, event: int) -> bool:
    """Let an event of `report` happen to the order in `slot`; False if it has none, or it may not."""
    if slot < 0:
        context.words[UNMATCHED] += 1
        return False
    slots, report = context.slots, context.report
    if event == o.ACCEPT:
        if slot == context.words[LOOK_SLOT] and rests(slots, slot):
            return False  # as we knew
        slots[slot]["venue_order_id"] = report[0]["venue_order_id"]
    if event in (o.CANCEL, o.EXPIRE) and report[0]["filled"] > slots[slot]["filled"]:
        _doubt(context, slot)
        return False
    if not o.advance(slots, slot, event, context.illegal):
        return False
    _describe(context, slot)
    _settle(context, slot)
    return True


@inlined
def _on_looked(context: Any) -> None:
    """Note up to which trade all of an instrument were told: an order sent from here on has none of these."""
    i, trade_id = context.report[0]["instrument"], context.report[0]["trade_id"]
    if 0 <= i < context.anchors.shape[0]:
        context.anchors[i] = max(context.anchors[i], trade_id)


@inlined
def _on_fill(context: Any, slot: int) -> bool:
    """Count a fill, once. It moves the position whatever state its order is in, so risk sees every new one."""
    report, slots, words = context.report, context.slots, context.words
    side = slots[slot]["side"] if slot >= 0 else report[0]["side"]
    if not id_map.remember(context.fills, report[0]["instrument"], o.trade_key(report[0]["trade_id"], side)):
        words[REPEATED_FILLS] += 1
        return False
    if slot < 0:
        words[UNMATCHED] += 1
        report[0]["slot"] = -1
        return True
    if report[0]["trade_id"] < slots[slot]["first_trade"]:
        control.raise_kill(context.kill, control.HALT)  # older than its order: the venue was begun anew
    filled = slots[slot]["filled"] + report[0]["last_quantity"]
    if filled > slots[slot]["quantity"]:
        words[OVERFILLS] += 1
    event = o.FULL_FILL if filled >= slots[slot]["quantity"] else o.PART_FILL
    if o.advance(slots, slot, event, context.illegal):
        slots[slot]["filled"] = filled
        _describe(context, slot)
        _settle(context, slot)
    return True


@inlined
def _is_lower(context: Any, slot: int) -> bool:
    """Tell whether `report` knows of a smaller quantity of the order in `slot` than we do; 0 is none."""
    return bool(0 < context.report[0]["quantity"] < context.slots[slot]["quantity"])


@kernel
def _on_amended(context: Any, slot: int) -> bool:
    """Lower an order's quantity, which never grows; answer the request that asked for it, if that is what it was.

    An amendment is told twice, by its answer and by an event that does not name the request: the event of the last
    request is known by its quantity. What self-trade prevention took answers nothing.
    """
    report, slots = context.report, context.slots
    if slot < 0:
        context.words[UNMATCHED] += 1
        return False
    quantity, request, lowered = report[0]["quantity"], slots[slot]["cancel_id"], _is_lower(context, slot)
    by_name = request != 0 and report[0]["order_id"] == request
    by_quantity = request != 0 and quantity == slots[slot]["amended"] and report[0]["reason"] != SELF_TRADE
    if not (lowered or by_name or by_quantity):
        return False
    report[0]["kind"] = m.AMENDED
    report[0]["target_id"] = slots[slot]["order_id"]
    if report[0]["venue_order_id"] != 0:
        slots[slot]["venue_order_id"] = report[0]["venue_order_id"]
    report[0]["venue_order_id"] = slots[slot]["venue_order_id"]
    if lowered:
        slots[slot]["quantity"] = quantity
    event = o.ACCEPT
    if by_name or by_quantity:
        event = o.AMEND
        report[0]["order_id"] = request
    if slots[slot]["filled"] >= slots[slot]["quantity"]:
        event = o.FULL_FILL
    return _happen(context, slot, event)


@kernel
def _on_refused_all(context: Any) -> bool:
    """Restore what a cancel-all was to take and did not; where the venue knows of no order, each is asked about."""
    slots, request = context.slots, context.report[0]["order_id"]
    if context.report[0]["reason"] == UNKNOWN_ORDER:
        request = 0
    for slot in range(slots.shape[0]):
        awaited = request != 0 and slots[slot]["cancel_id"] == request and not o.is_terminal(slots, slot)
        if awaited and o.advance(slots, slot, o.REFUSE_CANCEL, context.illegal):
            _settle(context, slot)
    context.report[0]["slot"] = -1
    return True


@kernel
def _on_refused(context: Any) -> bool:
    """Restore the target of a refused cancel, replacement or amendment; a replacement is over with it.

    Where a later request is on its way, the target goes on awaiting that one's answer. Where the venue does not know
    the order it may be over, and we were not told: that wait goes on as well, and ends with a question.
    """
    report = context.report
    target = id_map.find(context.ids, report[0]["target_id"], 0)
    if target >= 0 and report[0]["order_id"] == report[0]["target_id"] and context.slots[target]["amended"] != 0:
        report[0]["order_id"] = context.slots[target]["cancel_id"]  # FIX names an amendment by the order
    request = report[0]["order_id"]
    later = target >= 0 and request != 0 and context.slots[target]["cancel_id"] not in (0, request)
    doubtful = report[0]["reason"] == UNKNOWN_ORDER and target >= 0 and context.slots[target]["state"] == o.CANCEL_SENT
    if later or doubtful:
        _describe(context, target)
    elif target >= 0:
        _happen(context, target, o.REFUSE_CANCEL)
    slot = id_map.find(context.ids, report[0]["order_id"], 0)
    if slot >= 0:
        return _happen(context, slot, o.REJECT)
    if target < 0:
        report[0]["slot"] = -1
    return True


@kernel
def _on_replaced(context: Any) -> bool:
    """Close the target and open its successor; where fills of the target were not told, only the latter."""
    report = context.report
    target = id_map.find(context.ids, report[0]["target_id"], 0)
    venue_order_id, flags = report[0]["venue_order_id"], report[0]["flags"]
    if target >= 0 and report[0]["filled"] > context.slots[target]["filled"]:
        _doubt(context, target)
        report[0]["kind"] = m.ACCEPTED
    else:
        _happen(context, target, o.REPLACE)
    report[0]["venue_order_id"] = venue_order_id
    report[0]["flags"] = flags
    return _happen(context, id_map.find(context.ids, report[0]["order_id"], 0), o.ACCEPT)


@inlined
def _on_unknown(context: Any, slot: int) -> bool:
    """Pass on that nobody knows where an order stands; the venue may say so before its answer is overdue."""
    report, slots = context.report, context.slots
    if report[0]["reason"] == VENUE_ERROR and slots[slot]["state"] in (o.SENT, o.CANCEL_SENT):
        o.advance(slots, slot, o.SILENCE, context.illegal)
    if slots[slot]["state"] != o.UNKNOWN:
        return False
    _describe(context, slot)
    return True


@inlined
def _denied_slot(context: Any) -> int:
    """Find the slot of an order we denied: the one it named, since its id may be another's; -1 for a CANCEL."""
    report, slots = context.report, context.slots
    slot = report[0]["slot"]
    if slot < 0 or slot >= slots.shape[0] or slots[slot]["state"] != o.NEW:
        return -1
    if slots[slot]["order_id"] != report[0]["order_id"] or slots[slot]["generation"] != report[0]["generation"]:
        return -1
    return slot


@inlined
def _event_of(kind: int) -> int:
    """Name the event a report of this kind is to its order; -1 for one that is none."""
    if kind == m.ACCEPTED:
        return o.ACCEPT
    if kind == m.CANCELLED:
        return o.CANCEL
    if kind in (m.REJECTED, m.DENIED):
        return o.REJECT
    if kind == m.EXPIRED:
        return o.EXPIRE
    if kind == m.ABSENT:
        return o.ABSENCE
    return -1


@inlined
def handle(context: Any) -> bool:
    """Let `report` happen; tell whether risk is to see it."""
    report, ids = context.report, context.ids
    kind = report[0]["kind"]
    if kind in (m.CANCEL_REJECTED, m.AMEND_REJECTED):
        return _on_refused(context) if report[0]["target_id"] != 0 else _on_refused_all(context)
    if kind == m.REPLACED:
        return _on_replaced(context)
    if kind == m.DENIED:
        slot = _denied_slot(context)
        if slot < 0:
            return True
    else:
        named = report[0]["target_id"] if kind in (m.CANCELLED, m.AMENDED) else report[0]["order_id"]
        slot = id_map.find(ids, named, 0)
        # Asked where an order stands, the venue also tells of an amendment that was never answered.
        if kind == m.AMENDED or (kind == m.ACCEPTED and slot >= 0 and _is_lower(context, slot)):
            return _on_amended(context, slot)
    if kind == m.FILL:
        return _on_fill(context, slot)
    if kind == m.LOOKED:
        _on_looked(context)
    if kind == m.ABSENT:
        if slot >= 0 and context.slots[slot]["venue_order_id"] != 0:
            control.raise_kill(context.kill, control.HALT)  # the venue has lost what it had accepted: it is another
        report[0]["kind"] = m.REJECTED
    event = _event_of(kind)
    if event >= 0:
        return _happen(context, slot, event)
    return _on_unknown(context, slot) if kind == m.UNKNOWN and slot >= 0 else False


@inlined
def flush(context: Any) -> bool:
    """Journal the report being handled, pass it on, release its cause; False if there is no room yet."""
    words, report, out = context.words, context.report, context.reports
    if words[PENDING] == 1:
        report[0]["sequence"] = out.own[ring.NEXT] if words[FORWARD] != 0 else -1
        time_ns = report[0]["time_ns"]
        if not journal.append(context.journal, journal.REPORT_SEEN, context.report_words, 0, REPORT_WORDS, time_ns):
            return False
        words[PENDING] = 2
    if words[FORWARD] != 0:
        if not ring.claim(out, 1):
            return False
        slot = ring.next_slot(out)
        out.slots[slot] = report[0]
        ring.publish(out)
    if words[RELEASE] == FROM_VENUE:
        ring.release(context.from_venue, 1)
    elif words[RELEASE] == FROM_RISK:
        ring.release(context.orders, 1)
    words[PENDING] = 0
    return True


@inlined
def settle_report(context: Any, loop: Any, release: int) -> bool:
    """Handle `report` and send it on its way; False if it must wait."""
    context.report[0]["acknowledged_ns"] = stamp(loop)
    context.words[FORWARD] = 1 if handle(context) else 0
    context.words[RELEASE] = release
    context.words[PENDING] = 1
    return flush(context)
