"""The slab: fixed-size slots of one owner, taken and given back in constant time.

    words: FREE ──▶ 3 ──▶ 1 ──▶ 4 ──▶ none          links[i]: the free slot after i, or TAKEN
    ┌────────┬────────┬────────┬────────┬────────┐
    │ taken  │ free   │ taken  │ free   │ free   │  slots
    └────────┴────────┴────────┴────────┴────────┘

The list is last in, first out, so the slot handed out is the one most likely in cache. Links live beside the slots and
not in them: a link says whether its slot is taken, so a slot freed twice is found out, and a stray write into a freed
slot cannot break the list.

One process owns a slab and is its only writer; in a segment (`create`, `owner`) others can look on, and `private` makes
one that nobody else sees. Slots shared between processes live in a pool (`pool.py`).

Production users: none on the order path; library, for order-by-order books and for strategies with state of their own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import segment
from shrivenq.shm.kernel import kernel
from shrivenq.shm.layout import PAGE, Layout, Region
from shrivenq.shm.segment import Segment, SegmentError

FREE = 0  # first free slot, NONE for none
USED = 1  # slots taken now
HIGH_WATER = 2  # most slots ever taken at once
NONE = -1
TAKEN = -2


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
    made = segment.create(name, slab_layout(dtype, count), epoch=epoch, node=node)
    reset(owner(made))
    return made


def owner(slab: Segment) -> Slab:
    """Map the slab for its one owner."""
    return Slab(*(slab.array(region, writable=True) for region in ("words", "links", "slots")))


def private(dtype: np.dtype[Any], count: int) -> Slab:
    """Make a slab in private memory."""
    slab = Slab(*(np.zeros(region.count, region.dtype) for region in slab_layout(dtype, count).regions))
    reset(slab)
    return slab


@kernel
def reset(slab: Any) -> None:
    """Free every slot; the lowest are handed out first. The high-water mark stays."""
    count = slab.links.shape[0]
    for index in range(count):
        slab.links[index] = index + 1
    slab.links[count - 1] = NONE
    slab.words[FREE] = 0
    slab.words[USED] = 0


@kernel
def allocate(slab: Any) -> int:
    """Take a slot: its index, or -1 if all are taken. Its contents are whatever they were."""
    index = slab.words[FREE]
    if index == NONE:
        return -1
    slab.words[FREE] = slab.links[index]
    slab.links[index] = TAKEN
    used = slab.words[USED] + 1
    slab.words[USED] = used
    if used > slab.words[HIGH_WATER]:
        slab.words[HIGH_WATER] = used
    return index


@kernel
def free(slab: Any, index: int) -> bool:
    """Give slot `index` back; False, and nothing changed, if it is not taken or there is no such slot."""
    if index < 0 or index >= slab.links.shape[0] or slab.links[index] != TAKEN:
        return False
    slab.links[index] = slab.words[FREE]
    slab.words[FREE] = index
    slab.words[USED] -= 1
    return True
