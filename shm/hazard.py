"""The hazard table: replace a table while others read it, and never pull it from under them.

    publisher's page          readers, one line each                versions of the table
    ┌─────────┬─────────┐     ┌──────────┬────────┬ 128 bytes ┐     ┌──────┬──────┬──────┬─────┐
    │ CURRENT │ ROWS    │     │ IDENTITY │ HAZARD │           │     │ 0    │ 1    │ 2    │  …  │
    └─────────┴─────────┘     └──────────┴────────┴───────────┘     └──────┴──────┴──────┴─────┘

A reader names the version it is about to read in its HAZARD, then looks whether that is still CURRENT. The publisher
writes a whole new version where nobody reads, makes it CURRENT, and later writes over versions that no HAZARD names.
Both sides store, fence sequentially consistent, then load (Michael, "Hazard pointers", 2004): so either the reader sees
that CURRENT has moved and tries again, or the publisher sees the hazard and leaves the version alone.

A reader keeps its hazard from turn to turn, so `enter` costs one load until a new version comes. With two more versions
than readers the publisher always finds a free one.

A slot belongs to a process: IDENTITY is its pid and start time in one word, so that claiming is one compare-and-swap
and a reused pid is not taken for the old process. When the publisher finds no free version it clears the slots of dead
processes: a reader killed while it holds a hazard holds it no longer.

Production users: risk limits and instrument tables, published by the supervisor, read by the stages.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import segment
from shrivenq.shm.atomics import exchange_word, fence, load_acquire, load_word, store_release, store_word
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.shm.layout import LINE_WORDS, PAGE, Layout, Region
from shrivenq.shm.segment import Segment, SegmentError

CURRENT = 0  # version to read, plus one; 0 before the first
ROWS = 1  # of one version
IDENTITY = 0  # start time << PID_BITS | pid, 0 for a free slot
HAZARD = 1  # version being read, plus one; 0 for none
PID_BITS = 22  # Linux: pids are below 2^22
RETRIES = 64


@by_reference
class Publisher(NamedTuple):
    """The publishing end: its page, the readers' lines, all versions, rows of one version."""

    page: Any
    readers: Any
    versions: Any
    rows: int


@by_reference
class Reader(NamedTuple):
    """A reading end: its own line, the publisher's page and all versions (read-only), rows of one version."""

    line: Any
    page: Any
    versions: Any
    rows: int


