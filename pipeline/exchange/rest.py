"""REST: HTTP requests under /api/v3 → the venue's commands, and their answers with the venue's headers.

A signature covers the query string and the form body as they were sent, one behind the other, without `signature`
itself. Source: sections 7, 10 and 11 of the protocol sheet.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_plus

import orjson
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from shrivenq.pipeline.exchange import requests
from shrivenq.pipeline.exchange.accounts import RECV_WINDOW_US, check_time, to_us
from shrivenq.pipeline.exchange.errors import ApiError, missing
from shrivenq.pipeline.exchange.stream_sessions import TIME_UNITS
from shrivenq.pipeline.exchange.venue import Answer, Request, nobody

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from shrivenq.pipeline.exchange.venue import Venue

BODY_BYTES = 65_536
"""Of a request; a longer one is refused."""
ROUTES = {
    ("GET", "ping"): "ping",
    ("GET", "time"): "time",
    ("GET", "exchangeInfo"): "exchangeInfo",
    ("GET", "executionRules"): "executionRules",
    ("GET", "depth"): "depth",
    ("GET", "trades"): "trades.recent",
    ("GET", "historicalTrades"): "trades.historical",
    ("GET", "aggTrades"): "trades.aggregate",
    ("GET", "klines"): "klines",
    ("GET", "uiKlines"): "uiKlines",
    ("GET", "avgPrice"): "avgPrice",
    ("GET", "ticker"): "ticker",
    ("GET", "ticker/24hr"): "ticker.24hr",
    ("GET", "ticker/tradingDay"): "ticker.tradingDay",
    ("GET", "ticker/bookTicker"): "ticker.book",
    ("GET", "ticker/price"): "ticker.price",
    ("GET", "referencePrice"): "referencePrice",
    ("POST", "order"): "order.place",
    ("POST", "order/test"): "order.test",
    ("DELETE", "order"): "order.cancel",
    ("GET", "order"): "order.status",
    ("POST", "order/cancelReplace"): "order.cancelReplace",
    ("PUT", "order/amend/keepPriority"): "order.amend.keepPriority",
    ("POST", "orderList/oco"): "orderList.place.oco",
    ("POST", "orderList/oto"): "orderList.place.oto",
    ("POST", "orderList/otoco"): "orderList.place.otoco",
    ("DELETE", "orderList"): "orderList.cancel",
    ("GET", "orderList"): "orderList.status",
    ("GET", "openOrderList"): "openOrderLists.status",
    ("GET", "allOrderList"): "allOrderLists",
    ("GET", "openOrders"): "openOrders.status",
    ("DELETE", "openOrders"): "openOrders.cancelAll",
    ("GET", "allOrders"): "allOrders",
    ("GET", "myTrades"): "myTrades",
    ("GET", "account"): "account.status",
    ("GET", "account/commission"): "account.commission",
    ("GET", "rateLimit/order"): "account.rateLimits.orders",
    ("GET", "myFilters"): "myFilters",
    ("GET", "myPreventedMatches"): "myPreventedMatches",
    ("GET", "myAllocations"): "myAllocations",
}
PATHS = {path for _, path in ROUTES}
JSON = "application/json;charset=UTF-8"


class Dropped(Response):
    """No answer at all: the connection is gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """End the connection."""
        scope["state"]["http"].transport.abort()
        await asyncio.sleep(0)  # the protocol notices, and does not put a 500 in its place


async def serve_rest(http: HttpRequest, venue: Venue) -> Response:
    """Serve one HTTP request."""
    path = http.path_params["path"]
    name = ROUTES.get((http.method, path))
    if name is None:
        return Response(status_code=405 if path in PATHS else 404)
    host = http.client.host if http.client else ""
    try:
        query = http.url.query
        body = await _body(http)
        request = Request(
            name=name,
            params=_parameters(query, body),
            host=host,
            authorise=_signed(http, venue, query, body) if requests.METHODS[name].security != "NONE" else nobody,
            micros=_micros(http),
        )
    except ApiError as error:
        return _response(venue, name, host, -1, Answer(error.status, error.body(), error.retry_us))
    account = -1

    def authorise(now_us: int) -> int:
        nonlocal account
        account = request.authorise(now_us)
        return account

    wanted = request._replace(authorise=authorise)
    answer = await venue.outgoing.answer(wanted, lambda: venue.serve(wanted))
    return Dropped() if answer is None else _response(venue, name, host, account, answer)


