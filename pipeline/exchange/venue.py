"""Venue: the one owner of the engine. It serves requests, steps the market, and hands out everything that happened.

    REST, WebSocket API, FIX ──▶ serve(request) ──▶ Engine ──▶ take_events() ──▶ listeners, in order: tape, klines,
    a step each few ms ────────▶ advance(now) ────▶                              24 h, counts, market streams, user data

One asyncio loop runs all of it, so nothing here is ever half done. Faults are asked before anything leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from shrivenq.pipeline.exchange import account_queries, private, private_lists, public, requests, tickers
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.klines import Klines
from shrivenq.pipeline.exchange.limits import Limits, Rules
from shrivenq.pipeline.exchange.payloads import Format
from shrivenq.pipeline.exchange.rolling import Rolling
from shrivenq.pipeline.exchange.tape import Tape
from shrivenq.pipeline.exchange.types import BalanceEvent, Event, OrderEvent, Symbol

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.accounts import Keyring
    from shrivenq.pipeline.exchange.engine import Engine

Listener = Callable[[list[Event]], None]
COMMANDS = public.COMMANDS | tickers.COMMANDS | private.COMMANDS | private_lists.COMMANDS | account_queries.COMMANDS


def nobody(now_us: int) -> int:
    """Authorise a request that needs no key."""
    return -1


class Socket(Protocol):
    """A connection as faults see it, of WebSocket or of FIX."""

    def send_message(self, payload: bytes, *, text: bool = True) -> None:
        """Send one message."""

    def send_unknown(self, payload: bytes) -> None:
        """Send one message as something the protocol does not have."""

    def abort(self) -> None:
        """End the connection without a word."""


class Request(NamedTuple):
    """One request of a client, however it came."""

    name: str
    """A key of `requests.METHODS`."""
    params: dict[str, Any]
    """As sent: text (REST) or JSON values (WebSocket API), without those of the transport."""
    host: str
    """IP address of the client."""
    authorise: Callable[[int], int]
    """Gives the account whose request it is at the venue's time, -1 for a method that needs none. Raises ApiError."""
    micros: bool
    """Whether times in the answer are in microseconds."""
    weighs: bool = True
    """Whether it uses request weight of its address; FIX counts messages instead."""
    socket: Socket | None = None
    """The connection it came by; None for REST, where no answer is the end of it."""


class Answer(NamedTuple):
    """What a request gets."""

    status: int
    """HTTP status, the same over WebSocket."""
    body: Any
    """JSON object of the result; of an error {code, msg, data}."""
    retry_us: int = 0
    """429 and 418: when it may be tried again."""


class Outgoing:
    """All that leaves the venue passes here. This one lets everything pass; a script of faults replaces it."""

    @property
    def is_open(self) -> bool:
        """Tell whether every frame leaves as it is now, so that `frame` need not be asked about each."""
        return True

    def frame(  # what a script of faults chooses by is named here
        self,
        socket: Socket,
        kind: str,  # noqa: ARG002
        name: str,  # noqa: ARG002
        payload: bytes,
        *,
        text: bool = True,
    ) -> None:
        """Send one message, of WebSocket or of FIX.

        `kind` is "market" (`name`: the stream), "control" (an answer about subscriptions; `name`: a FIX session's own
        message), "response" (`name`: the method), "event" (`name`: the user data event) or "notice" (serverShutdown).
        """
        socket.send_message(payload, text=text)

    async def answer(self, request: Request, act: Callable[[], Answer]) -> Answer | None:  # noqa: ARG002
        """Serve a request: `act` does what it asks for. None drops the connection without an answer."""
        return act()


class Call(NamedTuple):
    """A request whose parameters were checked."""

    name: str
    values: dict[str, Any]
    account: int
    now_us: int
    time: Callable[[int], int]
    """Turns the engine's microseconds into the unit the client asked for."""


class Venue:
    """The exchange: engine, keys, limits, and who listens."""

    def __init__(self, engine: Engine, symbols: list[Symbol], keyring: Keyring, rules: Rules) -> None:
        self.engine = engine
        self.formats = {symbol.name: Format(symbol) for symbol in symbols}
        self.keyring = keyring
        self.limits = Limits(rules)
        self.outgoing = Outgoing()
        self.clock_offset_us = 0
        """A fault: how wrong the venue's clock is."""
        self.updated_us: dict[int, int] = {}
        """When an account's balances last changed, by account."""
        self.tape = Tape()
        self.klines = Klines()
        self.rolling = Rolling()
        self._listeners: list[Listener] = [self.tape.take, self.klines.take, self.rolling.take, self._note]
        self._filled: set[tuple[str, int]] = set()

    @property
    def symbols(self) -> dict[str, Symbol]:
        """Give the symbols by name, each with its present status."""
        return self.engine.symbols

    @property
    def asset_decimals(self) -> dict[str, int]:
        """Give every asset with its decimals."""
        return self.engine.assets

    def market_us(self) -> int:
        """Give the time of the market and of the limits, which is right whatever the venue shows."""
        return time.time_ns() // 1000

    def now_us(self) -> int:
        """Give the time the venue shows and checks by."""
        return self.market_us() + self.clock_offset_us

    def listen(self, listener: Listener) -> None:
        """Have `listener` called with all that happened, in order, after each command and step that did something."""
        self._listeners.append(listener)

    def drain(self) -> None:
        """Hand out what happened since the last call."""
        events = self.engine.take_events()
        if events:
            for listener in self._listeners:
                listener(events)

    def step(self) -> None:
        """Let the rest of the market act up to now."""
        self.engine.advance(self.market_us())
        self.drain()

    def serve(self, request: Request) -> Answer:
        """Check, charge and carry out a request. Events have been handed out when it returns."""
        try:
            return self._serve(request)
        except ApiError as error:
            return Answer(error.status, error.body(), error.retry_us)
        finally:
            self.drain()

    def _serve(self, request: Request) -> Answer:
        now_us = self.market_us()
        address = self.limits.address(request.host)
        weight = requests.weight(request.name, request.params) if request.weighs else 0
        if request.weighs:
            address.charge(weight, now_us)
        account = request.authorise(self.now_us())
        values = requests.check(request.name, request.params)
        call = Call(request.name, values, account, now_us, self._shown(1 if request.micros else 1000))
        body = COMMANDS[request.name](self, call)
        if requests.is_free(request.name, body):
            address.weight.add(-weight, now_us)
        return Answer(200, body)

    def _shown(self, unit_us: int) -> Callable[[int], int]:
        """Make what turns the engine's time into the one the venue shows, in a client's unit."""
        offset_us = self.clock_offset_us
        return lambda time_us: (time_us + offset_us) // unit_us

    def _note(self, events: list[Event]) -> None:
        """Take an order's first fill off its account's count of unfilled orders; note when balances changed."""
        for event in events:
            if isinstance(event, BalanceEvent):
                self.updated_us[event.account] = event.time_us
            if not isinstance(event, OrderEvent):
                continue
            order_id = event.order.symbol, event.order.order_id
            if event.fill is not None and order_id not in self._filled:
                self._filled.add(order_id)
                self.limits.orders(event.account).filled(event.time_us, maker=event.fill.is_maker)
            if not event.order.is_open:
                self._filled.discard(order_id)
