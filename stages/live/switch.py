"""Switching from one connection to another that carries the same streams, without a gap and without a repetition.

From before the new one asks for its streams everything the old one brings is noted and passed on, and what the new one
brings is kept: so all of it comes over the old one too, sooner or later, and a stream that is quiet holds nothing up.
Once the new one reaches back to what the old one has brought, in every stream it has said anything in, it takes over:
of what it brings, what the old one had brought already is left out, until it has caught up.

Ids: a depth event's `U` … `u`, a trade's `t`, an aggregate trade's `a`, a bookTicker's `u`, a partial book's
`lastUpdateId`; in SBE the same of each template, and the first and last of an event's trades.
"""

from __future__ import annotations

from typing import NamedTuple

import orjson

from shrivenq.stages.frames import BINARY, TEXT
from shrivenq.stages.venues.binance_sbe_slow import read_ids
from shrivenq.stages.venues.binance_slow import Refused

OLD, NEW = 0, 1


class Ids(NamedTuple):
    """Which part of which stream a message is; `slack` 1 where ids are consecutive, 0 where they jump."""

    stream: str
    first: int
    last: int
    slack: int


def ids_of(payload: bytes, flags: int = TEXT) -> Ids | None:
    """Read what a message of the combined form, or one in SBE (BINARY), is about; None where it does not say."""
    if flags & BINARY:
        return _binary_ids(payload)
    try:
        message = orjson.loads(payload)
        stream, data = message["stream"], message["data"]
        kind = data.get("e")
        if kind == "depthUpdate":
            found = Ids(stream, data["U"], data["u"], 1)
        elif kind in ("trade", "aggTrade"):
            number = data["t" if kind == "trade" else "a"]
            found = Ids(stream, number, number, 1)
        else:
            number = data["lastUpdateId"] if "lastUpdateId" in data else data["u"]
            found = Ids(stream, number, number, 0)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    is_sound = isinstance(found.stream, str) and isinstance(found.first, int) and isinstance(found.last, int)
    return found if is_sound else None


def _binary_ids(payload: bytes) -> Ids | None:
    try:
        template, symbol, first, last, jumps = read_ids(payload)
    except Refused:
        return None
    return Ids(f"{symbol.decode('utf-8', 'replace')}@{template}", first, last, 0 if jumps else 1)


class Switch:
    """The state of one switch: give it every message of both connections, in the order they came.

    The old one's, as of a moment before the new one has asked for anything.
    """

    def __init__(self) -> None:
        self.state = OLD
        self._old: dict[str, int] = {}  # last id passed on from the old connection
        self._reach: dict[str, Ids] = {}  # first message of the new one
        self._new: dict[str, int] = {}  # last id of the new one
        self._kept: list[tuple[Ids | None, bytes, int]] = []
        self.repeats = 0
        """Messages of the new one that were left out since it took over."""

    def take_old(self, payload: bytes, flags: int = TEXT) -> bool:
        """Take a message of the old connection; tell whether to pass it on."""
        if self.state != OLD:
            return False
        ids = ids_of(payload, flags)
        if ids is not None:
            self._old[ids.stream] = max(ids.last, self._old.get(ids.stream, ids.last))
        return True

    def take_new(self, payload: bytes, flags: int = TEXT) -> bool:
        """Take a message of the new connection; tell whether to pass it on."""
        ids = ids_of(payload, flags)
        if ids is not None:
            self._reach.setdefault(ids.stream, ids)
            self._new[ids.stream] = ids.last
        if self.state == OLD:
            self._kept.append((ids, payload, flags))
            return False
        if self._is_news(ids):
            return True
        self.repeats += 1
        return False

    def is_due(self) -> bool:
        """Tell whether the new connection reaches back to the old one in every stream it has said anything in."""
        return not self.missing()

    def missing(self) -> list[str]:
        """List the streams in which it does not: all that the old one has spoken in if the new one has said nothing."""
        if not self._reach:
            return list(self._old)
        return [
            stream
            for stream, ids in self._reach.items()
            if stream not in self._old or ids.first > self._old[stream] + ids.slack
        ]

    def is_proven(self) -> bool:
        """Tell whether that was seen in at least one stream, and is not only the silence of all."""
        return bool(self._reach) and self.is_due()

    def change(self) -> list[tuple[bytes, int]]:
        """Change over: return what was kept of the new connection, with its flags, and has not been passed on yet."""
        self.state = NEW
        kept, self._kept = self._kept, []
        return [(payload, flags) for ids, payload, flags in kept if self._is_news(ids)]

    def is_over(self) -> bool:
        """Tell whether the new connection has caught up, so that nothing needs to be looked at any more."""
        return self.state == NEW and all(self._new.get(stream, -1) >= last for stream, last in self._old.items())

    def _is_news(self, ids: Ids | None) -> bool:
        return ids is None or ids.last > self._old.get(ids.stream, -1)
