"""The journal's file: what is read is what was in the ring, once, and damage anywhere ends the valid prefix there."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
from struct import unpack_from

import numpy as np
import pytest

from shrivenq.shm import byte_ring
from shrivenq.shm.ring import HEAD, HIGH_WATER, TAIL
from shrivenq.stages import journal, journal_file
from shrivenq.stages import messages as m
from shrivenq.stages.journal import JournalError
from shrivenq.stages.journal_file import JournalWriter

ENTRY = 16 + 48 + 192
"""Bytes of an order's record in a ring."""


class Ring:
    """A byte ring, both ends of it."""

    def __init__(self, size):
        self.segment = byte_ring.create(f"shrivenq.test-journal-file-{os.getpid()}-{id(self)}", size)
        self.producer, self.consumer = byte_ring.producer(self.segment), byte_ring.consumer(self.segment)
        self.journal = journal.make_journal(self.producer)

    def put(self, *records):
        for record in records:
            data = np.frombuffer(record, np.uint8)
            assert byte_ring.append(self.producer, journal.ORDER_SENT, data, 0, len(data), 0)

    def send(self, orders, source=0):
        """Append orders as the gateway does; return how many found room."""
        words = orders.view(np.int64)
        self.journal.counts[journal.SOURCE] = source
        for row in range(len(orders)):
            if not journal.append(self.journal, journal.ORDER_SENT, words, 24 * row, 24, row):
                return row
        return len(orders)

    def waits(self):
        return len(byte_ring.waiting(self.consumer)[0])


@pytest.fixture
def rings():
    made = []

    def make(size=1 << 16):
        made.append(Ring(size))
        return made[-1]

    yield make
    for one in made:
        one.segment.unlink()
        one.segment.close()


def orders_of(seed, count):
    orders = np.frombuffer(random.Random(seed).randbytes(count * m.ORDER.itemsize), m.ORDER).copy()
    orders["kind"] = m.NEW
    return orders


def records_of(seed, count):
    orders = orders_of(seed, count)
    return [journal.make_record(journal.ORDER_SENT, orders[i].tobytes(), i, i) for i in range(count)]


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
            record = journal.make_record(journal.ARRIVAL, chance.randbytes(8 * chance.randrange(513)), sent, sent)
            data = np.frombuffer(record, np.uint8)
            if not byte_ring.append(ring.producer, journal.ARRIVAL, data, 0, len(data), 0):
                break
            expected.append((journal.ARRIVAL, 0, sent, sent, record[48:]))
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


# ── damage in the ring ───────────────────────────────────────────────────────────────────────────────────────────────


def damaged(record, at, bits=1):
    bad = bytearray(record)
    bad[at] ^= bits
    return bytes(bad)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda record: damaged(record, 100), "a record in the ring is damaged: checksum 0x"),
        (lambda record: damaged(record, 0), "a record in the ring is damaged: magic 0x4a515252, expected 0x4a515253"),
        (lambda record: damaged(record, 8), "a record in the ring is damaged: length 193"),
        (lambda record: damaged(record, 9, 16), "a record in the ring is damaged: length 4288"),
        (lambda record: record[:40], "a record in the ring is damaged: 40 bytes, less than a header"),
        (lambda record: record[:-8], "a record in the ring is damaged: 232 bytes, expected 240"),
        (lambda _: records_of(5, 4)[3], "producer 0 sent record 3, expected 2"),
        (lambda _: records_of(5, 4)[0], "producer 0 sent record 0, expected 2"),
    ],
)
def test_no_damaged_or_missing_record_enters(tmp_path, rings, damage, message):
    ring = rings()
    writer = JournalWriter(tmp_path / "desk.journal")
    writer.begin_run(b"run", 1)
    records = records_of(5, 3)
    ring.put(*records[:2], damage(records[2]))
    with pytest.raises(JournalError, match=f"desk.journal: {message}") as caught:
        writer.drain(ring.consumer)
    assert "\n" not in str(caught.value)
    assert ring.waits() == 1  # what was before it is written and released
    with pytest.raises(JournalError, match=message):
        writer.drain(ring.consumer)
    writer.close()
    contents = journal_file.read_journal(writer.path)
    assert contents.index["sequence"].tolist() == [0, 0, 1]
    assert contents.problem == ""


def test_a_ring_whose_own_lengths_are_damaged(tmp_path, rings):
    writer = JournalWriter(tmp_path / "desk.journal")
    chance = random.Random(8)
    for case in range(100):
        ring = rings(1 << 11)
        ring.put(*records_of(5, 3))
        writer.begin_run(b"run", case)
        bit = chance.randrange(48)
        ring.producer.words[chance.choice([0, 32, 64])] ^= 1 << bit
        if bit >= byte_ring.KIND_SHIFT:  # the kind, which nobody reads
            assert writer.drain(ring.consumer) == 3
        else:
            with pytest.raises(JournalError, match="damaged"):
                writer.drain(ring.consumer)
        ring.segment.unlink()
    writer.close()
    assert journal_file.read_journal(writer.path).problem == ""


