"""Sessions: logged on, renewed, revoked, under TLS; what is unusual is Python's."""

from __future__ import annotations

import json
import os
import time

import pytest

from shrivenq.pipeline.exchange.faults import Rule, Script
from shrivenq.stages import control, gateway, live_venue, stage
from shrivenq.stages import messages as m
from shrivenq.stages.live import openssl, renewal
from shrivenq.stages.live import receive as r
from shrivenq.stages.live import session as s
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.opening import Opening
from tests.hostile_json import mutations
from tests.pipeline.exchange.exchange_rig import TRADER, running
from tests.pipeline.exchange.ws_api_rig import PUBLIC
from tests.stages.live.orders_rig import OrdersRig, logon, tables_of

S_NS = 1_000_000_000


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    with running(tmp_path_factory.mktemp("exchange"), limits={"connections": 10_000}) as rig:
        yield rig


@pytest.fixture
def make(exchange):
    made = []

    def rig(**options):
        made.append(OrdersRig(exchange.ws, tables_of(exchange), **options))
        return made[-1]

    yield rig
    for one in made:
        one.close()


def reasons(rig):
    return [fields["reason"] for event, fields in rig.log.lines if event == "venue disconnected"]


def test_a_key_that_the_venue_refuses_is_told_and_tried_again_rarely(make):
    rig = make(logon=lambda name, ms: logon(name, ms, api_key="NOBODY"))
    rig.until(lambda: reasons(rig), "the refusal")
    rig.for_a_while()
    assert len(reasons(rig)) == 1
    assert "logon refused" in reasons(rig)[0]
    assert "-2015" in dict(rig.log.lines)["held: the venue refuses the key"]["text"]
    assert rig.log.lines[-1][1]["again_in_ms"] >= 900_000
    assert control.held(rig.hold) == control.RECONCILING


def test_a_logon_that_is_refused_for_another_reason_is_soon_tried_again(make, exchange):
    def act():
        rules = [Rule(on="request", name="session.logon", action="error_not_placed", times=2)]
        exchange.simulator.faults.arm(Script(rules=rules))

    exchange.call(act)
    rig = make().ready()
    assert len(reasons(rig)) == 2
    assert rig.log.events().count("held: the venue refuses the key") == 0


def test_a_key_that_cannot_be_used_is_told(make):
    def nothing(name, ms):
        raise ValueError("key file x: expired")

    rig = make(logon=nothing)
    rig.until(lambda: reasons(rig), "the refusal")
    assert reasons(rig)[0] == "no logon: key file x: expired"


def test_a_revoked_key_ends_the_session(make, exchange):
    rig = make().ready()
    keyring = exchange.venue.keyring
    key = keyring.find(TRADER)
    exchange.call(lambda: keyring.remove(TRADER))
    try:
        order = rig.send()
        rig.until(lambda: reasons(rig), "the end")
        assert reasons(rig)[0] in ("the venue has logged the session off", "the venue has ended the account's events")
        assert rig.state(order) == "sent"  # it was handed over: what became of it will be asked
    finally:
        exchange.call(lambda: keyring.add(TRADER, key.account, public_key=PUBLIC))
    rig.session._connections.try_ns = 0
    rig.venue.live.words[r.ATTENTION] = 1
    rig.ready()


def test_a_connection_without_answers_or_bytes_is_replaced(make):
    rig = make().ready()
    rig.session._asking.pending["account"] = 1
    rig.venue.live.words[r.ATTENTION] = 1
    rig.until(lambda: reasons(rig), "the end")
    rig.ready()
    rig.session._connections._bytes_ns -= renewal.SILENT_NS + 1
    rig.venue.live.words[r.ATTENTION] = 1
    rig.until(lambda: len(reasons(rig)) == 2, "the end")
    assert reasons(rig) == ["no answer in time: account", "nothing received for 65 s"]
    rig.ready()


@pytest.mark.parametrize("compiled", [True, False])
def test_under_tls_the_same(tmp_path, monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr(openssl, "LIBRARY", None)
    with running(tmp_path, tls={"generate": "tls"}) as exchange:
        url = exchange.ws.replace("ws://", "wss://")
        rig = OrdersRig(url, tables_of(exchange), authority=str(tmp_path / "tls" / "authority.pem")).ready()
        order = rig.send(price=50_00)
        rig.wait(m.ACCEPTED, order)
        several = [rig.send(price=40_00 + i) for i in range(5)]
        for one in several:
            rig.wait(m.ACCEPTED, one)
        rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=order))
        assert rig.venue.words[v.SENDS] == compiled
        assert rig.venue.words[v.SENT] == 7
        rig.close()


