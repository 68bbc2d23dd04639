"""What follows for the other orders of a list when one of them trades, is triggered, or ends."""

from __future__ import annotations

import pytest

from tests.pipeline.exchange.engine_rig import START_US, limit, market, order
from tests.pipeline.exchange.lists_rig import BTC, opened, said, sell_pair, trade


def test_the_first_trade_of_one_is_the_end_of_the_other():
    engine, outcome = opened("OCO", sell_pair())
    one, other = (found.order.order_id for found in outcome.orders)
    assert [found.order.list_id for found in outcome.orders] == [1, 1]
    engine.place(2, limit("BUY", 110, 2), START_US)
    assert said(engine) == [(other, "EXPIRED", "OCO_TRIGGER"), (one, "TRADE", None)]
    assert engine.balances(1)["BTC"][1] == 3_000
    engine.place(2, limit("BUY", 110, 3), START_US)
    assert said(engine) == [(one, "TRADE", None), (1, "ALL_DONE")]
    assert engine.open_lists(1) == []
    assert [fill.list_id for fill in engine.my_trades(1, BTC)] == [1, 1]


def test_what_triggers_one_takes_the_other_off_the_book():
    engine, outcome = opened("OCO", sell_pair())
    one, other = (found.order.order_id for found in outcome.orders)
    engine.place(2, limit("BUY", 80, 5), START_US)
    trade(engine, 90)
    assert said(engine) == [
        (one, "EXPIRED", "OCO_TRIGGER"),
        (other, "NEW", None),
        (other, "TRADE", None),
        (1, "ALL_DONE"),
    ]
    assert engine.depth(BTC).asks == []
    assert engine.balances(1)["BTC"][1] == 0


def test_two_stops_are_a_pair_too_and_one_may_trail():
    pair = [
        order("SELL", "TAKE_PROFIT_LIMIT", time_in_force="GTC", price=500, stop_price=110, quantity=5),
        order("SELL", "STOP_LOSS", trailing_delta=500, quantity=5),
    ]
    engine, outcome = opened("OCO", pair)
    trade(engine, 104)
    trade(engine, 99)
    assert said(engine) == []
    trade(engine, 98)
    assert said(engine)[0] == (outcome.orders[0].order.order_id, "EXPIRED", "OCO_TRIGGER")


@pytest.mark.parametrize(("below", "locked"), [(90, 110 * 5 * 10), (130, 130 * 5 * 10)])
def test_a_pair_locks_what_the_dearer_needs(below, locked):
    pair = [
        order("BUY", "STOP_LOSS_LIMIT", time_in_force="GTC", stop_price=105, price=below, quantity=5),
        order("BUY", "TAKE_PROFIT_LIMIT", time_in_force="GTC", stop_price=95, price=110, quantity=5),
    ]
    engine, outcome = opened("OCO", pair)
    assert engine.balances(1)["USDT"][1] == locked
    number = outcome.orders[0].order.order_id
    assert engine.amend(1, BTC, START_US, order_id=number, new_quantity=2).error is None
    assert engine.balances(1)["USDT"][1] == locked * 2 // 5
    assert [one.quantity for one in engine.open_orders(1)] == [2, 2], "a pair has one quantity"
    assert said(engine) == [(number + 1, "REPLACED", None), (number, "REPLACED", None), (1, "UPDATED")]
    trade(engine, 105)
    assert engine.balances(1)["USDT"][1] == below * 2 * 10


def test_prevention_of_one_is_the_end_of_the_other():
    engine, outcome = opened("OCO", sell_pair())
    engine.place(1, limit("BUY", 110, 2, stp="DECREMENT"), START_US)
    found = said(engine)
    assert (outcome.orders[1].order.order_id, "EXPIRED", "OCO_TRIGGER") in found
    assert engine.balances(1)["BTC"][1] == 3_000


def test_pending_orders_begin_when_the_working_order_is_filled():
    engine, outcome = opened("OTO", [limit("BUY", 95, 5), limit("SELL", 120, 5)])
    working, pending = (found.order for found in outcome.orders)
    assert (working.status, pending.status, pending.working_us) == ("NEW", "PENDING_NEW", 0)
    assert engine.balances(1) == {"BTC": (10**15, 0), "USDT": (10**15 - 95 * 50, 95 * 50)}
    assert [one.status for one in engine.open_orders(1)] == ["NEW", "PENDING_NEW"]
    engine.place(2, limit("SELL", 95, 2), START_US)
    assert engine.order(1, BTC, order_id=pending.order_id).status == "PENDING_NEW"
    engine.take_events()
    engine.place(2, limit("SELL", 95, 3), START_US)
    assert said(engine) == [(working.order_id, "TRADE", None), (pending.order_id, "NEW", None)]
    assert engine.depth(BTC).asks == [(120, 5)]
    assert engine.open_lists(1)[0].contingency == "OTO"


def test_pending_orders_expire_when_the_working_order_does():
    orders = [limit("BUY", 95, 5, time_in_force="IOC"), *sell_pair()]
    engine = market()
    outcome = engine.place_list(1, "OTOCO", orders, START_US)
    numbers = [one.order.order_id for one in outcome.orders]
    assert said(engine)[3:] == [
        (1, "EXEC_STARTED"),
        (numbers[0], "EXPIRED", "UNFILLED_IOC_QUANTITY_EXPIRED"),
        (numbers[1], "EXPIRED", "OTO_PHASE_ONE_EXPIRED"),
        (numbers[2], "EXPIRED", "OTO_PHASE_ONE_EXPIRED"),
        (1, "ALL_DONE"),
    ]


PENDING = {
    "would trigger": order("SELL", "STOP_LOSS", stop_price=200, quantity=5),
    "would match": order("SELL", "LIMIT_MAKER", price=50, quantity=5),
    "too dear": limit("BUY", 60_000, 10**11),
}


@pytest.mark.parametrize("name", PENDING)
def test_a_pending_order_that_cannot_begin_expires(name):
    engine, outcome = opened("OTO", [limit("BUY", 95, 5), PENDING[name]])
    engine.place(2, limit("BUY", 60, 1), START_US)
    engine.place(2, limit("SELL", 95, 5), START_US)
    pending = engine.order(1, BTC, order_id=outcome.orders[1].order.order_id)
    assert (pending.status, pending.expiry_reason) == ("EXPIRED", "REJECTED")
    assert engine.open_lists(1) == []
    assert engine.balances(1)["USDT"][1] == engine.balances(1)["BTC"][1] == 0


def test_a_pending_market_order_and_one_that_is_amended():
    engine, outcome = opened("OTO", [limit("BUY", 95, 5), order("SELL", "MARKET", quantity=5)])
    pending = outcome.orders[1].order.order_id
    assert engine.amend(1, BTC, START_US, order_id=pending, new_quantity=3).error is None
    assert engine.balances(1)["BTC"][1] == 0
    engine.place(2, limit("BUY", 80, 9), START_US)
    engine.place(2, limit("SELL", 95, 5), START_US)
    one = engine.order(1, BTC, order_id=pending)
    assert (one.status, one.executed) == ("FILLED", 3)
