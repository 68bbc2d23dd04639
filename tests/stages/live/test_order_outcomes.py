"""What may become of an order, one case after the other: the protocol sheet's list, over real sockets, up to risk."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.pipeline.exchange.venue import Answer
from shrivenq.stages import control
from shrivenq.stages import messages as m
from tests.pipeline.exchange.exchange_rig import running
from tests.stages.live.orders_rig import WIDE, OrdersRig
from tests.stages.test_live_venue import ONE, Exchange

SOON_MS = 150
"""An answer is overdue after this long."""
LONG_AGO_S = 14
"""What was sent so long ago the venue would refuse as too late."""


@pytest.fixture
def rig(make):
    return make(unknown_after_ms=SOON_MS)


@pytest.fixture
def altered(exchange, monkeypatch):
    """Let a request reach the venue otherwise than it was sent: `alter(request)` gives it, or its Answer."""

    def by(alter):
        serve = exchange.rig.venue.serve

        def altered(request):
            found = alter(request)
            return found if isinstance(found, Answer) else serve(found)

        monkeypatch.setattr(exchange.rig.venue, "serve", altered)

    return by


def resting(rig, **fields):
    """Place an order that rests."""
    order = rig.send(**{"price": 50_00} | fields)
    rig.wait(m.ACCEPTED, order)
    return order


def settled(rig):
    """Go on until nothing is on its way; nothing is left that should not be, and nothing was told twice."""
    rig.for_a_while()
    assert len(set(rig.said())) == len(rig.said())
    assert not rig.gateway.illegal.any()


# ── answers and reports ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lost", ["response", "event"])
def test_the_answer_alone_and_the_reports_alone_are_enough(rig, exchange, lost):
    exchange.faults({"on": lost, "action": "drop"})
    first = resting(rig)
    second = rig.send(m.REPLACE, price=49_00, target_id=first)
    if lost == "event":
        rig.wait(m.REPLACED, second)
    else:  # each half has an event of its own
        rig.wait(m.CANCELLED, first)
        rig.wait(m.ACCEPTED, second)
    cancel = rig.send(m.CANCEL, target_id=second)
    report = rig.wait(m.CANCELLED, cancel)
    assert (report["target_id"], report["venue_order_id"] > 0) == (second, True)
    assert (m.UNKNOWN, first) not in rig.said()
    assert rig.taken() == 0
    settled(rig)


def test_a_cancel_s_report_names_the_cancel_and_the_order_it_was_of(rig, exchange):
    order = resting(rig)
    exchange.faults({"on": "response", "name": "order.cancel", "action": "drop", "times": 1})
    cancel = rig.send(m.CANCEL, target_id=order)
    report = rig.wait(m.CANCELLED, cancel)
    assert (report["order_id"], report["target_id"]) == (cancel, order)
    assert exchange.open_orders() == []
    assert rig.taken() == 0
    settled(rig)


def test_a_cancel_of_which_nothing_is_heard_is_asked_about(rig, exchange):
    order = resting(rig)
    exchange.faults(
        {"on": "response", "name": "order.cancel", "action": "drop", "times": 1},
        {"on": "event", "name": "executionReport", "action": "drop", "times": 1},
    )
    rig.send(m.CANCEL, target_id=order)
    rig.wait(m.UNKNOWN, order)
    assert rig.wait(m.CANCELLED, order)["target_id"] == order
    assert rig.taken() == 0
    settled(rig)


def test_a_cancel_that_the_venue_never_got_leaves_the_order_open(rig, exchange):
    order = resting(rig)
    exchange.faults({"on": "request", "name": "order.cancel", "action": "error_not_placed", "times": 1})
    rig.send(m.CANCEL, target_id=order)
    rig.until(lambda: rig.said().count((m.ACCEPTED, order)) == 2, "that it is still there")
    assert len(exchange.open_orders()) == 1
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=order))
    assert rig.taken() == 0


def test_partly_filled_and_then_cancelled(rig, exchange):
    order = resting(rig)
    exchange.place(exchange.other, "SELL", 50_00, ONE // 4)
    rig.wait(m.FILL, order)
    cancelled = rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=order))
    assert (cancelled["filled"], cancelled["leaves"]) == (ONE // 4, 0)
    assert rig.filled(order) == ONE // 4
    assert rig.taken() == 0
    settled(rig)


@pytest.mark.parametrize("heard", ["late", "drop"])
def test_an_order_is_not_over_before_its_last_fill_is_known(rig, exchange, heard):
    order = resting(rig)
    late = {"ms": 60} if heard == "late" else {}
    exchange.faults({"on": "event", "name": "executionReport", "action": heard, "times": 1} | late)
    exchange.place(exchange.other, "SELL", 50_00, ONE // 4)
    rig.send(m.CANCEL, target_id=order)
    cancelled = rig.wait(m.CANCELLED, order)
    assert (rig.filled(order), cancelled["filled"]) == (ONE // 4, ONE // 4)
    assert rig.said().index((m.FILL, order)) < rig.said().index((m.CANCELLED, order))
    assert rig.taken() == 0
    settled(rig)


def test_a_fill_that_is_never_heard_of_is_found_by_the_cancel_that_came_too_late(rig, exchange):
    order = resting(rig)
    exchange.faults({"on": "event", "name": "executionReport", "action": "drop", "times": 1})
    exchange.place(exchange.other, "SELL", 50_00, ONE)

    def insisted():
        """Cancel again and again, which does not put the question off."""
        rig.wait(m.CANCEL_REJECTED, rig.send(m.CANCEL, target_id=order))
        return (m.FILL, order) in rig.said()

    rig.until(insisted)
    assert rig.filled(order) == ONE
    assert rig.taken() == 0


def test_a_fill_between_a_cancel_and_its_arrival_makes_it_too_late(rig, exchange):
    order = resting(rig)
    exchange.faults({"on": "event", "name": "executionReport", "action": "late", "ms": 100, "times": 1})
    exchange.place(exchange.other, "SELL", 50_00, ONE)
    refused = rig.wait(m.CANCEL_REJECTED, rig.send(m.CANCEL, target_id=order))
    assert rig.reason(refused) == "unknown_order"
    rig.wait(m.FILL, order)
    assert rig.filled(order) == ONE
    assert rig.taken() == 0
    settled(rig)


def test_a_venue_that_does_not_know_what_it_had_accepted_is_traded_with_no_more(rig, exchange, altered):
    order = resting(rig)
    rig.age(order, LONG_AGO_S)
    forgot = Answer(400, {"code": -2013, "msg": "Order does not exist."})
    altered(lambda request: forgot if request.name == "order.status" else request)
    exchange.cut()
    rig.until(lambda: control.kill_level(rig.kill) == control.HALT, "the kill")
    assert "killed: the venue does not know an order that it had accepted" in rig.log.events()
    assert rig.state(order) == "accepted"  # it keeps its exposure


def test_an_order_the_venue_does_not_know_yet_is_asked_about_until_it_does(rig, exchange, altered):
    asked = []

    def not_yet(request):
        if request.name == "order.status":
            asked.append(request)
            if len(asked) < 3:
                return Answer(400, {"code": -2013, "msg": "Order does not exist."})
        return request

    altered(not_yet)
    exchange.faults(
        {"on": "response", "name": "order.place", "action": "drop", "times": 1},
        {"on": "event", "action": "drop", "times": 2},
    )
    order = rig.send(price=50_00)
    rig.wait(m.UNKNOWN, order)
    rig.wait(m.ACCEPTED, order)
    assert len(asked) == 3
    assert (m.REJECTED, order) not in rig.said()
    assert rig.state(order) == "accepted"
    assert len(exchange.open_orders()) == 1


# ── the five rows of cancelReplace ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def lenient(altered):
    """Let replacements go to the venue as if the new order were wanted whatever becomes of the old one."""

    def alter(request):
        if request.name == "order.cancelReplace":
            return request._replace(params=request.params | {"cancelReplaceMode": "ALLOW_FAILURE"})
        return request

    altered(alter)


def gone(rig, exchange):
    """Place an order that is gone at the venue, which we have not heard yet."""
    order = resting(rig)
    exchange.faults({"on": "event", "name": "executionReport", "action": "late", "ms": 300, "times": 1})
    exchange.place(exchange.other, "SELL", 50_00, ONE)
    return order


def test_cancelled_and_placed(rig, exchange):
    old = resting(rig)
    new = rig.send(m.REPLACE, price=49_00, target_id=old)
    rig.wait(m.REPLACED, new)
    assert [one.price for one in exchange.open_orders()] == [49_00]
    assert rig.taken() == 1
    settled(rig)


def test_not_cancelled_and_not_attempted(rig, exchange):
    old = gone(rig, exchange)
    new = rig.send(m.REPLACE, price=49_00, target_id=old)
    assert rig.reason(rig.wait(m.CANCEL_REJECTED, new)) == "unknown_order"
    rig.wait(m.FILL, old)
    assert rig.filled(old) == ONE
    assert exchange.open_orders() == []
    assert rig.taken() == 0
    settled(rig)


@pytest.mark.usefixtures("lenient")
def test_not_cancelled_and_not_placed(rig, exchange):
    old = gone(rig, exchange)
    new = rig.send(m.REPLACE, price=49_00, quantity=1000, target_id=old)  # worth less than the venue takes
    rig.wait(m.CANCEL_REJECTED, new)
    rig.wait(m.FILL, old)
    assert exchange.open_orders() == []
    assert rig.taken() == 0
    settled(rig)


def test_cancelled_and_not_placed(rig, exchange):
    exchange.place(exchange.other, "SELL", 60_00, ONE)
    old = resting(rig)
    new = rig.send(m.REPLACE, price=61_00, target_id=old, order_type=m.LIMIT_MAKER)
    assert rig.wait(m.CANCELLED, new)["target_id"] == old
    assert rig.reason(rig.wait(m.REJECTED, new)) == "would_take"
    assert exchange.open_orders() == []
    assert rig.taken() == 0
    settled(rig)


@pytest.mark.usefixtures("lenient")
def test_not_cancelled_and_placed(rig, exchange):
    old = gone(rig, exchange)
    new = rig.send(m.REPLACE, price=49_00, target_id=old)
    rig.wait(m.ACCEPTED, new)
    rig.wait(m.FILL, old)
    assert rig.filled(old) == ONE
    assert [one.price for one in exchange.open_orders()] == [49_00]
    assert (rig.taken(), rig.state(new)) == (1, "accepted")
    settled(rig)


@pytest.mark.parametrize("placed", [True, False])
def test_a_replacement_of_which_nothing_is_heard_is_asked_about_on_both_sides(rig, exchange, placed):
    old = resting(rig)
    fault = {"on": "request", "name": "order.cancelReplace", "times": 1}
    exchange.faults(
        {**fault, "action": "error_placed" if placed else "error_not_placed"},
        {"on": "event", "action": "drop", "times": 3},
    )
    new = rig.send(m.REPLACE, price=49_00, target_id=old)
    if placed:
        rig.until(lambda: {(m.ACCEPTED, new), (m.CANCELLED, old)} <= set(rig.said()), "both answers")
        assert [one.price for one in exchange.open_orders()] == [49_00]
        assert (rig.taken(), rig.state(new)) == (1, "accepted")
        return
    rig.until(lambda: rig.said().count((m.ACCEPTED, old)) == 2, "that the old one is still there")
    assert rig.state(new) == "unknown"
    rig.age(new, LONG_AGO_S)
    assert rig.reason(rig.wait(m.REJECTED, new)) == "unknown_order"
    assert [one.price for one in exchange.open_orders()] == [50_00]
    assert rig.taken() == 1


# ── self-trade prevention ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("mode", "expired"),
    [(m.EXPIRE_TAKER, "taker"), (m.EXPIRE_MAKER, "maker"), (m.EXPIRE_BOTH, "taker maker")],
)
def test_an_order_that_would_trade_with_ours_expires(rig, exchange, mode, expired):
    maker = resting(rig, side=m.SELL, price=55_00)
    taker = rig.send(price=55_00, self_trade=mode)
    orders = {"maker": maker, "taker": taker}
    for name in expired.split():
        assert rig.reason(rig.wait(m.EXPIRED, orders[name])) == "self_trade"
    rig.for_a_while()
    assert rig.filled(maker) == rig.filled(taker) == 0
    left = {order for name, order in orders.items() if name not in expired}
    assert set(open_of(rig)) == left
    assert len(exchange.open_orders()) == len(left) == rig.taken()
    settled(rig)


def test_what_prevention_takes_of_equal_orders_ends_both(rig, exchange):
    maker = resting(rig, side=m.SELL, price=55_00)
    taker = rig.send(price=55_00, self_trade=m.DECREMENT)
    for order in (maker, taker):
        assert rig.reason(rig.wait(m.EXPIRED, order)) == "self_trade"
    assert exchange.open_orders() == []
    assert rig.taken() == 0
    settled(rig)


# ── limits, ends and beginnings ──────────────────────────────────────────────────────────────────────────────────────


def test_what_was_refused_for_the_limit_goes_again_when_the_venue_says_so(rig, exchange):
    exchange.faults({"on": "request", "name": "order.place", "action": "too_many", "ms": 300, "times": 1})
    assert rig.reason(rig.wait(m.REJECTED, rig.send())) == "venue_rate"
    assert rig.reason(rig.wait(m.REJECTED, rig.send())) == "venue_rate"  # ours: nothing is sent before the time

    def passes():
        order = rig.send(price=50_00)
        rig.until(lambda: {(m.ACCEPTED, order), (m.REJECTED, order)} & set(rig.said()), "an answer")
        return (m.ACCEPTED, order) in rig.said()

    rig.until(passes, "the venue's time")


def test_after_24_hours_the_session_goes_on_where_it_was(tmp_path):
    """The venue cuts it; what was filled meanwhile is learned, what is open is known, and nothing is sent twice."""
    with running(tmp_path, sessions={"lifetime_s": 1.0}, limits=WIDE) as found:
        exchange = Exchange(found)
        rig = OrdersRig(exchange.url, exchange.tables).ready()
        try:
            filled, open_one = resting(rig), resting(rig, price=30_00)
            rig.until(lambda: "venue disconnected" in rig.log.events(), "the cut")
            assert control.held(rig.hold) == control.RECONCILING
            exchange.place(exchange.other, "SELL", 50_00, ONE)
            rig.ready()
            rig.wait(m.FILL, filled)
            assert (rig.filled(filled), rig.state(open_one), rig.taken()) == (ONE, "accepted", 1)
            rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=open_one))
            reasons = [fields["reason"] for event, fields in rig.log.lines if event == "venue disconnected"]
            assert "1001" in reasons[0] or "24 hours" in reasons[0]
        finally:
            rig.close()


def test_orders_outlive_a_restart_that_the_venue_announces(rig, exchange):
    order = resting(rig)
    exchange.rig.call(exchange.rig.simulator.ws_api.shut_down)
    rig.until(lambda: "the connection before has ended" in rig.log.events(), "the end")
    assert "venue disconnected" not in rig.log.events()
    assert rig.state(order) == "accepted"
    exchange.place(exchange.other, "SELL", 50_00, ONE)
    rig.wait(m.FILL, order)
    assert rig.filled(order) == ONE


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_lost_repeated_late_or_out_of_order_both_sides_agree(make, exchange, seed):
    """Random faults; in the end both sides hold the same orders open, and the same fills."""
    rng = np.random.default_rng(seed)
    rig, mine, known = make(unknown_after_ms=100), [], trades(exchange)
    exchange.faults(
        {"on": "response", "action": "drop", "name": "order.[pc]*", "probability": 0.1},
        {"on": "request", "action": "error_placed", "name": "order.[pc]*", "probability": 0.05},
        {"on": "event", "action": "drop", "probability": 0.1},
        {"on": "event", "action": "duplicate", "probability": 0.1},
        {"on": "event", "action": "reorder", "probability": 0.1},
        {"on": "event", "action": "late", "ms": 30, "probability": 0.1},
        {"on": "response", "action": "disconnect", "name": "order.place", "probability": 0.02},
    )
    for _ in range(60):
        rig.ready()
        what, price = rng.integers(0, 4), 50_00 + 10 * int(rng.integers(-5, 6))
        if what == 0:
            exchange.place(exchange.other, "SELL" if rng.integers(2) else "BUY", price, ONE // 4)
        elif what < 3 or not mine:
            mine.append(rig.send(price=price, side=m.BUY if rng.integers(2) else m.SELL))
        else:
            kind = m.CANCEL if rng.integers(2) else m.REPLACE
            target = mine[int(rng.integers(len(mine)))]
            found = rig.send(kind, price=price, target_id=target)
            mine += [found] if kind == m.REPLACE else []
        rig.for_a_while(5)
    exchange.faults()
    exchange.cut()  # a new session asks for everything
    rig.until(lambda: control.held(rig.hold) == control.RECONCILING, "hold")
    rig.ready()
    for one in open_of(rig):
        rig.age(one, LONG_AGO_S)
    rig.until(lambda: {rig.state(one) for one in open_of(rig)} <= {"accepted", "partly_filled"}, "answers")
    ours = sorted(int(one["trade_id"]) for one in rig.told if one["kind"] == m.FILL)
    assert ours == sorted(trades(exchange) - known), f"seed {seed}"
    names = {m.client_order_id(rig.run.tobytes(), one).decode() for one in open_of(rig)}
    assert names == {one.client_id for one in exchange.open_orders()}, f"seed {seed}"


def open_of(rig):
    """List our orders that are not over."""
    return [int(one) for one in rig.pool.slots["order_id"][rig.session._orders.taken()]]


def trades(exchange):
    """Name the trades of our account."""
    engine = exchange.rig.venue.engine
    return exchange.rig.call(
        lambda: {one.trade_id for one in engine.my_trades(exchange.trader, "BTCUSDT", limit=10_000)}
    )