def test_a_half_sent_frame_is_finished_before_anything_else(make):
    rig = make().ready()
    row, words = rig.venue.live.rows[0], rig.venue.words
    words[v.SENDS] = 0
    order = rig.send(price=50_00)
    gateway.step(rig.gateway, rig.gateway_loop)
    rig.loop[stage.DEADLINE_NS], rig.loop[stage.LOOK_NS] = time.monotonic_ns() + S_NS, 0
    live_venue.run(rig.venue, rig.loop)
    begin, end = int(words[v.OUT_BEGIN]), int(words[v.OUT_END])
    assert end > begin
    # As if the socket had taken ten bytes and no more.
    os.write(int(row["descriptor"]), rig.venue.outbox[begin : begin + 10].tobytes())
    words[v.OUT_BEGIN] += 10
    other = rig.send(price=40_00)
    rig.wait(m.ACCEPTED, order)
    rig.wait(m.ACCEPTED, other)
    assert not reasons(rig)
    for one in (order, other):
        rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=one))


def test_an_address_that_is_none_is_refused(exchange):
    with pytest.raises(ValueError, match=r"live_venue\.url"):
        OrdersRig("http://127.0.0.1", tables_of(exchange))


class NoLink:
    """A connection that nothing comes of."""

    closed, is_restarting, row = None, False, 0

    def __getattr__(self, _):
        return lambda *_: None


LIMIT = {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 50, "count": 0}
TIME = {"id": "time", "status": 200, "result": {"serverTime": 1_700_000_000_000}}
OPENING = [
    TIME,
    {"id": "limits", "status": 200, "result": [LIMIT]},
    {"id": "logon", "status": 200, "result": {"apiKey": "x"}, "rateLimits": []},
    {"id": "follow", "status": 200, "result": {"subscriptionId": 0}},
    {"id": "follow", "status": 401, "error": {"code": -2015, "msg": "Invalid API-key, IP, or permissions."}},
]
OWN = [
    TIME,
    {"id": "account", "status": 200, "result": {"balances": [{"asset": "BTC", "free": "1", "locked": "0"}]}},
    {"id": "orders BTCUSDT", "status": 200, "result": [{"orderId": 1, "clientOrderId": "by-hand"}]},
    {"id": "trades BTCUSDT", "status": 200, "result": [{"symbol": "BTCUSDT", "id": 1, "orderId": 1}]},
    {"id": "look BTCUSDT", "status": 200, "result": []},
    {"id": "cancel BTCUSDT 7", "status": 400, "error": {"code": -2011, "msg": "Unknown order sent."}},
    {"id": "account", "status": 429, "error": {"code": -1003, "msg": "", "data": {"retryAfter": 1}}},
    {"id": "account", "status": 401, "error": {"code": -2015, "msg": "Invalid API-key, IP, or permissions."}},
]


@pytest.mark.parametrize("answer", OWN, ids=lambda one: f"{one['id']} {one['status']}")
@pytest.mark.parametrize("state", [s.RECONCILING, s.TRADING])
def test_whatever_answers_a_request_of_the_session_it_goes_on_or_ends(make, answer, state):
    rig = make()
    session = rig.session
    for hostile in mutations(answer):
        session._connections.link = link = NoLink()
        session._reconcile()
        session._begin()
        session.state = state
        for one in OWN:
            session._asking.ask(one["id"], "account.status", {})
        session.take(json.dumps(hostile).encode(), link)
    session._connections.link = None


@pytest.mark.parametrize("answer", OPENING, ids=lambda one: f"{one['id']} {one['status']}")
def test_whatever_answers_a_request_of_an_opening_it_goes_on_or_ends(make, answer):
    rig = make()
    session = rig.session
    for hostile in mutations(answer):
        link = NoLink()
        session._connections.opening = Opening(rig.venue, session._clock, link, logon, rig.log)
        for one in OPENING[:4]:
            session._connections.opening._asking.ask(one["id"], "account.status", {})
        session.take(json.dumps(hostile).encode(), link)
    session._connections.opening = None
