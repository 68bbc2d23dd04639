"""Open orders that are not this run's: foreign ones hold, those of an earlier run are settled."""

from __future__ import annotations

import time

import msgspec
import pytest

from shrivenq.pipeline.exchange.types import NewOrder
from shrivenq.stages import control
from shrivenq.stages import messages as m
from shrivenq.stages.live import foreign
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.venues.binance_orders import ABSENCE_MS
from tests.stages.live.orders_rig import OrdersRig
from tests.stages.test_live_venue import ONE


def test_foreign_orders_hold_until_they_are_gone(exchange):
    exchange.place(exchange.trader, "BUY", 20_00, ONE, client_id="by-hand")
    rig = OrdersRig(exchange.url, exchange.tables)
    try:
        rig.until(lambda: "held: open orders that are not this run's" in rig.log.events(), "the warning")
        rig.for_a_while()
        assert control.held(rig.hold) == control.RECONCILING
        assert len(exchange.open_orders()) == 1
        control.raise_kill(rig.kill, control.CANCEL)
        rig.ready()
        assert exchange.open_orders() == []
    finally:
        rig.close()


def test_a_foreign_order_holds_as_soon_as_it_is_placed(make, exchange):
    rig = make()
    exchange.place(exchange.trader, "BUY", 20_00, ONE, client_id="by-hand")
    rig.until(lambda: control.held(rig.hold) == control.RECONCILING, "the hold")
    exchange.clear()
    rig.session._look_ns = 1
    rig.ready()


def test_a_foreign_order_list_holds_and_a_kill_cancels_it(make, exchange):
    rig = make()
    order = NewOrder(
        symbol="BTCUSDT", side="BUY", type="LIMIT", time_in_force="GTC", price=70_00, quantity=ONE
    )  # fmt: skip
    pair = [
        msgspec.structs.replace(order, side="SELL", type="LIMIT_MAKER", price=100_00, time_in_force=None),
        msgspec.structs.replace(order, side="SELL", type="STOP_LOSS", stop_price=30_00, price=None, time_in_force=None),
    ]

    def place():
        venue = exchange.rig.venue
        outcome = venue.engine.place_list(exchange.trader, "OTOCO", [order, *pair], venue.now_us())
        venue.drain()
        return outcome.error

    assert exchange.rig.call(place) is None
    rig.until(lambda: control.held(rig.hold) == control.RECONCILING, "the hold")
    assert len(exchange.open_orders()) == 3
    exchange.place(exchange.other, "SELL", 70_00, ONE)  # the pair begins
    rig.for_a_while()
    assert [one.status for one in exchange.open_orders()] == ["NEW", "NEW"]
    control.raise_kill(rig.kill, control.CANCEL)
    rig.ready()
    assert exchange.open_orders() == []


def left_behind(rig, number, time_ns=0):
    """Have the journal hold an order of an earlier run that has no end; give its name."""
    name, order_id = f"0123abcd-1-5-{number}", 5 << m.EPOCH_SHIFT | number
    at = int((rig.venue.unsettled["order_id"] != 0).sum())
    rig.venue.unsettled[at] = (name.encode(), order_id, 0, 0, time_ns)
    return name


def test_orders_that_an_earlier_run_left_behind_are_cancelled_and_over(exchange):
    rig = OrdersRig(exchange.url, exchange.tables)
    try:
        exchange.place(exchange.trader, "BUY", 20_00, ONE, client_id=left_behind(rig, 77))
        exchange.place(exchange.other, "SELL", 70_00, ONE // 4)
        rig.venue.anchors[:] = v.NO_TRADES
        exchange.place(exchange.trader, "BUY", 70_00, ONE // 4, client_id=left_behind(rig, 78))
        rig.ready()
        assert exchange.open_orders() == []
        assert not rig.venue.unsettled["order_id"].any()
        said = [(int(one["kind"]), int(one["order_id"]) & 0xFF) for one in rig.journaled()]
        assert said.count((m.OVER, 77)) == said.count((m.OVER, 78)) == 1
        fills = [one["last_quantity"] for one in rig.told if one["kind"] == m.FILL and one["side"] == m.BUY]
        assert fills[-1] == ONE // 4
    finally:
        rig.close()
        exchange.clear()


@pytest.mark.parametrize("heard_of", [True, False])
def test_a_fill_of_an_order_of_an_earlier_run_is_that_order_s_whenever_it_comes(exchange, monkeypatch, heard_of):
    """It comes as an event of nobody's while the comparison is under way, too."""
    monkeypatch.setattr(foreign, "LOOK_AGAIN_NS", 10_000_000)
    rig = OrdersRig(exchange.url, exchange.tables)
    try:
        rig.venue.anchors[:] = v.NO_TRADES
        number = 81 + heard_of
        name = left_behind(rig, number)
        placed = exchange.place(exchange.trader, "BUY", 70_00, ONE // 4, client_id=name)
        if heard_of:
            rig.venue.unsettled["venue_order_id"][0] = placed.order.order_id
        monkeypatch.setattr(rig.session._foreign, "cancel", lambda: None)
        rig.until(lambda: "held: open orders that are not this run's" in rig.log.events(), "the comparison")
        exchange.place(exchange.other, "SELL", 70_00, ONE // 4)
        rig.ready()
        fills = [one for one in rig.told if one["kind"] == m.FILL and one["last_price"] == 70_00]
        assert [(int(one["order_id"]) & 0xFF, int(one["last_quantity"])) for one in fills][-1:] == [(number, ONE // 4)]
        assert not [one for one in fills if one["venue_order_id"] == placed.order.order_id and one["order_id"] == 0]
    finally:
        rig.close()
        exchange.clear()


def test_an_order_of_an_earlier_run_that_was_on_its_way_is_waited_for(exchange, monkeypatch):
    monkeypatch.setattr(foreign, "LOOK_AGAIN_NS", 10_000_000)
    rig = OrdersRig(exchange.url, exchange.tables)
    try:
        name = left_behind(rig, 79, time.time_ns())
        rig.until(lambda: "held: orders of an earlier run may yet arrive at the venue" in rig.log.events(), "the wait")
        assert control.held(rig.hold) == control.RECONCILING
        exchange.place(exchange.trader, "BUY", 20_00, ONE, client_id=name)
        rig.ready()
        assert exchange.open_orders() == []
        assert not rig.venue.unsettled["order_id"].any()
    finally:
        rig.close()


def test_an_order_of_an_earlier_run_that_never_arrives_is_over_in_the_end(exchange, monkeypatch):
    monkeypatch.setattr(foreign, "LOOK_AGAIN_NS", 10_000_000)
    rig = OrdersRig(exchange.url, exchange.tables)
    try:
        left_behind(rig, 80, time.time_ns())
        rig.until(lambda: "held: orders of an earlier run may yet arrive at the venue" in rig.log.events(), "the wait")
        rig.venue.unsettled["time_ns"][0] -= ABSENCE_MS * 1_000_000  # as time would
        rig.ready()
        assert not rig.venue.unsettled["order_id"].any()
    finally:
        rig.close()
