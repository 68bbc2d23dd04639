"""The live venue behind a gateway, against the exchange simulator over real sockets, with and without faults."""

from __future__ import annotations

from itertools import pairwise

import pytest

from shrivenq.pipeline.exchange.faults import Rule, Script
from shrivenq.pipeline.exchange.types import NewOrder
from shrivenq.pipeline.exchange.venue import Answer
from shrivenq.stages import control, gateway_state
from shrivenq.stages import messages as m
from shrivenq.stages.live import receive, session, venue_io
from shrivenq.stages.live import venue_state as v
from tests.pipeline.exchange.exchange_rig import running
from tests.stages.live.orders_rig import OrdersRig, rigs, tables_of
from tests.stages.venue_rig import push

ONE = 1_00000000


class Exchange:
    """A simulator, its other trader, and what goes wrong."""

    def __init__(self, rig):
        self.rig, self.url, self.tables = rig, rig.ws, tables_of(rig)
        self.trader, self.other = (rig.simulator.accounts[name] for name in ("trader", "other"))

    def place(self, account, side, price, quantity, client_id=None):
        """Let an account place an order without us."""

        def act():
            venue = self.rig.venue
            venue.engine.advance(venue.now_us())
            order = NewOrder(
                symbol="BTCUSDT", side=side, type="LIMIT", time_in_force="GTC", price=price, quantity=quantity,
                client_id=client_id,
            )  # fmt: skip
            outcome = venue.engine.place(account, order, venue.now_us())
            venue.drain()
            return outcome

        return self.rig.call(act)

    def faults(self, *rules):
        """Let these things go wrong from now on."""
        self.rig.call(lambda: self.rig.simulator.faults.arm(Script(rules=[Rule(**one) for one in rules])))

    def cut(self):
        """End every order connection without a word."""
        self.rig.call(lambda: [one.socket.abort() for one in list(self.rig.simulator.ws_api.connections)])

    def open_orders(self):
        return self.rig.call(lambda: self.rig.venue.engine.open_orders(self.trader))

    def clear_orders(self):
        def act():
            for account in (self.trader, self.other):
                self.rig.venue.engine.cancel_all(account, "BTCUSDT", self.rig.venue.now_us())
            self.rig.venue.drain()

        self.rig.call(act)

    def clear(self):
        self.faults()
        self.clear_orders()


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    limits = {"orders_10s": 10_000, "connections": 10_000, "request_weight": 1_000_000}
    with running(tmp_path_factory.mktemp("exchange"), limits=limits) as rig:
        yield Exchange(rig)


@pytest.fixture
def make(exchange):
    with rigs(exchange) as make:
        yield make


@pytest.fixture
def rig(make):
    return make()


