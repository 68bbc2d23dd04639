"""Counters: named int64 words that anybody can read, whatever has become of their owner.

    names                              values
    ┌──────────┬──────────┬─────┐      ┌─────────┬─ 128 bytes ─┬─────────┬─────┐
    │ "frames" │ "drops"  │  …  │      │ frames  │             │ drops   │  …  │
    └──────────┴──────────┴─────┘      └─────────┴─────────────┴─────────┴─────┘

The names are in the segment, so a reader needs nothing but the segment. Each value has one writer and a line of its
own, so counters of different writers never slow each other down. A count is a plain load and a release store: readable
at any moment, in a process that hangs or has died, and never behind by more than the count in progress.

Production users: what each stage counts (frames, drops, gaps, denials by reason …) for status and monitor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.shm import segment
from shrivenq.shm.atomics import load_word, store_release
from shrivenq.shm.kernel import inlined
from shrivenq.shm.layout import LINE_WORDS, Layout, Region
from shrivenq.shm.segment import Segment, SegmentError

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = np.dtype("S32")


def name_array(names: Sequence[str]) -> Any:
    """Check names and pack them as NAME. Raises SegmentError for an empty, long, non-ASCII or repeated one, or none."""
    if not names:
        raise SegmentError("at least one name is needed")
    for name in names:
        if not name or not name.isascii() or "\0" in name or len(name) > NAME.itemsize:
            raise SegmentError(f"a name is 1 to {NAME.itemsize} ASCII characters, not {name!r}")
        if names.count(name) > 1:
            raise SegmentError(f"{name} is named twice")
    return np.array([name.encode() for name in names], NAME)


def name_list(held: Segment) -> list[str]:
    """Read the names out of a segment that has a region of them, in order."""
    return [name.decode() for name in held.array("names").tolist()]


def counters_layout(number: int) -> Layout:
    """Lay out `number` counters. Raises SegmentError for fewer than one."""
    if number < 1:
        raise SegmentError(f"a counters segment has at least one counter, not {number}")
    return Layout("counters", (Region("names", NAME, number), Region("values", np.dtype("<i8"), number * LINE_WORDS)))


def create(name: str, names: Sequence[str], *, epoch: int = 1, node: int = -1) -> Segment:
    """Create a segment of counters called `names`, all zero; see `segment.create`. Counter i is `names[i]`."""
    checked = name_array(names)
    made = segment.create(name, counters_layout(len(checked)), epoch=epoch, node=node)
    made.array("names", writable=True)[:] = checked
    return made


def values(held: Segment) -> Any:
    """Map the values for a writer, to be passed to `add` and `put`."""
    return held.array("values", writable=True)


def indices(held: Segment) -> dict[str, int]:
    """Map each name to its index."""
    return {name: index for index, name in enumerate(name_list(held))}


def read(held: Segment) -> dict[str, int]:
    """Read every counter."""
    words = held.array("values")
    return {name: int(load_word(words, index * LINE_WORDS)) for name, index in indices(held).items()}


@inlined
def add(words: Any, index: int, amount: int) -> None:
    """Add to counter `index`; its one writer calls this."""
    store_release(words, index * LINE_WORDS, words[index * LINE_WORDS] + amount)


@inlined
def put(words: Any, index: int, value: int) -> None:
    """Set counter `index`, for gauges; its one writer calls this."""
    store_release(words, index * LINE_WORDS, value)
