"""Stop orders at the paper venue: when they wait, when they trigger, and what they are then."""

from __future__ import annotations

import random

import pytest

from shrivenq.stages import messages as m
from shrivenq.stages import venue_market, venue_stops
from tests.stages.test_venue_market import enter, market_of
from tests.stages.venue_rig import VenueRig

BIDS, ASKS = [(1000, 10), (990, 20), (980, 30)], [(1010, 8), (1020, 6), (1030, 40)]
A, F, C, RJ, E = m.ACCEPTED, m.FILL, m.CANCELLED, m.REJECTED, m.EXPIRED
RISING = {(m.BUY, m.STOP_LOSS), (m.BUY, m.STOP_LOSS_LIMIT), (m.SELL, m.TAKE_PROFIT), (m.SELL, m.TAKE_PROFIT_LIMIT)}


@pytest.fixture
def rig():
    made = VenueRig()
    made.snapshot(BIDS, ASKS)
    return made


def stop(rig, side, order_type, stop_price, quantity=4, price=0, **fields):
    return rig.send(m.NEW, side, price, quantity, order_type=order_type, stop_price=stop_price, **fields)


def reason(report):
    return m.REASONS[report["reason"]]


@pytest.mark.parametrize("side", [m.BUY, m.SELL])
@pytest.mark.parametrize("order_type", [m.STOP_LOSS, m.STOP_LOSS_LIMIT, m.TAKE_PROFIT, m.TAKE_PROFIT_LIMIT])
def test_which_way_the_price_must_go(rig, side, order_type):
    rising = (side, order_type) in RISING
    price = 1000 + 30 * side if order_type in (m.STOP_LOSS_LIMIT, m.TAKE_PROFIT_LIMIT) else 0
    at, short = (1020, 1010) if rising else (980, 990)
    order = stop(rig, side, order_type, at, price=price)
    assert rig.said() == [(A, order, 0, 0)]
    rig.trade(short, 2, side)
    assert rig.said() == []
    rig.trade(at, 2, side)
    assert rig.said() == [(F, order, 4, 1010 if side == m.BUY else 1000)]


def test_a_stop_that_is_reached_already_is_refused(rig):
    order = stop(rig, m.BUY, m.STOP_LOSS, 10)
    assert rig.said() == [(A, order, 0, 0)]  # nothing has traded yet
    rig.trade(1000, 2, m.SELL)
    assert rig.said() == [(F, order, 4, 1010)]
    for side, order_type, stop_price in ((m.BUY, m.STOP_LOSS, 1000), (m.BUY, m.TAKE_PROFIT, 1000)):
        stop(rig, side, order_type, stop_price)
        (report,) = rig.settle()
        assert (report["kind"], reason(report)) == (RJ, "would_trigger")
    waiting = stop(rig, m.BUY, m.STOP_LOSS, 1010)
    assert rig.said() == [(A, waiting, 0, 0)]


def test_a_triggered_limit_rests_and_is_filled_like_any_other(rig):
    order = stop(rig, m.SELL, m.STOP_LOSS_LIMIT, 990, price=1040)
    assert rig.said() == [(A, order, 0, 0)]
    rig.trade(990, 2, m.SELL)
    assert rig.said() == []
    rig.trade(1050, 2, m.BUY)
    assert rig.said() == [(F, order, 4, 1040)]


def test_what_a_triggered_stop_cannot_take_expires(rig):
    order = stop(rig, m.BUY, m.STOP_LOSS, 1010, quantity=60)
    limited = stop(rig, m.BUY, m.STOP_LOSS_LIMIT, 1020, price=1020, tif=m.IOC)
    rig.settle()
    rig.trade(1010, 2, m.BUY)
    reports = rig.settle()
    assert [int(one["last_quantity"]) for one in reports] == [8, 6, 40, 0]
    assert (reports[-1]["order_id"], reason(reports[-1])) == (order, "no_liquidity")
    rig.trade(1020, 2, m.BUY)
    (report,) = rig.settle()
    assert (report["kind"], report["order_id"], reason(report)) == (E, limited, "unfilled")


