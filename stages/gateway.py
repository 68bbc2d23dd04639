"""Gateway: ORDER → venue, venue → REPORT, and a journal of both.

Each order is looked at once more, journaled, encoded as the venue's own text (the moment it is *ready*) and handed on
only after the kill word has been read again. Each report advances the order it is about by the table in `orders`;
fills are told apart by (instrument, trade id) and counted once; reports are journaled whole before risk sees them. An
order whose answer is overdue becomes unknown: it keeps its slot and exposure, and the venue is asked until it answers.
Nothing is ever sent twice.

No report is dropped. Where the journal or the `report` ring is full the venue is not read until there is room; an
order that cannot be journaled is denied, and new orders are held. In replay the gateway's own words (DENIED, UNKNOWN)
go through the paper venue as ECHO, so that they come back at a time the conductor knows.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import msgspec
import numpy as np

from shrivenq.shm import pool, ring
from shrivenq.shm.kernel import kernel
from shrivenq.stages import control, id_map, journal
from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from shrivenq.stages.id_map import IdMap, Recent
from shrivenq.stages.journal import Journal
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
from shrivenq.stages.venues.binance_orders import encode

BATCH = 64
"""Orders, and reports, taken in one step."""
TEXT_SIZE = 4096
FILLS_REMEMBERED = 1 << 16
"""Fills by which a repeated one is recognised."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway.limits.SYMBOL]`: what no order may ever exceed, in decimals, as text."""

    quantity_max: str
    price_min: str
    price_max: str


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway]`: the second line behind risk, and how long an answer may take."""

    unknown_after_ms: int
    """An order or cancel without an answer for this long is unknown, and is asked about again each such time."""
    orders_max: int
    """New orders and replacements in any one window."""
    window_ms: int
    limits: dict[str, Limits]
    """By symbol: one for every instrument that may be traded."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, most in (("unknown_after_ms", 3_600_000), ("orders_max", 1_000_000), ("window_ms", 3_600_000)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is 1 to {most:,}, not {getattr(self, name)}")


# Words of the context.
NOW_NS = 0  # latest time seen
PENDING = 1  # 0 nothing, 1 `report` is to be journaled, 2 it is journaled and to be forwarded
FORWARD = 2  # 1 if risk is to see `report`
RELEASE = 3  # input to release once it is out: FROM_VENUE, FROM_RISK or neither
UNKNOWN_NS = 4
WINDOW_NS = 5
WINDOW_COUNT = 6  # orders sent in all, by the window's reckoning
WATCH_FIRST, WATCH_LAST = 7, 8  # ends of the list of orders whose answer is awaited, oldest first; -1 for none
RECOVERED = 9  # slots of `recovering` dealt with
SENT = 10  # messages handed to the venue
DENIED = 11
UNMATCHED = 12  # reports of orders that have no slot
REPEATED_FILLS = 13
OVERFILLS = 14  # fills beyond an order's quantity
QUERIES = 15
UNJOURNALED_CANCELS = 16
HELD = 17  # 1 while new orders are held because the journal is full
WORDS = 32

FROM_VENUE, FROM_RISK = 1, 2

WATCH = np.dtype(
    [("deadline_ns", "<i8"), ("next", "<i4"), ("previous", "<i4"), ("linked", "<i8")],
    align=True,
)

DUPLICATE, NO_SLOT, MALFORMED = m.REASON["duplicate"], m.REASON["no_slot"], m.REASON["malformed"]
SECOND_LINE, KILLED, JOURNAL, LOST = m.REASON["second_line"], m.REASON["killed"], m.REASON["journal"], m.REASON["lost"]
ORDER_WORDS, REPORT_WORDS = m.ORDER.itemsize // 8, m.REPORT.itemsize // 8


class Gateway(NamedTuple):
    """Context of the stage."""

    orders: Any  # consumer of `order`
    from_venue: Any
    reports: Any  # producer of `report`
    to_venue: Any
    journal: Journal
    pool: Any
    slots: Any  # ORDER_SLOT, the pool's
    ids: IdMap  # order id → slot
    fills: Recent  # (instrument, trade id)
    illegal: Any  # int64[state, event]
    watch: Any  # WATCH, one per slot
    window: Any  # int64: times of the last orders sent
    limits: Any  # int64[instrument, 3]: quantity_max, price_min, price_max
    instruments: Any
    run: Any  # uint8: the run id, as client order ids spell it
    text: Any  # uint8: the venue's text of the last order
    kill: Any
    hold: Any
    order: Any  # ORDER, the one being handled,
    order_words: Any  # and as int64
    report: Any  # REPORT, the one being handled,
    report_words: Any
    recovering: Any  # int64: slots taken before this gateway was built
    words: Any


# ── awaiting answers ─────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def unwatch(context: Any, slot: int) -> None:
    """Stop awaiting an answer for a slot."""
    watch, words = context.watch, context.words
    if watch[slot]["linked"] == 0:
        return
    before, after = watch[slot]["previous"], watch[slot]["next"]
    if before < 0:
        words[WATCH_FIRST] = after
    else:
        watch[before]["next"] = after
    if after < 0:
        words[WATCH_LAST] = before
    else:
        watch[after]["previous"] = before
    watch[slot]["linked"] = 0


@kernel
def await_answer(context: Any, slot: int, now: int) -> None:
    """Await an answer for a slot from now on; deadlines grow along the list, since all wait equally long."""
    watch, words = context.watch, context.words
    unwatch(context, slot)
    last = words[WATCH_LAST]
    watch[slot]["deadline_ns"] = now + words[UNKNOWN_NS]
    watch[slot]["next"] = -1
    watch[slot]["previous"] = last
    watch[slot]["linked"] = 1
    if last < 0:
        words[WATCH_FIRST] = slot
    else:
        watch[last]["next"] = slot
    words[WATCH_LAST] = slot


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
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


@kernel
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


@kernel
def _happen(context: Any, slot: int, event: int) -> bool:
    """Let an event of `report` happen to the order in `slot`; False if it has none, or it may not."""
    if slot < 0:
        context.words[UNMATCHED] += 1
        return False
    slots, report = context.slots, context.report
    if event == o.ACCEPT:
        slots[slot]["venue_order_id"] = report[0]["venue_order_id"]
    if not o.advance(slots, slot, event, context.illegal):
        return False
    _describe(context, slot)
    _settle(context, slot)
    return True


@kernel
def _on_fill(context: Any, slot: int) -> bool:
    """Count a fill, once. It moves the position whatever state its order is in, so risk sees every new one."""
    report, slots, words = context.report, context.slots, context.words
    if not id_map.remember(context.fills, report[0]["instrument"], report[0]["trade_id"]):
        words[REPEATED_FILLS] += 1
        return False
    if slot < 0:
        words[UNMATCHED] += 1
        report[0]["slot"] = -1
        return True
    filled = slots[slot]["filled"] + report[0]["last_quantity"]
    if filled > slots[slot]["quantity"]:
        words[OVERFILLS] += 1
    event = o.FULL_FILL if filled >= slots[slot]["quantity"] else o.PART_FILL
    if o.advance(slots, slot, event, context.illegal):
        slots[slot]["filled"] = filled
        _describe(context, slot)
        _settle(context, slot)
    return True


@kernel
def _on_cancel_rejected(context: Any) -> bool:
    """Restore the target; a replacement that was not placed is over with it."""
    report = context.report
    target = id_map.find(context.ids, report[0]["target_id"], 0)
    if target >= 0:
        _happen(context, target, o.REFUSE_CANCEL)
    slot = id_map.find(context.ids, report[0]["order_id"], 0)
    if slot >= 0:
        return _happen(context, slot, o.REJECT)
    if target < 0:
        report[0]["slot"] = -1
    return True


@kernel
def _on_replaced(context: Any) -> bool:
    """Close the target and open its successor."""
    report = context.report
    target = id_map.find(context.ids, report[0]["target_id"], 0)
    venue_order_id, flags = report[0]["venue_order_id"], report[0]["flags"]
    _happen(context, target, o.REPLACE)
    report[0]["venue_order_id"] = venue_order_id
    report[0]["flags"] = flags
    return _happen(context, id_map.find(context.ids, report[0]["order_id"], 0), o.ACCEPT)


@kernel
def _denied_slot(context: Any) -> int:
    """Find the slot of an order we denied: the one it named, since its id may be another's; -1 for a CANCEL."""
    report, slots = context.report, context.slots
    slot = report[0]["slot"]
    if slot < 0 or slot >= slots.shape[0] or slots[slot]["state"] != o.NEW:
        return -1
    if slots[slot]["order_id"] != report[0]["order_id"] or slots[slot]["generation"] != report[0]["generation"]:
        return -1
    return slot


@kernel
def handle(context: Any) -> bool:
    """Let `report` happen; tell whether risk is to see it."""
    report, ids = context.report, context.ids
    kind = report[0]["kind"]
    if kind == m.CANCELLED:
        return _happen(context, id_map.find(ids, report[0]["target_id"], 0), o.CANCEL)
    if kind == m.CANCEL_REJECTED:
        return _on_cancel_rejected(context)
    if kind == m.REPLACED:
        return _on_replaced(context)
    if kind == m.DENIED:
        slot = _denied_slot(context)
        return slot < 0 or _happen(context, slot, o.REJECT)
    slot = id_map.find(ids, report[0]["order_id"], 0)
    if kind == m.FILL:
        return _on_fill(context, slot)
    if kind == m.ACCEPTED:
        return _happen(context, slot, o.ACCEPT)
    if kind == m.REJECTED:
        return _happen(context, slot, o.REJECT)
    if kind == m.EXPIRED:
        return _happen(context, slot, o.EXPIRE)
    if kind == m.ABSENT:
        report[0]["kind"] = m.REJECTED
        return _happen(context, slot, o.ABSENCE)
    if kind == m.UNKNOWN and slot >= 0 and context.slots[slot]["state"] == o.UNKNOWN:
        _describe(context, slot)
        return True
    return False


@kernel
def flush(context: Any) -> bool:
    """Journal the report being handled, pass it on, release its cause; False if there is no room yet."""
    words, report, out = context.words, context.report, context.reports
    if words[PENDING] == 1:
        time_ns = report[0]["time_ns"]
        if not journal.append(context.journal, journal.REPORT_SEEN, context.report_words, 0, REPORT_WORDS, time_ns):
            return False
        words[PENDING] = 2
    if words[FORWARD] != 0:
        if not ring.claim(out, 1):
            return False
        position = out.own[ring.NEXT]
        slot = ring.next_slot(out)
        out.slots[slot] = report[0]
        out.slots[slot]["sequence"] = position
        ring.publish(out)
    if words[RELEASE] == FROM_VENUE:
        ring.release(context.from_venue, 1)
    elif words[RELEASE] == FROM_RISK:
        ring.release(context.orders, 1)
    words[PENDING] = 0
    return True


@kernel
def _settle_report(context: Any, loop: Any, release: int) -> bool:
    """Handle `report` and send it on its way; False if it must wait."""
    context.report[0]["acknowledged_ns"] = stamp(loop)
    context.words[FORWARD] = 1 if handle(context) else 0
    context.words[RELEASE] = release
    context.words[PENDING] = 1
    return flush(context)


# ── our own words ────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
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
        if release == FROM_RISK:
            ring.release(context.orders, 1)
        return True
    context.report_words[:] = 0
    report[0]["time_ns"] = context.words[NOW_NS]
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
    return _settle_report(context, loop, release)


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
    """Ask the venue what became of the order in `slot`, and await the answer."""
    await_answer(context, slot, now)
    _name(context, slot, now, m.QUERY)
    encode(context.order, 0, context.instruments, context.run, now // 1_000_000, context.text)
    context.words[QUERIES] += 1
    _hand_over(context)


@kernel
def overdue(context: Any, loop: Any, now: int) -> bool:
    """Make unknown, and ask about, every order whose answer is overdue; False if that must wait for room."""
    words = context.words
    words[NOW_NS] = max(words[NOW_NS], now)
    while words[WATCH_FIRST] >= 0 and context.watch[words[WATCH_FIRST]]["deadline_ns"] <= now:
        if not ring.claim(context.to_venue, 2):
            return False
        slot = words[WATCH_FIRST]
        known = context.slots[slot]["state"] != o.UNKNOWN
        if not o.advance(context.slots, slot, o.SILENCE, context.illegal):
            unwatch(context, slot)
            continue
        _ask(context, slot, now)
        if known and not _say(context, loop, m.UNKNOWN, 0, 0):
            return False
    return True


@kernel
def recover(context: Any, loop: Any, now: int) -> int:
    """Ask about every order a gateway before this one left behind; what it never sent is denied.

    An order's fills are counted anew from the venue's answer.
    """
    words, slots = context.words, context.slots
    words[NOW_NS] = max(words[NOW_NS], now)
    work = 0
    while words[RECOVERED] < context.recovering.shape[0] and ring.claim(context.to_venue, 2):
        slot = context.recovering[words[RECOVERED]]
        words[RECOVERED] += 1
        work += 1
        id_map.put(context.ids, slots[slot]["order_id"], 0, slot)
        if slots[slot]["state"] == o.NEW:
            _name(context, slot, now, m.NEW)
            said = _say(context, loop, m.DENIED, LOST, 0)
        else:
            slots[slot]["state"] = o.UNKNOWN
            slots[slot]["filled"] = 0
            _ask(context, slot, now)
            said = _say(context, loop, m.UNKNOWN, 0, 0)
        if not said:
            break
    return work


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def note_kill(context: Any, loop: Any) -> None:
    """Say which kill level this stage acts on."""
    level = control.kill_level(context.kill) + 1
    if loop[KILL_SEEN] != level:
        loop[KILL_SEEN_NS] = stamp(loop)
        loop[KILL_SEEN] = level


@kernel
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
    price = order[0]["price"]
    if order[0]["order_type"] != m.MARKET and (price < context.limits[i, 1] or price > context.limits[i, 2]):
        return SECOND_LINE
    size = context.window.shape[0]
    oldest = context.window[words[WINDOW_COUNT] % size]
    if words[WINDOW_COUNT] >= size and now - oldest < words[WINDOW_NS] and order[0]["flags"] & m.FORCED == 0:
        return SECOND_LINE
    return 0


@kernel
def _note_sent(context: Any, now: int) -> None:
    """Advance the states of what `order` begins and ends, just before it goes out."""
    order, slots, words = context.order, context.slots, context.words
    if order[0]["kind"] != m.NEW:
        target = id_map.find(context.ids, order[0]["target_id"], 0)
        if target >= 0 and o.advance(slots, target, o.SEND_CANCEL, context.illegal):
            slots[target]["cancel_id"] = order[0]["order_id"]
            await_answer(context, target, now)
    if order[0]["kind"] != m.CANCEL:
        slot = order[0]["slot"]
        id_map.put(context.ids, order[0]["order_id"], 0, slot)
        o.advance(slots, slot, o.SEND, context.illegal)
        await_answer(context, slot, now)
        context.window[words[WINDOW_COUNT] % context.window.shape[0]] = now
        words[WINDOW_COUNT] += 1
    words[SENT] += 1


@kernel
def _deny(context: Any, loop: Any, reason: int) -> bool:
    context.words[DENIED] += 1
    return _say(context, loop, m.DENIED, reason, FROM_RISK)


@kernel
def _is_stopped(context: Any) -> bool:
    """Read the kill word; True if `order` may not be sent."""
    order = context.order
    if order[0]["kind"] == m.CANCEL or order[0]["flags"] & (m.REDUCING | m.FORCED) != 0:
        return False
    return control.kill_level(context.kill) != control.ARMED


@kernel
def _journaled(context: Any) -> bool:
    """Journal `order` whole; a full ring holds new orders until it has room again."""
    time_ns = context.order[0]["time_ns"]
    done = journal.append(context.journal, journal.ORDER_SENT, context.order_words, 0, ORDER_WORDS, time_ns)
    if done and context.words[HELD] != 0:
        context.words[HELD] = 0
        control.unhold(context.hold, control.JOURNAL_LAG)
    return done


@kernel
def send(context: Any, loop: Any) -> bool:
    """Take `order` from risk to the venue, or deny it; False, and nothing done, if it must wait."""
    order, words, slots = context.order, context.words, context.slots
    kind, slot, now = order[0]["kind"], order[0]["slot"], words[NOW_NS]
    if kind not in (m.NEW, m.CANCEL, m.REPLACE):
        return _deny(context, loop, MALFORMED)
    if kind != m.CANCEL:
        reason = _second_line(context, now)
        if reason != 0:
            return _deny(context, loop, reason)
    if not _journaled(context):
        if loop[VIRTUAL] != 0:
            return False
        words[HELD] = 1
        control.hold(context.hold, control.JOURNAL_LAG)
        if kind != m.CANCEL:
            return _deny(context, loop, JOURNAL)
        words[UNJOURNALED_CANCELS] += 1
    if encode(order, 0, context.instruments, context.run, now // 1_000_000, context.text) <= 0:
        return _deny(context, loop, MALFORMED)
    ready_ns = stamp(loop)
    if _is_stopped(context):
        return _deny(context, loop, KILLED)
    _note_sent(context, now)
    _hand_over(context)
    if kind != m.CANCEL:
        slots[slot]["ready_ns"] = ready_ns
        slots[slot]["sent_ns"] = stamp(loop)
    ring.release(context.orders, 1)
    return True


# ── the stage ────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def _take_reports(context: Any, loop: Any) -> int:
    """Take what the venue said, one report at a time."""
    source = context.from_venue
    waiting = min(ring.available(source), BATCH)
    for taken in range(waiting):
        slot = ring.slot_at(source, 0)
        if source.slots[slot]["sequence"] != source.own[ring.TAIL]:
            fault(loop, FAULT_SEQUENCE, source.own[ring.TAIL])
            return taken
        now = time_of(loop, source.slots[slot]["time_ns"])
        if not overdue(context, loop, now):
            return taken
        context.report[0] = source.slots[slot]
        context.report[0]["time_ns"] = now
        if not _settle_report(context, loop, FROM_VENUE):
            return taken
    return waiting


@kernel
def _take_orders(context: Any, loop: Any) -> int:
    """Take what risk lets out, one order at a time."""
    source = context.orders
    waiting = min(ring.available(source), BATCH)
    for taken in range(waiting):
        slot = ring.slot_at(source, 0)
        if source.slots[slot]["sequence"] != source.own[ring.TAIL]:
            fault(loop, FAULT_SEQUENCE, source.own[ring.TAIL])
            return taken
        now = time_of(loop, source.slots[slot]["time_ns"])
        if not overdue(context, loop, now) or not ring.claim(context.to_venue, 2):
            return taken
        context.order[0] = source.slots[slot]
        if not send(context, loop):
            return taken
    return waiting


@kernel
def step(context: Any, loop: Any) -> int:
    """Take what the venue said, then what risk lets out; return the number of messages."""
    note_kill(context, loop)
    if context.words[PENDING] != 0 and not flush(context):
        return 0
    work = 0
    if loop[VIRTUAL] == 0:
        now = time_of(loop, 0)
        work += recover(context, loop, now)
        if context.words[PENDING] != 0 or not overdue(context, loop, now):
            return work
    work += _take_reports(context, loop)
    if context.words[PENDING] == 0:
        work += _take_orders(context, loop)
    return work


@kernel
def run(context: Any, loop: Any) -> None:
    """Repeat `step` until the turn is over."""
    work = 0
    while turn(loop, work):
        work = step(context, loop)


def _scaled(text: str, decimals: int, where: str) -> int:
    """Read a decimal as an integer at `decimals`. Raises ValueError naming `where`."""
    try:
        value = Decimal(text).scaleb(decimals)
    except InvalidOperation:
        raise ValueError(f"gateway.limits.{where}: {text!r} is no number") from None
    if not value.is_finite() or value <= 0 or value != value.to_integral_value() or value >= 2**62:
        raise ValueError(f"gateway.limits.{where}: {text} is not a positive number of {decimals} decimals at most")
    return int(value)


def _limits(config: Config, instruments: Any) -> Any:
    """Make the table of limits; an instrument that may be traded must have its own. Raises ValueError."""
    limits = np.zeros((len(instruments), 3), np.int64)
    names = {bytes(row["symbol"]).decode() for row in instruments}
    unknown = sorted(config.limits.keys() - names)
    if unknown:
        raise ValueError(f"gateway.limits: {', '.join(unknown)}: no such instrument")
    for i, row in enumerate(instruments):
        symbol = bytes(row["symbol"]).decode()
        given = config.limits.get(symbol)
        if given is None:
            if row["tradable"]:
                raise ValueError(f"gateway.limits.{symbol}: missing, and {symbol} may be traded")
            continue
        price_decimals, quantity_decimals = int(row["price_decimals"]), int(row["quantity_decimals"])
        limits[i, 0] = _scaled(given.quantity_max, quantity_decimals, f"{symbol}.quantity_max")
        limits[i, 1] = _scaled(given.price_min, price_decimals, f"{symbol}.price_min")
        limits[i, 2] = _scaled(given.price_max, price_decimals, f"{symbol}.price_max")
    return limits


def build(setup: Setup) -> Gateway:
    """Make the context; orders that an earlier gateway left in the pool are recovered in the first steps.

    Raises ValueError for limits that are missing or cannot be.
    """
    config: Config = setup.config
    slots = setup.shared["orders"]
    words = np.zeros(WORDS, np.int64)
    words[UNKNOWN_NS] = config.unknown_after_ms * 1_000_000
    words[WINDOW_NS] = config.window_ms * 1_000_000
    words[WATCH_FIRST] = words[WATCH_LAST] = -1
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
        illegal=o.make_illegal(),
        watch=np.zeros(len(slots.slots), WATCH),
        window=np.zeros(config.orders_max, np.int64),
        limits=_limits(config, setup.instruments),
        instruments=setup.instruments,
        run=setup.shared["run"],
        text=np.zeros(TEXT_SIZE, np.uint8),
        kill=setup.shared["kill"],
        hold=setup.shared["hold"],
        order=order,
        order_words=order.view(np.int64),
        report=report,
        report_words=report.view(np.int64),
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
