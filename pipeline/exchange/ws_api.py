"""WebSocket API: orders, queries and account events over one connection, at `/ws-api/v3`.

    {"id": 1, "method": "order.place", "params": {…}} ──▶ Venue.serve ──▶ {"id": 1, "status": 200, "result": {…}, …}

Sessions (`session.*`) and subscriptions (`userDataStream.*`) belong to the connection (`sessions.py`), the rest to the
venue. What an order causes is sent after its answer. Source: sections 7, 8, 9 and 11 of the protocol sheet.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from shrivenq.pipeline.exchange import requests
from shrivenq.pipeline.exchange.errors import ApiError, invalid, missing
from shrivenq.pipeline.exchange.sessions import SESSION_COMMANDS, Session, SessionCall
from shrivenq.pipeline.exchange.stream_sessions import admit, refuse
from shrivenq.pipeline.exchange.user_data import Subscriptions, UserData
from shrivenq.pipeline.exchange.venue import Answer, Request

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from shrivenq.pipeline.exchange.venue import Venue

CONNECT_WEIGHT = 2
BANNED = 418
POLICY = 1008
GOING_AWAY = 1001

Json = dict[str, Any]


class Message(NamedTuple):
    """One request as it came."""

    id: int | str | None
    method: str
    params: Json


class Malformed(Exception):  # noqa: N818  (it is an answer, not a fault of the program)
    """A message that is no request: what is wrong with it, and its id if that much could be read."""

    def __init__(self, error: ApiError, number: int | str | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.id = number


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Malformed(ApiError(-1101, "Duplicate values for a parameter detected."))
    return found


def read(text: str | None) -> Message:
    """Read a request; None is a binary frame. Raises Malformed.

    Numbers with a fraction stay the text they were sent as: it is what was signed.
    """
    try:
        orjson.loads(text or "")  # the stricter of the two: no NaN, no half characters, no endless nesting
        found = json.loads(text or "", object_pairs_hook=_unique, parse_float=str)
    except (ValueError, RecursionError):
        raise Malformed(ApiError(-1135, "Invalid JSON Request")) from None
    if not isinstance(found, dict):
        raise Malformed(ApiError(-1135, "Invalid JSON Request"))
    number = found.get("id")
    if isinstance(number, bool) or not isinstance(number, int | str | None):
        raise Malformed(invalid("id"))
    if isinstance(number, int) and not -requests.INT64_MAX <= number <= requests.INT64_MAX:
        raise Malformed(invalid("id"))
    for key in ("id", "method"):
        if key not in found:
            raise Malformed(missing(key), number)
    method, params = found["method"], found.get("params", {})
    if not isinstance(method, str):
        raise Malformed(invalid("method"), number)
    if not isinstance(params, dict):
        raise Malformed(invalid("params"), number)
    if unknown := found.keys() - {"id", "method", "params"}:
        raise Malformed(ApiError(-1104, f"Not all sent parameters were read; unknown: {min(unknown)!r}."), number)
    method = method.removeprefix("v3/")
    if method not in requests.METHODS:
        raise Malformed(ApiError(-5000, f"Method {method} is invalid"), number)
    return Message(number, method, params)


class Connection:
    """One connection: who is logged on, what it follows, how it wants to be answered."""

    def __init__(self, venue: Venue, user_data: UserData, websocket: WebSocket, *, micros: bool, limits: bool) -> None:
        self._venue = venue
        self._host = host_of(websocket)
        self._micros = micros
        self._limits = limits
        self._held: list[tuple[str, Json]] | None = None
        self.socket = websocket.scope["state"]["socket"]
        self.session = Session(venue, Subscriptions(user_data, self), self)

    # ── what leaves ──────────────────────────────────────────────────────────────────────────────────────────────────

    def time(self, time_us: int) -> int:
        """Convert a moment to the unit the client asked for."""
        return time_us if self._micros else time_us // 1000

    def send(self, kind: str, name: str, message: Json) -> None:
        """Send a message, unless a fault has it otherwise."""
        self._venue.outgoing.frame(self.socket, kind, name, orjson.dumps(message))

    def send_event(self, name: str, message: Json) -> None:
        """Send an account's event; while a request is being served, after its answer."""
        if self._held is None:
            self.send("event", name, message)
        else:
            self._held.append((name, message))

    def _release(self) -> None:
        """Send the events that waited for an answer."""
        held, self._held = self._held or [], None
        for name, message in held:
            self.send("event", name, message)

    def _respond(self, message: Message, answer: Answer, account: int) -> None:
        shape: Json = {"id": message.id, "status": answer.status}
        if answer.status == 200:
            shape["result"] = answer.body
        else:
            shape["error"] = answer.body
            if answer.retry_us:
                data = {"serverTime": self.time(self._venue.now_us()), "retryAfter": self.time(answer.retry_us)}
                shape["error"] = {**answer.body, "data": {**(answer.body.get("data") or {}), **data}}
        if message.params.get("returnRateLimits", self._limits) in (True, "true"):
            shape["rateLimits"] = self._rate_limits(message.method, account)
        self.send("response", message.method, shape)

    def _rate_limits(self, method: str, account: int) -> list[Json]:
        """Tell the limits that a request touched."""
        now_us = self._venue.market_us()
        windows = [self._venue.limits.address(self._host).weight]
        if account >= 0 and method in requests.METHODS and requests.METHODS[method].orders:
            windows = [*self._venue.limits.orders(account).windows, *windows]
        return [window.as_dict(now_us) for window in windows]

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def take(self, text: str | None) -> None:
        """Answer one message; None is a binary frame."""
        if (revoked := self.session.revoked()) is not None:
            self.send("response", "", {"id": None, "status": revoked.status, "error": revoked.body()})
            return
        try:
            message = read(text)
        except Malformed as wrong:
            self._refuse(wrong)
            return
        account = -1

        def authorise(now_us: int) -> int:
            nonlocal account
            account = self.session.authorise(message.params, now_us).account
            return account

        security = requests.METHODS[message.method].security
        request = Request(
            name=message.method,
            params=message.params,
            host=self._host,
            authorise=authorise if security in {"TRADE", "USER_DATA"} else _nobody,
            micros=self._micros,
            socket=self.socket,
        )
        own = security == "SESSION"

        def act() -> Answer:
            self._held = []
            return self._serve(message) if own else self._venue.serve(request)

        try:
            answer = await self._venue.outgoing.answer(request, act)
            if answer is not None:
                self._respond(message, answer, account)
        finally:
            self._release()
        if answer is not None and answer.status == BANNED:
            self.socket.close(POLICY, "IP banned")

    def _serve(self, message: Message) -> Answer:
        """Carry out a request about the session or its subscriptions."""
        try:
            weight = requests.METHODS[message.method].weight
            self._venue.limits.address(self._host).charge(weight, self._venue.market_us())
            now_us = self._venue.now_us()
            values = requests.check(message.method, message.params)
            call = SessionCall(values, message.params, now_us, values.get("returnRateLimits", self._limits))
            return Answer(200, SESSION_COMMANDS[message.method](self.session, call))
        except ApiError as error:
            return Answer(error.status, error.body(), error.retry_us)

    def _refuse(self, wrong: Malformed) -> None:
        """Answer what is no request; it weighs something all the same."""
        error = wrong.error
        try:
            self._venue.limits.address(self._host).charge(1, self._venue.market_us())
        except ApiError as over:
            error = over
        self._respond(Message(wrong.id, "", {}), Answer(error.status, error.body(), error.retry_us), -1)
        if error.status == BANNED:
            self.socket.close(POLICY, "IP banned")


