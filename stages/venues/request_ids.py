"""What a WebSocket API request is called, so that its answer alone says what it answers.

A request's `id` is 36 characters, the most a venue takes: one letter for the kind, then hexadecimal numbers for the
instrument (3 digits), `order_id` (16) and `target_id` (16).

    N 000 0000030000000007 0000000000000000      a NEW of instrument 0
    C 000 0000030000000008 0000030000000007      its CANCEL

A QUERY and a TRADES carry the time in milliseconds instead of `order_id`: an order may be asked about again and again,
and no two requests on their way may share an id.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from shrivenq.shm.kernel import inlined
from shrivenq.stages import messages as m
from shrivenq.stages.venues.text import load, store

LENGTH = 36
INSTRUMENTS_MAX = 1 << 12

KINDS = "0NCRQ0ALT"
"""A kind's letter, by its number; those marked 0 are never sent to a venue."""
assert [KINDS[kind] for kind in (m.NEW, m.CANCEL, m.REPLACE, m.QUERY, m.AMEND, m.CANCEL_ALL, m.TRADES)] == [*"NCRQALT"]
LETTERS = np.frombuffer(KINDS.encode(), np.uint8)

_NIBBLES, _ONES, _ZEROS = 0x0F0F0F0F0F0F0F0F, 0x0101010101010101, 0x3030303030303030


@inlined
def _turn(word: int) -> int:
    """Turn the eight bytes of a word around; each is below 16."""
    word = ((word >> 8) & 0x00FF00FF00FF00FF) | ((word & 0x00FF00FF00FF00FF) << 8)
    word = ((word >> 16) & 0x0000FFFF0000FFFF) | ((word & 0x0000FFFF0000FFFF) << 16)
    return ((word >> 32) & 0xFFFFFFFF) | ((word & 0xFFFFFFFF) << 32)


@inlined
def _spell(nibbles: int) -> int:
    """Spell eight values below 16, one a byte, as hexadecimal digits."""
    letters = ((nibbles + 0x0606060606060606) >> 4) & _ONES
    return nibbles + _ZEROS + 39 * letters


@inlined
def _put_eight(buffer: Any, at: int, value: int) -> int:
    """Write the lowest 32 bits of a number as eight digits; return where they end."""
    word = int(value) & 0xFFFFFFFF
    word = (word | (word << 16)) & 0x0000FFFF0000FFFF
    word = (word | (word << 8)) & 0x00FF00FF00FF00FF
    word = (word | (word << 4)) & _NIBBLES
    store(buffer, at, _spell(_turn(word)))
    return at + 8


@inlined
def _put_sixteen(buffer: Any, at: int, value: int) -> int:
    return _put_eight(buffer, _put_eight(buffer, at, int(value) >> 32), value)


@inlined
def _eight(data: Any, at: int) -> int:
    """Read eight digits; -1 if one is none."""
    spelled = load(data, at)
    nibbles = (spelled & _NIBBLES) + 9 * ((spelled >> 6) & _ONES)
    if nibbles & ~_NIBBLES != 0 or _spell(nibbles) != spelled:
        return -1
    word = _turn(nibbles)
    word = (word | (word >> 4)) & 0x00FF00FF00FF00FF
    word = (word | (word >> 8)) & 0x0000FFFF0000FFFF
    return (word | (word >> 16)) & 0xFFFFFFFF


@inlined
def _sixteen(data: Any, at: int) -> int:
    """Read sixteen digits; -1 if one is none, or the number is more than int64 holds."""
    high, low = _eight(data, at), _eight(data, at + 8)
    return -1 if high < 0 or low < 0 or high > 0x7FFFFFFF else high << 32 | low


@inlined
def put_id(buffer: Any, at: int, kind: int, instrument: int, order_id: int, target_id: int) -> int:
    """Write a request's id; return where it ends."""
    buffer[at] = LETTERS[kind]
    # Three digits, and five that are written over.
    _put_eight(buffer, at + 1, int(instrument) << 20)
    return _put_sixteen(buffer, _put_sixteen(buffer, at + 4, order_id), target_id)


@inlined
def read_id(data: Any, at: int) -> tuple[int, int, int, int]:
    """Read LENGTH characters; return kind (0 if this is no id of ours), instrument, order_id, target_id."""
    kind = 0
    for index in range(1, len(LETTERS)):
        if LETTERS[index] == data[at] and index != m.ECHO:
            kind = index
    # Together with five digits of what is behind it.
    instrument, order_id, target_id = _eight(data, at + 1), _sixteen(data, at + 4), _sixteen(data, at + 20)
    if kind == 0 or instrument < 0 or order_id < 0 or target_id < 0:
        return 0, -1, 0, 0
    return kind, instrument >> 20, order_id, target_id


_SPELLED = re.compile(r"([NCRQALT])([0-9a-f]{3})([0-7][0-9a-f]{15})([0-7][0-9a-f]{15})", re.ASCII)


def read_id_slow(name: object) -> tuple[int, int, int, int]:
    """Read an id of any kind; return what `read_id` does."""
    found = _SPELLED.fullmatch(name) if isinstance(name, str) else None
    if not found:
        return 0, -1, 0, 0
    return KINDS.index(found[1]), int(found[2], 16), int(found[3], 16), int(found[4], 16)
