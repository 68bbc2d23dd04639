"""The control endpoint of the market: halts and filters, as a client from outside has them."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette

from shrivenq.pipeline.exchange import control
from shrivenq.pipeline.exchange.server import Simulator
from shrivenq.pipeline.exchange.venue import Request
from tests.pipeline.exchange.exchange_rig import make_config

ORDER = {
    "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1", "price": "100",
}  # fmt: skip


@pytest.fixture
def venue(tmp_path):
    return Simulator(make_config(tmp_path)).venue


def said(venue, content=None):
    """Ask the endpoint; POST if there is something to say."""

    async def run():
        transport = httpx.ASGITransport(app=Starlette(routes=control.routes(venue)))
        async with httpx.AsyncClient(transport=transport, base_url="http://venue") as client:
            if content is None:
                return await client.get("/control/market")
            return await client.post("/control/market", json=content)

    return asyncio.run(run())


def ask(venue, name, **params):
    return venue.serve(Request(name, params, "10.0.0.1", lambda _now: 1, micros=True))


def test_a_symbol_is_halted_and_open_again(venue):
    assert said(venue, {"symbol": "BTCUSDT", "status": "HALT"}).json()["BTCUSDT"]["status"] == "HALT"
    assert ask(venue, "order.place", **ORDER).body["msg"] == "Market is closed."
    assert said(venue).json()["ETHUSDT"]["status"] == "TRADING"
    said(venue, {"symbol": "BTCUSDT", "status": "TRADING"})
    assert ask(venue, "order.place", **ORDER).status == 200


def test_a_filter_changes_where_it_is_said_and_where_it_is_enforced(venue):
    for filters, name in (
        ({"notional_min": "100.5"}, "NOTIONAL"),
        ({"notional_min": "5", "quantity_max": "0.5"}, "LOT_SIZE"),
        ({"quantity_max": "9", "price_max": "99.99"}, "PRICE_FILTER"),
        ({"price_max": "2000", "orders_max": "1"}, ""),
        ({"order_lists_max": "3", "trailing_above_min": "2"}, "MAX_NUM_ORDERS"),
    ):
        assert said(venue, {"symbol": "BTCUSDT", "filters": filters}).status_code == 200
        answer = ask(venue, "order.place", **ORDER)
        assert answer.status == (400 if name else 200)
        assert not name or answer.body["msg"] == f"Filter failure: {name}"
    found = ask(venue, "exchangeInfo", symbol="BTCUSDT").body["symbols"][0]["filters"]
    assert found == said(venue).json()["BTCUSDT"]["filters"]
    assert {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 1} in found
    assert {"filterType": "MAX_NUM_ORDER_LISTS", "maxNumOrderLists": 3} in found
    assert next(one for one in found if one["filterType"] == "TRAILING_DELTA")["minTrailingAboveDelta"] == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"symbol": "XRPUSDT", "status": "HALT"}, 'symbol: found "XRPUSDT", allowed: BTCUSDT, ETHUSDT'),
        ({"symbol": "BTCUSDT", "status": "SLEEPY"}, "status"),
        (
            {"symbol": "BTCUSDT", "filters": {"tick": "1"}},
            "filters.tick: no such filter, allowed: price_min, price_max,",
        ),
        ({"symbol": "BTCUSDT", "filters": {"notional_min": "much"}}, 'filters.notional_min: found "much", allowed:'),
        ({"symbol": "BTCUSDT", "filters": {"orders_max": "1.5"}}, 'filters.orders_max: found "1.5", allowed:'),
        ({"symbol": "BTCUSDT", "filters": {"price_max": "1000000"}}, "price_max: allowed: up to 200000 units"),
        ({"symbol": "BTCUSDT", "halt": True}, "halt"),
        ([], "object"),
    ],
)
def test_what_is_refused_changes_nothing(venue, change, what):
    before = said(venue).json()
    answer = said(venue, change)
    assert (answer.status_code, what in answer.json()["error"]) == (400, True), answer.text
    assert said(venue).json() == before
