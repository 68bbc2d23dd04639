"""Faults as a client on the network sees them, each on demand."""

from __future__ import annotations

import contextlib
import itertools
import time
import urllib.parse

import httpx
import orjson
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from shrivenq.pipeline.exchange.faults import Rule, Script
from tests.pipeline.exchange.exchange_rig import FLOWING, TRADER, running
from tests.pipeline.exchange.wire_rig import connected, now_ms
from tests.pipeline.exchange.ws_api_rig import ALICE, sign

ORDER = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": "550", "quantity": "1"}
MARKET = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with running(tmp_path_factory.mktemp("exchange"), market=FLOWING) as rig:
        yield rig


@pytest.fixture
def rig(shared):
    yield shared
    arm(shared)
    shared.call(shared.venue.limits._addresses.clear)


def arm(rig, *rules, seed=0):
    """Have these faults from now on."""
    rig.call(lambda: rig.simulator.faults.arm(Script([Rule(**rule) for rule in rules], seed)))


@pytest.fixture
def client(rig):
    with connected(rig) as client:
        yield client
        with contextlib.suppress(ConnectionClosed):
            arm(rig)
            client.ask("openOrders.cancelAll", {"symbol": "BTCUSDT"})


def words(messages):
    """Tell what messages are, in short."""
    return [one["event"].get("x", one["event"]["e"]) if "event" in one else one["id"] for one in messages]


def test_an_answer_comes_before_what_it_causes(client):
    placed, report = client.send("order.place", ORDER), client.send("ping")
    assert words(client.until_answer(report)) == [placed, "NEW", "outboundAccountPosition", report]


def test_a_lost_acknowledgement(rig, client):
    arm(rig, {"on": "response", "name": "order.place", "action": "drop"})
    client.send("order.place", {**ORDER, "newClientOrderId": "lost"})
    last = client.send("ping")
    assert words(client.until_answer(last)) == ["NEW", "outboundAccountPosition", last]
    found = client.ask("order.status", {"symbol": "BTCUSDT", "origClientOrderId": "lost"})
    assert found["result"]["status"] == "NEW"


def test_a_fill_before_its_acknowledgement(rig, client):
    arm(rig, {"on": "response", "name": "order.place", "action": "late", "ms": 20})
    placed = client.send("order.place", MARKET)
    seen = words(client.until_answer(placed))
    assert "TRADE" in seen
    assert seen[-1] == placed


def test_a_duplicate_report(rig, client):
    arm(rig, {"on": "event", "name": "executionReport", "action": "duplicate", "times": 1})
    client.send("order.place", ORDER)
    first, second = [one for one in client.until_answer(client.send("ping")) if one.get("event", {}).get("x") == "NEW"]
    assert first == second


def test_reports_out_of_order_late_and_lost(rig, client):
    arm(rig, {"on": "event", "name": "executionReport", "action": "reorder", "times": 1})
    placed, last = client.send("order.place", ORDER), client.send("ping")
    assert words(client.until_answer(last)) == [placed, "outboundAccountPosition", "NEW", last]
    arm(rig, {"on": "event", "name": "executionReport", "action": "drop"})
    placed, last = client.send("order.place", ORDER), client.send("ping")
    assert words(client.until_answer(last)) == [placed, "outboundAccountPosition", last]
    arm(rig, {"on": "event", "name": "executionReport", "action": "delay", "ms": 20})
    placed, last = client.send("order.place", ORDER), client.send("ping")
    assert words(client.until_answer(last)) == [placed, "NEW", "outboundAccountPosition", last]


@pytest.mark.parametrize(("action", "placed"), [("error_placed", True), ("error_not_placed", False)])
def test_an_error_says_nothing_about_the_order(rig, client, action, placed):
    arm(rig, {"on": "request", "name": "order.place", "action": action})
    answer = client.ask("order.place", {**ORDER, "newClientOrderId": action})
    assert (answer["status"], answer["error"]["code"]) == (504, -1007)
    found = client.ask("order.status", {"symbol": "BTCUSDT", "origClientOrderId": action})
    assert ("result" in found) == placed
    assert placed or found["error"]["code"] == -2013


def test_too_many_requests(rig, client):
    arm(rig, {"on": "request", "name": "order.place", "action": "too_many", "ms": 1500, "times": 1})
    answer = client.ask("order.place", ORDER)
    assert (answer["status"], answer["error"]["code"]) == (429, -1003)
    data = answer["error"]["data"]
    assert 0 < data["retryAfter"] - data["serverTime"] <= 1500
    assert client.ask("order.place", ORDER)["status"] == 200


def test_a_ban_ends_the_connection_and_refuses_the_next(rig, client):
    arm(rig, {"on": "request", "name": "order.place", "action": "banned", "ms": 60_000})
    answer = client.ask("order.place", ORDER)
    assert (answer["status"], answer["error"]["code"]) == (418, -1003)
    assert answer["error"]["data"]["retryAfter"] > answer["error"]["data"]["serverTime"]
    with pytest.raises(ConnectionClosed):
        client.next()
    with pytest.raises(InvalidStatus) as refused, connect(f"{rig.ws}/ws-api/v3"):
        pass
    assert refused.value.response.status_code == 418
    assert httpx.get(f"{rig.rest}/api/v3/ping").status_code == 418


