"""Risk's inputs it trusts: touches, and what became of its orders."""

from __future__ import annotations

from typing import Any

from shrivenq.shm import board, ring
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import control, id_map, open_orders, orders
from shrivenq.stages import messages as m
from shrivenq.stages import positions as p
from shrivenq.stages import risk_checks as c
from shrivenq.stages import stage as s
from shrivenq.stages.risk_state import (
    BAD_FILLS,
    HELD,
    REJECTS,
    REJECTS_MAX,
    REPEATED_FILLS,
    SPARED,
    UNKNOWN_REPORTS,
    Risk,
    advance_time,
    next_feedback,
    raise_kill,
    watch_loss,
)

NOT_TRADABLE = m.REASON["not_tradable"]


@inlined
def on_touch(context: Risk, slot: int) -> None:
    """Take a touch; whatever makes it doubtful makes it invalid."""
    touch, rows = context.touch.slots, context.rows
    i = touch[slot]["instrument"]
    if i < 0 or i >= rows.shape[0]:
        return
    bid, ask = touch[slot]["bid_price"], touch[slot]["ask_price"]
    # BLIND says that levels behind the touch may be missing, not that the touch is wrong; book has asked for more.
    valid = touch[slot]["flags"] & m.VALID != 0 and 0 < bid < ask < c.NUMBER_MAX
    advance_time(context.words, context.totals, context.positions, touch[slot]["time_ns"])
    rows[i]["bid"] = bid
    rows[i]["ask"] = ask
    rows[i]["touch_ns"] = touch[slot]["time_ns"]
    if valid and context.positions.rows[i]["position"] != 0:
        valid = p.mark_to_touch(context.positions, context.instruments, context.currencies, i, bid, ask)
        watch_loss(context, i)
        board.write(context.board, i, context.positions.rows[i : i + 1])
    rows[i]["touch_valid"] = 1 if valid else 0


@kernel
def drain_touch(context: Risk, loop: Any) -> int:
    """Take every touch published before now; the count, or -1 for a fault."""
    total = 0
    # Twice: the first count may be an old one, the second looks at the ring again.
    for _ in range(2):
        count = ring.available(context.touch)
        for ahead in range(count):
            slot = ring.slot_at(context.touch, ahead)
            if context.touch.slots[slot]["sequence"] != context.touch.own[ring.TAIL] + ahead:
                s.fault(loop, s.FAULT_SEQUENCE, context.touch.own[ring.TAIL] + ahead)
                return -1
            on_touch(context, slot)
        ring.release(context.touch, count)
        total += count
    return total


@inlined
def forward(context: Risk, slot: int, repeated: bool) -> None:
    """Pass a report on; a repeated fill is passed on empty, so that nobody counts it twice."""
    at = next_feedback(context.feedback, context.holds, context.words)
    if at < 0:
        return
    out = context.feedback.slots
    out[at] = context.report.slots[slot]
    out[at]["sequence"] = context.feedback.own[ring.NEXT] - 1
    if repeated:
        out[at]["last_quantity"] = 0
        out[at]["fee"] = 0


@inlined
def book_fill(context: Risk, slot: int, at: int) -> bool:
    """Book a fill, of open order `at` or of one not known; False if it was booked before or makes no sense."""
    report, words = context.report.slots, context.words
    i, side = report[slot]["instrument"], report[slot]["side"]
    price, quantity = report[slot]["last_price"], report[slot]["last_quantity"]
    known = 0 <= i < context.rows.shape[0] and (side == m.BUY or side == m.SELL)  # noqa: PLR1714 - a kernel: no set
    if not known or price <= 0 or quantity <= 0:
        words[BAD_FILLS] += 1
        return False
    if not id_map.remember(context.fills, i, orders.trade_key(report[slot]["trade_id"], side)):
        words[REPEATED_FILLS] += 1
        return False
    p.apply_fill(
        context.positions,
        context.instruments,
        context.currencies,
        i,
        side,
        price,
        quantity,
        report[slot]["fee"],
        report[slot]["fee_currency"],
    )
    board.write(context.board, i, context.positions.rows[i : i + 1])
    rows = context.rows
    first = at == open_orders.NONE or context.open.slab.slots[at]["leaves"] == open_orders.size_now(context.open, at)
    if first:
        streak = rows[i]["streak"]
        rows[i]["streak"] = streak + side if (streak > 0) == (side > 0) else side
        if c.repeated_execution(rows, i) != c.PASS:
            raise_kill(context.kill, words, control.CANCEL)
    rows[i]["flatten_tries"] = 0
    if at != open_orders.NONE:
        open_orders.fill(context.open, rows, context.totals, at, quantity)
    watch_loss(context, i)
    return True


@inlined
def end_order(context: Risk, at: int) -> None:
    """Release an order."""
    if context.open.slab.slots[at]["spared"] != 0:
        context.words[SPARED] -= 1
    open_orders.leave(context.open, context.rows, context.totals, at)


@inlined
def is_failure(kind: int, reason: int, held: int) -> bool:
    """Tell whether an order came to nothing for a reason that may be ours.

    A lost connection is answered by reconciling already; a symbol that the venue does not trade is held by itself.
    """
    if kind == m.REJECTED:
        return reason != NOT_TRADABLE
    return kind == m.UNKNOWN and held & control.RECONCILING == 0


@inlined
def on_report(context: Risk, slot: int) -> None:
    """Follow one report, then pass it on."""
    report, words = context.report.slots, context.words
    advance_time(context.words, context.totals, context.positions, report[slot]["time_ns"])
    kind, final = report[slot]["kind"], report[slot]["flags"] & m.FINAL != 0
    at = open_orders.find(context.open, report[slot]["order_id"])
    repeated = False
    if kind == m.FILL:
        repeated = not book_fill(context, slot, at)
    if kind in (m.ACCEPTED, m.FILL, m.REPLACED):
        words[REJECTS] = 0
    elif is_failure(kind, report[slot]["reason"], words[HELD]):
        words[REJECTS] += 1
        if c.reject_streak(words[REJECTS], words[REJECTS_MAX]) != c.PASS:
            raise_kill(context.kill, words, control.HALT)
    if kind in (m.CANCELLED, m.REPLACED) and report[slot]["target_id"] > 0:
        # `order_id` is the request; the order that went is its target.
        final = True
        at = open_orders.find(context.open, report[slot]["target_id"])
    elif kind == m.AMENDED:
        at = open_orders.find(context.open, report[slot]["target_id"])
        if at != open_orders.NONE:
            open_orders.lower(context.open, context.rows, context.totals, at, report[slot]["quantity"])
    if final and at != open_orders.NONE:
        end_order(context, at)
    elif final:
        words[UNKNOWN_REPORTS] += 1
    forward(context, slot, repeated)
