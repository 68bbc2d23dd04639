"""exchangeInfo against the instruments: what is obeyed, what is refused, and what is hostile."""

from __future__ import annotations

import contextlib
import copy
import random
import re
from decimal import Decimal
from fractions import Fraction

import pytest

from shrivenq.pipeline.venue_symbols import (
    ORDER_TYPES,
    SELF_TRADE_MODES,
    Comparison,
    SymbolsError,
    compare,
    read_symbols,
)
from shrivenq.stages import control, risk_limits
from shrivenq.stages import messages as m
from tests.hostile_json import mutations
from tests.pipeline.pipeline_rig import rules

NOTHING = Comparison([], [], [], [])


def info(**changes):
    """What the venue would say of the shipped instruments; `changes` of BTCUSDT: status, or FILTER__key.

    Those of all symbols together, EXCHANGE__key, are of the filter whose number that key is.
    """
    filters = [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "maxPrice": "1000000.00000000", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000", "stepSize": "0.00001000"},
        {"filterType": "NOTIONAL", "minNotional": "5.00000000", "maxNotional": "9000000.00000000"},
        {"filterType": "ICEBERG_PARTS", "limit": 100},
        {"filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000", "maxQty": "9000.00000000", "stepSize": "0.00000000"},
        {"filterType": "PERCENT_PRICE", "multiplierUp": "5", "multiplierDown": "0.2", "avgPriceMins": 5},
        {"filterType": "PERCENT_PRICE_BY_SIDE", "bidMultiplierUp": "5", "bidMultiplierDown": "0.2",
         "askMultiplierUp": "5", "askMultiplierDown": "0.2", "avgPriceMins": 5},
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 0},
        {"filterType": "MAX_POSITION", "maxPosition": "0"},
    ]  # fmt: skip
    made, common = [], []
    for base, step in (("BTC", "0.00001"), ("ETH", "0.0001")):
        own = copy.deepcopy(filters)
        own[1]["stepSize"] = own[1]["minQty"] = step
        made.append({
            "symbol": f"{base}USDT", "status": "TRADING", "baseAsset": base, "quoteAsset": "USDT", "filters": own,
            "orderTypes": list(ORDER_TYPES), "allowedSelfTradePreventionModes": list(SELF_TRADE_MODES),
            "isSpotTradingAllowed": True, "amendAllowed": True, "cancelReplaceAllowed": True,
        })  # fmt: skip
    for key, value in changes.items():
        where, _, name = key.partition("__")
        if where == "EXCHANGE":
            kind = "EXCHANGE_MAX_NUM_ORDERS" if name == "maxNumOrders" else "EXCHANGE_MAX_NUM_ALGO_ORDERS"
            common.append({"filterType": kind, name: value})
        elif name:
            next(one for one in made[0]["filters"] if one["filterType"] == where)[name] = value
        else:
            made[0][key] = value
    return {"symbols": made, "exchangeFilters": common}


def compared(**changes):
    """Compare BTCUSDT; ETHUSDT, of which nothing is changed, must agree."""
    found = compare(read_symbols(info(**changes)), rules())
    assert found.instruments[1] == NOTHING
    return found.instruments[0]


