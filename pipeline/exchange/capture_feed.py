"""Capture feed: a spot capture as the background of the market, at its own pace.

Before anybody watches it is read up to its first snapshot; from then on what it recorded happens as long after the
first `advance` as it did after the snapshot. When it ends the market stands still.

A book begins with a snapshot, and with what was recorded before it and is newer; what is older than the book is left
out. Where events are missing nobody knows what rests: the capture's market leaves the book until the next snapshot.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.pipeline.exchange import captured_market
from shrivenq.pipeline.exchange.state import TRADING
from shrivenq.stages.capture import Capture
from shrivenq.stages.frames import COUNT, ENDED, LOST, TAKEN, make_frames
from shrivenq.stages.messages import DIFF, END, INSTRUMENT, SNAPSHOT, TICK
from shrivenq.stages.venues.binance import EVENT_MAX, decode
from shrivenq.stages.venues.binance_symbols import make_symbols

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shrivenq.pipeline.exchange.state import Exchange
    from shrivenq.pipeline.exchange.types import Symbol

DECIMALS = 8
"""Of every number of a spot capture."""
BYTES, FRAMES = 8 << 20, 4096
EARLY_MAX = 1024
"""Events that are kept for a snapshot to come; more are so old that it is newer."""


class CaptureFeed:
    """One capture, acting in the books of the symbols it speaks of.

    Raises CaptureError where it cannot be read, ValueError for a symbol with more decimals than it has.
    """

    def __init__(self, path: Path, symbols: Sequence[Symbol], exchange: Exchange) -> None:
        for one in symbols:
            if max(one.price_decimals, one.quantity_decimals) > DECIMALS:
                raise ValueError(f"exchange: {one.name}: more than {DECIMALS} decimals, which a capture does not have")
        instruments = np.zeros(len(symbols), INSTRUMENT)
        instruments["symbol"] = [one.name.encode() for one in symbols]
        instruments["price_decimals"] = instruments["quantity_decimals"] = DECIMALS
        self._exchange, self._instruments, self._symbols = exchange, instruments, make_symbols(instruments)
        self._divisors = [
            (10 ** (DECIMALS - one.price_decimals), 10 ** (DECIMALS - one.quantity_decimals)) for one in symbols
        ]
        self._source = Capture(path)
        self._frames = make_frames(BYTES, FRAMES)
        self._target = np.zeros(EVENT_MAX, TICK)
        self._ready: tuple[int, Any] | None = None
        self._offset_us: int | None = None
        self._last_ids: list[int | None] = [None] * len(symbols)
        self._early: list[deque[Any]] = [deque(maxlen=EARLY_MAX) for _ in symbols]
        self._held: list[list[Any]] = [[] for _ in symbols]
        self.skipped = 0
        """Frames that were damaged or not recognised."""
        self.gaps = 0
        """How often events were missing."""
        self._open()

    def _open(self) -> None:
        """Read on until the first snapshot is in the book."""
        while (event := self._next()) is not None:
            _, records = event
            if records[0]["kind"] in (SNAPSHOT, DIFF):
                self._apply(records)
            if records[0]["kind"] == SNAPSHOT:
                return

    def _next(self) -> tuple[int, Any] | None:
        """Decode the next event: its time in µs and its records; None at the end."""
        words = self._frames.words
        while True:
            if words[TAKEN] == words[COUNT]:
                if words[ENDED] != 0:
                    return None
                self._source.fill(self._frames)
                if words[COUNT] == 0:
                    return None
            frame = self._frames.index[words[TAKEN]]
            words[TAKEN] += 1
            start, time_ns = int(frame["offset"]), int(frame["time_ns"])
            count = 0
            if frame["flags"] != LOST:
                stop = start + int(frame["length"])
                data, target = self._frames.data, self._target
                count = decode(data, start, stop, self._symbols, self._instruments, target, time_ns, 0)
            if count == 0:
                self.skipped += 1
                continue
            return time_ns // 1000, self._target[:count].copy()

    def _apply(self, records: Any) -> None:
        """Let an event act if its symbol's book is where it belongs."""
        symbol, kind = int(records[0]["instrument"]), records[0]["kind"]
        if kind == SNAPSHOT:
            self._begin(symbol, records)
        elif kind == DIFF:
            self._follow(symbol, records)
        else:
            self._act(symbol, records)

    def _begin(self, symbol: int, records: Any) -> None:
        """Begin a book with a snapshot, unless it is further than that."""
        at, last_id = self._last_ids[symbol], int(records[0]["last_id"])
        if at is not None and last_id < at:
            return
        self._act(symbol, records)
        self._last_ids[symbol] = last_id
        early = list(self._early[symbol])
        self._early[symbol].clear()
        for one in early:
            self._follow(symbol, one)

    def _follow(self, symbol: int, records: Any) -> None:
        """Let a change of levels act if it is the next; keep it for later while there is no book."""
        at, last_id = self._last_ids[symbol], int(records[0]["last_id"])
        if at is None:
            self._early[symbol].append(records)
        elif int(records[0]["first_id"]) > at + 1:
            self.gaps += 1
            self._last_ids[symbol] = None
            self._early[symbol].append(records)
            captured_market.leave(self._exchange, symbol)
        elif last_id > at:
            self._act(symbol, records)
            self._last_ids[symbol] = last_id

    def _act(self, symbol: int, records: Any) -> None:
        count = len(records) - (records[-1]["kind"] == END)
        captured_market.apply(self._exchange, records, count, *self._divisors[symbol])

    def due_us(self, now_us: int) -> int | None:
        """Tell when the next event happens; None if that is after `now_us`, or never."""
        if self._ready is None:
            self._ready = self._next()
        if self._ready is None:
            return None
        if self._offset_us is None:
            self._offset_us = now_us - self._ready[0]
        due = self._ready[0] + self._offset_us
        return due if due <= now_us else None

    def act(self) -> int:
        """Let the event that is due happen; return the symbol. While it is halted its book waits, and nobody trades."""
        assert self._ready is not None
        records, self._ready = self._ready[1], None
        symbol = int(records[0]["instrument"])
        if self._exchange.symbols[symbol]["status"] == TRADING:
            for one in (*self._held[symbol], records):
                self._apply(one)
            self._held[symbol].clear()
        elif records[0]["kind"] in (SNAPSHOT, DIFF):
            self._held[symbol].append(records)
        return symbol
