"""FIX sessions beside the WebSocket API: logged on, renewed, broken, refused; orders are never guessed about."""

from __future__ import annotations

import os
import time

import pytest

from shrivenq.stages import control, gateway, live_venue, stage
from shrivenq.stages import messages as m
from shrivenq.stages.live import away, fix_io, openssl
from shrivenq.stages.live import fix_session as fs
from shrivenq.stages.live import session as s
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues import fix
from tests.pipeline.exchange.exchange_rig import running
from tests.stages.live import authority
from tests.stages.live.fix_peer import Peer, execution, look, reasons, rigs_with_peers, spell
from tests.stages.live.orders_rig import OrdersRig, tables_of
from tests.stages.venue_rig import push

S_NS = 1_000_000_000


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    limits = {"connections": 10_000, "request_weight": 1_000_000}
    with running(tmp_path_factory.mktemp("exchange"), limits=limits) as rig:
        yield rig


@pytest.fixture
def make(exchange):
    with rigs_with_peers(exchange) as make:
        yield make


@pytest.fixture
def up(make):
    rig, peer = make()
    return rig.ready(), peer


def again(rig, peer):
    """Go on until a new session is up and new orders pass."""
    before = len(peer.clients)
    rig.until(lambda: reasons(rig) and len(peer.clients) > before, "another connection")
    return rig.ready()


@pytest.mark.parametrize("word", [away.LIMITED_NS, away.BANNED_NS])
def test_while_the_venue_wants_nobody_from_here_no_session_is_begun(up, word):
    rig, peer = up
    before = len(peer.clients)
    until_ns = time.time_ns() + 2 * S_NS
    away.tell(rig.venue.away, word, until_ns)
    peer.client.cut()
    rig.until(lambda: len(peer.clients) > before, "another connection")
    assert time.time_ns() > until_ns


# ── names, limits ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_session_has_a_name_of_its_own():
    names = {
        fs.make_name(run, epoch, attempt)
        for run in (b"0123abcd", b"0123abcd-2")
        for epoch in range(3)
        for attempt in range(100)
    }
    assert len(names) == 600
    for name in names:
        fix.make_session(name, 30)


def test_limits_are_read():
    text = spell("XLR", 2, (6136, 1), (25003, 2), (25004, 1), (25005, 3), (25006, 50), (25007, 10), (25008, "s"),
                 (25004, 2), (25005, 4), (25006, 60), (25007, 1), (25008, "d"))  # fmt: skip
    assert fs.read_limits(text) == [(a.ORDERS, 10 * S_NS, 50, 3), (a.RAW, 86_400 * S_NS, 60, 4)]
    assert fs.read_limits(spell("XLR", 2, (6136, 1), (25003, 0))) == []


@pytest.mark.parametrize("change", [(25004, 3), (25005, "x"), (25006, ""), (25007, "1" * 11), (25008, "y")])
def test_limits_that_cannot_be_read_are_refused(change):
    group = [(25004, 1), (25005, 3), (25006, 50), (25007, 10), (25008, "s")]
    with pytest.raises(ValueError, match="a limit that cannot be read"):
        fs.read_limits(spell("XLR", 2, *[change if tag == change[0] else (tag, one) for tag, one in group]))


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_orders_go_out_by_fix_and_questions_do_not(up):
    rig, peer = up
    order = rig.send(price=50_00)
    rig.until(lambda: peer.client.of("D"), "the order")
    (sent,) = peer.client.of("D")
    assert (sent[44], sent[38], sent[54], sent[55]) == ("50", "1", "1", "BTCUSDT")
    peer.client.send("8", *execution(sent))
    report = rig.wait(m.ACCEPTED, order)
    assert report["venue_order_id"] == 76
    peer.client.send("8", *execution(sent, "F", _39=1, _14="0.25", _151="0.75", _31="50", _32="0.25", _1003=1_000_001,
                                     _1057="N", _136=1, _137="0.00025", _138="BTC", _139=4))  # fmt: skip
    assert rig.wait(m.FILL, order)["last_quantity"] == 25_000_000
    cancel = rig.send(m.CANCEL, target_id=order)
    rig.until(lambda: peer.client.of("F"), "the cancel")
    (asked,) = peer.client.of("F")
    peer.client.send("8", *execution(sent, 4, _11=asked[11], _41=sent[11], _14="0.25", _151="0.75"))
    rig.wait(m.CANCELLED, cancel)
    assert rig.taken() == 0
    numbers = [int(dict(one)[34]) for one in peer.client.got]
    assert numbers == list(range(1, len(numbers) + 1))
    assert rig.venue.words[v.SENT] == 0
    assert rig.venue.fix.words[v.SENT] == 2


