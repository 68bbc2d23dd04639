"""Byte ring: records come out as they went in, whatever their lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from shrivenq.shm import byte_ring, segment
from shrivenq.shm.kernel import kernel
from shrivenq.shm.layout import LINE_WORDS
from shrivenq.shm.segment import SegmentError
from shrivenq.shm.wait import YIELD, idle

SIZE = 256


@kernel
def append(ring, kind, data, start, length, time_ns):
    return byte_ring.append(ring, kind, data, start, length, time_ns)


@kernel
def reserve(ring, kind, length, time_ns):
    return byte_ring.reserve(ring, kind, length, time_ns)


@kernel
def commit(ring):
    byte_ring.commit(ring)


@kernel
def abandon(ring):
    byte_ring.abandon(ring)


@kernel
def take(ring, target):
    """Copy the oldest record's payload to `target`: (length, kind, time), length -1 for none."""
    offset = byte_ring.peek(ring)
    if offset < 0:
        return -1, 0, 0
    length = byte_ring.length_of(ring, offset)
    kind, time_ns = byte_ring.kind_of(ring, offset), byte_ring.time_of(ring, offset)
    for i in range(length):
        target[i] = ring.data[offset + i]
    byte_ring.consume(ring)
    return length, kind, time_ns


@kernel
def next_random(state):
    return (state * 6364136223846793005 + 1442695040888963407) & 0x7FFFFFFFFFFFFFFF


@kernel
def produce(ring, data, count, seed):
    """Append `count` records of random length, every byte told by the record's number."""
    state = seed
    for number in range(count):
        state = next_random(state)
        length = (state >> 33) % 64
        for i in range(length):
            data[i] = (number + i) & 255
        while not byte_ring.append(ring, number & 0xFFFF, data, 0, length, number):
            idle(YIELD)


@kernel
def produce_for_ever(ring, data, seed):
    produce(ring, data, 1 << 60, seed)


@kernel
def check(ring, count, seed):
    """Take `count` records and compare them with what `produce` wrote; the number of the first wrong one, or -1."""
    state = seed
    for number in range(count):
        state = next_random(state)
        offset = byte_ring.peek(ring)
        while offset < 0:
            idle(YIELD)
            offset = byte_ring.peek(ring)
        length = byte_ring.length_of(ring, offset)
        wrong = length != (state >> 33) % 64 or byte_ring.kind_of(ring, offset) != number & 0xFFFF
        wrong = wrong or byte_ring.time_of(ring, offset) != number
        for i in range(length):
            wrong = wrong or ring.data[offset + i] != (number + i) & 255
        if wrong:
            return number
        byte_ring.consume(ring)
    return -1


def private(size=SIZE):
    """Make both ends in private memory."""
    first, second, data = np.zeros(512, np.int64), np.zeros(512, np.int64), np.zeros(size, np.uint8)
    words = data.view(np.int64)
    return byte_ring.Producer(first, second, data, words), byte_ring.Consumer(second, first, data, words)


class Reference:
    """The obvious byte ring: a list, and the bytes it would occupy."""

    def __init__(self, size):
        self.size, self.head, self.tail, self.records = size, 0, 0, []

    def append(self, record):
        needed = 16 + (len(record[2]) + 7) // 8 * 8
        left = self.size - self.head % self.size
        end = self.head + needed + (left if left < needed else 0)
        if len(record[2]) > self.size // 2 - 16 or end - self.tail > self.size:
            return False
        self.head = end
        self.records.append((record, end))
        return True

    def take(self):
        if not self.records:
            return None
        record, self.tail = self.records.pop(0)
        return record


