"""Which instrument a Binance frame speaks of: a source's symbols, and how they are read from text, compiled.

A frame names its instrument in the stream's name (lower case), in `s` or `symbol` (upper case), and COIN-M frames name
its pair besides. A name is at most 16 bytes, two words: it is found by hash, and once the stream has named the
instrument, the name behind it is compared with that one alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages.venues.text import before, load, matches

if TYPE_CHECKING:
    from collections.abc import Iterable

QUOTE_MARK = 34

SYMBOL = np.dtype(
    [
        ("upper", "<i8", 2),  # the symbol as `s` spells it, zero-padded to 16 bytes
        ("lower", "<i8", 2),  # as stream names spell it
        ("mask", "<i8", 2),  # ones over its bytes
        ("length", "<i8"),
        ("pair_mask", "<i8", 2),  # COIN-M `ps`: the symbol up to the underscore
        ("pair_length", "<i8"),
    ],
    align=True,
)


@by_reference
class Symbols(NamedTuple):
    """Which instrument a frame speaks of."""

    table: Any  # SYMBOL, one row per instrument
    upper: Any  # int64 hash table of rows + 1, found by `s`
    lower: Any  # int64 hash table of rows + 1, found by stream name
    snapshot_row: Any  # int64[1]: whose book a snapshot without a symbol is


def make_symbols(
    instruments: Any, rows: Iterable[int] | None = None, snapshot_instrument: int | None = None
) -> Symbols:
    """Index the symbols of the INSTRUMENT `rows` that one source speaks of, by default all.

    `snapshot_instrument` is the row that REST snapshots without a symbol belong to, by default the first.
    Raises ValueError for a symbol that is empty or stands for two rows: spot and USD-M use the same names, so each
    source has its own Symbols.
    """
    chosen = list(range(len(instruments)) if rows is None else rows)
    table = np.zeros(len(instruments), SYMBOL)
    spelled: dict[bytes, int] = {}
    for row in chosen:
        upper = bytes(instruments[row]["symbol"])
        if not upper or upper in spelled:
            raise ValueError(f"instrument {row}: symbol {upper.decode()!r} is empty or taken by another row")
        spelled[upper] = row
        lower, pair = upper.decode().lower().encode(), upper.partition(b"_")[0]
        table[row]["upper"], table[row]["lower"] = _words(upper), _words(lower)
        table[row]["mask"], table[row]["length"] = _words(b"\xff" * len(upper)), len(upper)
        table[row]["pair_mask"], table[row]["pair_length"] = _words(b"\xff" * len(pair)), len(pair)
    first = chosen[0] if snapshot_instrument is None else snapshot_instrument
    return Symbols(table, _index(table, chosen, "upper"), _index(table, chosen, "lower"), np.array([first], np.int64))


def _words(text: bytes) -> Any:
    return np.frombuffer(text.ljust(16, b"\0"), np.int64)


def _index(table: Any, rows: list[int], spelling: str) -> Any:
    """Fill a hash table, at most a quarter full, with linear probing."""
    size = 8
    while size < 4 * len(rows):
        size *= 2
    slots = np.zeros(size, np.int64)
    for row in rows:
        slot = int(_slot(int(table[row][spelling][0]), int(table[row][spelling][1]), size))
        while slots[slot]:
            slot = (slot + 1) & (size - 1)
        slots[slot] = row + 1
    return slots


@kernel
def _slot(first: int, second: int, size: int) -> int:
    """Hash a symbol's two words. Shifts and xors only: products would wrap when compiled and grow when not."""
    mixed = first ^ (second << 3)
    mixed ^= mixed >> 32
    mixed ^= mixed >> 15
    mixed ^= mixed >> 6
    return mixed & (size - 1)


@kernel
def find(data: Any, at: int, end: int, symbols: Symbols, is_upper: bool) -> int:
    """Find the row of the name at `at` that ends before the character `end`; -1 if there is none."""
    first = load(data, at)
    second = 0
    length = before(first, end)
    if length == 8:
        second = load(data, at + 8)
        length += before(second, end)
        if length < 16:
            second &= (1 << (8 * (length - 8))) - 1
        elif data[at + 16] != end:
            return -1
    else:
        first &= (1 << (8 * length)) - 1
    return look_up(first, second, symbols, is_upper)


@inlined
def look_up(first: int, second: int, symbols: Symbols, is_upper: bool) -> int:
    """Find the row of a name given as two zero-padded words; -1 if there is none."""
    slots = symbols.upper if is_upper else symbols.lower
    slot = _slot(first, second, len(slots))
    while slots[slot] != 0:
        row = slots[slot] - 1
        words = symbols.table[row]["upper"] if is_upper else symbols.table[row]["lower"]
        if words[0] == first and words[1] == second:
            return row
        slot = (slot + 1) & (len(slots) - 1)
    return -1


@inlined
def read_symbol(data: Any, at: int, stop: int, symbols: Symbols, row: int) -> tuple[int, int]:
    """Read the value of `s`: it must be the stream's instrument `row`, or with row -1 is looked up."""
    if at > stop:
        return -1, -1
    if row < 0:
        row = find(data, at, QUOTE_MARK, symbols, True)
        if row < 0:
            return -1, -1
    entry = symbols.table[row]
    end = at + entry["length"]
    if (
        (load(data, at) & entry["mask"][0]) != entry["upper"][0]
        or (load(data, at + 8) & entry["mask"][1]) != entry["upper"][1]
        or not matches(data, end, '"')
    ):
        return -1, -1
    return row, end + 1


@inlined
def read_pair(data: Any, at: int, symbols: Symbols, row: int) -> int:
    """Read the value of `ps` or `pair`; return where it ends, -1 if it is not the instrument's."""
    entry = symbols.table[row]
    end = at + entry["pair_length"]
    if (
        (load(data, at) & entry["pair_mask"][0]) != (entry["upper"][0] & entry["pair_mask"][0])
        or (load(data, at + 8) & entry["pair_mask"][1]) != (entry["upper"][1] & entry["pair_mask"][1])
        or not matches(data, end, '"')
    ):
        return -1
    return end + 1
