"""Connections of the WebSocket API over the network: what they may do, how long they live, how they end."""

from __future__ import annotations

import socket
import time

import orjson
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.pipeline.exchange.exchange_rig import TRADER, running
from tests.pipeline.exchange.wire_rig import connected
from tests.pipeline.exchange.ws_api_rig import ALICE, BOB, CAROL, LIMIT, Rig


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with running(tmp_path_factory.mktemp("exchange")) as rig:
        yield rig


@pytest.fixture
def rig(shared):
    yield shared
    shared.call(shared.venue.limits._addresses.clear)


def closed(client):
    """Read until the venue closes; give code and reason."""
    with pytest.raises(ConnectionClosed) as ended:
        list(iter(lambda: client.wire.recv(timeout=30), None))
    return ended.value.rcvd.code, ended.value.rcvd.reason


# ── rate limits ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_connection_weighs(rig):
    with connected(rig, logged_on=False) as client:
        assert client.ask("ping")["rateLimits"][0]["count"] == 3


def test_successful_orders_weigh_nothing():
    client = Rig().client(ALICE)

    def used():
        return client.ask("ping")["rateLimits"][0]["count"]

    before = used()
    number = client.result("order.place", LIMIT)["orderId"]
    client.result("order.cancel", {"symbol": "BTCUSDT", "orderId": number})
    assert used() == before + 1
    client.error("order.cancel", {"symbol": "BTCUSDT", "orderId": number})
    assert used() == before + 3
    client.take("what is this")
    assert used() == before + 5
    client.error("order.place", {**LIMIT, "timestamp": 1})
    assert used() == before + 7


def test_an_amendment_is_free_when_it_is_the_order_s_end():
    rig = Rig()
    client = rig.client(ALICE)
    which = {"symbol": "BTCUSDT", "orderId": client.result("order.place", LIMIT)["orderId"]}
    rig.client().result("order.place", {**LIMIT, "side": "SELL", "quantity": "0.4"}, signed=BOB)
    weight = rig.venue.limits.address("10.0.0.1").weight
    used = []
    for quantity, status in (("0.5", "PARTIALLY_FILLED"), ("0.4", "EXPIRED")):
        before = weight.count(rig.venue.market_us())
        amended = client.result("order.amend.keepPriority", {**which, "newQty": quantity})["amendedOrder"]
        assert amended["status"] == status
        used.append(weight.count(rig.venue.market_us()) - before)
    assert used == [4, 0]


def test_a_used_up_weight_is_429_and_then_418():
    client = Rig(weight=30, ban_after=2).client(ALICE)
    assert client.error("exchangeInfo", {"symbol": "NOPE"}) == (400, -1121)
    for _ in range(2):
        answer = client.ask("account.status")
        assert (answer["status"], answer["error"]["code"]) == (429, -1003)
        assert answer["error"]["data"]["retryAfter"] % 60_000 == 0
        assert answer["error"]["data"]["retryAfter"] > answer["error"]["data"]["serverTime"]
    answer = client.ask("account.status")
    assert (answer["status"], answer["error"]["code"]) == (418, -1003)
    assert client.is_closed == (1008, "IP banned")


def test_even_nonsense_is_counted():
    client = Rig(weight=10, ban_after=2).client()
    codes = [client.take("nonsense")["status"] for _ in range(13)]
    assert codes == [400] * 10 + [429] * 2 + [418]
    assert client.is_closed


def test_addresses_have_their_own_weight():
    rig = Rig(weight=5)
    first, second = rig.client(host="10.0.0.1"), rig.client(host="10.0.0.2")
    assert [first.ask("ping")["status"] for _ in range(6)][-1] == 429
    assert second.ask("ping")["status"] == 200


def test_too_many_orders_of_an_account():
    rig = Rig(orders=2)
    client, other = rig.client(ALICE), rig.client(CAROL)
    numbers = [client.result("order.place", LIMIT)["orderId"] for _ in range(2)]
    answer = client.ask("order.place", LIMIT)
    assert (answer["status"], answer["error"]["code"]) == (429, -1015)
    assert answer["error"]["data"]["retryAfter"] > answer["error"]["data"]["serverTime"]
    assert other.result("order.place", LIMIT)["status"] == "NEW"
    replace = {**LIMIT, "cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrderId": numbers[0]}
    assert client.error("order.cancelReplace", replace) == (429, -1015)
    assert len(client.result("openOrders.status")) == 2, "nothing was done"
    only = client.ask("order.cancelReplace", {**replace, "orderRateLimitExceededMode": "CANCEL_ONLY"})
    assert (only["status"], only["error"]["code"]) == (409, -2021)
    assert (only["error"]["data"]["cancelResult"], only["error"]["data"]["newOrderResult"]) == ("SUCCESS", "FAILURE")
    assert len(client.result("openOrders.status")) == 1