def test_a_refusal_is_definite_and_logged(up):
    rig, peer = up
    order = rig.send(price=50_00)
    rig.until(lambda: peer.client.of("D"), "the order")
    (sent,) = peer.client.of("D")
    fields = [(tag, one) for tag, one in execution(sent, 8) if tag not in (37, 60)]
    peer.client.send("8", *fields, (25016, -2010), (58, "Account has insufficient balance for requested action."))
    assert rig.reason(rig.wait(m.REJECTED, order)) == "insufficient_balance"
    assert "insufficient balance" in dict(rig.log.lines)["venue refuses"]["text"]
    other = rig.send(price=50_00)
    rig.until(lambda: len(peer.client.of("D")) == 2, "the order")
    peer.client.send("3", (45, peer.client.of("D")[1][34]), (371, 38), (373, 5), (25016, -1100), (58, "Bad."))
    assert rig.reason(rig.wait(m.REJECTED, other)) == "malformed"
    assert rig.taken() == 0
    assert not reasons(rig)


def test_halt_and_hold_are_read_again_and_leave_no_gap(up):
    rig, peer = up
    control.hold(rig.hold, control.STAGE_DOWN)
    before = rig.venue.fix.session.words.copy()
    refused, terms = int(rig.venue.words[v.REFUSED]), {"order_type": m.LIMIT, "time_in_force": m.GTC}
    push(rig.gateway.to_venue, kind=m.NEW, order_id=5, side=m.BUY, price=50_00, quantity=10**8, **terms)
    rig.until(lambda: rig.venue.words[v.REFUSED] > refused, "refusal")
    assert (rig.venue.fix.session.words == before)[: fix.SECOND].all()
    control.unhold(rig.hold, control.STAGE_DOWN)
    rig.send(price=50_00)
    rig.until(lambda: peer.client.of("D"), "the order")
    assert peer.client.of("D")[0][34] == str(before[fix.NEXT_OUT])


def test_over_a_limit_nothing_but_cancels_is_sent(make):
    peer = Peer()
    peer.limits = ((25003, 1), (25004, 1), (25005, 70), (25006, 100), (25007, 1), (25008, "d"))
    rig, peer = make(peer)
    rig.ready()
    assert rig.reason(rig.wait(m.REJECTED, rig.send())) == "venue_rate"
    rig.send(m.CANCEL, target_id=rig.number)
    rig.until(lambda: peer.client.of("F"), "the cancel")
    assert not peer.client.of("D")


def test_a_limit_that_the_venue_says_is_exceeded_stops_new_orders(up):
    rig, peer = up
    order = rig.send(price=50_00)
    rig.until(lambda: peer.client.of("D"), "the order")
    (sent,) = peer.client.of("D")
    fields = [(tag, one) for tag, one in execution(sent, 8) if tag not in (37, 60)]
    peer.client.send("8", *fields, (25016, -1015), (58, "Too many new orders."))
    assert rig.reason(rig.wait(m.REJECTED, order)) == "venue_rate"
    assert rig.reason(rig.wait(m.REJECTED, rig.send(price=50_00))) == "venue_rate"
    rig.send(m.CANCEL, target_id=order)
    rig.until(lambda: peer.client.of("F"), "the cancel")
    assert len(peer.client.of("D")) == 1


def test_silence_is_counted_by_a_clock_that_nobody_sets(make):
    rig, _ = make()
    rig.loop[stage.OFFSET_NS] -= 3_600 * S_NS  # the system's clock has been set since the stage began
    rig.until(lambda: "fix session up" in rig.log.events(), "the session")
    words, now_ns = rig.venue.fix.session.words, stage.time_of(rig.loop, 0)
    for word in (fix.SENT_NS, fix.RECEIVED_NS):
        assert abs(now_ns - words[word]) < 60 * S_NS


