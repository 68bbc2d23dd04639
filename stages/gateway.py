"""Gateway: ORDER → venue, venue → REPORT, and a journal of both.

Each order is looked at once more, journaled, encoded as the venue's own text (the moment it is *ready*) and handed on
only after the kill and hold words have been read again. Each report advances the order it is about by the table in
`orders`; fills are told apart by (instrument, trade id) and counted once; reports are journaled whole before risk sees
them. An order whose answer is overdue becomes unknown: it keeps its slot and exposure, and the venue is asked until it
answers. Nothing is ever sent twice.

No report is dropped. Where the journal or the `report` ring is full the venue is not read until there is room; an
order that cannot be journaled is denied, and new orders are held. In replay the gateway's own words (DENIED, UNKNOWN)
go through the paper venue as ECHO, so that they come back at a time the conductor knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shrivenq.shm import byte_ring, pool, ring
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import control, hops, id_map, journal
from shrivenq.stages import gateway_state as g
from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from shrivenq.stages.gateway_reports import flush, rests, settle_report
from shrivenq.stages.gateway_state import Config, Gateway, Limits, await_answer, limit_table, unwatch
from shrivenq.stages.stage import (
    FAULT_SEQUENCE,
    KILL_SEEN,
    KILL_SEEN_NS,
    VIRTUAL,
    Setup,
    Stage,
    fault,
    stamp,
    time_of,
    turn,
)
from shrivenq.stages.venues.binance_orders import ORDER_TEXT_MAX, encode

__all__ = ["STAGE", "Config", "Gateway", "Limits", "build", "run", "step"]

BATCH = 64
"""Orders, and reports, taken in one step."""
FILLS_REMEMBERED = 1 << 13
"""Fills by which a repeated one is recognised; a live venue has them all looked at before they are so many."""

LOOK_NS, REST_NS = 5_000_000_000, 60_000_000_000
"""Between two questions about orders that rest, one each time; none is younger than REST_NS."""

DUPLICATE, NO_SLOT, MALFORMED = m.REASON["duplicate"], m.REASON["no_slot"], m.REASON["malformed"]
SECOND_LINE, KILLED, JOURNAL, LOST = m.REASON["second_line"], m.REASON["killed"], m.REASON["journal"], m.REASON["lost"]
ORDER_WORDS = m.ORDER.itemsize // 8
HELD, NOT_TRADABLE, UNKNOWN_ORDER = m.REASON["held"], m.REASON["not_tradable"], m.REASON["unknown_order"]
JOURNALED = 2 * m.ORDER.itemsize
"""Bytes of the journal fetched ahead: a record of an order, or of a report."""


# ── our own words ────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _hand_over(context: Any) -> None:
    """Put `order` on `to_venue` and commit it; the caller has claimed room."""
    out = context.to_venue
    position = out.own[ring.NEXT]
    slot = ring.next_slot(out)
    out.slots[slot] = context.order[0]
    out.slots[slot]["sequence"] = position
    ring.publish(out)


@kernel
def _say(context: Any, loop: Any, kind: int, reason: int, release: int) -> bool:
    """Report DENIED or UNKNOWN of `order` ourselves: at once, or in replay by way of the venue."""
    order, report = context.order, context.report
    if loop[VIRTUAL] != 0:
        order[0]["kind"] = m.ECHO
        order[0]["echo"] = kind
        order[0]["reason"] = reason
        _hand_over(context)
        if release == g.FROM_RISK:
            ring.release(context.orders, 1)
        return True
    context.report_words[:] = 0
    report[0]["time_ns"] = context.words[g.NOW_NS]
    report[0]["kind"] = kind
    report[0]["reason"] = reason
    report[0]["order_id"] = order[0]["order_id"]
    report[0]["target_id"] = order[0]["target_id"]
    report[0]["cause"] = order[0]["cause"]
    report[0]["instrument"] = order[0]["instrument"]
    report[0]["side"] = order[0]["side"]
    report[0]["price"] = order[0]["price"]
    report[0]["quantity"] = order[0]["quantity"]
    report[0]["slot"] = order[0]["slot"]
    report[0]["generation"] = order[0]["generation"]
    report[0]["wire_ns"] = order[0]["wire_ns"]
    return settle_report(context, loop, release)


@kernel
def _name(context: Any, slot: int, now: int, kind: int) -> None:
    """Make `order` a message about the order in `slot`."""
    order, slots = context.order, context.slots
    context.order_words[:] = 0
    order[0]["time_ns"] = now
    order[0]["kind"] = kind
    order[0]["order_id"] = slots[slot]["order_id"]
    order[0]["target_id"] = slots[slot]["order_id"]
    order[0]["cause"] = slots[slot]["cause"]
    order[0]["instrument"] = slots[slot]["instrument"]
    order[0]["side"] = slots[slot]["side"]
    order[0]["price"] = slots[slot]["price"]
    order[0]["quantity"] = slots[slot]["quantity"]
    order[0]["slot"] = slot
    order[0]["generation"] = slots[slot]["generation"]
    order[0]["wire_ns"] = slots[slot]["wire_ns"]


@kernel
def _ask(context: Any, slot: int, now: int) -> None:
    """Ask the venue what became of the order in `slot`."""
    _name(context, slot, now, m.QUERY)
    encode(context.order, 0, context.instruments, context.run, now // 1_000_000, context.text)
    context.words[g.QUERIES] += 1
    _hand_over(context)


@inlined
def is_overdue(context: Any, now: int) -> bool:
    """Tell whether any answer is overdue; notes the time."""
    words = context.words
    words[g.NOW_NS] = max(words[g.NOW_NS], now)
    return bool(words[g.WATCH_FIRST] >= 0 and context.watch[words[g.WATCH_FIRST]]["deadline_ns"] <= now)


@kernel
def overdue(context: Any, loop: Any, now: int) -> bool:
    """Make unknown, and ask about, every order whose answer is overdue; False if that must wait for room."""
    words = context.words
    while is_overdue(context, now):
        if not ring.claim(context.to_venue, 2):
            return False
        slot = words[g.WATCH_FIRST]
        known = context.slots[slot]["state"] != o.UNKNOWN
        if not o.advance(context.slots, slot, o.SILENCE, context.illegal):
            unwatch(context, slot)
            continue
        await_answer(context, slot, now)
        _ask(context, slot, now)
        if known and not _say(context, loop, m.UNKNOWN, 0, 0):
            return False
    return True


@kernel
def look(context: Any, now: int) -> None:
    """Ask about an order that rests, one after the other: its end may never have been told."""
    words, slots = context.words, context.slots
    words[g.LOOK_NS] = now + LOOK_NS
    for _ in range(slots.shape[0]):
        slot = words[g.LOOK_SLOT] = (words[g.LOOK_SLOT] + 1) % slots.shape[0]
        if rests(slots, slot) and now - slots[slot]["time_ns"] >= REST_NS and ring.claim(context.to_venue, 1):
            _ask(context, slot, now)
            return


@kernel
def recover(context: Any, loop: Any, now: int) -> int:
    """Ask about every order a gateway before this one left behind; what it never sent is denied.

    An order's fills are counted anew from the venue's answer.
    """
    words, slots = context.words, context.slots
    words[g.NOW_NS] = max(words[g.NOW_NS], now)
    work = 0
    while words[g.RECOVERED] < context.recovering.shape[0] and ring.claim(context.to_venue, 2):
        slot = context.recovering[words[g.RECOVERED]]
        words[g.RECOVERED] += 1
        work += 1
        id_map.put(context.ids, slots[slot]["order_id"], 0, slot)
        if slots[slot]["state"] == o.NEW:
            _name(context, slot, now, m.NEW)
            said = _say(context, loop, m.DENIED, LOST, 0)
        else:
            slots[slot]["state"] = o.UNKNOWN
            slots[slot]["filled"] = 0
            await_answer(context, slot, now)
            _ask(context, slot, now)
            said = _say(context, loop, m.UNKNOWN, 0, 0)
        if not said:
            break
    return work


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def note_kill(context: Any, loop: Any) -> None:
    """Say which kill level this stage acts on."""
    level = control.kill_level(context.kill) + 1
    if loop[KILL_SEEN] != level:
        loop[KILL_SEEN_NS] = stamp(loop)
        loop[KILL_SEEN] = level


@inlined
def _within(context: Any, i: int, price: int) -> bool:
    return bool(context.limits[i, 1] <= price <= context.limits[i, 2])


@kernel
def _second_line_about(context: Any) -> int:
    """Check `order`, a CANCEL, AMEND or CANCEL_ALL, and name the order it is about as the venue does."""
    order, slots = context.order, context.slots
    i, kind = order[0]["instrument"], order[0]["kind"]
    if kind == m.CANCEL_ALL:
        return 0 if 0 <= i < context.limits.shape[0] else SECOND_LINE
    slot = id_map.find(context.ids, order[0]["target_id"], 0)
    if slot >= 0 and slots[slot]["instrument"] == i:
        order[0]["venue_order_id"] = slots[slot]["venue_order_id"]
        if kind == m.AMEND and not 0 < order[0]["quantity"] < slots[slot]["quantity"]:
            return SECOND_LINE
        return 0
    # A cancel of what is not known here may still be right; an amendment is not worth the doubt.
    return UNKNOWN_ORDER if kind == m.AMEND else 0


@inlined
def _second_line(context: Any, now: int) -> int:
    """Check `order` against limits that are not risk's; return the reason it fails, 0 for none."""
    order, slots, words = context.order, context.slots, context.words
    i, slot = order[0]["instrument"], order[0]["slot"]
    if i < 0 or i >= context.limits.shape[0]:
        return SECOND_LINE
    if slot < 0 or slot >= slots.shape[0] or pool.generation_of(context.pool, slot) != order[0]["generation"]:
        return NO_SLOT
    if slots[slot]["order_id"] != order[0]["order_id"] or slots[slot]["state"] != o.NEW:
        return NO_SLOT
    if id_map.find(context.ids, order[0]["order_id"], 0) != id_map.ABSENT:
        return DUPLICATE
    if order[0]["quantity"] <= 0 or order[0]["quantity"] > context.limits[i, 0]:
        return SECOND_LINE
    order_type = order[0]["order_type"]
    if o.has_limit(order_type) and not _within(context, i, order[0]["price"]):
        return SECOND_LINE
    if o.is_stop(order_type) and not _within(context, i, order[0]["stop_price"]):
        return SECOND_LINE
    size = context.window.shape[0]
    oldest = context.window[words[g.WINDOW_COUNT] % size]
    if words[g.WINDOW_COUNT] >= size and now - oldest < words[g.WINDOW_NS] and order[0]["flags"] & m.FORCED == 0:
        return SECOND_LINE
    return 0