def test_stops_trigger_in_order_of_price_then_age(rig):
    rig.trade(1005, 2, m.BUY)
    prices = (1030, 1020, 1030, 1010, 980)
    far, near, behind, nearest, falling = (
        stop(rig, m.BUY, m.TAKE_PROFIT if price == 980 else m.STOP_LOSS, price, quantity=2) for price in prices
    )
    rig.settle()
    rig.trade(1030, 2, m.BUY)
    assert [order for _, order, _, _ in rig.said()] == [nearest, near, far, behind]
    rig.trade(970, 2, m.SELL)
    assert {order for _, order, _, _ in rig.said()} == {falling}


def test_a_waiting_stop_is_cancelled_replaced_amended_and_asked_about(rig):
    rig.trade(1000, 2, m.SELL)
    first = stop(rig, m.SELL, m.STOP_LOSS, 980, quantity=8)
    rig.send(m.AMEND, target_id=first, quantity=6)
    rig.send(m.QUERY, target_id=first, order_id=first)
    successor = rig.send(m.REPLACE, m.SELL, 0, 6, order_type=m.STOP_LOSS, stop_price=970, target_id=first)
    reports = rig.settle()
    assert [int(one["kind"]) for one in reports] == [A, m.AMENDED, A, m.REPLACED]
    assert [int(one["quantity"]) for one in reports] == [8, 6, 6, 6]
    rig.trade(980, 2, m.SELL)
    assert rig.said() == []
    cancel = rig.send(m.CANCEL, target_id=successor)
    assert rig.said() == [(C, cancel, 0, 0)]
    rig.trade(900, 2, m.SELL)
    assert rig.said() == []
    assert rig.context.market.words[venue_market.OPEN_COUNT] == 0


def test_a_book_that_is_not_whole_lets_stops_wait(rig):
    order = stop(rig, m.BUY, m.STOP_LOSS, 1010)
    assert rig.said() == [(A, order, 0, 0)]
    rig.tick(kind=m.TIMER, flags=m.GAP)
    rig.tick(kind=m.END)
    rig.trade(1010, 2, m.BUY)
    assert rig.said() == []
    rig.snapshot(BIDS, [(1050, 8)])
    assert rig.said() == [(F, order, 4, 1050)]


def test_filters_of_stop_prices(rig):
    for fields, expected in (
        ({"stop_price": 1011}, "tick_size"),
        ({"stop_price": 0}, "price_range"),
        ({"stop_price": 1010, "self_trade": 7}, "malformed"),
        ({"stop_price": 1010, "price": 7, "order_type": m.STOP_LOSS_LIMIT}, "price_range"),
    ):
        rig.send(**({"kind": m.NEW, "side": m.BUY, "order_type": m.STOP_LOSS} | fields))
        assert [reason(one) for one in rig.settle()] == [expected], fields


@pytest.mark.parametrize("seed", range(3))
def test_lists_are_sorted_lists(seed):
    chance = random.Random(seed)
    market = market_of()
    twin = {(i, rising): [] for i in (0, 1) for rising in (True, False)}
    for number in range(1, 500):
        everything = [(key, row) for key, rows in twin.items() for row in rows]
        if everything and (len(everything) > 30 or chance.random() < 0.45):
            key, row = chance.choice(everything)
            twin[key].remove(row)
            venue_stops.withdraw(market, row)
            venue_market.close(market, row, venue_market.CANCELLED)
        else:
            i, side, order_type = chance.randrange(2), chance.choice((m.BUY, m.SELL)), chance.randrange(4, 8)
            row = enter(market, number, i, side)
            market.orders[row]["order_type"], market.orders[row]["stop_price"] = order_type, chance.randrange(90, 99)
            rising = (side, order_type) in RISING
            assert venue_stops.waits_for_rise(side, order_type) == rising
            venue_stops.wait(market, row)
            twin[i, rising].append(row)
            way = 1 if rising else -1
            twin[i, rising].sort(key=lambda row: (int(market.orders[row]["stop_price"]) * way, twin_age(market, row)))
        for (i, rising), rows in twin.items():
            found, row = [], int(market.stops[i]["rising" if rising else "falling"])
            while row != venue_market.NONE:
                found.append(row)
                row = int(market.orders[row]["next"])
            assert found == rows, f"seed {seed}, order {number}"


def twin_age(market, row):
    return int(market.orders[row]["order_id"])
