"""Segments: named POSIX shared memory with a self-describing header.

`create` makes a segment exclusively, mode 0600, with its pages really allocated (a full /dev/shm is an error here, not
a SIGBUS later), and says what it could not have (lock, NUMA node). `attach` refuses anything that is not exactly what
the caller expects and says both sides. Each region is mapped on its own: read-only unless asked for.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import posix_ipc

from shrivenq.shm import layout, numa
from shrivenq.shm.layout import HEADER, HEADER_SIZE, Layout

PREFIX = "shrivenq."
FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux shows POSIX shared memory

_MADV_POPULATE_READ, _MADV_POPULATE_WRITE = 22, 23

_libc = ctypes.CDLL(None, use_errno=True)


class SegmentError(Exception):
    """A segment cannot be made, is missing, or is not what was expected; one line says which and why."""


def start_time(pid: int) -> int:
    """Read when process `pid` started, in clock ticks since boot; 0 if there is none (or it is a zombie).

    A pid alone may have been reused; pid and start time together name a process. Source: proc(5), field 22.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


@dataclass
class Segment:
    """A mapped segment."""

    name: str
    layout: Layout
    header: Any
    _descriptor: int
    shortfalls: list[str] = field(default_factory=list)
    _maps: dict[tuple[str, bool], mmap.mmap] = field(default_factory=dict)

    def array(self, region: str, *, writable: bool = False) -> Any:
        """Map a region as an array of its dtype, length as laid out; read-only unless `writable`."""
        key = (region, writable)
        shape = self.layout.region(region)
        if key not in self._maps:
            access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            self._maps[key] = mmap.mmap(
                self._descriptor, shape.size, flags=mmap.MAP_SHARED, prot=access, offset=self.layout.offset(region)
            )
        return np.frombuffer(self._maps[key], dtype=shape.dtype, count=shape.count)

    @property
    def epoch(self) -> int:
        """Count of this segment's generation, from 1."""
        return int(self.header["epoch"][0])

    @property
    def creator_pid(self) -> int:
        """Pid of the process that made the segment."""
        return int(self.header["creator_pid"][0])

    def creator_alive(self) -> bool:
        """Tell whether the process that made the segment still runs (pid and start time)."""
        pid, start = int(self.header["creator_pid"][0]), int(self.header["creator_start"][0])
        return start_time(pid) == start

    def lock(self) -> None:
        """Bring in and lock every mapped page, so that no access ever waits for one; note what could not be had."""
        for (region, writable), mapped in self._maps.items():
            view = np.frombuffer(mapped, dtype=np.uint8)
            start, size = ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(view.nbytes)
            if _libc.madvise(start, size, _MADV_POPULATE_WRITE if writable else _MADV_POPULATE_READ):
                view[:: layout.PAGE].max()  # before Linux 5.14: a read of each page; a shared page comes in writable
            if _libc.mlock(start, size):
                reason = os.strerror(ctypes.get_errno())
                self.shortfalls.append(f"{self.name}: {region} is not locked in memory: {reason}")

    def __del__(self) -> None:
        """Give the descriptor back: whoever only looks, again and again, must not run out of them."""
        self.close()

    def close(self) -> None:
        """Give the descriptor back; arrays already handed out stay valid until they are dropped."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def unlink(self) -> None:
        """Remove the name; the memory goes when the last process unmaps it. Removing twice is no error."""
        unlink(self.name)


def unlink(name: str) -> None:
    """Remove a segment's name if it is there."""
    try:
        posix_ipc.unlink_shared_memory("/" + name)
    except posix_ipc.ExistentialError:
        return


def names(prefix: str = "") -> list[str]:
    """List the names of ShrivenQ segments that begin with `prefix` (after the common one)."""
    return sorted(path.name for path in FOLDER.glob(f"{PREFIX}{prefix}*"))


def create(name: str, shape: Layout, *, epoch: int = 1, node: int = -1) -> Segment:
    """Make a new segment.

    `name` is the full name without the leading slash; `node` asks for a NUMA node, -1 for none.
    Raises SegmentError if the name exists, the description does not fit, or memory is short.
    """
    description = shape.describe()
    if len(description) > HEADER["words"].itemsize or len(shape.regions) > layout.REGION_COUNT_MAX:
        raise SegmentError(f"{name}: its description of {len(description)} bytes does not fit the header")
    try:
        memory = posix_ipc.SharedMemory("/" + name, flags=posix_ipc.O_CREX, mode=0o600)
    except posix_ipc.ExistentialError:
        raise SegmentError(f"{name}: a segment of this name exists already") from None
    except (OSError, ValueError, posix_ipc.Error) as error:
        raise SegmentError(f"{name}: cannot create shared memory: {error}") from None
    segment = None
    try:
        os.ftruncate(memory.fd, shape.size)
        segment = Segment(name, shape, _map_header(memory.fd, writable=True), memory.fd)
        if node >= 0:
            _bind(segment, node)  # before there are pages: what is allocated next obeys it
        os.posix_fallocate(memory.fd, 0, shape.size)
    except OSError as error:
        if segment is None:
            os.close(memory.fd)
        else:
            segment.close()
        unlink(name)
        raise SegmentError(f"{name}: no room for {shape.size:,} bytes in {FOLDER}: {error.strerror}") from None
    _write_header(segment, description, epoch, node)
    return segment