KIND = some.integers(0, (1 << 31) - 1)
RECORD = some.tuples(KIND, some.integers(-(1 << 62), 1 << 62), some.binary(max_size=SIZE // 2))


def put(ring, record):
    kind, time_ns, payload = record
    data = np.frombuffer(b"xyz" + payload + b"z", np.uint8)
    return append(ring, kind, data, 3, len(payload), time_ns)


@given(steps=some.lists(some.one_of(some.none(), RECORD), max_size=60))
def test_does_what_a_list_does(steps):
    producer, consumer = private()
    reference, target = Reference(SIZE), np.zeros(SIZE, np.uint8)
    for step in steps:
        if step is not None:
            assert put(producer, step) == reference.append(step)
            continue
        length, kind, time_ns = take(consumer, target)
        expected = reference.take()
        assert (None if length < 0 else (kind, time_ns, target[:length].tobytes())) == expected
    assert byte_ring.drain(consumer) == [record for record, _ in reference.records]
    assert byte_ring.drain(consumer) == []


@given(batches=some.lists(some.lists(RECORD, max_size=5), max_size=20))
def test_drain_gives_everything_back(batches):
    producer, consumer = private()
    reference = Reference(SIZE)
    for batch in batches:
        for record in batch:
            assert put(producer, record) == reference.append(record)
        assert byte_ring.drain(consumer) == [record for record, _ in reference.records]
        while reference.take():
            pass


def test_waiting_keeps_what_release_to_gives_back(name):
    made = byte_ring.create(name, SIZE)
    producer, consumer = byte_ring.producer(made), byte_ring.consumer(made)
    put(producer, (1, 10, b"one"))
    put(producer, (2, 20, b"two"))
    found, position = byte_ring.waiting(consumer)
    assert found == [(1, 10, b"one"), (2, 20, b"two")]
    # Another consumer, after the first died before it released anything.
    second = byte_ring.consumer(segment.attach(name))
    assert byte_ring.waiting(second) == (found, position)
    byte_ring.release_to(second, position)
    assert byte_ring.waiting(second) == ([], position)
    assert take(second, np.zeros(SIZE, np.uint8))[0] == -1


def test_nothing_is_visible_before_commit():
    producer, consumer = private()
    put(producer, (1, 1, b"seen"))
    offset = reserve(producer, 2, 4, 2)
    producer.data[offset : offset + 4] = list(b"half")
    assert byte_ring.waiting(consumer)[0] == [(1, 1, b"seen")]
    abandon(producer)
    assert byte_ring.waiting(consumer)[0] == [(1, 1, b"seen")]
    offset = reserve(producer, 3, 4, 3)
    producer.data[offset : offset + 4] = list(b"real")
    commit(producer)
    assert byte_ring.drain(consumer) == [(1, 1, b"seen"), (3, 3, b"real")]


@kernel
def free(producer):
    return byte_ring.free(producer)


def test_free_counts_what_the_consumer_has_given_back(name):
    held = byte_ring.create(name, 256)
    producer, consumer = byte_ring.producer(held), byte_ring.consumer(held)
    assert free(producer) == 256
    assert byte_ring.append(producer, 1, np.zeros(20, np.uint8), 0, 20, 0)
    assert free(producer) == 256 - 16 - 24
    byte_ring.drain(consumer)
    assert free(producer) == 256


def test_the_longest_record_fits_an_empty_ring_at_any_position():
    longest = byte_ring.length_max(SIZE)
    for before in range(0, SIZE, 8):
        producer, consumer = private()
        for ring in (producer, consumer):
            ring.own[0] = before
        producer.own[[LINE_WORDS, LINE_WORDS + 1]] = before
        consumer.own[LINE_WORDS + 1] = before
        assert not put(producer, (1, 0, bytes(longest + 1)))
        assert put(producer, (1, 0, bytes(longest)))
        assert byte_ring.drain(consumer) == [(1, 0, bytes(longest))]


def test_each_side_writes_its_own_page_only(name):
    made = byte_ring.create(name, 4096)
    producer, consumer = byte_ring.producer(made), byte_ring.consumer(made)
    assert not producer.peer.flags.writeable
    for array in (consumer.peer, consumer.data, consumer.words):
        assert not array.flags.writeable


@pytest.mark.parametrize("size", [0, 32, 96, 1 << 32])
def test_a_bad_size_is_refused(size):
    with pytest.raises(SegmentError, match="power of two of 64 to"):
        byte_ring.byte_ring_layout(size)


def test_a_killed_producer_leaves_whole_records(name, children):
    made = byte_ring.create(name, 1 << 12)
    producer, consumer, data = byte_ring.producer(made), byte_ring.consumer(made), np.zeros(64, np.uint8)
    produce(producer, data, 0, 5)
    check(consumer, 0, 5)
    state, number = 5, 10_000
    pid = children.start(produce_for_ever, producer, data, state)
    assert check(consumer, number, state) == -1  # more than fits: it dies while it works
    children.kill(pid)
    for _ in range(number):
        state = next_random(state)
    for kind, time_ns, payload in byte_ring.drain(consumer):
        state = next_random(state)
        assert (kind, time_ns) == (number & 0xFFFF, number)
        assert payload == bytes((number + i) & 255 for i in range((state >> 33) % 64))
        number += 1
    assert byte_ring.drain(consumer) == []


@pytest.mark.slow
@pytest.mark.parametrize(("size", "count"), [(1 << 8, 2_000_000), (1 << 20, 10_000_000)])
def test_millions_of_records_between_processes(name, children, size, count):
    seed = 77
    made = byte_ring.create(name, size)
    producer, consumer, data = byte_ring.producer(made), byte_ring.consumer(made), np.zeros(64, np.uint8)
    produce(producer, data, 0, seed)
    check(consumer, 0, seed)
    pid = children.start(produce, producer, data, count, seed)
    assert check(consumer, count, seed) == -1, f"seed {seed}"
    assert children.wait(pid) == 0
    assert byte_ring.drain(consumer) == []
