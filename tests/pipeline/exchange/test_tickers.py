"""Tickers: every field as the venue names it, every number counted again from the list of all trades."""

from __future__ import annotations

import json
import random
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal

import pytest

from shrivenq.pipeline.exchange.server import Simulator
from shrivenq.pipeline.exchange.tickers import percent_text
from shrivenq.pipeline.exchange.types import TradeEvent
from shrivenq.pipeline.exchange.venue import Request, nobody
from tests.pipeline.exchange.exchange_rig import make_config

BTC = {"symbol": "BTCUSDT"}
DAY_US = 86_400_000_000
NOW_US = 1_700_000_045_678_901
EIGHT = Decimal("0.00000001")
NONE = "0.00000000"


def make_trades(seed=3):
    """Make trades of nine days, dense at the end."""
    dice = random.Random(seed)
    times = [NOW_US - dice.randrange(9 * DAY_US) for _ in range(400)]
    times += [NOW_US - dice.randrange(DAY_US // 12) for _ in range(200)]
    return [
        TradeEvent("BTCUSDT", number, dice.randint(5_000, 9_000), dice.randint(1, 10**9), dice.random() < 0.5, time_us)
        for number, time_us in enumerate(sorted(times), 1)
    ]


TRADES = make_trades()


@pytest.fixture(scope="module")
def venue(tmp_path_factory):
    found = Simulator(make_config(tmp_path_factory.mktemp("tickers"))).venue
    for one in TRADES:
        for listener in (found.klines.take, found.rolling.take):
            listener([one])
    return found


@pytest.fixture(autouse=True)
def _still(venue, monkeypatch):
    monkeypatch.setattr(venue, "market_us", lambda: NOW_US)


def ask(venue, name, *, micros=False, **params):
    answer = venue.serve(Request(name, params, "10.0.0.1", nobody, micros=micros))
    assert answer.status == 200, answer
    return answer.body


def refused(venue, name, **params):
    answer = venue.serve(Request(name, params, "10.0.0.1", nobody, micros=False))
    assert answer.status == 400, answer
    return answer.body["code"]


def eight(value, rounding=ROUND_FLOOR):
    return f"{value.quantize(EIGHT, rounding):f}"


def counted(since_us, *, changes=True):
    """Count again, in the most obvious way, the figures that every ticker has."""
    mine = [one for one in TRADES if one.time_us >= since_us]
    prices = [Decimal(one.price) / 100 for one in mine]
    volume = sum(Decimal(one.quantity) / 10**8 for one in mine)
    value = sum(Decimal(one.price) * one.quantity / 10**10 for one in mine)
    found = {
        "symbol": "BTCUSDT",
        "openPrice": eight(prices[0]),
        "highPrice": eight(max(prices)),
        "lowPrice": eight(min(prices)),
        "lastPrice": eight(prices[-1]),
        "volume": eight(volume),
        "quoteVolume": eight(value),
        "firstId": mine[0].trade_id,
        "lastId": mine[-1].trade_id,
        "count": len(mine),
    }
    if changes:
        change = prices[-1] - prices[0]
        percent = (change * 100 / prices[0]).quantize(Decimal("0.001"), ROUND_HALF_UP)
        found |= {
            "priceChange": eight(change),
            "priceChangePercent": f"{percent:f}",
            "weightedAvgPrice": eight(value / volume),
        }
    return found


def test_the_last_24_hours(venue):
    now_ms = NOW_US // 1000
    times = {"openTime": now_ms - 86_400_000, "closeTime": now_ms}
    since_us = (NOW_US // 1_000_000 - 86_400) * 1_000_000
    before = [one for one in TRADES if one.time_us < since_us]
    own = {
        "prevClosePrice": eight(Decimal(before[-1].price) / 100),
        "lastQty": eight(Decimal(TRADES[-1].quantity) / 10**8),
        "bidPrice": NONE, "bidQty": NONE, "askPrice": NONE, "askQty": NONE,
    }  # fmt: skip
    assert ask(venue, "ticker.24hr", **BTC) == counted(since_us) | times | own
    assert ask(venue, "ticker.24hr", **BTC, type="FULL") == ask(venue, "ticker.24hr", **BTC)
    assert ask(venue, "ticker.24hr", **BTC, type="MINI") == counted(since_us, changes=False) | times


@pytest.mark.parametrize("window", ["1m", "7m", "59m", "1h", "23h", "1d", "7d"])
def test_a_window_of_ones_choice_begins_on_a_minute(venue, window):
    span_us = int(window[:-1]) * {"m": 60, "h": 3_600, "d": 86_400}[window[-1]] * 1_000_000
    open_us = (NOW_US - span_us) // 60_000_000 * 60_000_000
    times = {"openTime": open_us // 1000, "closeTime": NOW_US // 1000}
    assert ask(venue, "ticker", **BTC, windowSize=window) == counted(open_us) | times
    assert ask(venue, "ticker", **BTC, windowSize=window, type="MINI") == counted(open_us, changes=False) | times
    if window == "1d":
        assert ask(venue, "ticker", **BTC) == counted(open_us) | times


@pytest.mark.parametrize(("zone", "zone_s"), [("", 0), ("8", 28_800), ("-3", -10_800), ("05:45", 20_700)])
def test_a_trading_day_is_that_of_a_time_zone(venue, zone, zone_s):
    open_us = (NOW_US + zone_s * 1_000_000) // DAY_US * DAY_US - zone_s * 1_000_000
    asked = BTC | ({"timeZone": zone} if zone else {})
    times = {"openTime": open_us // 1000, "closeTime": (open_us + DAY_US) // 1000 - 1}
    assert ask(venue, "ticker.tradingDay", **asked) == counted(open_us) | times
    assert ask(venue, "ticker.tradingDay", micros=True, **asked)["closeTime"] == open_us + DAY_US - 1


def test_a_symbol_that_never_traded(venue):
    for name in ("ticker.24hr", "ticker", "ticker.tradingDay"):
        found = ask(venue, name, symbol="ETHUSDT")
        assert {value for key, value in found.items() if isinstance(value, str)} == {"ETHUSDT", NONE, "0.000"}
        assert (found["firstId"], found["lastId"], found["count"]) == (-1, -1, 0)


def test_a_window_in_which_nobody_traded_repeats_the_price_before(venue, monkeypatch):
    monkeypatch.setattr(venue, "market_us", lambda: NOW_US + DAY_US + 60_000_000)
    last = eight(Decimal(TRADES[-1].price) / 100)
    for name in ("ticker", "ticker.tradingDay"):
        found = ask(venue, name, **BTC)
        assert {found[key] for key in ("openPrice", "highPrice", "lowPrice", "lastPrice")} == {last}
        assert {found[key] for key in ("priceChange", "weightedAvgPrice", "volume", "quoteVolume")} == {NONE}
        assert (found["priceChangePercent"], found["count"]) == ("0.000", 0)


def test_one_several_or_all(venue):
    symbols = json.dumps(["ETHUSDT", "BTCUSDT"])
    for name in ("ticker.24hr", "ticker", "ticker.tradingDay"):
        assert [one["symbol"] for one in ask(venue, name, symbols=symbols)] == ["ETHUSDT", "BTCUSDT"]
        assert refused(venue, name, symbol="XRPUSDT") == refused(venue, name, symbols='["XRPUSDT"]') == -1121
        assert refused(venue, name, **BTC, symbols=symbols) == -1128
    assert [one["symbol"] for one in ask(venue, "ticker.24hr")] == ["BTCUSDT", "ETHUSDT"]


@pytest.mark.parametrize("name", ["ticker.24hr", "ticker", "ticker.tradingDay", "ticker.price", "ticker.book"])
def test_symbols_of_one_status(venue, name):
    symbols = json.dumps(["BTCUSDT", "ETHUSDT"])
    venue.engine.set_status("ETHUSDT", "HALT")
    try:
        for status, expected in (("TRADING", ["BTCUSDT"]), ("HALT", ["ETHUSDT"]), ("BREAK", [])):
            found = ask(venue, name, symbols=symbols, symbolStatus=status)
            assert [one["symbol"] for one in found] == expected
        assert ask(venue, name, symbol="ETHUSDT", symbolStatus="HALT")["symbol"] == "ETHUSDT"
        assert refused(venue, name, **BTC, symbolStatus="HALT") == -1220
    finally:
        venue.engine.set_status("ETHUSDT", "TRADING")


def test_percents_are_rounded_half_away_from_zero():
    assert [percent_text(change, 200_000) for change in (0, 1, -1, 3, -3, 200_000)] == [
        "0.000", "0.001", "-0.001", "0.002", "-0.002", "100.000",
    ]  # fmt: skip
    assert percent_text(5, 0) == "0.000"
    dice = random.Random(1)
    for _ in range(500):
        change, base = dice.randint(-(10**6), 10**6), dice.randint(1, 10**6)
        percent = (Decimal(change) * 100 / base).quantize(Decimal("0.001"), ROUND_HALF_UP)
        assert Decimal(percent_text(change, base)) == percent, (change, base)