def test_a_fill_makes_room_for_orders():
    rig = Rig(orders=4)
    maker = rig.client(ALICE)
    for _ in range(4):
        maker.result("order.place", LIMIT)
    assert maker.error("order.place", LIMIT) == (429, -1015)
    rig.client().result("order.place", {**LIMIT, "side": "SELL", "quantity": "0.5"}, signed=BOB)
    assert maker.result("order.place", LIMIT)["status"] == "NEW"


# ── handshake, life and end ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("query", "code"), [("?timeUnit=HOUR", -1194), ("?responseFormat=sbe&sbeSchemaId=3&sbeSchemaVersion=5", -1155)]
)
def test_what_a_handshake_cannot_ask_for(rig, query, code):
    with pytest.raises(InvalidStatus) as refused, connected(rig, query):
        pass
    assert refused.value.response.status_code == 400
    assert orjson.loads(refused.value.response.body)["code"] == code


def test_choices_of_a_handshake(rig):
    with connected(rig, "?timeUnit=MICROSECOND&returnRateLimits=false") as client:
        answer = client.ask("time")
        assert "rateLimits" not in answer
        assert answer["result"]["serverTime"] > 10**15
        assert client.ask("session.status")["result"]["returnRateLimits"] is False


def test_too_many_connections(rig):
    def use_up():
        window = rig.venue.limits.address("127.0.0.1").connections
        window.add(window.rule.limit - window.count(rig.venue.now_us()), rig.venue.now_us())

    rig.call(use_up)
    with pytest.raises(InvalidStatus) as refused, connected(rig):
        pass
    assert refused.value.response.status_code == 429


def test_pings_are_answered_with_their_payload(rig):
    with connected(rig) as client:
        assert client.wire.ping(b"payload").wait(30)


def test_who_does_not_answer_pings_is_cut(tmp_path):
    handshake = (
        "GET /ws-api/v3 HTTP/1.1\r\nHost: venue\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    sessions = {"ping_s": 0.1, "pong_s": 0.2}
    with running(tmp_path, sessions=sessions) as rig, socket.create_connection(("127.0.0.1", rig.port), 30) as raw:
        raw.sendall(handshake.encode())
        received = b"".join(iter(lambda: raw.recv(4096), b""))
    head, _, frames = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    assert frames[0] == 0x89, "a ping"


def test_binary_frames_and_giants(rig):
    with connected(rig) as client:
        client.wire.send(b"\x00\x01")
        assert client.next()["error"]["code"] == -1135
        client.wire.send("x" * (1 << 21))
        assert closed(client)[0] == 1009


def test_bytes_that_are_no_text(rig):
    with connected(rig) as client:
        client.wire.send(b"\xff\xfe", text=True)
        assert closed(client)[0] == 1007


def test_a_client_that_goes_is_forgotten(rig):
    with connected(rig):
        assert rig.call(lambda: len(rig.simulator.ws_api.connections)) >= 1
    deadline = time.monotonic() + 30
    while rig.call(lambda: len(rig.simulator.ws_api.connections)):
        assert time.monotonic() < deadline
    assert not any(rig.call(lambda: list(rig.simulator.user_data._subscribers.values())))


def test_a_client_that_resets_its_connection_is_forgotten(rig):
    with connected(rig) as client:
        client.send("order.place", {**LIMIT, "price": "10"})
        client.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        client.wire.socket.shutdown(socket.SHUT_RDWR)
    with connected(rig) as client:
        assert client.ask("openOrders.cancelAll", {"symbol": "BTCUSDT"})["id"] == client.number


def test_a_connection_is_cut_when_its_time_is_over(tmp_path):
    with running(tmp_path, sessions={"lifetime_s": 0.2}) as rig, connected(rig, logged_on=False) as client:
        assert closed(client) == (1001, "24 hours")


def test_everybody_is_told_before_the_venue_stops(tmp_path):
    with running(tmp_path) as rig, connected(rig) as client, connected(rig, "?timeUnit=MICROSECOND") as fine:
        rig.stop()
        notice = client.next()
        assert notice == {"event": {"e": "serverShutdown", "E": notice["event"]["E"]}}
        assert fine.next()["event"]["E"] > 10**15
        assert closed(client)[0] == 1012


def test_a_key_is_revoked(rig):
    with connected(rig) as client:
        key = rig.venue.keyring.find(TRADER)
        rig.call(lambda: rig.venue.keyring.remove(TRADER))
        client.send("time")
        assert client.next()["event"]["e"] == "eventStreamTerminated"
        assert client.next()["status"] == 401
        rig.call(lambda: rig.venue.keyring._keys.__setitem__(TRADER, key))
        assert client.ask("time")["status"] == 200
