"""Clocks: the kernel's readings lie between Python's."""

from __future__ import annotations

import time

import numpy as np

from shrivenq.shm.clock import monotonic_ns, realtime_ns
from shrivenq.shm.kernel import kernel


@kernel
def read_monotonic() -> int:
    return monotonic_ns()


@kernel
def read_realtime() -> int:
    return realtime_ns()


@kernel
def read_many(readings):
    for k in range(readings.shape[0]):
        readings[k] = monotonic_ns()


def test_monotonic_is_pythons():
    read_monotonic()
    for _ in range(100):
        before = time.monotonic_ns()
        between = read_monotonic()
        assert before <= between <= time.monotonic_ns()


def test_realtime_is_pythons():
    read_realtime()
    offset = time.time_ns() - time.monotonic_ns()
    found = read_realtime() - read_monotonic()
    assert abs(found - offset) < 5_000_000_000  # the wall clock may be set meanwhile


def test_monotonic_never_goes_back():
    readings = np.zeros(100_000, dtype=np.int64)
    read_many(readings)
    assert (np.diff(readings) >= 0).all()
    assert readings[-1] > readings[0]
