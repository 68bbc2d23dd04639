"""The journal: what we did, in order, so that no order is ever forgotten.

The gateway appends records to a shared-memory byte ring (`append`: compiled, no system call, survives the death of any
process); a writer process takes them out, chains them and syncs them to a file (`JournalWriter`). Both know one format:

    offset 0      4      6       8        12     16         24        32       40       48
    ┌────────────┬──────┬───────┬────────┬──────┬──────────┬─────────┬────────┬────────┬──────────────┐
    │ magic u4   │ kind │ source│ length │  0   │ sequence │ time_ns │ check  │ chain  │ payload      │
    └────────────┴──────┴───────┴────────┴──────┴──────────┴─────────┴────────┴────────┴──────────────┘

`check` covers header and payload; `chain` covers `check` and the chain of the record before, so that a record that is
missing, repeated or moved shows as surely as a flipped bit. In the ring `chain` is 0. `length` is the payload's in
bytes, a multiple of 8. Little endian throughout. A file begins with FILE_MAGIC.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shrivenq.shm import byte_ring
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import COMPILED, inlined, kernel
from shrivenq.stages.messages import ORDER, REPORT

if TYPE_CHECKING:
    from pathlib import Path

RUN = 1  # payload RUN_RECORD: a run begins; durable before its first order
ORDER_SENT = 2  # payload ORDER: about to be sent
REPORT_SEEN = 3  # payload REPORT: as handed to risk
ARRIVAL = 4  # payload ARRIVAL_RECORD: the order in which a stage merged its inputs
NOTE = 5  # payload text, padded with zeros: arm, kill, limits changed
KINDS = {RUN: "run", ORDER_SENT: "order", REPORT_SEEN: "report", ARRIVAL: "arrival", NOTE: "note"}

RUN_RECORD = np.dtype([("run", "S40"), ("epoch", "<i8"), ("started_ns", "<i8"), ("pid", "<i8")], align=True)
ARRIVAL_RECORD = np.dtype(
    [("ring", "<i8"), ("first", "<i8"), ("count", "<i8")],  # `count` messages of input `ring` from sequence `first`
    align=True,
)

FILE_MAGIC = b"SHRIVENQ JOURNAL"
MAGIC = 0x4A515253
HEADER = np.dtype(
    [
        ("magic", "<u4"),
        ("kind", "<u2"),
        ("source", "<u2"),  # which producer
        ("length", "<u4"),
        ("zero", "<u4"),
        ("sequence", "<i8"),  # of this producer, from 0
        ("time_ns", "<i8"),
        ("check", "<i8"),
        ("chain", "<i8"),
    ],
    align=True,
)
assert HEADER.itemsize == 48
HEADER_WORDS = HEADER.itemsize // 8
CHECK_AT, CHAIN_AT = 32, 40
PAYLOAD_MAX = 4096

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
)
"""What makes two runs the same: no stamp, no slot, no run id."""


class JournalError(Exception):
    """A journal cannot be written, or a record in the ring is damaged; one line says which."""


# ── checksum ─────────────────────────────────────────────────────────────────────────────────────────────────────────

if COMPILED:
    _P1: Any = np.uint64(11400714785074694791)
    _P2: Any = np.uint64(14029467366897019727)
    _P3: Any = np.uint64(1609587929392839161)
    _P4: Any = np.uint64(9650029242287828579)
    _P5: Any = np.uint64(2870177450012600261)
    _64: Any = np.uint64(64)
    _29, _32, _33 = np.uint64(29), np.uint64(32), np.uint64(33)

    @inlined
    def _rotated(value: Any, bits: int) -> Any:
        return (value << np.uint64(bits)) | (value >> (_64 - np.uint64(bits)))

    @inlined
    def _round(lane: Any, word: int) -> Any:
        return _rotated(lane + np.uint64(word) * _P2, 31) * _P1

    @inlined
    def _merged(state: Any, lane: Any) -> Any:
        return (state ^ _round(np.uint64(0), lane)) * _P1 + _P4

    @kernel
    def checksum(words: Any, start: int, count: int, seed: int) -> Any:
        """Compute XXH64 of `count` int64 words from `start`; int64.

        Every step is a bijection of each word, so that no single damaged word goes unseen. Source: xxHash,
        specification 0.1.1, section "XXH64".
        """
        at, end = start, start + count
        state = np.uint64(seed) + _P5
        if count >= 4:
            first, second = np.uint64(seed) + _P1 + _P2, np.uint64(seed) + _P2
            third, fourth = np.uint64(seed), np.uint64(seed) - _P1
            while at + 4 <= end:
                first = _round(first, words[at])
                second = _round(second, words[at + 1])
                third = _round(third, words[at + 2])
                fourth = _round(fourth, words[at + 3])
                at += 4
            state = _rotated(first, 1) + _rotated(second, 7) + _rotated(third, 12) + _rotated(fourth, 18)
            state = _merged(_merged(_merged(_merged(state, first), second), third), fourth)
        state += np.uint64(8 * count)
        while at < end:
            state = _rotated(state ^ _round(np.uint64(0), words[at]), 27) * _P1 + _P4
            at += 1
        state = (state ^ (state >> _33)) * _P2
        state = (state ^ (state >> _29)) * _P3
        return np.int64(state ^ (state >> _32))

else:
    _MASK = 2**64 - 1
    _P1, _P2, _P3 = 11400714785074694791, 14029467366897019727, 1609587929392839161
    _P4, _P5 = 9650029242287828579, 2870177450012600261

    def _rotated(value: Any, bits: int) -> Any:
        return (value << bits | value >> (64 - bits)) & _MASK

    def _round(lane: Any, word: int) -> Any:
        return _rotated(lane + int(word) * _P2 & _MASK, 31) * _P1 & _MASK

    def checksum(words: Any, start: int, count: int, seed: int) -> Any:  # noqa: D103 - documented above
        found = [int(word) for word in words[start : start + count]]
        whole = count // 4 * 4
        state = int(seed) + _P5
        if whole:
            lanes = [seed + _P1 + _P2 & _MASK, seed + _P2 & _MASK, seed & _MASK, seed - _P1 & _MASK]
            for at in range(whole):
                lanes[at % 4] = _round(lanes[at % 4], found[at])
            state = sum(_rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
            for lane in lanes:
                state = ((state & _MASK) ^ _round(0, lane)) * _P1 + _P4
        state = state + 8 * count & _MASK
        for word in found[whole:]:
            state = _rotated(state ^ _round(0, word), 27) * _P1 + _P4 & _MASK
        state = (state ^ state >> 33) * _P2 & _MASK
        state = (state ^ state >> 29) * _P3 & _MASK
        state ^= state >> 32
        return state - 2**64 if state >> 63 else state


# ── the compiled end ─────────────────────────────────────────────────────────────────────────────────────────────────

SEQUENCE, FAILED, SOURCE = 0, 1, 2


@by_reference
class Journal(NamedTuple):
    """A producer of records: its byte ring and its counts."""

    ring: Any
    counts: Any  # int64: SEQUENCE, FAILED, SOURCE


def make_journal(ring: Any, source: int = 0) -> Journal:
    """Open the writing end of the byte ring `ring` as producer number `source`."""
    counts = np.zeros(4, np.int64)
    counts[SOURCE] = source
    return Journal(ring, counts)


@kernel
def append(journal: Any, kind: int, payload: Any, start: int, count: int, time_ns: int) -> bool:
    """Append a record of `count` int64 words of `payload` from `start`; False, and counted, if the ring is full."""
    offset = byte_ring.reserve(journal.ring, kind, 8 * (HEADER_WORDS + count), time_ns)
    if offset < 0:
        journal.counts[FAILED] += 1
        return False
    words = journal.ring.words
    at = offset >> 3
    words[at] = MAGIC | (kind << 32) | (journal.counts[SOURCE] << 48)
    words[at + 1] = 8 * count
    words[at + 2] = journal.counts[SEQUENCE]
    words[at + 3] = time_ns
    words[at + 4] = 0
    words[at + 5] = 0
    for i in range(count):
        words[at + HEADER_WORDS + i] = payload[start + i]
    words[at + 4] = checksum(words, at, HEADER_WORDS + count, 0)
    byte_ring.commit(journal.ring)
    journal.counts[SEQUENCE] += 1
    return True


def make_record(kind: int, payload: bytes, sequence: int, time_ns: int, source: int = 0) -> bytes:
    """Make a record in Python: RUN and NOTE come from the control plane. Raises JournalError if it is too long."""
    payload += bytes(-len(payload) % 8)
    if len(payload) > PAYLOAD_MAX:
        raise JournalError(f"a record holds {PAYLOAD_MAX} bytes, not {len(payload)}")
    record = bytearray(HEADER.itemsize) + payload
    header = np.frombuffer(record, HEADER, 1)
    header["magic"], header["kind"], header["source"] = MAGIC, kind, source
    header["length"], header["sequence"], header["time_ns"] = len(payload), sequence, time_ns
    header["check"] = checksum(np.frombuffer(record, np.int64), 0, len(record) // 8, 0)
    return bytes(record)


def check_record(record: bytes) -> str:
    """Say what is wrong with a record as it lies in the ring or in a file (`chain` aside); empty if nothing is."""
    if len(record) < HEADER.itemsize:
        return f"{len(record)} bytes, less than a header"
    copy = np.frombuffer(bytearray(record), np.uint8)
    header = copy[: HEADER.itemsize].view(HEADER)
    if header["magic"][0] != MAGIC:
        return f"magic {int(header['magic'][0]):#x}, expected {MAGIC:#x}"
    length = int(header["length"][0])
    if length % 8 or length > PAYLOAD_MAX:
        return f"length {length}"
    if len(record) != HEADER.itemsize + length:
        return f"{len(record)} bytes, expected {HEADER.itemsize + length}"
    found = int(header["check"][0])
    header["check"] = header["chain"] = 0
    expected = int(checksum(copy.view(np.int64), 0, len(record) // 8, 0))
    return "" if found == expected else f"checksum {found & 2**64 - 1:#018x}, expected {expected & 2**64 - 1:#018x}"


def _chained(record: bytes, chain: int) -> int:
    """Compute the chain of a record that follows one of chain `chain`."""
    check = np.frombuffer(record, np.int64, 1, CHECK_AT)
    return int(checksum(check, 0, 1, chain))


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Record:
    """One record of a journal."""

    kind: int
    source: int
    sequence: int
    time_ns: int
    payload: bytes

    def row(self) -> Any:
        """View the payload as one row of its dtype. Raises KeyError for a NOTE."""
        dtype = {RUN: RUN_RECORD, ORDER_SENT: ORDER, REPORT_SEEN: REPORT, ARRIVAL: ARRIVAL_RECORD}[self.kind]
        return np.frombuffer(self.payload, dtype, 1)[0]


@dataclass(frozen=True)
class Contents:
    """What a journal holds: the valid prefix, and what is wrong with the rest."""

    records: list[Record]
    size: int  # bytes of the valid prefix
    tail: int  # bytes after it
    problem: str  # why the tail is not valid; empty if there is none
    chain: int  # of the last valid record

    def epoch(self) -> int:
        """Find the last run's epoch; 0 if no run was ever noted."""
        return max((int(record.row()["epoch"]) for record in self.records if record.kind == RUN), default=0)