def test_orders_are_placed_replaced_filled_and_cancelled(rig, exchange):
    first = rig.send(price=50_00)
    assert rig.wait(m.ACCEPTED, first)["venue_order_id"] > 0
    second = rig.send(m.REPLACE, price=49_00, target_id=first)
    rig.wait(m.REPLACED, second)
    exchange.place(exchange.other, "SELL", 49_00, ONE // 4)
    fill = rig.wait(m.FILL, second)
    assert (fill["last_price"], fill["last_quantity"], fill["leaves"]) == (49_00, ONE // 4, ONE * 3 // 4)
    assert fill["flags"] & m.MAKER
    assert fill["fee"] > 0
    cancel = rig.send(m.CANCEL, target_id=second)
    rig.wait(m.CANCELLED, cancel)
    rig.for_a_while()
    assert rig.taken() == 0
    assert not rig.gateway.illegal.any()
    assert rig.venue.words[v.REPEATED] > 0  # each thing is said twice, by answer and event
    assert len(set(rig.said())) == len(rig.said())


def test_what_takes_and_expires_is_told_by_events(rig, exchange):
    exchange.place(exchange.other, "SELL", 60_00, ONE)
    taker = rig.send(price=61_00, quantity=2 * ONE, time_in_force=m.IOC)
    assert rig.reason(rig.wait(m.EXPIRED, taker)) == "unfilled"
    assert rig.filled(taker) == ONE
    assert rig.taken() == 0


def test_the_venue_s_refusals_are_definite_and_logged(rig):
    poor = rig.send(quantity=1_000_000 * ONE // 4, price=1999_00)  # the gateway's own limit comes first
    rig.wait(m.DENIED, poor)
    tiny = rig.send(quantity=1000, price=50_00)
    assert rig.reason(rig.wait(m.REJECTED, tiny)) == "notional_range"
    assert "venue refuses" in rig.log.events()
    missing = rig.send(m.CANCEL, target_id=rig.number - 1000)
    assert rig.reason(rig.wait(m.CANCEL_REJECTED, missing)) == "unknown_order"
    assert rig.taken() == 0


def test_a_report_before_the_answer(rig, exchange):
    exchange.place(exchange.other, "SELL", 60_00, ONE)
    exchange.faults({"on": "response", "name": "order.place", "action": "late", "ms": 60})
    taker = rig.send(price=60_00)
    rig.wait(m.FILL, taker)
    rig.for_a_while(150)
    assert rig.taken() == 0
    assert rig.filled(taker) == ONE


def test_what_was_lost_is_asked_for_and_never_sent_again(make, exchange):
    rig = make(unknown_after_ms=150)
    exchange.place(exchange.other, "SELL", 60_00, ONE)
    exchange.faults(
        {"on": "response", "name": "order.place", "action": "drop", "times": 2},
        {"on": "event", "action": "drop", "times": 30},
    )
    taker = rig.send(price=60_00)
    rig.wait(m.UNKNOWN, taker)
    rig.wait(m.FILL, taker)
    assert rig.filled(taker) == ONE
    resting = rig.send(price=40_00)
    rig.wait(m.UNKNOWN, resting)
    rig.wait(m.ACCEPTED, resting)
    assert rig.taken() == 1
    assert len(exchange.open_orders()) == 1


def test_an_order_that_never_arrived_is_absent_only_when_it_can_no_longer_arrive(make, exchange):
    rig = make(unknown_after_ms=100)
    exchange.faults({"on": "request", "name": "order.place", "action": "error_not_placed", "times": 1})
    order = rig.send()
    rig.wait(m.UNKNOWN, order)
    rig.for_a_while(300)
    assert rig.state(order) == "unknown"
    assert (m.REJECTED, order) not in rig.said()
    rig.age(order, 14)  # so long ago that the venue would have refused it as too late
    assert rig.reason(rig.wait(m.REJECTED, order)) == "unknown_order"
    assert rig.taken() == 0


def test_an_error_of_the_venue_says_nothing_about_the_order(make, exchange):
    rig = make(unknown_after_ms=200)
    exchange.faults({"on": "request", "name": "order.place", "action": "error_placed", "times": 1})
    order = rig.send()
    rig.wait(m.ACCEPTED, order)
    assert len(exchange.open_orders()) == 1
    assert rig.state(order) == "accepted"


def test_a_repeated_report_counts_once(rig, exchange):
    exchange.faults({"on": "event", "action": "duplicate"})
    order = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, order)
    exchange.place(exchange.other, "SELL", 50_00, ONE)
    rig.wait(m.FILL, order)
    rig.for_a_while()
    assert rig.filled(order) == ONE
    assert rig.said().count((m.FILL, order)) == 1


def test_what_happens_while_the_connection_is_cut_is_learned_by_asking(rig, exchange):
    filled, resting = rig.send(price=50_00), rig.send(price=30_00)
    rig.wait(m.ACCEPTED, filled)
    rig.wait(m.ACCEPTED, resting)
    exchange.cut()
    exchange.place(exchange.other, "SELL", 50_00, ONE)
    rig.until(lambda: control.held(rig.hold) == control.RECONCILING, "hold")
    refused = rig.send(flags=m.FORCED)
    assert rig.reason(rig.wait(m.REJECTED, refused)) == "disconnected"
    cancel = rig.send(m.CANCEL, target_id=resting)
    assert rig.reason(rig.wait(m.CANCEL_REJECTED, cancel)) == "disconnected"
    rig.ready()
    fill = rig.wait(m.FILL, filled)
    assert fill["fee"] > 0
    assert rig.filled(filled) == ONE
    assert rig.state(resting) == "accepted"
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=resting))


