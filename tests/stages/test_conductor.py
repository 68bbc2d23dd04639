from __future__ import annotations

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
