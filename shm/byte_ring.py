"""The byte ring: one producer, one consumer, records of any length, no lock.

    ┌────────────────┬─────────┬─────────────────┐
    │ length  │ kind │ time_ns │ payload, padded │   word 0: length in the low half, kind in the high half;
    └────────────────┴─────────┴─────────────────┘   word 1; then the bytes, padded to the next 8
    ┌──────────┬────────────────┬────────┬───┬──────────┐
    │ … record │ record         │ record │ … │ padding  │   the data, a power of two of bytes
    └──────────┴────────────────┴────────┴───┴──────────┘
                ▲ TAIL                    ▲ HEAD

A record never wraps: where it does not fit before the end, a padding record (word 0 alone, kind PADDING) fills the end
and the record begins at the start. So a record is one contiguous run of bytes, and may be half a ring long at most.

Cursors are those of `ring.py`: bytes counted from 0, never wrapping, each side's in a page of its own that the other
maps read-only. The release store of HEAD is the commit: a producer killed before it leaves nothing visible. What was
committed survives any process's death, and a new consumer goes on at TAIL.

Production users: raw frames to the recorder, the order journal to its writer, arrivals, answers of the REST process.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import segment
from shrivenq.shm.atomics import load_acquire, load_word, store_release, store_word
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.shm.layout import PAGE, Layout, Region
from shrivenq.shm.prefetch import LINE, prefetch_write
from shrivenq.shm.ring import CACHED, HEAD, HIGH_WATER, NEXT, TAIL
from shrivenq.shm.segment import Segment, SegmentError

RECORD_SIZE = 16
"""Bytes of a record before its payload."""
PADDING = -1
KIND_SHIFT = 32
LENGTH_MASK = (1 << KIND_SHIFT) - 1
SIZE_MIN = 64
SIZE_MAX = 1 << 31

_FIRST = Struct("<Ii")  # length, kind
_TIME = Struct("<q")


@by_reference
class Producer(NamedTuple):
    """The writing end: own cursors, the consumer's (read-only), the data as bytes and as int64 words."""

    own: Any
    peer: Any
    data: Any
    words: Any


@by_reference
class Consumer(NamedTuple):
    """The reading end: own cursors, the producer's (read-only), the data (read-only) as bytes and as int64 words."""

    own: Any
    peer: Any
    data: Any
    words: Any


def byte_ring_layout(size: int) -> Layout:
    """Lay out a byte ring of `size` bytes. Raises SegmentError unless it is a power of two of 64 … 2³¹."""
    if not SIZE_MIN <= size <= SIZE_MAX or size & (size - 1):
        raise SegmentError(f"a byte ring has a power of two of {SIZE_MIN} to {SIZE_MAX:,} bytes, not {size:,}")
    cursors = np.dtype("<i8")
    per_page = PAGE // cursors.itemsize
    return Layout(
        "byte_ring",
        (
            Region("producer", cursors, per_page),
            Region("consumer", cursors, per_page),
            Region("data", np.dtype("u1"), size),
        ),
    )


def create(name: str, size: int, *, epoch: int = 1, node: int = -1) -> Segment:
    """Create the segment of a byte ring; see `segment.create`."""
    return segment.create(name, byte_ring_layout(size), epoch=epoch, node=node)


def producer(ring: Segment) -> Producer:
    """Map the writing end."""
    data = ring.array("data", writable=True)
    return Producer(ring.array("producer", writable=True), ring.array("consumer"), data, data.view(np.int64))


def consumer(ring: Segment) -> Consumer:
    """Map the reading end."""
    data = ring.array("data")
    return Consumer(ring.array("consumer", writable=True), ring.array("producer"), data, data.view(np.int64))


def nowhere() -> Producer:
    """Make the writing end of a ring that nobody reads, typed like any other, so that kernels compile once."""
    peer, data = np.zeros(512, np.int64), np.zeros(SIZE_MIN, np.uint8)
    peer.flags.writeable = False
    return Producer(np.zeros(512, np.int64), peer, data, data.view(np.int64))


def length_max(size: int) -> int:
    """Tell the longest payload that a ring of `size` bytes takes."""
    return size // 2 - RECORD_SIZE


@inlined
def reserve(ring: Any, kind: int, length: int, time_ns: int) -> int:
    """Begin a record of `length` payload bytes: the payload's offset in `data`, or -1 if there is no room (now).

    `kind` is 0 … 2³¹ − 1. A payload above `length_max` never has room. Nothing is visible before `commit`.
    """
    size = ring.data.shape[0]
    if length < 0 or length > size // 2 - RECORD_SIZE:
        return -1
    needed = RECORD_SIZE + ((length + 7) & ~7)
    position = ring.own[NEXT]
    offset = position & (size - 1)
    padding = 0
    if size - offset < needed:
        padding = size - offset
    end = position + padding + needed
    if end - ring.own[CACHED] > size:
        ring.own[CACHED] = load_acquire(ring.peer, TAIL)
        if end - ring.own[CACHED] > size:
            return -1
    if padding > 0:
        ring.words[offset >> 3] = (PADDING << KIND_SHIFT) | (padding - 8)
        offset = 0
    ring.words[offset >> 3] = (kind << KIND_SHIFT) | length
    ring.words[(offset >> 3) + 1] = time_ns
    ring.own[NEXT] = end
    return offset + RECORD_SIZE


