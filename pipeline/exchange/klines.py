"""Klines: what traded in each interval of time, counted from the market's own trades.

Seconds and minutes are kept, for an hour and a week at least; longer intervals are made of minutes when they are asked
for. An interval without a trade repeats the close before it. A week begins on Monday.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from shrivenq.pipeline.exchange.types import Event, TradeEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

MINUTE_S, WEEK_S = 60, 604_800
INTERVALS = {
    "1s": 1, "1m": MINUTE_S, "3m": 180, "5m": 300, "15m": 900, "30m": 1_800, "1h": 3_600, "2h": 7_200, "4h": 14_400,
    "6h": 21_600, "8h": 28_800, "12h": 43_200, "1d": 86_400, "1w": WEEK_S,
}  # fmt: skip
"""Seconds by name."""
KEPT = {1: 3_600, MINUTE_S: 10_080}
"""How many intervals with trades are kept, by their seconds."""
MONDAY_S = 4 * 86_400
"""The first Monday of 1970."""


class Kline(msgspec.Struct, gc=False):
    """One interval of one symbol; values are price × quantity, not rounded."""

    start_s: int
    open: int
    high: int
    low: int
    close: int
    quantity: int = 0
    value: int = 0
    bought: int = 0
    """Quantity that takers bought, and its value."""
    bought_value: int = 0
    first_id: int = -1
    """Trade ids, -1 for none."""
    last_id: int = -1

    @property
    def trades(self) -> int:
        """Count the trades: ids have no gaps."""
        return self.last_id - self.first_id + 1 if self.first_id >= 0 else 0

    def add(self, later: Kline) -> None:
        """Add what came after it."""
        self.high, self.low, self.close = max(self.high, later.high), min(self.low, later.low), later.close
        self.quantity += later.quantity
        self.value += later.value
        self.bought += later.bought
        self.bought_value += later.bought_value
        self.last_id = later.last_id


def begin_of(time_s: int, interval_s: int) -> int:
    """Tell when the interval began that a moment is in."""
    offset = MONDAY_S if interval_s == WEEK_S else 0
    return (time_s - offset) // interval_s * interval_s + offset


def chosen(interval_s: int, limit: int, now_s: int, start_s: int | None = None, end_s: int | None = None) -> range:
    """Choose intervals: the last `limit` until now or `end_s`, or the first from `start_s` on."""
    last = begin_of(now_s if end_s is None else min(end_s, now_s), interval_s)
    if start_s is None:
        return range(last - (limit - 1) * interval_s, last + 1, interval_s)
    first = begin_of(start_s + interval_s - 1, interval_s)
    return range(first, min(last, first + (limit - 1) * interval_s) + 1, interval_s)


class Klines:
    """The klines of all symbols."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], deque[Kline]] = {}

    def take(self, events: list[Event]) -> None:
        """Take the trades among `events`."""
        for event in events:
            if not isinstance(event, TradeEvent):
                continue
            price, quantity, value = event.price, event.quantity, event.price * event.quantity
            bought, bought_value = (0, 0) if event.buyer_is_maker else (quantity, value)
            for interval_s, most in KEPT.items():
                start_s = begin_of(event.time_us // 1_000_000, interval_s)
                ids = event.trade_id, event.trade_id
                one = Kline(start_s, price, price, price, price, quantity, value, bought, bought_value, *ids)
                kept = self._kept.setdefault((event.symbol, interval_s), deque(maxlen=most))
                if kept and kept[-1].start_s == start_s:
                    kept[-1].add(one)
                else:
                    kept.append(one)

    def klines(self, symbol: str, interval_s: int, starts: Sequence[int]) -> list[Kline]:
        """Give the klines that begin at `starts`, in order; none from before the first trade that is kept."""
        found: dict[int, Kline] = {}
        close = None
        if starts:
            for one in reversed(self._kept.get((symbol, min(interval_s, MINUTE_S)), ())):
                start_s = begin_of(one.start_s, interval_s)
                if start_s < starts[0]:
                    close = one.close
                    break
                whole = msgspec.structs.replace(one, start_s=start_s)
                if start_s in found:
                    whole.add(found[start_s])
                found[start_s] = whole
        made = []
        for start_s in starts:
            if start_s in found:
                made.append(found[start_s])
            elif close is not None:
                made.append(Kline(start_s, close, close, close, close))
            close = made[-1].close if made else close
        return made
