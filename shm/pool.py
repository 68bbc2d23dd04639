"""The pool: fixed-size slots shared by processes, taken and given back without a lock.

    head: tag │ index ──▶ 3 ──▶ 1 ──▶ 4 ──▶ none    next[i]: the free slot after i
    ┌────────┬────────┬────────┬────────┬────────┐
    │ gen 7  │ gen 2  │ gen 1  │ gen 4  │ gen 0  │  generation: odd while the slot is taken, even while it is free
    ├────────┼────────┼────────┼────────┼────────┤
    │ taken  │ free   │ taken  │ free   │ never  │  slots
    └────────┴────────┴────────┴────────┴────────┘

The free list is a stack (Treiber 1986). Its head is one 64-bit word, changed by compare-and-swap only: the low half
is the first free slot, the high half a tag that every change counts up. Without the tag a process that read the head,
was suspended, and woke up to the *same* first slot over a *different* rest of the list would corrupt it (the ABA
problem); with it, it would have to sleep through an exact multiple of 2³¹ changes.

A slot's generation counts takings and returns. Whoever names a slot in a message names its generation too, and
`give_back` swaps exactly that generation for the next: a slot returned twice, or returned by someone who held it in an
earlier life, is refused, even if two processes try at once.

Slots start as a stack in index order, so slot i is touched only once all below it are taken at the same time: the
number of slots ever touched *is* the high-water mark, and costs the fast path nothing.

A process that dies holding slots does not give them back; whoever rebuilds its state calls `reset`.

Production user: order slots. Risk takes one when it admits an order, the gateway gives it back when the order is
terminal; messages name slot and generation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import segment
from shrivenq.shm.atomics import compare_exchange, load_acquire, store_release
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.shm.layout import PAGE, Layout, Region
from shrivenq.shm.segment import Segment, SegmentError

HEAD = 0
INDEX_BITS = 32
INDEX_MASK = (1 << INDEX_BITS) - 1
TAG_MASK = (1 << 31) - 1  # one bit less than there is room for: the head stays positive
NONE = INDEX_MASK
COUNT_MAX = TAG_MASK


@by_reference
class Pool(NamedTuple):
    """A pool as every participant maps it: head word, link and generation per slot, the slots."""

    head: Any
    next: Any
    generation: Any
    slots: Any


def pool_layout(dtype: np.dtype[Any], count: int) -> Layout:
    """Lay out a pool of `count` slots of `dtype`. Raises SegmentError outside 1 … COUNT_MAX."""
    if not 1 <= count <= COUNT_MAX:
        raise SegmentError(f"a pool has 1 to {COUNT_MAX:,} slots, not {count:,}")
    word = np.dtype("<i8")
    return Layout(
        "pool",
        (
            Region("head", word, PAGE // word.itemsize),
            Region("next", word, count),
            Region("generation", word, count),
            Region("slots", dtype, count),
        ),
    )


def create(name: str, dtype: np.dtype[Any], count: int, *, epoch: int = 1, node: int = -1) -> Segment:
    """Create the segment of a pool, all slots free; see `segment.create`."""
    made = segment.create(name, pool_layout(dtype, count), epoch=epoch, node=node)
    reset(attach(made))
    return made


def attach(pool: Segment) -> Pool:
    """Map a pool for one that takes slots or gives them back."""
    return Pool(*(pool.array(region.name, writable=True) for region in pool.layout.regions))


def private(dtype: np.dtype[Any], count: int) -> Pool:
    """Make a pool in private memory, for stages that run in one process."""
    pool = Pool(*(np.zeros(region.count, region.dtype) for region in pool_layout(dtype, count).regions))
    reset(pool)
    return pool


@inlined
def _head(before: int, index: int) -> int:
    """Make the head that follows `before` and points at `index`."""
    tag = ((before >> INDEX_BITS) + 1) & TAG_MASK
    return (tag << INDEX_BITS) | index


@inlined
def allocate(pool: Any) -> int:
    """Take a slot: its index, or -1 if all are taken. Its contents are whatever they were."""
    while True:
        head = load_acquire(pool.head, HEAD)
        index = head & INDEX_MASK
        if index == NONE:
            return -1
        # If another process takes this slot first, the link is stale, but then the tag has moved and the swap fails.
        after = load_acquire(pool.next, index)
        if compare_exchange(pool.head, HEAD, head, _head(head, after)) == head:
            # Only the taker writes an even generation.
            store_release(pool.generation, index, pool.generation[index] + 1)
            return index


@inlined
def give_back(pool: Any, index: int, generation: int) -> bool:
    """Return slot `index`, taken as `generation`; False, and nothing changed, if that taking is over or never was."""
    if index < 0 or index >= pool.next.shape[0] or generation & 1 == 0:
        return False
    if compare_exchange(pool.generation, index, generation, generation + 1) != generation:
        return False
    while True:
        head = load_acquire(pool.head, HEAD)
        store_release(pool.next, index, head & INDEX_MASK)
        if compare_exchange(pool.head, HEAD, head, _head(head, index)) == head:
            return True


@inlined
def generation_of(pool: Any, index: int) -> int:
    """Read the generation of slot `index`: odd while it is taken."""
    return load_acquire(pool.generation, index)


@kernel
def reset(pool: Any) -> None:
    """Free every slot, the lowest handed out first; earlier takings become stale. Nobody else may use the pool now."""
    count = pool.next.shape[0]
    for index in range(count):
        # From odd to the next even number: what was taken before can never be given back.
        pool.generation[index] += pool.generation[index] & 1
        pool.next[index] = index + 1
    pool.next[count - 1] = NONE
    store_release(pool.head, HEAD, _head(pool.head[HEAD], 0))


@kernel
def used(pool: Any) -> int:
    """Count the slots taken now: one pass over all generations, for status views."""
    count = 0
    for index in range(pool.generation.shape[0]):
        count += pool.generation[index] & 1
    return count


@kernel
def high_water(pool: Any) -> int:
    """Count the most slots ever taken at once: those touched at all (see the top of this file)."""
    count = 0
    for index in range(pool.generation.shape[0]):
        if pool.generation[index] > 0:
            count += 1
    return count
