"""Hazard table: what a reader entered stays as it is until it leaves."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from shrivenq.shm import counters, hazard, segment
from shrivenq.shm.atomics import load_acquire, load_word, store_release
from shrivenq.shm.kernel import kernel
from shrivenq.shm.layout import LINE_WORDS
from shrivenq.shm.segment import SegmentError
from shrivenq.shm.wait import YIELD, idle

LIMIT = np.dtype([("number", "<i8"), ("words", "<i8", (7,))], align=True)
ROWS = 4


@kernel
def enter(held):
    return hazard.enter(held)


@kernel
def leave(held):
    hazard.leave(held)


@kernel
def read_until(held, last, started, result):
    """Enter, read a version twice, leave now and then. `result`: entries, mixtures, steps back, refusals."""
    latest = 0
    while latest < last:
        at = hazard.enter(held)
        if at < 0:
            result[3] += 1
            idle(YIELD)
            continue
        result[0] += 1
        number = held.versions[at]["number"]
        for _ in range(2):
            for row in range(ROWS):
                for i in range(7):
                    if held.versions[at + row]["words"][i] != number:
                        result[1] += 1
        if number < latest:
            result[2] += 1
        latest = number
        store_release(started, 0, latest)
        if result[0] & 3 == 0:
            hazard.leave(held)


@kernel
def hold_for_ever(held, started):
    store_release(started, 0, hazard.enter(held) + 1)
    while load_acquire(started, 0) != 0:
        idle(YIELD)


def table(number):
    made = np.zeros(ROWS, LIMIT)
    made["number"] = number
    made["words"] = number
    return made


def lines(made):
    return made.array("readers").reshape(-1, LINE_WORDS)


def test_nothing_published_is_nothing_to_read(name):
    made = hazard.create(name, LIMIT, ROWS, versions=2, readers=1)
    reader = hazard.reader(made)
    assert enter(reader) == -1
    assert hazard.publish(hazard.publisher(made), table(1))
    assert reader.versions[enter(reader)]["number"] == 1


@given(steps=some.lists(some.sampled_from(["publish", "enter 0", "enter 1", "leave 0", "leave 1"]), max_size=40))
def test_does_what_copies_do(steps):
    """The obvious twin: every reader keeps a copy of its own, and a version is free if nobody keeps it."""
    page, readers, versions = np.zeros(512, np.int64), np.zeros(2 * LINE_WORDS, np.int64), np.zeros(3 * ROWS, LIMIT)
    identity = hazard._identity(os.getpid())
    readers[[0, LINE_WORDS]] = identity
    publisher = hazard.Publisher(page, readers, versions, ROWS)
    held = [hazard.Reader(readers[at : at + LINE_WORDS], page, versions, ROWS) for at in (0, LINE_WORDS)]
    current, kept, places = 0, [0, 0], [-1, -1]
    for number, step in enumerate(steps, start=1):
        action, _, who = step.partition(" ")
        if action == "publish":
            blocked = len({current, *kept} - {0}) == 3
            assert hazard.publish(publisher, table(number)) is not blocked
            current = current if blocked else number
        elif action == "enter":
            places[int(who)], kept[int(who)] = enter(held[int(who)]), current
        else:
            leave(held[int(who)])
            kept[int(who)] = 0
        for place, number_kept in zip(places, kept, strict=True):
            if number_kept:
                assert (versions[place : place + ROWS] == table(number_kept)).all()


def test_a_version_being_read_is_not_reused(name):
    made = hazard.create(name, LIMIT, ROWS, versions=3, readers=2)
    publisher, reader = hazard.publisher(made), hazard.reader(made)
    assert hazard.publish(publisher, table(1))
    at = enter(reader)
    for number in range(2, 10):
        assert hazard.publish(publisher, table(number))
        assert (reader.versions[at : at + ROWS] == table(1)).all()
    assert reader.versions[enter(reader)]["number"] == 9


def test_a_publisher_without_room_says_so_and_waits_for_nobody(name):
    made = hazard.create(name, LIMIT, ROWS, versions=2, readers=1)
    publisher, reader = hazard.publisher(made), hazard.reader(made)
    assert hazard.publish(publisher, table(1))
    enter(reader)
    assert hazard.publish(publisher, table(2))
    assert not hazard.publish(publisher, table(3))
    leave(reader)
    assert hazard.publish(publisher, table(3))


def test_a_reader_killed_while_it_holds_a_hazard_is_cleared(name, children):
    made = hazard.create(name, LIMIT, ROWS, versions=2, readers=1)
    publisher = hazard.publisher(made)
    started = counters.values(counters.create(f"{name}.started", ["started"]))
    assert hazard.publish(publisher, table(1))
    pid = children.start(lambda: hold_for_ever(hazard.reader(made), started))
    while load_word(started, 0) == 0:
        assert pid in children.running
    assert lines(made)[0, hazard.HAZARD] == 1
    assert hazard.publish(publisher, table(2))
    assert not hazard.publish(publisher, table(3))
    children.kill(pid)
    assert hazard.publish(publisher, table(3))
    assert not lines(made)[0].any()


def test_a_zombie_is_dead(name, children):
    made = hazard.create(name, LIMIT, ROWS, versions=2, readers=1)
    pid = children.start(lambda: hazard.reader(made))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert lines(made)[0, hazard.IDENTITY] != 0
    hazard.reader(made)
    assert lines(made)[0, hazard.IDENTITY] == hazard._identity(os.getpid())


def test_a_reused_pid_is_not_its_former_owner(name):
    made = hazard.create(name, LIMIT, ROWS, versions=2, readers=1)
    former = hazard._identity(os.getpid()) - (1 << hazard.PID_BITS)
    made.array("readers", writable=True)[[hazard.IDENTITY, hazard.HAZARD]] = former, 2
    assert hazard.clear_dead(made.array("readers", writable=True)) == 1
    assert not lines(made).any()


def test_slots_run_out_and_come_back(name):
    made = hazard.create(name, LIMIT, ROWS, versions=2, readers=2)
    first = hazard.reader(made)
    hazard.reader(made)
    with pytest.raises(SegmentError, match="all 2 reader slots are taken"):
        hazard.reader(made)
    hazard.resign(first)
    hazard.reader(made)


def test_readers_write_nothing_but_their_lines(name):
    hazard.create(name, LIMIT, ROWS, versions=2, readers=1)
    reader = hazard.reader(segment.attach(name))
    assert not reader.page.flags.writeable
    assert not reader.versions.flags.writeable


def test_a_table_of_another_shape_is_refused(name):
    publisher = hazard.publisher(hazard.create(name, LIMIT, ROWS, versions=2, readers=1))
    with pytest.raises(ValueError, match="a version is 4 rows"):
        hazard.publish(publisher, table(1)[:3])
    with pytest.raises(SegmentError, match="2 versions and a reader"):
        hazard.hazard_layout(LIMIT, ROWS, 1, 1)


@pytest.mark.slow
def test_readers_never_see_a_mixture(name, children):
    count, readers = 30_000, 3
    made = hazard.create(name, LIMIT, ROWS, versions=readers + 2, readers=readers)
    publisher = hazard.publisher(made)
    started = counters.values(counters.create(f"{name}.started", [str(one) for one in range(readers)]))

    def run(at, last):
        result = np.zeros(4, np.int64)
        read_until(hazard.reader(made), last, started[at * LINE_WORDS : (at + 1) * LINE_WORDS], result)
        assert result[0] > 0
        assert result[1:3].tolist() == [0, 0], f"mixtures, steps back: {result[1:3]} of {result[0]}"

    pids = [children.start(run, at, count) for at in range(readers)]
    while any(load_word(started, at * LINE_WORDS) == 0 for at in range(readers)):
        hazard.publish(publisher, table(1))
    for number in range(2, count + 1):
        # Readers hold one version each and one is current: there is always another.
        assert hazard.publish(publisher, table(number))
    assert [children.wait(pid) for pid in pids] == [0] * readers