def test_what_agrees_says_nothing():
    found = compare(read_symbols(info()), rules())
    assert found.instruments == [NOTHING, NOTHING]
    assert found.instruments[0].holds() == 0
    assert found.rules.risk == rules().risk
    assert (found.rules.tables.instruments == rules().tables.instruments).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"PRICE_FILTER__tickSize": "0.1"}, "BTCUSDT: tick is 0.01, the venue's tickSize is 0.1"),
        ({"PRICE_FILTER__tickSize": "0.001"}, "BTCUSDT: price_decimals is 2, the venue's tickSize 0.001 needs more"),
        ({"LOT_SIZE__stepSize": "0.1"}, "BTCUSDT: step is 0.00001, the venue's stepSize is 0.1"),
        ({"baseAsset": "XBT"}, "BTCUSDT: base is BTC, the venue's is XBT"),
        ({"symbol": "NEWUSDT"}, "BTCUSDT: the venue has no such symbol"),
    ],
)
def test_what_everything_is_built_on_refuses(change, said):
    found = compared(**change)
    assert found.refusals == [said]
    assert found.holds() == control.OTHER_RULES


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"PRICE_FILTER__minPrice": "10"}, "price_min", 1000),
        ({"PRICE_FILTER__maxPrice": "999.999"}, "price_max", 99_999),
        ({"LOT_SIZE__minQty": "0.5"}, "quantity_min", 50_000_000),
        ({"LOT_SIZE__maxQty": "10"}, "quantity_max", 1_000_000_000),
        ({"NOTIONAL__minNotional": "10"}, "notional_min", 1_000_000_000),
        ({"NOTIONAL__maxNotional": "100"}, "notional_max", 10_000_000_000),
        ({"MARKET_LOT_SIZE__minQty": "0.001"}, "market_quantity_min", 100_000),
        ({"MARKET_LOT_SIZE__maxQty": "100.5"}, "market_quantity_max", 10_050_000_000),
        ({"MARKET_LOT_SIZE__stepSize": "0.00004"}, "market_step", 4_000),
        ({"MARKET_LOT_SIZE__stepSize": "0.000015"}, "market_step", 3_000),
        ({"MAX_NUM_ALGO_ORDERS__maxNumAlgoOrders": 5}, "stop_orders_max", 5),
        ({"orderTypes": ["LIMIT", "MARKET", "LIMIT_MAKER", "STOP_LOSS", "OTHER"]}, "refused_types", 0b1110000),
        ({"allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "NONE"]}, "refused_modes", 0b111100),
        ({"amendAllowed": False}, "refused_requests", m.NO_AMEND),
        ({"cancelReplaceAllowed": False}, "refused_requests", m.NO_REPLACE),
    ],
)
def test_the_stricter_limit_is_obeyed_and_told(change, field, value):
    found, obeyed = compare(read_symbols(info(**change)), rules())
    assert found[1] == NOTHING
    assert not found[0].refusals
    assert len(found[0].stricter) == 1
    assert found[0].stricter[0] in found[0].notes[0]
    assert found[0].notes[0].endswith("the venue's is obeyed")
    assert found[0].holds() == control.OTHER_RULES
    assert obeyed.tables.instruments[0][field] == value
    assert compare(read_symbols(info(**change)), obeyed).instruments[0] == NOTHING, "obeyed, it no longer differs"


def test_a_laxer_limit_of_the_venue_changes_nothing_but_is_told():
    (found, _), obeyed = compare(read_symbols(info(LOT_SIZE__maxQty="10000", NOTIONAL__minNotional="1")), rules())
    assert found.holds() == 0
    assert len(found.notes) == 2
    assert all(line.endswith("the configuration's is obeyed") for line in found.notes)
    assert (obeyed.tables.instruments == rules().tables.instruments).all()


def test_a_rule_that_is_off_or_missing_is_none():
    assert compared(PRICE_FILTER__minPrice="0", PRICE_FILTER__tickSize="0.00") == NOTHING
    assert compared(filters=[]) == NOTHING


def test_no_highest_notional_of_ours_is_laxer_than_any():
    free = rules()
    free.tables.instruments["notional_max"] = 0
    obeyed = compare(read_symbols(info()), free).rules.tables.instruments
    assert obeyed[0]["notional_max"] == 900_000_000_000_000


