"""The shape of a stage: the turn that paces its loop, its faults and its time."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from shrivenq.shm import wait
from shrivenq.shm.kernel import kernel
from shrivenq.stages import stage

FAR_NS = 1 << 62


@kernel
def run(loop, steps, work):
    """A loop like every stage's, of a step that does `work` and faults after `steps`."""
    done, taken = 0, 0
    while stage.turn(loop, done):
        done = work
        taken += 1
        if taken == steps:
            stage.fault(loop, stage.FAULT_CONFIG, 77)
    return taken


@kernel
def turn(loop, work):
    return stage.turn(loop, work)


@kernel
def time_of(loop, message_ns):
    return stage.time_of(loop, message_ns)


@kernel
def stamp(loop):
    return stage.stamp(loop)


@pytest.fixture
def loop():
    made = np.zeros(512, np.int64)
    made[stage.DEADLINE_NS] = FAR_NS
    made[stage.WAIT] = wait.SPIN
    return made


def test_a_turn_beats_counts_and_ends_at_the_deadline(loop):
    before = time.monotonic_ns()
    assert turn(loop, 0)
    assert turn(loop, 5)
    assert before <= loop[stage.NOW_NS] <= time.monotonic_ns()
    assert (loop[stage.TURNS], loop[stage.WORK]) == (2, 5)
    loop[stage.DEADLINE_NS] = loop[stage.LOOK_NS] = loop[stage.NOW_NS]
    assert not turn(loop, 1)
    assert (loop[stage.TURNS], loop[stage.WORK]) == (3, 6)


@pytest.mark.parametrize("how", [wait.SPIN, wait.YIELD, wait.PARK])
def test_a_turn_without_work_waits_in_its_way_and_goes_on(loop, how):
    loop[stage.WAIT] = how
    assert turn(loop, 0)


def test_a_deadline_that_has_passed_does_nothing(loop):
    loop[stage.DEADLINE_NS] = 0
    assert run(loop, 1, 1) == 0


@kernel
def return_soon(loop):
    stage.return_soon(loop)


def test_a_look_lasts_a_millisecond_and_no_longer_than_the_deadline(loop):
    assert turn(loop, 1)
    assert loop[stage.LOOK_NS] == loop[stage.NOW_NS] + stage.LOOK_EVERY_NS
    loop[stage.LOOK_NS] = 0
    loop[stage.DEADLINE_NS] = time.monotonic_ns() + 10**9
    assert turn(loop, 1)
    loop[stage.LOOK_NS], loop[stage.DEADLINE_NS] = 0, loop[stage.NOW_NS] + 400_000
    while turn(loop, 1):
        assert loop[stage.LOOK_NS] == loop[stage.DEADLINE_NS]
    assert loop[stage.NOW_NS] >= loop[stage.DEADLINE_NS]


def test_whoever_needs_python_has_it_after_this_turn(loop):
    assert turn(loop, 1)
    return_soon(loop)
    assert not turn(loop, 1)


def test_a_word_elsewhere_stops_the_loop(loop):
    words = np.zeros(4, np.int64)
    loop[stage.STOP_AT] = words.ctypes.data + 16
    words[1] = words[3] = 1
    assert turn(loop, 1)
    words[2] = 1
    loop[stage.LOOK_NS] = 0
    assert not turn(loop, 1)


def test_a_parent_that_is_another_one_is_said_once(loop):
    loop[stage.PARENT] = os.getppid()
    assert turn(loop, 1)
    loop[stage.PARENT], loop[stage.LOOK_NS] = os.getppid() + 1, 0
    assert not turn(loop, 1)
    assert turn(loop, 1)


def test_a_fault_ends_the_loop_and_says_why(loop):
    assert run(loop, 3, 2) == 3
    assert stage.FAULTS[loop[stage.FAULT]] == "config"
    assert loop[stage.FAULT_DETAIL] == 77
    assert loop[stage.WORK] == 6
    loop[stage.LOOK_NS] = FAR_NS  # what has been looked at counts until the next look
    stage.fault(loop, stage.FAULT_CONFIG, 77)
    assert run(loop, 3, 2) == 0, "a stage that has stopped itself stays stopped"


def test_time_is_the_messages_in_replay_and_the_clocks_otherwise(loop):
    loop[stage.VIRTUAL], loop[stage.OFFSET_NS] = 1, 1_000_000
    assert time_of(loop, 1234) == 1234
    loop[stage.VIRTUAL] = 0
    before = time.monotonic_ns()
    assert before + 1_000_000 <= time_of(loop, 1234) <= time.monotonic_ns() + 1_000_000
    assert before <= stamp(loop) <= time.monotonic_ns()


def test_words_of_the_page_do_not_collide():
    words = [
        "NOW_NS", "TURNS", "WORK", "DEADLINE_NS", "WAIT", "VIRTUAL", "OFFSET_NS", "STATE", "FAULT", "FAULT_DETAIL",
        "EPOCH", "PID", "KILL_SEEN", "KILL_SEEN_NS", "FRAMES", "DROPS", "FINISHED", "UNRECORDED", "BOOKS_VALID",
        "LOOK_NS", "PARENT", "STOP_AT",
    ]  # fmt: skip
    assert len({getattr(stage, name) for name in words}) == len(words)


def test_states_and_faults_have_their_names():
    for name in ("starting", "ready", "running", "stopping", "stopped", "failed"):
        assert stage.STATES[getattr(stage, name.upper())] == name
    for name in stage.FAULTS[1:]:
        assert stage.FAULTS[getattr(stage, f"FAULT_{name.upper()}")] == name
