"""The queue that accounts' orders wait in, behind what a capture says rests there."""

from __future__ import annotations

import random

import pytest

from shrivenq.pipeline.exchange import captured_market, commands
from shrivenq.pipeline.exchange.types import OrderEvent, TradeEvent
from shrivenq.stages.messages import BUY, SELL
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, Mirror, limit, market, order


def told(engine):
    """Take what the market did out of the kernels, and list (order id, price, quantity) of fills."""
    commands.settle_down(engine.exchange, 0)
    engine.advance(START_US)
    events = engine.take_events()
    fills = [one.fill for one in events if isinstance(one, OrderEvent) and one.fill]
    return [(one.order_id, one.price, one.quantity) for one in fills], events


def set_level(engine, side, price, quantity):
    captured_market.set_level(engine.exchange, 0, side, price, quantity)


def trade(engine, price, quantity, taker_side):
    captured_market.trade(engine.exchange, 0, price, quantity, taker_side)


def test_an_order_waits_for_what_was_there_and_not_for_what_came_later():
    engine = market()
    set_level(engine, BUY, 100, 50)
    engine.place(1, limit("BUY", 100, 10), START_US)
    set_level(engine, BUY, 100, 80)
    engine.take_events()
    trade(engine, 100, 45, SELL)
    assert told(engine)[0] == []
    trade(engine, 100, 8, SELL)
    fills, events = told(engine)
    assert fills == [(1, 100, 3)]
    # The trade of 8 went to the 5 in front and then to us.
    assert [one.quantity for one in events if isinstance(one, TradeEvent)] == [5, 3]
    trade(engine, 100, 20, SELL)
    assert told(engine)[0] == [(1, 100, 7)]


def test_a_level_that_shrinks_brings_us_forward():
    engine = market()
    set_level(engine, SELL, 100, 50)
    engine.place(1, limit("SELL", 100, 10), START_US)
    set_level(engine, SELL, 100, 20)
    assert engine.depth(PLAIN.name).asks == [(100, 30)]
    trade(engine, 100, 25, BUY)
    assert told(engine)[0] == [(1, 100, 5)]
    set_level(engine, SELL, 100, 0)
    assert engine.depth(PLAIN.name).asks == [(100, 5)]


@pytest.mark.parametrize(("side", "taker", "beyond"), [("BUY", SELL, 99), ("SELL", BUY, 101)])
@pytest.mark.parametrize("part", [None, 3])
def test_a_trade_beyond_our_price_fills_all_of_it_at_our_price(side, taker, beyond, part):
    engine = market(iceberg_parts_max=10)
    set_level(engine, -taker, 100, 50)
    engine.place(1, limit(side, 100, 10, iceberg_quantity=part), START_US)
    engine.take_events()
    trade(engine, beyond, 1, taker)
    fills, events = told(engine)
    assert fills == [(1, 100, 10)]
    assert [one.price for one in events if isinstance(one, TradeEvent)] == [100, beyond]
    assert engine.last_price(PLAIN.name) == beyond


@pytest.mark.parametrize(("side", "other"), [("BUY", SELL), ("SELL", BUY)])
def test_a_level_that_crosses_our_price_fills_all_of_it(side, other):
    engine = market()
    engine.place(1, limit(side, 100, 10), START_US)
    engine.place(1, limit(side, 90 if side == "BUY" else 110, 10), START_US)
    engine.take_events()
    set_level(engine, other, 100, 3)
    assert told(engine)[0] == [(1, 100, 10)]
    view = engine.depth(PLAIN.name)
    assert [(100, 3)] in (view.bids, view.asks)


def test_what_we_take_is_gone_until_the_level_is_set_again():
    engine = market()
    set_level(engine, SELL, 100, 50)
    assert engine.place(1, order("BUY", "MARKET", quantity=20), START_US).order.status == "FILLED"
    assert engine.depth(PLAIN.name).asks == [(100, 30)]
    set_level(engine, SELL, 100, 50)
    assert engine.depth(PLAIN.name).asks == [(100, 50)]