def _nobody(now_us: int) -> int:
    return -1


def host_of(websocket: WebSocket) -> str:
    """Name the client's IP address."""
    return websocket.client.host if websocket.client else ""


class WsApi:
    """The endpoint: every connection of the WebSocket API."""

    def __init__(self, venue: Venue, user_data: UserData, lifetime_s: float) -> None:
        self._venue = venue
        self._user_data = user_data
        self._lifetime_s = lifetime_s
        self.connections: set[Connection] = set()

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one connection until it ends."""
        query = websocket.query_params
        try:
            micros = await admit(self._venue, websocket)
            self._venue.limits.address(host_of(websocket)).charge(CONNECT_WEIGHT, self._venue.market_us())
            if query.get("responseFormat", "json") != "json":
                raise ApiError(-1155, "SBE is not enabled.")
        except ApiError as error:
            await refuse(self._venue, websocket, error)
            return
        limits = query.get("returnRateLimits", "true") != "false"
        await websocket.accept()
        connection = Connection(self._venue, self._user_data, websocket, micros=micros, limits=limits)
        self.connections.add(connection)
        cut = asyncio.get_running_loop().call_later(self._lifetime_s, connection.socket.close, GOING_AWAY, "24 hours")
        try:
            while (event := await websocket.receive())["type"] != "websocket.disconnect":
                await connection.take(event.get("text"))
        finally:
            cut.cancel()
            self.connections.discard(connection)
            connection.session.subscriptions.end_all()

    def shut_down(self) -> None:
        """Tell every connection that the venue is about to stop."""
        for connection in list(self.connections):
            event = {"e": "serverShutdown", "E": connection.time(self._venue.now_us())}
            connection.send("notice", "serverShutdown", {"event": event})
