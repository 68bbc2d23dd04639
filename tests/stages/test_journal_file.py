"""The journal's file: what is read is what was in the ring, once, and damage anywhere ends the valid prefix there."""

from __future__ import annotations

import hashlib
import os
import random
import re
from struct import unpack_from

import numpy as np
import pytest

from shrivenq.shm import byte_ring
from shrivenq.shm.ring import HIGH_WATER
from shrivenq.stages import journal, journal_file
from shrivenq.stages.journal import JournalError
from shrivenq.stages.journal_file import JournalWriter
from tests.stages.journal_rig import orders_of, records_of

ENTRY = 16 + 48 + 192
"""Bytes of an order's record in a ring."""


# ── the plain twin ───────────────────────────────────────────────────────────────────────────────────────────────────


def plain_problem(record):
    """Say what is wrong with a record of a file, its chain aside."""
    magic, kind, _, length, _, _, _, found, _ = unpack_from("<IHHIIqqqq", record)
    if magic != journal.MAGIC:
        return f"magic {magic:#x}, expected {journal.MAGIC:#x}"
    if length % 8 or length > (65536 if kind == journal.NOTE else 4096):
        return f"length {length}"
    if len(record) != 48 + length:
        return f"{len(record)} bytes, expected {48 + length}"
    bare = np.frombuffer(record[:32] + bytes(16) + record[48:], np.int64)
    expected = int(journal.checksum(bare, 0, len(bare), 0))
    return "" if found == expected else f"checksum {found & 2**64 - 1:#018x}, expected {expected & 2**64 - 1:#018x}"


def plain_read(raw):
    """Read a file record by record: (kind, source, sequence, time_ns, payload) of each, and what ends it."""
    found, at, chain = [], 16, 0
    if raw[:16] != journal.FILE_MAGIC:
        return [], "no journal's beginning" if raw else ""
    while at < len(raw):
        if len(raw) - at < 48:
            return found, f"at byte {at}: cut short in a header"
        _, kind, source, length, _, sequence, time_ns, _, _ = unpack_from("<IHHIIqqqq", raw, at)
        record = raw[at : at + 48 + length]
        problem = plain_problem(record)
        following = int(journal.checksum(np.frombuffer(record[32:40], np.int64), 0, 1, chain))
        if not problem and following != unpack_from("<q", record, 40)[0]:
            problem = "out of its chain: a record before it is missing, repeated or moved"
        if problem:
            return found, f"at byte {at}: {problem}"
        found.append((kind, source, sequence, time_ns, record[48:]))
        at, chain = at + len(record), following
    return found, ""


