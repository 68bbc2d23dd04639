"""Klines against trades that are counted anew for each interval."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from shrivenq.pipeline.exchange.klines import INTERVALS, Kline, Klines, begin_of, chosen
from shrivenq.pipeline.exchange.types import TradeEvent

START_S = 1_700_000_000


def random_trades(seed, count, span_s):
    """Make trades of two symbols, with stretches in which nobody trades."""
    dice, ids, found = random.Random(seed), {"AB": 0, "CD": 0}, []
    for time_us in sorted(dice.randrange(span_s * 1_000_000) for _ in range(count)):
        symbol = dice.choice(["AB", "AB", "CD"])
        ids[symbol] += 1
        price, quantity = dice.randint(90, 110), dice.randint(1, 50)
        found.append(
            TradeEvent(symbol, ids[symbol], price, quantity, dice.random() < 0.5, START_S * 1_000_000 + time_us)
        )
    return found


def counted(trades, starts, interval_s):
    """Count again, in the most obvious way."""
    made = []
    for start_s in starts:
        mine = [one for one in trades if start_s <= one.time_us // 1_000_000 < start_s + interval_s]
        before = [one.price for one in trades if one.time_us // 1_000_000 < start_s]
        if mine:
            prices, bought = [one.price for one in mine], [one for one in mine if not one.buyer_is_maker]
            made.append(
                Kline(
                    start_s, prices[0], max(prices), min(prices), prices[-1], sum(one.quantity for one in mine),
                    sum(one.price * one.quantity for one in mine), sum(one.quantity for one in bought),
                    sum(one.price * one.quantity for one in bought), mine[0].trade_id, mine[-1].trade_id,
                )
            )  # fmt: skip
        elif before:
            made.append(Kline(start_s, before[-1], before[-1], before[-1], before[-1]))
    return made


@pytest.mark.parametrize(("span_s", "names"), [(600, ("1s", "1m", "3m")), (300_000, ("1m", "15m", "4h", "1d", "1w"))])
def test_every_interval_is_what_traded_in_it(span_s, names):
    trades, klines = random_trades(1, 500, span_s), Klines()
    for one in trades:
        klines.take([one])
    for symbol in ("AB", "CD"):
        mine = [one for one in trades if one.symbol == symbol]
        for name in names:
            starts = chosen(INTERVALS[name], 1_000, START_S + span_s)
            assert klines.klines(symbol, INTERVALS[name], starts) == counted(mine, starts, INTERVALS[name]), name
    assert klines.klines("XY", 60, [START_S]) == []


def test_what_one_may_choose():
    now_s = 1_000
    assert list(chosen(60, 3, now_s)) == [840, 900, 960]
    assert list(chosen(60, 2, now_s, end_s=899)) == [780, 840]
    assert list(chosen(60, 2, now_s, start_s=841)) == [900, 960]
    assert list(chosen(60, 9, now_s, start_s=840, end_s=5_000)) == [840, 900, 960]
    assert list(chosen(60, 9, now_s, start_s=1_001)) == []


def test_a_week_begins_on_monday():
    for day in range(20):
        begun = datetime.fromtimestamp(begin_of(START_S + day * 86_400, INTERVALS["1w"]), UTC)
        assert (begun.weekday(), begun.hour) == (0, 0)


def test_the_oldest_are_forgotten():
    klines = Klines()
    for second in range(4_000):
        klines.take([TradeEvent("AB", second + 1, 100 + second, 1, buyer_is_maker=True, time_us=second * 1_000_000)])
    starts = range(4_000)
    assert [one.start_s for one in klines.klines("AB", 1, starts)] == list(range(400, 4_000))
    assert klines.klines("AB", 60, [0])[0].trades == 60
