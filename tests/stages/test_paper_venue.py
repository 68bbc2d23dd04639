"""The paper venue's rules: kinds of order, races, latencies, queries, filters, lock-step and the clock."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest

from shrivenq.stages import control, paper_venue, venue_market
from shrivenq.stages import messages as m
from shrivenq.stages.conductor import DONE, GRANTED_NS, GRANTS, NEVER, NEXT_DUE_NS
from tests.stages.venue_rig import VenueRig, drain, instruments_of

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


def test_an_order_acts_one_latency_later_on_the_market_of_that_moment():
    rig = VenueRig(order_us=5, report_us=3)
    rig.snapshot(BIDS, ASKS)
    order = rig.buy(1010, 2, tif=m.IOC)
    assert rig.venue[NEXT_DUE_NS] == rig.now + 5_000
    sent = rig.now
    rig.now += 5_000
    rig.diff(asks=[(1010, 0)])  # at the very moment: the market comes first
    reports = rig.grant(sent + 5_000)
    assert reports == []
    assert rig.venue[NEXT_DUE_NS] == sent + 8_000
    reports = rig.settle()
    assert [int(one["kind"]) for one in reports] == [A, E]
    assert {int(one["time_ns"]) for one in reports} == {sent + 8_000}
    assert {int(one["venue_ns"]) for one in reports} == {sent + 5_000}
    assert reports[0]["order_id"] == order
    assert rig.venue[NEXT_DUE_NS] == NEVER


def test_a_fill_before_the_cancel_arrives_wins():
    rig = VenueRig(order_us=10)
    rig.snapshot(BIDS, ASKS)
    order = rig.buy(1000, 4)
    rig.settle()
    rig.now += 10_000
    cancel = rig.send(m.CANCEL, target_id=order)
    rig.now += 5_000
    rig.trade(990, 1, m.SELL)
    rig.now += 5_000
    assert rig.said() == [(F, order, 4, 1000), (CR, cancel, 0, 0)]


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


def test_no_orders_without_a_whole_book():
    rig = VenueRig()
    rig.buy(1000, 2)
    assert reasons(rig) == ["no_touch"]
    rig.snapshot(BIDS, ASKS)
    order = rig.buy(1000, 2)
    rig.settle()
    rig.update_id += 50
    rig.diff(bids=[(1000, 5)])
    rig.buy(1000, 2)
    assert reasons(rig) == ["no_touch"]
    rig.trade(990, 2, m.SELL)
    assert rig.said() == [(F, order, 2, 1000)]
    rig.snapshot(BIDS, ASKS)
    rig.buy(1000, 2)
    assert reasons(rig) == ["none"]


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


def test_echo_comes_back_after_both_latencies():
    rig = VenueRig(order_us=4, report_us=2)
    order = rig.send(m.ECHO, echo=m.DENIED, reason=m.REASON["second_line"], slot=5, generation=3, price=9, quantity=7)
    (report,) = rig.settle()
    assert (report["kind"], report["order_id"], report["slot"], report["generation"]) == (m.DENIED, order, 5, 3)
    assert (m.REASONS[report["reason"]], report["price"], report["quantity"]) == ("second_line", 9, 7)
    assert report["time_ns"] == rig.now + 6_000


def test_a_grant_serves_one_report(rig):
    rig.buy(1020, 14)
    due = int(rig.venue[NEXT_DUE_NS])
    counts = []
    for _ in range(4):
        rig.venue[GRANTED_NS] = due
        rig.venue[GRANTS] += 1
        rig.step()
        assert rig.venue[DONE] == rig.venue[GRANTS]
        counts.append(len(drain(rig.from_venue)))
    assert counts == [1, 1, 1, 0]


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


def test_the_kill_word_reaches_the_venue():
    rig = VenueRig(virtual=False)
    rig.snapshot(BIDS, ASKS)
    order = rig.buy(1000, 2)
    rig.step()
    rig.kill[control.OPERATOR] = control.CANCEL
    rig.step()
    rig.buy(1000, 2)
    rig.buy(1000, 2, flags=m.REDUCING)
    rig.step()
    found = [(int(one["kind"]), m.REASONS[one["reason"]]) for one in drain(rig.from_venue)]
    assert found == [(A, "none"), (C, "killed"), (RJ, "killed"), (A, "none")]
    assert order == 1


def test_config_is_checked():
    with pytest.raises(ValueError, match="model is one of queue, trade_through, touch, not 'hope'"):
        paper_venue.Config(model="hope", order_latency_us=1, report_latency_us=1)
    with pytest.raises(ValueError, match="order_latency_us is 0 to"):
        paper_venue.Config(order_latency_us=-1, report_latency_us=1)


def test_a_lost_feed_makes_the_books_invalid(rig):
    rig.tick(kind=m.TIMER, flags=m.GAP)
    rig.tick(kind=m.END)
    rig.buy(1000, 2)
    assert reasons(rig) == ["no_touch"]
    assert rig.context.words[paper_venue.FEED_GAPS] == 1


@pytest.mark.parametrize("seed", range(3))
def test_money_and_inventory_are_conserved(seed):
    """Random flow: the venue's account of each order is the sum of its fills, and cash, fees and inventory add up."""
    chance = np.random.default_rng(seed)
    rig = VenueRig(order_us=2, report_us=1)
    rig.snapshot([(1000 - 10 * i, 10) for i in range(20)], [(1010 + 10 * i, 10) for i in range(20)])
    reports, ids = [], []
    for _ in range(400):
        rig.now += int(chance.integers(1, 3_000))
        reports += rig.grant(rig.now)
        action = chance.integers(6)
        side = int(chance.choice([m.BUY, m.SELL]))
        price = int(1000 + 10 * chance.integers(-4, 6))
        if action <= 1:
            tif = int(chance.integers(1, 4))
            kind = int(chance.integers(1, 4))
            ids.append(rig.send(m.NEW, side, price, int(2 * chance.integers(1, 15)), order_type=kind, tif=tif))
        elif action == 2 and ids:
            target = int(chance.choice(ids))
            if chance.random() < 0.5:
                rig.send(m.CANCEL, target_id=target)
            else:
                ids.append(rig.send(m.REPLACE, side, price, 10, target_id=target))
        elif action == 3:
            rig.trade(price, int(chance.integers(1, 40)), side)
        else:
            below = price < 1005
            rig.diff(**{"bids" if below else "asks": [(price, int(chance.integers(0, 30)))]})
    reports += rig.settle()
    fills = [one for one in reports if one["kind"] == F]
    assert len(fills) > 30, f"seed {seed}"
    assert len({int(one["trade_id"]) for one in fills}) == len(fills)
    filled: dict[int, int] = defaultdict(int)
    cash, inventory, fees, expected_fees = Fraction(0), 0, 0, Fraction(0)
    ended = set()
    for one in reports:
        order_id = int(one["target_id"] if one["kind"] == C else one["order_id"])
        if one["kind"] == F:
            assert order_id not in ended, f"seed {seed}"
            filled[order_id] += int(one["last_quantity"])
            assert one["filled"] == filled[order_id]
            assert one["leaves"] == one["quantity"] - one["filled"]
            value = Fraction(int(one["last_price"]) * int(one["last_quantity"]), 1000)
            cash -= int(one["side"]) * value
            inventory += int(one["side"]) * int(one["last_quantity"])
            rate = Fraction(10_000 if one["flags"] & m.MAKER else 40_000, 10**8)
            fees += int(one["fee"])
            expected_fees += -(-value * rate * 10**8 // 1)
        if one["flags"] & m.FINAL or one["kind"] == C:
            ended.add(order_id)
    assert fees == expected_fees
    table = rig.context.market.orders
    bought = {1: 0, -1: 0}
    venue_cash = Fraction(0)
    for row in table[table["order_id"] != 0]:
        assert row["filled"] == filled[int(row["order_id"])], f"seed {seed}"
        bought[int(row["side"])] += int(row["filled"])
    for one in rig.context.market.trades[1 : len(fills) + 1]:
        side = int(table[table["order_id"] == one["order_id"]]["side"][0])
        venue_cash -= side * Fraction(int(one["price"]) * int(one["quantity"]), 1000)
    assert inventory == bought[1] - bought[-1]
    assert cash == venue_cash