def read_journal(path: Path) -> Contents:
    """Read a journal up to the first byte that is not as it was written; a missing file is an empty journal."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Contents([], 0, 0, "", 0)
    if raw[: len(FILE_MAGIC)] != FILE_MAGIC:
        return Contents([], 0, len(raw), "no journal's beginning" if raw else "", 0)
    records: list[Record] = []
    at, chain, problem = len(FILE_MAGIC), 0, ""
    while at < len(raw) and not problem:
        if len(raw) - at < HEADER.itemsize:
            problem = "cut short in a header"
            break
        header = np.frombuffer(raw, HEADER, 1, at)[0]
        record = raw[at : at + HEADER.itemsize + min(int(header["length"]), PAYLOAD_MAX)]
        problem = check_record(record)
        following = 0 if problem else _chained(record, chain)
        if not problem and following != int(header["chain"]):
            problem = "out of its chain: a record before it is missing, repeated or moved"
        if not problem:
            chain = following
            kind, source = int(header["kind"]), int(header["source"])
            sequence, time_ns = int(header["sequence"]), int(header["time_ns"])
            records.append(Record(kind, source, sequence, time_ns, record[HEADER.itemsize :]))
            at += len(record)
    return Contents(records, at, len(raw) - at, f"at byte {at}: {problem}" if problem else "", chain)


class JournalWriter:
    """Appends records to a journal file, chained, and says how much is not yet on the disk.

    A tail that is not valid is moved to a file of its own beside the journal before anything is appended.
    """

    def __init__(self, path: Path, *, sync_every_ms: float = 50.0) -> None:
        """Open or continue `path`. Raises JournalError if it cannot be written."""
        self.path = path
        self.found = read_journal(path)
        self.quarantine: Path | None = None
        self.written = 0  # bytes since it was opened
        self.synced = 0  # of those, on the disk
        self._every_ns = int(sync_every_ms * 1e6)
        self._oldest_ns = 0
        self._chain = self.found.chain
        self._next: dict[int, int] = {}
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

    def _set_tail_aside(self) -> None:
        self.quarantine = self.path.with_name(f"{self.path.name}.tail-{time.time_ns()}")
        self.quarantine.write_bytes(self.path.read_bytes()[self.found.size :])
        os.truncate(self._descriptor, self.found.size)

    @property
    def lag(self) -> int:
        """Bytes written and not yet synced."""
        return self.written - self.synced

    def lag_ns(self) -> int:
        """Age of the oldest byte that is not yet synced, 0 if all are."""
        return time.monotonic_ns() - self._oldest_ns if self.lag else 0

    def begin_run(self, run: bytes, started_ns: int) -> int:
        """Note a new run and return its epoch, one more than the last; it is on the disk when this returns."""
        row = np.zeros(1, RUN_RECORD)
        epoch = self.found.epoch() + 1
        row["run"], row["epoch"], row["started_ns"], row["pid"] = run, epoch, started_ns, os.getpid()
        self._write([make_record(RUN, row.tobytes(), 0, started_ns)])
        self.sync()
        return epoch

    def note(self, text: str) -> None:
        """Append a remark (armed, killed, by whom and why) and sync it."""
        self._write([make_record(NOTE, text.encode(), self._notes, time.time_ns())])
        self._notes += 1
        self.sync()

    def append(self, records: list[bytes]) -> None:
        """Append records that came out of a ring; sync when the oldest unsynced one is old enough.

        Raises JournalError, with nothing written, if one is damaged or out of its producer's sequence.
        """
        following = dict(self._next)
        for record in records:
            problem = check_record(record)
            if problem:
                raise JournalError(f"{self.path}: a record in the ring is damaged: {problem}")
            header = np.frombuffer(record, HEADER, 1)[0]
            source, sequence = int(header["source"]), int(header["sequence"])
            if sequence != following.get(source, sequence):
                raise JournalError(
                    f"{self.path}: producer {source} sent record {sequence}, expected {following[source]}"
                )
            following[source] = sequence + 1
        self._write(records)
        self._next = following
        self.sync_if_due()

    def _write(self, records: list[bytes]) -> None:
        chained = bytearray()
        for record in records:
            self._chain = _chained(record, self._chain)
            chain = self._chain.to_bytes(8, "little", signed=True)
            chained += record[:CHAIN_AT] + chain + record[HEADER.itemsize :]
        view = memoryview(chained)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except OSError as error:
                raise JournalError(f"{self.path}: {error.strerror}") from None
        if chained and not self.lag:
            self._oldest_ns = time.monotonic_ns()
        self.written += len(chained)

    def sync_if_due(self) -> None:
        """Sync if something has waited for the configured time."""
        if self.lag and self.lag_ns() >= self._every_ns:
            self.sync()

    def sync(self) -> None:
        """Put everything written on the disk. Raises JournalError."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror}") from None
        self.synced = self.written

    def restart(self, source: int) -> None:
        """Expect producer `source` to count from anywhere again: it has been replaced."""
        self._next.pop(source, None)

    def detach(self) -> None:
        """Close this process's copy unsynced: a forked child writes on."""
        os.close(self._descriptor)

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        os.close(self._descriptor)


def digest_orders(orders: Any) -> str:
    """Hash ORDER rows: SHA-256 over DIGEST_FIELDS, each as a little-endian int64, order by order."""
    table = np.empty((len(orders), len(DIGEST_FIELDS)), "<i8")
    for column, name in enumerate(DIGEST_FIELDS):
        table[:, column] = orders[name]
    return hashlib.sha256(table.tobytes()).hexdigest()


def digest(path: Path) -> str:
    """Hash the orders of a journal; see `digest_orders`. Raises JournalError if the journal is damaged."""
    contents = read_journal(path)
    if contents.problem:
        raise JournalError(f"{path}: {contents.problem}")
    sent = b"".join(record.payload for record in contents.records if record.kind == ORDER_SENT)
    return digest_orders(np.frombuffer(sent, ORDER))