def test_what_is_not_known_is_passed_over_and_told(up):
    rig, peer = up
    peer.client.send("N", (66, 5))
    rig.until(lambda: "fix message passed over" in rig.log.events(), "the line")
    peer.client.send("r", (11, "x"), (55, "BTCUSDT"), (531, 1), (533, 0))
    peer.client.send("r", (11, "x"), (55, "BTCUSDT"), (531, 0), (25016, -1013), (58, "No.\r\nNo."))
    rig.until(lambda: "venue refuses" in rig.log.events(), "the line")
    texts = [fields["text"] for event, fields in rig.log.lines if "text" in fields]
    assert len(texts) == 2
    assert all(text.isprintable() for text in texts)
    assert not reasons(rig)


# ── the session's own ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_test_request_is_answered_and_silence_is_not_borne(up):
    rig, peer = up
    peer.client.send("1", (112, "are you there"))
    rig.until(lambda: peer.client.of("0"), "the answer")
    assert peer.client.of("0")[0][112] == "are you there"
    words = rig.venue.fix.session.words
    words[fix.SENT_NS] -= v.HEARTBEAT_S * S_NS
    look(rig)
    rig.until(lambda: len(peer.client.of("0")) == 2, "a heartbeat")
    words[fix.RECEIVED_NS] -= v.HEARTBEAT_S * S_NS
    look(rig)
    rig.until(lambda: peer.client.of("1"), "a test request")
    rig.until(lambda: words[fix.RECEIVED_NS] >= words[fix.TESTED_NS], "its answer")
    look(rig)
    rig.until(lambda: not words[fix.TESTED_NS], "no more waiting")
    peer.mute = {"1", "5"}
    words[fix.RECEIVED_NS] -= v.HEARTBEAT_S * S_NS
    look(rig)
    rig.until(lambda: len(peer.client.of("1")) == 2, "a test request")
    words[fix.TESTED_NS] -= v.HEARTBEAT_S * S_NS
    words[fix.RECEIVED_NS] -= v.HEARTBEAT_S * S_NS
    look(rig)
    again(rig, peer)
    assert reasons(rig) == ["the venue does not answer a TestRequest"]
    peer.mute = set()


def test_an_ordered_stop_logs_out(up):
    rig, peer = up
    (close,) = rig.setup.closes
    close()
    assert peer.client.kinds()[-1] == "5"
    assert rig.venue.fix.session.words[fix.NEXT_IN] == 4  # Logon, limits, and the answer to our Logout
    assert rig.session._fix.now._link.closed is not None


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("3", ((45, 1), (25016, -2015), (58, "Invalid API-key.")), "logon refused: 8=FIX.4.4|"),
        ("5", ((58, "SenderCompID is in use."),), "SenderCompID is in use."),
    ],
)
def test_a_refused_logon_is_told_and_tried_again_under_another_name(make, kind, fields, said):
    rig, peer = make(Peer(mute="A"))
    rig.until(lambda: peer.clients and peer.client.of("A"), "the logon")
    peer.client.send(kind, *fields)
    rig.until(lambda: reasons(rig), "the refusal")
    assert said in reasons(rig)[0]
    assert control.held(rig.hold) == control.RECONCILING
    is_key = "held: the venue refuses the key for FIX" in rig.log.events()
    assert is_key == (kind == "3")
    (line,) = [fields for event, fields in rig.log.lines if event == "fix disconnected"]
    assert (line["again_in_ms"] > 600_000) == is_key
    peer.mute = set()
    rig.session._fix.now._try_ns = 0
    look(rig)
    rig.ready()
    assert len({one.of("A")[0][49] for one in peer.clients}) == len(peer.clients)


def test_a_key_that_cannot_be_used_is_told(make):
    def nothing(sender, sending_time, heartbeat_s):
        raise ValueError("key file x: expired")

    rig, _ = make(fix_logon=nothing)
    rig.until(lambda: reasons(rig), "the refusal")
    assert reasons(rig)[0] == "no logon: key file x: expired"

    def waits():
        assert control.held(rig.hold) == control.RECONCILING  # at no moment do new orders pass
        return rig.session.state == s.WAITING

    rig.until(waits, "the rest")
    for _ in range(100):
        rig.turn()
        waits()


