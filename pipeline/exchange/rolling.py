"""Rolling: what traded in the last 24 hours, of every symbol, at any moment.

A ring holds one row for each second in which there were trades; rows that are too old leave it, and are taken off the
totals. Seconds, because the streams move on once a second: with minutes what they say would jump once a minute. A
window therefore holds the trades of whole seconds, and is up to a second longer than a day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shrivenq.pipeline.exchange.klines import DAY_S, Kline, of_trade
from shrivenq.pipeline.exchange.types import Event, TradeEvent

if TYPE_CHECKING:
    from typing import Any

ROW = (
    "start_s", "open", "high", "low", "close", "quantity_above", "quantity_below", "value_above", "value_below",
    "first_id", "last_id",
)  # fmt: skip
"""What a row holds; a sum may need more than 64 bits, and takes two words: above and below `WORD`."""
AT = {name: position for position, name in enumerate(ROW)}
WORD = 1 << 62
SLOTS = DAY_S + 1
"""Seconds a window may touch."""


class Day(NamedTuple):
    """The last 24 hours of one symbol."""

    kline: Kline
    """Without a trade it repeats the last price there was, 0 for none."""
    previous_price: int
    """Of the last trade before them, 0 for none."""
    last_quantity: int
    """Of the last trade within them, 0 for none."""


class _Ring:
    """The rows of one symbol, and the second that is not over."""

    def __init__(self) -> None:
        # One array for each field: the highest and the lowest of a day are then found in one sweep of memory.
        self._rows: Any = np.zeros((len(ROW), SLOTS), np.int64)
        self._first = self._count = 0
        self._present: Kline | None = None
        self._quantity = self._value = 0
        self._previous_price = 0
        self._last_quantity = 0
        self.last_us = 0
        """When the last trade was, 0 for never."""

    def add(self, event: TradeEvent) -> None:
        """Add a trade."""
        start_s = event.time_us // 1_000_000
        one, present = of_trade(event, start_s), self._present
        if present is not None and start_s <= present.start_s:
            present.add(one)
        else:
            self._leave(start_s - DAY_S)
            if self._present is not None:
                self._push(self._present)
            self._present = one
        self._quantity += one.quantity
        self._value += one.value
        self._last_quantity, self.last_us = one.quantity, event.time_us

    def day(self, now_s: int) -> Day:
        """Give the window that ends now."""
        self._leave(now_s - DAY_S)
        present = self._present
        if present is None:
            price = self._previous_price
            return Day(Kline(now_s - DAY_S, price, price, price, price), price, 0)
        whole = Kline(
            now_s - DAY_S, present.open, present.high, present.low, present.close, self._quantity, self._value,
            first_id=present.first_id, last_id=present.last_id,
        )  # fmt: skip
        if self._count:
            whole.open = int(self._rows[AT["open"], self._first])
            whole.first_id = int(self._rows[AT["first_id"], self._first])
            whole.high = max(whole.high, *(int(part.max()) for part in self._parts("high")))
            whole.low = min(whole.low, *(int(part.min()) for part in self._parts("low")))
        return Day(whole, self._previous_price, self._last_quantity)

    def _parts(self, name: str) -> list[Any]:
        """Give a field of all rows: the ring goes round once at most."""
        field, end = self._rows[AT[name]], self._first + self._count
        return [part for part in (field[self._first : end], field[: max(0, end - SLOTS)]) if len(part)]

    def _push(self, one: Kline) -> None:
        """Write a second that is over into the ring."""
        row = self._rows[:, (self._first + self._count) % SLOTS]
        row[:] = (
            one.start_s, one.open, one.high, one.low, one.close, *divmod(one.quantity, WORD),
            *divmod(one.value, WORD), one.first_id, one.last_id,
        )  # fmt: skip
        self._count += 1

    def _leave(self, start_s: int) -> None:
        """Forget the seconds before `start_s`."""
        while self._count and self._rows[0, self._first] < start_s:
            row = dict(zip(ROW, self._rows[:, self._first].tolist(), strict=True))
            self._quantity -= row["quantity_above"] * WORD + row["quantity_below"]
            self._value -= row["value_above"] * WORD + row["value_below"]
            self._previous_price = row["close"]
            self._first = (self._first + 1) % SLOTS
            self._count -= 1
        present = self._present
        if present is not None and present.start_s < start_s:
            self._quantity = self._value = 0
            self._previous_price = present.close
            self._present = None


class Rolling:
    """The last 24 hours of all symbols."""

    def __init__(self) -> None:
        self._rings: dict[str, _Ring] = {}

    def take(self, events: list[Event]) -> None:
        """Take the trades among `events`."""
        for event in events:
            if isinstance(event, TradeEvent):
                if event.symbol not in self._rings:
                    self._rings[event.symbol] = _Ring()
                self._rings[event.symbol].add(event)

    def day(self, symbol: str, now_s: int) -> Day:
        """Give what traded in a symbol in the 24 hours until now."""
        if symbol not in self._rings:
            return Day(Kline(now_s - DAY_S, 0, 0, 0, 0), 0, 0)
        return self._rings[symbol].day(now_s)

    def last_us(self, symbol: str) -> int:
        """Tell when a symbol last traded, 0 for never."""
        return self._rings[symbol].last_us if symbol in self._rings else 0
