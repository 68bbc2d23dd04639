"""SBE streams: the simulator's market streams in binary, beside the JSON ones and of the same market.

    <symbol>@trade        at once, the trades of one taker order in one message
    <symbol>@bestBidAsk   at once; who reads too slowly gets the newest of each symbol, not all (auto-culling)
    <symbol>@depth        merged over an interval, 20 ms at the venue
    <symbol>@depth20      each 50 ms

The venue serves them at a host of their own, here it is the path that tells them apart (`/sbe/ws/NAME`,
`/sbe/stream?streams=A/B`). Subscriptions, their answers and serverShutdown are JSON text here too. Who connects names
an Ed25519 key in the header X-MBX-APIKEY. Source: section 6 of the protocol sheet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shrivenq.pipeline.exchange import sbe
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.sockets import encode
from shrivenq.pipeline.exchange.stream_sessions import StreamLimits, refuse, serve_streams
from shrivenq.pipeline.exchange.streams import Listener, Merged, Streams
from shrivenq.pipeline.exchange.types import DepthEvent, Event, TickerEvent, TradeEvent
from shrivenq.pipeline.exchange.venue import Venue

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

TRADES_MAX = 500
"""Most trades of a message; more are spread over several."""


class SbeStreams(Streams):
    """All SBE market streams and who listens to them."""

    def __init__(self, venue: Venue) -> None:
        super().__init__(venue)
        self._merged = {"": {}}
        self._newest: dict[Listener, dict[str, bytes]] = {}  # what waits for those behind, by the stream's name

    def join(self, listener: Listener) -> None:
        """Begin to serve a connection."""
        super().join(listener)
        self._newest[listener] = {}
        listener.socket.watch_backlog(lambda: self._catch_up(listener))

    def leave(self, listener: Listener) -> None:
        """Stop serving a connection."""
        super().leave(listener)
        self._newest.pop(listener, None)

    def unsubscribe(self, listener: Listener, name: str) -> None:
        """Send it no more, nor what of it still waits."""
        super().unsubscribe(listener, name)
        self._newest.get(listener, {}).pop(name, None)

    def take(self, events: list[Event]) -> None:
        """Send what is sent at once, and merge what is not."""
        trades: list[TradeEvent] = []
        for event in events:
            if isinstance(event, TradeEvent):
                if trades and _taker(event) != _taker(trades[0]):
                    self._send_trades(trades)
                trades.append(event)
            elif isinstance(event, DepthEvent):
                self._send_trades(trades)
                self._merged[""].setdefault(event.symbol, Merged()).add(event)
            elif isinstance(event, TickerEvent):
                self._send_trades(trades)
                if name := self._heard(event.symbol, "bestBidAsk"):
                    symbol = self._venue.symbols[event.symbol]
                    self._send_newest(name, sbe.best_bid_ask(symbol, event, self._venue.now_us()))
        self._send_trades(trades)

    def publish_depth(self, speed: str = "") -> None:
        """Send the depth events; there is one speed."""
        merged, self._merged[speed] = self._merged[speed], {}
        now_us = self._venue.now_us()
        for symbol, changes in merged.items():
            if name := self._heard(symbol, "depth"):
                bids, asks = tuple(sorted(changes.bids.items(), reverse=True)), tuple(sorted(changes.asks.items()))
                event = DepthEvent(symbol, changes.first_id, changes.last_id, bids, asks, now_us)
                self._send(name, sbe.depth(self._venue.symbols[symbol], event, now_us))

    def publish_partial(self) -> None:
        """Send the partial books."""
        for symbol in self._venue.symbols.values():
            if name := self._heard(symbol.name, "depth20"):
                book = self._venue.engine.depth(symbol.name, sbe.LEVELS_MAX)
                self._send(name, sbe.depth20(symbol, book, self._venue.now_us()))

    def _heard(self, symbol: str, stream: str) -> str:
        """Name a stream of a symbol, "" if nobody listens to it."""
        name = f"{self._lower[symbol]}@{stream}"
        return name if name in self._listeners else ""

    def _send_trades(self, trades: list[TradeEvent]) -> None:
        """Send the trades of one taker order, if there are any, and forget them."""
        if trades and (name := self._heard(trades[0].symbol, "trade")):
            symbol = self._venue.symbols[trades[0].symbol]
            for at in range(0, len(trades), TRADES_MAX):
                self._send(name, sbe.trades(symbol, trades[at : at + TRADES_MAX], self._venue.now_us()))
        trades.clear()

    def _send(self, name: str, payload: bytes) -> None:
        """Send a message to all who listen to `name`."""
        self._send_to(list(self._listeners[name]), name, payload)

    def _send_newest(self, name: str, payload: bytes) -> None:
        """Send a message that makes those before it worthless: to who is behind it goes later, or never."""
        in_time = []
        for listener in self._listeners[name]:
            if listener.socket.is_behind:
                self._newest[listener][name] = payload
            else:
                in_time.append(listener)
        self._send_to(in_time, name, payload)

    def _catch_up(self, listener: Listener) -> None:
        """Send what waited for a connection; a newer message cannot have overtaken it."""
        waiting, self._newest[listener] = self._newest.get(listener, {}), {}
        for name, payload in waiting.items():
            self._send_to([listener], name, payload)

    def _send_to(self, listeners: list[Listener], name: str, payload: bytes) -> None:
        outgoing = self._venue.outgoing
        frame = encode(payload, text=False)
        is_open = outgoing.is_open
        for listener in listeners:
            if is_open:
                listener.socket.send_frame(frame)
            else:
                outgoing.frame(listener.socket, "market", name, payload, text=False)


def _taker(trade: TradeEvent) -> tuple[str, int, bool]:
    """Tell the taker orders of one batch apart, as far as their trades do."""
    return trade.symbol, trade.time_us, trade.buyer_is_maker


def check_key(venue: Venue, api_key: str) -> None:
    """Admit a client by its key. Raises ApiError, HTTP status 401, for none of ours and for one that is not Ed25519."""
    if venue.keyring.find(api_key).public is None:
        raise ApiError(-2015, "Invalid API-key, IP, or permissions for action.", status=401)


async def serve_sbe(
    websocket: WebSocket, venue: Venue, streams: SbeStreams, limits: StreamLimits, *, combined: bool
) -> None:
    """Serve one SBE market stream connection until it ends."""
    try:
        check_key(venue, websocket.headers.get("X-MBX-APIKEY", ""))
    except ApiError as error:
        await refuse(venue, websocket, error)
        return
    await serve_streams(websocket, venue, streams, limits, combined=combined)
