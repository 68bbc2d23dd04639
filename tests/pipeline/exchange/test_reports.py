"""What the world is told: trades, the touch, levels and the average price."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from shrivenq.pipeline.exchange.types import BalanceEvent, OrderEvent, TickerEvent, TradeEvent
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, Mirror, limit, market, order

MINUTE = 60_000_000


def of(kind, events):
    return [one for one in events if isinstance(one, kind)]


def test_a_trade_is_told_before_what_it_did_to_orders_and_balances():
    engine = market()
    engine.place(1, limit("BUY", 100, 5), START_US)
    engine.take_events()
    engine.place(2, limit("SELL", 100, 2), START_US)
    events = engine.take_events()
    names = [type(one).__name__ for one in events]
    assert names == [
        "OrderEvent", "BalanceEvent", "TradeEvent", "OrderEvent", "BalanceEvent", "OrderEvent", "BalanceEvent",
        "TickerEvent", "DepthEvent",
    ]  # fmt: skip
    assert of(TradeEvent, events) == [TradeEvent(PLAIN.name, 1, 100, 2, True, START_US)]
    assert [one.fill.is_maker for one in of(OrderEvent, events) if one.fill] == [True, False]
    last = {one.account: one.balances for one in of(BalanceEvent, events)}
    for account, balances in last.items():
        assert {name: (free, locked) for name, free, locked in balances} == engine.balances(account)


def test_the_touch_is_told_when_it_changed_and_only_then():
    engine = market()
    for price, quantity in ((100, 5), (99, 5), (101, 5)):
        engine.place(1, limit("BUY", price, quantity), START_US)
    shown = [(one.bid, one.bid_quantity, one.ask) for one in of(TickerEvent, engine.take_events())]
    assert shown == [(100, 5, 0), (101, 5, 0)]
    engine.place(2, limit("SELL", 101, 2), START_US)
    (one,) = of(TickerEvent, engine.take_events())
    assert (one.bid, one.bid_quantity) == (101, 3)
    assert one.update_id == engine.depth(PLAIN.name).last_update_id
    assert engine.book_ticker(PLAIN.name) == (PLAIN.name, one.update_id, 101, 3, 0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_depth_events_have_no_gaps_and_rebuild_the_book(seed):
    draw = random.Random(seed)
    engine = market(accounts=3)
    mirror = Mirror(engine, PLAIN.name)
    for _ in range(300):
        account, roll = draw.randint(1, 3), draw.random()
        if roll < 0.7:
            side = draw.choice(["BUY", "SELL"])
            engine.place(account, limit(side, draw.randint(95, 105), draw.randint(1, 9)), START_US)
        elif roll < 0.9:
            engine.cancel(account, PLAIN.name, START_US, order_id=draw.randint(1, 200))
        else:
            engine.cancel_all(account, PLAIN.name, START_US)
        if draw.random() < 0.3:
            mirror.apply(engine.take_events())
            mirror.check()


def test_a_level_that_changes_sides_is_told_on_both():
    engine = market()
    engine.place(1, limit("BUY", 100, 5), START_US)
    engine.take_events()
    engine.place(2, limit("SELL", 100, 8), START_US)
    event = engine.take_events()[-1]
    assert (event.bids, event.asks) == (((100, 0),), ((100, 3),))


def test_the_average_price_weighs_the_last_minutes():
    engine = market(average_minutes=2)
    assert engine.average_price(PLAIN.name) == (2, 0)
    for minute, price, quantity in ((0, 100, 10), (1, 200, 30), (2, 400, 60)):
        now_us = START_US + minute * MINUTE
        engine.place(1, limit("SELL", price, quantity), now_us)
        engine.place(2, limit("BUY", price, quantity), now_us)
        if minute == 1:
            assert engine.average_price(PLAIN.name) == (2, (1_000 + 6_000) // 40)
    assert engine.average_price(PLAIN.name) == (2, (6_000 + 24_000) // 90)
    engine.advance(START_US + 10 * MINUTE)
    assert engine.average_price(PLAIN.name) == (2, 400)


def test_trade_ids_and_execution_ids_only_grow():
    engine = market()
    for _ in range(20):
        engine.place(1, limit("SELL", 100, 1), START_US)
        engine.place(2, order("BUY", "MARKET", quantity=1), START_US)
    events = engine.take_events()
    assert [one.trade_id for one in of(TradeEvent, events)] == list(range(1, 21))
    ids = [one.execution_id for one in of(OrderEvent, events)]
    assert all(one < other for one, other in pairwise(ids))
