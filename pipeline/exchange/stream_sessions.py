"""Stream sessions: a market stream connection from handshake to end, and the control messages it may send.

Source: section 4 of the protocol sheet; the errors are the venue's.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

import orjson
from starlette.responses import Response
from starlette.websockets import WebSocket

from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.streams import Listener, Streams

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.sockets import VenueSocket
    from shrivenq.pipeline.exchange.venue import Venue

METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
ID = re.compile(r"[A-Za-z0-9-]{1,36}", re.ASCII)
"""Alphanumerics, says the venue; its own client sends a UUID, hyphens and all."""
UNKNOWN_PROPERTY, BAD_TYPE, BAD_REQUEST, BAD_JSON = 0, 1, 2, 3
TIME_UNITS = {"MILLISECOND": False, "MICROSECOND": True}
POLICY = 1008


class StreamLimits(NamedTuple):
    """What one connection may do, and how long it lives."""

    messages_s: int
    streams: int
    lifetime_s: float


class ControlError(Exception):
    """A control message is refused, with the venue's small codes."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg


class TooManyStreamsError(Exception):
    """A connection asked for more streams than one may have; it is cut."""


def read_time_unit(query: str) -> bool:
    """Tell whether `timeUnit` asks for microseconds. Raises ApiError -1194 for any other word."""
    word = parse_qs(query).get("timeUnit", ["MILLISECOND"])[-1].upper()
    if word not in TIME_UNITS:
        raise ApiError(-1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
    return TIME_UNITS[word]


async def admit(venue: Venue, websocket: WebSocket) -> bool:
    """Count an attempt to connect, and read `timeUnit`; returns whether it asks for microseconds.

    Raises ApiError with the HTTP status of the refusal: too many attempts, a ban, or a bad time unit.
    """
    host = websocket.client.host if websocket.client else ""
    now_us = venue.market_us()
    address = venue.limits.address(host)
    address.check_ban(now_us)
    if not address.connect(now_us):
        raise ApiError(-1034, "Too many connections.", 429, retry_us=address.connections.end_us(now_us))
    return read_time_unit(websocket.url.query)


async def refuse(venue: Venue, websocket: WebSocket, error: ApiError) -> None:
    """Answer a handshake with an HTTP error, and say when another may be tried."""
    headers = {}
    if error.retry_us:
        headers["retry-after"] = str(max(1, -((venue.market_us() - error.retry_us) // 1_000_000)))
    await websocket.send_denial_response(
        Response(orjson.dumps(error.body()), error.status, headers, "application/json")
    )


async def serve_streams(
    websocket: WebSocket, venue: Venue, streams: Streams, limits: StreamLimits, *, combined: bool
) -> None:
    """Serve one market stream connection until it ends."""
    try:
        micros = await admit(venue, websocket)
        names = _names(websocket, combined=combined)
        if len(names) > limits.streams:
            raise ApiError(-1103, f"Too many streams; at most {limits.streams}.")
    except ApiError as error:
        await refuse(venue, websocket, error)
        return
    await websocket.accept()
    socket: VenueSocket = websocket.scope["state"]["socket"]
    socket.messages_s = limits.messages_s
    listener = Listener(socket, combined=combined, micros=micros)
    streams.join(listener)
    for name in names:
        streams.subscribe(listener, name)
    cut = asyncio.get_running_loop().call_later(limits.lifetime_s, socket.close)
    try:
        while (message := await websocket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            answer = _control(streams, listener, limits, text if text is not None else message.get("bytes") or b"")
            venue.outgoing.frame(socket, "control", "", orjson.dumps(answer))
    except TooManyStreamsError:
        socket.close(POLICY, "Too many streams")
    finally:
        cut.cancel()
        streams.leave(listener)


def _names(websocket: WebSocket, *, combined: bool) -> list[str]:
    """Read the streams a URL names."""
    if combined:
        listed = parse_qs(websocket.url.query).get("streams", [""])[-1]
    else:
        listed = websocket.path_params.get("names", "")
    return list(dict.fromkeys(name for name in listed.split("/") if name))


def _control(streams: Streams, listener: Listener, limits: StreamLimits, text: str | bytes) -> dict[str, Any]:
    """Carry out a control message, and answer it."""
    request_id: Any = None
    try:
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ControlError(
                BAD_JSON, f"Invalid JSON: expected value at line {error.lineno} column {error.colno}"
            ) from None
        if not isinstance(request, dict):
            raise ControlError(BAD_REQUEST, "Invalid request: invalid type, expected an object")
        request_id = _request_id(request)
        return {"result": _act(streams, listener, limits, request), "id": request_id}
    except ControlError as error:
        return {"error": {"code": error.code, "msg": error.msg}, "id": request_id}


def _request_id(request: dict[str, Any]) -> int | str | None:
    found = request.get("id")
    if found is None or (isinstance(found, int) and not isinstance(found, bool) and -(1 << 63) <= found < 1 << 63):
        return found
    if isinstance(found, str) and ID.fullmatch(found):
        return found
    raise ControlError(
        BAD_REQUEST, "Invalid request: request ID must be a signed 64-bit integer, 1 to 36 alphanumerics, or null"
    )


def _act(streams: Streams, listener: Listener, limits: StreamLimits, request: dict[str, Any]) -> Any:
    method, params = request.get("method"), request.get("params", [])
    if method is None:
        raise ControlError(BAD_REQUEST, "Invalid request: missing field `method`")
    if method not in METHODS:
        expected = ", ".join(f"`{one}`" for one in METHODS)
        raise ControlError(BAD_REQUEST, f"Invalid request: unknown variant `{method}`, expected one of {expected}")
    if not isinstance(params, list):
        raise ControlError(BAD_REQUEST, "Invalid request: params must be an array")
    if method == "LIST_SUBSCRIPTIONS":
        return list(listener.names)
    if method in {"GET_PROPERTY", "SET_PROPERTY"}:
        return _property(listener, method, params)
    if not all(isinstance(name, str) for name in params):
        raise ControlError(BAD_REQUEST, "Invalid request: stream name must be a string")
    if not all("@" in name or name.startswith("!") for name in params):
        raise ControlError(BAD_REQUEST, "Invalid request: invalid stream")
    if method == "UNSUBSCRIBE":
        for name in params:
            streams.unsubscribe(listener, name)
        return None
    if len(listener.names.keys() | set(params)) > limits.streams:
        raise TooManyStreamsError
    for name in params:
        streams.subscribe(listener, name)
    return None


def _property(listener: Listener, method: str, params: list[Any]) -> bool | None:
    if len(params) > (2 if method == "SET_PROPERTY" else 1):
        raise ControlError(BAD_REQUEST, "Invalid request: too many parameters")
    if not params or not isinstance(params[0], str):
        raise ControlError(BAD_REQUEST, "Invalid request: property name must be a string")
    if params[0] != "combined":
        raise ControlError(UNKNOWN_PROPERTY, "Unknown property")
    if method == "GET_PROPERTY":
        return listener.combined
    if len(params) < 2 or not isinstance(params[1], bool):
        raise ControlError(BAD_TYPE, "Invalid value type: expected Boolean")
    listener.combined = params[1]
    return None