def attach(name: str, shape: Layout | None = None) -> Segment:
    """Attach to an existing segment, checking its header; `shape` None accepts any layout (for `inspect`).

    Raises SegmentError naming both sides of any difference.
    """
    try:
        memory = posix_ipc.SharedMemory("/" + name)
    except posix_ipc.ExistentialError:
        raise SegmentError(f"{name}: no such segment") from None
    except posix_ipc.PermissionsError:
        raise SegmentError(_foreign(name, (FOLDER / name).stat().st_uid)) from None
    except (OSError, ValueError, posix_ipc.Error) as error:
        raise SegmentError(f"{name}: cannot open: {error}") from None
    try:
        found, header = _checked(name, memory.fd)
        if shape is not None and shape.describe() != found.describe():
            raise SegmentError(
                f"{name}: layout {found.kind} {found.digest():#018x} differs from the expected "
                f"{shape.kind} {shape.digest():#018x}: {_difference(found, shape)}"
            )
    except SegmentError:
        os.close(memory.fd)
        raise
    return Segment(name, found, header, memory.fd)


def _map_header(descriptor: int, *, writable: bool) -> Any:
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return np.frombuffer(mmap.mmap(descriptor, HEADER_SIZE, flags=mmap.MAP_SHARED, prot=access), dtype=HEADER, count=1)


def _write_header(segment: Segment, description: bytes, epoch: int, node: int) -> None:
    header = segment.header
    header["version"] = layout.VERSION
    header["layout_hash"] = segment.layout.digest()
    header["size"] = segment.layout.size
    header["creator_pid"] = os.getpid()
    header["creator_start"] = start_time(os.getpid())
    header["epoch"] = epoch
    header["created_ns"] = time.time_ns()
    header["node"] = node
    header["region_count"] = len(segment.layout.regions)
    header["words_size"] = len(description)
    header["kind"] = segment.layout.kind
    header["name"] = segment.name
    header["words"] = description
    header["magic"] = layout.MAGIC


def _foreign(name: str, owner: int) -> str:
    return f"{name}: belongs to uid {owner}, expected {os.geteuid()}"


def _checked(name: str, descriptor: int) -> tuple[Layout, Any]:
    """Check owner, size, magic, version and description of an open segment; return its layout and header."""
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        raise SegmentError(_foreign(name, status.st_uid))
    if status.st_size < HEADER_SIZE:
        raise SegmentError(f"{name}: {status.st_size} bytes, shorter than a header of {HEADER_SIZE}")
    header = _map_header(descriptor, writable=False)
    magic = bytes(header["magic"][0])
    if magic != layout.MAGIC:
        raise SegmentError(f"{name}: magic {magic!r}, expected {layout.MAGIC!r}: foreign or unfinished")
    if header["version"][0] != layout.VERSION:
        raise SegmentError(f"{name}: layout version {header['version'][0]}, expected {layout.VERSION}")
    if header["size"][0] != status.st_size:
        raise SegmentError(f"{name}: {status.st_size} bytes, but its header says {header['size'][0]}")
    description, promised = bytes(header["words"][0]), int(header["layout_hash"][0])
    if layout.digest_of(description) != promised:  # before it is read: damaged words are not parsed
        raise SegmentError(
            f"{name}: header says layout {promised:#018x}, its description is {layout.digest_of(description):#018x}"
        )
    found = layout.layout_of(description)
    if found.size != status.st_size:
        raise SegmentError(f"{name}: {status.st_size} bytes, but its description needs {found.size}")
    return found, header


def _difference(found: Layout, expected: Layout) -> str:
    """Name the first difference between two layouts."""
    if found.kind != expected.kind:
        return f"kind {found.kind}, expected {expected.kind}"
    for here, there in zip(found.regions, expected.regions, strict=False):
        if here.name != there.name or here.count != there.count:
            return f"region {here.name}[{here.count}], expected {there.name}[{there.count}]"
        if layout.words(here.dtype) != layout.words(there.dtype):
            return f"region {here.name} holds {layout.words(here.dtype)}, expected {layout.words(there.dtype)}"
    return f"{len(found.regions)} regions, expected {len(expected.regions)}"


def _bind(segment: Segment, node: int) -> None:
    """Ask for the whole segment on one NUMA node, or the nearest that has room; note it where that fails."""
    try:
        chosen = numa.topology().nearest_with_room(node, segment.layout.size)
    except KeyError as error:
        segment.shortfalls.append(f"{segment.name}: {error.args[0]}")
        return
    if chosen is None:
        segment.shortfalls.append(f"{segment.name}: no NUMA node has {segment.layout.size:,} bytes free")
        return
    if chosen != node:
        segment.shortfalls.append(f"{segment.name}: node {node} has no room, placed on node {chosen}")
    whole = np.frombuffer(mmap.mmap(segment._descriptor, segment.layout.size), dtype=np.uint8)  # noqa: SLF001 - its own
    problem = numa.bind(whole, chosen)
    if problem:
        segment.shortfalls.append(f"{segment.name}: not bound to node {chosen}: {problem}")
