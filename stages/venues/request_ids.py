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

LENGTH = 36
INSTRUMENTS_MAX = 1 << 12

KINDS = "0NCRQ0ALT"
"""A kind's letter, by its number; those marked 0 are never sent to a venue."""
assert [KINDS[kind] for kind in (m.NEW, m.CANCEL, m.REPLACE, m.QUERY, m.AMEND, m.CANCEL_ALL, m.TRADES)] == [*"NCRQALT"]
LETTERS = np.frombuffer(KINDS.encode(), np.uint8)
DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
NONE = 99
VALUES = np.array([int(chr(byte), 16) if chr(byte) in "0123456789abcdef" else NONE for byte in range(256)], np.uint8)


@inlined
def _put_hex(buffer: Any, at: int, value: int, count: int) -> int:
    """Write the lowest `count` hexadecimal digits of a number; return where they end."""
    for index in range(count):
        buffer[at + index] = DIGITS[(value >> (4 * (count - 1 - index))) & 15]
    return at + count


@inlined
def _hex(data: Any, at: int, count: int) -> int:
    """Read `count` hexadecimal digits; -1 if one is none, or the number is negative."""
    value = 0
    wrong = 0
    for index in range(count):
        digit = int(VALUES[data[at + index]])
        wrong |= digit & 0xF0
        value = value << 4 | (digit & 15)
    # Sixteen digits from 8 on would be more than int64 holds.
    return -1 if wrong != 0 or (count == 16 and data[at] > 55) else value


@inlined
def put_id(buffer: Any, at: int, kind: int, instrument: int, order_id: int, target_id: int) -> int:
    """Write a request's id; return where it ends."""
    buffer[at] = LETTERS[kind]
    at = _put_hex(buffer, at + 1, instrument, 3)
    at = _put_hex(buffer, at, order_id, 16)
    return _put_hex(buffer, at, target_id, 16)


@inlined
def read_id(data: Any, at: int) -> tuple[int, int, int, int]:
    """Read LENGTH characters; return kind (0 if this is no id of ours), instrument, order_id, target_id."""
    kind = 0
    for index in range(1, len(LETTERS)):
        if LETTERS[index] == data[at] and index != m.ECHO:
            kind = index
    instrument, order_id, target_id = _hex(data, at + 1, 3), _hex(data, at + 4, 16), _hex(data, at + 20, 16)
    if kind == 0 or instrument < 0 or order_id < 0 or target_id < 0:
        return 0, -1, 0, 0
    return kind, instrument, order_id, target_id


_SPELLED = re.compile(r"([NCRQALT])([0-9a-f]{3})([0-7][0-9a-f]{15})([0-7][0-9a-f]{15})", re.ASCII)


def read_id_slow(name: object) -> tuple[int, int, int, int]:
    """Read an id of any kind; return what `read_id` does."""
    found = _SPELLED.fullmatch(name) if isinstance(name, str) else None
    if not found:
        return 0, -1, 0, 0
    return KINDS.index(found[1]), int(found[2], 16), int(found[3], 16), int(found[4], 16)
