"""What goes to the venue and what comes from it, compiled: orders into the socket, frames into REPORTs.

`parse` takes the whole messages of the stripe one by one. What it does not recognise, and what Python has to know of,
stops it: nothing behind that is looked at before Python has dealt with it, so that reports keep their order.
"""

from __future__ import annotations

from errno import EAGAIN, EINTR
from typing import Any

from shrivenq.shm import ring
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import control, id_map, token_bucket
from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from shrivenq.stages.live import ledger, openssl, system
from shrivenq.stages.live import receive as r
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.websocket import BINARY_WHOLE, OTHER, PARTIAL, read_frame
from shrivenq.stages.stage import return_soon, time_of
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.answers import put_row
from shrivenq.stages.venues.binance_reports import refused_kind, scan

QUESTION_NS, QUESTION_MAX_NS = 250_000_000, 8_000_000_000
"""Between two questions of the gateway's about one order: at first, doubled each time, and at most."""
UNKNOWN_ORDER_CODE = -2011
"""A cancel that came too late: so usual that Python need not know."""
KILLED, HELD, BANNED, VENUE_RATE = m.REASON["killed"], m.REASON["held"], m.REASON["banned"], m.REASON["venue_rate"]


@inlined
def attend(context: Any, loop: Any) -> None:
    """Have Python look at the connection."""
    context.live.words[r.ATTENTION] = 1
    return_soon(loop)


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def stopped(context: Any, slot: int) -> int:
    """Read the kill and hold words; the reason for which an order may not be sent now, 0 for none.

    Until both sides agree not even a reduction passes: the position it was judged by may lack fills.
    """
    order = context.to_venue.slots
    if order[slot]["kind"] not in (m.NEW, m.REPLACE):
        return 0
    causes = control.held(context.hold)
    if order[slot]["flags"] & (m.REDUCING | m.FORCED) != 0:
        causes &= control.RECONCILING
    elif control.kill_level(context.kill) != control.ARMED:
        return KILLED
    return HELD if causes != 0 else 0


@inlined
def venue_time(context: Any, loop: Any) -> int:
    """Tell the venue's time: no step of the system's clock moves it."""
    return time_of(loop, 0) + context.words[v.CLOCK_NS]


@inlined
def note_sent(context: Any, loop: Any, slot: int) -> None:
    """Note when an order's request was made: how long it can yet arrive counts from there."""
    order, sent = context.to_venue.slots, context.sent
    row = order[slot]["slot"]
    if order[slot]["kind"] in (m.NEW, m.REPLACE) and 0 <= row < sent.shape[0]:
        sent[row]["generation"] = order[slot]["generation"]
        sent[row]["sent_ns"] = time_of(loop, 0)
        sent[row]["ask_ns"] = sent[row]["pause_ns"] = 0


@inlined
def is_early(context: Any, loop: Any, slot: int) -> bool:
    """Tell whether a question of the gateway's comes too soon after the last; the pauses between them grow."""
    order, sent, now = context.to_venue.slots, context.sent, time_of(loop, 0)
    row = order[slot]["slot"]
    if order[slot]["kind"] != m.QUERY or row < 0 or row >= sent.shape[0]:
        return False
    if sent[row]["generation"] != order[slot]["generation"]:
        sent[row]["generation"] = order[slot]["generation"]
        sent[row]["sent_ns"] = context.words[v.BEGAN_NS]
        sent[row]["ask_ns"] = sent[row]["pause_ns"] = 0
    if now < sent[row]["ask_ns"]:
        return True
    long_ago = now >= sent[row]["ask_ns"] + QUESTION_MAX_NS
    pause = 0 if long_ago else sent[row]["pause_ns"]
    sent[row]["pause_ns"] = min(max(2 * pause, QUESTION_NS), QUESTION_MAX_NS)
    sent[row]["ask_ns"] = now + sent[row]["pause_ns"]
    return False


@inlined
def allowed(buckets: Any, kind: int, now: int) -> int:
    """Count a request against the venue's limits; the reason for which it does not fit, 0 if it does."""
    verdict = token_bucket.take(buckets, kind, now)
    if verdict == token_bucket.PASS:
        return 0
    return BANNED if verdict == token_bucket.BANNED else VENUE_RATE


