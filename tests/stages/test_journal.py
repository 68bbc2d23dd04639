"""The journal's records: the compiled end makes the same as the plain one, and its checksum is XXH64."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

from shrivenq.shm import byte_ring
from shrivenq.stages import journal
from shrivenq.stages import messages as m
from shrivenq.stages.journal import JournalError


def ring_of(size: int, name: str):
    made = byte_ring.create(f"shrivenq.test-journal-{os.getpid()}-{name}", size)
    return made, byte_ring.producer(made), byte_ring.consumer(made)


@pytest.fixture
def ring(request):
    made, producer, consumer = ring_of(1 << 16, str(abs(hash(request.node.name))))
    yield producer, consumer
    made.unlink()
    made.close()


def orders_of(seed: int, count: int):
    orders = np.frombuffer(random.Random(seed).randbytes(count * m.ORDER.itemsize), m.ORDER).copy()
    orders["kind"] = m.NEW
    return orders


def plain_checksum(words, seed):
    """XXH64 in Python integers, after its specification."""
    mask, p1, p2 = 2**64 - 1, 11400714785074694791, 14029467366897019727
    p3, p4, p5 = 1609587929392839161, 9650029242287828579, 2870177450012600261

    def rotated(value, bits):
        return (value << bits | value >> (64 - bits)) & mask

    def mixed(lane, word):
        return rotated(lane + word * p2 & mask, 31) * p1 & mask

    words, count = [int(word) for word in words], len(words)
    state = seed + p5 & mask
    if count >= 4:
        lanes = [seed + p1 + p2 & mask, seed + p2 & mask, seed, seed - p1 & mask]
        while len(words) >= 4:
            lanes = [mixed(lane, words.pop(0)) for lane in lanes]
        state = sum(rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & mask
        for lane in lanes:
            state = (state ^ mixed(0, lane)) * p1 + p4 & mask
    state = state + 8 * count & mask
    for word in words:
        state = rotated(state ^ mixed(0, word), 27) * p1 + p4 & mask
    state = (state ^ state >> 33) * p2 & mask
    state = (state ^ state >> 29) * p3 & mask
    return state ^ state >> 32


@pytest.mark.parametrize("seed", range(6))
def test_checksum_is_its_plain_twin(seed):
    chance = random.Random(seed)
    for count in (1, 2, 3, 4, 5, 7, 8, 30, 31):
        words = np.frombuffer(chance.randbytes(8 * count), np.int64)
        found = journal.checksum(words, 0, count, seed) & 2**64 - 1
        assert found == plain_checksum(words, seed), f"seed {seed}, {count} words"


def test_checksum_of_nothing_is_the_published_one():
    assert journal.checksum(np.zeros(1, np.int64), 0, 0, 0) & 2**64 - 1 == 0xEF46DB3751D8E999


def test_compiled_append_makes_the_same_record_as_python(ring):
    producer, consumer = ring
    book = journal.make_journal(producer, 3)
    orders = orders_of(1, 4)
    words = orders.view(np.int64)
    for row in range(4):
        assert journal.append(book, journal.ORDER_SENT, words, 24 * row, 24, 77 + row)
    found = byte_ring.drain(consumer)
    for row, (kind, time_ns, record) in enumerate(found):
        assert (kind, time_ns) == (journal.ORDER_SENT, 77 + row)
        assert record == journal.make_record(journal.ORDER_SENT, orders[row].tobytes(), row, 77 + row, 3)


def test_full_ring_refuses_and_counts():
    made, producer, consumer = ring_of(1024, "full")
    try:
        book = journal.make_journal(producer)
        words = orders_of(2, 1).view(np.int64)
        taken = 0
        while journal.append(book, journal.ORDER_SENT, words, 0, 24, 0):
            taken += 1
        assert 0 < taken < 5
        assert book.counts[journal.FAILED] == 1
        byte_ring.drain(consumer)
        assert journal.append(book, journal.ORDER_SENT, words, 0, 24, 0)
        ((_, _, record),) = byte_ring.drain(consumer)
        assert np.frombuffer(record, journal.HEADER, 1)["sequence"][0] == taken
    finally:
        made.unlink()
        made.close()


def test_a_payload_that_is_too_long_is_refused():
    assert len(journal.make_record(journal.NOTE, bytes(journal.NOTE_MAX), 0, 0)) == 48 + journal.NOTE_MAX
    with pytest.raises(JournalError, match="a record holds 65536 bytes, not 65544"):
        journal.make_record(journal.NOTE, bytes(journal.NOTE_MAX + 1), 0, 0)
    with pytest.raises(JournalError, match="a record holds 4096 bytes, not 4104"):
        journal.make_record(journal.ORDER_SENT, bytes(journal.PAYLOAD_MAX + 1), 0, 0)
