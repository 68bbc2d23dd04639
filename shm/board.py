"""The board: the latest value of every row, for any number of readers.

    ┌──────────┬──────────┬─────┐    ┌────────┬────────┬────────┬────────┬─────┐
    │ writes 0 │ writes 1 │  …  │    │ row 0  │ row 0  │ row 1  │ row 1  │  …  │
    └──────────┴──────────┴─────┘    │ even   │ odd    │ even   │ odd    │     │
    sequences: commits per row       └────────┴────────┴────────┴────────┴─────┘  copies

Write n of a row fills copy n & 1 while readers still read the other one, then commits by storing n in the row's
sequence with release order. So a writer killed half-way blocks nobody: the value before stays the latest. A reader
copies, then looks at the sequence again: if it moved, the copy may be a mixture and is taken again, a bounded number of
times; then, or if nothing was ever written, the answer is "invalid", which risk reads as "deny".

Both fences are needed: a release store does not hold back the writer's *next* copy, and an acquire load does not hold
the reader's copy *before* it.

Production users: quotes and positions for the status and latency views.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import segment
from shrivenq.shm.atomics import fence_acquire, fence_release, load_acquire, store_release
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined
from shrivenq.shm.layout import Layout, Region
from shrivenq.shm.segment import Segment, SegmentError

RETRIES = 16
"""Copies a reader takes before it gives up: enough for any writer that does something besides writing."""


@by_reference
class BoardWriter(NamedTuple):
    """The writing end: commits per row, two copies per row."""

    sequences: Any
    copies: Any


@by_reference
class BoardReader(NamedTuple):
    """A reading end: the same arrays, read-only."""

    sequences: Any
    copies: Any


def board_layout(dtype: np.dtype[Any], rows: int) -> Layout:
    """Lay out a board of `rows` values of `dtype`. Raises SegmentError for fewer than one."""
    if rows < 1:
        raise SegmentError(f"a board has at least one row, not {rows}")
    return Layout("board", (Region("sequences", np.dtype("<i8"), rows), Region("copies", dtype, 2 * rows)))


def create(name: str, dtype: np.dtype[Any], rows: int, *, epoch: int = 1, node: int = -1) -> Segment:
    """Create the segment of a board, all rows invalid; see `segment.create`."""
    return segment.create(name, board_layout(dtype, rows), epoch=epoch, node=node)


def writer(board: Segment) -> BoardWriter:
    """Map the writing end; there is one."""
    return BoardWriter(board.array("sequences", writable=True), board.array("copies", writable=True))


def reader(board: Segment) -> BoardReader:
    """Map a reading end."""
    return BoardReader(board.array("sequences"), board.array("copies"))


@inlined
def write(board: Any, row: int, value: Any) -> None:
    """Make `value[0]` the latest value of `row`."""
    sequence = board.sequences[row] + 1
    # The copy about to be overwritten is the one readers used before the last commit: that commit goes first.
    fence_release()
    board.copies[2 * row + (sequence & 1)] = value[0]
    store_release(board.sequences, row, sequence)


@inlined
def read(board: Any, row: int, target: Any) -> bool:
    """Copy the latest value of `row` to `target[0]`; False, and `target` without meaning, if there is no valid one."""
    for _ in range(RETRIES):
        sequence = load_acquire(board.sequences, row)
        if sequence == 0:
            return False
        target[0] = board.copies[2 * row + (sequence & 1)]
        fence_acquire()
        if load_acquire(board.sequences, row) == sequence:
            return True
    return False