@inlined
def _send_plain(row: Any, data: int, size: int) -> int:
    """Write the `size` bytes at the address `data` to a socket; return how many it took."""
    count = system.send(row["descriptor"], data, size, openssl.SEND_FLAGS)
    if count < 0:
        problem = system.errno()
        if problem not in (EAGAIN, EINTR):
            row["failed"] = problem
            row["mode"] = r.OFF
    return max(count, 0)


@inlined
def send_out(context: Any, loop: Any, c: int, words: Any, outbox: Any) -> None:
    """Write `outbox` to connection `c`, whose words these are.

    What does not go at once is Python's to send.
    """
    row = context.live.rows[c]
    if words[v.SENDS] == 0:
        attend(context, loop)
        return
    data, size = outbox.ctypes.data + words[v.OUT_BEGIN], words[v.OUT_END] - words[v.OUT_BEGIN]
    if row["tls"] != 0:
        count = openssl.send(row["tls"], data, size, row["descriptor"], row["sealed"], r.SEALED_BYTES)
    else:
        count = _send_plain(row, data, size)
    if count == size or count == openssl.TAKEN:  # noqa: PLR1714 - a kernel
        words[v.OUT_BEGIN] = words[v.OUT_END] = 0
    if count == size:
        return
    words[v.OUT_BEGIN] += max(count, 0)
    attend(context, loop)


# ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _is_repeated(context: Any, row: int) -> bool:
    """Tell whether a report of an order says nothing new: the answer and the event of one thing come both."""
    report, seen = context.reports, context.seen
    kind, order_id, target_id = report[row]["kind"], report[row]["order_id"], report[row]["target_id"]
    if kind == m.ACCEPTED:
        return not id_map.remember(seen, order_id, m.ACCEPTED)
    if kind == m.CANCELLED:
        return not id_map.remember(seen, target_id, m.CANCELLED)
    if kind == m.REPLACED:
        gone = id_map.remember(seen, target_id, m.CANCELLED)
        placed = id_map.remember(seen, order_id, m.ACCEPTED)
        if gone and not placed:  # the new order is open already: what is left to say is that the old one is gone
            report[row]["kind"] = m.CANCELLED
        return not gone and not placed
    return False


@inlined
def _is_refused(context: Any, row: int) -> bool:
    """Tell whether a report is of an order that the venue refused before: one of the two was not true."""
    return bool(id_map.find(context.seen.ids, context.reports[row]["order_id"], m.REJECTED) != id_map.ABSENT)


@inlined
def _note_trade(context: Any, loop: Any, row: int, key: int, at: int) -> None:
    """Remember a trade that is told by `reports[at]`, and have Python look at them all once they are many."""
    if id_map.remember(context.known, row, key):
        ledger.tally(context.ledger, context.instruments, context.answers.currencies, context.reports[at : at + 1])
        context.told[row] += 1
        if context.told[row] == v.LOOK_AFTER:
            attend(context, loop)


@kernel
def publish(context: Any, loop: Any, first: int, stop: int, always: bool) -> None:
    """Publish `reports[first:stop]`, repeated ones too if `always`; the caller has claimed room for all of them.

    Of what is not about an order of ours only fills and looks at the trades are told; that such an order was accepted,
    or one of ours that was refused, makes Python look at the account. A fill may be of an earlier run's order while
    there are any: the comparison that is under way knows whose it is.
    """
    report, out = context.reports, context.from_venue
    for row in range(first, stop):
        ours = report[row]["order_id"] != 0 or report[row]["target_id"] != 0
        i = report[row]["instrument"]
        if report[row]["kind"] == m.ACCEPTED and (not ours or _is_refused(context, row)):
            context.words[v.STRANGE] = 1
            attend(context, loop)
        if not ours and report[row]["kind"] not in (m.FILL, m.LOOKED, m.BALANCE, m.MOVED):
            continue
        if not ours and report[row]["kind"] == m.FILL and context.words[v.LEFT] != 0 and not always:
            continue
        if report[row]["kind"] in (m.REJECTED, m.CANCEL_REJECTED, m.ABSENT):
            id_map.remember(context.seen, report[row]["order_id"], m.REJECTED)
        if not always and _is_repeated(context, row):
            context.words[v.REPEATED] += 1
            continue
        if report[row]["kind"] == m.FILL and 0 <= i < context.told.shape[0]:
            _note_trade(context, loop, i, o.trade_key(report[row]["trade_id"], report[row]["side"]), row)
        position = out.own[ring.NEXT]
        slot = ring.next_slot(out)
        out.slots[slot] = report[row]
        out.slots[slot]["sequence"] = position
        out.slots[slot]["time_ns"] = time_of(loop, 0)
    ring.publish(out)


