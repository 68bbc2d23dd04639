"""Live venue: ORDER → Binance's WebSocket API → REPORT, behind the port that the paper venue has.

An order is encoded as a whole masked frame straight into `outbox`, the kill and hold words are read again, and the
frame is written to the socket at once. What could not be sent comes back as a definite refusal with its reason; what
was handed to the socket has an outcome when the venue says so, however late: the gateway asks, and nothing is ever sent
twice. Messages of the venue are received and read by compiled code (`live.venue_io`); connecting, logging on,
reconciling and everything unusual is Python's, between turns (`live.session`).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from shrivenq.shm import ring
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import control, id_map, token_bucket
from shrivenq.stages import messages as m
from shrivenq.stages.live import away, fix_io
from shrivenq.stages.live import receive as r
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.ledger import make_ledger
from shrivenq.stages.live.reconcile import Orders
from shrivenq.stages.live.session import Session
from shrivenq.stages.live.venue_io import (
    allowed,
    attend,
    is_early,
    note_sent,
    parse,
    refuse,
    send_out,
    stopped,
    venue_time,
)
from shrivenq.stages.live.venue_state import Config, LiveVenue
from shrivenq.stages.stage import FAULT_SEQUENCE, NOW_NS, Setup, Stage, fault, return_soon, time_of, turn
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.binance_orders import FRAME_MAX, encode_frame

__all__ = ["STAGE", "Config", "LiveVenue", "build", "run", "step"]

BATCH = 64
"""Orders taken in one step."""
SEEN = 1 << 13
"""Reports by which a repeated one is recognised."""

DISCONNECTED, MALFORMED = m.REASON["disconnected"], m.REASON["malformed"]


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _send(context: Any, loop: Any, slot: int) -> int:
    """Send an order; the reason for which it was not sent, 0 if it was."""
    order, words, now = context.to_venue.slots, context.words, venue_time(context, loop)
    if words[v.BY_FIX] == v.FIX and fix_io.goes_by_fix(context.fix, order[slot]["kind"]):
        return fix_io.send(context, loop, context.fix, fix_io.ROW, slot)
    if words[v.BY_FIX] == v.OTHER_FIX and fix_io.goes_by_fix(context.other_fix, order[slot]["kind"]):
        return fix_io.send(context, loop, context.other_fix, fix_io.OTHER_ROW, slot)
    if words[v.READY] == 0:
        return DISCONNECTED
    if is_early(context, loop, slot):
        return 0
    begin, end = encode_frame(
        order, slot, context.instruments, context.run, now // 1_000_000, context.masks, context.outbox
    )
    if end == 0:
        return MALFORMED
    reason = allowed(context.buckets, order[slot]["kind"], now)
    if reason != 0:
        return reason
    reason = stopped(context, slot)
    if reason != 0:
        token_bucket.answered(context.buckets, order[slot]["kind"], now)  # nobody else will
        return reason
    words[v.OUT_BEGIN] = begin
    words[v.OUT_END] = end
    words[v.SENT] += 1
    note_sent(context, loop, slot)
    send_out(context, loop, words[v.ROW], words, context.outbox)
    return 0


@inlined
def _take_orders(context: Any, loop: Any) -> int:
    """Take what waits on `to_venue`; while a frame is not sent whole, nothing."""
    source, words, by_fix, by_other = context.to_venue, context.words, context.fix.words, context.other_fix.words
    waiting = min(ring.available(source), BATCH)
    for taken in range(waiting):
        slot = ring.slot_at(source, 0)
        if source.slots[slot]["sequence"] != source.own[ring.TAIL]:
            fault(loop, FAULT_SEQUENCE, source.own[ring.TAIL])
            return taken
        if words[v.OUT_END] | by_fix[v.OUT_END] | by_other[v.OUT_END] != 0 or not ring.claim(context.from_venue, 1):
            return taken
        reason = _send(context, loop, slot)
        if reason != 0:
            refuse(context, loop, source.slots, slot, reason)
        ring.release(source, 1)
    return waiting


# ── the stage ────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _receive(context: Any, loop: Any, c: int) -> int:
    """Take what has arrived from the venue on connection `c`; return 1 if anything has."""
    live = context.live
    row = live.rows[c]
    if row["mode"] == r.OFF or live.words[r.ATTENTION] != 0:
        return 0
    waiting = row["stopped"] == r.FULL
    row["stopped"] = r.MORE
    count = 0
    if not waiting:
        count = r.receive(live, context.frames, c)
    if count == 0 and not waiting:
        if live.words[r.ATTENTION] != 0:
            return_soon(loop)
        return 0
    if row["mode"] != r.DIRECT:
        attend(context, loop)
    elif c == fix_io.ROW:
        fix_io.parse(context, loop, context.fix, c)
    elif c == fix_io.OTHER_ROW:
        fix_io.parse(context, loop, context.other_fix, c)
    else:
        parse(context, loop, c)
    return 1


@inlined
def _wake(context: Any, loop: Any) -> None:
    """Return to Python when it wants to look.

    Also when the kill switch is pulled while foreign orders are open, and when the venue has told others to stay away.
    """
    words, live = context.words, context.live.words
    level = control.kill_level(context.kill)
    if words[v.KILLED] != level:
        words[v.KILLED] = level
        if words[v.FOREIGN_OPEN] != 0:
            live[r.ATTENTION] = 1
    if words[v.AWAY] != away.seen(context.away):
        live[r.ATTENTION] = 1
    if live[r.STARTED] == 0 or live[r.ATTENTION] != 0 or loop[NOW_NS] >= live[r.WAKE_NS]:
        live[r.STARTED] = 1
        return_soon(loop)


@inlined
def step(context: Any, loop: Any) -> int:
    """Send what the gateway wants sent, then take what the venue said; return the number of things done."""
    feed = context.fill_feed
    ring.release(feed, ring.available(feed))  # a real venue fills by itself
    row = context.words[v.ROW]
    work = _take_orders(context, loop) + _receive(context, loop, row)
    work += _receive(context, loop, 1 - row)  # the WebSocket API has two: one takes over from the other
    if context.words[v.BY_FIX] != 0:
        work += _receive(context, loop, fix_io.ROW) + _receive(context, loop, fix_io.OTHER_ROW)
    _wake(context, loop)
    return work


@kernel
def run(context: Any, loop: Any) -> None:
    """Repeat `step` until the turn is over."""
    work = 0
    while turn(loop, work):
        work = step(context, loop)


def build(setup: Setup) -> LiveVenue:
    """Allocate the buffers and make the session, which connects once the stage runs.

    Raises ValueError for a configuration that cannot be used.
    """
    config: Config = setup.config
    by_fix = config.order_entry == "fix"
    live, frames = r.make_receiver(fix_io.OTHER_ROW + 1 if by_fix else fix_io.ROW)
    context = LiveVenue(
        fill_feed=setup.consumers["fill_feed"],
        to_venue=setup.consumers["to_venue"],
        from_venue=setup.producers["from_venue"],
        live=live,
        frames=frames,
        answers=a.make_answers(setup.instruments, setup.currencies, setup.shared["run"]),
        buckets=token_bucket.make_buckets(),
        reports=np.zeros(a.REPORTS_MAX, m.REPORT),
        notes=np.zeros(a.NOTES_MAX, a.NOTE),
        outbox=np.zeros(FRAME_MAX, np.uint8),
        masks=np.array([time.time_ns() % 0xFFFFFFFF or 1], np.int64),
        seen=id_map.make_recent(SEEN),
        anchors=np.full(len(setup.instruments), v.NEVER_LOOKED, np.int64),
        known=id_map.make_recent(v.KNOWN),
        told=np.zeros(len(setup.instruments), np.int64),
        unsettled=np.zeros(v.UNSETTLED_MAX, v.UNSETTLED),
        balances=np.zeros((len(setup.currencies), 2), np.int64),
        ledger=make_ledger(len(setup.currencies)),
        sent=np.zeros(len(setup.shared["slots"]), v.SENT_ORDER),
        instruments=setup.instruments,
        run=setup.shared["run"],
        kill=setup.shared["kill"],
        hold=setup.shared["hold"],
        away=setup.shared["away"],
        fix=v.make_fix(),
        other_fix=v.make_fix(),
        words=np.zeros(v.WORDS, np.int64),
    )
    context.words[v.BY_FIX] = v.FIX if by_fix else 0
    context.words[v.BEGAN_NS] = time_of(setup.loop, 0)
    orders = Orders(setup.shared["slots"], setup.shared["generation"])
    fix = (int(setup.shared["epoch"][0]), setup.shared["fix_logon"]) if by_fix else None
    session = Session(config, context, setup.loop, orders, setup.shared["logon"], setup.log, fix=fix)
    setup.polls.append(session.poll)
    setup.closes.append(session.close)
    return context


STAGE = Stage(
    name="live_venue",
    reads=("fill_feed", "to_venue"),
    writes=("from_venue",),
    build=build,
    step=step,
    run=run,
)
