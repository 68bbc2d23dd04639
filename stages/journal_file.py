"""The journal's file: verified whole when it is read, written from the ring a batch at a time.

Both ways are compiled: one kernel looks at every record of a file, one at every record that waits in a ring. What a
writer takes is verified, chained and copied into a buffer; the buffer is written, and only then is the ring released.
So what a writer dies with is in the ring, in the file, or in both, and the next writer tells which by the sequences.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shrivenq.shm import byte_ring
from shrivenq.shm.atomics import load_word
from shrivenq.shm.byte_ring import KIND_SHIFT, LENGTH_MASK, PADDING, RECORD_SIZE
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.shm.ring import HEAD, HIGH_WATER, TAIL
from shrivenq.stages.journal import (
    CHAIN_AT,
    CHECK_AT,
    FILE_MAGIC,
    HEADER,
    HEADER_WORDS,
    MAGIC,
    NOTE,
    NOTE_MAX,
    ORDER_SENT,
    PAYLOAD_MAX,
    REPORT_SEEN,
    RUN,
    RUN_RECORD,
    JournalError,
    checksum,
    make_record,
)
from shrivenq.stages.messages import ORDER, REPORT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAYLOADS = {RUN: RUN_RECORD, ORDER_SENT: ORDER, REPORT_SEEN: REPORT}
"""Of the kinds whose payload is one row."""

INDEX = np.dtype(
    [
        ("offset", "<i8"),  # of the record in the file
        ("sequence", "<i8"),
        ("time_ns", "<i8"),
        ("length", "<i8"),  # of the payload
        ("kind", "<i4"),
        ("source", "<i4"),
    ],
    align=True,
)
"""Where the records of a file are."""

BATCH_BYTES = 1 << 20
SOURCES = 1 << 16
LOOK_S, SOON_S = 0.005, 0.001
"""Longest time between two looks at the ring, and the one after a look that found much: a look takes a CPU that a stage
may be using for 50 µs."""
MUCH = 8
"""Much is more than this part of the ring: it would be full after ten looks like that."""

DIGEST_FIELDS = (
    "kind",
    "instrument",
    "side",
    "order_type",
    "time_in_force",
    "price",
    "quantity",
    "order_id",
    "target_id",
    "time_ns",
    "cause",
    "stop_price",
    "self_trade",
)
"""What makes two runs the same: no stamp, no slot, no run id."""

# ── one record ───────────────────────────────────────────────────────────────────────────────────────────────────────

_SIZE, _CHECK, _CHAIN = HEADER.itemsize, CHECK_AT // 8, CHAIN_AT // 8

# Words of a state.
POSITION = 0  # bytes: in the file, or as the ring counts them
COUNT = 1  # records found
USED = 2  # words of the batch in use
CHAINED = 3  # chain of the last record
CONTINUES = 4  # 1 until a record comes that the file does not hold
FOUND, EXPECTED, SOURCE = 5, 6, 7  # in a record with something wrong

# What can be wrong.
SHORT, FOREIGN, LENGTH, CUT, DAMAGED, UNCHAINED, HEADLESS, BEYOND, ASTRAY = 1, 2, 3, 4, 5, 6, 7, 8, 9


@inlined
def _examine(words: Any, at: int, size: int, copy: Any, to: int, state: Any) -> int:
    """Copy the record of `size` bytes at `words[at]` to `copy[to]`, its chain 0; return what is wrong with it, or 0."""
    state[FOUND], state[EXPECTED] = size, 0
    if size < _SIZE:
        return SHORT
    magic = words[at] & LENGTH_MASK
    if magic != MAGIC:
        state[FOUND] = magic
        return FOREIGN
    length = words[at + 1] & LENGTH_MASK
    longest = NOTE_MAX if (words[at] >> 32) & 0xFFFF == NOTE else PAYLOAD_MAX
    if length & 7 != 0 or length > longest:
        state[FOUND] = length
        return LENGTH
    state[EXPECTED] = _SIZE + length
    if size != _SIZE + length:
        return CUT
    count = size >> 3
    for i in range(count):
        copy[to + i] = words[at + i]
    found = copy[to + _CHECK]
    copy[to + _CHECK] = 0
    copy[to + _CHAIN] = 0
    check = checksum(copy, to, count, 0)
    copy[to + _CHECK] = check
    state[FOUND], state[EXPECTED] = found, check
    return 0 if found == check else DAMAGED


def _problem(code: int, state: Any) -> str:
    """Spell what is wrong."""
    found, expected = int(state[FOUND]), int(state[EXPECTED])
    return {
        SHORT: f"{found} bytes, less than a header",
        FOREIGN: f"magic {found:#x}, expected {MAGIC:#x}",
        LENGTH: f"length {found}",
        CUT: f"{found} bytes, expected {expected}",
        DAMAGED: f"checksum {found & 2**64 - 1:#018x}, expected {expected & 2**64 - 1:#018x}",
        UNCHAINED: "out of its chain: a record before it is missing, repeated or moved",
        HEADLESS: "cut short in a header",
        BEYOND: f"{found} bytes, of which the ring holds {expected}",
    }[code]


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def _scan(words: Any, size: int, index: Any, scratch: Any, state: Any) -> int:
    """Index the records of a file of `size` bytes from POSITION on; return what is wrong there, 0 at its end."""
    while state[POSITION] < size:
        left = size - state[POSITION]
        if left < _SIZE:
            return HEADLESS
        at = state[POSITION] >> 3
        length = words[at + 1] & LENGTH_MASK
        wrong = _examine(words, at, min(left, _SIZE + length), scratch, 0, state)
        if wrong != 0:
            return wrong
        chain = checksum(scratch, _CHECK, 1, state[CHAINED])
        if chain != words[at + _CHAIN]:
            return UNCHAINED
        i = state[COUNT]
        index[i]["offset"] = state[POSITION]
        index[i]["kind"] = (words[at] >> 32) & 0xFFFF
        index[i]["source"] = (words[at] >> 48) & 0xFFFF
        index[i]["length"] = length
        index[i]["sequence"] = words[at + 2]
        index[i]["time_ns"] = words[at + 3]
        state[CHAINED] = chain
        state[COUNT] += 1
        state[POSITION] += _SIZE + length
    return 0


@dataclass(frozen=True)
class Contents:
    """What a journal holds: the valid prefix, and what is wrong with the rest."""

    words: Any  # int64, read-only: the file
    index: Any  # an INDEX row for each valid record
    size: int  # bytes of the valid prefix
    tail: int  # bytes after it
    problem: str  # why the tail is not valid; empty if there is none
    chain: int  # of the last valid record

    def payload(self, record: int) -> bytes:
        """Copy the payload of the record of that number."""
        row = self.index[record]
        begin = int(row["offset"]) // 8 + HEADER_WORDS
        return bytes(self.words[begin : begin + int(row["length"]) // 8])

    def rows(self, kind: int) -> Any:
        """Copy all payloads of `kind`, in order, as rows of its dtype.

        Raises KeyError for a NOTE, JournalError if a payload is not one row.
        """
        dtype = PAYLOADS[kind]
        found = self.index[self.index["kind"] == kind]
        if not len(found):
            return np.zeros(0, dtype)
        if np.any(found["length"] != dtype.itemsize):
            raise JournalError(f"a record of kind {kind} does not hold the {dtype.itemsize} bytes of this version")
        windows = np.lib.stride_tricks.sliding_window_view(self.words, dtype.itemsize // 8)
        return windows[found["offset"] // 8 + HEADER_WORDS].reshape(-1).view(dtype)

    def epoch(self) -> int:
        """Find the last run's epoch; 0 if no run was ever noted."""
        return int(self.rows(RUN)["epoch"].max(initial=0))


