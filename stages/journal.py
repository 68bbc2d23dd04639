"""The journal: what we did, in order, so that no order is ever forgotten.

The gateway appends records to a shared-memory byte ring (`append`: compiled, no system call, survives the death of any
process); a writer process takes them out, chains them and syncs them to a file (`journal_file`). Both know one format:

    offset 0      4      6       8        12     16         24        32       40       48
    ┌────────────┬──────┬───────┬────────┬──────┬──────────┬─────────┬────────┬────────┬──────────────┐
    │ magic u4   │ kind │ source│ length │  0   │ sequence │ time_ns │ check  │ chain  │ payload      │
    └────────────┴──────┴───────┴────────┴──────┴──────────┴─────────┴────────┴────────┴──────────────┘

`check` covers header and payload; `chain` covers `check` and the chain of the record before, so that a record that is
missing, repeated or moved shows as surely as a flipped bit. In the ring `chain` is 0. `length` is the payload's in
bytes, a multiple of 8. Little endian throughout. A file begins with FILE_MAGIC.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import byte_ring
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import COMPILED, inlined, kernel

RUN = 1  # payload RUN_RECORD: a run begins; durable before its first order
ORDER_SENT = 2  # payload ORDER: about to be sent
REPORT_SEEN = 3  # payload REPORT: as handed to risk, `sequence` its position on `report`, -1 for one risk does not see
NOTE = 5  # payload text, padded with zeros: arm, kill, limits changed
KINDS = {RUN: "run", ORDER_SENT: "order", REPORT_SEEN: "report", NOTE: "note"}

RUN_RECORD = np.dtype([("run", "S40"), ("epoch", "<i8"), ("started_ns", "<i8"), ("pid", "<i8")], align=True)

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
NOTE_MAX = 1 << 16
"""Bytes of a NOTE's payload: it must hold the names of every instrument there can be."""


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
        count, seed = int(count), int(seed)
        found = [int(word) for word in words[start : start + count]]
        whole = count // 4 * 4
        state = seed + _P5
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
    longest = NOTE_MAX if kind == NOTE else PAYLOAD_MAX
    if len(payload) > longest:
        raise JournalError(f"a record holds {longest} bytes, not {len(payload)}")
    record = bytearray(HEADER.itemsize) + payload
    header = np.frombuffer(record, HEADER, 1)
    header["magic"], header["kind"], header["source"] = MAGIC, kind, source
    header["length"], header["sequence"], header["time_ns"] = len(payload), sequence, time_ns
    header["check"] = checksum(np.frombuffer(record, np.int64), 0, len(record) // 8, 0)
    return bytes(record)
