"""The slow, obvious twins of the order book and of the book stage, and a reader of captures that shares no code."""

from __future__ import annotations

import gzip
import json
from bisect import bisect_left, insort
from dataclasses import dataclass, field


class Side:
    """Price levels in a dict, prices in a sorted list."""

    def __init__(self, *, bids):
        self.bids = bids
        self.levels = {}
        self.prices = []

    def set(self, price, quantity):
        previous = self.levels.get(price, 0)
        if quantity:
            if not previous:
                insort(self.prices, price)
            self.levels[price] = quantity
        elif previous:
            del self.levels[price]
            del self.prices[bisect_left(self.prices, price)]
        return previous

    def top(self, count):
        """Best first: (price, quantity)."""
        best = self.prices[: -count - 1 : -1] if self.bids else self.prices[:count]
        return [(price, self.levels[price]) for price in best]

    def best(self):
        return self.top(1)[0] if self.prices else (0, 0)


@dataclass
class Diff:
    first: int
    last: int
    previous: int  # -1 for spot
    levels: list  # (side, price, quantity)
    time_ns: int = 0
    venue_ns: int = 0


@dataclass
class Snapshot:
    last: int
    levels: list
    time_ns: int = 0
    venue_ns: int = 0


@dataclass
class Quote:
    id: int
    bid: tuple
    ask: tuple
    time_ns: int = 0
    venue_ns: int = 0


@dataclass
class Trade:
    id: int
    price: int
    quantity: int
    seller_aggressed: bool
    time_ns: int = 0
    venue_ns: int = 0


@dataclass
class NaiveBook:
    """Protocol sheet, section 5, word for word. After each call `live` and the two sides are what a book must say.

    `known` is the range of its snapshot; near its end another one is wanted (`wants_more`), and what is applied from
    then on is kept in `waiting` as well.
    """

    futures: bool
    live: bool = False
    last: int = 0
    fresh: bool = False
    gaps: int = 0
    crossed: int = 0
    requests: int = 0
    waiting: list = field(default_factory=list)
    replayed: list = field(default_factory=list)  # (u, best bid, best ask) after each event applied at a snapshot
    wants_more: bool = False
    renewals: int = 0
    late: int = 0  # snapshots older than a live book that were of use

    def __post_init__(self):
        self.clear()

    def look(self):
        """Tell, after a depth event, whether the touch has left the range; ask for a snapshot before it does."""
        (low, high), bid, ask = self.known, self.bids.best()[0], self.asks.best()[0]
        start_bid, start_ask = self.start
        if bid < low + max(0, start_bid - low) // 4 or ask > high - (high - start_ask) // 4:
            self.renewals += not self.wants_more
            self.wants_more = True
        return bid < low or ask > high

    def clear(self):
        self.bids, self.asks = Side(bids=True), Side(bids=False)
        self.wants_more = False

    def invalidate(self):
        self.live = False
        self.requests += 1
        self.clear()

    def verdict(self, diff):
        if not self.futures:
            if diff.last < self.last + 1:
                return "ignore"
            return "gap" if diff.first > self.last + 1 else "apply"
        if diff.last < self.last or (diff.last == self.last and not self.fresh):
            return "ignore"
        if self.fresh and diff.first <= self.last <= diff.last:
            return "apply"
        return "apply" if diff.previous == self.last else "gap"

    def put(self, levels):
        for side, price, quantity in levels:
            (self.asks if side else self.bids).set(price, quantity)

    def apply(self, diff):
        self.put(diff.levels)
        self.last, self.fresh = diff.last, False
        self.uncross()

    def uncross(self):
        if self.bids.prices and self.asks.prices and self.bids.best()[0] >= self.asks.best()[0]:
            self.crossed += 1
            self.invalidate()

    def diff(self, diff):
        """Return whether the event is one to publish a book after."""
        if self.live:
            verdict = self.verdict(diff)
            if verdict == "ignore":
                return False
            if verdict == "apply":
                if self.wants_more:
                    self.waiting.append(diff)
                self.apply(diff)
                return True
            self.gaps += 1
            self.invalidate()
        elif not self.requests:
            self.requests += 1
        self.waiting.append(diff)
        return True

    def snapshot(self, snapshot):
        if self.live and snapshot.last < self.last:
            then = NaiveBook(self.futures, last=snapshot.last, fresh=True)
            if not self.waiting or then.verdict(self.waiting[0]) == "gap":
                self.renewals += self.wants_more
                return False
            self.late += 1
        self.clear()
        self.put(snapshot.levels)
        self.last, self.fresh, self.live = snapshot.last, True, True
        prices = [[price for of, price, _ in snapshot.levels if of == side] for side in (0, 1)]
        self.known = min(prices[0], default=0), max(prices[1], default=0)
        self.start = self.bids.best()[0], self.asks.best()[0]
        self.uncross()
        while self.live and self.waiting:
            diff = self.waiting[0]
            verdict = self.verdict(diff)
            if verdict == "gap":
                self.gaps += 1
                self.invalidate()
                break
            self.waiting.pop(0)
            if verdict == "apply":
                self.apply(diff)
                self.replayed.append((diff.last, self.bids.best(), self.asks.best()))
        return True

    def lose(self):
        self.waiting.clear()
        self.invalidate()


def scaled(text, decimals):
    whole, _, part = text.partition(".")
    assert not part[decimals:].strip("0"), text
    return int(whole + part[:decimals].ljust(decimals, "0"))


def read_capture(paths, price_decimals, quantity_decimals):
    """Yield the events of a capture's lines, in order."""

    def pair(price, quantity):
        return scaled(price, price_decimals), scaled(quantity, quantity_decimals)

    def levels(bids, asks):
        return [(side, *pair(*level)) for side, rows in enumerate((bids, asks)) for level in rows]

    for path in paths:
        with gzip.open(path, "rt") as lines:
            for line in lines:
                stamp, _, text = line.partition(" ")
                data = json.loads(text)
                time_ns = int(stamp)
                if "lastUpdateId" in data:
                    yield Snapshot(
                        data["lastUpdateId"],
                        levels(data["bids"], data["asks"]),
                        time_ns,
                        data.get("E", 0) * 1_000_000,
                    )
                    continue
                kind = data["stream"].partition("@")[2].partition("@")[0]
                data = data["data"]
                venue_ns = data.get("E", 0) * 1_000_000
                if kind == "depth":
                    found = levels(data["b"], data["a"])
                    yield Diff(data["U"], data["u"], data.get("pu", -1), found, time_ns, venue_ns)
                elif kind == "bookTicker":
                    yield Quote(data["u"], pair(data["b"], data["B"]), pair(data["a"], data["A"]), time_ns, venue_ns)
                else:
                    yield Trade(data["t"], *pair(data["p"], data["q"]), data["m"], time_ns, venue_ns)
