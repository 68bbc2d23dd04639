"""Risk: INTENT → ORDER, REPORT → feedback.

Nothing leaves without passing every check in `risk_checks.py`; what does not comes back as a REPORT DENIED with its
reason. An admitted order binds its worst case (position, value, a slot of the order pool) until the report that ends
it. Positions, profit and exposure follow from REPORTs alone. The strategy is a user's code: every field of an INTENT is
taken for rubbish until it is checked, and its flags are never looked at.

A step takes touches first (all there were when the intents were counted), then reports, then intents, and publishes
once per ring before it releases what it read. It reads clock, kill and hold once, and what holds single instruments
where a count says that it has changed: with those and the counts of what it took, which `arrivals` notes, everything it
did can be done again. Killed to `cancel`, risk cancels every open order,
and again until it has ended: a cancel may be refused, or lost. Killed to `flatten`, it also closes positions at market,
while the touch is valid and fresh and the account is reconciled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shrivenq.shm import board, ring, slab
from shrivenq.shm.atomics import load_acquire, store_release
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import arrivals, control, id_map, open_orders
from shrivenq.stages import messages as m
from shrivenq.stages import positions as p
from shrivenq.stages import risk_checks as c
from shrivenq.stages import risk_state as state
from shrivenq.stages import stage as s
from shrivenq.stages.money import CEIL, OVERFLOW, notional
from shrivenq.stages.risk_intents import name_target, on_intent, place, write_order
from shrivenq.stages.risk_limits import NS_PER_MS, Config, check_instruments, limit_rows
from shrivenq.stages.risk_reports import drain_touch, on_report
from shrivenq.stages.risk_state import Risk, advance_time, note_message

__all__ = ["STAGE", "Config", "Risk", "build", "run", "step"]

BATCH = 64
"""Reports, and intents, taken in one step at most."""
FILLS_REMEMBERED = 4096
AGAIN_NS = 1_000_000_000
"""Between what a kill makes us do and doing it again, where it came to nothing."""
FLATTEN_TRIES = 8
"""Closing orders of an instrument without a fill before a kill to `flatten` leaves it to a person."""
LONG_AGO = -(1 << 62)


@kernel
def forced_id(words: Any) -> int:
    """Make an id for an order of risk's own."""
    words[state.FORCED_NUMBER] += 1
    return (words[state.EPOCH] << m.EPOCH_SHIFT) | c.FORCED_ID | words[state.FORCED_NUMBER]


@kernel
def rearm(words: Any, rows: Any, order: Any) -> None:
    """Begin anew after a person armed: streaks end, and the next kill cancels everything again."""
    words[state.REJECTS] = 0
    words[state.SPARED] = 0
    for i in range(rows.shape[0]):
        rows[i]["streak"] = 0
        rows[i]["flatten_tries"] = 0
    for at in range(order.shape[0]):
        order[at]["spared"] = 0


@inlined
def watch_kill(context: Risk, loop: Any, stamp_ns: int) -> None:
    """Take note of the kill level, and say so where the kill command looks; and of what holds new orders."""
    level = control.kill_level(context.kill)
    held = control.held(context.holds)
    if level == control.ARMED and context.words[state.LEVEL] != control.ARMED:
        rearm(context.words, context.rows, context.open.slab.slots)
    words = context.words
    words[state.CHANGED] = 1 if level != words[state.LEVEL] or held != words[state.HELD] else 0
    words[state.LEVEL] = words[state.LEVEL_READ] = level
    words[state.HELD] = words[state.HELD_READ] = held
    if loop[s.KILL_SEEN] != level + 1:
        loop[s.KILL_SEEN_NS] = stamp_ns
        store_release(loop, s.KILL_SEEN, level + 1)


@kernel
def watch_instruments(context: Risk, now_ns: int) -> None:
    """Take over what holds single instruments; each change is an arrival of its own, before the step's."""
    for i in range(context.held.shape[0]):
        causes = control.held_alone(context.instrument_hold, i)
        if causes == context.held[i]:
            continue
        context.held[i] = causes
        if context.arrivals.words[arrivals.ON] != 0:
            arrivals.note(
                context.arrivals, arrivals.HELD, now_ns, i, 0, 0, 0, 0, causes, arrivals.EVERY, arrivals.EVERY
            )


@kernel
def unspare(words: Any, order: Any, links: Any) -> None:
    """Have every order cancelled again that a cancel has not ended."""
    for at in range(order.shape[0]):
        if links[at] == slab.TAKEN and order[at]["spared"] == open_orders.CANCELLED:
            order[at]["spared"] = 0
            words[state.SPARED] -= 1


