"""The log of arrivals: a file beside a recording from which `reproduce` does a production run again.

    FOLDER/NAME-0001.zst, …             what came in, see `recorder`
    FOLDER/arrivals/NAME-0001.zst       in which order the stages took it, a file for each start

A file is zstd frames one behind the other. The first holds a Header in JSON; each of the others blocks, an index into
`arrivals.STAGES` and a count (two little-endian int64) and that many ARRIVAL rows. A file that was cut short is read up
to its last whole frame.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import zstandard

from shrivenq.pipeline import topology
from shrivenq.pipeline.config import as_document
from shrivenq.pipeline.instruments import SYMBOL, Tables
from shrivenq.shm import ring
from shrivenq.shm.atomics import load_word, store_word
from shrivenq.stages import arrivals
from shrivenq.stages import messages as m

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO

    from shrivenq.pipeline.config import Config
    from shrivenq.shm.ring import Consumer

FOLDER = "arrivals"
BLOCK = struct.Struct("<qq")


class LogError(Exception):
    """A log of arrivals cannot be read; one line says why."""


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run was, so that it can be built again."""

    name: str
    run: str
    epoch: int
    continues: bool
    """The recording's first frame says that frames before it are missing: there was an earlier run in its folder."""
    file: str
    """The configuration came from here …"""
    config: dict[str, Any]
    """… and said this."""
    instruments: bytes
    currencies: bytes
    """INSTRUMENT and CURRENCY rows: with the venue's stricter limits, and whatever becomes of the instrument file."""

    def tables(self) -> Tables:
        """Give the tables the run was built with. Raises LogError for bytes that are none."""
        try:
            found = Tables(np.frombuffer(self.instruments, m.INSTRUMENT), np.frombuffer(self.currencies, m.CURRENCY))
            if not all(SYMBOL.fullmatch(row["symbol"].decode("ascii", "replace")) for row in found.instruments):
                raise ValueError("rows of another size")
        except ValueError:
            raise LogError(f"{self.run}: its instruments are not those of this version") from None
        return Tables(*(one.copy() for one in found))


def header_of(config: Config, *, run: str, epoch: int, continues: bool) -> Header:
    """Describe a run."""
    return Header(
        name=config.name,
        run=run,
        epoch=epoch,
        continues=continues,
        file=str(config.file),
        config=as_document(config),
        instruments=config.tables().instruments.tobytes(),
        currencies=config.tables().currencies.tobytes(),
    )


def taken(end: Consumer) -> Any:
    """Take every ARRIVAL that waits on a ring."""
    head, tail, count = int(load_word(end.peer, ring.HEAD)), int(end.own[ring.TAIL]), len(end.slots)
    rows = end.slots[np.arange(tail, head) & (count - 1)]
    end.own[ring.CACHED] = head
    store_word(end.own, ring.TAIL, head)
    return rows


class ArrivalLog:
    """The log of one start. Raises OSError where it cannot be written."""

    def __init__(self, path: Path, header: Header, ends: Mapping[str, Consumer]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._ends = ends
        self._compressor = zstandard.ZstdCompressor()
        self._file: BinaryIO = path.open("xb", buffering=0)
        self._write(msgspec.json.encode(header))
        self._blocks: list[bytes] = []

    def _write(self, content: bytes) -> None:
        self._file.write(self._compressor.compress(content))

    def drain(self) -> int:
        """Take what waits on every ring; return how many rows that was."""
        count = 0
        for name, end in self._ends.items():
            rows = taken(end)
            if len(rows):
                self._blocks += [BLOCK.pack(arrivals.STAGES.index(name), len(rows)), rows.tobytes()]
                count += len(rows)
        return count

    def flush(self) -> None:
        """Write what was taken."""
        if self._blocks:
            self._write(b"".join(self._blocks))
            self._blocks = []

    def detach(self) -> None:
        """Leave the file to the process that was forked to write it."""
        self._file.close()

    def close(self) -> None:
        """Write everything and close the file."""
        self.drain()
        self.flush()
        self._file.close()


def consumers(segments: Mapping[str, Any]) -> dict[str, Consumer]:
    """Map the reading end of every stage's ring."""
    return {name: ring.consumer(segments[part]) for name, part in topology.ARRIVALS.items()}


def path_of(folder: Path, name: str, number: int) -> Path:
    """Name the log that goes with the recording that begins with file `number`."""
    return folder / FOLDER / f"{name}-{number:04}.zst"


def read(path: Path) -> tuple[Header, dict[str, Any]]:
    """Read a log: its header, and the ARRIVAL rows of each stage. Raises LogError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}") from None
    frames = _frames(raw)
    try:
        header = msgspec.json.decode(next(frames, b""), type=Header)
    except msgspec.DecodeError:
        raise LogError(f"{path}: no log of arrivals: its header expected at the beginning") from None
    found: dict[str, list[Any]] = {name: [] for name in arrivals.STAGES}
    for content in frames:
        at = 0
        while at < len(content):
            index, count = BLOCK.unpack_from(content, at)
            at += BLOCK.size
            found[arrivals.STAGES[index]].append(np.frombuffer(content, arrivals.ARRIVAL, count, at))
            at += count * arrivals.ARRIVAL.itemsize
    empty = np.zeros(0, arrivals.ARRIVAL)
    return header, {name: np.concatenate([empty, *rows]) for name, rows in found.items()}


def _frames(raw: bytes) -> Any:
    """Decompress frame by frame, up to the last whole one."""
    while raw:
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        try:
            content = decompressor.decompress(raw)
        except zstandard.ZstdError:
            return
        if not decompressor.eof:
            return
        raw = decompressor.unused_data
        yield content
