"""Synchronising a book with its venue: which depth events apply, which wait, and when a book is not to be trusted.

The rules are Binance's (`protocols/binance_spot.md` section 5), spot and futures. A book begins BUFFERING: diffs are
kept until a snapshot comes, and those that belong on top of it are applied to it (LIVE). A gap, a crossed touch, a
level that does not fit or is impossible, or a loss makes it INVALID: it is emptied, `resync` asks for a snapshot, and
diffs are kept again. BUILDING is a snapshot half way: the diffs between its chunks are kept too.

A snapshot has so many levels and no more: what lies beyond is unknown until it changes. When the touch nears the end of
that range, a fresh snapshot is asked for, and from then on the diffs applied are kept as well: the book will be ahead
of the snapshot, is built anew from it and them, and stays valid all the while.

The kernels take the context of `stages/book.py`; its words say what event is being taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shrivenq.shm.atomics import store_release
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m
from shrivenq.stages import order_book
from shrivenq.stages.order_book import ASK, BID

BUFFERING, BUILDING, LIVE, INVALID = 0, 1, 2, 3
STATUS = ("buffering", "building", "live", "invalid")

STATE = np.dtype(
    [
        ("update_id", "<i8"),  # last update id applied; BUILDING: the snapshot's
        ("abandoned", "<i8"),  # snapshot given up half-way, -1 for none: its remaining chunks are ignored
        ("known_low", "<i8"),  # lowest bid of the snapshot: below it levels are unknown until they change
        ("known_high", "<i8"),  # highest ask of the snapshot
        ("renew_low", "<i8"),  # with a bid below this, or an ask above the other, a fresh snapshot is asked for
        ("renew_high", "<i8"),
        ("asked", "<i8"),  # 1 once that was done: the diffs applied are kept as well
        ("buffer_head", "<i8"),  # where the oldest buffered record lies
        ("buffer_count", "<i8"),  # records buffered
        ("events", "<i8"),  # depth events applied, replayed ones included
        ("replayed", "<i8"),  # of those, buffered and applied on top of a snapshot
        ("snapshots", "<i8"),  # snapshots completed
        ("gaps", "<i8"),  # breaks in the sequence of update ids
        ("crossed", "<i8"),  # events that left the book crossed
        ("stale", "<i8"),  # events ignored because their ids were known already
        ("refused", "<i8"),  # levels the structure had no room for, or that were impossible
        ("overflows", "<i8"),  # buffered events dropped for want of room
        ("losses", "<i8"),  # times the input said that something is missing
        ("resyncs", "<i8"),  # snapshots asked for because the book is not valid
        ("blinded", "<i8"),  # snapshots asked for because it goes blind
        ("status", "<i4"),
        ("fresh", "<i4"),  # 1 while no diff was applied to the snapshot yet
    ],
    align=True,
)
assert STATE.itemsize == 168

# Words of the context: the event being taken, and counters.
KIND = 0  # what opened the event, 0 between events
ACTION = 1  # what becomes of its levels
INSTRUMENT = 2
EVENT_ID = 3  # its last update id
VENUE_NS = 4
MORE = 5  # 1 for a chunk of a snapshot with more to come
FEED_SKIP = 6  # 1 while the rest of the event is not copied to `fill_feed`
TOUCH_GAP = 7  # GAP once something was dropped, until the next record says so
FEED_GAP = 8
BOOK_GAP = 9
TOUCH_DROPPED = 10  # records
FEED_DROPPED = 11
BOOK_DROPPED = 12
HOLD = 13  # 1 while new orders are held because `book` was full
UNKNOWN = 14  # events of instruments that are not in the table
INPUT_GAPS = 15  # gaps on `tick`
DROPS_NOTED = 16  # of records dropped, those in the log of arrivals
WORDS = 24

IGNORE, APPLY, BUFFER, BROKEN = 0, 1, 2, 4
"""What becomes of an event: nothing; its levels are set; they are kept; something is missing. Both of the middle two is
what becomes of a diff while a fresh snapshot is on its way."""
RENEW_PART = 4
"""A fresh snapshot is asked for once only this part of the way from the touch to the end of the snapshot is left."""


# ── validity ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def request(context: Any, i: int) -> None:
    """Ask market_data for a snapshot."""
    context.state[i]["resyncs"] += 1
    store_release(context.resync, i, context.resync[i] + 1)


@kernel
def _request_range(context: Any, i: int) -> None:
    """Ask market_data for a snapshot that reaches further than the one the book was made of."""
    context.state[i]["asked"] = 1
    context.state[i]["blinded"] += 1
    store_release(context.resync, i, context.resync[i] + 1)


@inlined
def _forget_range(context: Any, i: int) -> None:
    """Begin without a range that is known."""
    context.state[i]["known_low"] = 0
    context.state[i]["known_high"] = 0
    context.state[i]["renew_low"] = 0
    context.state[i]["renew_high"] = 0
    context.state[i]["asked"] = 0


@kernel
def invalidate(context: Any, i: int) -> None:
    """Empty the book and ask for a snapshot."""
    order_book.clear(context.books, i)
    if context.state[i]["status"] == BUILDING:
        context.state[i]["abandoned"] = context.state[i]["update_id"]
    context.state[i]["status"] = INVALID
    _forget_range(context, i)
    request(context, i)


@kernel
def lose(context: Any, i: int) -> None:
    """Note that anything may be missing before this moment: what was buffered does not help either."""
    context.state[i]["losses"] += 1
    context.state[i]["buffer_count"] = 0
    invalidate(context, i)


@inlined
def judge(context: Any, i: int, first_id: int, last_id: int, previous_id: int) -> int:
    """Tell what to do with a diff of these ids on a live book: APPLY, IGNORE or BROKEN (something is missing)."""
    return _judge_at(
        context, i, first_id, last_id, previous_id, context.state[i]["update_id"], context.state[i]["fresh"] != 0
    )


@inlined
def _judge_at(context: Any, i: int, first_id: int, last_id: int, previous_id: int, update_id: int, fresh: bool) -> int:
    """Tell the same of a book at `update_id`, `fresh` for a snapshot that nothing was applied to yet.

    Spot: anything up to the next id joins. Futures: after a snapshot an event whose range holds the snapshot's id,
    then only one that names the last id as its previous one; an event that names the snapshot's own id joins as well.
    """
    if context.instruments[i]["futures"] == 0 or previous_id < 0:
        if last_id <= update_id:
            return IGNORE
        return APPLY if first_id <= update_id + 1 else BROKEN
    if last_id < update_id or (last_id == update_id and not fresh):
        return IGNORE
    if previous_id == update_id or (fresh and first_id <= update_id):
        return APPLY
    return BROKEN


@inlined
def check(context: Any, i: int) -> None:
    """Make a crossed book invalid."""
    bid = order_book.best_price(context.books, i, BID)
    ask = order_book.best_price(context.books, i, ASK)
    if bid >= ask > 0:
        context.state[i]["crossed"] += 1
        invalidate(context, i)


@inlined
def flags_of(context: Any, i: int, bid: int, ask: int) -> int:
    """Tell VALID and BLIND of a book with this touch; one that goes blind asks for a snapshot, once."""
    if context.state[i]["status"] != LIVE:
        return 0
    if bid >= context.state[i]["renew_low"] and ask <= context.state[i]["renew_high"]:
        return m.VALID
    if context.state[i]["asked"] == 0:
        _request_range(context, i)
    if bid < context.state[i]["known_low"] or ask > context.state[i]["known_high"]:
        return m.VALID | m.BLIND
    return m.VALID


@inlined
def _set_renewal(context: Any, i: int) -> None:
    """Work out, of the snapshot just completed, at which touch a fresh one is asked for."""
    bid = order_book.best_price(context.books, i, BID)
    ask = order_book.best_price(context.books, i, ASK)
    low, high = context.state[i]["known_low"], context.state[i]["known_high"]
    context.state[i]["renew_low"] = low + max(0, bid - low) // RENEW_PART  # a side may be empty
    context.state[i]["renew_high"] = high - (high - ask) // RENEW_PART


# ── diffs that wait for a snapshot ───────────────────────────────────────────────────────────────────────────────────


@kernel
def forget_oldest(context: Any, i: int) -> int:
    """Drop the oldest buffered event; return how many records it had."""
    state, buffer = context.state[i], context.buffers[i]
    mask = buffer.shape[0] - 1
    dropped = 0
    while state["buffer_count"] > 0 and (dropped == 0 or buffer[state["buffer_head"]]["kind"] == m.LEVEL):
        state["buffer_head"] = (state["buffer_head"] + 1) & mask
        state["buffer_count"] -= 1
        dropped += 1
    return dropped


@kernel
def buffer_record(context: Any, i: int, record: Any) -> None:
    """Keep a record of a diff, whole events only: the oldest make room, and one that never fits is not kept."""
    buffer = context.buffers[i]
    if context.state[i]["buffer_count"] == buffer.shape[0]:
        forget_oldest(context, i)
        context.state[i]["overflows"] += 1
        if context.state[i]["buffer_count"] == 0 and record["kind"] == m.LEVEL:
            context.words[ACTION] &= ~BUFFER
            return
    slot = (context.state[i]["buffer_head"] + context.state[i]["buffer_count"]) & (buffer.shape[0] - 1)
    buffer[slot] = record
    context.state[i]["buffer_count"] += 1


@kernel
def replay_one(context: Any, i: int) -> None:
    """Take the oldest buffered event off the buffer and apply it."""
    buffer = context.buffers[i]
    mask = buffer.shape[0] - 1
    head = context.state[i]["buffer_head"]
    count = forget_oldest(context, i)
    context.state[i]["update_id"] = buffer[head]["last_id"]
    context.state[i]["fresh"] = 0
    context.state[i]["events"] += 1
    context.state[i]["replayed"] += 1
    for ahead in range(1, count):
        slot = (head + ahead) & mask
        side = buffer[slot]["flags"] & m.SIDE_ASK
        if order_book.set_level(context.books, i, side, buffer[slot]["price"], buffer[slot]["quantity"]) < 0:
            context.state[i]["refused"] += 1
            invalidate(context, i)
            return
    check(context, i)


@kernel
def replay(context: Any, i: int) -> None:
    """Apply what was buffered to the snapshot just completed; after a gap the rest stays for the next snapshot."""
    while context.state[i]["status"] == LIVE and context.state[i]["buffer_count"] > 0:
        oldest = context.buffers[i][context.state[i]["buffer_head"]]
        verdict = judge(context, i, oldest["first_id"], oldest["last_id"], oldest["previous_id"])
        if verdict == BROKEN:
            context.state[i]["gaps"] += 1
            invalidate(context, i)
        elif verdict == IGNORE:
            context.state[i]["stale"] += 1
            forget_oldest(context, i)
        else:
            replay_one(context, i)


# ── the records of an event ──────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _is_kept_since(context: Any, i: int, last_id: int) -> bool:
    """Tell whether the diffs kept lead from a snapshot to the live book that is ahead of it: they end with the book."""
    if context.state[i]["buffer_count"] == 0:
        return False
    oldest = context.buffers[i][context.state[i]["buffer_head"]]
    return _judge_at(context, i, oldest["first_id"], oldest["last_id"], oldest["previous_id"], last_id, True) != BROKEN


@kernel
def open_snapshot(context: Any, i: int, record: Any) -> int:
    """Begin a snapshot, or go on with its next chunk; return what becomes of its levels."""
    state = context.state[i]
    last_id = record["last_id"]
    if state["status"] == LIVE and last_id < state["update_id"] and not _is_kept_since(context, i, last_id):
        # The book is ahead of it, and not enough was kept to catch up with.
        state["stale"] += 1
        if state["asked"] != 0 and context.words[MORE] == 0:
            _request_range(context, i)
        return IGNORE
    if last_id == state["abandoned"]:
        return IGNORE
    if state["status"] != BUILDING or state["update_id"] != last_id:
        order_book.clear(context.books, i)
        state["status"] = BUILDING
        state["update_id"] = last_id
        state["fresh"] = 1
        _forget_range(context, i)
    return APPLY


@inlined
def open_diff(context: Any, i: int, record: Any) -> int:
    """Judge a diff; return what becomes of its levels."""
    state = context.state[i]
    if state["status"] == LIVE:
        verdict = judge(context, i, record["first_id"], record["last_id"], record["previous_id"])
        if verdict == APPLY:
            state["update_id"] = record["last_id"]
            state["fresh"] = 0
            if state["asked"] == 0:
                return APPLY
            context.words[ACTION] = APPLY
        elif verdict == IGNORE:
            state["stale"] += 1
            return IGNORE
        else:
            state["gaps"] += 1
            invalidate(context, i)
    elif state["resyncs"] == 0:
        request(context, i)
    context.words[ACTION] |= BUFFER
    buffer_record(context, i, record)
    return context.words[ACTION]


@inlined
def open_event(context: Any, record: Any) -> None:
    """Note what a SNAPSHOT or DIFF record begins."""
    words = context.words
    i = record["instrument"]
    words[KIND] = record["kind"]
    words[ACTION] = IGNORE
    words[INSTRUMENT] = i
    if i < 0 or i >= context.state.shape[0]:
        words[UNKNOWN] += 1
        return
    words[EVENT_ID] = record["last_id"]
    words[VENUE_NS] = record["venue_ns"]
    words[MORE] = record["flags"] & m.BUILDING
    if record["kind"] == m.SNAPSHOT:
        words[ACTION] = open_snapshot(context, i, record)
    else:
        words[ACTION] = open_diff(context, i, record)


@inlined
def level(context: Any, record: Any) -> None:
    """Apply, buffer or ignore one level of the event."""
    action = context.words[ACTION]
    i = context.words[INSTRUMENT]
    if action & BUFFER != 0:
        buffer_record(context, i, record)
    if action & APPLY == 0:
        return
    side = record["flags"] & m.SIDE_ASK
    price = record["price"]
    if order_book.set_level(context.books, i, side, price, record["quantity"]) < 0:
        context.state[i]["refused"] += 1
        context.words[ACTION] &= ~APPLY  # what is kept of the event is kept whole
        invalidate(context, i)
    elif context.words[KIND] == m.SNAPSHOT:
        if side == ASK:
            context.state[i]["known_high"] = max(context.state[i]["known_high"], price)
        elif context.state[i]["known_low"] == 0 or price < context.state[i]["known_low"]:
            context.state[i]["known_low"] = price


@inlined
def close_depth(context: Any, i: int) -> bool:
    """Finish a depth event; tell whether there is anything to publish."""
    state = context.state[i]
    applied = context.words[ACTION] & APPLY != 0
    if context.words[KIND] == m.SNAPSHOT:
        if context.words[MORE] != 0:
            return state["status"] != LIVE
        state["abandoned"] = -1
        if applied:
            state["status"] = LIVE
            state["snapshots"] += 1
            _set_renewal(context, i)
            check(context, i)
            replay(context, i)
    elif applied:
        state["events"] += 1
        check(context, i)
    return applied or state["status"] != LIVE