def hazard_layout(dtype: np.dtype[Any], rows: int, versions: int, readers: int) -> Layout:
    """Lay out `versions` copies of a table of `rows` of `dtype`, and slots for `readers`.

    Raises SegmentError for fewer than two versions, one row or one reader.
    """
    if rows < 1 or versions < 2 or readers < 1:
        raise SegmentError(f"a hazard table needs rows, 2 versions and a reader, not {rows}, {versions}, {readers}")
    word = np.dtype("<i8")
    return Layout(
        "hazard",
        (
            Region("publisher", word, PAGE // word.itemsize),
            Region("readers", word, readers * LINE_WORDS),
            Region("versions", dtype, versions * rows),
        ),
    )


def create(
    name: str, dtype: np.dtype[Any], rows: int, *, versions: int, readers: int, epoch: int = 1, node: int = -1
) -> Segment:
    """Create the segment of a hazard table with nothing published; see `segment.create`."""
    made = segment.create(name, hazard_layout(dtype, rows, versions, readers), epoch=epoch, node=node)
    made.array("publisher", writable=True)[ROWS] = rows
    return made


def publisher(table: Segment) -> Publisher:
    """Map the publishing end; there is one."""
    page = table.array("publisher", writable=True)
    return Publisher(
        page, table.array("readers", writable=True), table.array("versions", writable=True), int(page[ROWS])
    )


def reader(table: Segment) -> Reader:
    """Claim a slot for this process. Raises SegmentError if all are taken by living processes."""
    lines = table.array("readers", writable=True)
    identity = _identity(os.getpid())
    for _ in range(2):
        for at in range(0, lines.shape[0], LINE_WORDS):
            if exchange_word(lines, at + IDENTITY, 0, identity) == 0:
                line = lines[at : at + LINE_WORDS]
                page = table.array("publisher")
                return Reader(line, page, table.array("versions"), int(page[ROWS]))
        clear_dead(lines)
    raise SegmentError(f"{table.name}: all {lines.shape[0] // LINE_WORDS} reader slots are taken")


def resign(held: Reader) -> None:
    """Give a slot, and what it held, back."""
    store_word(held.line, HAZARD, 0)
    store_word(held.line, IDENTITY, 0)


def _identity(pid: int) -> int:
    """Put a process's pid and start time into one word."""
    return segment.start_time(pid) << PID_BITS | pid


def clear_dead(lines: Any) -> int:
    """Free the slots of dead processes among `lines`; return how many."""
    cleared = 0
    for at in range(0, lines.shape[0], LINE_WORDS):
        found = int(load_word(lines, at + IDENTITY))
        if found and _identity(found & ((1 << PID_BITS) - 1)) != found:
            # One clearer of several wins the slot by making it its own, and only then touches the hazard: a new
            # reader's hazard is never wiped.
            mine = _identity(os.getpid())
            if exchange_word(lines, at + IDENTITY, found, mine) == found:
                store_word(lines, at + HAZARD, 0)
                store_word(lines, at + IDENTITY, 0)
                cleared += 1
    return cleared


@inlined
def enter(held: Any) -> int:
    """Protect the current version: the index of its first row in `versions`, or -1 if there is none.

    The version stays as it is until the next `enter` or `leave`. (-1 too if the publisher outran RETRIES attempts.)
    """
    current = load_acquire(held.page, CURRENT)
    if current == held.line[HAZARD] and current != 0:
        return (current - 1) * held.rows
    return _protect(held)


@kernel
def _protect(held: Any) -> int:
    """Move the hazard to the current version."""
    for _ in range(RETRIES):
        current = load_acquire(held.page, CURRENT)
        store_release(held.line, HAZARD, current)
        if current == 0:
            return -1
        fence()
        if load_acquire(held.page, CURRENT) == current:
            return (current - 1) * held.rows
    store_release(held.line, HAZARD, 0)
    return -1


@inlined
def leave(held: Any) -> None:
    """Stop reading: the publisher may reuse the version."""
    store_release(held.line, HAZARD, 0)


@kernel
def free_version(held: Any) -> int:
    """Find a version that is not current and in nobody's hazard; -1 if there is none."""
    # Pairs with the reader's fence: whoever still saw the former CURRENT has its hazard visible here.
    fence()
    current = load_acquire(held.page, CURRENT)
    for version in range(1, held.versions.shape[0] // held.rows + 1):
        taken = version == current
        for at in range(HAZARD, held.readers.shape[0], LINE_WORDS):
            if load_acquire(held.readers, at) == version:
                taken = True
        if not taken:
            return version - 1
    return -1


@kernel
def _copy_and_show(held: Any, version: int, table: Any) -> None:
    """Write `table` as `version` and make it current."""
    for row in range(held.rows):
        held.versions[version * held.rows + row] = table[row]
    store_release(held.page, CURRENT, version + 1)


def publish(held: Publisher, table: Any) -> bool:
    """Make `table` (an array of `rows`) the current version; False if every other version is being read.

    Raises ValueError if `table` has another shape or dtype.
    """
    if table.shape != (held.rows,) or table.dtype != held.versions.dtype:
        raise ValueError(f"a version is {held.rows} rows of {held.versions.dtype}, not {table.shape} of {table.dtype}")
    version = free_version(held)
    if version < 0 and clear_dead(held.readers):
        version = free_version(held)
    if version < 0:
        return False
    _copy_and_show(held, version, table)
    return True
