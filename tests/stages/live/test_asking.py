"""The session's own requests: what goes at once, what waits, what is asked again; with and without a session."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from shrivenq.stages import control, token_bucket
from shrivenq.stages import messages as m
from shrivenq.stages.live import asking, receive, session
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.asking import Asking, pause_ns
from shrivenq.stages.live.venue_clock import VenueClock
from shrivenq.stages.venues import answers as a
from tests.stages.live.orders_rig import Log


@pytest.fixture
def asked(exchange, monkeypatch):
    """What the venue is asked, by name."""
    serve, names = exchange.rig.venue.serve, []
    monkeypatch.setattr(exchange.rig.venue, "serve", lambda request: names.append(request.name) or serve(request))
    return names


MINUTE = 60 * 10**9


class Desk:
    """Requests, and what was sent of them."""

    def __init__(self):
        self.buckets = token_bucket.make_buckets([(a.WEIGHT, MINUTE, 100)])
        context = SimpleNamespace(buckets=self.buckets, words=np.zeros(v.WORDS, np.int64))
        self.sent, self.log = [], Log()
        self.clock = VenueClock(context, np.zeros(512, np.int64))
        self.asking = Asking(context, self.clock, lambda text: self.sent.append(json.loads(text)), self.log)

    def names(self):
        return [one["id"] for one in self.sent]


@pytest.fixture
def desk(monkeypatch):
    made = Desk()
    made.now = 5 * MINUTE
    monkeypatch.setattr(VenueClock, "now_ns", lambda _: made.now)
    monkeypatch.setattr(asking.time, "monotonic_ns", lambda: made.now)
    return made


def test_a_request_is_signed_by_the_session_and_bears_the_venue_s_time(desk):
    desk.asking.ask("account", "account.status", {"omitZeroBalances": True})
    desk.asking.ask("follow", "userDataStream.subscribe", {})
    params = {"omitZeroBalances": True, "timestamp": desk.now // 10**6}
    assert desk.sent[0] == {"id": "account", "method": "account.status", "params": params}
    assert desk.sent[1]["params"] == {}
    assert desk.buckets.rows[0]["used"] == 22
    assert set(desk.asking.pending) == {"account", "follow"}
    assert desk.asking.take("account")
    assert not desk.asking.take("account")
    assert not desk.asking.take("reconciliation")
    assert not desk.asking.take(None)


def test_what_does_not_fit_waits_in_its_order_and_cancels_go_first(desk):
    for number in range(4):
        desk.asking.ask(f"trades {number}", "myTrades", {})
    desk.asking.ask("trades 3", "myTrades", {})  # waits already
    desk.asking.ask("cancel 1", "order.cancel", {})
    assert desk.names() == ["trades 0", "trades 1", "cancel 1"]  # 56 of 100 are ours to use, and 14 more for cancels
    assert [event for event, _ in desk.log.lines] == ["requests wait for the venue's limits"]
    assert desk.asking.is_waiting
    assert desk.now < min(desk.asking.wakes(desk.now)) <= desk.now + asking.LOOK_NS
    desk.now += MINUTE
    desk.asking.serve()
    assert desk.names()[3:] == ["trades 2", "trades 3"]
    assert not desk.asking.is_waiting


def test_throttled_nothing_is_asked_but_cancels_one_at_a_time(desk):
    token_bucket.throttle(desk.buckets, desk.now + MINUTE)
    desk.asking.ask("account", "account.status", {})
    desk.asking.ask("cancel 1", "order.cancel", {})
    desk.asking.ask("cancel 2", "order.cancel", {})
    assert desk.names() == ["cancel 1"]
    assert desk.asking.take("cancel 1")
    desk.asking.serve()
    assert desk.names() == ["cancel 1", "cancel 2"]


def test_what_could_not_be_said_is_asked_again_after_a_pause(desk):
    asked = []
    desk.asking.ask_by("q", m.QUERY, lambda: asked.append(desk.now), after_ns=pause_ns(0))
    desk.asking.ask("account", "account.status", {})
    desk.asking.take("account")
    desk.asking.again("account")
    desk.asking.serve()
    assert (asked, desk.names()) == ([], ["account", "account"])
    desk.now += pause_ns(0)
    desk.asking.serve()
    assert asked == [desk.now]
    pauses = [pause_ns(tries) for tries in range(12)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == asking.PAUSE_MAX_NS
    desk.asking.clear()
    assert (desk.asking.pending, desk.asking.is_waiting) == ({}, False)


def test_a_ban_is_told_with_its_end(desk):
    desk.buckets.words[token_bucket.BANNED_NS] = 1_700_000_000 * 10**9
    desk.asking.say_banned()
    assert desk.log.lines[0][0] == "live orders unreachable"
    assert desk.log.lines[0][1]["until"] == "2023-11-14T22:13:20+00:00"


def test_while_the_venue_wants_no_requests_none_is_sent_and_nobody_connects_anew(make, exchange, asked):
    rig = make()
    order = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, order)
    exchange.faults({"on": "request", "name": "order.place", "action": "too_many", "ms": 60_000, "times": 1})
    rig.wait(m.REJECTED, rig.send(price=49_00))
    assert "the venue takes no requests but cancels" in rig.log.events()
    asked.clear()
    rig.session._trades.look_ns = 0
    rig.venue.words[v.STRANGE] = 1  # somebody's order: all is to be compared
    rig.venue.live.words[receive.ATTENTION] = 1
    rig.until(lambda: "requests wait for the venue's limits" in rig.log.events(), "the wait")
    rig.for_a_while(100)
    assert asked == []
    assert (rig.session.state, control.held(rig.hold)) == (session.RECONCILING, control.RECONCILING)
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=order))
    assert asked == ["order.cancel"]
    rig.venue.buckets.words[token_bucket.THROTTLED_NS] = 0  # as in a minute
    rig.ready()
    assert "venue disconnected" not in rig.log.events()


def test_a_connection_that_is_lost_while_the_venue_wants_no_requests_is_made_anew_only_then(make, exchange):
    rig = make()
    exchange.faults({"on": "request", "name": "order.place", "action": "too_many", "ms": 60_000, "times": 1})
    rig.wait(m.REJECTED, rig.send(price=49_00))
    exchange.cut()
    rig.until(lambda: "venue disconnected" in rig.log.events(), "the cut")
    assert dict(rig.log.lines)["venue disconnected"]["again_in_ms"] > 50_000


def test_a_request_of_the_session_that_the_venue_refuses_for_its_limits_waits(rig, exchange):
    exchange.faults({"on": "request", "name": "account.status", "action": "too_many", "ms": 300, "times": 1})
    rig.venue.words[v.STRANGE] = 1
    rig.venue.live.words[receive.ATTENTION] = 1
    rig.until(lambda: "requests wait for the venue's limits" in rig.log.events(), "the wait")
    rig.ready()
    assert "venue disconnected" not in rig.log.events()