@kernel
def refuse(context: Any, loop: Any, orders: Any, slot: int, reason: int) -> None:
    """Report that `orders[slot]` was not sent: definite, since nothing of it has left. Questions are just dropped."""
    context.words[v.REFUSED] += 1
    kind = refused_kind(orders[slot]["kind"])
    if kind == m.UNKNOWN:
        return
    order_id, target_id = orders[slot]["order_id"], orders[slot]["target_id"]
    put_row(context.reports, 0, kind, order_id, target_id, orders[slot]["instrument"], reason)
    publish(context, loop, 0, 1, True)


@inlined
def _is_for_python(context: Any, notes: int) -> bool:
    """Tell whether Python has to see a frame that was recognised: an event of the session, or an error to be told."""
    if notes == 0:
        return False
    kind, status = context.notes[0]["kind"], context.notes[0]["status"]
    if kind == a.ANSWER:
        return status != 200 and context.notes[0]["code"] != UNKNOWN_ORDER_CODE
    return kind in (a.STREAM_ENDED, a.SHUTDOWN)


@kernel
def hear(context: Any, loop: Any, count: int) -> None:
    """Take what `notes[:count]` say of limits and balances.

    Who may not ask places no orders by FIX either; cancels may be all that is left to us.
    """
    token_bucket.hear(context.buckets, context.notes, count, venue_time(context, loop))
    words = context.buckets.words
    until = max(words[token_bucket.THROTTLED_NS], words[token_bucket.BANNED_NS])
    token_bucket.throttle(context.fix.buckets, until)
    token_bucket.throttle(context.other_fix.buckets, until)
    for at in range(count):
        what = context.notes[at]["what"]
        if context.notes[at]["kind"] == a.BALANCE and 0 <= what < context.balances.shape[0]:
            context.balances[what, 0] = context.notes[at]["free"]
            context.balances[what, 1] = context.notes[at]["locked"]


@kernel
def parse(context: Any, loop: Any, c: int) -> None:
    """Turn the whole messages of connection `c` into reports, up to the first that is Python's."""
    live, data = context.live, context.frames.data
    row = live.rows[c]
    while True:
        if not ring.claim(context.from_venue, 1):
            row["stopped"] = r.FULL
            return
        at = row["parsed"]
        kind, begin, stop = read_frame(data, at, row["filled"], r.SIZE_MAX)
        if kind == PARTIAL:
            row["stopped"] = r.MORE
            return
        if kind == OTHER or row["strict"] != 0 or data[at] == BINARY_WHOLE:
            row["stopped"] = r.SPECIAL
            row["special_begin"] = at
            break
        count, notes = scan(data, begin, stop, context.answers, context.reports, context.notes)
        if count < 0 or _is_for_python(context, notes):
            row["stopped"] = r.NOTICE
            row["special_begin"] = begin
            break
        publish(context, loop, 0, count, False)
        hear(context, loop, notes)
        context.words[v.SCANNED] += 1
        row["parsed"] = stop
        row["data_ns"] = row["wire_ns"]
        row["frames"] += 1
    row["special_stop"] = stop
    attend(context, loop)


def load(context: Any, loop: Any) -> None:
    """Load the machine code now, and not when the first message comes."""
    parse(context, loop, 0)
    hear(context, loop, 0)
    publish(context, loop, 0, 0, False)
    token_bucket.take(context.buckets, m.QUERY, 0)
    token_bucket.answered(context.buckets, m.QUERY, 0)
    token_bucket.reconnected(context.buckets)
    control.kill_level(context.kill)
    time_of(loop, 0)