def test_a_connection_cut_with_orders_in_flight_leaves_them_unknown_until_asked(make, exchange):
    rig = make(unknown_after_ms=200)
    exchange.faults({"on": "response", "name": "order.place", "action": "disconnect", "times": 1})
    order = rig.send()
    rig.wait(m.ACCEPTED, order)
    rig.ready()
    assert "venue disconnected" in rig.log.events()
    assert len(exchange.open_orders()) == 1
    assert rig.state(order) == "accepted"


def test_garbage_makes_us_compare_everything_again(rig, exchange):
    order = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, order)
    rig.for_a_while()
    exchange.faults({"on": "event", "name": "executionReport", "action": "garbage", "times": 1})
    exchange.place(exchange.other, "SELL", 50_00, ONE)
    rig.wait(m.FILL, order)
    assert "venue not understood" in rig.log.events()
    rig.ready()
    assert rig.filled(order) == ONE


def test_garbage_while_comparing_makes_us_compare_once_more(rig, exchange):
    order = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, order)
    rig.for_a_while()
    exchange.faults(
        {"on": "event", "name": "executionReport", "action": "garbage", "times": 2},
        {"on": "response", "name": "myTrades", "action": "late", "ms": 300, "skip": 1, "times": 1},
    )
    exchange.place(exchange.other, "SELL", 50_00, ONE // 2)
    late = exchange.rig.simulator.faults.triggers[1]
    rig.until(lambda: late.acted, "an answer that is right no more when it comes")
    exchange.place(exchange.other, "SELL", 50_00, ONE // 2)
    rig.until(lambda: rig.log.events().count("venue not understood") == 2, "more garbage")
    rig.ready()
    assert rig.filled(order) == ONE
    assert rig.taken() == 0


def test_an_answer_that_is_lost_while_comparing_is_waited_for_no_longer_because_others_come(
    make, exchange, monkeypatch
):
    monkeypatch.setattr(session, "ANSWER_NS", 500_000_000)
    rig = make(unknown_after_ms=100)
    rig.wait(m.ACCEPTED, rig.send(price=50_00))
    exchange.faults({"on": "request", "name": "order.place", "action": "error_not_placed", "times": 1})
    unknown = rig.send(price=49_00)
    rig.wait(m.UNKNOWN, unknown)  # asked about ten times a second: it might still arrive
    exchange.cut()
    rig.until(lambda: rig.session.state == session.DOWN, "the cut")
    exchange.faults({"on": "response", "name": "order.status", "action": "drop", "times": 1})
    rig.ready()
    assert "no answer in time: reconciliation" in [one.get("reason") for _, one in rig.log.lines]
    assert rig.state(unknown) == "unknown"


@pytest.fixture
def asked(exchange, monkeypatch):
    """What the venue is asked, by name."""
    serve, names = exchange.rig.venue.serve, []
    monkeypatch.setattr(exchange.rig.venue, "serve", lambda request: names.append(request.name) or serve(request))
    return names


def test_an_error_about_an_order_is_no_agreement(make, exchange):
    rig = make()
    order = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, order)
    exchange.faults({"on": "request", "name": "order.status", "action": "error_not_placed", "times": 3})
    exchange.cut()
    exchange.clear_orders()
    rig.until(lambda: rig.session.state == session.RECONCILING, "the comparison")
    rig.ready()
    assert exchange.rig.simulator.faults.triggers[0].acted == 3
    assert (m.CANCELLED, order) in [(int(one["kind"]), int(one["target_id"])) for one in rig.told]
    assert rig.taken() == 0


def test_an_open_order_that_the_venue_does_not_list_holds_until_it_does(make, exchange, monkeypatch):
    rig = make()
    rig.wait(m.ACCEPTED, rig.send(price=50_00))
    serve, lists = exchange.rig.venue.serve, []

    def lags(request):
        answer = serve(request)
        if request.name == "openOrders.status":
            lists.append(len(answer.body))
            return answer._replace(body=[]) if sum(lists) == 1 else answer
        return answer

    monkeypatch.setattr(exchange.rig.venue, "serve", lags)
    exchange.cut()
    rig.until(lambda: "held: the venue's list of open orders lags" in rig.log.events(), "the hold")
    assert control.held(rig.hold) == control.RECONCILING
    rig.ready()
    assert sum(lists) == 2


def test_questions_about_an_order_become_rarer(make, exchange, asked):
    rig = make(unknown_after_ms=20)
    exchange.faults({"on": "request", "name": "order.place", "action": "error_not_placed", "times": 1})
    order = rig.send()
    rig.wait(m.UNKNOWN, order)
    rig.until(rig.venue.sent["pause_ns"].any, "the first question")
    pauses = []
    while not pauses or pauses[-1] < venue_io.QUESTION_MAX_NS:
        pauses.append(int(rig.venue.sent["pause_ns"].max()))
        before = asked.count("order.status")
        rig.venue.sent["ask_ns"] -= pauses[-1]  # as time would
        rig.until(lambda before=before: asked.count("order.status") > before, "a question")
    assert pauses == sorted(set(pauses))
    assert all(later % earlier == 0 for earlier, later in pairwise(pauses))
    before = asked.count("order.status")
    queries = rig.gateway.words[gateway_state.QUERIES]
    rig.until(lambda: rig.gateway.words[gateway_state.QUERIES] > queries + 8, "questions that are not passed on")
    assert asked.count("order.status") < before + 8


def test_over_the_venue_s_limit_nothing_but_a_cancel_is_sent(rig, exchange):
    resting = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, resting)
    exchange.faults({"on": "request", "name": "order.place", "action": "too_many", "ms": 60_000, "times": 1})
    refused = rig.send()
    assert rig.reason(rig.wait(m.REJECTED, refused)) == "venue_rate"
    sent = int(rig.venue.words[v.SENT])
    assert rig.reason(rig.wait(m.REJECTED, rig.send())) == "venue_rate"
    assert rig.venue.words[v.SENT] == sent
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=resting))


