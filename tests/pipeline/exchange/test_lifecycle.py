"""Rows of orders: begun, counted, closed, and used again."""

from __future__ import annotations

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.engine import Engine
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, limit, order


def small():
    engine = Engine([PLAIN], seed=1, orders_kept=4)
    for _ in range(2):
        engine.open_account({"BTC": 10**12, "USDT": 10**12})
    return engine


def test_closed_orders_are_remembered_until_their_row_is_needed():
    engine = small()
    for number in range(1, 7):
        engine.place(1, limit("BUY", 100, number, client_id=f"order-{number}"), START_US)
        engine.cancel(1, PLAIN.name, START_US, order_id=number)
    assert [one.quantity for one in engine.all_orders(1, PLAIN.name)] == [3, 4, 5, 6]
    assert engine.order(1, PLAIN.name, order_id=2).code == -2013
    assert engine.order(1, PLAIN.name, client_id="order-2").code == -2013
    assert engine.order(1, PLAIN.name, client_id="order-3").order_id == 3


def test_open_orders_are_never_forgotten():
    engine = small()
    for _ in range(4):
        assert engine.place(1, limit("BUY", 100, 1), START_US).error is None
    assert engine.place(1, limit("BUY", 100, 1), START_US).error.msg == "Filter failure: EXCHANGE_MAX_NUM_ORDERS"
    engine.cancel(1, PLAIN.name, START_US, order_id=2)
    assert engine.place(1, limit("BUY", 100, 1), START_US).order.order_id == 5
    assert [one.order_id for one in engine.open_orders(1)] == [1, 3, 4, 5]


def test_counts_follow_every_way_an_order_can_end():
    engine = small()
    counts, account = engine.exchange.counts[1, 0], engine.exchange.accounts[1]

    def counted():
        return tuple(int(counts[name]) for name in ("orders", "algo_orders", "buying")), int(account["orders"])

    engine.place(1, limit("BUY", 100, 10), START_US)
    engine.place(1, order("BUY", "STOP_LOSS", stop_price=200, quantity=5), START_US)
    assert counted() == ((2, 1, 15), 2)
    engine.place(2, limit("SELL", 100, 4), START_US)
    assert counted() == ((2, 1, 11), 2)
    engine.amend(1, PLAIN.name, START_US, order_id=1, new_quantity=7)
    assert counted() == ((2, 1, 8), 2)
    engine.cancel(1, PLAIN.name, START_US, order_id=2)
    assert counted() == ((1, 0, 3), 1)
    engine.place(2, limit("SELL", 100, 3), START_US)
    assert counted() == ((0, 0, 0), 0)
    engine.place(1, limit("BUY", 50, 10, time_in_force="IOC"), START_US)
    assert counted() == ((0, 0, 0), 0)


def test_times_of_an_order():
    engine = small()
    engine.place(1, limit("BUY", 100, 10), START_US)
    engine.place(2, limit("SELL", 100, 4), START_US + 7)
    one = engine.order(1, PLAIN.name, order_id=1)
    assert (one.created_us, one.working_us, one.updated_us) == (START_US, START_US, START_US + 7)


def test_strategy_ids_are_kept_and_absent_ones_are_absent():
    engine = small()
    one = engine.place(1, limit("BUY", 100, 1, strategy_id=-7, strategy_type=1_000_000), START_US).order
    assert (one.strategy_id, one.strategy_type) == (-7, 1_000_000)
    one = engine.place(1, limit("BUY", 100, 1), START_US).order
    assert (one.strategy_id, one.strategy_type) == (None, None)


def test_every_change_has_an_execution_id_of_its_own():
    engine = small()
    engine.place(1, limit("BUY", 100, 10), START_US)
    engine.place(2, limit("SELL", 100, 4), START_US)
    ids = [one.execution_id for one in engine.take_events() if hasattr(one, "execution_id")]
    assert ids == list(range(1, len(ids) + 1))
    assert engine.exchange.words[s.EXECUTION_ID] == len(ids)