def read_journal(path: Path) -> Contents:
    """Read a journal up to the first byte that is not as it was written; a missing file is an empty journal."""
    try:
        raw = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raw = np.zeros(0, np.uint8)
    words = raw[: len(raw) & ~7].view(np.int64)
    words.flags.writeable = False
    if bytes(raw[: len(FILE_MAGIC)]) != FILE_MAGIC:
        return Contents(words, np.zeros(0, INDEX), 0, len(raw), "no journal's beginning" if len(raw) else "", 0)
    index = np.empty(len(raw) // _SIZE, INDEX)
    scratch, state = np.zeros((_SIZE + NOTE_MAX) // 8, np.int64), np.zeros(8, np.int64)
    state[POSITION] = len(FILE_MAGIC)
    wrong = _scan(words, len(raw), index, scratch, state)
    size = int(state[POSITION])
    problem = f"at byte {size}: {_problem(wrong, state)}" if wrong else ""
    return Contents(words, index[: state[COUNT]].copy(), size, len(raw) - size, problem, int(state[CHAINED]))


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@by_reference
class Batch(NamedTuple):
    """Records on their way from a ring to a file."""

    words: Any  # int64: chained records, as the file has them
    following: Any  # int64: the next sequence of each producer, 0 before its first record
    state: Any  # int64


@kernel
def _collect(ring: Any, batch: Batch, head: int) -> int:
    """Verify, chain and copy what waits from POSITION up to `head`, as far as there is room in the batch.

    Returns what is wrong with the record at POSITION, 0 if nothing is. Nothing is given back to the producer.
    """
    state, words, size = batch.state, ring.words, 8 * ring.words.shape[0]
    state[USED], state[COUNT] = 0, 0
    while state[POSITION] < head:
        offset = state[POSITION] & (size - 1)
        first = words[offset >> 3]
        length = first & LENGTH_MASK
        padding = first >> KIND_SHIFT == PADDING
        span = 8 + length if padding else RECORD_SIZE + ((length + 7) & ~7)
        there = min(head - state[POSITION], size - offset)
        if span > there:
            state[FOUND], state[EXPECTED] = length, there
            return BEYOND
        if not padding:
            to = state[USED]
            if to > 0 and to + (length >> 3) > batch.words.shape[0]:
                return 0
            at = (offset + RECORD_SIZE) >> 3
            wrong = _examine(words, at, length, batch.words, to, state)
            if wrong != 0:
                return wrong
            source, sequence = (words[at] >> 48) & 0xFFFF, words[at + 2]
            expected = batch.following[source]
            repeated = state[CONTINUES] != 0 and sequence < expected
            if expected != 0 and sequence != expected and not repeated:  # noqa: PLR1714 - a kernel: no set
                state[SOURCE], state[FOUND], state[EXPECTED] = source, sequence, expected
                return ASTRAY
            if not repeated:
                state[CONTINUES] = 0
                state[CHAINED] = checksum(batch.words, to + _CHECK, 1, state[CHAINED])
                batch.words[to + _CHAIN] = state[CHAINED]
                batch.following[source] = sequence + 1
                state[USED] += length >> 3
                state[COUNT] += 1
        state[POSITION] += span
    return 0


class JournalWriter:
    """Appends records to a journal file, chained, and says how much of it is on the disk.

    A tail that is not valid is moved to a file of its own beside the journal before anything is appended. The writer
    goes on with the journal's last run, and leaves out what that run's ring still holds of it; or it begins a new one.
    """

    def __init__(self, path: Path) -> None:
        """Open or continue `path`. Raises JournalError if it cannot be written."""
        self.path = path
        self.found = read_journal(path)
        self.quarantine: Path | None = None
        self.written = 0  # bytes since it was opened
        self.synced = 0  # of those, on the disk
        self._batch = Batch(np.empty(BATCH_BYTES // 8, np.int64), np.zeros(SOURCES, np.int64), np.zeros(8, np.int64))
        self._bytes = memoryview(self._batch.words).cast("B")
        self._batch.state[CHAINED] = self.found.chain
        self._continue_run()
        self._notes = 0
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if self.found.tail:
                self._set_tail_aside()
            if self.found.size == 0:
                os.truncate(self._descriptor, 0)
                os.write(self._descriptor, FILE_MAGIC)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror}") from None

    def _continue_run(self) -> None:
        """Find what the last run's producers send next. RUN and NOTE come from elsewhere, with numbers of their own."""
        kinds = self.found.index["kind"]
        run = self.found.index[np.flatnonzero(kinds == RUN)[-1] :] if RUN in kinds else self.found.index
        sent = run[(run["kind"] != RUN) & (run["kind"] != NOTE)]
        np.maximum.at(self._batch.following, sent["source"], sent["sequence"] + 1)
        self._batch.state[CONTINUES] = 1

    def _set_tail_aside(self) -> None:
        self.quarantine = self.path.with_name(f"{self.path.name}.tail-{time.time_ns()}")
        self.quarantine.write_bytes(self.path.read_bytes()[self.found.size :])
        os.truncate(self._descriptor, self.found.size)

    def begin_run(self, run: bytes, started_ns: int) -> int:
        """Note a new run and return its epoch, one more than the last; it is on the disk when this returns."""
        row = np.zeros(1, RUN_RECORD)
        epoch = self.found.epoch() + 1
        row["run"], row["epoch"], row["started_ns"], row["pid"] = run, epoch, started_ns, os.getpid()
        self._append(make_record(RUN, row.tobytes(), 0, started_ns))
        self._batch.following[:] = 0
        self._batch.state[CONTINUES] = 0
        return epoch

    def note(self, text: str) -> None:
        """Append a remark (armed, killed, by whom and why) and sync it."""
        self._append(make_record(NOTE, text.encode(), self._notes, time.time_ns()))
        self._notes += 1

    def _append(self, record: bytes) -> None:
        """Append and sync one record of our own."""
        words: Any = np.frombuffer(bytearray(record), np.int64)
        words[_CHAIN] = self._batch.state[CHAINED] = checksum(words, _CHECK, 1, int(self._batch.state[CHAINED]))
        self._write(memoryview(words).cast("B"))
        self.sync()

    def drain(self, ring: byte_ring.Consumer) -> int:
        """Move what waits in a ring into the file, written first, released second; return how many records that was.

        Raises JournalError at a record that is damaged or out of its producer's sequence, with what came before it
        written, and itself and all that follows still in the ring.
        """
        head, tail, state = int(load_word(ring.peer, HEAD)), int(ring.own[TAIL]), self._batch.state
        ring.own[HIGH_WATER] = max(int(ring.own[HIGH_WATER]), head - tail)
        state[POSITION] = tail
        count = 0
        while state[POSITION] < head:
            wrong = _collect(ring, self._batch, head)
            self._write(self._bytes[: 8 * int(state[USED])])
            byte_ring.release_to(ring, int(state[POSITION]))
            count += int(state[COUNT])
            if wrong == ASTRAY:
                raise JournalError(
                    f"{self.path}: producer {state[SOURCE]} sent record {state[FOUND]}, expected {state[EXPECTED]}"
                )
            if wrong:
                raise JournalError(f"{self.path}: a record in the ring is damaged: {_problem(wrong, state)}")
        return count

    def _write(self, view: memoryview) -> None:
        size = len(view)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except OSError as error:
                raise JournalError(f"{self.path}: {error.strerror}") from None
        self.written += size

    def sync(self) -> None:
        """Put everything written so far on the disk. Raises JournalError."""
        written = self.written  # more may be written meanwhile, by another thread
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror}") from None
        self.synced = written

    def serve(self, ring: byte_ring.Consumer, over: Callable[[float], bool], *, sync_every_ms: float) -> None:
        """Be the journal writer until nothing comes any more; then close.

        `over` is asked, with the seconds since the last record, whether there will be no more; what waits then is still
        written. A record's sync begins within `sync_every_ms`. Raises JournalError.
        """
        every_s = sync_every_ms / 1e3
        look_s = min(every_s, LOOK_S)
        syncing = _Syncing(self)
        came_at = sync_at = time.monotonic()
        try:
            while True:
                # Asked before the ring is looked at: after it nothing more comes.
                ending = over(time.monotonic() - came_at)
                before, drained = self.written, self.drain(ring)
                syncing.check()
                now = time.monotonic()
                if drained:
                    came_at = now
                elif ending:
                    break
                # What waits for the look after this one would come too late.
                if self.synced < self.written and now + look_s > sync_at + every_s:
                    sync_at = now
                    syncing.begin()
                time.sleep(min(SOON_S, look_s) if MUCH * (self.written - before) > len(ring.data) else look_s)
        finally:
            syncing.end()
        syncing.check()
        self.close()

    def detach(self) -> None:
        """Close this process's copy unsynced: a forked child writes on."""
        os.close(self._descriptor)

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        os.close(self._descriptor)


class _Syncing:
    """A thread that syncs a writer's file: that takes tens of milliseconds, which draining the ring must not wait."""

    def __init__(self, writer: JournalWriter) -> None:
        self._writer = writer
        self._error: JournalError | None = None
        self._wanted = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while self._wanted.wait() and not self._is_over:
                self._wanted.clear()
                self._writer.sync()
        except JournalError as error:
            self._error = error

    def begin(self) -> None:
        """Have everything written so far synced, after the sync that is under way, if one is."""
        self._wanted.set()

    def check(self) -> None:
        """Raise the JournalError that ended the thread, if one did."""
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Stop, once a sync that is under way is over."""
        self._is_over = True
        self._wanted.set()
        self._thread.join()


# ── digests ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def digest_orders(orders: Any) -> str:
    """Hash ORDER rows: SHA-256 over DIGEST_FIELDS, each as a little-endian int64, order by order."""
    table = np.empty((len(orders), len(DIGEST_FIELDS)), "<i8")
    for column, name in enumerate(DIGEST_FIELDS):
        table[:, column] = orders[name]
    return hashlib.sha256(table.tobytes()).hexdigest()
