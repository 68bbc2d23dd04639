"""SBE streams: the simulator's market streams in binary, beside the JSON ones and of the same market.

    <symbol>@trade        at once, the trades of one taker order in one message
    <symbol>@bestBidAsk   at once
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
from shrivenq.pipeline.exchange.streams import Merged, Streams
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
                    self._send(name, sbe.best_bid_ask(symbol, event, self._venue.now_us()))
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
        outgoing = self._venue.outgoing
        frame = encode(payload, text=False)
        is_open = outgoing.is_open
        for listener in list(self._listeners[name]):
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
