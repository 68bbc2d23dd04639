"""One connection takes over from another: orders go on, nothing is lost or counts twice, whatever fails meanwhile."""

from __future__ import annotations

import pytest

from shrivenq.stages import control, gateway_state
from shrivenq.stages import messages as m
from shrivenq.stages.live import receive, renewal, session
from shrivenq.stages.live import venue_state as v
from tests.pipeline.exchange.exchange_rig import running
from tests.stages.live.orders_rig import WIDE, OrdersRig
from tests.stages.test_live_venue import Exchange

ONE = 1_00000000
OVER, FAILED, ENDED = (
    "another connection has taken over",
    "no connection to take over",
    "the connection before has ended",
)


def renew(rig):
    """Let the connection be old."""
    rig.session._connections.roll_ns = 0
    rig.venue.live.words[receive.ATTENTION] = 1


def watched(rig):
    """Note every moment in which new orders are held."""
    turn, found = rig.turn, []

    def turns():
        turn()
        found.append(control.held(rig.hold))

    rig.turn = turns
    return found


def connections(exchange):
    """Tell which connections the venue has that follow the account."""
    api = exchange.rig.simulator.ws_api
    return exchange.rig.call(lambda: [one for one in api.connections if one.session.subscriptions.active])


def abort(exchange, *ones):
    exchange.rig.call(lambda: [one.socket.abort() for one in ones])


def trades(rig):
    """Let an order be placed and cancelled."""
    order = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, order)
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=order))


