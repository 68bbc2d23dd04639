"""Board: the latest value, whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from shrivenq.shm import board, counters
from shrivenq.shm.atomics import load_word, store_release, store_word
from shrivenq.shm.kernel import kernel
from shrivenq.shm.segment import SegmentError
from shrivenq.shm.wait import YIELD, idle

VALUE = np.dtype([("number", "<i8"), ("words", "<i8", (31,))], align=True)


@kernel
def fill(value, number):
    value[0]["number"] = number
    for i in range(31):
        value[0]["words"][i] = number + i


@kernel
def whole(value):
    wrong = 0
    for i in range(31):
        wrong += value[0]["words"][i] != value[0]["number"] + i
    return wrong == 0


@kernel
def write(writer, row, value):
    board.write(writer, row, value)


@kernel
def read(reader, row, target):
    return board.read(reader, row, target)


@kernel
def write_many(writer, value, count, rows):
    """Write the numbers 1 … count to the rows in turn."""
    for number in range(1, count + 1):
        fill(value, number)
        board.write(writer, number % rows, value)


@kernel
def write_for_ever(writer, value, started):
    number = 0
    while True:
        number += 1
        fill(value, number)
        board.write(writer, 0, value)
        store_release(started, 0, number)


@kernel
def read_until(reader, target, last, rows, seen, torn, invalid):
    """Read all rows until one holds `last`; count values that are mixtures, go back, or belong to another row."""
    done = False
    valid = 0
    while not done:
        found = False
        for row in range(rows):
            if board.read(reader, row, target):
                valid += 1
                found = True
                number = target[0]["number"]
                if not whole(target) or number < seen[row] or number % rows != row:
                    torn[0] += 1
                seen[row] = number
                done = done or number == last
            else:
                invalid[0] += 1
        if not found:
            idle(YIELD)
    return valid


def made(name, rows=3):
    held = board.create(name, VALUE, rows)
    return held, board.writer(held), board.reader(held), np.zeros(1, VALUE), np.zeros(1, VALUE)


@given(steps=some.lists(some.tuples(some.booleans(), some.integers(0, 2), some.integers(0, 1 << 40))))
def test_reads_what_was_written_last(steps):
    writer = board.BoardWriter(np.zeros(3, np.int64), np.zeros(6, VALUE))
    value, target, latest = np.zeros(1, VALUE), np.zeros(1, VALUE), {}
    for is_write, row, number in steps:
        if is_write:
            fill(value, number)
            write(writer, row, value)
            latest[row] = number
        assert read(writer, row, target) == (row in latest)
        if row in latest:
            assert target[0]["number"] == latest[row]
            assert whole(target)


def test_a_row_never_written_is_invalid(name):
    _, writer, reader, value, target = made(name)
    write(writer, 1, value)
    assert [read(reader, row, target) for row in range(3)] == [False, True, False]


def test_readers_cannot_write(name):
    _, _, reader, _, _ = made(name)
    for array in reader:
        assert not array.flags.writeable


def test_a_write_begun_and_never_committed_is_not_seen(name):
    _, writer, reader, value, target = made(name)
    for number in (1, 2, 3):
        fill(value, number)
        write(writer, 0, value)
        # What a writer killed in the middle of its copy leaves: the other copy half overwritten.
        begun = writer.copies[(number + 1) & 1]
        begun["number"] = -1
        begun["words"][:15] = -1
        assert read(reader, 0, target)
        assert target[0]["number"] == number
        assert whole(target)


def test_a_reader_gives_up_on_a_sequence_that_always_moves(name, monkeypatch):
    _, writer, reader, value, target = made(name)
    write(writer, 0, value)
    moving = iter(range(1, 1000))
    monkeypatch.setattr(board, "load_acquire", lambda *_: next(moving))
    monkeypatch.setattr(board, "fence_acquire", lambda: None)
    assert not getattr(board.read, "py_func", board.read)(reader, 0, target)
    assert next(moving) == 2 * board.RETRIES + 1


def test_a_writer_killed_while_it_hammers_blocks_nobody(name, children):
    held, writer, reader, value, target = made(name)
    started = counters.values(counters.create(f"{name}.started", ["started"]))
    fill(value, 1)
    write(writer, 0, value)
    read(reader, 0, target)
    for _ in range(20):
        pid = children.start(write_for_ever, writer, value, started)
        store_word(started, 0, 0)
        while load_word(started, 0) == 0:
            assert pid in children.running
        children.kill(pid)
        assert read(reader, 0, target)
        assert whole(target)
        # The next writer goes on where the dead one stopped.
        fill(value, 7)
        write(writer, 0, value)
        assert read(reader, 0, target)
        assert target[0]["number"] == 7
        assert held.epoch == 1


@pytest.mark.slow
def test_ten_million_writes_are_never_torn(name, children):
    rows, count = 8, 10_000_000
    _, writer, reader, value, target = made(name, rows)
    seen, torn, invalid = np.zeros(rows, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64)
    write_many(writer, value, 0, rows)
    pid = children.start(write_many, writer, value, count, rows)
    valid = read_until(reader, target, count, rows, seen, torn, invalid)
    assert children.wait(pid) == 0
    assert torn[0] == 0, f"{torn[0]} of {valid} values torn, {invalid[0]} invalid"
    assert valid > 0


def test_a_board_has_rows():
    with pytest.raises(SegmentError, match="at least one row, not 0"):
        board.board_layout(VALUE, 0)
