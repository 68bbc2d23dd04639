"""What anybody may ask: fields as the venue names them, numbers from the engine."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest

from shrivenq.pipeline.exchange.server import Simulator
from shrivenq.pipeline.exchange.venue import Request, nobody
from tests.pipeline.exchange.exchange_rig import FLOWING, make_config

BTC = {"symbol": "BTCUSDT"}
NOW_US = 1_700_000_000_000_000


@pytest.fixture(scope="module")
def venue(tmp_path_factory):
    found = Simulator(make_config(tmp_path_factory.mktemp("public"), market=FLOWING)).venue
    for now_us in (NOW_US, NOW_US + 2_000_000):
        found.engine.advance(now_us)
        found.drain()
    return found


def ask(venue, name, **params):
    answer = venue.serve(Request(name, params, "10.0.0.1", nobody, micros=False))
    assert answer.status == 200, answer
    return answer.body


def refused(venue, name, **params):
    answer = venue.serve(Request(name, params, "10.0.0.1", nobody, micros=False))
    assert answer.status == 400, answer
    return answer.body["code"]


def test_depth_is_the_engine_s_as_deep_as_asked(venue):
    book, form = venue.engine.depth("BTCUSDT", 5_000), venue.formats["BTCUSDT"]
    for limit, kept in ((1, 1), (7, 7), (5_000, 5_000), (9_999, 5_000)):
        found = ask(venue, "depth", **BTC, limit=str(limit))
        assert found["lastUpdateId"] == book.last_update_id
        assert found["bids"] == form.levels(book.bids)[:kept]
        assert found["asks"] == form.levels(book.asks)[:kept]
    assert len(ask(venue, "depth", **BTC)["bids"]) == min(100, len(book.bids))
    assert (refused(venue, "depth", **BTC, limit="0"), refused(venue, "depth", **BTC, limit="x")) == (-1130, -1100)


def test_trades_are_the_engine_s(venue):
    found = ask(venue, "trades.recent", **BTC, limit="10")
    events = venue.engine.trades("BTCUSDT", limit=10)
    assert [one["id"] for one in found] == [one.trade_id for one in events]
    for one, event in zip(found, events, strict=True):
        quote = int(one["price"].replace(".", "")) * int(one["qty"].replace(".", "")) // 10**8
        assert one == {
            "id": event.trade_id,
            "price": f"{event.price / 100:.8f}",
            "qty": venue.formats["BTCUSDT"].quantity(event.quantity),
            "quoteQty": venue.formats["BTCUSDT"].quote(quote),
            "time": event.time_us // 1000,
            "isBuyerMaker": event.buyer_is_maker,
            "isBestMatch": True,
        }
    older = ask(venue, "trades.historical", **BTC, fromId="3", limit="4")
    assert [one["id"] for one in older] == [3, 4, 5, 6]
    assert ask(venue, "trades.historical", **BTC, fromId=str(1 << 60)) == []


def test_aggregates_cover_the_trades(venue):
    found = ask(venue, "trades.aggregate", **BTC, fromId="1", limit="1000")
    assert set(found[0]) == {"a", "p", "q", "f", "l", "T", "m", "M"}
    assert found[0]["f"] == 1
    for one, following in pairwise(found):
        assert (following["a"], following["f"]) == (one["a"] + 1, one["l"] + 1)
    at = found[len(found) // 2]["T"]
    chosen = ask(venue, "trades.aggregate", **BTC, startTime=str(at), endTime=str(at))
    assert chosen
    assert {one["T"] for one in chosen} == {at}
    assert refused(venue, "trades.aggregate", **BTC, startTime="5", endTime="4") == -1128


def test_prices(venue):
    minutes, average = venue.engine.average_price("BTCUSDT")
    form = venue.formats["BTCUSDT"]
    found = ask(venue, "avgPrice", **BTC)
    assert (found["mins"], found["price"]) == (minutes, form.price(average))
    assert found["closeTime"] == venue.engine.trades("BTCUSDT", limit=1)[0].time_us // 1000, "the last trade"
    last = form.price(venue.engine.last_price("BTCUSDT"))
    assert ask(venue, "ticker.price", **BTC) == {"symbol": "BTCUSDT", "price": last}
    assert ask(venue, "referencePrice", **BTC)["referencePrice"] == form.price(venue.engine.reference_price("BTCUSDT"))
    assert refused(venue, "referencePrice", symbol="ETHUSDT") == -2043


def test_one_symbol_is_an_object_several_are_a_list(venue):
    for name in ("ticker.price", "ticker.book"):
        assert ask(venue, name, **BTC)["symbol"] == "BTCUSDT"
        assert [one["symbol"] for one in ask(venue, name)] == ["BTCUSDT", "ETHUSDT"]
        assert [one["symbol"] for one in ask(venue, name, symbols='["ETHUSDT"]')] == ["ETHUSDT"]
        assert refused(venue, name, symbols='["XRPUSDT"]') == -1121
        assert refused(venue, name, **BTC, symbols='["BTCUSDT"]') == -1128


def test_the_best_bid_and_ask(venue):
    ticker, form = venue.engine.book_ticker("BTCUSDT"), venue.formats["BTCUSDT"]
    assert ask(venue, "ticker.book", **BTC) == {
        "symbol": "BTCUSDT",
        "bidPrice": form.price(ticker.bid),
        "bidQty": form.quantity(ticker.bid_quantity),
        "askPrice": form.price(ticker.ask),
        "askQty": form.quantity(ticker.ask_quantity),
    }


def test_execution_rules(venue):
    found = ask(venue, "executionRules")["symbolRules"]
    multipliers = {
        "bidLimitMultUp": "1.5",
        "bidLimitMultDown": "0.5",
        "askLimitMultUp": "1.5",
        "askLimitMultDown": "0.5",
    }
    assert found == [
        {"symbol": "BTCUSDT", "rules": [{"ruleType": "PRICE_RANGE", **multipliers}]},
        {"symbol": "ETHUSDT", "rules": []},
    ]
    assert ask(venue, "executionRules", symbol="ETHUSDT") == {"symbolRules": found[1:]}


def test_klines_are_what_was_traded(venue, monkeypatch):
    monkeypatch.setattr(venue, "market_us", lambda: NOW_US + 3_000_000)
    trades = ask(venue, "trades.recent", **BTC, limit="1000")
    assert 0 < len(trades) < 1_000
    (one,) = ask(venue, "klines", **BTC, interval="1m", limit="1")
    start_ms = NOW_US // 60_000_000 * 60_000
    prices, bought = [trade["price"] for trade in trades], [one for one in trades if not one["isBuyerMaker"]]
    assert one[:5] == [start_ms, prices[0], max(prices), min(prices), prices[-1]]
    assert (one[6], one[8], one[11]) == (start_ms + 59_999, len(trades), "0")
    assert Decimal(one[5]) == sum(Decimal(trade["qty"]) for trade in trades)
    assert Decimal(one[9]) == sum(Decimal(trade["qty"]) for trade in bought)
    for value, mine in ((one[7], trades), (one[10], bought)):
        wanted = sum(Decimal(trade["price"]) * Decimal(trade["qty"]) for trade in mine)
        assert 0 <= wanted - Decimal(value) < Decimal("0.00000001")
    seconds = ask(
        venue, "klines", **BTC, interval="1s", startTime=str(NOW_US // 1000), endTime=str(NOW_US // 1000 + 999)
    )
    assert [second[0] for second in seconds] == [NOW_US // 1000]
    (month,) = ask(venue, "klines", **BTC, interval="1M", limit="1")
    assert (month[0], month[6], month[8]) == (1_698_796_800_000, 1_701_388_799_999, len(trades))
    (day,) = ask(venue, "klines", **BTC, interval="1d", limit="1", timeZone="8")
    assert (day[0], day[6]) == (1_699_977_600_000, 1_700_063_999_999)
    assert ask(venue, "uiKlines", **BTC, interval="1M", limit="1") == [month]
    assert refused(venue, "klines", **BTC, interval="1y") == -1120
    assert refused(venue, "klines", **BTC, interval="1d", timeZone="14:01") == -1130
    assert refused(venue, "klines", **BTC) == -1102
