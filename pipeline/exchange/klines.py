"""Klines: what traded in each interval of time, counted from the market's own trades.

Seconds, minutes and quarters of an hour are kept, for an hour, a week and a year at least; longer intervals are made of
the longest of these that fit between their ends. An interval without a trade repeats the close before it.

Days begin at midnight, UTC or a time zone's, weeks on Monday, months on the first; three days are counted from 1970 on.
"""

from __future__ import annotations

import re
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from shrivenq.pipeline.exchange.types import Event, TradeEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

MINUTE_S, QUARTER_S, HOUR_S, DAY_S = 60, 900, 3_600, 86_400
KEPT = {1: 3_600, MINUTE_S: 7 * 1_440 + 1, QUARTER_S: 366 * 96}
"""How many intervals with trades are kept, by their seconds; of minutes a week, and the one that is not over."""
MONDAY_S = 4 * DAY_S
"""The first Monday of 1970."""
ZONE = re.compile(r"([+-]?)([0-9]{1,2})(?::([0-9]{2}))?", re.ASCII)
ZONE_MIN_S, ZONE_MAX_S = -12 * HOUR_S, 14 * HOUR_S


class Interval(NamedTuple):
    """A kind of interval; all of one kind are numbered, and follow each other without a gap.

    `zone_s` is how much later it is, by the clock on the wall, than UTC.
    """

    seconds: int
    """0 for a calendar month."""
    origin_s: int = 0
    """Where number 0 begins."""

    def number(self, time_s: int, zone_s: int = 0) -> int:
        """Tell which one a moment is in."""
        if self.seconds:
            return (time_s + zone_s - self.origin_s) // self.seconds
        day = datetime.fromtimestamp(time_s + zone_s, UTC)
        return day.year * 12 + day.month - 1

    def start_s(self, number: int, zone_s: int = 0) -> int:
        """Tell when one begins."""
        if self.seconds:
            return number * self.seconds + self.origin_s - zone_s
        return int(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp()) - zone_s

    def edges(self, first: int, last: int, zone_s: int = 0) -> list[int]:
        """Tell when the ones from number `first` to number `last` begin, and when the last one ends."""
        return [self.start_s(number, zone_s) for number in range(first, last + 2)]

    def chosen(
        self, limit: int, now_s: int, start_s: int | None = None, end_s: int | None = None, zone_s: int = 0
    ) -> list[int]:
        """Choose some, as `edges`: the last `limit` until now or `end_s`, or the first from `start_s` on."""
        last = self.number(now_s if end_s is None else min(end_s, now_s), zone_s)
        if start_s is None:
            return self.edges(last - limit + 1, last, zone_s)
        if start_s > now_s:
            return []
        first = self.number(start_s - 1, zone_s) + 1
        return self.edges(first, min(last, first + limit - 1), zone_s) if first <= last else []

    def source_s(self, zone_s: int = 0) -> int:
        """Tell the longest kept interval of which this one is made."""
        length_s = self.seconds or DAY_S
        return max(kept_s for kept_s in KEPT if length_s % kept_s == 0 and zone_s % kept_s == 0)


INTERVALS = {
    "1s": Interval(1), "1m": Interval(MINUTE_S), "3m": Interval(180), "5m": Interval(300), "15m": Interval(QUARTER_S),
    "30m": Interval(1_800), "1h": Interval(HOUR_S), "2h": Interval(7_200), "4h": Interval(14_400),
    "6h": Interval(21_600), "8h": Interval(28_800), "12h": Interval(43_200), "1d": Interval(DAY_S),
    "3d": Interval(3 * DAY_S), "1w": Interval(7 * DAY_S, MONDAY_S), "1M": Interval(0),
}  # fmt: skip
"""By name."""


def read_zone(text: str) -> int:
    """Read a time zone, "8", "-1:00", "05:45", as seconds. Raises ValueError for none between -12:00 and 14:00."""
    found = ZONE.fullmatch(text)
    if found is None or int(found[3] or 0) > 59:
        raise ValueError(f"{text!r}: no time zone")
    zone_s = (int(found[2]) * HOUR_S + int(found[3] or 0) * MINUTE_S) * (-1 if found[1] == "-" else 1)
    if not ZONE_MIN_S <= zone_s <= ZONE_MAX_S:
        raise ValueError(f"{text!r}: not from -12:00 to 14:00")
    return zone_s


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


def of_trade(event: TradeEvent, start_s: int) -> Kline:
    """Give the kline of a single trade."""
    price, quantity, value = event.price, event.quantity, event.price * event.quantity
    bought, bought_value = (0, 0) if event.buyer_is_maker else (quantity, value)
    ids = event.trade_id, event.trade_id
    return Kline(start_s, price, price, price, price, quantity, value, bought, bought_value, *ids)


class Klines:
    """The klines of all symbols."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], deque[Kline]] = {}

    def take(self, events: list[Event]) -> None:
        """Take the trades among `events`."""
        for event in events:
            if not isinstance(event, TradeEvent):
                continue
            for interval_s, most in KEPT.items():
                start_s = event.time_us // 1_000_000 // interval_s * interval_s
                one = of_trade(event, start_s)
                kept = self._kept.setdefault((event.symbol, interval_s), deque(maxlen=most))
                if kept and kept[-1].start_s == start_s:
                    kept[-1].add(one)
                else:
                    kept.append(one)

    def klines(self, symbol: str, source_s: int, edges: Sequence[int]) -> list[Kline]:
        """Give the klines between `edges`, in order; none from before the first trade that is kept.

        They are made of the kept intervals of `source_s` seconds (`Interval.source_s`), on whose edges theirs must lie.
        """
        within: list[Kline] = []
        close = None
        for one in reversed(self._kept.get((symbol, source_s), ()) if edges else ()):
            if one.start_s < edges[0]:
                close = one.close
                break
            if one.start_s < edges[-1]:
                within.append(one)
        found: dict[int, Kline] = {}
        at = 0
        for one in reversed(within):
            while one.start_s >= edges[at + 1]:
                at += 1
            if edges[at] in found:
                found[edges[at]].add(one)
            else:
                found[edges[at]] = msgspec.structs.replace(one, start_s=edges[at])
        made = []
        for start_s in edges[:-1]:
            if start_s in found:
                made.append(found[start_s])
            elif close is not None:
                made.append(Kline(start_s, close, close, close, close))
            close = made[-1].close if made else close
        return made
