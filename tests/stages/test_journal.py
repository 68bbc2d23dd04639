"""The journal: what is read back is what was appended, and damage anywhere ends the valid prefix there."""

from __future__ import annotations

import os
import random
import re

import numpy as np
import pytest

from shrivenq.shm import byte_ring
from shrivenq.stages import journal
from shrivenq.stages import messages as m
from shrivenq.stages.journal import JournalError, JournalWriter


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


def records_of(seed: int, count: int) -> list[bytes]:
    orders = orders_of(seed, count)
    return [journal.make_record(journal.ORDER_SENT, orders[i].tobytes(), i, i) for i in range(count)]


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
        assert journal.check_record(record) == ""


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


def test_what_is_written_is_read(tmp_path, ring):
    producer, consumer = ring
    path = tmp_path / "desk.journal"
    writer = JournalWriter(path)
    assert writer.begin_run(b"r1", 1_000) == 1
    book = journal.make_journal(producer)
    orders = orders_of(3, 20)
    for row in range(20):
        assert journal.append(book, journal.ORDER_SENT, orders.view(np.int64), 24 * row, 24, row)
    writer.append([record for _, _, record in byte_ring.drain(consumer)])
    writer.note("armed desk by pat: morning")
    assert writer.lag == 0
    writer.close()
    contents = journal.read_journal(path)
    assert contents.problem == ""
    assert [record.kind for record in contents.records] == [journal.RUN, *[journal.ORDER_SENT] * 20, journal.NOTE]
    assert b"".join(record.payload for record in contents.records[1:21]) == orders.tobytes()
    assert contents.records[0].row()["run"] == b"r1"
    assert contents.records[-1].payload.rstrip(b"\0") == b"armed desk by pat: morning"
    again = JournalWriter(path)
    assert again.begin_run(b"r2", 2_000) == 2
    again.close()
    assert journal.read_journal(path).epoch() == 2
    assert journal.read_journal(path).problem == ""


def test_lag_counts_what_is_not_on_the_disk(tmp_path):
    writer = JournalWriter(tmp_path / "desk.journal", sync_every_ms=1e9)
    writer.append(records_of(4, 3))
    assert writer.lag == 3 * (48 + 192)
    assert writer.lag_ns() > 0
    writer.sync()
    assert (writer.lag, writer.lag_ns()) == (0, 0)
    writer.close()


def test_no_damaged_or_missing_record_enters(tmp_path):
    writer = JournalWriter(tmp_path / "desk.journal")
    records = records_of(5, 4)
    writer.append(records[:1])
    bad = bytearray(records[1])
    bad[100] ^= 1
    with pytest.raises(JournalError, match="damaged: checksum"):
        writer.append([bytes(bad)])
    with pytest.raises(JournalError, match="sent record 2, expected 1"):
        writer.append([records[2]])
    writer.restart(0)
    writer.append(records[2:])
    writer.close()
    assert len(journal.read_journal(writer.path).records) == 3


def small_journal(path):
    writer = JournalWriter(path)
    writer.begin_run(b"r1", 5)
    writer.append(records_of(6, 2))
    writer.close()
    ends = [16]
    for record in journal.read_journal(path).records:
        ends.append(ends[-1] + 48 + len(record.payload))
    return path.read_bytes(), ends


def test_every_flipped_byte_ends_the_prefix_at_its_record(tmp_path):
    path = tmp_path / "desk.journal"
    raw, ends = small_journal(path)
    chance = random.Random(7)
    for at in range(len(raw)):
        bad = bytearray(raw)
        bad[at] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        contents = journal.read_journal(path)
        intact = 0 if at < 16 else sum(end <= at for end in ends) - 1
        assert len(contents.records) == intact, f"byte {at}"
        assert contents.problem, f"byte {at}"
        assert contents.size + contents.tail == len(raw)


def test_every_truncation_keeps_the_whole_records(tmp_path):
    path = tmp_path / "desk.journal"
    raw, ends = small_journal(path)
    for size in range(len(raw)):
        path.write_bytes(raw[:size])
        contents = journal.read_journal(path)
        assert len(contents.records) == (0 if size < 16 else sum(end <= size for end in ends) - 1), f"size {size}"
        assert (contents.problem == "") == (size in ends or size == 0), f"size {size}"


def test_moved_repeated_and_missing_records_show(tmp_path):
    path = tmp_path / "desk.journal"
    raw, ends = small_journal(path)
    parts = [raw[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    for order, intact in (((0, 1, 3), 1), ((0, 1, 2, 2), 2), ((0, 1, 3, 2), 1), ((0, 2, 3), 0)):
        path.write_bytes(b"".join(parts[part] for part in order))
        contents = journal.read_journal(path)
        assert len(contents.records) == intact, order
        assert re.search("out of its chain", contents.problem), order


def test_a_damaged_tail_is_set_aside_and_the_journal_goes_on(tmp_path):
    path = tmp_path / "desk.journal"
    raw, _ = small_journal(path)
    path.write_bytes(raw[:-5])
    writer = JournalWriter(path)
    assert writer.found.problem.endswith(f"bytes, expected {48 + 192}")
    assert writer.quarantine is not None
    assert writer.quarantine.read_bytes() == raw[writer.found.size : -5]
    assert writer.begin_run(b"r2", 6) == 2
    writer.close()
    contents = journal.read_journal(path)
    assert contents.problem == ""
    assert len(contents.records) == 3


def test_digest_ignores_stamps_slots_and_runs(tmp_path):
    digests = []
    for run in (b"one", b"two"):
        orders = orders_of(8, 5)
        if run == b"two":
            for name in ("wire_ns", "risk_ns", "slot", "generation", "sequence"):
                orders[name] = 9
        path = tmp_path / run.decode()
        writer = JournalWriter(path)
        writer.begin_run(run, 1)
        writer.append([journal.make_record(journal.ORDER_SENT, orders[i].tobytes(), i, 0) for i in range(5)])
        writer.close()
        digests.append(journal.digest(path))
        assert digests[-1] == journal.digest_orders(orders)
    assert digests[0] == digests[1]
    orders["price"][3] += 1
    assert journal.digest_orders(orders) != digests[0]


def test_unwritable_journal_says_so(tmp_path):
    with pytest.raises(JournalError, match="No such file or directory"):
        JournalWriter(tmp_path / "absent" / "desk.journal")
    (tmp_path / "text").write_text("not a journal at all, this is text")
    assert journal.read_journal(tmp_path / "text").problem == "no journal's beginning"
    with pytest.raises(JournalError, match="no journal's beginning"):
        journal.digest(tmp_path / "text")