def test_no_answer_to_logon_or_limits(make):
    rig, peer = make(Peer(mute="A"))
    rig.until(lambda: peer.clients and peer.client.of("A"), "the logon")
    rig.session._fix.now._link.connection._answer_by_ns = 0
    look(rig)
    rig.until(lambda: reasons(rig), "the end")
    peer.mute = {"XLQ"}
    rig.until(lambda: peer.client.of("XLQ"), "the question")
    assert not rig.venue.fix.words[v.READY]
    rig.session._fix.now._asked_ns -= fs.ANSWER_NS
    look(rig)
    rig.until(lambda: len(reasons(rig)) == 2, "the end")
    peer.mute = set()
    rig.ready()
    assert reasons(rig) == ["no answer to the logon in 10 s", "no answer in time: limits"]


# ── what breaks a session ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "data",
    [
        spell("0", 9),  # a gap
        spell("0", 2),  # a message again
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        spell("0", 3)[:-4] + b"999\x01",  # a wrong sum
        b"8=FIX.4.4\x019=99999\x01" + b"x" * 40,
        spell("8", 3, (11, "x"), (150, "F")),
        spell("A", 3, (98, 0), (108, 10)),
        spell("1", 3, (112, "x" * 200)),
        spell("XLR", 3, (25004, 9)),
    ],
    ids=["gap", "again", "http", "sum", "length", "nonsense", "logon", "test", "limits"],
)
def test_what_is_not_the_next_message_ends_the_session(up, data):
    rig, peer = up
    order = rig.send(price=50_00)
    rig.until(lambda: peer.client.of("D"), "the order")
    peer.client.raw(data)
    rig.until(lambda: reasons(rig), "the end")
    assert control.held(rig.hold) & control.RECONCILING
    assert len(reasons(rig)[0]) < 600
    assert reasons(rig)[0].isprintable()
    again_ = rig.send(flags=m.FORCED)
    if (m.REJECTED, again_) not in rig.said():
        rig.until(lambda: (m.REJECTED, again_) in rig.said() or len(peer.client.of("D")), "an outcome")
    rig.ready()
    assert rig.state(order) in ("sent", "unknown")  # the venue has no such order, but it may yet arrive


def test_an_order_on_its_way_when_the_connection_ends_is_asked_for(make, exchange):
    rig, peer = make(unknown_after_ms=100)
    rig.ready()
    order = rig.send(price=50_00)
    rig.until(lambda: peer.client.of("D"), "the order")
    peer.client.cut()
    rig.wait(m.UNKNOWN, order)
    rig.ready()
    rig.age(order, 14)  # so long ago that the venue would refuse it
    assert rig.reason(rig.wait(m.REJECTED, order)) == "unknown_order"
    assert len([one for client in peer.clients for one in client.of("D")]) == 1  # never sent again
    assert rig.taken() == 0


def test_without_fix_cancels_go_by_the_websocket_api_and_new_orders_nowhere(make, exchange):
    rig, peer = make()
    rig.ready()
    peer.mute = {"A"}
    peer.client.cut()
    rig.until(lambda: reasons(rig), "the end")
    assert rig.reason(rig.wait(m.REJECTED, rig.send(flags=m.FORCED))) == "disconnected"
    cancel = rig.send(m.CANCEL, target_id=rig.number)
    assert rig.reason(rig.wait(m.CANCEL_REJECTED, cancel)) == "unknown_order"  # the venue itself says so
    assert rig.venue.words[v.SENT] == 1


def test_without_the_websocket_api_cancels_go_by_fix_and_new_orders_nowhere(up, exchange):
    rig, peer = up
    exchange.call(lambda: [one.socket.abort() for one in list(exchange.simulator.ws_api.connections)])
    rig.until(lambda: "venue disconnected" in rig.log.events(), "the end")
    assert rig.reason(rig.wait(m.REJECTED, rig.send(flags=m.FORCED))) == "disconnected"
    rig.send(m.CANCEL, target_id=rig.number)
    rig.until(lambda: peer.client.of("F"), "the cancel")
    rig.ready()
    assert not reasons(rig)


