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
(GAP on the next record), and a full `book` ring holds new orders until it is half empty; nobody is waited for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np

from shrivenq.shm import ring
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import arrivals, control, order_book
from shrivenq.stages import book_sync as sync
from shrivenq.stages import messages as m
from shrivenq.stages.order_book import ASK, BID, Books
from shrivenq.stages.stage import (
    BOOKS_VALID,
    FAULT_RING_FULL,
    FAULT_SEQUENCE,
    VIRTUAL,
    Setup,
    Stage,
    fault,
    stamp,
    turn,
)

BATCH = 1024
"""Records taken in one step."""
AHEAD = 8
"""Slots of `fill_feed` fetched ahead: most events are no longer."""
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


@by_reference
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
    hold: Any  # word 0: causes for which new orders are held
    resync: Any  # int64, one per instrument: counts the snapshots asked for; market_data reads it
    words: Any
    arrivals: arrivals.Arrivals


# ── output ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def book_slot(context: Any, record: Any, kind: int) -> int:
    """Take a slot of `book` and write its header; -1 if the ring is full: held until it is half empty again."""
    out = context.book
    words = context.words
    if not ring.claim(out, 1):
        words[sync.BOOK_DROPPED] += 1
        words[sync.BOOK_GAP] = m.GAP
        if words[sync.HOLD] == 0:
            words[sync.HOLD] = 1
            control.hold(context.hold, control.RING_TROUBLE)
        return -1
    if words[sync.HOLD] != 0 and ring.claim(out, out.slots.shape[0] // 2):
        words[sync.HOLD] = 0
        control.unhold(context.hold, control.RING_TROUBLE)
    position = out.own[ring.NEXT]
    slot = ring.next_slot(out)
    out.slots[slot]["sequence"] = position
    out.slots[slot]["cause"] = record["cause"]
    out.slots[slot]["time_ns"] = record["time_ns"]
    out.slots[slot]["instrument"] = record["instrument"]
    out.slots[slot]["kind"] = kind
    out.slots[slot]["flags"] = words[sync.BOOK_GAP]
    words[sync.BOOK_GAP] = 0
    return slot


@inlined
def put_depth(context: Any, i: int, record: Any) -> None:
    """Write TOUCH and BOOK of an instrument as it stands."""
    words = context.words
    bid = order_book.best_price(context.books, i, BID)
    ask = order_book.best_price(context.books, i, ASK)
    flags = sync.flags_of(context, i, bid, ask)
    out = context.touch
    if ring.claim(out, 1):
        position = out.own[ring.NEXT]
        slot = ring.next_slot(out)
        out.slots[slot]["sequence"] = position
        out.slots[slot]["cause"] = record["cause"]
        out.slots[slot]["time_ns"] = record["time_ns"]
        out.slots[slot]["instrument"] = i
        out.slots[slot]["kind"] = m.DEPTH_BOOK
        out.slots[slot]["flags"] = flags | words[sync.TOUCH_GAP]
        out.slots[slot]["bid_price"] = bid
        out.slots[slot]["bid_quantity"] = order_book.quantity_at(context.books, i, BID, bid)
        out.slots[slot]["ask_price"] = ask
        out.slots[slot]["ask_quantity"] = order_book.quantity_at(context.books, i, ASK, ask)
        words[sync.TOUCH_GAP] = 0
    else:
        words[sync.TOUCH_DROPPED] += 1
        words[sync.TOUCH_GAP] = m.GAP
    slot = book_slot(context, record, m.DEPTH_BOOK)
    if slot >= 0:
        target = context.book.slots[slot]
        target["instrument"] = i
        target["flags"] |= flags
        target["update_id"] = context.state[i]["update_id"] if flags != 0 else words[sync.EVENT_ID]
        target["venue_ns"] = words[sync.VENUE_NS]
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
    if words[sync.KIND] == 0:
        words[sync.FEED_SKIP] = 0
    if not ring.claim(out, need):
        words[sync.FEED_SKIP] = 1
    if words[sync.FEED_SKIP] != 0:
        words[sync.FEED_DROPPED] += 1
        words[sync.FEED_GAP] = m.GAP
        return
    position = out.own[ring.NEXT]
    slot = ring.next_slot(out)
    out.slots[slot] = record
    out.slots[slot]["sequence"] = position
    if words[sync.FEED_GAP] != 0:
        out.slots[slot]["flags"] |= m.GAP
        words[sync.FEED_GAP] = 0


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
def lose(context: Any, record: Any, first: int, stop: int) -> None:
    """Make the books of the instruments `first` … `stop` - 1 invalid, and say so."""
    context.words[sync.EVENT_ID] = 0
    context.words[sync.VENUE_NS] = 0
    for i in range(first, stop):
        sync.lose(context, i)
        put_depth(context, i, record)


@inlined
def note_drops(context: Any, record: Any) -> None:
    """Note how much of what followed from an event found room, if not all of it did."""
    words = context.words
    dropped = words[sync.BOOK_DROPPED] + words[sync.TOUCH_DROPPED]
    if context.arrivals.words[arrivals.ON] != 0 and dropped != words[sync.DROPS_NOTED]:
        touches = context.touch.own[ring.NEXT] - context.touch.own[ring.HEAD]
        books = context.book.own[ring.NEXT] - context.book.own[ring.HEAD]
        position = record["sequence"]
        arrivals.note(context.arrivals, arrivals.DROPPED, 0, position, 0, 0, 0, 0, 0, touches, books)
        words[sync.DROPS_NOTED] = dropped


@inlined
def close_event(context: Any, loop: Any, record: Any) -> None:
    """Finish the event and publish what came of it, `book` last."""
    words = context.words
    i = words[sync.INSTRUMENT]
    if (
        (words[sync.KIND] == m.SNAPSHOT or words[sync.KIND] == m.DIFF)
        and 0 <= i < context.state.shape[0]
        and sync.close_depth(context, i)
    ):
        put_depth(context, i, record)
        if context.state[i]["status"] == sync.LIVE:
            loop[BOOKS_VALID] += 1
    note_drops(context, record)
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
    ring.prepare(context.fill_feed, AHEAD)
    ring.prepare(context.touch, 1)
    ring.prepare(out, 1)
    words[sync.KIND] = 0


@inlined
def take(context: Any, loop: Any, record: Any) -> None:
    """Take one record that is no LEVEL."""
    words = context.words
    kind = record["kind"]
    if record["flags"] & m.GAP != 0:
        words[sync.INPUT_GAPS] += 1
        lose(context, record, 0, context.state.shape[0])
    if kind in (m.SNAPSHOT, m.DIFF):
        sync.open_event(context, record)
    elif kind == m.END:
        close_event(context, loop, record)
    else:
        words[sync.KIND] = kind
        count = context.state.shape[0]
        if kind == m.LOST and record["instrument"] < 0:
            lose(context, record, 0, count)
        elif kind == m.TIMER:
            put_other(context, record)
        elif record["instrument"] < 0 or record["instrument"] >= count:
            words[sync.UNKNOWN] += 1
        elif kind == m.LOST:
            lose(context, record, record["instrument"], record["instrument"] + 1)
        elif kind == m.QUOTE:
            put_quote(context, record)
        else:
            put_other(context, record)


@inlined
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
        put_feed(context, record, 1 if replaying or context.words[sync.KIND] != 0 else reserve)
        if record["kind"] == m.LEVEL:
            sync.level(context, record)
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
    state = np.zeros(count, sync.STATE)
    buffers = np.empty((count, config.buffer_ticks), m.TICK)
    buffers.view(np.int64).fill(0)  # touches every page: none is touched first on the path
    state["abandoned"] = -1
    resync = setup.shared.get("resync")
    return Book(
        tick=setup.consumers["tick"],
        book=setup.producers["book"],
        touch=setup.producers["touch"],
        fill_feed=setup.producers["fill_feed"],
        books=order_book.make_books(setup.instruments, config.window_ticks, config.far_levels),
        state=state,
        buffers=buffers,
        instruments=setup.instruments,
        hold=setup.shared["hold"] if "hold" in setup.shared else np.zeros(1, np.int64),
        resync=np.zeros(count, np.int64) if resync is None else resync,
        words=np.zeros(sync.WORDS, np.int64),
        arrivals=setup.shared.get("arrivals") or arrivals.nowhere(),
    )


STAGE = Stage(
    name="book",
    reads=("tick",),
    writes=("book", "touch", "fill_feed"),
    build=build,
    step=step,
    run=run,
)
