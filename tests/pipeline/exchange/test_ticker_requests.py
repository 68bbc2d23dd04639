"""What requests about tickers may say, and what they weigh: the venue's own table."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange import requests
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.ticker_requests import WINDOWS, count_symbols

COMPUTED = ("ticker", "ticker.tradingDay")


def names(count):
    return [f"S{number}USDT" for number in range(count)]


def as_text(listed):
    return "[" + ",".join(f'"{one}"' for one in listed) + "]"


def test_windows():
    assert (WINDOWS["1m"], WINDOWS["59m"], WINDOWS["1h"], WINDOWS["23h"]) == (60, 3_540, 3_600, 82_800)
    assert (WINDOWS["1d"], WINDOWS["7d"], len(WINDOWS)) == (86_400, 604_800, 59 + 23 + 7)


def test_symbols_are_counted_however_they_come():
    assert count_symbols({}) is None
    assert count_symbols({"symbol": "BTCUSDT"}) == 1
    for count in (1, 2, 30):
        assert count_symbols({"symbols": names(count)}) == count_symbols({"symbols": as_text(names(count))}) == count


@pytest.mark.parametrize(("count", "weight"), [(1, 2), (20, 2), (21, 40), (100, 40), (101, 80)])
def test_a_day_weighs_by_how_many(count, weight):
    assert requests.weight("ticker.24hr", {"symbols": as_text(names(count))}) == weight
    assert requests.weight("ticker.24hr", {"symbols": names(count)}) == weight


def test_a_day_of_one_or_of_all():
    assert requests.weight("ticker.24hr", {"symbol": "BTCUSDT"}) == 2
    assert requests.weight("ticker.24hr", {}) == 80


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize(("count", "weight"), [(1, 4), (2, 8), (50, 200), (51, 200), (100, 200)])
def test_what_is_computed_weighs_four_for_each(name, count, weight):
    assert requests.weight(name, {"symbols": as_text(names(count))}) == weight


def refused(name, **params):
    with pytest.raises(ApiError) as caught:
        requests.check(name, params)
    return caught.value.code


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_computed_needs_symbols_but_not_too_many(name):
    assert refused(name) == -1102
    assert refused(name, symbols=as_text(names(101))) == -1101
    assert requests.check(name, {"symbols": as_text(names(100))})["symbols"] == names(100)


def test_words():
    for name in (*COMPUTED, "ticker.24hr"):
        assert refused(name, symbol="BTCUSDT", type="LIMIT") == -1139
        assert requests.check(name, {"symbol": "BTCUSDT", "type": "MINI"})["type"] == "MINI"
        assert refused(name, symbol="BTCUSDT", symbolStatus="GONE") == -1122
    assert refused("order.test", symbol="BTCUSDT", side="BUY", type="MINI") == -1116
    for window in ("60m", "24h", "8d", "1w", "1d2h", ""):
        assert refused("ticker", symbol="BTCUSDT", windowSize=window) in (-1130, -1105), window
    assert requests.check("ticker.tradingDay", {"symbol": "BTCUSDT", "timeZone": "-1:00"})["timeZone"] == -3_600
    assert refused("ticker.tradingDay", symbol="BTCUSDT", timeZone="15") == -1130
    assert refused("ticker.24hr", symbol="BTCUSDT", windowSize="1d") == -1104
