"""The header every segment begins with, and its regions.

    offset 0        16,384                                      page aligned
    ┌───────────────┬──────────────┬──────────────┬─────────────────────────┐
    │ HEADER, REGION│ region 0     │ region 1     │ region 2 …              │
    └───────────────┴──────────────┴──────────────┴─────────────────────────┘

A region is an array of one dtype, begins on a page of its own, and so can be mapped read-only by everybody but its
owner. The header describes each region in words (name, length, dtype), so that any process can tell what a segment
is, and refuses one of another layout.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

PAGE = 4096
LINE = 128
"""Bytes between words of different owners: adjacent-line prefetch pairs 64-byte lines."""
LINE_WORDS = LINE // 8

MAGIC = b"SHRIVENQ"
VERSION = 1
HEADER_SIZE = 4 * PAGE
REGION_COUNT_MAX = 24

HEADER = np.dtype(
    [
        ("magic", "S8"),  # written last: a segment without it is still being made
        ("version", "<i8"),
        ("layout_hash", "<u8"),  # of kind, regions and their dtypes
        ("size", "<i8"),  # bytes, header included
        ("creator_pid", "<i8"),
        ("creator_start", "<i8"),  # clock ticks since boot: tells a reused pid from its former owner
        ("epoch", "<i8"),  # counts the generations of a replaced segment, from 1
        ("created_ns", "<i8"),  # CLOCK_REALTIME
        ("node", "<i8"),  # NUMA node asked for, -1 for none
        ("region_count", "<i8"),
        ("words_size", "<i8"),  # bytes of the description that follows
        ("kind", "S24"),  # ring, board, pool …
        ("name", "S96"),
        ("words", f"S{HEADER_SIZE - 512}"),  # JSON: the regions
    ],
    align=True,
)
assert HEADER.itemsize <= HEADER_SIZE


def words(dtype: np.dtype[Any]) -> Any:
    """Describe a dtype as plain data: a type string, or names, formats, offsets and item size. Inverse: `dtype_of`."""
    if dtype.names is None or dtype.fields is None:
        base, shape = dtype.subdtype or (dtype, ())
        return [words(base), list(shape)] if shape else base.str
    fields = [[name, words(dtype.fields[name][0]), dtype.fields[name][1]] for name in dtype.names]
    return {"fields": fields, "itemsize": dtype.itemsize, "aligned": dtype.isalignedstruct}


def dtype_of(described: Any) -> np.dtype[Any]:
    """Build the dtype that `words` described."""
    if isinstance(described, str):
        return np.dtype(described)
    if isinstance(described, list):
        return np.dtype((dtype_of(described[0]), tuple(described[1])))
    names, formats, offsets = zip(*described["fields"], strict=True)
    return np.dtype(
        {
            "names": list(names),
            "formats": [dtype_of(one) for one in formats],
            "offsets": list(offsets),
            "itemsize": described["itemsize"],
            "aligned": described["aligned"],
        }
    )


@dataclass(frozen=True)
class Region:
    """One array of a segment."""

    name: str
    dtype: np.dtype[Any]
    count: int

    @property
    def size(self) -> int:
        """Bytes, rounded up to whole pages."""
        return -(-self.count * self.dtype.itemsize // PAGE) * PAGE


@dataclass(frozen=True)
class Layout:
    """What a segment of one kind holds."""

    kind: str
    regions: tuple[Region, ...]

    def describe(self) -> bytes:
        """Write kind and regions as canonical JSON."""
        regions = [[one.name, one.count, words(one.dtype)] for one in self.regions]
        return json.dumps([self.kind, regions], separators=(",", ":")).encode()

    def digest(self) -> int:
        """Hash the description to 64 bits."""
        return digest_of(self.describe())

    def offset(self, name: str) -> int:
        """Find where the region `name` begins, in bytes. Raises KeyError for an unknown one."""
        offset = HEADER_SIZE
        for one in self.regions:
            if one.name == name:
                return offset
            offset += one.size
        raise KeyError(name)

    @property
    def size(self) -> int:
        """Bytes of the whole segment."""
        return HEADER_SIZE + sum(one.size for one in self.regions)

    def region(self, name: str) -> Region:
        """Find a region by name. Raises KeyError for an unknown one."""
        for one in self.regions:
            if one.name == name:
                return one
        raise KeyError(name)


def digest_of(description: bytes) -> int:
    """Hash what `Layout.describe` wrote to 64 bits."""
    return int.from_bytes(hashlib.sha256(description).digest()[:8], "little")


def layout_of(description: bytes) -> Layout:
    """Read back what `Layout.describe` wrote."""
    kind, regions = json.loads(description)
    return Layout(kind, tuple(Region(name, dtype_of(described), count) for name, count, described in regions))
