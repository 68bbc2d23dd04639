"""One FIX session takes over from another: orders go on, and what was on its way is answered before."""

from __future__ import annotations

import pytest

from shrivenq.stages import control, gateway_state
from shrivenq.stages import messages as m
from shrivenq.stages.live import session as s
from shrivenq.stages.live import venue_state as v
from tests.pipeline.exchange.exchange_rig import running
from tests.stages.live.fix_peer import execution, look, reasons, rigs_with_peers


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    limits = {"connections": 10_000, "request_weight": 1_000_000}
    with running(tmp_path_factory.mktemp("exchange"), limits=limits) as rig:
        yield rig


@pytest.fixture
def up(exchange):
    with rigs_with_peers(exchange) as make:
        rig, peer = make()
        yield rig.ready(), peer


def renewed(rig, peer):
    """Go on until another session has taken over, and the one before has ended; nothing is held meanwhile."""
    before = len(reasons(rig))

    def is_over():
        assert control.held(rig.hold) == 0
        return len(reasons(rig)) > before

    rig.until(is_over, "another session")
    return peer.client


def test_news_and_age_bring_another_session_and_nothing_is_held(up):
    rig, peer = up
    first = peer.client
    first.send("B", (148, "Your connection is about to be closed. Please reconnect."))
    second = renewed(rig, peer)
    assert rig.venue.words[v.BY_FIX] == v.OTHER_FIX
    rig.session._fix.now.roll_ns = 0
    look(rig)
    third = renewed(rig, peer)
    assert rig.venue.words[v.BY_FIX] == v.FIX
    assert first.kinds()[-1] == second.kinds()[-1] == "5"
    assert reasons(rig) == ["another session has taken over"] * 2
    assert peer.clients == [first, second, third]
    names = [one.of("A")[0][49] for one in peer.clients]
    assert len(set(names)) == len(names) == 3
    rig.send(price=50_00)
    rig.until(lambda: third.of("D"), "an order")
    assert rig.log.events().count("venue reconciled") == 1


def test_what_was_on_its_way_is_answered_before_the_session_is_left(up):
    rig, peer = up
    first = peer.client
    order = rig.send(price=50_00)
    rig.until(lambda: first.of("D"), "the order")
    (sent,) = first.of("D")
    peer.mute.add("5")
    rig.session._fix.now.roll_ns = 0
    look(rig)
    rig.until(lambda: first.of("5"), "the Logout")
    later = rig.send(price=40_00)
    rig.until(lambda: peer.client.of("D"), "another order, by the other session")
    assert peer.client is not first
    fields = [(tag, one) for tag, one in execution(sent, 8) if tag not in (37, 60)]
    first.send("8", *fields, (25016, -2010), (58, "Market is closed."))
    rig.wait(m.REJECTED, order)
    peer.client.send("8", *execution(peer.client.of("D")[0]))
    rig.wait(m.ACCEPTED, later)
    assert not reasons(rig)
    first.send("5")
    renewed(rig, peer)
    peer.mute = set()


def test_what_both_sessions_tell_counts_once(up):
    rig, peer = up
    first = peer.client
    order = rig.send(price=50_00)
    rig.until(lambda: first.of("D"), "the order")
    (sent,) = first.of("D")
    first.send("8", *execution(sent))
    rig.wait(m.ACCEPTED, order)
    peer.mute.add("5")
    rig.session._fix.now.roll_ns = 0
    look(rig)
    rig.until(lambda: first.of("5"), "the Logout")
    trade = execution(sent, "F", _39=1, _14="0.25", _151="0.75", _31="50", _32="0.25", _1003=1_000_001,
                      _1057="N", _136=1, _137="0.00025", _138="BTC", _139=4)  # fmt: skip
    for one in (first, peer.client, first):
        one.send("8", *trade)
    rig.until(lambda: rig.gateway.words[gateway_state.REPEATED_FILLS] == 2, "a fill that is told three times")
    assert rig.filled(order) == 25_000_000
    peer.mute = set()


def test_a_session_that_is_refused_leaves_the_one_in_use(up):
    rig, peer = up
    first = peer.client
    peer.mute.add("A")
    rig.session._fix.now.roll_ns = 0
    look(rig)
    rig.until(lambda: len(peer.clients) == 2 and peer.client.of("A"), "another logon")
    peer.client.send("5", (58, "SenderCompID is in use."))
    rig.until(lambda: reasons(rig), "the refusal")
    assert control.held(rig.hold) == 0
    rig.send(price=50_00)
    rig.until(lambda: first.of("D"), "an order")
    peer.mute = set()
    renewed(rig, peer)
    assert first.kinds()[-1] == "5"


def test_where_the_one_in_use_ends_meanwhile_the_other_takes_over_after_a_comparison(up):
    rig, peer = up
    peer.mute.add("A")
    rig.session._fix.now.roll_ns = 0
    look(rig)
    rig.until(lambda: len(peer.clients) == 2 and peer.client.of("A"), "another logon")
    first, second = peer.clients
    first.cut()
    rig.until(lambda: reasons(rig), "the end")
    assert control.held(rig.hold) == control.RECONCILING
    assert rig.session.state == s.WAITING
    second.send("A", (98, 0), (108, 10), (25037, "x"))
    rig.ready()
    assert peer.clients == [first, second]
    assert rig.log.events().count("venue reconciled") == 2
    rig.send(price=50_00)
    rig.until(lambda: second.of("D"), "an order")
    peer.mute = set()
