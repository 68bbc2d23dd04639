"""A JSON message with one thing in it that should not be there, in every way: for tests of whatever reads messages."""

from __future__ import annotations

import copy
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1 << 63, 1 << 70, -(1 << 70), 1.5, "", "x", "0", "-1", "1e9", "NaN", "9" * 400, [], [1],
    [[]], {}, {"a": 1}, [None], "\N{SNOWMAN}", "\0",
)  # fmt: skip
GONE = object()


def places(message, place=()):
    """Give the place of every value in a message, as keys and positions."""
    yield place
    entries = message.items() if isinstance(message, dict) else enumerate(message) if isinstance(message, list) else ()
    for key, value in entries:
        yield from places(value, (*place, key))


def changed(message, place, value):
    """Give a message with another value at a place, or without it."""
    if not place:
        return value
    made = copy.deepcopy(message)
    target = made
    for key in place[:-1]:
        target = target[key]
    if value is GONE:
        del target[place[-1]]
    else:
        target[place[-1]] = value
    return made


def mutations(message, more=()):
    """Give the message with each value in turn replaced by each hostile one, and left out."""
    for place in places(message):
        for value in (*HOSTILE, *more, GONE):
            if place or value is not GONE:
                yield changed(message, place, value)