def test_a_session_that_comes_up_during_a_comparison_has_one_of_its_own(make):
    rig, _ = make(Peer(mute="A"))
    rig.until(
        lambda: rig.session.state == s.RECONCILING and rig.session._fix.now.state == fs.LOGGING_ON, "both under way"
    )
    rig.session._fix.now.state = fs.UP  # as if it came up this very moment
    rig.session._fix_changed()
    assert rig.session._again
    rig.session._fix.now.state = fs.LOGGING_ON
    seen = []
    begin = rig.session._reconcile
    rig.session._reconcile = lambda: (seen.append(1), begin())
    rig.until(lambda: rig.session.state == s.WAITING, "the comparisons")
    assert seen == [1]
    assert not rig.session._again
    assert control.held(rig.hold) == control.RECONCILING


def test_a_half_sent_message_is_finished_before_anything_else(up):
    rig, peer = up
    words, row = rig.venue.fix.words, rig.venue.live.rows[fix_io.ROW]
    words[v.SENDS] = 0
    rig.send(price=50_00)
    gateway.step(rig.gateway, rig.gateway_loop)
    rig.loop[stage.DEADLINE_NS], rig.loop[stage.LOOK_NS] = time.monotonic_ns() + S_NS, 0
    live_venue.run(rig.venue, rig.loop)
    begin = int(words[v.OUT_BEGIN])
    assert words[v.OUT_END] > begin
    # As if the socket had taken ten bytes and no more; and a heartbeat is due.
    os.write(int(row["descriptor"]), rig.venue.fix.outbox[begin : begin + 10].tobytes())
    words[v.OUT_BEGIN] += 10
    rig.venue.fix.session.words[fix.SENT_NS] -= v.HEARTBEAT_S * S_NS
    rig.send(price=40_00)
    rig.until(lambda: len(peer.client.of("D")) == 2 and peer.client.of("0"), "all three")
    numbers = [int(dict(one)[34]) for one in peer.client.got]
    assert numbers == list(range(1, len(numbers) + 1))
    assert peer.client.kinds()[-3:] == ["D", "0", "D"]


def test_nobody_listens(make, exchange):
    peer = Peer()
    peer.close()
    rig, _ = make(peer)
    rig.until(lambda: len(reasons(rig)) > 1, "refusals")
    assert reasons(rig)[0].endswith("Connection refused")
    assert control.held(rig.hold) == control.RECONCILING


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("compiled", [True, False])
def test_under_tls_the_same(make, tmp_path, monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr(openssl, "LIBRARY", None)
    root, server = authority.make(tmp_path)
    rig, peer = make(Peer(server), authority=str(root))
    rig.ready()
    orders = [rig.send(price=50_00 + at) for at in range(5)]
    rig.until(lambda: len(peer.client.of("D")) == 5, "the orders")
    for found, order in zip(peer.client.of("D"), orders, strict=True):
        peer.client.send("8", *execution(found))
        rig.wait(m.ACCEPTED, order)
    numbers = [int(dict(one)[34]) for one in peer.client.got]
    assert numbers == list(range(1, len(numbers) + 1))
    assert rig.venue.fix.words[v.SENDS] == compiled


@pytest.mark.parametrize(
    ("address", "trusted", "said"),
    [("127.0.0.2", True, "certificate refused: IP address mismatch"), ("127.0.0.1", False, "certificate refused")],
)
def test_a_certificate_of_another_host_or_another_authority_is_refused(make, tmp_path, address, trusted, said):
    (tmp_path / "other").mkdir()
    root, server = authority.make(tmp_path, address=address)
    if not trusted:
        root, _ = authority.make(tmp_path / "other")
    rig, peer = make(Peer(server), authority=str(root))
    rig.until(lambda: reasons(rig), "the refusal")
    assert said in reasons(rig)[0]
    assert not peer.clients or not peer.client.got


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:1", "tcp://127.0.0.1", "tcp://127.0.0.1:0"])
def test_an_address_that_is_none_is_refused(exchange, url):
    with pytest.raises(ValueError, match=r"live_venue\.fix_url"):
        OrdersRig(exchange.ws, tables_of(exchange), order_entry="fix", fix_url=url)
