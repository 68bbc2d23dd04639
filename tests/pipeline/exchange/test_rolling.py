"""Rolling: the 24 hours against the list of all trades, counted anew at every moment."""

from __future__ import annotations

import random

import pytest

from shrivenq.pipeline.exchange.klines import DAY_S, Kline
from shrivenq.pipeline.exchange.rolling import Day, Rolling
from shrivenq.pipeline.exchange.types import BalanceEvent, TradeEvent

START_S = 1_700_000_000


def counted(trades, now_s):
    """Count again, in the most obvious way."""
    start_s = now_s - DAY_S
    mine = [one for one in trades if one.time_us // 1_000_000 >= start_s]
    before = [one.price for one in trades if one.time_us // 1_000_000 < start_s]
    previous = before[-1] if before else 0
    if not mine:
        return Day(Kline(start_s, previous, previous, previous, previous), previous, 0)
    prices = [one.price for one in mine]
    kline = Kline(
        start_s, prices[0], max(prices), min(prices), prices[-1], sum(one.quantity for one in mine),
        sum(one.price * one.quantity for one in mine), first_id=mine[0].trade_id, last_id=mine[-1].trade_id,
    )  # fmt: skip
    return Day(kline, previous, mine[-1].quantity)


def script(seed, steps):
    """Make trades and moments to look, in order: bursts within a second, and gaps of up to more than a day."""
    dice, time_us = random.Random(seed), START_S * 1_000_000
    gaps = [0, 300_000, 1_000_000, 60_000_000, 3_600_000_000, (DAY_S - 1) * 1_000_000, DAY_S * 1_000_000]
    gaps += [(DAY_S + 1) * 1_000_000, 3 * DAY_S * 1_000_000]
    weights = [8, 8, 8, 8, 4, 1, 1, 1, 1]
    for _ in range(steps):
        time_us += dice.choices(gaps, weights)[0] + dice.randrange(1_000_000)
        yield time_us, dice.random() < 0.6, dice.randint(90, 110), dice.randint(1, 50)


@pytest.mark.parametrize("seed", range(30))
def test_the_last_day_at_any_moment(seed):
    rolling, trades = Rolling(), []
    for time_us, trades_now, price, quantity in script(seed, 300):
        if trades_now:
            one = TradeEvent("AB", len(trades) + 1, price, quantity, buyer_is_maker=True, time_us=time_us)
            trades.append(one)
            rolling.take([BalanceEvent(1, (), time_us), one])
        else:
            now_s = time_us // 1_000_000
            assert rolling.day("AB", now_s) == counted(trades, now_s), f"seed {seed}"
    assert rolling.last_us("AB") == trades[-1].time_us


def test_the_ring_goes_round_with_a_trade_in_every_second():
    rolling, trades = Rolling(), []
    for second in range(DAY_S + 5_000):
        price = 1_000 + second % 7_919
        one = TradeEvent("AB", second + 1, price, 1 + second % 13, buyer_is_maker=False, time_us=second * 1_000_000)
        trades.append(one)
        rolling.take([one])
    for now_s in (DAY_S + 4_999, DAY_S + 5_000, DAY_S + 9_000, 2 * DAY_S + 4_999, 2 * DAY_S + 5_000):
        assert rolling.day("AB", now_s) == counted(trades, now_s), now_s


def test_sums_larger_than_64_bits_are_exact():
    rolling, most = Rolling(), (1 << 62) - 1
    trades = [TradeEvent("AB", 1 + number, most, most, True, number * 600_000) for number in range(10)]
    rolling.take(trades)
    for now_s in (5, DAY_S, DAY_S + 3, DAY_S + 5, DAY_S + 6):
        assert rolling.day("AB", now_s) == counted(trades, now_s), now_s


def test_symbols_are_apart_and_one_that_never_traded_has_nothing():
    rolling = Rolling()
    rolling.take([TradeEvent("AB", 1, 100, 5, True, 7_000_000), TradeEvent("CD", 1, 200, 6, True, 7_000_000)])
    assert [rolling.day(name, 8).kline.close for name in ("AB", "CD", "EF")] == [100, 200, 0]
    assert (rolling.last_us("CD"), rolling.last_us("EF")) == (7_000_000, 0)