@inlined
def _note_request(context: Any, target: int, now: int) -> None:
    """Await the answer to `order`, which is to end or change the order in slot `target`, -1 for none."""
    order, slots = context.order, context.slots
    if target >= 0 and o.advance(slots, target, o.SEND_CANCEL, context.illegal):
        slots[target]["cancel_id"] = order[0]["order_id"]
        slots[target]["amended"] = order[0]["quantity"] if order[0]["kind"] == m.AMEND else 0
        if context.watch[target]["linked"] == 0:  # else an answer is awaited already: who repeats does not delay
            await_answer(context, target, now)


@kernel
def _note_cancel_all(context: Any, now: int) -> None:
    """Await the end of every order of an instrument: one that is not heard of is asked about by itself."""
    slots = context.slots
    for slot in range(slots.shape[0]):
        # Slots that are free, or risk's still, are terminal or not in `ids`.
        if slots[slot]["instrument"] != context.order[0]["instrument"] or o.is_terminal(slots, slot):
            continue
        if id_map.find(context.ids, slots[slot]["order_id"], 0) == slot:
            _note_request(context, slot, now)


@inlined
def _note_sent(context: Any, now: int) -> None:
    """Advance the states of what `order` begins and ends, just before it goes out."""
    order, slots, words = context.order, context.slots, context.words
    kind = order[0]["kind"]
    if kind == m.CANCEL_ALL:
        _note_cancel_all(context, now)
    elif kind != m.NEW:
        _note_request(context, id_map.find(context.ids, order[0]["target_id"], 0), now)
    if kind in (m.NEW, m.REPLACE):
        slot = order[0]["slot"]
        id_map.put(context.ids, order[0]["order_id"], 0, slot)
        slots[slot]["first_trade"] = context.anchors[order[0]["instrument"]] + 1
        o.advance(slots, slot, o.SEND, context.illegal)
        await_answer(context, slot, now)
        context.window[words[g.WINDOW_COUNT] % context.window.shape[0]] = now
        words[g.WINDOW_COUNT] += 1
    words[g.SENT] += 1


