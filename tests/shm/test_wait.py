"""Waits: each returns, parking really sleeps, yielding lets another process run on the same CPU."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from shrivenq.shm import wait
from shrivenq.shm.atomics import load_acquire, load_word, store_word
from shrivenq.shm.clock import monotonic_ns
from shrivenq.shm.kernel import kernel


@kernel
def idle_many(kind, count):
    for _ in range(count):
        wait.idle(kind)


@kernel
def idle_until(words, kind):
    """Wait for word 0; the turns that took."""
    turns = 0
    while load_acquire(words, 0) == 0:
        wait.idle(kind)
        turns += 1
    return turns


@kernel
def parked_ns():
    start = monotonic_ns()
    wait.idle(wait.PARK)
    return monotonic_ns() - start


def test_names():
    assert wait.NAMES == {"spin": wait.SPIN, "yield": wait.YIELD, "park": wait.PARK}


@pytest.mark.parametrize("kind", sorted(wait.NAMES.values()))
def test_every_wait_returns(kind):
    idle_many(kind, 3)


def test_parking_sleeps_at_least_its_time():
    assert parked_ns() >= wait.PARK_NS


def test_parking_uses_no_processor_time():
    parked_ns()
    before = time.process_time_ns()
    start = time.monotonic_ns()
    idle_many(wait.PARK, 500)
    assert time.process_time_ns() - before < (time.monotonic_ns() - start) // 2


@pytest.mark.parametrize("kind", sorted(wait.NAMES.values()))
def test_waiting_process_and_the_one_it_waits_for_share_a_cpu(kind, children):
    import mmap

    words = np.frombuffer(mmap.mmap(-1, 4096), dtype=np.int64)
    cpu = min(os.sched_getaffinity(0))
    load_word(words, 0)
    before = os.sched_getaffinity(0)

    def waiter():
        os.sched_setaffinity(0, {cpu})
        idle_until(words, kind)

    try:
        os.sched_setaffinity(0, {cpu})
        child = children.start(waiter)
        os.sched_yield()
        store_word(words, 0, 1)
        assert children.wait(child) == 0
    finally:
        os.sched_setaffinity(0, before)
