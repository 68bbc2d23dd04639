"""Orders out over FIX and what comes back, compiled: the counterpart of `venue_io` on a connection of its own.

The messages of a FIX session are numbered, so an order is counted and encoded first, and taken back if the kill or hold
word, read immediately before it would be sent, says that it may not go. What is received is read message by message;
what breaks the session, and what Python has to know of, stops it.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm import ring
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m
from shrivenq.stages import token_bucket
from shrivenq.stages.live import receive as r
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.venue_io import allowed, attend, note_sent, publish, send_out, stopped, venue_time
from shrivenq.stages.stage import time_of
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues import fix
from shrivenq.stages.venues.fix_reports import GARBLED, INCOMPLETE, frame, scan

DISCONNECTED, MALFORMED = m.REASON["disconnected"], m.REASON["malformed"]
UNKNOWN_ORDER, VENUE_RATE, BANNED = m.REASON["unknown_order"], m.REASON["venue_rate"], m.REASON["banned"]

OK = 200

ROW, OTHER_ROW = 2, 3
"""Rows of the FIX connections `fix` and `other_fix` in the receiver; the WebSocket API has those before."""


@inlined
def goes_by_fix(by: Any, kind: int) -> bool:
    """Tell whether a request goes by the FIX connection `by`, where one is configured: all but questions.

    While there is no FIX session cancels go by the WebSocket API, which is the same to the venue.
    """
    if kind in (m.QUERY, m.TRADES):
        return False
    return by.words[v.READY] != 0 or kind not in (m.CANCEL, m.CANCEL_ALL)


@inlined
def send(context: Any, loop: Any, by: Any, c: int, slot: int) -> int:
    """Send an order by the FIX connection `by` in row `c`; the reason for which it was not sent, 0 if it was.

    New orders need the account's events too, which come by the WebSocket API.
    """
    order, session, words = context.to_venue.slots, by.session, by.words
    kind, now = order[slot]["kind"], venue_time(context, loop)
    if words[v.READY] == 0 or (context.words[v.READY] == 0 and kind in (m.NEW, m.REPLACE)):
        return DISCONNECTED
    reason = allowed(by.buckets, kind, now)
    if reason != 0:
        return reason
    # No answer says what of the venue's limits is used: what is sent counts at once.
    token_bucket.answered(by.buckets, kind, now)
    sent_ns = session.words[fix.SENT_NS]
    now = time_of(loop, 0)  # silence is counted by it
    begin, end = fix.encode(order, slot, context.instruments, context.run, session, now, by.outbox)
    if end == 0:
        return MALFORMED
    reason = stopped(context, slot)
    if reason != 0:
        fix.take_back(session, sent_ns)
        return reason
    words[v.OUT_BEGIN] = begin
    words[v.OUT_END] = end
    words[v.SENT] += 1
    note_sent(context, loop, slot)
    send_out(context, loop, c, words, by.outbox)
    return 0


@inlined
def _is_for_python(context: Any, rows: int, notes: int) -> bool:
    """Tell whether Python has to see a message that was understood: the session's own, or a refusal to be told."""
    if notes != 0:
        kind = context.notes[0]["kind"]
        if kind == a.MASS_CANCELLED:
            return context.notes[0]["status"] != OK  # else each order has a report of its own
        return kind not in (a.HEARTBEAT, a.FOREIGN)
    if rows == 0:
        return False
    kind, reason = context.reports[0]["kind"], context.reports[0]["reason"]
    if kind == m.CANCEL_REJECTED:
        return reason != UNKNOWN_ORDER  # a cancel that came too late is usual
    return kind in (m.REJECTED, m.AMEND_REJECTED, m.UNKNOWN)


@kernel
def parse(context: Any, loop: Any, by: Any, c: int) -> None:
    """Turn the whole messages of FIX connection `by`, row `c`, into reports, up to the first that is Python's (NOTICE).

    SPECIAL is what ends the session: bytes that are no message, or a message that makes no sense or is not the next.
    """
    data, row, words = context.frames.data, context.live.rows[c], by.words
    if row["stopped"] in (r.NOTICE, r.SPECIAL) and row["special_begin"] == row["parsed"]:
        attend(context, loop)  # read, and not yet dealt with: a number counts once
        return
    while True:
        if not ring.claim(context.from_venue, 1):
            row["stopped"] = r.FULL
            return
        at, filled = row["parsed"], row["filled"]
        size = frame(data, at, filled)
        if size == INCOMPLETE:
            row["stopped"] = r.MORE
            return
        rows, notes = -1, 0
        if size != GARBLED:
            now = time_of(loop, 0)
            rows, notes = scan(data, at, at + size, context.answers, by.session, now, context.reports, context.notes)
        row["special_begin"] = at
        if rows < 0:
            words[v.READY] = 0
            row["stopped"] = r.SPECIAL
            row["special_stop"] = filled
            break
        if rows > 0 and context.reports[0]["reason"] in (VENUE_RATE, BANNED):
            token_bucket.throttle(by.buckets, venue_time(context, loop) + token_bucket.THROTTLE_NS)
        publish(context, loop, 0, rows, False)
        words[v.SCANNED] += 1
        row["data_ns"] = row["wire_ns"]
        row["frames"] += 1
        if _is_for_python(context, rows, notes):
            row["stopped"] = r.NOTICE
            row["special_stop"] = at + size
            break
        row["parsed"] = at + size
    attend(context, loop)