@kernel
def _deny(context: Any, loop: Any, reason: int) -> bool:
    context.words[g.DENIED] += 1
    return _say(context, loop, m.DENIED, reason, g.FROM_RISK)


@inlined
def _stopped(context: Any) -> int:
    """Read the kill and hold words again; the reason for which `order` may not be sent now, 0 for none."""
    order = context.order
    if order[0]["kind"] not in (m.NEW, m.REPLACE) or order[0]["flags"] & (m.REDUCING | m.FORCED) != 0:
        return 0
    if control.kill_level(context.kill) != control.ARMED:
        return KILLED
    if control.held(context.hold) != 0:
        return HELD
    return NOT_TRADABLE if control.held_alone(context.instrument_hold, order[0]["instrument"]) != 0 else 0


@inlined
def _journaled(context: Any) -> bool:
    """Journal `order` whole; False if the ring is full."""
    time_ns = context.order[0]["time_ns"]
    return journal.append(context.journal, journal.ORDER_SENT, context.order_words, 0, ORDER_WORDS, time_ns)


@kernel
def let_go(context: Any) -> None:
    """End the hold for a full journal once half of its ring is empty."""
    if byte_ring.free(context.journal.ring) >= context.journal.ring.data.shape[0] // 2:
        context.words[g.HELD] = 0
        control.unhold(context.hold, control.JOURNAL_LAG)


