"""A map from a pair of int64 ids to a number: order id → slot, fill → seen, level → quantity.

Open addressing with linear probing in preallocated arrays; removal shifts the cluster back, so that no tombstones
gather. An entry is one line of `entries`: key, second key, value, used. At most half the entries are ever used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel

ENTRY = np.dtype([("key", "<i8"), ("second", "<i8"), ("value", "<i8"), ("used", "<i8")], align=True)

ABSENT = -1


@by_reference
class IdMap(NamedTuple):
    """Entries (a power of two of them) and, in `size[0]`, how many are used."""

    entries: Any
    size: Any


def make_map(count: int) -> IdMap:
    """Allocate a map with room for `count` pairs."""
    return IdMap(np.zeros(1 << max(2, (2 * count - 1).bit_length()), ENTRY), np.zeros(1, np.int64))


@inlined
def _home(ids: Any, key: int, second: int) -> int:
    """First place to look for a pair: eight neighbouring ids lie side by side, the eights are scattered.

    Ids are given out one after another: an order's is mostly on the line of the one before it.
    """
    mixed = (int(key) >> 3) * 0x1E3779B97F4A7C15 ^ (int(second) >> 3) * 0x2545F4914F6CDD1D
    return (((mixed ^ (mixed >> 32)) << 3) | ((int(key) ^ int(second)) & 7)) & (ids.entries.shape[0] - 1)


@inlined
def _place(ids: Any, key: int, second: int) -> int:
    """Find the entry that holds the pair, or the free one where it belongs."""
    mask = ids.entries.shape[0] - 1
    at = _home(ids, key, second)
    while ids.entries[at]["used"] != 0:
        if ids.entries[at]["key"] == key and ids.entries[at]["second"] == second:
            break
        at = (at + 1) & mask
    return at


@inlined
def find(ids: Any, key: int, second: int) -> int:
    """Look a pair up; ABSENT if it is not there. Values are 0 or more."""
    at = _place(ids, key, second)
    return ids.entries[at]["value"] if ids.entries[at]["used"] != 0 else ABSENT


@kernel
def put(ids: Any, key: int, second: int, value: int) -> bool:
    """Store a value, replacing what the pair had; False if the map is full."""
    at = _place(ids, key, second)
    if ids.entries[at]["used"] == 0:
        if 2 * (ids.size[0] + 1) > ids.entries.shape[0]:
            return False
        ids.size[0] += 1
        ids.entries[at]["used"] = 1
        ids.entries[at]["key"] = key
        ids.entries[at]["second"] = second
    ids.entries[at]["value"] = value
    return True


@kernel
def remove(ids: Any, key: int, second: int) -> bool:
    """Forget a pair; False if it was not there. Knuth 6.4, algorithm R."""
    mask = ids.entries.shape[0] - 1
    hole = _place(ids, key, second)
    if ids.entries[hole]["used"] == 0:
        return False
    at = hole
    while True:
        at = (at + 1) & mask
        if ids.entries[at]["used"] == 0:
            break
        home = _home(ids, ids.entries[at]["key"], ids.entries[at]["second"])
        # An entry may fill the hole only if its probing would have passed there.
        if ((at - home) & mask) >= ((at - hole) & mask):
            ids.entries[hole] = ids.entries[at]
            hole = at
    ids.entries[hole]["used"] = 0
    ids.size[0] -= 1
    return True


@by_reference
class Recent(NamedTuple):
    """The last pairs seen: a map, and the order in which to forget them."""

    ids: IdMap
    queue: Any  # int64[count, 2]
    place: Any  # [0]: pairs seen ever


def make_recent(count: int) -> Recent:
    """Allocate a memory of the last `count` pairs."""
    return Recent(make_map(count), np.zeros((count, 2), np.int64), np.zeros(1, np.int64))


@kernel
def remember(recent: Any, key: int, second: int) -> bool:
    """Note a pair, forgetting the oldest; False if it was noted already."""
    if find(recent.ids, key, second) != ABSENT:
        return False
    at = recent.place[0] % recent.queue.shape[0]
    if recent.place[0] >= recent.queue.shape[0]:
        remove(recent.ids, recent.queue[at, 0], recent.queue[at, 1])
    recent.queue[at, 0] = key
    recent.queue[at, 1] = second
    recent.place[0] += 1
    return put(recent.ids, key, second, 0)
