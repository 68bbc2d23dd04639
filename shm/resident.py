"""Memory that is there before it is needed: brought in and kept, so that no message ever waits for a page.

What a fork shares with its parent, and what numpy calls zeros, becomes a page of this process only when it is first
written: a microsecond each time, and far more where memory is short. A page of a ring counts as well: every process
that maps it meets it for the first time.
"""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.shm.layout import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

_MADV_POPULATE_READ, _MADV_POPULATE_WRITE = 22, 23
_MCL_CURRENT, _MCL_ONFAULT = 1, 4
_PR_SET_THP_DISABLE = 41

_libc = ctypes.CDLL(None, use_errno=True)


def arrays_in(held: Any) -> Iterator[Any]:
    """Walk every array in nested tuples, such as a stage's context."""
    if isinstance(held, np.ndarray):
        yield held
    elif isinstance(held, tuple):
        for one in held:
            yield from arrays_in(one)


def bring_in(array: Any) -> None:
    """Bring in every page of an array: for writing where it is writable, its contents unchanged."""
    if array.nbytes == 0:
        return
    first = array.ctypes.data // PAGE * PAGE
    size = -(-(array.ctypes.data + array.nbytes - first) // PAGE) * PAGE
    writable = bool(array.flags.writeable)
    if _libc.madvise(
        ctypes.c_void_p(first), ctypes.c_size_t(size), _MADV_POPULATE_WRITE if writable else _MADV_POPULATE_READ
    ):
        _touch(first, size, writable=writable)


def _touch(first: int, size: int, *, writable: bool) -> None:
    """Do the same before Linux 5.14. Nobody else may write to memory that is brought in for writing this way."""
    memory: Any = (ctypes.c_uint8 * size).from_address(first)
    view = np.frombuffer(memory, np.uint8)[::PAGE]
    if writable:
        view |= 0
    else:
        view.max()


def bring_in_own(*, heap: bool) -> None:
    """Bring in what a fork shares with its parent and this process may write: its stack, and its `heap` if asked."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights = line.split()[:2]
        if line.endswith("[stack]") or (heap and rights == "rw-p"):
            first, last = (int(one, 16) for one in span.split("-"))
            _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_POPULATE_WRITE)


def keep() -> list[str]:
    """Keep in memory what this process has mapped, each page from its first use; return what could not be had.

    Huge pages that are there stay; the kernel makes no new ones, since whoever touches memory meanwhile has to wait.
    Source: prctl(2), PR_SET_THP_DISABLE.
    """
    _libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)
    if _libc.mlockall(_MCL_CURRENT | _MCL_ONFAULT) == 0:
        return []
    reason = os.strerror(ctypes.get_errno())
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    allowed = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit // 1024:,} KiB"
    return [f"not locked in memory: {reason} (ulimit -l, now {allowed}, or CAP_IPC_LOCK)"]
