"""Every filter of exchangeInfo, at its very bounds."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.engine import Engine
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, changed, limit, market, order

MINUTE = 60_000_000


def verdict(engine, new, account=1, now_us=START_US):
    """Name the filter that refuses an order; "" for none."""
    error = engine.test(account, new, now_us)
    if error is None:
        return ""
    assert error.code == -1013, error
    return error.msg.removeprefix("Filter failure: ")


def trade(engine, price, quantity=100, now_us=START_US):
    """Make a trade, so that there is a price to refer to."""
    assert engine.place(2, limit("SELL", price, quantity), now_us).error is None
    assert engine.place(2, limit("BUY", price, quantity), now_us).order.status == "FILLED"


def test_price_filter():
    engine = market(tick=5, price_min=50, price_max=200)
    found = [verdict(engine, limit("BUY", price, 10)) for price in (45, 50, 52, 200, 205)]
    assert found == ["PRICE_FILTER", "", "PRICE_FILTER", "", "PRICE_FILTER"]
    stops = [order("BUY", "STOP_LOSS", stop_price=price, quantity=10) for price in (45, 50, 52, 200, 205)]
    assert [verdict(engine, one) for one in stops] == ["PRICE_FILTER", "", "PRICE_FILTER", "", "PRICE_FILTER"]


def test_a_price_beyond_the_ladder_is_too_far_away():
    engine = market()
    levels = int(engine.exchange.core.ladders[0]["levels"])
    assert verdict(engine, limit("SELL", levels, 1)) == ""
    assert verdict(engine, limit("SELL", levels + 1, 1)) == "PERCENT_PRICE_BY_SIDE"


def test_lot_size():
    engine = market(step=5, quantity_min=10, quantity_max=100)
    found = [verdict(engine, limit("BUY", 100, quantity)) for quantity in (5, 10, 12, 100, 105)]
    assert found == ["LOT_SIZE", "", "LOT_SIZE", "", "LOT_SIZE"]


def test_market_lot_size_is_for_market_orders_alone():
    engine = market(market_step=10, market_quantity_min=20, market_quantity_max=50)
    found = [verdict(engine, order("SELL", "MARKET", quantity=quantity)) for quantity in (10, 20, 25, 50, 60)]
    assert found == ["MARKET_LOT_SIZE", "", "MARKET_LOT_SIZE", "", "MARKET_LOT_SIZE"]
    assert verdict(engine, limit("BUY", 100, 10)) == ""


@pytest.mark.parametrize("name", ["NOTIONAL", "MIN_NOTIONAL"])
def test_the_smallest_notional_and_whether_market_orders_need_it(name):
    # One of price × one of quantity is 10 quote units.
    engine = market(notional_filter=name, notional_min=10_000, apply_min_to_market=True)
    assert [verdict(engine, limit("BUY", 100, quantity)) for quantity in (9, 10)] == [name, ""]
    assert verdict(engine, order("SELL", "MARKET", quantity=1)) == "", "no price to value it at"
    trade(engine, 100)
    assert [verdict(engine, order("SELL", "MARKET", quantity=one)) for one in (9, 10)] == [name, ""]
    assert verdict(engine, order("BUY", "MARKET", quote_quantity=9_999)) == name
    engine = market(notional_filter=name, notional_min=10_000, apply_min_to_market=False)
    trade(engine, 100)
    assert verdict(engine, order("SELL", "MARKET", quantity=1)) == ""


def test_the_largest_notional():
    engine = market(notional_max=10_000, apply_max_to_market=False)
    assert [verdict(engine, limit("BUY", 100, quantity)) for quantity in (10, 11)] == ["", "NOTIONAL"]
    engine = market(notional_max=1_000_000, apply_max_to_market=True)
    trade(engine, 100)
    assert [verdict(engine, order("SELL", "MARKET", quantity=one)) for one in (1000, 1001)] == ["", "NOTIONAL"]


def test_a_notional_between_two_units_is_not_rounded_into_the_range():
    # 10 prices × quantities are one quote unit: 99 of them are less than 10 units, 101 are more.
    coarse = {"price_decimals": 5, "quantity_decimals": 4, "quote_decimals": 8}
    least, most = market(notional_min=10, **coarse), market(notional_max=10, **coarse)
    assert [verdict(least, limit("BUY", price, 1)) for price in (99, 100)] == ["NOTIONAL", ""]
    assert [verdict(most, limit("BUY", price, 1)) for price in (100, 101)] == ["", "NOTIONAL"]


def test_percent_price_refers_to_the_average_and_not_before_there_is_one():
    engine = market(percent_up=150_000_000, percent_down=50_000_000, average_minutes=1)
    assert verdict(engine, limit("BUY", 1, 1)) == ""
    trade(engine, 100, 100)
    trade(engine, 150, 300)  # average 137
    found = [verdict(engine, limit("BUY", price, 1)) for price in (68, 69, 205, 206)]
    assert found == ["PERCENT_PRICE", "", "", "PERCENT_PRICE"]
    # A minute later nothing is left but the last price.
    found = [verdict(engine, limit("BUY", price, 1), now_us=START_US + MINUTE) for price in (74, 75, 225, 226)]
    assert found == ["PERCENT_PRICE", "", "", "PERCENT_PRICE"]


def test_percent_price_by_side():
    engine = market(
        bid_percent_up=110_000_000, bid_percent_down=50_000_000,
        ask_percent_up=200_000_000, ask_percent_down=90_000_000, average_minutes=0,
    )  # fmt: skip
    trade(engine, 100)
    assert [bool(verdict(engine, limit("BUY", price, 1))) for price in (49, 50, 110, 111)] == [True, False, False, True]
    assert [bool(verdict(engine, limit("SELL", price, 1))) for price in (89, 90, 200, 201)] == [
        True,
        False,
        False,
        True,
    ]
    assert verdict(engine, limit("BUY", 111, 1)) == "PERCENT_PRICE_BY_SIDE"


def test_open_orders_of_an_account_in_a_symbol_and_everywhere():
    engine = market(orders_max=2)
    for _ in range(2):
        assert engine.place(1, limit("BUY", 100, 1), START_US).error is None
    assert verdict(engine, limit("BUY", 100, 1)) == "MAX_NUM_ORDERS"
    assert verdict(engine, limit("BUY", 100, 1), account=2) == ""
    engine.cancel(1, PLAIN.name, START_US, order_id=1)
    assert verdict(engine, limit("BUY", 100, 1)) == ""

    engine = Engine([PLAIN, changed(PLAIN, name="ETHUSDT", base="ETH")], seed=1, orders_max=2, algo_orders_max=1)
    engine.open_account({"BTC": 10**12, "USDT": 10**12})
    engine.place(1, order("BUY", "STOP_LOSS", stop_price=200, quantity=1), START_US)
    stop = order("BUY", "STOP_LOSS", stop_price=200, quantity=1, symbol="ETHUSDT")
    assert verdict(engine, stop) == "EXCHANGE_MAX_NUM_ALGO_ORDERS"
    engine.place(1, limit("BUY", 100, 1), START_US)
    assert verdict(engine, limit("BUY", 100, 1, symbol="ETHUSDT")) == "EXCHANGE_MAX_NUM_ORDERS"


def test_stop_orders_count_while_they_wait():
    engine = market(algo_orders_max=1)
    stop = order("BUY", "STOP_LOSS_LIMIT", time_in_force="GTC", stop_price=200, price=50, quantity=1)
    engine.place(1, stop, START_US)
    assert verdict(engine, stop) == "MAX_NUM_ALGO_ORDERS"
    assert verdict(engine, limit("BUY", 100, 1)) == ""
    trade(engine, 200)
    assert engine.order(1, PLAIN.name, order_id=1).is_working
    # It would trigger at once now, which is no longer the filter's business.
    assert engine.test(1, stop, START_US).code == -2010


@pytest.mark.parametrize(
    ("side", "kind", "above"),
    [
        ("BUY", "STOP_LOSS", True),
        ("SELL", "TAKE_PROFIT", True),
        ("SELL", "STOP_LOSS", False),
        ("BUY", "TAKE_PROFIT", False),
    ],
)
def test_trailing_delta(side, kind, above):
    engine = market(trailing_above_min=10, trailing_above_max=20, trailing_below_min=30, trailing_below_max=40)
    name, inside, outside = "TRAILING_DELTA", ((10, 20), (30, 40))[not above], ((9, 21), (29, 41))[not above]
    for more in ({}, {"time_in_force": "GTC", "price": 100}):
        new = {"quantity": 1, **more}
        kind_of = kind + "_LIMIT" * bool(more)
        for deltas, word in ((inside, ""), (outside, name)):
            found = [verdict(engine, order(side, kind_of, trailing_delta=one, **new)) for one in deltas]
            assert found == [word, word], kind_of
    assert verdict(engine, order(side, kind, stop_price=100, quantity=1)) == "", "it does not trail"
    assert verdict(market(), order(side, kind, trailing_delta=1, quantity=1)) == "", "the filter is off"
    assert verdict(market(), order(side, kind, trailing_delta=0, quantity=1)) == name, "no delta is none"


def test_trailing_stops_are_algorithmic_orders():
    engine = market(algo_orders_max=1)
    new = order("SELL", "STOP_LOSS", trailing_delta=100, quantity=1)
    engine.place(1, new, START_US)
    assert verdict(engine, new) == "MAX_NUM_ALGO_ORDERS"
    trade(engine, 100)
    trade(engine, 99)
    assert verdict(engine, new) == ""


def test_icebergs():
    engine = market(step=5, quantity_min=10, iceberg_parts_max=3, icebergs_max=1)
    parts = [limit("BUY", 100, 100, iceberg_quantity=part) for part in (5, 33, 30, 35, 200)]
    assert [verdict(engine, one) for one in parts] == ["LOT_SIZE", "LOT_SIZE", "ICEBERG_PARTS", "", ""]
    engine.place(1, parts[3], START_US)
    assert verdict(engine, parts[3]) == "MAX_NUM_ICEBERG_ORDERS"
    assert verdict(engine, limit("BUY", 100, 100)) == ""
    engine.cancel(1, PLAIN.name, START_US, order_id=1)
    assert verdict(engine, parts[3]) == ""
    refused = {"LIMIT": {"time_in_force": "IOC", "price": 100}, "MARKET": {}, "STOP_LOSS": {"stop_price": 200}}
    for kind, fields in refused.items():
        error = engine.test(1, order("BUY", kind, quantity=100, iceberg_quantity=50, **fields), START_US)
        assert error == (-1014, "Unsupported order combination."), kind


def test_position():
    engine = Engine([changed(PLAIN, position_max=30)], seed=1)
    engine.open_account({"BTC": 10_000, "USDT": 10**12})  # 10 of quantity
    engine.place(1, limit("BUY", 100, 15), START_US)
    assert [verdict(engine, limit("BUY", 100, quantity)) for quantity in (5, 6)] == ["", "MAX_POSITION"]
    assert verdict(engine, limit("SELL", 200, 6)) == ""
    seller = engine.open_account({"BTC": 10**12})
    engine.place(seller, limit("SELL", 200, 100), START_US)
    # One of price × one of quantity is 10 quote units.
    found = [verdict(engine, order("BUY", "MARKET", quote_quantity=2_000 * quantity)) for quantity in (5, 6)]
    assert found == ["", "MAX_POSITION"]


def test_largest_amount_of_an_asset_in_one_order():
    engine = Engine([PLAIN], seed=1, asset_max={"BTC": 10_000, "USDT": 50_000})
    engine.open_account({"BTC": 10**12, "USDT": 10**12})
    assert [verdict(engine, limit("BUY", 1, quantity)) for quantity in (10, 11)] == ["", "MAX_ASSET"]
    assert [verdict(engine, limit("BUY", price, 10)) for price in (500, 501)] == ["", "MAX_ASSET"]
    # Orders without a limit are worth what the reference price says, those by value what they say.
    seller = engine.open_account({"BTC": 10**12, "USDT": 10**12})
    engine.place(seller, limit("SELL", 1_000, 1), START_US)
    engine.place(seller, limit("BUY", 1_000, 1), START_US)
    for price in (400, 1_000):
        engine.place(seller, limit("SELL", price, 5), START_US)
        engine.place(seller, limit("SELL", price, 10), START_US)
    by_quantity = [order("BUY", "MARKET", quantity=quantity) for quantity in (5, 6)]
    assert [verdict(engine, one) for one in by_quantity] == ["", "MAX_ASSET"]
    by_value = [order("BUY", "MARKET", quote_quantity=4_000 * quantity) for quantity in (10, 11, 12, 13)]
    assert [verdict(engine, one) for one in by_value] == ["", "MAX_ASSET", "MAX_ASSET", "MAX_ASSET"]


def test_amendments():
    engine = market(amends_max=1, step=5, quantity_min=5)
    engine.place(1, limit("BUY", 100, 50), START_US)

    def amend(quantity):
        error = engine.amend(1, PLAIN.name, START_US, order_id=1, new_quantity=quantity).error
        return error and error.msg

    assert amend(12) == "Filter failure: LOT_SIZE"
    assert amend(40) is None
    assert amend(30) == "Filter failure: MAX_NUM_ORDER_AMENDS"


@pytest.mark.parametrize("name", ["NOTIONAL", "MIN_NOTIONAL"])
def test_an_amendment_below_the_smallest_notional_names_the_symbols_own_filter(name):
    engine = market(notional_filter=name, notional_min=10_000)
    engine.place(1, limit("BUY", 100, 50), START_US)
    error = engine.amend(1, PLAIN.name, START_US, order_id=1, new_quantity=9).error
    assert error == (-2038, f"Filter failure: {name}")


def test_products_beyond_64_bits_are_refused_and_not_wrapped():
    engine = market(quantity_max=0)
    for quantity in (10**15, 4 * 10**18):
        assert engine.test(1, limit("BUY", 100_000, quantity), START_US).code == -1108
