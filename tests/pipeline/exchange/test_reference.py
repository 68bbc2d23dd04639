"""exchangeInfo: all fields, filters that are switched on, a status that changes."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange import reference
from shrivenq.pipeline.exchange.server import Simulator
from shrivenq.pipeline.exchange.types import Symbol
from shrivenq.pipeline.exchange.venue import Request, nobody
from tests.pipeline.exchange.exchange_rig import make_config

FIELDS = {
    "symbol", "status", "baseAsset", "baseAssetPrecision", "quoteAsset", "quotePrecision", "quoteAssetPrecision",
    "baseCommissionPrecision", "quoteCommissionPrecision", "orderTypes", "icebergAllowed", "ocoAllowed", "otoAllowed",
    "opoAllowed", "quoteOrderQtyMarketAllowed", "allowTrailingStop", "cancelReplaceAllowed", "amendAllowed",
    "pegInstructionsAllowed", "isSpotTradingAllowed", "isMarginTradingAllowed", "filters", "permissions",
    "permissionSets", "defaultSelfTradePreventionMode", "allowedSelfTradePreventionModes",
}  # fmt: skip
BARE = Symbol(name="AB", base="A", quote="B", price_decimals=2, quantity_decimals=3, tick=5, step=2)


@pytest.fixture(scope="module")
def venue(tmp_path_factory):
    filters = {"algo_orders_max": 7, "order_lists_max": 8}
    return Simulator(make_config(tmp_path_factory.mktemp("reference"), filters=filters)).venue


def info(venue, status=200, **params):
    answer = venue.serve(Request("exchangeInfo", params, "10.0.0.1", nobody, micros=False))
    assert answer.status == status, answer
    return answer.body


def test_all_fields(venue):
    found = info(venue)
    assert list(found) == ["timezone", "serverTime", "rateLimits", "exchangeFilters", "symbols"]
    assert found["exchangeFilters"] == [
        {"filterType": "EXCHANGE_MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 7},
        {"filterType": "EXCHANGE_MAX_NUM_ORDER_LISTS", "maxNumOrderLists": 8},
    ]
    assert [one["symbol"] for one in found["symbols"]] == ["BTCUSDT", "ETHUSDT"]
    assert all(set(one) == FIELDS for one in found["symbols"])
    btc = found["symbols"][0]
    assert (btc["allowTrailingStop"], btc["ocoAllowed"], btc["otoAllowed"]) == (True, True, True)
    assert (btc["status"], btc["baseAsset"], btc["quoteAsset"], btc["permissionSets"]) == (
        "TRADING",
        "BTC",
        "USDT",
        [["SPOT"]],
    )
    assert btc["defaultSelfTradePreventionMode"] in btc["allowedSelfTradePreventionModes"]


def test_filters(venue):
    found = {one["filterType"]: one for one in info(venue, symbol="BTCUSDT")["symbols"][0]["filters"]}
    assert found["PRICE_FILTER"] == {
        "filterType": "PRICE_FILTER",
        "minPrice": "0.01000000",
        "maxPrice": "2000.00000000",
        "tickSize": "0.01000000",
    }
    assert found["LOT_SIZE"] == {
        "filterType": "LOT_SIZE",
        "minQty": "0.00001000",
        "maxQty": "9000.00000000",
        "stepSize": "0.00001000",
    }
    assert found["NOTIONAL"] == {
        "filterType": "NOTIONAL",
        "minNotional": "5.00000000",
        "applyMinToMarket": True,
        "maxNotional": "9000000.00000000",
        "applyMaxToMarket": False,
        "avgPriceMins": 5,
    }
    assert found["PERCENT_PRICE_BY_SIDE"] == {
        "filterType": "PERCENT_PRICE_BY_SIDE",
        "bidMultiplierUp": "5",
        "bidMultiplierDown": "0.2",
        "askMultiplierUp": "5",
        "askMultiplierDown": "0.2",
        "avgPriceMins": 5,
    }
    assert found["MAX_NUM_ORDERS"] == {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200}
    assert found["MAX_NUM_ALGO_ORDERS"] == {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5}
    assert found["MAX_NUM_ORDER_LISTS"] == {"filterType": "MAX_NUM_ORDER_LISTS", "maxNumOrderLists": 20}
    assert found["MAX_NUM_ORDER_AMENDS"] == {"filterType": "MAX_NUM_ORDER_AMENDS", "maxNumOrderAmends": 10}


def test_filters_that_are_off_are_not_shown():
    assert [one["filterType"] for one in reference.filters(BARE)] == [
        "PRICE_FILTER",
        "LOT_SIZE",
        "MARKET_LOT_SIZE",
        "NOTIONAL",
    ]
    import msgspec

    full = msgspec.structs.replace(
        BARE,
        notional_filter="MIN_NOTIONAL",
        notional_min=7,
        position_max=9,
        percent_up=2 * 10**8,
        percent_down=5 * 10**7,
    )
    full = msgspec.structs.replace(full, trailing_above_min=1, trailing_below_max=9)
    found = {one.pop("filterType"): one for one in reference.filters(full)}
    assert found["TRAILING_DELTA"] == {
        "minTrailingAboveDelta": 1,
        "maxTrailingAboveDelta": 0,
        "minTrailingBelowDelta": 0,
        "maxTrailingBelowDelta": 9,
    }
    assert found["MIN_NOTIONAL"] == {"minNotional": "0.00000007", "applyToMarket": True, "avgPriceMins": 5}
    assert found["MAX_POSITION"] == {"maxPosition": "0.00900000"}
    assert found["PERCENT_PRICE"] == {"multiplierUp": "2", "multiplierDown": "0.5", "avgPriceMins": 5}


def test_an_execution_rule_shows_the_multipliers_there_are():
    import msgspec

    assert reference.execution_rules(BARE) == []
    one = msgspec.structs.replace(BARE, range_bid_up=150_000_000)
    assert reference.execution_rules(one) == [{"ruleType": "PRICE_RANGE", "bidLimitMultUp": "1.5"}]


def test_what_can_be_asked_for(venue):
    def names(**params):
        return [one["symbol"] for one in info(venue, **params)["symbols"]]

    assert names(symbol="ETHUSDT") == ["ETHUSDT"]
    assert names(symbols='["ETHUSDT","BTCUSDT"]') == ["ETHUSDT", "BTCUSDT"]
    assert names(permissions="SPOT") == ["BTCUSDT", "ETHUSDT"]
    assert names(permissions='["MARGIN"]') == []
    assert names(symbolStatus="HALT") == []
    assert info(venue, showPermissionSets="false")["symbols"][0]["permissionSets"] == []
    assert info(venue, 400, symbol="XRPUSDT")["code"] == -1121
    assert info(venue, 400, symbolStatus="WISH")["code"] == -1122
    assert info(venue, 400, symbol="BTCUSDT", symbols='["BTCUSDT"]')["code"] == -1128


def test_a_halt_shows(venue):
    venue.engine.set_status("BTCUSDT", "HALT")
    try:
        assert info(venue, symbol="BTCUSDT")["symbols"][0]["status"] == "HALT"
        assert [one["symbol"] for one in info(venue, symbolStatus="TRADING")["symbols"]] == ["ETHUSDT"]
    finally:
        venue.engine.set_status("BTCUSDT", "TRADING")
