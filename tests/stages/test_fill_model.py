"""The fill models against a simulation of them in lists and dicts, order by order."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shrivenq.stages import fill_model, order_book, venue_market, venue_prevention
from shrivenq.stages import messages as m
from shrivenq.stages.order_book import ASK, BID
from tests.stages.naive_fills import Naive
from tests.stages.venue_rig import VenueRig, currencies, instruments_of

BUY, SELL = m.BUY, m.SELL


class Fast:
    """The same market in kernels."""

    def __init__(self, model):
        instruments = instruments_of()
        books = order_book.make_books(instruments, 64, 256)
        self.market = venue_market.make_market(
            instruments, currencies(), books, fill_model.MODELS[model], 0, count=1 << 10
        )

    def level(self, side, price, quantity):
        row = BID if side == BUY else ASK
        previous = order_book.quantity_at(self.market.books, 0, row, price)
        fill_model.on_level(self.market, 0, row, price, previous, quantity)
        order_book.set_level(self.market.books, 0, row, price, quantity)

    def event_end(self):
        fill_model.on_event_end(self.market, 0, 0)

    def trade(self, price, quantity, aggressor):
        fill_model.on_trade(self.market, 0, price, quantity, aggressor == SELL, 0)

    def order(self, order_id, side, price, quantity, order_type, tif):
        row = venue_market.enter(self.market, order_id)
        order = self.market.orders[row : row + 1]
        order["instrument"], order["side"], order["price"], order["quantity"] = 0, side, price, quantity
        order["order_type"], order["time_in_force"] = order_type, tif
        venue_prevention.take(self.market, row, 0)
        if order["state"] == venue_market.OPEN:
            if order_type == m.LIMIT and tif == m.GTC:
                venue_market.rest(self.market, row)
            else:
                venue_market.close(self.market, row, venue_market.EXPIRED)

    @property
    def fills(self):
        found = []
        for at in range(1, int(self.market.words[venue_market.NEXT_TRADE])):
            one = self.market.trades[at]
            found.append((int(one["order_id"]), int(one["price"]), int(one["quantity"]), bool(one["flags"] & m.MAKER)))
        return found


def random_event(chance, fast, naive, number):
    """Let the same thing happen in both markets."""
    price = 1000 + 10 * chance.randrange(-6, 7)
    action = chance.random()
    side = chance.choice((BUY, SELL))
    if action < 0.45:
        # The feed's book is never crossed, whatever our orders do.
        best = min(naive.levels[SELL], default=10**6) if side == BUY else max(naive.levels[BUY], default=0)
        if (best - price) * side > 0:
            quantity = chance.choice((0, chance.randrange(1, 40)))
            fast.level(side, price, quantity)
            naive.level(side, price, quantity)
            if chance.random() < 0.7:
                fast.event_end()
                naive.event_end()
    elif action < 0.75:
        fast.trade(price, number % 30 + 1, side)
        naive.trade(price, number % 30 + 1, side)
    else:
        order_type = chance.choice((m.LIMIT, m.LIMIT, m.LIMIT, m.MARKET))
        tif = chance.choice((m.GTC, m.GTC, m.IOC, m.FOK))
        arguments = (number + 1, side, price, chance.randrange(1, 50), order_type, tif)
        fast.order(*arguments)
        naive.order(*arguments)


@pytest.mark.parametrize("model", fill_model.MODELS)
@pytest.mark.parametrize("seed", range(4))
def test_models_are_their_slow_twins(model, seed):
    chance = random.Random(seed)
    fast, naive = Fast(model), Naive(model)
    for number in range(600):
        random_event(chance, fast, naive, number)
        assert len(fast.fills) == len(naive.fills), f"{model}, seed {seed}, event {number}"
    assert fast.fills == naive.fills, f"{model}, seed {seed}"
    assert len(fast.fills) > 50, f"{model}, seed {seed}"
    for side, row in ((BUY, BID), (SELL, ASK)):
        for price in range(900, 1100, 10):
            found = order_book.quantity_at(fast.market.books, 0, row, price)
            assert found == naive.levels[side].get(price, 0), f"{model}, seed {seed}"


def market(model="queue", bid=20):
    fast = Fast(model)
    fast.level(BUY, 1000, bid)
    fast.level(SELL, 1010, 20)
    return fast


def maker(fast):
    return [(order, quantity) for order, _, quantity, is_maker in fast.fills if is_maker]


def test_the_queue_ahead_is_consumed_first():
    fast = market()
    fast.order(1, BUY, 1000, 10, m.LIMIT, m.GTC)
    fast.trade(1000, 19, SELL)
    assert maker(fast) == []
    fast.trade(1000, 1, SELL)
    assert maker(fast) == []
    fast.trade(1000, 3, SELL)
    fast.trade(1000, 30, SELL)
    assert maker(fast) == [(1, 3), (1, 7)]


def test_reductions_count_only_beyond_what_was_traded():
    fast = market()
    fast.order(1, BUY, 1000, 10, m.LIMIT, m.GTC)
    fast.trade(1000, 8, SELL)  # 12 ahead
    fast.level(BUY, 1000, 12)  # that very trade
    fast.trade(1000, 12, SELL)
    assert maker(fast) == []
    fast.level(BUY, 1000, 0)
    fast.trade(1000, 1, SELL)
    assert maker(fast) == [(1, 1)]

    fast = market()
    fast.order(1, BUY, 1000, 10, m.LIMIT, m.GTC)
    fast.trade(1000, 8, SELL)
    fast.level(BUY, 1000, 7)  # five were cancelled
    fast.trade(1000, 8, SELL)
    assert maker(fast) == [(1, 1)]


def test_who_joins_behind_stays_behind():
    fast = market()
    fast.order(1, BUY, 1000, 10, m.LIMIT, m.GTC)
    fast.level(BUY, 1000, 50)
    fast.trade(1000, 22, SELL)
    assert maker(fast) == [(1, 2)]


def test_one_trade_fills_our_orders_in_line_and_once():
    fast = market(bid=5)
    fast.order(1, BUY, 1000, 4, m.LIMIT, m.GTC)
    fast.level(BUY, 1000, 8)
    fast.order(2, BUY, 1000, 4, m.LIMIT, m.GTC)
    # 5 of the market, 4 of ours, 3 of the market, then the second order.
    fast.trade(1000, 14, SELL)
    assert maker(fast) == [(1, 4), (2, 2)]


def test_buyers_do_not_advance_a_queue_of_buyers():
    fast = market(bid=0)
    fast.order(1, BUY, 1000, 4, m.LIMIT, m.GTC)
    fast.trade(1000, 100, BUY)
    assert maker(fast) == []


def test_a_trade_beyond_and_a_crossed_book_fill_everything():
    for model in fill_model.MODELS:
        fast = market(model)
        fast.order(1, BUY, 1000, 10, m.LIMIT, m.GTC)
        fast.trade(990, 1, SELL)
        assert fast.fills == [(1, 1000, 10, True)], model
        fast = market(model)
        fast.order(1, BUY, 1000, 10, m.LIMIT, m.GTC)
        fast.level(BUY, 1000, 0)
        fast.level(SELL, 1000, 1)
        fast.event_end()
        assert fast.fills == [(1, 1000, 10, True)], model


def test_models_differ_at_the_price():
    found = {}
    for model in fill_model.MODELS:
        fast = market(model)
        fast.order(1, BUY, 1000, 10, m.LIMIT, m.GTC)
        fast.trade(1000, 24, SELL)
        found[model] = sum(quantity for _, quantity in maker(fast))
    assert found == {"queue": 4, "trade_through": 0, "touch": 10}


def test_deep_walks_see_every_level():
    fast = Fast("queue")
    for i in range(200):
        fast.level(SELL, 1010 + 10 * i, 1)
    fast.order(1, BUY, 10_000, 150, m.LIMIT, m.FOK)
    fast.order(2, BUY, 10_000, 51, m.LIMIT, m.FOK)
    fast.order(3, BUY, 0, 60, m.MARKET, m.IOC)
    assert [price for order, price, _, _ in fast.fills if order == 1] == [1010 + 10 * i for i in range(150)]
    assert sum(quantity for order, _, quantity, _ in fast.fills if order == 2) == 0
    assert sum(quantity for order, _, quantity, _ in fast.fills if order == 3) == 50


def test_a_new_snapshot_only_shortens_a_queue():
    rig = VenueRig()
    rig.snapshot([(1000, 20)], [(1010, 5)])
    rig.buy(1000, 10)
    rig.settle()
    for size, ahead in ((30, 20), (8, 8)):
        rig.snapshot([(1000, size)], [(1010, 5)])
        assert rig.context.market.orders["ahead"][0] == ahead


def test_no_level_and_no_order_is_touched_elsewhere():
    instruments = instruments_of(3)
    books = order_book.make_books(instruments, 64, 64)
    made = venue_market.make_market(instruments, currencies(), books, fill_model.QUEUE, 0, count=16)
    for i in range(3):
        row = venue_market.enter(made, i + 1)
        made.orders[row]["instrument"], made.orders[row]["side"] = i, BUY
        made.orders[row]["price"], made.orders[row]["quantity"] = 1000, 4
        venue_market.rest(made, row)
    fill_model.on_trade(made, 1, 990, 1, True, 0)
    assert made.orders["filled"][:3].tolist() == [0, 4, 0]
    assert np.count_nonzero(made.trades["order_id"]) == 1
