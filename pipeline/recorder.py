"""The recorder: every frame that came in, into files that `replay` reads back (docs/capture-format.md).

Market data appends each frame to the `raw` ring, with the time its stages reasoned with. The recorder takes them out
and writes zstd files `NAME-0001.zst`, `NAME-0002.zst`, … into a folder, each of chunks that are whole zstd frames, so
that a recorder that was killed leaves at most its last chunk unreadable. Beside them it writes the log of arrivals
(`arrival_log`), from which the run can be done again. It runs beside the path, only when nothing
else wants the CPU; should it fall behind, the recording says where it is incomplete, and so does the log.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import zstandard

from shrivenq.pipeline import arrival_log, placement, processes, topology
from shrivenq.shm import byte_ring
from shrivenq.shm.atomics import load_word
from shrivenq.stages import stage
from shrivenq.stages.capture import format_line
from shrivenq.stages.frames import CLOCKS, LOST, STAMP_BYTES, STAMPED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shrivenq.pipeline.arrival_log import ArrivalLog
    from shrivenq.pipeline.assembly import Assembly
    from shrivenq.pipeline.config import Config
    from shrivenq.pipeline.processes import Process

CHUNK_BYTES = 1 << 20
"""Text compressed at a time …"""
CHUNK_S = 1.0
"""… or as much as came in this time."""
FILE_BYTES = 1 << 28
"""Compressed size from which on the next file is begun."""
ORPHAN_S = 10.0
"""Without a supervisor the recorder ends when nothing came for this long: stages outlive it for a while."""
COUNT_BYTES = 8
"""Length of a LOST record that counts what had no room; a LOST frame of the source itself is empty."""
STAMP = struct.Struct("<qq")
"""What stands in front of a frame that the kernel or the card has stamped: the stamp, and of what clock it is."""


class Recording:
    """The files of one recording, continued from what the folder holds.

    Raises OSError where files cannot be written.
    """

    def __init__(self, folder: Path, name: str, log: Any, *, file_bytes: int = FILE_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name, self.log, self.file_bytes = folder, name, log, file_bytes
        numbers = [
            int(number)
            for path in folder.glob(f"{name}-*.zst")
            if (number := path.stem.removeprefix(f"{name}-")).isdigit()
        ]
        self.number = max(numbers, default=0)
        self.first = self.number + 1  # the file this start begins with
        self.continues = bool(numbers)
        self.lost = 0  # frames that had no room, as far as the recording tells
        self.last_ns = 0
        self._gap_told = not numbers
        self._file: BinaryIO | None = None
        self._lines: list[bytes] = []
        self._waiting = 0  # bytes of those
        self._since = time.monotonic()
        self._compressor = zstandard.ZstdCompressor()

    def add(self, records: Iterable[tuple[int, int, bytes]]) -> None:
        """Record frames, (kind, receive time, bytes) as they come off the ring."""
        for kind, time_ns, payload in records:
            if not self._gap_told:
                # Between two recordings in one folder frames are missing.
                self._gap_told = True
                self._line(time_ns, b"")
            if kind == LOST and len(payload) == COUNT_BYTES:
                self.tell_lost(int.from_bytes(payload, "little"), time_ns)
            elif kind & STAMPED:
                raw_ns, clock = STAMP.unpack_from(payload)
                stamp = b"@%s:%d" % (CLOCKS[clock].encode(), raw_ns)
                self._line(time_ns, payload[STAMP_BYTES:], kind & ~STAMPED, stamp)
            else:
                self._line(time_ns, payload, kind)
        if self._waiting >= CHUNK_BYTES:
            self.flush()

    def tell_lost(self, count: int, time_ns: int) -> None:
        """Say that by now `count` frames are missing, unless that was said."""
        if count != self.lost:
            self.log.warning("recording incomplete", missing=count - self.lost, missing_in_all=count)
            self.lost = count
            self._line(time_ns, b"")

    def _line(self, time_ns: int, payload: bytes, kind: int = LOST, stamp: bytes = b"") -> None:
        line = format_line(time_ns, payload, kind, stamp)
        self._lines.append(line)
        self._waiting += len(line)
        self.last_ns = time_ns

    def flush_if_due(self) -> bool:
        """Write what has waited for long enough; tell whether it had."""
        due = time.monotonic() - self._since >= CHUNK_S
        if due:
            self.flush()
        return due

    def flush(self) -> None:
        """Write what waits as one chunk; begin the next file after it if this one is full."""
        self._since = time.monotonic()
        if not self._lines:
            return
        if self._file is None:
            self.number += 1
            self._file = (self.folder / f"{self.name}-{self.number:04}.zst").open("xb", buffering=0)
        self._file.write(self._compressor.compress(b"".join(self._lines)))
        self._lines, self._waiting = [], 0
        if self._file.tell() >= self.file_bytes:
            self._end_file()

    def _end_file(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Write everything and close the file."""
        self.flush()
        self._end_file()


def start(config: Config, assembly: Assembly, run: str, epoch: int, log: Any) -> Process:
    """Start the recorder of a run. Raises OSError where its files cannot be made."""
    folder = Path(config.recorder.path)
    recording = Recording(folder, config.name, log)
    header = arrival_log.header_of(config, run=run, epoch=epoch, continues=recording.continues)
    path = arrival_log.path_of(folder, config.name, recording.first)
    noted = arrival_log.ArrivalLog(path, header, arrival_log.consumers(assembly.segments))
    ring = byte_ring.consumer(assembly.segments["raw"])
    loop, words = assembly.loop("market_data"), assembly.control_read("supervisor")
    try:
        return processes.start("recorder", lambda: main(recording, noted, ring, loop, words))
    finally:
        noted.detach()


def main(recording: Recording, log: ArrivalLog, ring: byte_ring.Consumer, loop: Any, supervisor: Any) -> int:
    """Be the recorder: move frames and arrivals to their files until the stages are done, or everybody else is gone.

    `loop` is market data's page, `supervisor` the supervisor's words. Files that cannot be written end the recording,
    not the pipeline: one line in the log says so.
    """
    placement.apply_side()
    parent = os.getppid()
    quiet_since = time.monotonic()
    try:
        while True:
            # Looked at before the ring: after it nothing more comes.
            stopping = load_word(supervisor, topology.STOP) == topology.STOP_JOURNAL
            orphaned = os.getppid() != parent and time.monotonic() - quiet_since > ORPHAN_S
            found = byte_ring.drain(ring)
            recording.add(found)
            noted = log.drain()
            if recording.flush_if_due():
                log.flush()
            if (stopping or orphaned) and not found and not noted:
                recording.tell_lost(load_word(loop, stage.UNRECORDED), recording.last_ns)
                recording.close()
                log.close()
                return 0
            if found or noted:
                quiet_since = time.monotonic()
            else:
                time.sleep(0.005)
    except OSError as error:
        recording.log.warning("recording ended", folder=str(recording.folder), reason=error.strerror)
        return 1
