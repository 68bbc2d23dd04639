from __future__ import annotations

import ctypes
import mmap
import os
import resource
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from shrivenq.pipeline import processes
from shrivenq.shm import resident
from shrivenq.shm.layout import PAGE

PAGES = 512
FEW = 16
"""Faults of Python's own: what it shares with a child is copied when it is next written. PAGES make many more."""


def mapped(*, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE):
    """Map pages that nobody has touched yet."""
    return np.frombuffer(mmap.mmap(-1, PAGES * PAGE, flags=flags, prot=prot), np.uint8)


def faults():
    """Count this thread's: the test process may have others."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def touching(array):
    """Count the page faults of a write to each page, by a C function that does nothing else."""
    fill = ctypes.CDLL(None).memset
    address, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
    fill(address, 1, ctypes.c_size_t(0))
    faults()
    before = faults()
    fill(address, 1, size)
    return faults() - before


def test_an_array_brought_in_is_written_without_a_fault():
    assert touching(mapped()) >= PAGES
    array = mapped()
    resident.bring_in(array)
    assert touching(array) < FEW


def test_contents_stay_and_parts_of_pages_will_do():
    array = np.arange(3 * PAGE, dtype=np.int64)[5 : 2 * PAGE]
    resident.bring_in(array)
    resident.bring_in(array[:0])
    assert array.tolist() == list(range(5, 2 * PAGE))


def test_what_is_read_only_is_brought_in_for_reading():
    descriptor = os.memfd_create("test-resident")
    os.ftruncate(descriptor, PAGES * PAGE)
    array = np.frombuffer(mmap.mmap(descriptor, PAGES * PAGE, prot=mmap.PROT_READ), np.uint8)
    os.close(descriptor)
    assert not array.flags.writeable
    resident.bring_in(array)
    search = ctypes.CDLL(None).memchr
    address = ctypes.c_void_p(array.ctypes.data)
    search(address, 1, ctypes.c_size_t(1))
    before = faults()
    search(address, 1, ctypes.c_size_t(array.nbytes))
    assert faults() - before < FEW


def test_without_the_system_call_pages_are_touched(monkeypatch):
    class Old:
        @staticmethod
        def madvise(*_):
            return -1

    monkeypatch.setattr(resident, "_libc", Old)
    array = mapped()
    array[7] = 9
    resident.bring_in(array)
    resident.bring_in(mapped(prot=mmap.PROT_READ))
    assert (int(array[7]), int(array.sum())) == (9, 9)
    assert touching(array) < FEW


class Inner(NamedTuple):
    one: object
    number: int


def test_every_array_of_a_context_is_found():
    first, second, third = (np.zeros(1) for _ in range(3))
    found = list(resident.arrays_in((Inner(first, 3), (Inner((second,), 4), "text"), third)))
    assert [id(one) for one in found] == [id(first), id(second), id(third)]


def in_a_child(act):
    """Run `act` in a child and return its exit code."""
    child = processes.start("resident", act)
    assert child.wait(60)
    return child.status


@pytest.mark.parametrize("heap", [False, True])
def test_what_a_fork_shares_becomes_its_own(heap):
    shared = np.ones(PAGES * PAGE, np.uint8)

    def act():
        resident.bring_in_own(heap=heap)
        touching(mapped())  # the way there is code that this process has not run yet
        return 0 if (touching(shared) < FEW) == heap else 1

    assert in_a_child(act) == 0


def test_a_process_keeps_what_it_has():
    def act():
        problems = resident.keep()
        locked = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmLck"))
        return 0 if not problems and int(locked.split()[1]) > 10_000 else 1

    if os.geteuid() != 0:
        pytest.skip("needs the right to lock memory")
    assert in_a_child(act) == 0


def test_without_permission_it_is_one_line_and_life_goes_on():
    def act():
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        (problem,) = resident.keep()
        sys.stderr.write(problem)
        good = problem.startswith("not locked in memory: ") and "ulimit -l, now 64 KiB" in problem
        return 0 if good and "\n" not in problem else 1

    assert in_a_child(act) == 0