def test_a_ban_is_waited_for(tmp_path):
    with running(tmp_path) as found:
        exchange = Exchange(found)
        rig = OrdersRig(exchange.url, exchange.tables).ready()
        exchange.faults({"on": "request", "name": "order.place", "action": "banned", "ms": 60_000, "times": 1})
        refused = rig.send()
        assert rig.reason(rig.wait(m.REJECTED, refused)) == "banned"
        rig.until(lambda: "venue disconnected" in rig.log.events(), "the cut")
        assert "until" in dict(rig.log.lines)["live orders unreachable"]
        assert control.held(rig.hold) == control.RECONCILING
        assert dict(rig.log.lines)["venue disconnected"]["again_in_ms"] > 60_000  # a second more: clocks differ
        rig.session._connections.try_ns = 0  # somebody who does not wait is told to
        rig.venue.buckets.words[:] = rig.venue.away[:] = 0
        rig.venue.live.words[receive.ATTENTION] = 1
        rig.until(lambda: rig.log.events().count("venue disconnected") == 2, "the refusal")
        assert 50_000 < rig.log.lines[-1][1]["again_in_ms"] <= 60_000  # Retry-After of the refused handshake
        rig.close()


def test_a_venue_that_died_and_came_back_with_nothing_is_traded_with_no_more(tmp_path):
    with running(tmp_path) as found:
        exchange = Exchange(found)
        rig = OrdersRig(exchange.url, exchange.tables).ready()
        order = rig.send(price=50_00)
        rig.wait(m.ACCEPTED, order)
        exchange.cut()
    rig.age(order, 14)  # it cannot be on its way any more
    with running(tmp_path, port=found.port):
        rig.until(lambda: control.kill_level(rig.kill) == control.HALT, "the kill")
        assert "killed: the venue does not know an order that it had accepted" in rig.log.events()
        assert rig.reason(rig.wait(m.DENIED, rig.send(price=50_00))) in ("killed", "held")
        assert rig.state(order) == "accepted"
        rig.close()