@pytest.mark.parametrize(
    ("change", "field", "value", "said"),
    [
        ({"MAX_NUM_ORDERS__maxNumOrders": 7}, "open_orders_max", 7, "the venue's MAX_NUM_ORDERS.maxNumOrders is 7"),
        ({"EXCHANGE__maxNumOrders": 3}, "open_orders_max", 3, "the venue's EXCHANGE_MAX_NUM_ORDERS.maxNumOrders is 3"),
        ({"MAX_POSITION__maxPosition": "0.25"}, "position_max", "0.25", "the venue's maxPosition is 0.25"),
        ({"MAX_POSITION__maxPosition": "0.123456789"}, "position_max", "0.12345678", "maxPosition is 0.123456789"),
        ({"PERCENT_PRICE__multiplierUp": "1.005"}, "price_collar_bps", "50", "the venue's multiplierUp is 1.005"),
        ({"PERCENT_PRICE__multiplierDown": "0.998"}, "price_collar_bps", "20", "the venue's multiplierDown is 0.998"),
        ({"PERCENT_PRICE_BY_SIDE__bidMultiplierUp": "1.002"}, "price_collar_bps", "20", "bidMultiplierUp is 1.002"),
        ({"PERCENT_PRICE_BY_SIDE__bidMultiplierDown": "0.99"}, "price_collar_bps", "100", ""),
        ({"PERCENT_PRICE_BY_SIDE__askMultiplierUp": "1.00000123"}, "price_collar_bps", "0.0123", "1.00000123"),
        (
            {"PERCENT_PRICE_BY_SIDE__askMultiplierDown": "0.9999"},
            "price_collar_bps",
            "1",
            "askMultiplierDown is 0.9999",
        ),
        ({"PERCENT_PRICE_BY_SIDE__askMultiplierDown": "0"}, "price_collar_bps", "100", ""),
    ],
)
def test_risk_s_own_limits_become_the_stricter_ones(change, field, value, said):
    found, obeyed = compare(read_symbols(info(**change)), rules())
    assert getattr(rules().risk.limits["BTCUSDT"], field) != value or not said
    assert getattr(obeyed.risk.limits["BTCUSDT"], field) == value
    for one in found if "EXCHANGE__maxNumOrders" in change else found[:1]:
        assert len(one.stricter) == (said != "")
        assert not said or said in one.stricter[0]
    risk_limits.limit_rows(obeyed.risk, *obeyed.tables)
    assert compare(read_symbols(info(**change)), obeyed).instruments == [NOTHING, NOTHING], "obeyed, it differs no more"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"PERCENT_PRICE__multiplierUp": "1"}, "the venue's multiplierUp is 1: no price near the touch is left"),
        (
            {"PERCENT_PRICE__multiplierDown": "1.1"},
            "the venue's multiplierDown is 1.1: no price near the touch is left",
        ),
        ({"MAX_POSITION__maxPosition": "0.000000001"}, "maxPosition is 0.000000001: no position is left"),
        ({"MARKET_LOT_SIZE__stepSize": "0.000000003"}, "quantity_decimals is 8, the venue's MARKET_LOT_SIZE.stepSize"),
        ({"orderTypes": None}, "BTCUSDT: orderTypes is missing: a list of names expected"),
        ({"orderTypes": [1]}, "BTCUSDT: orderTypes is [1]: a list of names expected"),
        ({"allowedSelfTradePreventionModes": "NONE"}, "Modes is 'NONE': a list of names expected"),
        ({"amendAllowed": "true"}, "BTCUSDT: amendAllowed is 'true': true or false expected"),
        ({"cancelReplaceAllowed": None}, "BTCUSDT: cancelReplaceAllowed is missing: true or false expected"),
        ({"isSpotTradingAllowed": 1}, "BTCUSDT: isSpotTradingAllowed is 1: true or false expected"),
    ],
)
def test_what_leaves_nothing_or_makes_no_sense_refuses(change, said):
    (line,) = compared(**change).refusals
    assert said in line
    assert "\n" not in line


def test_a_symbol_without_spot_trading_is_halted():
    assert compared(isSpotTradingAllowed=False).halted == ["BTCUSDT: isSpotTradingAllowed is false"]


def ours_allow(row, price, quantity, *, market):
    """Ask the fields of an instrument what an order may be, as risk does."""
    value = Fraction(price * quantity, 10**8) if not market else row["notional_min"]
    most = row["market_quantity_max"] or row["quantity_max"]
    return (
        (market or row["price_min"] <= price <= row["price_max"])
        and row["quantity_min"] <= quantity <= row["quantity_max"]
        and value * 10**6 >= (row["notional_min"] if not market else 0)
        and (market or not row["notional_max"] or value * 10**6 <= row["notional_max"])
        and (not market or row["market_quantity_min"] <= quantity <= most)
        and not (market and row["market_step"] and quantity % row["market_step"])
    )


def venue_allows(filters, price, quantity, *, market):
    """Ask the venue's filters the same, in its own numbers."""
    price, quantity = Decimal(price).scaleb(-2), Decimal(quantity).scaleb(-8)

    def within(where, low, high, value):
        found = filters[where]
        return Decimal(found[low]) <= value and (not Decimal(found[high]) or value <= Decimal(found[high]))

    if market:
        step = Decimal(filters["MARKET_LOT_SIZE"]["stepSize"])
        lot = within("MARKET_LOT_SIZE", "minQty", "maxQty", quantity) and not (step and quantity % step)
        return lot and within("LOT_SIZE", "minQty", "maxQty", quantity)
    value = within("NOTIONAL", "minNotional", "maxNotional", price * quantity)
    return (
        value
        and within("PRICE_FILTER", "minPrice", "maxPrice", price)
        and within("LOT_SIZE", "minQty", "maxQty", quantity)
    )


