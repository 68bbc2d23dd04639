"""Streams: what happens in the market → JSON market streams, each event written once for all who listen.

    trades, aggregates, best bid and ask   at once
    depth, partial books                   merged over an interval, two speeds
    reference price, klines of a second,
    tickers of 24 hours, average price     each second
    other klines                           every two seconds

`@blockTrade` is silent: nobody trades blocks here. A connection is raw (`/ws/NAME`) or combined
(`/stream?streams=A/B`), in milliseconds or microseconds: at most four versions of a frame are made. Source: sections 2,
4 and 5 of the protocol sheet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import orjson

from shrivenq.pipeline.exchange import tickers
from shrivenq.pipeline.exchange.klines import HOUR_S, INTERVALS, Kline
from shrivenq.pipeline.exchange.sockets import VenueSocket, encode
from shrivenq.pipeline.exchange.types import DepthEvent, Event, TickerEvent, TradeEvent
from shrivenq.pipeline.exchange.venue import Venue

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.rolling import Day
    from shrivenq.pipeline.exchange.tape import Aggregate
    from shrivenq.pipeline.exchange.types import Symbol

PARTIAL_LEVELS = (5, 10, 20)
SHUTDOWN = "!serverShutdown"
ALL_MINI = "!miniTicker@arr"
ZONES = {"": 0, "@+08:00": 8 * HOUR_S}
"""What ends the name of a kline stream, and by how much its days begin earlier than those of UTC."""

Time = Callable[[int], int]


class Listener:
    """One market stream connection: how it wants its frames, and what it listens to."""

    def __init__(self, socket: VenueSocket, *, combined: bool, micros: bool) -> None:
        self.socket = socket
        self.combined = combined
        self.micros = micros
        self.names: dict[str, None] = {}


class Merged:
    """Levels of a symbol that changed since the last depth event of one speed."""

    __slots__ = ("asks", "bids", "first_id", "last_id")

    def __init__(self) -> None:
        self.first_id = 0
        self.last_id = 0
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}

    def add(self, event: DepthEvent) -> None:
        """Merge an event: quantities are absolute, the last one counts."""
        if not self.first_id:
            self.first_id = event.first_id
        self.last_id = event.last_id
        self.bids.update(event.bids)
        self.asks.update(event.asks)


class Streams:
    """All market streams and who listens to them."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._listeners: dict[str, dict[Listener, None]] = {}
        self._all: dict[Listener, None] = {}
        self._merged: dict[str, dict[str, Merged]] = {"": {}, "@100ms": {}}
        self._lower = {name: name.lower() for name in venue.symbols}
        self._shown: dict[str, int] = {}  # kline stream → number of the interval that was sent last
        self._minis_sent: dict[str, dict[str, Any]] = {}  # symbol → what ALL_MINI said last, without its time
        venue.listen(self.take)

    def join(self, listener: Listener) -> None:
        """Begin to serve a connection."""
        self._all[listener] = None

    def leave(self, listener: Listener) -> None:
        """Stop serving a connection."""
        self._all.pop(listener, None)
        for name in list(listener.names):
            self.unsubscribe(listener, name)

    def subscribe(self, listener: Listener, name: str) -> None:
        """Send a stream to a connection from now on; a stream there is none of is silent."""
        listener.names[name] = None
        self._listeners.setdefault(name, {})[listener] = None

    def unsubscribe(self, listener: Listener, name: str) -> None:
        """Send it no more."""
        listener.names.pop(name, None)
        listeners = self._listeners.get(name)
        if listeners is not None:
            listeners.pop(listener, None)
            if not listeners:
                del self._listeners[name]

    def take(self, events: list[Event]) -> None:
        """Send what is sent at once, and merge what is not. Called by the venue after its tape."""
        for event in events:
            if isinstance(event, DepthEvent):
                for merged in self._merged.values():
                    merged.setdefault(event.symbol, Merged()).add(event)
            elif isinstance(event, TickerEvent):
                self._publish(self._lower[event.symbol] + "@bookTicker", self._ticker, event)
            elif isinstance(event, TradeEvent):
                self._publish(self._lower[event.symbol] + "@trade", self._trade, event)
        for aggregate in self._venue.tape.fresh:
            self._publish(self._lower[aggregate.symbol] + "@aggTrade", self._aggregate, aggregate)

    def publish_depth(self, speed: str) -> None:
        """Send the depth events and partial books of one speed: "" or "@100ms"."""
        merged, self._merged[speed] = self._merged[speed], {}
        for symbol, changes in merged.items():
            self._publish(f"{self._lower[symbol]}@depth{speed}", self._depth, (symbol, changes))
        for symbol, lower in self._lower.items():
            for levels in PARTIAL_LEVELS:
                self._publish(f"{lower}@depth{levels}{speed}", self._partial, (symbol, levels))

    def publish_reference(self) -> None:
        """Send the reference prices."""
        for symbol in self._venue.symbols.values():
            if symbol.has_reference:
                self._publish(self._lower[symbol.name] + "@referencePrice", self._reference, symbol.name)

    def publish_klines(self, names: Sequence[str]) -> None:
        """Send the klines of these intervals: what ended since the last one was sent, and the present one."""
        for symbol, lower in self._lower.items():
            for name in names:
                for ending, zone_s in ZONES.items():
                    self._publish_kline(f"{lower}@kline_{name}{ending}", symbol, name, zone_s)

    def _publish_kline(self, stream: str, symbol: str, name: str, zone_s: int) -> None:
        begun = self._shown.pop(stream, None)
        if stream not in self._listeners:
            return
        interval = INTERVALS[name]
        number = self._shown[stream] = interval.number(self._venue.market_us() // 1_000_000, zone_s)
        edges = interval.edges(number if begun is None else begun, number, zone_s)
        ends = dict(pairwise(edges))
        for one in self._venue.klines.klines(symbol, interval.source_s(zone_s), edges):
            self._publish(stream, self._kline, (symbol, name, one, ends[one.start_s], one.start_s < edges[-2]))

    def publish_tickers(self) -> None:
        """Send the tickers of 24 hours, those that changed to who wants all of them, and the average prices."""
        now_s = self._venue.market_us() // 1_000_000
        changed = []
        for symbol in self._venue.symbols.values():
            day = self._venue.rolling.day(symbol.name, now_s)
            lower = self._lower[symbol.name]
            self._publish(lower + "@miniTicker", self._mini, (symbol, day))
            self._publish(lower + "@ticker", self._full, (symbol, day))
            self._publish(lower + "@avgPrice", self._average, symbol)
            said = self._mini((symbol, day), _no_time)
            if ALL_MINI in self._listeners and self._minis_sent.get(symbol.name) != said:
                self._minis_sent[symbol.name] = said
                changed.append((symbol, day))
        if changed:
            self._publish(ALL_MINI, self._minis, changed)

    def shut_down(self) -> None:
        """Tell every connection that the venue stops."""
        now_us = self._venue.now_us()
        for listener in list(self._all):
            event = {"e": "serverShutdown", "E": now_us if listener.micros else now_us // 1000}
            body = {"stream": SHUTDOWN, "data": event} if listener.combined else event
            self._venue.outgoing.frame(listener.socket, "notice", SHUTDOWN, orjson.dumps(body))
            listener.socket.flush()

    def _publish(self, name: str, make: Callable[[Any, Time], Any], what: Any) -> None:
        """Send one event to all who listen to `name`, written once for each way of writing it."""
        listeners = self._listeners.get(name)
        if listeners is None:
            return
        payloads: dict[tuple[bool, bool], bytes] = {}
        frames: dict[tuple[bool, bool], bytes] = {}
        is_open = self._venue.outgoing.is_open
        for listener in list(listeners):
            way = listener.micros, listener.combined
            if way not in payloads:
                body = orjson.dumps(make(what, _micros if listener.micros else _millis))
                payloads[way] = b'{"stream":"%b","data":%b}' % (name.encode(), body) if listener.combined else body
                frames[way] = encode(payloads[way])
            if is_open:
                listener.socket.send_frame(frames[way])
            else:
                self._venue.outgoing.frame(listener.socket, "market", name, payloads[way])

    def _trade(self, event: TradeEvent, time: Time) -> dict[str, Any]:
        form = self._venue.formats[event.symbol]
        return {
            "e": "trade",
            "E": time(self._venue.now_us()),
            "s": event.symbol,
            "t": event.trade_id,
            "p": form.price(event.price),
            "q": form.quantity(event.quantity),
            "T": time(event.time_us),
            "m": event.buyer_is_maker,
            "M": True,
        }

    def _aggregate(self, one: Aggregate, time: Time) -> dict[str, Any]:
        form = self._venue.formats[one.symbol]
        return {
            "e": "aggTrade",
            "E": time(self._venue.now_us()),
            "s": one.symbol,
            "a": one.aggregate_id,
            "p": form.price(one.price),
            "q": form.quantity(one.quantity),
            "f": one.first_id,
            "l": one.last_id,
            "T": time(one.time_us),
            "m": one.buyer_is_maker,
            "M": True,
        }

    def _ticker(self, event: TickerEvent, _time: Time) -> dict[str, Any]:
        form = self._venue.formats[event.symbol]
        return {
            "u": event.update_id,
            "s": event.symbol,
            "b": form.price(event.bid),
            "B": form.quantity(event.bid_quantity),
            "a": form.price(event.ask),
            "A": form.quantity(event.ask_quantity),
        }

    def _mini(self, what: tuple[Symbol, Day], time: Time) -> dict[str, Any]:
        return tickers.mini_event(self._venue, *what, time)

    def _minis(self, what: list[tuple[Symbol, Day]], time: Time) -> list[dict[str, Any]]:
        return [self._mini(one, time) for one in what]

    def _full(self, what: tuple[Symbol, Day], time: Time) -> dict[str, Any]:
        return tickers.full_event(self._venue, *what, time)

    def _average(self, symbol: Symbol, time: Time) -> dict[str, Any]:
        return tickers.average_event(self._venue, symbol, time)

    def _kline(self, what: tuple[str, str, Kline, int, bool], time: Time) -> dict[str, Any]:
        symbol, name, one, end_s, is_closed = what
        form = self._venue.formats[symbol]
        return {
            "e": "kline",
            "E": time(self._venue.now_us()),
            "s": symbol,
            "k": {
                "t": time(one.start_s * 1_000_000),
                "T": time(end_s * 1_000_000) - 1,
                "s": symbol,
                "i": name,
                "f": one.first_id,
                "L": one.last_id,
                "o": form.price(one.open),
                "c": form.price(one.close),
                "h": form.price(one.high),
                "l": form.price(one.low),
                "v": form.quantity(one.quantity),
                "n": one.trades,
                "x": is_closed,
                "q": form.value(one.value),
                "V": form.quantity(one.bought),
                "Q": form.value(one.bought_value),
                "B": "0",
            },
        }

    def _depth(self, what: tuple[str, Merged], time: Time) -> dict[str, Any]:
        symbol, changes = what
        form = self._venue.formats[symbol]
        return {
            "e": "depthUpdate",
            "E": time(self._venue.now_us()),
            "s": symbol,
            "U": changes.first_id,
            "u": changes.last_id,
            "b": form.levels(sorted(changes.bids.items(), reverse=True)),
            "a": form.levels(sorted(changes.asks.items())),
        }

    def _partial(self, what: tuple[str, int], _time: Time) -> dict[str, Any]:
        symbol, levels = what
        form = self._venue.formats[symbol]
        book = self._venue.engine.depth(symbol, levels)
        return {"lastUpdateId": book.last_update_id, "bids": form.levels(book.bids), "asks": form.levels(book.asks)}

    def _reference(self, symbol: str, time: Time) -> dict[str, Any]:
        price = self._venue.engine.reference_price(symbol)
        return {
            "e": "referencePrice",
            "s": symbol,
            "r": self._venue.formats[symbol].price(price) if price else None,
            "t": time(self._venue.now_us()),
        }


def _micros(time_us: int) -> int:
    return time_us


def _millis(time_us: int) -> int:
    return time_us // 1000


def _no_time(time_us: int) -> int:
    return 0
