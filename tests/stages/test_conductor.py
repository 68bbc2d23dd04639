from __future__ import annotations

import random

import numpy as np
import pytest

from shrivenq.shm import ring
from shrivenq.shm.kernel import kernel
from shrivenq.stages import conductor


def make(rings: int, slack: int = 0):
    cursors = [(np.zeros(64, np.int64), np.zeros(64, np.int64), slack) for _ in range(rings)]
    return conductor.make_conductor(cursors, np.zeros(conductor.VENUE_WORDS, np.int64)), cursors


@kernel
def is_quiescent(held):
    return conductor.quiescent(held)


@kernel
def reading(held):
    return conductor._reading(held)


@kernel
def grant(held, at):
    conductor.grant(held, at)


def test_quiescent_needs_every_ring_empty_and_two_equal_readings():
    held, cursors = make(3)
    assert is_quiescent(held)
    cursors[1][0][ring.HEAD] = 4
    assert not is_quiescent(held)
    cursors[1][1][ring.TAIL] = 4
    assert is_quiescent(held)


def test_a_message_that_moved_between_two_readings_is_noticed():
    held, cursors = make(2)
    assert is_quiescent(held)
    # Both rings are empty at each reading, but something passed through them since the last one.
    for head, tail, _ in cursors:
        head[ring.HEAD] += 1
        tail[ring.TAIL] += 1
    assert reading(held) == conductor.MOVED
    assert reading(held) == conductor.STILL


def test_an_unserved_grant_is_not_quiescent():
    held, _ = make(1)
    grant(held, 1234)
    assert held.venue[conductor.GRANTED_NS] == 1234
    assert not is_quiescent(held)
    held.venue[conductor.DONE] = held.venue[conductor.GRANTS]
    assert is_quiescent(held)


@pytest.mark.parametrize(("behind", "quiet"), [(0, True), (8, True), (9, False)])
def test_an_observer_may_lag_by_its_slack(behind, quiet):
    held, cursors = make(1, slack=8)
    cursors[0][0][ring.HEAD] = 20
    cursors[0][1][ring.TAIL] = 20 - behind
    is_quiescent(held)
    assert is_quiescent(held) == quiet


@kernel
def let_on(held, at):
    conductor.let_on(held, at)


def naive_let_on(venue, time_ns):
    """Say what `let_on` ought to do: (granted up to, grants) afterwards."""
    serving = venue[conductor.DONE] != venue[conductor.GRANTS]
    due = venue[conductor.NEXT_DUE_NS] <= time_ns
    if serving or not due:
        return int(venue[conductor.GRANTED_NS]), int(venue[conductor.GRANTS])
    return time_ns, int(venue[conductor.GRANTS]) + 1


def test_a_venue_is_let_on_to_what_is_due_and_not_while_it_acts():
    held, _ = make(1)
    venue = held.venue
    venue[conductor.NEXT_DUE_NS] = 100
    let_on(held, 99)
    assert venue[conductor.GRANTS] == 0
    let_on(held, 100)
    assert (venue[conductor.GRANTS], venue[conductor.GRANTED_NS]) == (1, 100)
    let_on(held, 500)  # it has not served the first
    assert (venue[conductor.GRANTS], venue[conductor.GRANTED_NS]) == (1, 100)
    venue[conductor.DONE] = 1
    let_on(held, 500)
    assert (venue[conductor.GRANTS], venue[conductor.GRANTED_NS]) == (2, 500)
    venue[conductor.DONE], venue[conductor.NEXT_DUE_NS] = 2, conductor.NEVER
    let_on(held, 1 << 61)
    assert venue[conductor.GRANTS] == 2


@pytest.mark.parametrize("seed", range(20))
def test_letting_on_is_what_its_twin_says_whatever_rings_carry(seed):
    rng = random.Random(seed)
    held, cursors = make(2)
    now = 0
    for step in range(300):
        now += rng.randrange(5)
        if rng.random() < 0.5:
            held.venue[conductor.DONE] = held.venue[conductor.GRANTS]
        if rng.random() < 0.5:
            held.venue[conductor.NEXT_DUE_NS] = rng.choice((now - 1, now, now + 1, conductor.NEVER))
        cursors[0][0][ring.HEAD] += rng.randrange(3)  # without lock-step nobody waits for a ring to be empty
        expected = naive_let_on(held.venue, now)
        let_on(held, now)
        found = int(held.venue[conductor.GRANTED_NS]), int(held.venue[conductor.GRANTS])
        assert found == expected, f"seed {seed}, step {step}"