def test_a_disconnect_instead_of_an_answer(rig, client):
    arm(rig, {"on": "response", "name": "order.place", "action": "disconnect"})
    client.send("order.place", {**ORDER, "newClientOrderId": "cut"})
    with pytest.raises(ConnectionClosed):
        client.next()
    with connected(rig) as again:
        found = again.ask("order.status", {"symbol": "BTCUSDT", "origClientOrderId": "cut"})
        assert found["result"]["status"] == "NEW"
        again.ask("openOrders.cancelAll", {"symbol": "BTCUSDT"})


def test_a_connection_that_is_lost_before_the_order_comes(rig, client):
    arm(rig, {"on": "request", "name": "order.place", "action": "disconnect"})
    client.send("order.place", {**ORDER, "newClientOrderId": "never"})
    with pytest.raises(ConnectionClosed):
        client.next()
    with pytest.raises(httpx.HTTPError):
        rest_order(rig, "never")
    with connected(rig) as again:
        found = again.ask("order.status", {"symbol": "BTCUSDT", "origClientOrderId": "never"})
        assert found["error"]["code"] == -2013


@pytest.mark.parametrize("offset_ms", [-3_600_000, 3_600_000])
def test_a_wrong_clock(tmp_path, offset_ms):
    with running(tmp_path) as rig, connected(rig) as client:
        arm(rig, {"on": "request", "name": "time", "action": "clock_offset", "ms": offset_ms, "times": 1})
        shown = client.ask("time")["result"]["serverTime"]
        assert abs(shown - now_ms() - offset_ms) < 10_000
        assert client.ask("order.place", ORDER)["error"]["code"] == -1021
        arm(rig)
        assert client.ask("order.place", ORDER)["status"] == 200


def test_a_venue_that_reads_slowly(rig, client):
    arm(rig, {"on": "request", "name": "time", "action": "delay", "ms": 60})
    begun = time.monotonic()
    slow, quick = client.send("time"), client.send("ping")
    assert words(client.until_answer(quick)) == [slow, quick]
    assert time.monotonic() - begun >= 0.06


def test_a_window_that_passes_while_the_venue_is_slow(rig, client):
    arm(rig, {"on": "request", "name": "order.place", "action": "delay", "ms": 60})
    assert client.ask("order.place", {**ORDER, "recvWindow": "50"})["error"]["code"] == -1021


def test_garbage_and_giants(rig, client):
    arm(rig, {"on": "response", "name": "ping", "action": "garbage", "times": 1})
    client.send("ping")
    with pytest.raises(orjson.JSONDecodeError):
        client.next()
    arm(rig, {"on": "response", "name": "ping", "action": "giant", "size": 3_000_000, "times": 1})
    number = client.send("ping")
    assert len(client.next()["giant"]) == 3_000_000
    assert client.next()["id"] == number


@pytest.mark.parametrize(("action", "code"), [("bad_text", 1007), ("bad_opcode", 1002)])
def test_frames_that_websocket_forbids(rig, client, action, code):
    arm(rig, {"on": "response", "name": "ping", "action": action})
    client.send("ping")
    with pytest.raises(ConnectionClosed) as ended:
        client.next()
    assert ended.value.sent.code == code


def test_a_gap_in_a_stream(rig):
    arm(rig, {"on": "market", "name": "btcusdt@depth@100ms", "action": "drop", "skip": 2, "times": 1})
    with connect(f"{rig.ws}/ws/btcusdt@depth@100ms") as wire:
        events = [orjson.loads(wire.recv(timeout=30)) for _ in range(4)]
    gaps = [later["U"] - earlier["u"] for earlier, later in itertools.pairwise(events)]
    assert gaps[0] == 1
    assert gaps[1] > 1, "one event is missing"
    assert gaps[2] == 1


def test_a_stale_snapshot(rig):
    arm(rig, {"on": "request", "name": "depth", "action": "stale_snapshot", "skip": 1})
    with connect(f"{rig.ws}/ws/btcusdt@depth@100ms") as wire:
        first = orjson.loads(wire.recv(timeout=30))
        shown = [httpx.get(f"{rig.rest}/api/v3/depth?symbol=BTCUSDT&limit=5").json() for _ in range(2)]
    assert shown[0]["lastUpdateId"] >= first["U"] - 1
    assert shown[1]["lastUpdateId"] < shown[0]["lastUpdateId"]
    assert len(shown[1]["bids"]) == 5


def rest_order(rig, client_id):
    """Send an order over REST."""
    query = urllib.parse.urlencode({**ORDER, "newClientOrderId": client_id, "timestamp": now_ms()})
    pairs = dict(urllib.parse.parse_qsl(query))
    payload = {key: pairs[key] for key in sorted(pairs)}
    query = "&".join(f"{key}={value}" for key, value in payload.items())
    signature = urllib.parse.quote(sign(payload, ALICE), safe="")
    return httpx.post(f"{rig.rest}/api/v3/order?{query}&signature={signature}", headers={"X-MBX-APIKEY": TRADER})


@pytest.mark.parametrize(("action", "placed"), [("drop", True), ("error_placed", True), ("error_not_placed", False)])
def test_the_same_over_rest(rig, client, action, placed):
    arm(rig, {"on": "request", "name": "order.place", "action": action, "times": 1})
    name = f"rest-{action}"
    if action == "drop":
        with pytest.raises(httpx.HTTPError):
            rest_order(rig, name)
    else:
        answer = rest_order(rig, name)
        assert (answer.status_code, answer.json()["code"]) == (504, -1007)
    found = client.ask("order.status", {"symbol": "BTCUSDT", "origClientOrderId": name})
    assert ("result" in found) == placed