def test_producers_count_for_themselves(tmp_path, rings):
    ring = rings()
    writer = JournalWriter(tmp_path / "desk.journal")
    ring.put(*[journal.make_record(journal.ARRIVAL, b"", i // 2, 0, i % 2) for i in range(8)])
    assert writer.drain(ring.consumer) == 8
    ring.put(journal.make_record(journal.ARRIVAL, b"", 5, 0, 1))
    with pytest.raises(JournalError, match="producer 1 sent record 5, expected 4"):
        writer.drain(ring.consumer)
    writer.close()


# ── death of the writer ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_written_and_not_released_is_written_once(tmp_path, rings, monkeypatch):
    ring, orders = rings(), orders_of(11, 30)
    first = JournalWriter(tmp_path / "desk.journal")
    first.begin_run(b"run", 1)
    ring.send(orders[:20])
    with monkeypatch.context() as patched:
        patched.setattr(byte_ring, "release_to", lambda *_: None)
        first.drain(ring.consumer)
    first.detach()
    # Torn in the middle of its last write, too.
    os.truncate(first.path, first.path.stat().st_size - 100)
    assert ring.waits() == 20
    ring.send(orders[20:])
    second = JournalWriter(first.path)
    assert second.quarantine is not None
    assert second.drain(ring.consumer) == 11
    second.close()
    contents = journal_file.read_journal(first.path)
    assert contents.problem == ""
    assert contents.rows(journal.ORDER_SENT).tobytes() == orders.tobytes()


def test_a_new_run_counts_anew(tmp_path, rings):
    path = tmp_path / "desk.journal"
    for run in range(2):
        ring = rings()
        writer = JournalWriter(path)
        writer.begin_run(b"run", run)
        ring.send(orders_of(12, 5))
        assert writer.drain(ring.consumer) == 5
        writer.close()
    assert journal_file.read_journal(path).index["sequence"].tolist() == [0, *range(5)] * 2


@pytest.mark.parametrize("seed", range(3))
def test_a_writer_killed_anywhere_loses_nothing(tmp_path, rings, seed):
    chance = random.Random(seed)
    ring, path, orders = rings(), tmp_path / "desk.journal", orders_of(seed, 6000)
    writer = JournalWriter(path)
    writer.begin_run(b"run", 1)
    writer.drain(ring.consumer)  # the machine code is there before the fork
    sent = 0
    for _ in range(10):
        pid = os.fork()
        if pid == 0:
            try:
                while True:
                    writer.drain(ring.consumer)
            finally:
                os._exit(1)
        writer.detach()
        until = min(len(orders), sent + chance.randrange(1, 600))
        while sent < until:
            sent += ring.send(orders[sent:until])
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, f"seed {seed}"
        contents = journal_file.read_journal(path)
        written = contents.rows(journal.ORDER_SENT)
        assert written.tobytes() == orders[: len(written)].tobytes(), f"seed {seed}"
        # What is not in the file is in the ring.
        assert sent - ring.waits() <= len(written) <= sent, f"seed {seed}"
        writer = JournalWriter(path)
    while sent < len(orders):
        sent += ring.send(orders[sent:])
        writer.drain(ring.consumer)
    writer.drain(ring.consumer)
    writer.close()
    contents = journal_file.read_journal(path)
    assert contents.problem == ""
    assert contents.rows(journal.ORDER_SENT).tobytes() == orders.tobytes(), f"seed {seed}"


# ── the writer's process ─────────────────────────────────────────────────────────────────────────────────────────────


def test_serving_drains_everything_syncs_and_closes(tmp_path, rings, monkeypatch):
    ring, orders = rings(), orders_of(13, 50)
    writer = JournalWriter(tmp_path / "desk.journal")
    quiet, synced = [], []
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(writer.written))

    def over(quiet_s):
        quiet.append(quiet_s)
        ring.send(orders[10 * len(quiet) - 10 : 10 * len(quiet)])
        return len(quiet) >= 5

    writer.serve(ring.consumer, over, sync_every_ms=1.0)
    monkeypatch.undo()
    assert writer.synced == writer.written == synced[-1] == 50 * 240
    assert journal_file.read_journal(writer.path).rows(journal.ORDER_SENT).tobytes() == orders.tobytes()
    assert all(one >= 0 for one in quiet)
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.detach()


def test_a_sync_that_takes_long_does_not_hold_up_the_ring(tmp_path, rings, monkeypatch):
    """The first sync ends only when everything has been drained."""
    ring, orders = rings(), orders_of(14, 50)
    writer = JournalWriter(tmp_path / "desk.journal")
    began, drained = journal_file.threading.Event(), journal_file.threading.Event()

    def slow(_):
        began.set()
        assert drained.wait(60)

    monkeypatch.setattr(os, "fdatasync", slow)
    asked = []

    def over(_):
        if not asked:
            asked.append(ring.send(orders[:10]))
        elif began.is_set() and len(asked) == 1:
            asked.append(ring.send(orders[10:]))
        if writer.written == 50 * 240:
            drained.set()
        return drained.is_set()

    writer.serve(ring.consumer, over, sync_every_ms=1.0)
    assert writer.written == 50 * 240


def test_a_failed_sync_ends_the_writer(tmp_path, rings, monkeypatch):
    ring = rings()
    writer = JournalWriter(tmp_path / "desk.journal")
    ring.send(orders_of(15, 3))

    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(JournalError, match=r"desk.journal: Input/output error"):
        writer.serve(ring.consumer, lambda _: False, sync_every_ms=1.0)
    assert journal_file.threading.active_count() == 1
    assert writer.synced == 0
    writer.detach()


def test_a_full_disk_leaves_the_rest_in_the_ring(tmp_path, rings, monkeypatch):
    ring = rings()
    writer = JournalWriter(tmp_path / "desk.journal")
    ring.send(orders_of(16, 3))

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        with pytest.raises(JournalError, match="No space left on device"):
            writer.drain(ring.consumer)
    assert ring.waits() == 3
    assert int(ring.consumer.own[TAIL]) == 0 < int(ring.consumer.peer[HEAD])
    writer.detach()


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
    orders["price"][3] += 1
    assert journal_file.digest_orders(orders) != digest
