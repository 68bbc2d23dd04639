"""What a venue does with orders: kinds of order, filters, cancels, replacements, queries."""

from __future__ import annotations

from fractions import Fraction

import pytest

from shrivenq.stages import messages as m
from shrivenq.stages import venue_market
from tests.stages.venue_rig import VenueRig, instruments_of

BIDS, ASKS = [(1000, 10), (990, 20), (980, 30)], [(1010, 8), (1020, 6), (1030, 40)]
A, F, C, RJ, E, CR, RP = m.ACCEPTED, m.FILL, m.CANCELLED, m.REJECTED, m.EXPIRED, m.CANCEL_REJECTED, m.REPLACED


@pytest.fixture
def rig():
    made = VenueRig()
    made.snapshot(BIDS, ASKS)
    return made


def reasons(rig):
    return [m.REASONS[one["reason"]] for one in rig.settle()]


def test_a_taker_walks_the_levels_and_the_rest_rests(rig):
    order = rig.buy(1020, 20)
    assert rig.said() == [(A, order, 0, 0), (F, order, 8, 1010), (F, order, 6, 1020)]
    assert rig.context.market.orders[0]["filled"] == 14
    rig.trade(1020, 50, m.SELL)
    assert rig.said() == [(F, order, 6, 1020)]


def test_ioc_expires_what_it_cannot_take(rig):
    order = rig.buy(1010, 20, tif=m.IOC)
    reports = rig.settle()
    assert [(int(one["kind"]), int(one["last_quantity"])) for one in reports] == [(A, 0), (F, 8), (E, 0)]
    assert m.REASONS[reports[-1]["reason"]] == "unfilled"
    assert [int(one["leaves"]) for one in reports] == [20, 12, 0]
    assert [bool(one["flags"] & m.FINAL) for one in reports] == [False, False, True]
    assert reports[-1]["order_id"] == order


def test_fok_is_all_or_nothing(rig):
    order = rig.buy(1020, 16, tif=m.FOK)
    assert rig.said() == [(A, order, 0, 0), (E, order, 0, 0)]
    order = rig.buy(1020, 14, tif=m.FOK)
    assert rig.said() == [(A, order, 0, 0), (F, order, 8, 1010), (F, order, 6, 1020)]


def test_market_orders_take_any_price_and_expire_without_liquidity(rig):
    order = rig.sell(0, 70, order_type=m.MARKET, tif=m.IOC)
    expected = [(A, order, 0, 0), (F, order, 10, 1000), (F, order, 20, 990), (F, order, 30, 980), (E, order, 0, 0)]
    assert rig.said() == expected
    order = rig.sell(0, 2, order_type=m.MARKET, tif=m.IOC)
    reports = rig.settle()
    assert [m.REASONS[one["reason"]] for one in reports] == ["none", "no_liquidity"]


def test_no_liquidity_is_taken_twice_until_the_feed_sets_the_level(rig):
    first, second = rig.buy(1010, 8), rig.buy(1010, 8)
    assert rig.said() == [(A, first, 0, 0), (F, first, 8, 1010), (A, second, 0, 0)]
    rig.diff(asks=[(1020, 7)])
    assert rig.said() == []
    rig.diff(asks=[(1010, 2)])
    assert rig.said() == [(F, second, 8, 1010)]


def test_partly_taken_level_keeps_the_rest(rig):
    rig.buy(1010, 6, tif=m.IOC)
    rig.settle()
    order = rig.buy(1010, 6, tif=m.IOC)
    assert rig.said() == [(A, order, 0, 0), (F, order, 2, 1010), (E, order, 0, 0)]


def test_post_only_is_refused_if_it_would_take(rig):
    order = rig.buy(1010, 2, order_type=m.LIMIT_MAKER)
    (report,) = rig.settle()
    assert (report["kind"], report["order_id"], m.REASONS[report["reason"]]) == (RJ, order, "would_take")
    order = rig.buy(1000, 2, order_type=m.LIMIT_MAKER)
    assert rig.said() == [(A, order, 0, 0)]


def test_maker_and_taker_fees_are_rounded_against_us(rig):
    taker = rig.buy(1010, 8, tif=m.IOC)
    maker = rig.sell(1010, 2)
    reports = rig.settle()
    rig.trade(1020, 2, m.BUY)
    fees = {int(one["order_id"]): one for one in reports + rig.settle() if one["kind"] == F}
    # 101.0 × 0.08 at eight decimals × 0.0004; 101.0 × 0.02 × 0.0001.
    assert fees[taker]["fee"] == Fraction(1010 * 8 * 10**8 * 4, 10**3 * 10_000)
    assert fees[maker]["fee"] == Fraction(1010 * 2 * 10**8, 10**3 * 10_000)
    assert not fees[taker]["flags"] & m.MAKER
    assert fees[maker]["flags"] & m.MAKER


