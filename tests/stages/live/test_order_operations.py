"""Every operation of an order over real sockets, by either protocol: what the venue holds is what was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.pipeline.exchange.types import NewOrder
from shrivenq.stages import control
from shrivenq.stages import messages as m
from tests.pipeline.exchange.exchange_rig import running
from tests.stages.live.orders_rig import rigs
from tests.stages.test_live_venue import ONE, Exchange

LIMITS = {"orders_10s": 10_000, "connections": 10_000, "request_weight": 1_000_000}
FIX_LIMITS = {"messages": 10_000, "connections": 10_000}


class Market(Exchange):
    """A simulator whose other trader also trades with itself, and so makes the last price."""

    def print(self, price):
        """Let somebody trade at a price."""

        def act():
            venue = self.rig.venue
            venue.engine.advance(venue.now_us())
            for side in ("SELL", "BUY"):
                order = NewOrder(
                    symbol="BTCUSDT", side=side, type="LIMIT", time_in_force="IOC" if side == "BUY" else "GTC",
                    price=price, quantity=ONE // 4, stp="NONE",
                )  # fmt: skip
                venue.engine.place(self.other, order, venue.now_us())
            venue.drain()

        self.rig.call(act)

    def order(self, rig, order_id):
        """Give an order of ours as the venue has it, open or not."""
        name = m.client_order_id(rig.run.tobytes(), order_id).decode()
        found = self.rig.call(lambda: self.rig.venue.engine.all_orders(self.trader, "BTCUSDT", limit=1000))
        (one,) = (one for one in found if one.client_id == name)
        return one


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    with running(tmp_path_factory.mktemp("exchange"), limits=LIMITS) as rig:
        yield Market(rig)


@pytest.fixture(params=["api", "fix"])
def make(exchange, request):
    fields = {}
    if request.param == "fix":
        fields = {"order_entry": "fix", "fix_url": f"tcp://127.0.0.1:{exchange.rig.fix_port}"}

    with rigs(exchange, **fields) as make:
        yield make


@pytest.fixture
def rig(make):
    return make()


def settled(rig):
    """Go on until nothing is on its way; nothing was told twice, and nothing that may not be."""
    rig.for_a_while()
    assert len(set(rig.said())) == len(rig.said())
    assert not rig.gateway.illegal.any()


def accepted(rig, **fields):
    order = rig.send(**fields)
    rig.wait(m.ACCEPTED, order)
    return order


@pytest.mark.parametrize(
    ("order_type", "name", "side", "stop_price", "price"),
    [
        (m.STOP_LOSS, "STOP_LOSS", m.BUY, 55_00, 0),
        (m.STOP_LOSS_LIMIT, "STOP_LOSS_LIMIT", m.BUY, 55_00, 57_00),
        (m.TAKE_PROFIT, "TAKE_PROFIT", m.SELL, 55_00, 0),
        (m.TAKE_PROFIT_LIMIT, "TAKE_PROFIT_LIMIT", m.SELL, 55_00, 53_00),
    ],
)
def test_a_stop_order_waits_triggers_and_is_filled(rig, exchange, order_type, name, side, stop_price, price):
    exchange.print(50_00)
    fields = {"order_type": order_type, "side": side, "price": price, "stop_price": stop_price, "quantity": ONE // 2}
    order = accepted(rig, **fields, self_trade=m.EXPIRE_MAKER)
    held = exchange.order(rig, order)
    assert (held.type, held.side, held.stop_price, held.price) == (
        name,
        "BUY" if side == m.BUY else "SELL",
        55_00,
        price,
    )
    assert (held.quantity, held.executed, held.stp, held.is_open) == (ONE // 2, 0, "EXPIRE_MAKER", True)
    if price:
        assert held.time_in_force == "GTC"
    exchange.place(exchange.other, "SELL" if side == m.BUY else "BUY", 56_00 if side == m.BUY else 54_00, ONE)
    exchange.print(55_00)
    fill = rig.wait(m.FILL, order)
    assert (fill["last_quantity"], fill["leaves"], bool(fill["flags"] & m.FINAL)) == (ONE // 2, 0, True)
    settled(rig)
    assert rig.taken() == 0
    assert exchange.order(rig, order).executed == ONE // 2


def test_a_stop_that_would_trigger_at_once_is_refused(rig, exchange):
    exchange.print(60_00)
    order = rig.send(order_type=m.STOP_LOSS, price=0, stop_price=55_00, self_trade=m.EXPIRE_TAKER)
    assert rig.reason(rig.wait(m.REJECTED, order)) == "would_trigger"
    assert rig.taken() == 0


def test_an_amended_order_is_smaller_at_the_venue_and_keeps_its_place(rig, exchange):
    first = accepted(rig, price=50_00)
    exchange.place(exchange.other, "BUY", 50_00, ONE)
    amend = rig.send(m.AMEND, target_id=first, quantity=ONE // 4)
    report = rig.wait(m.AMENDED, amend)
    assert (report["target_id"], report["quantity"], report["leaves"]) == (first, ONE // 4, ONE // 4)
    assert exchange.order(rig, first).quantity == ONE // 4
    exchange.place(exchange.other, "SELL", 50_00, ONE // 4)  # the other's own order is behind ours
    assert rig.wait(m.FILL, first)["leaves"] == 0
    settled(rig)
    assert rig.taken() == 0
    more = rig.send(m.AMEND, target_id=accepted(rig, price=50_00), quantity=1)
    assert rig.reason(rig.wait(m.AMEND_REJECTED, more)) in ("step_size", "notional_range", "venue")
    settled(rig)
    assert rig.taken() == 1


def test_an_amendment_to_what_is_filled_ends_the_order(rig, exchange):
    order = accepted(rig, price=50_00)
    exchange.place(exchange.other, "SELL", 50_00, ONE // 4)
    rig.wait(m.FILL, order)
    rig.send(m.AMEND, target_id=order, quantity=ONE // 4)
    rig.until(lambda: rig.taken() == 0, "the end")
    settled(rig)
    (last,) = [one for one in rig.told if one["flags"] & m.FINAL]
    assert order in (last["order_id"], last["target_id"])
    assert not exchange.order(rig, order).is_open


def test_an_amendment_nobody_hears_of_is_learned_by_asking(make, exchange):
    rig = make(unknown_after_ms=200)
    order = accepted(rig, price=50_00)
    exchange.faults(
        {"on": "response", "name": "order.amend.keepPriority", "action": "drop"},
        {"on": "event", "action": "drop", "times": 2},
    )
    amend = rig.send(m.AMEND, target_id=order, quantity=ONE // 4)
    rig.until(lambda: exchange.order(rig, order).quantity == ONE // 4, "the amendment")
    exchange.place(exchange.other, "SELL", 50_00, ONE // 4)  # it is filled whole, and we are not told either
    rig.until(lambda: rig.taken() == 0, "the end")
    assert rig.filled(order) == ONE // 4
    assert (m.AMENDED, amend) in rig.said() or (m.AMENDED, order) in rig.said()
    rig.for_a_while()
    assert not rig.gateway.illegal.any()


def test_cancel_all_leaves_nothing_of_its_instrument(rig, exchange):
    exchange.print(50_00)
    orders = [accepted(rig, price=40_00 + 100 * n) for n in range(4)]
    orders.append(accepted(rig, order_type=m.STOP_LOSS, price=0, stop_price=90_00, self_trade=m.EXPIRE_TAKER))
    other = accepted(rig, instrument=1, price=20_00)
    rig.send(m.CANCEL_ALL, side=0, price=0, quantity=0)
    for order in orders:
        assert rig.wait(m.CANCELLED, order)["target_id"] == order
    settled(rig)
    assert [one.symbol for one in exchange.open_orders()] == ["ETHUSDT"]
    assert rig.taken() == 1
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=other, instrument=1))


def test_cancel_all_of_nothing_is_refused(rig):
    request = rig.send(m.CANCEL_ALL, side=0, price=0, quantity=0)
    report = rig.wait(m.CANCEL_REJECTED, request)
    assert (rig.reason(report), report["target_id"]) == ("unknown_order", 0)
    assert rig.taken() == 0


def test_orders_are_asked_about_one_by_one_when_a_cancel_all_is_not_answered(make, exchange):
    rig = make(unknown_after_ms=200)
    orders = [accepted(rig, price=40_00 + 100 * n) for n in range(3)]
    exchange.faults(
        {"on": "response", "name": "openOrders.cancelAll", "action": "drop"},
        {"on": "event", "action": "drop", "times": 6},
    )
    rig.send(m.CANCEL_ALL, side=0, price=0, quantity=0)
    rig.until(lambda: rig.taken() == 0, "the end")
    ended = {int(one["target_id"]) for one in rig.told if one["kind"] == m.CANCELLED}
    assert ended == set(orders)
    assert not exchange.open_orders()


@pytest.mark.parametrize(
    ("mode", "name", "maker_left", "taker_left"),
    [
        (m.EXPIRE_TAKER, "EXPIRE_TAKER", ONE, 0),
        (m.EXPIRE_MAKER, "EXPIRE_MAKER", 0, 2 * ONE),
        (m.EXPIRE_BOTH, "EXPIRE_BOTH", 0, 0),
        (m.DECREMENT, "DECREMENT", 0, ONE),
        (m.TRANSFER, "TRANSFER", 0, ONE),
    ],
)
def test_the_venue_prevents_self_trades_as_the_order_says(rig, exchange, mode, name, maker_left, taker_left):
    maker = accepted(rig, side=m.SELL, price=50_00)
    taker = rig.send(price=51_00, quantity=2 * ONE, self_trade=mode)
    rig.wait(m.ACCEPTED, taker)
    settled(rig)
    assert exchange.order(rig, taker).stp == name
    for order, left in ((maker, maker_left), (taker, taker_left)):
        slot = np.flatnonzero(rig.pool.slots["order_id"] == order)[0]
        if left:
            assert rig.pool.slots["quantity"][slot] == left
            assert rig.state(order) == "accepted"
        else:
            assert rig.reason(rig.wait(m.EXPIRED, order)) == "self_trade"
    assert rig.taken() == bool(maker_left) + bool(taker_left)
    assert not any(one["kind"] == m.FILL for one in rig.told)
    if taker_left:  # and what is left is filled to the end
        exchange.place(exchange.other, "SELL", 51_00, taker_left)
        rig.until(lambda: rig.taken() == 0, "the end")
        assert rig.filled(taker) == taker_left


@pytest.mark.parametrize("make", ["api"], indirect=True)
def test_without_a_connection_nothing_is_sent_and_it_is_said_at_once(rig, exchange):
    order = accepted(rig, price=50_00)
    exchange.cut()
    rig.until(lambda: control.held(rig.hold) == control.RECONCILING, "hold")
    amend, request = rig.send(m.AMEND, target_id=order, quantity=ONE // 2), rig.send(m.CANCEL_ALL, quantity=0)
    assert rig.reason(rig.wait(m.AMEND_REJECTED, amend)) == "disconnected"
    assert rig.reason(rig.wait(m.CANCEL_REJECTED, request)) == "disconnected"
    rig.ready()
    assert rig.state(order) == "accepted"
    assert exchange.order(rig, order).quantity == ONE