@inlined
def free(ring: Any) -> int:
    """Count the bytes that the producer may still fill, looking at the consumer."""
    ring.own[CACHED] = load_acquire(ring.peer, TAIL)
    return ring.data.shape[0] - (ring.own[NEXT] - ring.own[CACHED])


@inlined
def commit(ring: Any) -> None:
    """Make every record reserved since the last commit visible."""
    store_release(ring.own, HEAD, ring.own[NEXT])


@inlined
def prepare(ring: Any, size: int) -> None:
    """Fetch where the next `size` bytes will go into the producer's cache: for after a commit, when there is time."""
    at = (ring.own[NEXT] & (ring.data.shape[0] - 1)) >> 3
    for line in range((size + LINE - 1) // LINE):
        prefetch_write(ring.words, at, line)


@inlined
def abandon(ring: Any) -> None:
    """Forget the records reserved since the last commit."""
    ring.own[NEXT] = ring.own[HEAD]


@kernel
def append(ring: Any, kind: int, data: Any, start: int, length: int, time_ns: int) -> bool:
    """Write and commit one record, the bytes `data[start : start + length]` (uint8); False if there is no room."""
    offset = reserve(ring, kind, length, time_ns)
    if offset < 0:
        return False
    for i in range(length):
        ring.data[offset + i] = data[start + i]
    commit(ring)
    return True


@inlined
def peek(ring: Any) -> int:
    """Find the payload of the oldest record: its offset in `data`, or -1 if there is none."""
    while True:
        tail = ring.own[TAIL]
        if ring.own[CACHED] == tail:
            head = load_acquire(ring.peer, HEAD)
            ring.own[CACHED] = head
            if head == tail:
                return -1
            if head - tail > ring.own[HIGH_WATER]:
                ring.own[HIGH_WATER] = head - tail
        offset = tail & (ring.data.shape[0] - 1)
        first = ring.words[offset >> 3]
        if first >> KIND_SHIFT != PADDING:
            return offset + RECORD_SIZE
        store_release(ring.own, TAIL, tail + 8 + (first & LENGTH_MASK))


@inlined
def length_of(ring: Any, offset: int) -> int:
    """Bytes of the payload that `peek` found at `offset`."""
    return ring.words[(offset >> 3) - 2] & LENGTH_MASK


@inlined
def kind_of(ring: Any, offset: int) -> int:
    """Kind of the record whose payload `peek` found at `offset`."""
    return ring.words[(offset >> 3) - 2] >> KIND_SHIFT


@inlined
def time_of(ring: Any, offset: int) -> int:
    """Time in ns of the record whose payload `peek` found at `offset`."""
    return ring.words[(offset >> 3) - 1]


@inlined
def consume(ring: Any) -> None:
    """Give the record that `peek` found back to the producer."""
    tail = ring.own[TAIL]
    first = ring.words[(tail & (ring.data.shape[0] - 1)) >> 3]
    store_release(ring.own, TAIL, tail + RECORD_SIZE + (((first & LENGTH_MASK) + 7) & ~7))


def waiting(ring: Consumer) -> tuple[list[tuple[int, int, bytes]], int]:
    """Copy every committed record as (kind, time_ns, payload), oldest first, and name the position after them.

    Nothing is given back: a consumer that must not lose a record by dying stores them first and then calls
    `release_to` with that position. Uncommitted bytes are never looked at.
    """
    head, tail = int(load_word(ring.peer, HEAD)), int(ring.own[TAIL])
    ring.own[HIGH_WATER] = max(int(ring.own[HIGH_WATER]), head - tail)
    view, size = memoryview(ring.data), ring.data.shape[0]
    found = []
    while tail < head:
        offset = tail & (size - 1)
        length, kind = _FIRST.unpack_from(view, offset)
        if kind == PADDING:
            tail += 8 + length
            continue
        begin = offset + RECORD_SIZE
        found.append((kind, _TIME.unpack_from(view, offset + 8)[0], bytes(view[begin : begin + length])))
        tail += RECORD_SIZE + ((length + 7) & ~7)
    return found, head


def release_to(ring: Consumer, position: int) -> None:
    """Give everything before `position`, from `waiting`, back to the producer."""
    ring.own[CACHED] = position
    store_word(ring.own, TAIL, position)


def drain(ring: Consumer) -> list[tuple[int, int, bytes]]:
    """Take every committed record out of the ring: (kind, time_ns, payload), oldest first."""
    found, position = waiting(ring)
    release_to(ring, position)
    return found
