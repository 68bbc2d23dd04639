"""The slab: fixed-size slots of one owner, taken and given back in constant time.

    FREE ──▶ 3 ──▶ 0 ──▶ none            FRESH
    ┌────────┬────────┬────────┬────────┬─▼──────┬────────┐
    │ free   │ taken  │ taken  │ free   │ never  │ never  │  slots, and beside them links: the free slot after this
    └────────┴────────┴────────┴────────┴────────┴────────┘  one plus one (0 for none), or TAKEN

Slots given back form a list, last in, first out: the slot handed out is the one most likely in cache. Only when the
list is empty is a slot taken that never was before, so FRESH *is* the high-water mark, and an empty slab is all zeros.
Links live beside the slots and not in them: a link says whether its slot is taken, so a slot freed twice is found out,
and a stray write into a freed slot cannot break the list.

One process owns a slab and is its only writer; in a segment (`create`, `owner`) others can look on, and `private` makes
one that nobody else sees. Slots shared between processes live in a pool (`pool.py`).

Production users: none on the order path; library, for order-by-order books and for strategies with state of their own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import segment
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.shm.layout import LINE_WORDS, PAGE, Layout, Region
from shrivenq.shm.segment import Segment, SegmentError

FREE = 0  # first slot of the list plus one, 0 for none
FRESH = LINE_WORDS  # first slot never taken; on a line of its own, or the compiler would fuse loads of both words
TAKEN = -1


@by_reference
class Slab(NamedTuple):
    """A slab: its words, a link per slot, the slots."""

    words: Any
    links: Any
    slots: Any


def slab_layout(dtype: np.dtype[Any], count: int) -> Layout:
    """Lay out a slab of `count` slots of `dtype`. Raises SegmentError for fewer than one."""
    if count < 1:
        raise SegmentError(f"a slab has at least one slot, not {count}")
    word = np.dtype("<i8")
    return Layout(
        "slab",
        (Region("words", word, PAGE // word.itemsize), Region("links", word, count), Region("slots", dtype, count)),
    )


def create(name: str, dtype: np.dtype[Any], count: int, *, epoch: int = 1, node: int = -1) -> Segment:
    """Create the segment of a slab, all slots free; see `segment.create`."""
    return segment.create(name, slab_layout(dtype, count), epoch=epoch, node=node)


def owner(slab: Segment) -> Slab:
    """Map the slab for its one owner."""
    return Slab(*(slab.array(region, writable=True) for region in ("words", "links", "slots")))


def private(dtype: np.dtype[Any], count: int) -> Slab:
    """Make a slab in private memory."""
    return Slab(*(np.zeros(region.count, region.dtype) for region in slab_layout(dtype, count).regions))


@inlined
def allocate(slab: Any) -> int:
    """Take a slot: its index, or -1 if all are taken. Its contents are whatever they were."""
    words, links = slab.words, slab.links
    first = words[FREE]
    if first != 0:
        words[FREE] = links[first - 1]
        links[first - 1] = TAKEN
        return first - 1
    fresh = words[FRESH]
    if fresh == links.shape[0]:
        return -1
    words[FRESH] = fresh + 1
    links[fresh] = TAKEN
    return fresh


@inlined
def free(slab: Any, index: int) -> bool:
    """Give slot `index` back; False, and nothing changed, if it is not taken or there is no such slot."""
    words, links = slab.words, slab.links
    if index < 0 or index >= links.shape[0] or links[index] != TAKEN:
        return False
    links[index] = words[FREE]
    words[FREE] = index + 1
    return True


@kernel
def reset(slab: Any) -> None:
    """Free every slot and forget the high-water mark."""
    for index in range(slab.words[FRESH]):
        slab.links[index] = 0
    slab.words[FREE] = 0
    slab.words[FRESH] = 0


@kernel
def used(slab: Any) -> int:
    """Count the slots taken now: one pass over the links, for status views."""
    count = 0
    for index in range(slab.words[FRESH]):
        if slab.links[index] == TAKEN:
            count += 1
    return count


@inlined
def high_water(slab: Any) -> int:
    """Count the most slots ever taken at once."""
    return slab.words[FRESH]
