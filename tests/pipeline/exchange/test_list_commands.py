"""Whether a list may be placed: its prices, and every filter at its limit."""

from __future__ import annotations

import msgspec
import pytest

from shrivenq.pipeline.exchange.engine import Engine
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, changed, limit, market
from tests.pipeline.exchange.lists_rig import BTC, sell_pair, trade


def verdict(engine, kind="OCO", orders=None, account=1):
    error = engine.place_list(account, kind, orders or sell_pair(), START_US).error
    return "" if error is None else error.msg.removeprefix("Filter failure: ")


@pytest.mark.parametrize(
    ("above", "below", "fits"),
    [(101, 99, True), (100, 99, False), (101, 100, False), (99, 98, False), (103, 102, False)],
)
def test_the_market_is_between_the_orders_of_a_pair(above, below, fits):
    engine = market()
    trade(engine, 100)
    error = engine.place_list(1, "OCO", sell_pair(above=above, below=below), START_US).error
    assert error == (None if fits else (-2010, "The relationship of the prices for the orders is not correct."))


def test_a_pending_pair_only_has_to_be_in_order():
    engine = market()
    trade(engine, 100)
    for above, below, fits in ((300, 200, True), (200, 200, False)):
        orders = [limit("BUY", 50, 5), *sell_pair(above=above, below=below)]
        assert (engine.place_list(1, "OTOCO", orders, START_US).error is None) == fits


def test_a_limit_order_of_a_pair_makes():
    engine = market()
    trade(engine, 100)
    engine.place(2, limit("BUY", 99, 1), START_US)
    engine.place(2, limit("SELL", 99, 1), START_US)
    engine.place(2, limit("BUY", 104, 1), START_US)
    error = engine.place_list(1, "OCO", sell_pair(above=104), START_US).error
    assert error == (-2010, "Order would immediately match and take.")


def test_how_many_lists_an_account_may_have():
    engine = market(order_lists_max=1)
    assert [verdict(engine), verdict(engine), verdict(engine, account=2)] == ["", "MAX_NUM_ORDER_LISTS", ""]
    engine.cancel_list(1, BTC, START_US, list_id=1)
    assert verdict(engine) == ""
    both = [PLAIN, changed(PLAIN, name="ETHUSDT", base="ETH")]
    engine = Engine(both, seed=1, order_lists_max=1)
    engine.open_account({"BTC": 10**12, "ETH": 10**12})
    assert verdict(engine) == ""
    elsewhere = [msgspec.structs.replace(one, symbol="ETHUSDT") for one in sell_pair()]
    assert verdict(engine, orders=elsewhere) == "EXCHANGE_MAX_NUM_ORDER_LISTS"


@pytest.mark.parametrize(("kind", "count"), [("OCO", 2), ("OTO", 2), ("OTOCO", 3)])
def test_every_order_of_a_list_counts(kind, count):
    orders = {
        "OCO": sell_pair(),
        "OTO": [limit("BUY", 50, 5), sell_pair()[1]],
        "OTOCO": [limit("BUY", 50, 5), *sell_pair()],
    }[kind]
    assert verdict(market(orders_max=count - 1), kind, orders) == "MAX_NUM_ORDERS"
    engine = market(orders_max=count, algo_orders_max=1)
    assert verdict(engine, kind, orders) == ""
    assert engine.test(1, limit("BUY", 50, 1), START_US).msg == "Filter failure: MAX_NUM_ORDERS"
    engine.set_limits(BTC, {"orders_max": 0})
    assert engine.test(1, sell_pair()[1], START_US).msg == "Filter failure: MAX_NUM_ALGO_ORDERS"
    engine.cancel_list(1, BTC, START_US, list_id=1)
    assert engine.test(1, sell_pair()[1], START_US) is None


def test_a_list_that_is_refused_leaves_nothing_behind():
    engine = market(orders_max=2)
    before = engine.exchange.counts.copy(), engine.balances(1)
    assert verdict(engine, "OTOCO", [limit("BUY", 50, 5), *sell_pair()]) == "MAX_NUM_ORDERS"
    assert (engine.exchange.counts == before[0]).all()
    assert engine.balances(1) == before[1]
    assert engine.take_events() == []


def test_more_lists_than_there_are_rows():
    engine = Engine([PLAIN], seed=1, orders_kept=8)
    engine.open_account({"BTC": 10**9, "USDT": 10**9})
    kept = engine.place_list(1, "OCO", sell_pair(), START_US).view
    for _ in range(30):
        view = engine.place_list(1, "OTO", [limit("BUY", 50, 1), limit("SELL", 300, 1)], START_US).view
        assert engine.cancel_list(1, BTC, START_US, list_id=view.list_id).error is None
    assert engine.order_list(1, list_id=kept.list_id) == kept
    assert [one.list_id for one in engine.open_lists(1)] == [kept.list_id]
    assert engine.all_lists(1)[-1].list_id == 31