@inlined
def cancel_all(context: Risk, now_ns: int, stamp_ns: int) -> int:
    """Cancel every open order that this kill has not just cancelled, as far as the ring has room."""
    order, links, words = context.open.slab.slots, context.open.slab.links, context.words
    sent = 0
    if words[state.SPARED] == context.open.ids.size[0]:
        if words[state.SPARED] == 0 or now_ns - words[state.SWEPT_NS] < AGAIN_NS:
            return 0
        unspare(words, order, links)
        words[state.SWEPT_NS] = now_ns
    for target in range(slab.high_water(context.open.slab)):
        if links[target] != slab.TAKEN or order[target]["spared"] != 0:
            continue
        if not ring.claim(context.order, 1):
            break
        i = order[target]["instrument"]
        at = write_order(context.order, m.CANCEL, m.FORCED, i, forced_id(context.words), now_ns, stamp_ns)
        name_target(context.order.slots, at, order, target)
        note_message(context.times, context.words, now_ns)
        order[target]["spared"] = open_orders.CANCELLED
        words[state.SWEPT_NS] = now_ns
        words[state.SPARED] += 1
        words[state.FORCED] += 1
        sent += 1
    return sent


@kernel
def closing_quantity(instruments: Any, rows: Any, positions: p.Positions, i: int) -> int:
    """Size the order that would close what open orders do not close already, within the venue's filters."""
    position = positions.rows[i]["position"]
    if position == OVERFLOW:
        return 0
    if position > 0:
        quantity = position - rows[i]["open_sell"]
    else:
        quantity = -position - rows[i]["open_buy"]
    quantity = min(quantity, instruments[i]["quantity_max"])
    if instruments[i]["market_quantity_max"] > 0:
        quantity = min(quantity, instruments[i]["market_quantity_max"])
    quantity -= quantity % max(instruments[i]["step"], instruments[i]["market_step"])
    least = max(instruments[i]["quantity_min"], instruments[i]["market_quantity_min"])
    return quantity if quantity >= least else 0


@inlined
def flatten(context: Risk, i: int, now_ns: int, stamp_ns: int) -> int:
    """Close the position of one instrument at market; 1 if an order went out."""
    rows, instruments = context.rows, context.instruments
    quantity = closing_quantity(instruments, rows, context.positions, i)
    if quantity <= 0 or rows[i]["flatten_tries"] >= FLATTEN_TRIES or instruments[i]["tradable"] == 0:
        return 0
    if rows[i]["flatten_tries"] > 0 and now_ns - rows[i]["flatten_ns"] < AGAIN_NS:
        return 0
    if c.market_data(rows, i, now_ns) != c.PASS or not ring.claim(context.order, 1):
        return 0
    side = m.SELL if context.positions.rows[i]["position"] > 0 else m.BUY
    price = c.valuation_price(rows, instruments, i, m.MARKET, 0, 0)
    value = notional(instruments, i, price, quantity, context.currencies, CEIL)
    if value == OVERFLOW:
        value = 0
    before = context.order.own[ring.NEXT]
    at = write_order(context.order, m.NEW, m.FORCED | m.REDUCING, i, forced_id(context.words), now_ns, stamp_ns)
    if place(context, at, side, m.MARKET, m.IOC, 0, quantity, value) == open_orders.NONE:
        context.order.own[ring.NEXT] = before
        return 0
    note_message(context.times, context.words, now_ns)
    rows[i]["flatten_tries"] += 1
    rows[i]["flatten_ns"] = now_ns
    context.words[state.FORCED] += 1
    return 1


@kernel
def enforce(context: Risk, now_ns: int, stamp_ns: int) -> int:
    """Do what the kill level asks for: cancel, flatten; the number of orders sent."""
    level = context.words[state.LEVEL]
    sent = 0
    if level >= control.CANCEL:
        sent += cancel_all(context, now_ns, stamp_ns)
    # A position that may lack fills is closed once the account is reconciled.
    if level >= control.FLATTEN and context.words[state.HELD] & control.RECONCILING == 0:
        for i in range(context.rows.shape[0]):
            if context.positions.rows[i]["position"] != 0:
                sent += flatten(context, i, now_ns, stamp_ns)
    return sent


@kernel
def has_room(feedback: Any, order: Any, reports: int, intents: int) -> bool:
    """Tell whether there is room for all a batch may cause."""
    return ring.claim(feedback, reports + intents) and ring.claim(order, intents)


@kernel
def in_sequence(source: Any, count: int) -> bool:
    """Check the sequence numbers of the next `count` messages of a trusted ring."""
    for ahead in range(count):
        if source.slots[ring.slot_at(source, ahead)]["sequence"] != source.own[ring.TAIL] + ahead:
            return False
    return True


@kernel
def note_step(context: Risk, now_ns: int, touches: int, reports: int, intents: int, full: int, lost: int) -> None:
    """Note a step that is over but for its publication; `full` and `lost` are the counts from before it."""
    words = context.words
    orders = context.order.own[ring.NEXT] - context.order.own[ring.HEAD]
    passed = context.feedback.own[ring.NEXT] - context.feedback.own[ring.HEAD]
    arrivals.note(
        context.arrivals,
        arrivals.STEP,
        now_ns,
        0,
        touches,
        reports,
        intents,
        words[state.LEVEL_READ],
        words[state.HELD_READ],
        orders if words[state.ORDER_FULL] != full else arrivals.EVERY,
        passed if words[state.FEEDBACK_LOST] != lost else arrivals.EVERY,
    )