@inlined
def send(context: Any, loop: Any) -> bool:
    """Take `order` from risk to the venue, or deny it; False, and nothing done, if it must wait."""
    order, words, slots = context.order, context.words, context.slots
    kind, slot, now = order[0]["kind"], order[0]["slot"], words[g.NOW_NS]
    if kind not in (m.NEW, m.CANCEL, m.REPLACE, m.AMEND, m.CANCEL_ALL):
        return _deny(context, loop, MALFORMED)
    begins = kind in (m.NEW, m.REPLACE)
    reason = _second_line(context, now) if begins else _second_line_about(context)
    if reason != 0:
        return _deny(context, loop, reason)
    if not _journaled(context):
        if loop[VIRTUAL] != 0:
            return False
        words[g.HELD] = 1
        control.hold(context.hold, control.JOURNAL_LAG)
        if begins or kind == m.AMEND:
            return _deny(context, loop, JOURNAL)
        words[g.UNJOURNALED_CANCELS] += 1
    if encode(order, 0, context.instruments, context.run, now // 1_000_000, context.text) <= 0:
        return _deny(context, loop, MALFORMED)
    ready_ns = stamp(loop)
    reason = _stopped(context)
    if reason != 0:
        return _deny(context, loop, reason)
    _note_sent(context, now)
    _hand_over(context)
    if begins:
        sent_ns = stamp(loop)
        slots[slot]["ready_ns"] = ready_ns
        slots[slot]["sent_ns"] = sent_ns
        hops.record(context.hops, order, 0, ready_ns, sent_ns)
    ring.release(context.orders, 1)
    ring.prepare(context.to_venue, 1)
    ring.prepare(context.reports, 1)
    byte_ring.prepare(context.journal.ring, JOURNALED)
    return True


# ── the stage ────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _take_reports(context: Any, loop: Any) -> int:
    """Take what the venue said, one report at a time."""
    source = context.from_venue
    waiting = min(ring.available(source), BATCH)
    for taken in range(waiting):
        slot = ring.slot_at(source, 0)
        if source.slots[slot]["sequence"] != source.own[ring.TAIL]:
            fault(loop, FAULT_SEQUENCE, source.own[ring.TAIL])
            return taken
        now = source.slots[slot]["time_ns"] if loop[VIRTUAL] != 0 else context.words[g.NOW_NS]
        if is_overdue(context, now) and not overdue(context, loop, now):
            return taken
        context.report[0] = source.slots[slot]
        context.report[0]["time_ns"] = now
        if not settle_report(context, loop, g.FROM_VENUE):
            return taken
    return waiting


@inlined
def _take_orders(context: Any, loop: Any) -> int:
    """Take what risk lets out, one order at a time."""
    source = context.orders
    waiting = min(ring.available(source), BATCH)
    for taken in range(waiting):
        slot = ring.slot_at(source, 0)
        if source.slots[slot]["sequence"] != source.own[ring.TAIL]:
            fault(loop, FAULT_SEQUENCE, source.own[ring.TAIL])
            return taken
        now = source.slots[slot]["time_ns"] if loop[VIRTUAL] != 0 else context.words[g.NOW_NS]
        if is_overdue(context, now) and not overdue(context, loop, now):
            return taken
        if not ring.claim(context.to_venue, 2):
            return taken
        context.order[0] = source.slots[slot]
        if not send(context, loop):
            return taken
    return waiting


@inlined
def step(context: Any, loop: Any) -> int:
    """Take what the venue said, then what risk lets out; return the number of messages."""
    note_kill(context, loop)
    if context.words[g.PENDING] != 0 and not flush(context):
        return 0
    work = 0
    if loop[VIRTUAL] == 0:
        if context.words[g.HELD] != 0:
            let_go(context)
        now = time_of(loop, 0)
        if context.words[g.RECOVERED] < context.recovering.shape[0]:
            work += recover(context, loop, now)
        if context.words[g.PENDING] != 0 or (is_overdue(context, now) and not overdue(context, loop, now)):
            return work
        if now >= context.words[g.LOOK_NS]:
            look(context, now)
    work += _take_reports(context, loop)
    if context.words[g.PENDING] == 0:
        work += _take_orders(context, loop)
    return work


@kernel
def run(context: Any, loop: Any) -> None:
    """Repeat `step` until the turn is over."""
    work = 0
    while turn(loop, work):
        work = step(context, loop)


def build(setup: Setup) -> Gateway:
    """Make the context; orders that an earlier gateway left in the pool are recovered in the first steps.

    Raises ValueError for limits that are missing or cannot be.
    """
    config: Config = setup.config
    slots = setup.shared["orders"]
    words = np.zeros(g.WORDS, np.int64)
    words[g.UNKNOWN_NS] = config.unknown_after_ms * 1_000_000
    words[g.WINDOW_NS] = config.window_ms * 1_000_000
    words[g.WATCH_FIRST] = words[g.WATCH_LAST] = words[g.LOOK_SLOT] = -1
    order, report = np.zeros(1, m.ORDER), np.zeros(1, m.REPORT)
    return Gateway(
        orders=setup.consumers["order"],
        from_venue=setup.consumers["from_venue"],
        reports=setup.producers["report"],
        to_venue=setup.producers["to_venue"],
        journal=journal.make_journal(setup.producers["journal"]),
        pool=slots,
        slots=slots.slots,
        ids=id_map.make_map(2 * len(slots.slots)),
        fills=id_map.make_recent(FILLS_REMEMBERED),
        anchors=np.full(len(setup.instruments), o.NO_TRADE, np.int64),
        illegal=o.make_illegal(),
        watch=np.zeros(len(slots.slots), g.WATCH),
        window=np.zeros(config.orders_max, np.int64),
        limits=limit_table(config, setup.instruments),
        instruments=setup.instruments,
        run=setup.shared["run"],
        text=np.zeros(ORDER_TEXT_MAX, np.uint8),
        kill=setup.shared["kill"],
        hold=setup.shared["hold"],
        instrument_hold=setup.shared["instrument_hold"],
        order=order,
        order_words=order.view(np.int64),
        report=report,
        report_words=report.view(np.int64),
        hops=setup.shared.get("hops") or hops.private(),
        recovering=np.flatnonzero(np.array(slots.generation) & 1).astype(np.int64),
        words=words,
    )


STAGE = Stage(
    name="gateway",
    reads=("order", "from_venue"),
    writes=("report", "to_venue", "journal"),
    build=build,
    step=step,
    run=run,
)