def test_the_markets_own_levels_give_way_to_what_crosses_them():
    engine = market()
    set_level(engine, BUY, 100, 5)
    set_level(engine, BUY, 99, 5)
    set_level(engine, SELL, 99, 7)
    view = engine.depth(PLAIN.name)
    assert (view.bids, view.asks) == ([], [(99, 7)])
    assert [one for one in told(engine)[1] if isinstance(one, TradeEvent)] == []


def test_a_trade_the_book_knew_of_is_told_all_the_same():
    engine = market()
    trade(engine, 100, 7, BUY)
    (one,) = [one for one in told(engine)[1] if isinstance(one, TradeEvent)]
    assert (one.price, one.quantity, one.buyer_is_maker, one.trade_id) == (100, 7, False, 1)


def test_prices_beyond_the_ladder_are_left_out():
    engine = market(tick=5)
    for price in (1, 7, 1 << 40):
        set_level(engine, BUY, price, 5)
        trade(engine, price, 5, SELL)
    assert engine.depth(PLAIN.name).bids == []


@pytest.mark.parametrize("seed", range(4))
def test_the_market_and_the_accounts_side_by_side(seed):
    draw = random.Random(seed)
    engine = market(accounts=2, maker_fee=100_000, taker_fee=100_000)
    mirror = Mirror(engine, PLAIN.name)
    levels = {}

    def total(asset):
        at = list(engine.assets).index(asset)
        row = engine.exchange.balances[:, at]
        return int(row["free"].sum() + row["locked"].sum() + engine.exchange.fees[at])

    before = [total(asset) for asset in engine.assets]
    for _ in range(400):
        roll = draw.random()
        side = draw.choice([BUY, SELL])
        price = draw.randint(94, 100) if side == BUY else draw.randint(101, 107)
        if roll < 0.5:
            quantity = draw.choice([0, draw.randint(1, 50)])
            set_level(engine, side, price, quantity)
            levels[side, price] = quantity
        elif roll < 0.75:
            trade(engine, price, draw.randint(1, 30), -side)
        else:
            engine.place(draw.randint(1, 2), limit("BUY" if side == BUY else "SELL", price, 5), START_US)
        mirror.apply(told(engine)[1])
        mirror.check()
        orders = [one for account in (1, 2) for one in engine.open_orders(account)]
        for one in orders:
            assert one.leaves > 0
        # Nobody ever has less at a level than the accounts' orders there.
        view = engine.depth(PLAIN.name, 100)
        shown = {(BUY, price): quantity for price, quantity in view.bids}
        shown |= {(SELL, price): quantity for price, quantity in view.asks}
        for one in orders:
            assert shown[BUY if one.side == "BUY" else SELL, one.price] >= one.leaves, seed
    assert [total(asset) for asset in engine.assets] == before
    for account in (1, 2):
        engine.cancel_all(account, PLAIN.name, START_US)
    for (side, price), quantity in levels.items():
        set_level(engine, side, price, quantity)
    told(engine)
    view = engine.depth(PLAIN.name, 100)
    wanted = {key: quantity for key, quantity in levels.items() if quantity}
    assert view.bids == sorted(((p, q) for (side, p), q in wanted.items() if side == BUY), reverse=True), seed
    assert view.asks == sorted((p, q) for (side, p), q in wanted.items() if side == SELL), seed


def test_a_trade_of_the_capture_with_one_of_a_pair_is_the_end_of_the_other():
    engine = market()
    trade(engine, 100, 1, SELL)
    pair = [order("SELL", "LIMIT_MAKER", price=110, quantity=9), order("SELL", "STOP_LOSS", stop_price=90, quantity=9)]
    assert engine.place_list(1, "OCO", pair, START_US).error is None
    trade(engine, 110, 4, BUY)
    assert told(engine)[0] == [(1, 110, 4)]
    assert [one.status for one in engine.open_orders(1)] == ["PARTIALLY_FILLED"]
    assert engine.order(1, PLAIN.name, order_id=2).expiry_reason == "OCO_TRIGGER"
    assert engine.balances(1)["BTC"][1] == 5_000
