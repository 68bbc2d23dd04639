"""The venue: one order of checks, one list of events, faults asked before anything leaves."""

from __future__ import annotations

import asyncio
import time

import pytest

from shrivenq.pipeline.exchange import state
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.faults import Rule, Script
from shrivenq.pipeline.exchange.server import Simulator
from shrivenq.pipeline.exchange.types import BalanceEvent, DepthEvent, OrderEvent, TickerEvent, TradeEvent
from shrivenq.pipeline.exchange.venue import COMMANDS, Answer, Outgoing, Request, nobody
from tests.pipeline.exchange.exchange_rig import make_config

LIMIT = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1", "price": "100"}
MARKET = {"symbol": "BTCUSDT", "side": "SELL", "type": "MARKET", "quantity": "0.5"}


@pytest.fixture
def simulator(tmp_path):
    return Simulator(make_config(tmp_path))


def request(name, params=None, account=-1, *, micros=False, host="10.0.0.1"):
    return Request(name, params or {}, host, nobody if account < 0 else lambda _now_us: account, micros)


def test_events_come_in_order_to_every_listener_before_the_answer(simulator):
    venue, buyer, seller = simulator.venue, *simulator.accounts.values()
    first, second = [], []
    venue.listen(first.extend)
    venue.listen(second.extend)
    assert venue.serve(request("order.place", LIMIT, buyer)).status == 200
    kinds = [type(one) for one in first]
    assert kinds.count(OrderEvent) == 1
    assert {DepthEvent, TickerEvent, BalanceEvent} <= set(kinds)
    first.clear()
    assert venue.serve(request("order.place", MARKET, seller)).body["status"] == "FILLED"
    trades = [one for one in first if isinstance(one, TradeEvent)]
    fills = [one.fill for one in first if isinstance(one, OrderEvent) and one.fill]
    assert [one.trade_id for one in trades] == [1]
    assert {(fill.account, fill.is_maker) for fill in fills} == {(buyer, True), (seller, False)}
    assert second[-len(first) :] == first
    assert venue.tape.fresh[0].first_id == 1
    assert venue.engine.take_events() == []


def test_a_first_fill_takes_off_the_count_of_unfilled_orders_once(simulator):
    venue, buyer, seller = simulator.venue, *simulator.accounts.values()

    def count(account):
        return venue.limits.orders(account).windows[1].count(venue.now_us())

    for _ in range(8):
        venue.serve(request("order.place", LIMIT, buyer))
    assert count(buyer) == 8
    for _ in range(2):
        venue.serve(request("order.place", MARKET, seller))
    assert (count(buyer), count(seller)) == (3, 0), "both sales met the first order"
    venue.serve(request("openOrders.cancelAll", {"symbol": "BTCUSDT"}, buyer))
    assert count(buyer) == 3, "cancels take nothing off"


def test_what_is_checked_first(simulator):
    venue = simulator.venue

    def refuse(_now_us):
        raise ApiError(-2015, "Invalid API-key, IP, or permissions for action.", 401)

    bad = Request("order.place", {"x": "y"}, "10.0.0.1", refuse, micros=False)
    assert venue.serve(bad) == Answer(401, {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."})
    assert venue.limits.address("10.0.0.1").weight.count(venue.now_us()) == 1, "a refused request costs its weight"
    venue.limits.address("10.0.0.1").ban(10**9, venue.now_us())
    assert venue.serve(bad).status == 418
    assert venue.serve(request("ping", host="10.0.0.2")).status == 200


def test_success_of_an_order_costs_no_weight_and_its_failure_does(simulator):
    venue, account, _ = simulator.venue, *simulator.accounts.values()
    weight = venue.limits.address("10.0.0.1").weight
    assert venue.serve(request("order.place", LIMIT, account)).status == 200
    assert weight.count(venue.now_us()) == 0
    assert venue.serve(request("order.place", LIMIT | {"price": "0.001"}, account)).status == 400
    assert weight.count(venue.now_us()) == 1


def test_the_clock_can_be_wrong_on_purpose(simulator):
    venue = simulator.venue
    venue.clock_offset_us = -3_600_000_000
    shown = venue.serve(request("time", micros=True)).body["serverTime"]
    assert abs(shown + 3_600_000_000 - time.time_ns() // 1000) < 60_000_000
    assert venue.serve(request("time")).body["serverTime"] < 10**14


def test_a_wrong_clock_leaves_the_market_alone(simulator):
    venue = simulator.venue
    venue.clock_offset_us = 3_600_000_000
    venue.serve(request("time"))
    venue.step()
    assert venue.engine.exchange.words[state.NOW_US] <= venue.market_us() < venue.now_us() - 3_000_000_000


def test_when_balances_changed_is_known(simulator):
    venue, buyer, _ = simulator.venue, *simulator.accounts.values()
    assert venue.serve(request("account.status", account=buyer)).body["updateTime"] == 0
    venue.serve(request("order.place", LIMIT, buyer))
    assert venue.serve(request("account.status", account=buyer)).body["updateTime"] > 0


def test_the_open_door_lets_everything_pass():
    sent = []

    class Socket:
        def send_message(self, payload, *, text):
            sent.append((payload, text))

    door = Outgoing()
    assert door.is_open
    door.frame(Socket(), "market", "btcusdt@trade", b"x")
    door.frame(Socket(), "market", "btcusdt@trade", b"y", text=False)
    assert sent == [(b"x", True), (b"y", False)]
    assert asyncio.run(door.answer(request("ping"), lambda: Answer(200, {}))) == Answer(200, {})


def test_the_door_is_open_while_no_fault_is_armed(simulator):
    assert simulator.venue.outgoing.is_open
    simulator.faults.arm(Script([Rule(on="market", action="drop")]))
    assert not simulator.venue.outgoing.is_open
    simulator.faults.arm(Script())
    assert simulator.venue.outgoing.is_open


def test_every_method_that_is_no_session_s_is_carried_out():
    from shrivenq.pipeline.exchange.requests import METHODS

    assert set(COMMANDS) == {name for name, method in METHODS.items() if method.security != "SESSION"}