def spelled(contents):
    return [
        (*(int(row[name]) for name in ("kind", "source", "sequence", "time_ns")), contents.payload(i))
        for i, row in enumerate(contents.index)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_reading_is_its_plain_twin(tmp_path, rings, seed):
    chance = random.Random(seed)
    ring, path = rings(), tmp_path / "desk.journal"
    writer = JournalWriter(path)
    writer.begin_run(b"r1", 5)
    for i in range(12):
        if chance.random() < 0.3:
            writer.note("n" * chance.randrange(20_000))
        payload = chance.randbytes(8 * chance.randrange(513))
        ring.put(journal.make_record(chance.choice([2, 3, 4, 77]), payload, i, chance.getrandbits(60), 3))
        writer.drain(ring.consumer)
    writer.close()
    raw = path.read_bytes()
    assert spelled(journal_file.read_journal(path)) == plain_read(raw)[0]
    for _ in range(200):
        bad = bytearray(raw)
        begin, size = chance.randrange(len(raw)), 8 * chance.randrange(1, 30)
        if chance.random() < 0.3:
            begin = chance.randrange(16, 200)
        what = chance.randrange(4)
        if what == 0:
            bad[begin] ^= 1 << chance.randrange(8)
        elif what == 1:
            del bad[begin : begin + size]
        elif what == 2:
            bad[begin:begin] = bad[begin : begin + size]
        else:
            del bad[begin:]
        path.write_bytes(bad)
        contents = journal_file.read_journal(path)
        found, problem = plain_read(bytes(bad))
        assert (spelled(contents), contents.problem) == (found, problem), f"seed {seed}, {what} at {begin}"
        assert contents.size + contents.tail == len(bad)


# ── written and read ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_written_is_read(tmp_path, rings):
    ring, path = rings(), tmp_path / "desk.journal"
    writer = JournalWriter(path)
    assert writer.begin_run(b"r1", 1_000) == 1
    orders = orders_of(3, 20)
    assert ring.send(orders) == 20
    assert writer.drain(ring.consumer) == 20
    assert (ring.waits(), writer.drain(ring.consumer)) == (0, 0)
    assert int(ring.consumer.own[HIGH_WATER]) == 20 * ENTRY
    writer.note("armed desk by pat: morning")
    writer.close()
    contents = journal_file.read_journal(path)
    assert contents.problem == ""
    assert contents.index["kind"].tolist() == [journal.RUN, *[journal.ORDER_SENT] * 20, journal.NOTE]
    assert contents.rows(journal.ORDER_SENT).tobytes() == orders.tobytes()
    assert len(contents.rows(journal.REPORT_SEEN)) == 0
    assert contents.rows(journal.RUN)["run"].tolist() == [b"r1"]
    assert contents.payload(21).rstrip(b"\0") == b"armed desk by pat: morning"
    again = JournalWriter(path)
    assert again.begin_run(b"r2", 2_000) == 2
    again.close()
    assert journal_file.read_journal(path).epoch() == 2
    assert journal_file.read_journal(path).problem == ""


def test_rows_of_another_size_are_refused(tmp_path, rings):
    ring, path = rings(), tmp_path / "desk.journal"
    writer = JournalWriter(path)
    ring.put(journal.make_record(journal.ORDER_SENT, bytes(200), 0, 0))
    writer.drain(ring.consumer)
    writer.close()
    with pytest.raises(JournalError, match="does not hold the 192 bytes"):
        journal_file.read_journal(path).rows(journal.ORDER_SENT)


def test_more_than_a_batch_and_round_the_ring(tmp_path, rings):
    """Records of all lengths through a ring of four batches, again and again: also where they do not fit its end."""
    chance = random.Random(9)
    ring, path = rings(1 << 22), tmp_path / "desk.journal"
    writer = JournalWriter(path)
    sent = 0
    expected = []
    for _ in range(3):
        while True:
            record = journal.make_record(journal.NOTE, chance.randbytes(8 * chance.randrange(513)), sent, sent)
            data = np.frombuffer(record, np.uint8)
            if not byte_ring.append(ring.producer, journal.NOTE, data, 0, len(data), 0):
                break
            expected.append((journal.NOTE, 0, sent, sent, record[48:]))
            sent += 1
        assert writer.drain(ring.consumer) > 1000
    writer.close()
    contents = journal_file.read_journal(path)
    assert (spelled(contents), contents.problem) == (expected, "")


def test_synced_is_what_was_written_before_the_sync_began(tmp_path, rings, monkeypatch):
    ring = rings()
    writer = JournalWriter(tmp_path / "desk.journal")
    ring.send(orders_of(4, 3))
    writer.drain(ring.consumer)
    assert (writer.written, writer.synced) == (3 * 240, 0)
    fdatasync = os.fdatasync

    def slow(descriptor):
        ring.send(orders_of(4, 2))
        writer.drain(ring.consumer)
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    writer.sync()
    assert (writer.written, writer.synced) == (5 * 240, 3 * 240)
    monkeypatch.undo()
    writer.close()
    assert writer.synced == writer.written


# ── damage in the file ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small(tmp_path, rings):
    """Write a journal of three records; give its path, its bytes and where its parts end."""
    ring, path = rings(), tmp_path / "desk.journal"
    writer = JournalWriter(path)
    writer.begin_run(b"r1", 5)
    ring.put(*records_of(6, 2))
    writer.drain(ring.consumer)
    writer.close()
    index = journal_file.read_journal(path).index
    return path, path.read_bytes(), [16, *(index["offset"] + 48 + index["length"]).tolist()]


def test_every_flipped_byte_ends_the_prefix_at_its_record(small):
    path, raw, ends = small
    chance = random.Random(7)
    for at in range(len(raw)):
        bad = bytearray(raw)
        bad[at] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        contents = journal_file.read_journal(path)
        intact = 0 if at < 16 else sum(end <= at for end in ends) - 1
        assert len(contents.index) == intact, f"byte {at}"
        assert contents.problem, f"byte {at}"
        assert contents.size + contents.tail == len(raw)


def test_every_truncation_keeps_the_whole_records(small):
    path, raw, ends = small
    for size in range(len(raw)):
        path.write_bytes(raw[:size])
        contents = journal_file.read_journal(path)
        assert len(contents.index) == (0 if size < 16 else sum(end <= size for end in ends) - 1), f"size {size}"
        assert (contents.problem == "") == (size in ends or size == 0), f"size {size}"


def test_moved_repeated_and_missing_records_show(small):
    path, raw, ends = small
    parts = [raw[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    for order, intact in (((0, 1, 3), 1), ((0, 1, 2, 2), 2), ((0, 1, 3, 2), 1), ((0, 2, 3), 0)):
        path.write_bytes(b"".join(parts[part] for part in order))
        contents = journal_file.read_journal(path)
        assert len(contents.index) == intact, order
        assert re.search("out of its chain", contents.problem), order


def test_a_damaged_tail_is_set_aside_and_the_journal_goes_on(small):
    path, raw, _ = small
    path.write_bytes(raw[:-5])
    writer = JournalWriter(path)
    assert writer.found.problem.endswith(f"bytes, expected {48 + 192}")
    assert writer.quarantine is not None
    assert writer.quarantine.read_bytes() == raw[writer.found.size : -5]
    assert writer.begin_run(b"r2", 6) == 2
    writer.close()
    contents = journal_file.read_journal(path)
    assert contents.problem == ""
    assert len(contents.index) == 3


def test_unwritable_journal_says_so(tmp_path):
    with pytest.raises(JournalError, match="No such file or directory"):
        JournalWriter(tmp_path / "absent" / "desk.journal")
    (tmp_path / "text").write_text("not a journal at all, this is text")
    assert journal_file.read_journal(tmp_path / "text").problem == "no journal's beginning"


def test_digest_ignores_stamps_and_slots():
    orders = orders_of(8, 5)
    digest = journal_file.digest_orders(orders)
    for name in ("wire_ns", "risk_ns", "slot", "generation", "sequence"):
        orders[name] = 9
    assert journal_file.digest_orders(orders) == digest
    for name in ("price", "stop_price", "self_trade"):
        before = orders.copy()
        orders[name][3] += 1
        assert journal_file.digest_orders(orders) != digest
        orders = before


def test_the_digest_is_that_of_the_fields_one_after_the_other():
    orders = orders_of(8, 5)
    table = np.stack([orders[name].astype("<i8") for name in journal_file.DIGEST_FIELDS], axis=1)
    assert journal_file.digest_orders(orders) == hashlib.sha256(table.tobytes()).hexdigest()
