"""Book: TICK → BOOK, TOUCH, fill feed.

Keeps one book per instrument from snapshots and diffs by the venue's rules (Binance, `protocols/binance_spot.md`
section 5; spot and futures) and publishes, once an event is complete: every TICK on `fill_feed`, a TOUCH after each
depth event, and on `book` the strategy's one market stream, a BOOK with ten levels a side after each depth event and
QUOTE, TRADE and TIMER in their order. Downstream a book is either whole, in sequence and not crossed, or it says that
it is not: after a gap, a crossed touch, a loss or a full structure it is empty and without VALID until a snapshot
restores it, and `resync` asks for one. Diffs that arrive meanwhile are kept and applied on top of the snapshot.
Quotes (bookTicker) never change a book.

A snapshot too long for one step is taken as it comes; nothing is published of it before its END. Full rings: in
replay a record waits until everything that may follow from it fits. Live, `touch` and `fill_feed` drop and say so
(GAP on the next record), and a full `book` ring raises HOLD in `words`; nobody is waited for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np

from shrivenq.shm import ring
from shrivenq.shm.atomics import store_release
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m
from shrivenq.stages import order_book
from shrivenq.stages.order_book import ASK, BID, Books
from shrivenq.stages.stage import FAULT_RING_FULL, FAULT_SEQUENCE, VIRTUAL, Setup, Stage, fault, stamp, turn

BATCH = 1024
"""Records taken in one step."""
EVENT_TICKS = 2048
"""Room on `fill_feed` that a live event must find to be copied: most events are smaller, snapshots are not."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[book]`: how much is kept per instrument; all powers of two."""

    window_ticks: int = 65_536
    """Ticks a side kept in the dense ladder."""
    far_levels: int = 8_192
    """Levels a side kept outside it."""
    buffer_ticks: int = 16_384
    """Records of diffs kept while waiting for a snapshot; the oldest events go first."""

    def __post_init__(self) -> None:
        """Refuse what is no power of two."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ValueError(f"{name} is a power of two, not {value}")


BUFFERING, BUILDING, LIVE, INVALID = 0, 1, 2, 3
STATUS = ("buffering", "building", "live", "invalid")

STATE = np.dtype(
    [
        ("update_id", "<i8"),  # last update id applied; BUILDING: the snapshot's
        ("abandoned", "<i8"),  # snapshot given up half-way, -1 for none: its remaining chunks are ignored
        ("known_low", "<i8"),  # lowest bid of the snapshot: below it levels are unknown until they change
        ("known_high", "<i8"),  # highest ask of the snapshot
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
        ("resyncs", "<i8"),  # snapshots asked for
        ("status", "<i4"),
        ("fresh", "<i4"),  # 1 while no diff was applied to the snapshot yet
    ],
    align=True,
)
assert STATE.itemsize == 136

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
HOLD = 13  # 1 once `book` was full: whoever rebuilds the strategy clears it
UNKNOWN = 14  # events of instruments that are not in the table
INPUT_GAPS = 15  # gaps on `tick`
WORDS = 16

IGNORE, APPLY, BUFFER, BROKEN = 0, 1, 2, 3


class Book(NamedTuple):
    """Context of the stage."""

    tick: Any
    book: Any
    touch: Any
    fill_feed: Any
    books: Books
    state: Any  # STATE, one per instrument
    buffers: Any  # TICK[instrument, buffer_ticks]: DIFF and LEVEL records, a ring each
    instruments: Any  # INSTRUMENT
    resync: Any  # int64, one per instrument: counts the snapshots asked for; market_data reads it
    words: Any


# ── validity ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def request(context: Any, i: int) -> None:
    """Ask market_data for a snapshot."""
    context.state[i]["resyncs"] += 1
    store_release(context.resync, i, context.resync[i] + 1)


@kernel
def invalidate(context: Any, i: int) -> None:
    """Empty the book and ask for a snapshot."""
    order_book.clear(context.books, i)
    if context.state[i]["status"] == BUILDING:
        context.state[i]["abandoned"] = context.state[i]["update_id"]
    context.state[i]["status"] = INVALID
    context.state[i]["known_low"] = 0
    context.state[i]["known_high"] = 0
    request(context, i)


@kernel
def lose(context: Any, i: int) -> None:
    """Note that anything may be missing before this moment: what was buffered does not help either."""
    context.state[i]["losses"] += 1
    context.state[i]["buffer_count"] = 0
    invalidate(context, i)


@inlined
def judge(context: Any, i: int, first_id: int, last_id: int, previous_id: int) -> int:
    """Tell what to do with a diff of these ids on a live book: APPLY, IGNORE or BROKEN (something is missing).

    Spot: anything up to the next id joins. Futures: after a snapshot an event whose range holds the snapshot's id,
    then only one that names the last id as its previous one; an event that names the snapshot's own id joins as well.
    """
    update_id = context.state[i]["update_id"]
    fresh = context.state[i]["fresh"] != 0
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
    """Tell VALID and BLIND of a book with this touch."""
    if context.state[i]["status"] != LIVE:
        return 0
    if bid < context.state[i]["known_low"] or ask > context.state[i]["known_high"]:
        return m.VALID | m.BLIND
    return m.VALID


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
            context.words[ACTION] = IGNORE
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


@kernel
def open_snapshot(context: Any, i: int, record: Any) -> int:
    """Begin a snapshot, or go on with its next chunk; return what becomes of its levels."""
    state = context.state[i]
    last_id = record["last_id"]
    if state["status"] == LIVE and last_id < state["update_id"]:
        # The book is ahead of it, and nothing was kept to catch up with.
        state["stale"] += 1
        return IGNORE
    if last_id == state["abandoned"]:
        return IGNORE
    if state["status"] != BUILDING or state["update_id"] != last_id:
        order_book.clear(context.books, i)
        state["status"] = BUILDING
        state["update_id"] = last_id
        state["fresh"] = 1
        state["known_low"] = 0
        state["known_high"] = 0
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
            return APPLY
        if verdict == IGNORE:
            state["stale"] += 1
            return IGNORE
        state["gaps"] += 1
        invalidate(context, i)
    elif state["resyncs"] == 0:
        request(context, i)
    context.words[ACTION] = BUFFER
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
    if action == BUFFER:
        buffer_record(context, i, record)
        return
    if action == IGNORE:
        return
    side = record["flags"] & m.SIDE_ASK
    price = record["price"]
    if order_book.set_level(context.books, i, side, price, record["quantity"]) < 0:
        context.state[i]["refused"] += 1
        context.words[ACTION] = IGNORE
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
    applied = context.words[ACTION] == APPLY
    if context.words[KIND] == m.SNAPSHOT:
        if context.words[MORE] != 0:
            return state["status"] != LIVE
        state["abandoned"] = -1
        if applied:
            state["status"] = LIVE
            state["snapshots"] += 1
            check(context, i)
            replay(context, i)
    elif applied:
        state["events"] += 1
        check(context, i)
    return applied or state["status"] != LIVE


# ── output ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def book_slot(context: Any, record: Any, kind: int) -> int:
    """Take a slot of `book` and write its header; -1 and HOLD if the ring is full."""
    out = context.book
    words = context.words
    if not ring.claim(out, 1):
        words[BOOK_DROPPED] += 1
        words[BOOK_GAP] = m.GAP
        words[HOLD] = 1
        return -1
    position = out.own[ring.NEXT]
    slot = ring.next_slot(out)
    out.slots[slot]["sequence"] = position
    out.slots[slot]["cause"] = record["cause"]
    out.slots[slot]["time_ns"] = record["time_ns"]
    out.slots[slot]["instrument"] = record["instrument"]
    out.slots[slot]["kind"] = kind
    out.slots[slot]["flags"] = words[BOOK_GAP]
    words[BOOK_GAP] = 0
    return slot


@inlined
def put_depth(context: Any, i: int, record: Any) -> None:
    """Write TOUCH and BOOK of an instrument as it stands."""
    words = context.words
    bid = order_book.best_price(context.books, i, BID)
    ask = order_book.best_price(context.books, i, ASK)
    flags = flags_of(context, i, bid, ask)
    out = context.touch
    if ring.claim(out, 1):
        position = out.own[ring.NEXT]
        slot = ring.next_slot(out)
        out.slots[slot]["sequence"] = position
        out.slots[slot]["cause"] = record["cause"]
        out.slots[slot]["time_ns"] = record["time_ns"]
        out.slots[slot]["instrument"] = i
        out.slots[slot]["kind"] = m.DEPTH_BOOK
        out.slots[slot]["flags"] = flags | words[TOUCH_GAP]
        out.slots[slot]["bid_price"] = bid
        out.slots[slot]["bid_quantity"] = order_book.quantity_at(context.books, i, BID, bid)
        out.slots[slot]["ask_price"] = ask
        out.slots[slot]["ask_quantity"] = order_book.quantity_at(context.books, i, ASK, ask)
        words[TOUCH_GAP] = 0
    else:
        words[TOUCH_DROPPED] += 1
        words[TOUCH_GAP] = m.GAP
    slot = book_slot(context, record, m.DEPTH_BOOK)
    if slot >= 0:
        target = context.book.slots[slot]
        target["instrument"] = i
        target["flags"] |= flags
        target["update_id"] = context.state[i]["update_id"] if flags != 0 else words[EVENT_ID]
        target["venue_ns"] = words[VENUE_NS]
        target["bid_count"] = order_book.top(
            context.books, i, BID, target["bid_price"], target["bid_quantity"], m.DEPTH
        )
        target["ask_count"] = order_book.top(
            context.books, i, ASK, target["ask_price"], target["ask_quantity"], m.DEPTH
        )


@inlined
def clear_levels(target: Any) -> None:
    """Empty both sides of a BOOK."""
    target["bid_count"] = 0
    target["ask_count"] = 0
    target["bid_price"][:] = 0
    target["bid_quantity"][:] = 0
    target["ask_price"][:] = 0
    target["ask_quantity"][:] = 0


@inlined
def put_quote(context: Any, record: Any) -> None:
    """Write one side of a best bid and offer: the ask joins the bid of its event."""
    out = context.book
    ask = record["flags"] & m.SIDE_ASK != 0
    last = (out.own[ring.NEXT] - 1) & (out.slots.shape[0] - 1)
    waiting = out.own[ring.NEXT] - out.own[ring.HEAD]
    if ask and waiting > 0 and out.slots[last]["kind"] == m.QUOTE and out.slots[last]["ask_count"] == 0:
        slot = last
    else:
        slot = book_slot(context, record, m.QUOTE)
        if slot < 0:
            return
        clear_levels(out.slots[slot])
        out.slots[slot]["update_id"] = record["id"]
        out.slots[slot]["venue_ns"] = record["venue_ns"]
    if ask:
        out.slots[slot]["ask_count"] = 1
        out.slots[slot]["ask_price"][0] = record["price"]
        out.slots[slot]["ask_quantity"][0] = record["quantity"]
    else:
        out.slots[slot]["bid_count"] = 1
        out.slots[slot]["bid_price"][0] = record["price"]
        out.slots[slot]["bid_quantity"][0] = record["quantity"]


@inlined
def put_other(context: Any, record: Any) -> None:
    """Pass a TRADE or TIMER on."""
    slot = book_slot(context, record, record["kind"])
    if slot < 0:
        return
    target = context.book.slots[slot]
    clear_levels(target)
    if record["kind"] == m.TRADE:
        target["flags"] |= record["flags"] & m.SELLER_AGGRESSED
        target["trade_id"] = record["id"]
        target["venue_ns"] = record["venue_ns"]
        target["price"] = record["price"]
        target["quantity"] = record["quantity"]
    else:
        target["update_id"] = 0
        target["venue_ns"] = 0


@inlined
def put_feed(context: Any, record: Any, need: int) -> None:
    """Copy a record to `fill_feed`; without room for `need` the rest of its event is left out."""
    out = context.fill_feed
    words = context.words
    if words[KIND] == 0:
        words[FEED_SKIP] = 0
    if not ring.claim(out, need):
        words[FEED_SKIP] = 1
    if words[FEED_SKIP] != 0:
        words[FEED_DROPPED] += 1
        words[FEED_GAP] = m.GAP
        return
    position = out.own[ring.NEXT]
    slot = ring.next_slot(out)
    out.slots[slot] = record
    out.slots[slot]["sequence"] = position
    if words[FEED_GAP] != 0:
        out.slots[slot]["flags"] |= m.GAP
        words[FEED_GAP] = 0


# ── the step ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def room(context: Any, loop: Any, record: Any) -> bool:
    """Tell, in replay, whether everything that may follow from a record fits; a ring that never will is a fault."""
    if not ring.claim(context.fill_feed, 1):
        return False
    if record["kind"] == m.LEVEL:
        return True
    need = 1
    if record["flags"] & m.GAP != 0 or record["kind"] == m.LOST:
        need += context.state.shape[0]
    out = context.book
    waiting = out.own[ring.NEXT] - out.own[ring.HEAD]
    if waiting + need > out.slots.shape[0] or need > context.touch.slots.shape[0]:
        fault(loop, FAULT_RING_FULL, need)
        return False
    return ring.claim(out, need) and ring.claim(context.touch, need)


@kernel
def lose_all(context: Any, record: Any) -> None:
    """Make every book invalid, and say so."""
    context.words[EVENT_ID] = 0
    context.words[VENUE_NS] = 0
    for i in range(context.state.shape[0]):
        lose(context, i)
        put_depth(context, i, record)


@inlined
def close_event(context: Any, loop: Any, record: Any) -> None:
    """Finish the event and publish what came of it, `book` last."""
    words = context.words
    i = words[INSTRUMENT]
    if (
        (words[KIND] == m.SNAPSHOT or words[KIND] == m.DIFF)
        and 0 <= i < context.state.shape[0]
        and close_depth(context, i)
    ):
        put_depth(context, i, record)
    out = context.book
    now = stamp(loop)
    for position in range(out.own[ring.HEAD], out.own[ring.NEXT]):
        slot = position & (out.slots.shape[0] - 1)
        out.slots[slot]["wire_ns"] = record["wire_ns"]
        out.slots[slot]["decoded_ns"] = record["decoded_ns"]
        out.slots[slot]["book_ns"] = now
    ring.publish(context.fill_feed)
    ring.publish(context.touch)
    ring.publish(out)
    words[KIND] = 0


@inlined
def take(context: Any, loop: Any, record: Any) -> None:
    """Take one record that is no LEVEL."""
    words = context.words
    kind = record["kind"]
    if record["flags"] & m.GAP != 0:
        words[INPUT_GAPS] += 1
        lose_all(context, record)
    if kind in (m.SNAPSHOT, m.DIFF):
        open_event(context, record)
    elif kind == m.END:
        close_event(context, loop, record)
    else:
        words[KIND] = kind
        if kind == m.LOST:
            lose_all(context, record)
        elif kind == m.TIMER:
            put_other(context, record)
        elif record["instrument"] < 0 or record["instrument"] >= context.state.shape[0]:
            words[UNKNOWN] += 1
        elif kind == m.QUOTE:
            put_quote(context, record)
        else:
            put_other(context, record)


@kernel
def step(context: Any, loop: Any) -> int:
    """Take what waits on `tick`, at most BATCH records; return how many that was.

    Events are published one by one as they end; what of an unfinished one is on `fill_feed` is published as well, so
    that a snapshot larger than that ring passes.
    """
    tick = context.tick
    waiting = min(ring.available(tick), BATCH)
    replaying = loop[VIRTUAL] != 0
    reserve = min(EVENT_TICKS, context.fill_feed.slots.shape[0] // 2)
    taken = 0
    while taken < waiting:
        record = tick.slots[ring.slot_at(tick, taken)]
        if record["sequence"] != tick.own[ring.TAIL] + taken:
            fault(loop, FAULT_SEQUENCE, tick.own[ring.TAIL] + taken)
            break
        if replaying and not room(context, loop, record):
            break
        put_feed(context, record, 1 if replaying or context.words[KIND] != 0 else reserve)
        if record["kind"] == m.LEVEL:
            level(context, record)
        else:
            take(context, loop, record)
        taken += 1
    if taken > 0:
        ring.publish(context.fill_feed)
        ring.release(tick, taken)
    return taken


@kernel
def run(context: Any, loop: Any) -> None:
    """Repeat `step` until the turn is over."""
    work = 0
    while turn(loop, work):
        work = step(context, loop)


def build(setup: Setup) -> Book:
    """Allocate the books and map the rings; `shared["resync"]`, if given, is what market_data reads."""
    config = setup.config
    count = len(setup.instruments)
    state = np.zeros(count, STATE)
    state["abandoned"] = -1
    resync = setup.shared.get("resync")
    return Book(
        tick=setup.consumers["tick"],
        book=setup.producers["book"],
        touch=setup.producers["touch"],
        fill_feed=setup.producers["fill_feed"],
        books=order_book.make_books(setup.instruments, config.window_ticks, config.far_levels),
        state=state,
        buffers=np.zeros((count, config.buffer_ticks), m.TICK),
        instruments=setup.instruments,
        resync=np.zeros(count, np.int64) if resync is None else resync,
        words=np.zeros(WORDS, np.int64),
    )


STAGE = Stage(
    name="book",
    reads=("tick",),
    writes=("book", "touch", "fill_feed"),
    build=build,
    step=step,
    run=run,
)
