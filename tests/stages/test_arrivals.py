"""Arrivals: what is noted is what was meant, in order; a log without room ends, and says so."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from shrivenq.shm import ring
from shrivenq.shm.kernel import kernel
from shrivenq.stages import arrivals

FIELDS = (
    "kind", "time_ns", "number", "first", "second", "third", "level", "held", "room_first", "room_second",
)  # fmt: skip


def ends(count):
    """Both ends of a ring in private memory."""
    head, tail = np.zeros(64, np.int64), np.zeros(64, np.int64)
    slots = np.zeros(count, arrivals.ARRIVAL)
    return ring.Producer(head, tail, slots), ring.Consumer(tail, head, slots)


def take(end):
    """Take everything, slowly."""
    rows = []
    while ring.available(end):
        rows.append(tuple(int(end.slots[ring.slot_at(end, 0)][name]) for name in FIELDS))
        ring.release(end, 1)
    return rows


def made_up(rng):
    kind = rng.choice((arrivals.STEP, arrivals.TIMER, arrivals.DROPPED, arrivals.UNRECORDED, arrivals.HELD))
    return (kind, rng.randrange(1 << 62), rng.randrange(1 << 62), *(rng.randrange(-1, 1 << 31) for _ in range(7)))


@pytest.mark.parametrize("seed", range(5))
def test_a_log_holds_everything_up_to_where_it_had_no_room(seed):
    rng = random.Random(seed)
    producer, consumer = ends(16)
    log = arrivals.to(producer)
    expected, found = [], []
    broken = said = False
    waiting = 0
    for _ in range(400):
        if rng.random() < 0.2:
            found += take(consumer)
            waiting = 0
        row = made_up(rng)
        arrivals.note(log, *row)
        if said:
            continue
        if waiting == 16:
            broken = True
            continue
        waiting += 1
        expected.append((arrivals.INCOMPLETE, *row[1:]) if broken else row)
        said = broken
    found += take(consumer)
    assert found == expected, seed
    assert broken, seed


def test_nobody_who_records_nothing_is_noted():
    log = arrivals.nowhere()
    assert log.words[arrivals.ON] == 0
    assert arrivals.to(ends(16)[0]).words[arrivals.ON] == 1


@kernel
def clock(log, loop):
    return arrivals.read_clock(log, loop)


def test_a_run_done_again_hears_what_the_clock_said_then():
    log, loop = arrivals.nowhere(), np.zeros(64, np.int64)
    before = time.monotonic_ns()
    assert before <= clock(log, loop) <= time.monotonic_ns()
    log.words[arrivals.TOLD_NS] = 7
    assert clock(log, loop) == 7