def test_a_rebate_is_rounded_against_us_too():
    rig = VenueRig(instruments=instruments_of(maker_fee=-1, price_decimals=8, contract_size=100))
    rig.snapshot(BIDS, ASKS)
    rig.sell(1010, 2)
    rig.settle()
    rig.trade(1020, 2, m.BUY)
    (fee,) = (int(one["fee"]) for one in rig.settle() if one["kind"] == F)
    assert fee == 0  # −20.2e-16 rounds towards paying


def test_a_partial_fill_then_the_cancel(rig):
    order = rig.buy(1000, 10)
    reports = rig.settle()
    rig.trade(1000, 16, m.SELL)
    cancel = rig.send(m.CANCEL, target_id=order)
    reports += rig.settle()
    assert [int(one["kind"]) for one in reports] == [A, F, C]
    assert (reports[-1]["order_id"], reports[-1]["target_id"], reports[-1]["filled"]) == (cancel, order, 6)
    assert m.REASONS[reports[-1]["reason"]] == "by_request"
    assert reports[-1]["flags"] & m.FINAL
    rig.trade(980, 50, m.SELL)
    assert rig.said() == []


def test_replace_cancels_and_places(rig):
    order = rig.buy(1000, 10)
    successor = rig.send(m.REPLACE, m.BUY, 1020, 10, target_id=order)
    reports = rig.settle()
    assert [int(one["kind"]) for one in reports] == [A, RP, F, F]
    assert (reports[1]["order_id"], reports[1]["target_id"]) == (successor, order)
    assert (reports[1]["leaves"], reports[1]["price"]) == (10, 1020)
    assert not reports[1]["flags"] & m.FINAL
    assert {int(one["order_id"]) for one in reports[2:]} == {successor}


def test_replace_of_what_is_gone_places_nothing(rig):
    order = rig.buy(1010, 8)
    rig.settle()
    successor = rig.send(m.REPLACE, m.BUY, 1000, 10, target_id=order)
    assert rig.said() == [(CR, successor, 0, 0)]
    assert rig.context.market.words[venue_market.OPEN_COUNT] == 0


def test_replace_that_cannot_be_placed_still_cancels(rig):
    order = rig.buy(1000, 10)
    rig.settle()
    successor = rig.send(m.REPLACE, m.BUY, 1010, 10, order_type=m.LIMIT_MAKER, target_id=order)
    reports = rig.settle()
    assert [(int(one["kind"]), int(one["order_id"])) for one in reports] == [(C, successor), (RJ, successor)]
    assert reports[0]["target_id"] == order


def test_filters(rig):
    cases = [
        ({"quantity": 0}, "quantity_range"),
        ({"quantity": 3}, "step_size"),
        ({"price": 1001}, "tick_size"),
        ({"price": 0}, "price_range"),
        ({"instrument": 7}, "unknown_instrument"),
        ({"side": 0}, "malformed"),
        ({"order_type": 9}, "malformed"),
        ({"tif": 0}, "malformed"),
    ]
    for change, reason in cases:
        rig.send(**{"kind": m.NEW, "side": m.BUY, "price": 1000, "quantity": 2, **change})
        assert reasons(rig) == [reason], change
    rig.instruments["tradable"] = 0
    rig.buy(1000, 2)
    assert reasons(rig) == ["not_tradable"]


def test_an_order_id_is_taken_once(rig):
    rig.buy(1000, 2, order_id=77)
    rig.buy(990, 2, order_id=77)
    assert reasons(rig) == ["none", "duplicate"]


def test_query_says_everything_again(rig):
    order = rig.buy(1020, 20)
    rig.settle()
    rig.send(m.QUERY, target_id=order, order_id=order)
    reports = rig.settle()
    assert [(int(one["kind"]), int(one["trade_id"]), int(one["filled"]), int(one["leaves"])) for one in reports] == [
        (F, 1, 8, 12),
        (F, 2, 14, 6),
        (A, 0, 14, 6),
    ]
    rig.send(m.CANCEL, target_id=order)
    rig.settle()
    rig.send(m.QUERY, target_id=order, order_id=order)
    reports = rig.settle()
    assert [int(one["kind"]) for one in reports] == [F, F, C]
    assert reports[-1]["target_id"] == order
    rig.send(m.QUERY, target_id=999, order_id=999)
    assert rig.said() == [(m.ABSENT, 999, 0, 0)]


