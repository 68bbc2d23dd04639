"""What every segment holds, read from the segments alone.

`collect` attaches to each segment of a prefix, whatever it is, and reads its own header; nothing else is known. It
works on segments whose makers hang or are dead, and never writes.

Bytes are told apart: `header` (the description every segment begins with, and what rounding regions up to whole pages
adds), `bookkeeping` (cursors, links, generations, sequences, names) and the rest, which is what it was made for.

Production users: `status` and `inspect`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.shm import histogram, pool, slab
from shrivenq.shm.atomics import load_word
from shrivenq.shm.hazard import CURRENT, HAZARD, ROWS
from shrivenq.shm.layout import LINE_WORDS
from shrivenq.shm.ring import HEAD, HIGH_WATER, TAIL
from shrivenq.shm.segment import Segment, SegmentError, attach, names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PAYLOAD = {
    "ring": "slots",
    "byte_ring": "data",
    "board": "copies",
    "slab": "slots",
    "pool": "slots",
    "hazard": "versions",
    "histogram": "words",
    "counters": "values",
}
"""The region of each kind that holds what it was made for."""


@dataclass(frozen=True)
class Row:
    """One segment: sizes in bytes, capacity and use in the unit of its kind (slots, rows, versions, bytes, words).

    `used` and `high_water` (the most ever used) are -1 where a kind does not know them.
    """

    name: str
    kind: str
    node: int  # NUMA node asked for, -1 for none
    epoch: int
    alive: bool  # its creator still runs
    size: int
    header: int
    bookkeeping: int
    capacity: int
    used: int
    high_water: int

    @property
    def overhead(self) -> float:
        """Share of the header in the size."""
        return self.header / self.size


@dataclass(frozen=True)
class NodeRow:
    """All segments of one NUMA node: how many, and their bytes."""

    node: int
    segments: int
    size: int
    header: int
    bookkeeping: int


def collect(prefix: str = "") -> list[Row]:
    """Describe every segment whose name begins with `prefix` (after the common one), in name order.

    A segment that vanishes or is still being made meanwhile is left out.
    """
    rows = []
    for name in names(prefix):
        try:
            held = attach(name)
        except SegmentError:
            continue
        rows.append(describe(held))
        held.close()
    return rows


def by_node(rows: Iterable[Row]) -> list[NodeRow]:
    """Add rows up per NUMA node asked for."""
    nodes: dict[int, NodeRow] = {}
    for row in rows:
        node = nodes.get(row.node, NodeRow(row.node, 0, 0, 0, 0))
        nodes[row.node] = replace(
            node,
            segments=node.segments + 1,
            size=node.size + row.size,
            header=node.header + row.header,
            bookkeeping=node.bookkeeping + row.bookkeeping,
        )
    return [nodes[node] for node in sorted(nodes)]


def describe(held: Segment) -> Row:
    """Describe one attached segment."""
    kind = held.layout.kind
    exact = {region.name: region.count * region.dtype.itemsize for region in held.layout.regions}
    payload = exact.get(PAYLOAD.get(kind, ""), sum(exact.values()))
    capacity, used, high_water = _USE.get(kind, _unknown)(held)
    return Row(
        name=held.name,
        kind=kind,
        node=int(held.header["node"][0]),
        epoch=held.epoch,
        alive=held.creator_alive(),
        size=held.layout.size,
        header=held.layout.size - sum(exact.values()),
        bookkeeping=sum(exact.values()) - payload,
        capacity=capacity,
        used=used,
        high_water=high_water,
    )


def _unknown(held: Segment) -> tuple[int, int, int]:
    """Count the elements of a segment of another kind: nobody knows which are used."""
    return sum(region.count for region in held.layout.regions), -1, -1


def _ring(held: Segment) -> tuple[int, int, int]:
    """Count slots, or bytes of a byte ring, between the cursors; the consumer notes the most it ever saw."""
    consumer = held.array("consumer")
    # TAIL first: seen later it could be ahead of HEAD.
    tail = int(load_word(consumer, TAIL))
    waiting = int(load_word(held.array("producer"), HEAD)) - tail
    capacity = held.layout.region(PAYLOAD[held.layout.kind]).count
    return capacity, min(waiting, capacity), max(min(waiting, capacity), int(consumer[HIGH_WATER]))


def _board(held: Segment) -> tuple[int, int, int]:
    """Count rows that were ever written: they stay."""
    sequences = held.array("sequences")
    written = int(np.count_nonzero(sequences))
    return sequences.shape[0], written, written


def _slab(held: Segment) -> tuple[int, int, int]:
    """Count slots taken, and the most ever."""
    view = slab.Slab(held.array("words"), held.array("links"), held.array("slots"))
    return view.links.shape[0], int(slab.used(view)), int(slab.high_water(view))


def _pool(held: Segment) -> tuple[int, int, int]:
    """Count slots taken, and the most ever."""
    view = pool.Pool(held.array("head"), held.array("next"), held.array("generation"), held.array("slots"))
    return view.next.shape[0], int(pool.used(view)), int(pool.high_water(view))


def _hazard(held: Segment) -> tuple[int, int, int]:
    """Count versions that are current or being read."""
    page, readers = held.array("publisher"), held.array("readers")
    versions = held.layout.region("versions").count // max(1, int(page[ROWS]))
    in_use = {int(word) for word in readers[HAZARD::LINE_WORDS]} | {int(load_word(page, CURRENT))}
    return versions, len(in_use - {0}), -1


def _histogram(held: Segment) -> tuple[int, int, int]:
    """Count histograms that hold anything: they stay."""
    found = histogram.histograms(held).values()
    recorded = sum(histogram.count(one) > 0 for one in found)
    return len(found), recorded, recorded


def _counters(held: Segment) -> tuple[int, int, int]:
    """Count counters that are not 0."""
    counters = held.array("values")[::LINE_WORDS]
    return counters.shape[0], int(np.count_nonzero(counters)), -1


_USE: dict[str, Callable[[Any], tuple[int, int, int]]] = {
    "ring": _ring,
    "byte_ring": _ring,
    "board": _board,
    "slab": _slab,
    "pool": _pool,
    "hazard": _hazard,
    "histogram": _histogram,
    "counters": _counters,
}