@inlined
def step(context: Risk, loop: Any) -> int:
    """Take touches, reports and intents that wait, in bounded batches; return the number of messages."""
    # Counted before the touches are drained: what an intent was based on is known when it is decided.
    intents = min(ring.available(context.intent), BATCH)
    reports = min(ring.available(context.report), BATCH)
    touches = 0
    if ring.available(context.touch) != 0:
        touches = drain_touch(context, loop)
        if touches < 0:
            return 0
    # In replay risk waits for room; live, it waits for nobody.
    if loop[s.VIRTUAL] != 0 and not has_room(context.feedback, context.order, reports, intents):
        return touches
    if not in_sequence(context.report, reports):
        s.fault(loop, s.FAULT_SEQUENCE, context.report.own[ring.TAIL])
        return 0
    # Read after the intents were counted: none of them is of a later time.
    stamp_ns = arrivals.read_clock(context.arrivals, loop) if intents > 0 else loop[s.NOW_NS]
    if loop[s.VIRTUAL] == 0:
        advance_time(context.words, context.totals, context.positions, stamp_ns + loop[s.OFFSET_NS])
    watch_kill(context, loop, stamp_ns)
    words = context.words
    changes = load_acquire(context.holds, control.CHANGES)
    if changes != words[state.CHANGES]:
        words[state.CHANGES] = changes
        watch_instruments(context, stamp_ns + loop[s.OFFSET_NS])
    full, lost = words[state.ORDER_FULL], words[state.FEEDBACK_LOST]
    for ahead in range(reports):
        on_report(context, ring.slot_at(context.report, ahead))
    for ahead in range(intents):
        on_intent(context, loop, ring.slot_at(context.intent, ahead), context.intent.own[ring.TAIL] + ahead)
    forced = 0
    if words[state.LEVEL] >= control.CANCEL:
        forced = enforce(context, words[state.TIME_NS], stamp_ns)
    done = touches + reports + intents + forced + words[state.CHANGED]
    if context.arrivals.words[arrivals.ON] != 0 and done > 0:
        note_step(context, stamp_ns + loop[s.OFFSET_NS], touches, reports, intents, full, lost)
    if reports + intents + forced > 0:
        ring.publish(context.order)
        ring.publish(context.feedback)
        ring.prepare(context.order, 1)
        ring.prepare(context.feedback, 1)
        ring.release(context.report, reports)
        ring.release(context.intent, intents)
    return touches + reports + intents + forced


@kernel
def run(context: Risk, loop: Any) -> None:
    """Run until the turn is over."""
    work = 0
    while s.turn(loop, work):
        work = step(context, loop)


def build(setup: s.Setup) -> Risk:
    """Make the context. Raises ValueError in one line for limits or instruments that cannot be.

    Reads from `setup.shared`: `kill` and `hold` (both writable), `instrument_hold`, `orders` (the order pool), `epoch`,
    and `positions` (a board of POSITION rows) where there is one.
    """
    config: Config = setup.config
    check_instruments(setup.instruments)
    rows = limit_rows(config, setup.instruments, setup.currencies)
    count = len(setup.instruments)
    slots = setup.shared["orders"]
    # More than the pool: the gateway gives a slot back before risk learns that its order has ended.
    room = len(slots.slots) + len(setup.consumers["report"].slots)
    published = setup.shared.get("positions") or board.BoardWriter(
        np.zeros(count, np.int64), np.zeros(2 * count, p.POSITION)
    )
    words = np.zeros(state.WORDS, np.int64)
    words[state.EPOCH] = int(setup.shared["epoch"][0])
    words[state.MESSAGE_MAX] = config.message_rate_max
    words[state.WINDOW_NS] = config.message_window_ms * NS_PER_MS
    words[state.RESERVE] = config.cancel_reserve
    words[state.REJECTS_MAX] = config.reject_streak_max
    recent = np.zeros((count, c.RECENT), c.RECENT_ORDER)
    return Risk(
        touch=setup.consumers["touch"],
        report=setup.consumers["report"],
        intent=setup.consumers["intent"],
        order=setup.producers["order"],
        feedback=setup.producers["feedback"],
        instruments=setup.instruments,
        currencies=setup.currencies,
        positions=p.make_positions(count, len(setup.currencies)),
        rows=rows,
        totals=np.zeros(len(setup.currencies), c.TOTAL),
        recent=recent,
        times=np.full(config.message_rate_max, LONG_AGO, np.int64),
        open=open_orders.make_open_orders(room),
        fills=id_map.make_recent(FILLS_REMEMBERED),
        slots=slots,
        board=published,
        kill=setup.shared["kill"],
        holds=setup.shared["hold"],
        instrument_hold=setup.shared["instrument_hold"],
        held=np.zeros(count, np.int64),
        words=words,
        arrivals=setup.shared.get("arrivals") or arrivals.nowhere(),
    )


STAGE = s.Stage(
    name="risk", reads=("touch", "report", "intent"), writes=("order", "feedback"), build=build, step=step, run=run
)