def test_rows_are_used_again_and_the_oldest_are_forgotten(rig):
    count = len(rig.context.market.orders)
    first = rig.buy(1000, 2)
    ids = [rig.buy(10, 2, tif=m.IOC) for _ in range(20)]
    rig.settle()
    rig.context.market.words[venue_market.ROWS_USED] = count  # as if every other row had been used
    later = [rig.buy(10, 2, tif=m.IOC) for _ in range(25)]
    rig.settle()
    rig.send(m.QUERY, target_id=ids[0], order_id=ids[0])
    rig.send(m.QUERY, target_id=later[-1], order_id=later[-1])
    rig.send(m.QUERY, target_id=first, order_id=first)
    assert [one[0] for one in rig.said()] == [m.ABSENT, E, A]


def test_an_amended_order_keeps_its_place_in_the_queue(rig):
    first, second = rig.buy(1000, 10), rig.buy(1000, 10)
    rig.settle()
    rig.trade(1000, 8, m.SELL)  # of the ten in front
    amend = rig.send(m.AMEND, target_id=first, quantity=4)
    (report,) = rig.settle()
    assert (report["kind"], report["order_id"], report["target_id"]) == (m.AMENDED, amend, first)
    assert (report["quantity"], report["leaves"], report["price"], report["flags"]) == (4, 4, 1000, 0)
    rig.trade(1000, 8, m.SELL)
    assert rig.said() == [(F, first, 4, 1000), (F, second, 2, 1000)]


def test_an_amendment_to_what_is_filled_ends_the_order(rig):
    order = rig.buy(1000, 10)
    rig.settle()
    rig.trade(1000, 16, m.SELL)
    rig.send(m.AMEND, target_id=order, quantity=6)
    _, report = rig.settle()
    assert (report["kind"], report["filled"], report["leaves"]) == (m.AMENDED, 6, 0)
    assert report["flags"] == m.FINAL
    assert rig.context.market.words[venue_market.OPEN_COUNT] == 0
    rig.trade(990, 50, m.SELL)
    assert rig.said() == []


def test_amendments_that_are_refused(rig):
    order = rig.buy(1000, 10)
    rig.settle()
    rig.trade(1000, 16, m.SELL)  # six of it
    rig.settle()
    for quantity, expected in (
        (10, "quantity_range"), (12, "quantity_range"), (4, "quantity_range"), (0, "quantity_range"), (7, "step_size"),
    ):  # fmt: skip
        rig.send(m.AMEND, target_id=order, quantity=quantity)
        (report,) = rig.settle()
        assert (report["kind"], m.REASONS[report["reason"]]) == (m.AMEND_REJECTED, expected), quantity
    rig.send(m.AMEND, target_id=99, quantity=4)
    assert reasons(rig) == ["unknown_order"]


def test_cancel_all_cancels_what_an_instrument_has_and_nothing_else():
    rig = VenueRig(instruments=instruments_of(2))
    for instrument in (0, 1):
        rig.snapshot(BIDS, ASKS, instrument)
    bid, ask, other = rig.buy(1000, 2), rig.sell(1010, 2), rig.buy(1000, 2, instrument=1)
    rising = rig.buy(0, 2, order_type=m.STOP_LOSS, stop_price=1050)
    falling = rig.sell(0, 2, order_type=m.STOP_LOSS, stop_price=950)
    rig.settle()
    request = rig.send(m.CANCEL_ALL, side=0, quantity=0)
    reports = rig.settle()
    assert [int(one["order_id"]) for one in reports] == [bid, ask, rising, falling]
    for one in reports:
        assert (one["kind"], one["target_id"], m.REASONS[one["reason"]]) == (C, one["order_id"], "by_request")
        assert one["flags"] & m.FINAL
    request = rig.send(m.CANCEL_ALL, side=0, quantity=0)
    (report,) = rig.settle()
    assert (report["kind"], report["order_id"], report["target_id"]) == (CR, request, 0)
    rig.send(m.CANCEL_ALL, instrument=9)
    assert reasons(rig) == ["unknown_order"]
    rig.trade(990, 50, m.SELL, instrument=1)
    assert rig.said() == [(F, other, 2, 1000)]