def test_orders_go_on_while_the_venue_cuts_every_connection_in_turn(tmp_path):
    """Its 24 h are two seconds here, and connections are renewed after one."""
    with running(tmp_path, limits=WIDE, sessions={"lifetime_s": 2}) as found:
        exchange = Exchange(found)
        rig = OrdersRig(exchange.url, exchange.tables, roll_h=1 / 3600).ready()
        held, orders, fills = watched(rig), [], []
        while rig.log.events().count(OVER) < 4:
            order = rig.send(price=50_00)
            rig.wait(m.ACCEPTED, order)
            if len(fills) <= rig.log.events().count(OVER):
                fills.append(order)
                exchange.place(exchange.other, "SELL", 50_00, ONE // 8)
                rig.until(lambda order=order: rig.filled(order), "the fill")
            rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=order))
            orders.append(order)
        assert not any(held)
        assert "venue disconnected" not in rig.log.events()
        assert rig.log.events().count("venue reconciled") == 1
        assert [rig.filled(one) for one in orders] == [ONE // 8 * (one in fills) for one in orders]
        assert len(fills) >= 4
        assert not [one for one in rig.told if one["kind"] in (m.REJECTED, m.DENIED, m.UNKNOWN, m.CANCEL_REJECTED)]
        assert len(set(rig.said())) == len(rig.said())
        assert rig.venue.words[v.REFUSED] == rig.taken() == 0
        rig.close()


def test_the_venue_s_notice_brings_another_connection(rig, exchange):
    held = watched(rig)
    exchange.rig.call(exchange.rig.simulator.ws_api.shut_down)
    rig.until(lambda: ENDED in rig.log.events(), "the change")
    trades(rig)
    assert not any(held)
    assert len(connections(exchange)) == 1


def test_while_both_tell_everything_it_counts_once(rig, exchange, monkeypatch):
    monkeypatch.setattr(renewal, "DRAIN_MIN_NS", renewal.DRAIN_NS)
    order = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, order)
    renew(rig)
    rig.until(lambda: OVER in rig.log.events(), "the change")
    assert len(connections(exchange)) == 2
    repeated, fills = int(rig.venue.words[v.REPEATED]), int(rig.gateway.words[gateway_state.REPEATED_FILLS])
    for _ in range(4):
        exchange.place(exchange.other, "SELL", 50_00, ONE // 8)
    rig.until(lambda: rig.gateway.words[gateway_state.REPEATED_FILLS] == fills + 4, "fills that are told twice")
    assert rig.filled(order) == ONE // 2
    smaller = rig.send(m.AMEND, target_id=order, quantity=ONE * 3 // 4)
    rig.wait(m.AMENDED, smaller)
    later = rig.send(m.REPLACE, price=49_00, quantity=ONE // 4, target_id=order)
    rig.until(lambda: rig.state(later) == "accepted", "the other order")  # told as one thing, or as two
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=later))
    exchange.place(exchange.other, "SELL", 60_00, ONE // 4)
    taker = rig.send(price=61_00, time_in_force=m.IOC)
    rig.wait(m.EXPIRED, taker)
    rig.for_a_while()
    assert rig.venue.words[v.REPEATED] > repeated
    told = [one for one in rig.said() if one[0] != m.FILL]
    assert len(set(told)) == len(told)
    assert not rig.gateway.illegal.any()
    assert rig.taken() == 0
    assert len(connections(exchange)) == 2


def test_an_answer_that_is_on_its_way_comes_over_the_connection_before(rig, exchange, monkeypatch):
    """A refusal, which no event tells."""
    monkeypatch.setattr(renewal, "DRAIN_MIN_NS", 0)
    exchange.faults({"on": "response", "name": "order.place", "action": "late", "ms": 1_000, "times": 1})
    refused = rig.send(quantity=1000, price=50_00)
    renew(rig)
    rig.until(lambda: OVER in rig.log.events(), "the change")
    assert rig.state(refused) == "sent"
    assert rig.reason(rig.wait(m.REJECTED, refused)) == "notional_range"
    rig.until(lambda: ENDED in rig.log.events(), "the end")


def test_an_answer_that_does_not_come_is_asked_for_over_the_new_one(make, exchange, monkeypatch):
    monkeypatch.setattr(renewal, "DRAIN_NS", 100_000_000)
    monkeypatch.setattr(renewal, "DRAIN_MIN_NS", 0)
    rig = make(unknown_after_ms=300)
    exchange.faults(
        {"on": "response", "name": "order.place", "action": "drop", "times": 1},
        {"on": "event", "name": "executionReport", "action": "drop", "times": 2},
    )
    order = rig.send(price=50_00)
    renew(rig)
    rig.until(lambda: ENDED in rig.log.events(), "the end")
    rig.wait(m.UNKNOWN, order)
    rig.wait(m.ACCEPTED, order)
    assert "venue disconnected" not in rig.log.events()


def test_where_the_old_connection_dies_meanwhile_the_new_one_reconciles(rig, exchange):
    exchange.faults({"on": "response", "name": "session.logon", "action": "delay", "ms": 500, "times": 1})
    resting = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, resting)
    renew(rig)
    rig.until(
        lambda: rig.session._connections.opening is not None and rig.session._connections.opening.state == "logging on",
        "the logon",
    )
    abort(exchange, *connections(exchange))
    exchange.place(exchange.other, "SELL", 50_00, ONE // 4)  # nobody is told
    rig.until(lambda: rig.session.state == session.DOWN, "the end")
    assert control.held(rig.hold) == control.RECONCILING
    attempts = rig.session._connections.attempts
    rig.ready()
    assert rig.session._connections.attempts == attempts
    assert rig.filled(resting) == ONE // 4
    trades(rig)


def test_where_the_old_connection_dies_after_the_change_nothing_is_held(rig, exchange, monkeypatch):
    monkeypatch.setattr(renewal, "DRAIN_MIN_NS", renewal.DRAIN_NS)
    (old,) = connections(exchange)
    held = watched(rig)
    renew(rig)
    rig.until(lambda: OVER in rig.log.events(), "the change")
    abort(exchange, old)
    rig.until(lambda: ENDED in rig.log.events(), "the end")
    trades(rig)
    assert not any(held)


def test_where_the_new_connection_dies_while_both_are_there_all_begins_anew(rig, exchange, monkeypatch):
    monkeypatch.setattr(renewal, "DRAIN_MIN_NS", renewal.DRAIN_NS)
    (old,) = connections(exchange)
    renew(rig)
    rig.until(lambda: OVER in rig.log.events(), "the change")
    abort(exchange, *(one for one in connections(exchange) if one is not old))
    rig.until(lambda: rig.session.state == session.DOWN, "the end")
    rig.ready()
    assert len(connections(exchange)) == 1
    trades(rig)


def test_a_new_connection_that_is_refused_leaves_the_old_one_until_it_is_cut(rig, exchange):
    held = watched(rig)
    exchange.faults({"on": "request", "name": "session.logon", "action": "error_not_placed"})
    renew(rig)
    rig.until(lambda: rig.log.events().count(FAILED) == 3, "the refusals")
    trades(rig)
    assert not any(held)
    abort(exchange, *connections(exchange))
    rig.until(lambda: "venue disconnected" in rig.log.events(), "the cut")
    assert control.held(rig.hold) == control.RECONCILING
    exchange.faults()
    rig.ready()
    trades(rig)


def test_nothing_takes_over_while_something_of_ours_is_half_sent_or_not_answered(rig):
    one, words = rig.session, rig.venue.words
    assert one._connections.may_take_over()
    words[v.OUT_END] = 1
    assert not one._connections.may_take_over()
    words[v.OUT_END] = 0
    one._asking.pending["look BTCUSDT"] = 1 << 62
    assert not one._connections.may_take_over()
    one._asking.pending.clear()
    one._asking.ask("time", "time", {}, after_ns=10**12)
    assert not one._connections.may_take_over()


@pytest.mark.parametrize("by_event", [True, False])
def test_what_ends_the_new_connection_s_session_does_not_end_the_old_one(rig, exchange, by_event):
    exchange.faults({"on": "request", "name": "userDataStream.subscribe", "action": "delay", "ms": 500, "times": 1})
    held = watched(rig)
    renew(rig)
    rig.until(
        lambda: rig.session._connections.opening is not None and rig.session._connections.opening.state == "following",
        "the logon",
    )
    event = b'{"subscriptionId":0,"event":{"e":"eventStreamTerminated","E":1700000000000}}'
    revoked = b'{"id":null,"status":401,"error":{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}}'
    assert rig.session.take(event if by_event else revoked, rig.session._connections.opening.link)
    rig.until(lambda: FAILED in rig.log.events(), "the end")
    rig.until(lambda: OVER in rig.log.events(), "another one")
    assert not any(held)
    assert "venue disconnected" not in rig.log.events()
