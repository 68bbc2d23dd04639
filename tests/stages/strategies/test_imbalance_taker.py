"""The imbalance taker, on books and reports made by hand."""

from __future__ import annotations

import random

import pytest

from shrivenq.stages import messages as m
from shrivenq.stages.strategies import imbalance_taker
from tests.stages.strategies.desk import INSTRUMENT, Desk

COOLDOWN = 1000


def make(position_max=10, threshold=60, quantity=2):
    return Desk(
        imbalance_taker,
        quantity=quantity,
        position_max=position_max,
        threshold_percent=threshold,
        cooldown_ns=COOLDOWN,
    )


def heavy(side):
    """A book that outweighs on one side, at 100 : 110."""
    bid, ask = (90, 10) if side == m.BUY else (10, 90)
    return [(100, bid)], [(110, ask)]


def end(desk, kind, order, quantity=0, **fields):
    desk.report(kind, order["order_id"], side=order["side"], last_quantity=quantity, flags=m.FINAL, **fields)
    desk.now += COOLDOWN


def test_a_heavy_bid_is_bought_at_the_ask_and_a_heavy_ask_sold_at_the_bid():
    for side, price in ((m.BUY, 110), (m.SELL, 100)):
        (order,) = make().book(*heavy(side))
        found = [int(order[name]) for name in ("kind", "instrument", "side", "price", "quantity")]
        assert found == [m.NEW, INSTRUMENT, side, price, 2]
        assert (order["order_type"], order["time_in_force"]) == (m.LIMIT, m.IOC)


@pytest.mark.parametrize(("bids", "asks", "side"), [
    (80, 20, m.BUY), (20, 80, m.SELL), (799, 201, 0), (201, 799, 0), (801, 199, m.BUY), (199, 801, m.SELL), (50, 50, 0),
])  # fmt: skip
def test_the_threshold_is_the_same_on_both_sides(bids, asks, side):
    found = [int(order["side"]) for order in make().book([(100, bids)], [(110, asks)])]
    assert found == ([side] if side else [])


def test_only_five_levels_count():
    bids, asks = [(100 - i, 10) for i in range(10)], [(110 + i, 10) for i in range(10)]
    asks[4] = (114, 4000)
    assert int(make().book(bids, asks)[0]["side"]) == m.SELL
    asks[4], asks[5] = (114, 10), (115, 4000)
    assert not make().book(bids, asks)


def test_no_second_order_while_one_is_in_flight():
    desk = make()
    (order,) = desk.book(*heavy(m.BUY))
    for _ in range(3):
        desk.now += COOLDOWN
        assert not desk.book(*heavy(m.BUY))
        assert not desk.book(*heavy(m.SELL))
    for kind in (m.ACCEPTED, m.UNKNOWN):
        desk.report(kind, order["order_id"])
        assert not desk.book(*heavy(m.BUY))
    desk.report(m.FILL, order["order_id"], side=m.BUY, last_quantity=1)
    assert not desk.book(*heavy(m.BUY)), "partly filled is in flight still"
    end(desk, m.EXPIRED, order)
    assert int(desk.mine["position"]) == 1
    assert len(desk.book(*heavy(m.BUY))) == 1


@pytest.mark.parametrize("kind", [m.FILL, m.EXPIRED, m.REJECTED, m.DENIED, m.CANCELLED])
def test_whatever_ends_the_order_frees_the_strategy(kind):
    desk = make()
    (order,) = desk.book(*heavy(m.BUY))
    end(desk, kind, order, target_id=order["order_id"])
    assert len(desk.book(*heavy(m.BUY))) == 1


def test_another_orders_end_frees_nothing():
    desk = make()
    (order,) = desk.book(*heavy(m.BUY))
    desk.report(m.CANCELLED, int(order["order_id"]) + 1, flags=m.FINAL)
    desk.now += COOLDOWN
    assert not desk.book(*heavy(m.BUY))


def test_the_cool_down_is_kept():
    desk = make()
    (order,) = desk.book(*heavy(m.BUY))
    end(desk, m.EXPIRED, order)
    desk.now -= 1
    assert not desk.book(*heavy(m.BUY))
    desk.now += 1
    assert len(desk.book(*heavy(m.BUY))) == 1


@pytest.mark.parametrize("flags", [0, m.BLIND])
def test_nothing_on_an_invalid_book(flags):
    assert not make().book(*heavy(m.BUY), flags=flags)


@pytest.mark.parametrize(("bids", "asks"), [([], []), ([(100, 90)], []), ([], [(110, 90)])])
def test_nothing_on_a_book_without_two_sides(bids, asks):
    assert not make().book(bids, asks)


def test_a_request_without_room_is_made_again_after_the_cool_down():
    desk = make()
    assert desk.book_without_room(*heavy(m.BUY)) == 1
    assert int(desk.mine["open_id"]) == 0
    desk.now += COOLDOWN
    assert len(desk.book(*heavy(m.BUY))) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_position_stays_within_its_limit(seed):
    rng, desk, position = random.Random(seed), make(position_max=7), 0
    reached = set()
    for _ in range(500):
        orders = desk.book(*heavy(rng.choice((m.BUY, m.SELL, m.BUY if seed % 2 else m.SELL))))
        desk.now += COOLDOWN
        for order in orders:
            side = int(order["side"])
            assert abs(position + side * 2) <= 7, f"seed {seed}"
            filled = rng.choice((0, 1, 2))
            position += side * filled
            if filled == 2:
                end(desk, m.FILL, order, 2)
            else:
                desk.report(m.FILL, order["order_id"], side=side, last_quantity=filled)
                end(desk, m.EXPIRED, order)
        assert int(desk.mine["position"]) == position, f"seed {seed}"
        reached.add(position)
    assert max(abs(one) for one in reached) >= 6, f"seed {seed}"
    assert not desk.state[0].tobytes().strip(b"\0"), "the other instrument's row is not ours"