async def _body(http: HttpRequest) -> str:
    """Read a form body. Raises ApiError for one that is too long or no text."""
    found = b""
    try:
        async for chunk in http.stream():
            found += chunk
            if len(found) > BODY_BYTES:
                raise ApiError(-1101, "Too many parameters sent for this endpoint.", 413)
    except ClientDisconnect:
        raise ApiError(-1001, "Internal error; unable to process your request. Please try again.", 400) from None
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError:
        raise ApiError(-1100, "Illegal characters found in a parameter.") from None


def _parameters(query: str, body: str) -> dict[str, Any]:
    """Read the parameters; the query wins where both have one. Raises ApiError -1101 for one sent twice."""
    found: dict[str, Any] = {}
    for text in (body, query):
        pairs = parse_qsl(text, keep_blank_values=True)
        if len(dict(pairs)) < len(pairs):
            raise ApiError(-1101, "Duplicate values for a parameter detected.")
        found |= dict(pairs)
    return found


def _micros(http: HttpRequest) -> bool:
    """Tell whether the answer's times are wanted in microseconds. Raises ApiError -1194."""
    word = http.headers.get("x-mbx-time-unit", "MILLISECOND").upper()
    if word not in TIME_UNITS:
        raise ApiError(-1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
    return TIME_UNITS[word]


def split_signature(query: str, body: str) -> tuple[bytes, str]:
    """Give what was signed, and the signature ("" for none), of a query string and a body as they were sent."""
    signature = ""
    kept = []
    for text in (query, body):
        parts = text.split("&") if text else []
        for part in parts:
            if part.startswith("signature="):
                signature = unquote_plus(part.removeprefix("signature=").replace("+", "%2B"))
        kept.append("&".join(part for part in parts if not part.startswith("signature=")))
    return "".join(kept).encode(), signature


def _signed(http: HttpRequest, venue: Venue, query: str, body: str) -> Callable[[int], int]:
    """Make the check of a signed request: key, time, signature, in this order."""

    def authorise(now_us: int) -> int:
        key = venue.keyring.find(http.headers.get("x-mbx-apikey", ""))
        params = _parameters(query, body)
        if not params.get("timestamp"):
            raise missing("timestamp")
        window = requests.value_of("recvWindow", params["recvWindow"]) if "recvWindow" in params else RECV_WINDOW_US
        check_time(to_us(requests.value_of("timestamp", params["timestamp"])), window, now_us)
        payload, signature = split_signature(query, body)
        if not signature:
            raise missing("signature")
        if not key.verify(payload, signature):
            raise ApiError(-1022, "Signature for this request is not valid.")
        return key.account

    return authorise


def _response(venue: Venue, name: str, host: str, account: int, answer: Answer) -> Response:
    """Write an answer, with what its limits are used up to."""
    now_us = venue.market_us()
    weight = venue.limits.address(host).weight
    used = str(weight.count(now_us))
    headers = {"x-mbx-used-weight": used, f"x-mbx-used-weight-{weight.rule.letters.lower()}": used}
    if requests.METHODS[name].orders and account >= 0:
        for window in venue.limits.orders(account).windows:
            headers[f"x-mbx-order-count-{window.rule.letters.lower()}"] = str(window.count(now_us))
    if answer.retry_us:
        headers["retry-after"] = str(max(1, -((now_us - answer.retry_us) // 1_000_000)))
    return Response(orjson.dumps(answer.body), answer.status, headers, JSON)
