"""NUMA: which memory is near which CPU, and how to get it.

`topology` reads nodes, CPUs, distances and free memory from sysfs, `bind` places pages, `pages_by_node` checks where
they are. `root` lets tests bring a tree of their own. Sources: Documentation/ABI/stable/sysfs-devices-node, mbind(2),
move_pages(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path("/sys/devices/system/node")
PAGE = os.sysconf("SC_PAGE_SIZE")
NODE_COUNT_MAX = 1024

_MPOL_BIND = 2
_MPOL_MF_STRICT_MOVE = 1 | 2
_MBIND, _MOVE_PAGES = {"x86_64": (237, 279), "aarch64": (235, 239)}.get(platform.machine(), (0, 0))

_libc = ctypes.CDLL(None, use_errno=True)
_thread = threading.local()


@dataclass(frozen=True)
class Node:
    """One node: its CPUs, its memory in bytes, its distance to every node (10 is itself) and its counters."""

    number: int
    cpus: tuple[int, ...]
    total_bytes: int
    free_bytes: int
    reclaimable_bytes: int  # file cache the kernel gives up before it looks elsewhere
    distances: tuple[tuple[int, int], ...]  # (node, distance), nearest first; ties by number
    counters: tuple[tuple[str, int], ...]  # numastat: pages allocated as numa_hit, numa_miss, numa_foreign …

    @property
    def room_bytes(self) -> int:
        """Bytes an allocation may take."""
        return self.free_bytes + self.reclaimable_bytes


@dataclass(frozen=True)
class Topology:
    """All nodes that are online."""

    nodes: tuple[Node, ...]

    def node(self, number: int) -> Node:
        """Find a node by number. Raises KeyError naming those there are."""
        for one in self.nodes:
            if one.number == number:
                return one
        raise KeyError(f"no NUMA node {number}; there are {[one.number for one in self.nodes]}")

    def node_of(self, cpu: int) -> int:
        """Tell the node of a CPU; the first node for one that none lists."""
        for one in self.nodes:
            if cpu in one.cpus:
                return one.number
        return self.nodes[0].number

    def fallback(self, number: int) -> tuple[int, ...]:
        """List all nodes by distance from `number`, itself first."""
        return tuple(there for there, _ in self.node(number).distances)

    def nearest_with_room(self, number: int, size: int) -> int | None:
        """Choose the nearest node that has `size` bytes; None if no node has."""
        for there in self.fallback(number):
            if self.node(there).room_bytes >= size:
                return there
        return None


def cpu_list(text: str) -> tuple[int, ...]:
    """Read the kernel's list format: `0-3,8` is 0, 1, 2, 3, 8."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found.extend(range(int(first), int(last or first) + 1))
    return tuple(found)


def topology(root: Path = ROOT) -> Topology:
    """Read the topology; a kernel built without NUMA is one node with everything."""
    try:
        online = cpu_list((root / "online").read_text())
    except OSError:
        memory = os.sysconf("SC_PHYS_PAGES") * PAGE, os.sysconf("SC_AVPHYS_PAGES") * PAGE
        return Topology((Node(0, tuple(sorted(os.sched_getaffinity(0))), *memory, 0, ((0, 10),), ()),))
    return Topology(tuple(_read_node(root, number, online) for number in online))


def _read_node(root: Path, number: int, online: tuple[int, ...]) -> Node:
    folder = root / f"node{number}"
    memory: dict[str, int] = {}
    for line in (folder / "meminfo").read_text().splitlines():
        words = line.split()  # Node 0 MemFree: 24211836 kB
        memory[words[2].rstrip(":")] = int(words[3]) * (1024 if words[-1] == "kB" else 1)
    distances = zip(online, map(int, (folder / "distance").read_text().split()), strict=True)
    numastat = folder / "numastat"
    counters = [line.split() for line in numastat.read_text().splitlines()] if numastat.exists() else []
    return Node(
        number=number,
        cpus=cpu_list((folder / "cpulist").read_text()),
        total_bytes=memory["MemTotal"],
        free_bytes=memory["MemFree"],
        reclaimable_bytes=memory.get("Inactive(file)", 0),
        distances=tuple(sorted(distances, key=lambda pair: (pair[0] != number, pair[1], pair[0]))),
        counters=tuple((name, int(value)) for name, value in counters),
    )


@lru_cache(maxsize=8)
def _node_of_cpu(root: Path, cpu: int) -> int:
    return topology(root).node_of(cpu)


def current_node(root: Path = ROOT) -> int:
    """Tell the node of the calling thread; asked once a thread, since stages are pinned: see `forget_node`."""
    found = getattr(_thread, "node", None)
    if found is None:
        found = _thread.node = _node_of_cpu(root, _libc.sched_getcpu())
    return int(found)


def forget_node() -> None:
    """Have `current_node` ask again: call it after pinning the thread elsewhere."""
    _thread.node = None


def bind(array: Any, node: int) -> str | None:
    """Place the pages of a page-aligned array on `node`, moving those that exist; None, or the reason it failed."""
    if not _MBIND:
        return f"no NUMA system calls known for {platform.machine()}"
    if not 0 <= node < NODE_COUNT_MAX:
        return f"there is no node {node}"
    address = array.ctypes.data
    if address % PAGE:
        return f"address {address:#x} is not at a page of {PAGE} bytes"
    mask = (ctypes.c_ulong * (NODE_COUNT_MAX // 64))()
    mask[node // 64] = 1 << (node % 64)
    failed = _libc.syscall(
        ctypes.c_long(_MBIND),
        ctypes.c_void_p(address),
        ctypes.c_ulong(array.nbytes),
        ctypes.c_long(_MPOL_BIND),
        mask,
        ctypes.c_ulong(NODE_COUNT_MAX + 1),  # the kernel reads one bit less
        ctypes.c_ulong(_MPOL_MF_STRICT_MOVE),
    )
    return os.strerror(ctypes.get_errno()) if failed else None


def pages_by_node(array: Any) -> dict[int, int] | str:
    """Count the pages of an array by the node they are on (−1: not allocated yet); or the reason that failed."""
    if not _MOVE_PAGES:
        return f"no NUMA system calls known for {platform.machine()}"
    first = array.ctypes.data // PAGE * PAGE
    count = -(-(array.ctypes.data + array.nbytes - first) // PAGE)
    addresses = (ctypes.c_void_p * count)(*range(first, first + count * PAGE, PAGE))
    where = (ctypes.c_int * count)()
    failed = _libc.syscall(
        ctypes.c_long(_MOVE_PAGES), ctypes.c_long(0), ctypes.c_ulong(count), addresses, None, where, ctypes.c_long(0)
    )
    if failed:
        return os.strerror(ctypes.get_errno())
    return dict(Counter(max(one, -1) for one in where))
