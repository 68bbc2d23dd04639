"""Klines against trades that are counted anew for each interval."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from shrivenq.pipeline.exchange.klines import HOUR_S, INTERVALS, KEPT, Kline, Klines, read_zone
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


def counted(trades, edges):
    """Count again, in the most obvious way."""
    made = []
    for start_s, end_s in pairwise(edges):
        mine = [one for one in trades if start_s <= one.time_us // 1_000_000 < end_s]
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


@pytest.mark.parametrize(
    ("span_s", "names", "zone_s"),
    [
        (600, ("1s", "1m", "3m"), 0),
        (300_000, ("1m", "15m", "4h", "1d", "3d", "1w"), 0),
        (120 * 86_400, ("1d", "3d", "1w", "1M"), 0),
        (120 * 86_400, ("12h", "1d", "3d", "1w", "1M"), 8 * HOUR_S),
        (120 * 86_400, ("1d", "1M"), 5 * HOUR_S + 2_700),
        (5 * 86_400, ("1h", "1d"), -37 * 60),
    ],
)
def test_every_interval_is_what_traded_in_it(span_s, names, zone_s):
    trades, klines = random_trades(1, 500, span_s), Klines()
    for one in trades:
        klines.take([one])
    for symbol in ("AB", "CD"):
        mine = [one for one in trades if one.symbol == symbol]
        for name in names:
            interval = INTERVALS[name]
            for end_s in (None, START_S + span_s // 2):
                edges = interval.chosen(400, START_S + span_s, end_s=end_s, zone_s=zone_s)
                found = klines.klines(symbol, interval.source_s(zone_s), edges)
                assert found == counted(mine, edges), (name, end_s)
                assert sum(one.trades for one in found) > 0
    assert klines.klines("XY", 60, [START_S, START_S + 60]) == []
    assert klines.klines("AB", 60, []) == []


def test_what_one_may_choose():
    now_s, minutes = 1_000, INTERVALS["1m"]
    assert minutes.chosen(3, now_s) == [840, 900, 960, 1_020]
    assert minutes.chosen(2, now_s, end_s=899) == [780, 840, 900]
    assert minutes.chosen(2, now_s, start_s=841) == [900, 960, 1_020]
    assert minutes.chosen(9, now_s, start_s=840, end_s=5_000) == [840, 900, 960, 1_020]
    assert minutes.chosen(1, now_s, start_s=840, end_s=5_000) == [840, 900]
    assert minutes.chosen(9, now_s, start_s=1_001) == []
    assert minutes.chosen(9, now_s, start_s=961) == []
    assert INTERVALS["1M"].chosen(9, START_S, start_s=1 << 60) == []


@pytest.mark.parametrize("zone_s", [0, 8 * HOUR_S, -HOUR_S])
def test_where_an_interval_begins_is_what_the_calendar_says(zone_s):
    for hour in range(0, 800 * 24, 7):
        time_s = START_S + hour * 3_600
        local = datetime.fromtimestamp(time_s + zone_s, UTC)
        day = local.replace(hour=0, minute=0, second=0)
        expected = {
            "1d": day,
            "3d": day - timedelta(days=(day - datetime(1970, 1, 1, tzinfo=UTC)).days % 3),
            "1w": day - timedelta(days=day.weekday()),
            "1M": day.replace(day=1),
        }
        for name, begin in expected.items():
            interval = INTERVALS[name]
            number = interval.number(time_s, zone_s)
            start_s, end_s = interval.edges(number, number, zone_s)
            assert start_s == int(begin.timestamp()) - zone_s, (name, local)
            assert interval.number(end_s - 1, zone_s) == number == interval.number(end_s, zone_s) - 1, (name, local)


def test_what_an_interval_is_made_of():
    made_of = {name: interval.source_s() for name, interval in INTERVALS.items()}
    assert made_of == {name: 1 if name == "1s" else 60 if name in ("1m", "3m", "5m") else 900 for name in INTERVALS}
    assert [INTERVALS["1M"].source_s(zone_s) for zone_s in (8 * HOUR_S, 45 * 60, 37 * 60)] == [900, 900, 60]


def test_time_zones():
    found = {text: read_zone(text) for text in ("0", "8", "+8", "-1:00", "05:45", "-12:00", "14:00")}
    assert found == {
        "0": 0, "8": 28_800, "+8": 28_800, "-1:00": -3_600, "05:45": 20_700, "-12:00": -43_200, "14:00": 50_400,
    }  # fmt: skip
    for text in ("", "x", "14:01", "-12:01", "1:60", "1:5", "100", "1:00:00", "٨"):
        with pytest.raises(ValueError, match=r"no time zone|not from"):
            read_zone(text)


def test_the_oldest_are_forgotten():
    klines = Klines()
    for second in range(4_000):
        klines.take([TradeEvent("AB", second + 1, 100 + second, 1, buyer_is_maker=True, time_us=second * 1_000_000)])
    edges = range(4_001)
    assert [one.start_s for one in klines.klines("AB", 1, edges)] == list(range(400, 4_000))
    assert klines.klines("AB", 60, [0, 60])[0].trades == 60


def test_minutes_reach_back_a_week_and_the_present_one():
    assert KEPT[60] * 60 == 7 * 86_400 + 60
