"""Order lists by their ids: placed, cancelled, asked for."""

from __future__ import annotations

import pytest

from tests.pipeline.exchange.engine_rig import START_US, limit, market
from tests.pipeline.exchange.lists_rig import BTC, opened, said, sell_pair, trade


def test_a_working_order_that_is_filled_at_once_is_answered_before_the_pending_one_begins():
    engine = market()
    engine.place(2, limit("SELL", 95, 5), START_US)
    outcome = engine.place_list(1, "OTO", [limit("BUY", 95, 5), limit("SELL", 120, 5)], START_US)
    assert [one.order.status for one in outcome.orders] == ["FILLED", "PENDING_NEW"]
    assert [one.order.status for one in outcome.orders[:1]] == ["FILLED"]
    assert [one.status for one in engine.open_orders(1)] == ["NEW"]


@pytest.mark.parametrize("leg", range(3))
def test_a_cancel_of_one_order_is_one_of_its_list(leg):
    engine, outcome = opened("OTOCO", [limit("BUY", 95, 5), *sell_pair()])
    numbers = [one.order.order_id for one in outcome.orders]
    found = engine.cancel(1, BTC, START_US, order_id=numbers[leg], new_client_id="gone")
    assert (found.order.order_id, found.order.status, found.client_id) == (numbers[leg], "CANCELED", "gone")
    assert said(engine) == [*((number, "CANCELED", None) for number in numbers), (1, "ALL_DONE")]
    assert engine.balances(1)["USDT"] == (10**15, 0)


def test_cancelling_a_list_by_its_ids():
    engine, outcome = opened("OCO", sell_pair())
    unknown = (-2011, "Unknown order list sent.")
    assert engine.cancel_list(2, BTC, START_US, list_id=1).error == unknown, "another's"
    assert engine.cancel_list(1, BTC, START_US, list_id=2).error == unknown
    assert engine.cancel_list(1, BTC, START_US, list_id=1, client_id="other").error == unknown
    assert engine.cancel_list(1, "NOTHING", START_US, list_id=1).error.code == -1121
    assert engine.cancel_list(1, BTC, START_US, list_id=1, new_client_id="é").error.code == -1100
    found = engine.cancel_list(1, BTC, START_US, client_id=outcome.view.client_id, new_client_id="both")
    assert [(one.client_id, one.order.status) for one in found.orders] == [("both", "CANCELED")] * 2
    assert found.view.status == "ALL_DONE"
    assert engine.cancel_list(1, BTC, START_US, list_id=1).error == unknown
    assert engine.order_list(1, list_id=1).status == "ALL_DONE"
    assert engine.order_list(2, list_id=1) == (-2018, "Order list does not exist.")


def test_cancelling_all_orders_cancels_lists_as_one():
    engine, _ = opened("OCO", sell_pair())
    engine.place(1, limit("BUY", 50, 1, client_id="alone"), START_US)
    engine.place_list(1, "OTO", [limit("BUY", 40, 1), limit("SELL", 300, 1)], START_US)
    found = engine.cancel_all(1, BTC, START_US)
    assert [len(getattr(one, "orders", "1")) for one in found] == [2, 1, 2]
    assert engine.open_orders(1) == engine.open_lists(1) == []
    assert engine.balances(1) == {"BTC": (10**15, 0), "USDT": (10**15, 0)}


def test_ids_of_lists_are_unique_while_open():
    engine = market()
    trade(engine, 100)
    assert engine.place_list(1, "OCO", sell_pair(), START_US, client_id="mine").view.client_id == "mine"
    duplicate = (-2010, "Duplicate order sent.")
    assert engine.place_list(1, "OCO", sell_pair(), START_US, client_id="mine").error == duplicate
    assert engine.place_list(1, "OCO", sell_pair(), START_US, client_id="a b").error.code == -1100
    same = [limit("BUY", 50, 1, client_id="x"), limit("SELL", 300, 1, client_id="x")]
    assert engine.place_list(1, "OTO", same, START_US).error == duplicate
    engine.cancel_list(1, BTC, START_US, client_id="mine")
    assert engine.place_list(1, "OCO", sell_pair(), START_US, client_id="mine").error is None


def test_pages_of_lists():
    engine = market()
    for number in range(5):
        orders = [limit("BUY", 50, 1), limit("SELL", 300, 1)]
        assert engine.place_list(1, "OTO", orders, START_US + number).error is None
    assert [one.list_id for one in engine.all_lists(1)] == [1, 2, 3, 4, 5]
    assert [one.list_id for one in engine.all_lists(1, limit=2)] == [4, 5]
    assert [one.list_id for one in engine.all_lists(1, from_id=2, limit=2)] == [2, 3]
    assert [one.list_id for one in engine.all_lists(1, start_us=START_US + 1, end_us=START_US + 2)] == [2, 3]
    assert engine.all_lists(2) == []
