"""Write what a ring carried to a file: CSV or JSON lines, prices and quantities in the venue's decimals.

BOOK rows say: venue update id, receive ns, instrument, valid, ten levels a side (price and quantity, empty beyond the
last). Other rings are written field by field.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.pipeline.topology import RING
from shrivenq.shm import ring
from shrivenq.shm.atomics import load_word
from shrivenq.stages import messages as m

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PRICES = ("price", "bid_price", "ask_price", "last_price")
QUANTITIES = ("quantity", "bid_quantity", "ask_quantity", "last_quantity", "filled", "leaves")


class DumpError(Exception):
    """A dump was asked for that cannot be written; one line says why."""


def decimal(value: int, decimals: int) -> str:
    """Spell an integer at a decimal exponent: (6173763, 2) is "61737.63"."""
    if decimals == 0:
        return str(value)
    sign, digits = ("-" if value < 0 else ""), str(abs(value)).zfill(decimals + 1)
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}"


def parse(request: str) -> tuple[str, Path]:
    """Read a `RING=FILE` request. Raises DumpError."""
    name, separator, file = request.partition("=")
    if not separator or not file:
        raise DumpError(f"--dump {request}: expected RING=FILE")
    if name not in RING:
        raise DumpError(f"--dump {request}: no ring {name}; expected one of {', '.join(RING)}")
    if not file.endswith((".csv", ".jsonl")):
        raise DumpError(f"--dump {request}: expected a file ending in .csv or .jsonl")
    return name, Path(file)


def parse_all(requests: Sequence[str]) -> list[tuple[str, Path]]:
    """Read all requests. Raises DumpError, for a ring that is asked for twice too."""
    found = [parse(one) for one in requests]
    for at, (name, _) in enumerate(found):
        if name in [before for before, _ in found[:at]]:
            raise DumpError(f"--dump {requests[at]}: ring {name} is dumped already")
    return found


class Dump:
    """One ring's dump: drains an observer and writes rows."""

    def __init__(self, name: str, path: Path, tap: Any, instruments: Any) -> None:
        self.name = name
        self.tap = tap
        self.rows = 0
        self._instruments = instruments
        try:
            self._file = path.open("w", newline="")
        except OSError as error:
            raise DumpError(f"{path}: cannot be written: {error.strerror}") from None
        self._json = path.suffix == ".jsonl"
        self._csv = csv.writer(self._file)
        if not self._json:
            self._csv.writerow(self.header())

    def header(self) -> list[str]:
        """Name the columns."""
        if self.name == "book":
            levels = [
                f"{side}_{i}_{what}"
                for side in ("bid", "ask")
                for i in range(m.DEPTH)
                for what in ("price", "quantity")
            ]
            return ["update_id", "receive_ns", "instrument", "valid", "blind", *levels]
        return list(RING[self.name].dtype.names or ())

    def drain(self) -> int:
        """Write what was published since the last call; return the number of messages taken."""
        words, slots = self.tap.own, self.tap.slots
        head, tail = int(load_word(self.tap.peer, ring.HEAD)), int(words[ring.TAIL])
        if head == tail:
            return 0
        indices = np.arange(tail, head) & (len(slots) - 1)
        for row in self._rows(slots[indices]):
            self.rows += 1
            if self._json:
                self._file.write(json.dumps(dict(zip(self.header(), row, strict=True))) + "\n")
            else:
                self._csv.writerow(row)
        words[ring.TAIL] = head
        return head - tail

    def _rows(self, records: Any) -> Iterator[list[Any]]:
        if self.name == "book":
            for record in records[records["kind"] == m.DEPTH_BOOK]:
                yield self._book_row(record)
            return
        for record in records:
            yield [self._value(record, name) for name in self.header()]

    def _scales(self, record: Any) -> tuple[int, int]:
        at = int(record["instrument"])
        if not 0 <= at < len(self._instruments):
            return 0, 0  # what a strategy asked for, and risk denied: no instrument of ours, so no decimals
        row = self._instruments[at]
        return int(row["price_decimals"]), int(row["quantity_decimals"])

    def _book_row(self, record: Any) -> list[Any]:
        prices, quantities = self._scales(record)
        symbol = self._instruments[record["instrument"]]["symbol"].decode()
        flags = int(record["flags"])
        row: list[Any] = [
            int(record["update_id"]),
            int(record["time_ns"]),
            symbol,
            int(bool(flags & m.VALID)),
            int(bool(flags & m.BLIND)),
        ]
        for side in ("bid", "ask"):
            count = int(record[f"{side}_count"])
            for i in range(m.DEPTH):
                level = i < count
                row.append(decimal(int(record[f"{side}_price"][i]), prices) if level else "")
                row.append(decimal(int(record[f"{side}_quantity"][i]), quantities) if level else "")
        return row

    def _value(self, record: Any, name: str) -> Any:
        value = record[name]
        if np.ndim(value):
            return [self._spell(record, name, int(one)) for one in value]
        return self._spell(record, name, int(value))

    def _spell(self, record: Any, name: str, value: int) -> Any:
        prices, quantities = self._scales(record)
        if name in PRICES:
            return decimal(value, prices)
        if name in QUANTITIES:
            return decimal(value, quantities)
        return value

    def close(self) -> None:
        """Write the rest and close the file."""
        self.drain()
        self._file.close()