def test_halt_and_hold_are_read_again_before_each_order(rig):
    resting = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, resting)
    control.hold(rig.hold, control.STAGE_DOWN)
    # What the gateway had let through just before.
    sent, refused = int(rig.venue.words[v.SENT]), int(rig.venue.words[v.REFUSED])
    push(
        rig.gateway.to_venue,
        kind=m.NEW,
        order_id=5,
        side=m.BUY,
        price=50_00,
        quantity=ONE,
        order_type=m.LIMIT,
        time_in_force=m.GTC,
    )
    rig.until(lambda: rig.venue.words[v.REFUSED] > refused, "refusal")
    assert rig.venue.words[v.SENT] == sent
    assert rig.reason(rig.wait(m.DENIED, rig.send())) == "held"
    control.raise_kill(rig.kill, control.HALT)
    assert rig.reason(rig.wait(m.DENIED, rig.send())) == "killed"
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=resting))


@pytest.mark.parametrize("flags", [m.REDUCING, m.FORCED | m.REDUCING])
def test_until_both_sides_agree_not_even_a_reduction_is_sent(rig, exchange, flags):
    resting = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, resting)
    exchange.faults({"on": "response", "name": "account.status", "action": "late", "ms": 500, "times": 1})
    exchange.cut()
    rig.until(lambda: rig.session.state == session.RECONCILING, "the comparison")
    refused = rig.send(price=49_00, flags=flags)
    assert rig.reason(rig.wait(m.REJECTED, refused)) == "held"
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=resting))
    assert rig.session.state == session.RECONCILING
    rig.ready()
    control.hold(rig.hold, control.STAGE_DOWN)
    rig.wait(m.ACCEPTED, rig.send(price=49_00, flags=flags))


def test_an_order_that_lives_although_it_was_refused_is_cancelled(rig, exchange, monkeypatch):
    venue = exchange.rig.venue
    serve, refusal = venue.serve, Answer(400, {"code": -2010, "msg": "Account has insufficient balance."})

    def refuse(request):
        answer = serve(request)
        return refusal if request.name == "order.place" else answer

    monkeypatch.setattr(venue, "serve", refuse)
    exchange.faults({"on": "event", "action": "late", "ms": 100, "times": 3})
    order = rig.send()
    rig.wait(m.REJECTED, order)
    rig.until(lambda: control.held(rig.hold) == control.RECONCILING, "the hold")
    rig.ready()
    assert "held: open orders that are not this run's" in rig.log.events()
    assert exchange.open_orders() == []


def test_a_fill_that_nobody_told_is_found_while_orders_pass(make, exchange):
    rig = make()
    exchange.place(exchange.other, "SELL", 70_00, ONE // 4)
    monitored = rig.venue.known.place[0]
    order_id = rig.send(price=70_00, quantity=ONE // 4)
    rig.wait(m.FILL, order_id)
    assert rig.venue.known.place[0] == monitored + 1
    rig.venue.known.ids.entries["used"] = 0  # as if it had not been told
    rig.venue.known.ids.size[0] = 0
    rig.session._trades._turn, rig.session._trades.look_ns = len(rig.instruments) - 1, 0
    rig.venue.live.words[receive.ATTENTION] = 1
    rig.until(lambda: "a fill was not told" in rig.log.events(), "the look")
    rig.ready()
    assert rig.filled(order_id) == ONE // 4  # once: the gateway knows it


def test_trades_since_the_last_one_known_are_adopted(exchange):
    rig = OrdersRig(exchange.url, exchange.tables)
    try:
        exchange.place(exchange.other, "SELL", 70_00, ONE)
        rig.venue.anchors[:] = v.NO_TRADES
        rig.ready()
        before = len(rig.told)
        known = int(rig.venue.anchors[0])
        exchange.cut()
        exchange.place(exchange.trader, "BUY", 70_00, ONE)
        fill = rig.wait(m.FILL, 0) if before == 0 else rig.until(lambda: rig.told[before:], "the fill")[0]
        assert (fill["last_quantity"], fill["side"], fill["slot"]) == (ONE, m.BUY, -1)
        assert rig.venue.anchors[0] > known
    finally:
        rig.close()
        exchange.clear()