@pytest.mark.parametrize("seed", range(20))
def test_what_is_obeyed_is_the_stricter_of_both(seed):
    pick = random.Random(seed)
    decimals = {"price": 4, "quantity": 8, "notional": 6}

    def number(kind, low, high):
        text = f"{pick.uniform(low, high):.{decimals[kind]}f}"
        return pick.choice((text, text, "0"))

    changes = {
        "PRICE_FILTER__minPrice": number("price", 1, 30_000), "PRICE_FILTER__maxPrice": number("price", 40_000, 2e6),
        "LOT_SIZE__minQty": number("quantity", 0, 1), "LOT_SIZE__maxQty": number("quantity", 5, 2e4),
        "MARKET_LOT_SIZE__minQty": number("quantity", 0, 2), "MARKET_LOT_SIZE__maxQty": number("quantity", 4, 2e4),
        "MARKET_LOT_SIZE__stepSize": pick.choice(("0", "0.00001", "0.00003", "0.001")),
        "NOTIONAL__minNotional": number("notional", 0, 1_000), "NOTIONAL__maxNotional": number("notional", 1e5, 1e7),
    }  # fmt: skip
    said = info(**changes)
    filters = {one["filterType"]: one for one in said["symbols"][0]["filters"]}
    found, obeyed = compare(read_symbols(said), rules())
    assert not found[0].refusals
    ours, both = rules().tables.instruments[0], obeyed.tables.instruments[0]
    decided = set()
    for _ in range(2_000):
        price, quantity = pick.randrange(1, 10**8), pick.choice((1, 100, 3_000)) * 1_000 * pick.randrange(1, 10**6)
        market = pick.random() < 0.5
        expected = ours_allow(ours, price, quantity, market=market) and venue_allows(
            filters, price, quantity, market=market
        )
        assert ours_allow(both, price, quantity, market=market) == expected, (changes, price, quantity, market)
        decided.add((market, expected))
    assert {(False, True), (False, False), (True, True), (True, False)} <= decided


@pytest.mark.parametrize("status", ["HALT", "BREAK", "END_OF_DAY", "CANCEL_ONLY", "SOMETHING_NEW"])
def test_a_symbol_that_is_not_trading_is_told(status):
    found = compared(status=status)
    assert found.halted == [f"BTCUSDT: status {status}, orders only in TRADING"]
    assert found.notes == found.halted
    assert not found.refusals
    assert found.holds() == control.NOT_TRADING


@pytest.mark.parametrize("name", ["PRICE_FILTER__minPrice", "LOT_SIZE__stepSize", "NOTIONAL__maxNotional"])
@pytest.mark.parametrize(
    "value", ["abc", "-1", "NaN", "Infinity", "1e99", str(1 << 70), "0." + "1" * 30, {}, [], True, None, 0.1]
)
def test_a_filter_that_is_no_number_is_refused_in_one_line(name, value):
    found = compared(**{name: value})
    (line,) = found.refusals
    assert re.fullmatch(rf"BTCUSDT: {name.replace('__', '.')} is [^\n]+", line)
    assert found.holds() == control.OTHER_RULES


@pytest.mark.parametrize(
    "hostile",
    [None, [], {}, {"symbols": []}, {"exchangeFilters": []}, *({"exchangeFilters": [], "symbols": one} for one in (
        None, {}, [None], [{}], [{"symbol": 1}])), {"symbols": [], "exchangeFilters": [{}]}],
)  # fmt: skip
def test_what_is_no_exchange_info_is_told(hostile):
    with pytest.raises(SymbolsError, match=r"^exchangeInfo: [^\n]+$"):
        read_symbols(hostile)


@pytest.mark.parametrize("change", [{"status": 1}, {"baseAsset": None}, {"quoteAsset": []}, {"filters": [1]},
                                    {"filters": {}}, {"filters": None}, {"filters": [{"filterType": 7}]}])  # fmt: skip
def test_a_symbol_that_makes_no_sense_is_refused_alone(change):
    found = compared(**change)
    (line,) = found.refusals
    assert re.fullmatch(r"BTCUSDT: exchangeInfo is not what was expected: [^\n]+", line)
    assert found.holds() == control.OTHER_RULES


def test_whatever_is_said_it_is_compared_or_refused():
    ours = rules()
    for hostile in mutations(info(), more=("1e500", "1e-500", "-0", "inf", str(1 << 70), 10**17)):
        with contextlib.suppress(SymbolsError):
            compare(read_symbols(hostile), ours)
