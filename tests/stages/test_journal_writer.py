"""The journal writer: nothing damaged enters, nothing is lost whoever dies, and syncing holds nobody up."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading

import pytest

from shrivenq.shm import byte_ring
from shrivenq.shm.ring import HEAD, TAIL
from shrivenq.stages import journal, journal_file
from shrivenq.stages.journal import JournalError
from shrivenq.stages.journal_file import JournalWriter
from tests.stages.journal_rig import orders_of, records_of

ENTRY = 16 + 48 + 192
"""Bytes of an order's record in a ring."""


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
    ring.put(*[journal.make_record(journal.NOTE, b"", i // 2, 0, i % 2) for i in range(8)])
    assert writer.drain(ring.consumer) == 8
    ring.put(journal.make_record(journal.NOTE, b"", 5, 0, 1))
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


@pytest.mark.parametrize(("sync_every_ms", "is_soon"), [(5.0, True), (0.5, True), (1e6, False)])
def test_a_sync_begins_when_it_is_due_and_no_record_has_to_follow(tmp_path, rings, monkeypatch, sync_every_ms, is_soon):
    ring, looks, synced = rings(), [], []
    writer = JournalWriter(tmp_path / "desk.journal")
    ring.send(orders_of(17, 10))
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(writer.written))

    def over(_):
        looks.append(len(synced))
        return bool(synced) or len(looks) == 50 * (1 + 100 * is_soon)

    writer.serve(ring.consumer, over, sync_every_ms=sync_every_ms)
    assert (looks[-1] > 0) == is_soon
    assert synced[-1] == 10 * 240


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
    before = threading.active_count()
    with pytest.raises(JournalError, match=r"desk.journal: Input/output error"):
        writer.serve(ring.consumer, lambda _: False, sync_every_ms=1.0)
    assert threading.active_count() == before
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
