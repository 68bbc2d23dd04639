"""The ring: one producer, one consumer, fixed-size slots, no lock.

                 producer's page                consumer's page
    ┌────────────────────────────────┐ ┌────────────────────────────────┐
    │ HEAD   next slot to be read    │ │ TAIL   next slot to be read    │   one 128-byte line each
    │ NEXT   next slot to be written │ │ CACHED head as last seen       │
    │ CACHED tail as last seen       │ │                                │
    └────────────────────────────────┘ └────────────────────────────────┘
    ┌──────┬──────┬──────┬─────┬──────┐
    │ slot │ slot │ slot │  …  │ slot │  a power of two; position & (count − 1) is the index
    └──────┴──────┴──────┴─────┴──────┘

Positions count from 0 and never wrap. The producer fills slots at NEXT, then stores HEAD with release order: that
store is the commit. A producer killed before it leaves nothing visible, killed after it leaves a whole message. Each
side keeps a copy of the other's cursor and looks again only when the copy says full or empty, so the two cores
exchange one cache line per batch, not per message.

Each side can write its own page only (and the producer the slots): the other page is mapped read-only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import segment
from shrivenq.shm.atomics import fence_acquire, load_acquire, store_release
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.shm.layout import LINE_WORDS, PAGE, Layout, Region
from shrivenq.shm.prefetch import LINE, prefetch_write
from shrivenq.shm.segment import Segment, SegmentError

INT64_MAX = (1 << 63) - 1

HEAD, TAIL = 0, 0
NEXT = LINE_WORDS
CACHED = LINE_WORDS + 1
HIGH_WATER = LINE_WORDS + 2  # most slots ever seen waiting, by the consumer


@by_reference
class Producer(NamedTuple):
    """The writing end: own cursors, the consumer's cursors (read-only), the slots."""

    own: Any
    peer: Any
    slots: Any


@by_reference
class Consumer(NamedTuple):
    """The reading end: own cursors, the producer's cursors (read-only), the slots (read-only)."""

    own: Any
    peer: Any
    slots: Any


@by_reference
class Tap(NamedTuple):
    """An observer: the producer's cursors and the slots, all read-only, and its own position (private memory)."""

    own: Any
    peer: Any
    slots: Any


def ring_layout(dtype: np.dtype[Any], count: int) -> Layout:
    """Lay out a ring of `count` slots of `dtype`. Raises SegmentError unless `count` is a power of two."""
    if count < 2 or count & (count - 1):
        raise SegmentError(f"a ring has a power of two of slots, not {count}")
    cursors = np.dtype("<i8")
    per_page = PAGE // cursors.itemsize
    return Layout(
        "ring",
        (Region("producer", cursors, per_page), Region("consumer", cursors, per_page), Region("slots", dtype, count)),
    )


def create(name: str, dtype: np.dtype[Any], count: int, *, epoch: int = 1, node: int = -1) -> Segment:
    """Create the segment of a ring; see `segment.create`."""
    return segment.create(name, ring_layout(dtype, count), epoch=epoch, node=node)


def producer(ring: Segment) -> Producer:
    """Map the writing end."""
    return Producer(ring.array("producer", writable=True), ring.array("consumer"), ring.array("slots", writable=True))


def consumer(ring: Segment) -> Consumer:
    """Map the reading end."""
    return Consumer(ring.array("consumer", writable=True), ring.array("producer"), ring.array("slots"))


def tap(ring: Segment) -> Tap:
    """Map an observer that begins at what is published next."""
    cursors = ring.array("producer")
    own = np.zeros(2, dtype=np.int64)
    own[TAIL] = cursors[HEAD]
    return Tap(own, cursors, ring.array("slots"))


@inlined
def index_of(position: int, count: int) -> int:
    """Index of a position in `count` slots."""
    # The sign bit is cleared for the compiler: it then needs no check for an index that counts from the end.
    return position & ((count - 1) & INT64_MAX)


@inlined
def claim(ring: Any, count: int) -> bool:
    """Tell the producer whether `count` slots from NEXT on may be written; looks at the consumer only if it must."""
    end = ring.own[NEXT] + count
    if end - ring.own[CACHED] <= ring.slots.shape[0]:
        return True
    ring.own[CACHED] = load_acquire(ring.peer, TAIL)
    return bool(end - ring.own[CACHED] <= ring.slots.shape[0])


@inlined
def next_slot(ring: Any) -> int:
    """Take the index of the next slot to fill and advance NEXT; the caller has claimed it."""
    position = ring.own[NEXT]
    ring.own[NEXT] = position + 1
    return index_of(position, ring.slots.shape[0])


@inlined
def publish(ring: Any) -> None:
    """Commit every slot filled since the last commit."""
    store_release(ring.own, HEAD, ring.own[NEXT])


@inlined
def prepare(ring: Any, count: int) -> None:
    """Fetch the next `count` slots into the producer's cache: for after a publish, when there is time."""
    for ahead in range(count):
        slot = index_of(ring.own[NEXT] + ahead, ring.slots.shape[0])
        for line in range((ring.slots.itemsize + LINE - 1) // LINE):
            prefetch_write(ring.slots, slot, line)


@inlined
def slot_ahead(ring: Any, ahead: int) -> int:
    """Index of the slot `ahead` of NEXT, for who fills several at once; the caller has claimed it. See `commit`."""
    return index_of(ring.own[NEXT] + ahead, ring.slots.shape[0])


@inlined
def commit(ring: Any, count: int) -> None:
    """Advance NEXT over `count` slots filled through `slot_ahead` and publish: one store for all, a fifth faster."""
    end = ring.own[NEXT] + count
    ring.own[NEXT] = end
    store_release(ring.own, HEAD, end)


@inlined
def abandon(ring: Any) -> None:
    """Forget slots filled since the last commit."""
    ring.own[NEXT] = ring.own[HEAD]


@inlined
def available(ring: Any) -> int:
    """Count the slots the consumer may read from TAIL on; looks at the producer only when its copy says none."""
    waiting = ring.own[CACHED] - ring.own[TAIL]
    if waiting == 0:
        ring.own[CACHED] = load_acquire(ring.peer, HEAD)
        waiting = ring.own[CACHED] - ring.own[TAIL]
        if waiting > ring.own[HIGH_WATER]:
            ring.own[HIGH_WATER] = waiting
    return waiting


@inlined
def slot_at(ring: Any, ahead: int) -> int:
    """Index of the slot `ahead` of TAIL."""
    return index_of(ring.own[TAIL] + ahead, ring.slots.shape[0])


@inlined
def release(ring: Any, count: int) -> None:
    """Give `count` slots back to the producer."""
    store_release(ring.own, TAIL, ring.own[TAIL] + count)


@kernel
def copy_next(ring: Any, target: Any) -> int:
    """Copy the next published slot of a Tap into `target[0]`: 1 copied, 0 nothing new, -n lost n slots to lapping.

    The copy may race with the producer: it counts only if, after a fence, the producer is still less than a full ring
    ahead (safe window: capacity − 1, since the slot at HEAD may be half written).
    """
    count = ring.slots.shape[0]
    position = ring.own[TAIL]
    head = load_acquire(ring.peer, HEAD)
    if head == position:
        return 0
    if head - position < count:
        target[0] = ring.slots[index_of(position, count)]
        fence_acquire()
        head = load_acquire(ring.peer, HEAD)
        if head - position < count:
            ring.own[TAIL] = position + 1
            return 1
    # Start again half a ring behind, so that the producer does not lap at once a second time.
    ring.own[TAIL] = head - count // 2
    return position - ring.own[TAIL]
