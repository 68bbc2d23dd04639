"""Requests: what is refused, and in which words."""

from __future__ import annotations

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrivenq.pipeline.exchange import requests
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.types import NewOrder, Symbol

SYMBOL = Symbol(name="BTCUSDT", base="BTC", quote="USDT", price_decimals=2, quantity_decimals=5, tick=1, step=1)
LIMIT = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": "1", "quantity": "2"}
STOP = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_LOSS", "quantity": "1", "stopPrice": "5"}


def refused(call, *arguments):
    """Give the code and message of a refusal."""
    with pytest.raises(ApiError) as caught:
        call(*arguments)
    return caught.value.code, caught.value.msg


def without(params, *keys):
    return {key: value for key, value in params.items() if key not in keys}


def test_an_order_in_the_symbols_integers():
    values = requests.check("order.place", {**LIMIT, "price": "52000.10", "quantity": "0.01000000", "strategyId": -4})
    assert requests.new_order(SYMBOL, values) == NewOrder(
        symbol="BTCUSDT", side="BUY", type="LIMIT", time_in_force="GTC", price=5200010, quantity=1000, strategy_id=-4
    )


@pytest.mark.parametrize(
    ("name", "params", "code", "words"),
    [
        ("depth", {}, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
        ("depth", {"symbol": ""}, -1105, "Parameter 'symbol' was empty."),
        ("depth", {"symbol": None}, -1105, "Parameter 'symbol' was empty."),
        ("depth", {"symbol": "btcusdt"}, -1100, "parameter 'symbol'; legal range"),
        ("depth", {"symbol": {"a": 1}}, -1130, "Data sent for parameter 'symbol' is not valid."),
        ("depth", {"symbol": True}, -1130, "Data sent for parameter 'symbol' is not valid."),
        ("depth", {"symbol": "A", "limit": "ten"}, -1100, "parameter 'limit'; legal range is '^[0-9]{1,20}$'."),
        ("depth", {"symbol": "A", "limit": "0"}, -1130, "Data sent for parameter 'limit' is not valid."),
        ("depth", {"symbol": "A", "limit": -1}, -1100, "parameter 'limit'"),
        ("depth", {"symbol": "A", "limit": "99999999999999999999"}, -1108, "Parameter 'limit' overflowed."),
        ("depth", {"symbol": "A", "x": 1}, -1104, "read '1' parameter(s) but was sent '2'."),
        ("trades.recent", {"symbol": "A", "limit": 1001}, -1130, "Data sent for parameter 'limit' is not valid."),
        ("time", {"symbol": "A"}, -1101, "Too many parameters; expected '0' and received '1'."),
        ("ticker.book", {"symbol": "A", "symbols": ["B"]}, -1128, "Combination of optional parameters invalid."),
        ("ticker.book", {"symbols": ["B", "B"]}, -1151, "Symbol is present multiple times in the list."),
        ("ticker.book", {"symbols": [1]}, -1100, "parameter 'symbols'"),
        ("ticker.book", {"symbols": 7}, -1100, "parameter 'symbols'"),
        ("exchangeInfo", {"symbolStatus": "OPEN"}, -1122, "Invalid symbolStatus."),
        ("order.place", {**LIMIT, "side": "buy"}, -1117, "Invalid side."),
        ("order.place", {**LIMIT, "type": "ICEBERG"}, -1116, "Invalid orderType."),
        ("order.place", {**LIMIT, "timeInForce": "GTX"}, -1115, "Invalid timeInForce."),
        ("order.place", {**LIMIT, "price": "-1"}, -1100, "parameter 'price'; legal range is"),
        ("order.place", {**LIMIT, "price": "1e5"}, -1100, "parameter 'price'"),
        ("order.place", {**LIMIT, "price": "١"}, -1100, "parameter 'price'"),
        ("order.place", {**LIMIT, "price": ["1"]}, -1130, "Data sent for parameter 'price' is not valid."),
        ("order.place", {**LIMIT, "newClientOrderId": "a b"}, -1100, "parameter 'newClientOrderId'"),
        ("order.place", {**LIMIT, "newClientOrderId": "a" * 37}, -1100, "parameter 'newClientOrderId'"),
        ("order.place", {**LIMIT, "newOrderRespType": "ALL"}, -1130, "parameter 'newOrderRespType' is not valid."),
        ("order.place", {**LIMIT, "recvWindow": "60001"}, -1131, "recvWindow must be less than 60000"),
        ("order.place", {**LIMIT, "recvWindow": "1.2345"}, -1100, "parameter 'recvWindow'"),
        ("order.cancel", {"symbol": "A"}, -1102, "Param 'origClientOrderId' or 'orderId' must be sent"),
        ("order.cancel", {"symbol": "A", "orderId": 1, "cancelRestrictions": "NEW"}, -1145, "`cancelRestrictions` has"),
        ("order.cancelReplace", {**LIMIT, "cancelReplaceMode": "STOP_ON_FAILURE"}, -1102, "cancelOrderId"),
        ("account.status", {"omitZeroBalances": "yes"}, -1130, "parameter 'omitZeroBalances' is not valid."),
        ("myTrades", {"symbol": "A", "startTime": 5, "endTime": 4}, -1128, "Combination"),
        ("myTrades", {"symbol": "A", "startTime": 0, "endTime": 86_400_001}, -1127, "More than 24 hours"),
    ],
)
def test_what_is_refused(name, params, code, words):
    got, msg = refused(requests.check, name, params)
    assert got == code, msg
    assert words in msg


@pytest.mark.parametrize(
    ("params", "code", "words"),
    [
        (without(LIMIT, "timeInForce"), -1102, "Mandatory parameter 'timeInForce'"),
        (without(LIMIT, "price"), -1102, "Mandatory parameter 'price'"),
        (without(LIMIT, "quantity"), -1102, "Mandatory parameter 'quantity'"),
        ({**LIMIT, "stopPrice": "1"}, -1106, "Parameter 'stopPrice' sent when not required."),
        ({**LIMIT, "quoteOrderQty": "1"}, -1106, "Parameter 'quoteOrderQty' sent when not required."),
        ({**LIMIT, "type": "MARKET"}, -1106, "Parameter 'price' sent when not required."),
        ({**without(LIMIT, "price"), "type": "MARKET"}, -1106, "Parameter 'timeInForce' sent when not required."),
        ({**LIMIT, "type": "LIMIT_MAKER"}, -1106, "Parameter 'timeInForce' sent when not required."),
        ({"type": "MARKET", "side": "BUY"}, -1102, "Param 'quantity' or 'quoteOrderQty' must be sent"),
        ({"type": "MARKET", "side": "BUY", "quantity": "1", "quoteOrderQty": "1"}, -1128, "Combination"),
        (without(STOP, "stopPrice"), -1102, "Param 'stopPrice' or 'trailingDelta' must be sent"),
        (without(STOP, "quantity"), -1102, "Mandatory parameter 'quantity'"),
        ({**STOP, "type": "TAKE_PROFIT_LIMIT"}, -1102, "Mandatory parameter 'timeInForce'"),
        ({**LIMIT, "timeInForce": "IOC", "icebergQty": "1"}, -1013, "Unsupported order combination"),
        ({**LIMIT, "pegPriceType": "PRIMARY_PEG"}, -1020, "This operation is not supported."),
        ({**LIMIT, "strategyType": 999_999}, -1134, "`strategyType` was less than 1000000."),
        ({**LIMIT, "price": "0.001"}, -1111, "Parameter 'price' has too much precision."),
        ({**LIMIT, "quantity": "99999999999999999999"}, -1108, "Parameter 'quantity' overflowed."),
    ],
)
def test_which_orders_are_refused(params, code, words):
    got, msg = refused(requests.new_order, SYMBOL, requests.check("order.place", {"symbol": "BTCUSDT", **params}))
    assert got == code, msg
    assert words in msg


def test_json_values_and_text_are_read_alike():
    assert requests.check("order.status", {"symbol": "A", "orderId": 7}) == requests.check(
        "order.status", {"symbol": "A", "orderId": "7"}
    )
    for sent in (True, "true"):
        assert requests.check("account.status", {"omitZeroBalances": sent})["omitZeroBalances"] is True
    for symbols in (["A", "B"], '["A","B"]'):
        assert requests.check("ticker.book", {"symbols": symbols})["symbols"] == ["A", "B"]


def test_a_window_has_three_decimals():
    assert requests.check("account.status", {"recvWindow": "1.5"})["recvWindow"] == 1500


def test_what_requests_weigh():
    assert [requests.weight("depth", {"limit": n}) for n in (1, 100, 101, 500, 501, "1000", 1001)] == [
        5, 5, 25, 25, 50, 50, 250,
    ]  # fmt: skip
    assert requests.weight("depth", {"limit": "x"}) == 5
    assert (requests.weight("openOrders.status", {}), requests.weight("openOrders.status", {"symbol": "A"})) == (80, 6)
    assert (requests.weight("myTrades", {}), requests.weight("myTrades", {"orderId": 1})) == (20, 5)
    assert requests.weight("order.test", {"computeCommissionRates": True}) == 20
    assert requests.weight("order.amend.keepPriority", {}) == 4


def test_how_much_is_answered():
    assert requests.response_type({"type": "MARKET"}) == "FULL"
    assert requests.response_type({"type": "LIMIT_MAKER"}) == "ACK"
    assert requests.response_type({"type": "LIMIT", "newOrderRespType": "RESULT"}) == "RESULT"


@given(st.decimals(0, 10**9, places=5), st.integers(0, 8))
def test_decimals_are_scaled_exactly(number, decimals):
    wanted = number.scaleb(decimals)
    text = f"{number:f}"
    if wanted == wanted.to_integral_value():
        assert requests.scaled("price", text, decimals) == int(wanted)
        assert Decimal(requests.scaled("price", text, decimals)).scaleb(-decimals) == number
    else:
        assert refused(requests.scaled, "price", text, decimals)[0] == -1111


HOSTILE = (
    "",
    "A",
    "BUY",
    "LIMIT",
    "1",
    "-1",
    "0.1",
    "\N{SNOWMAN}",
    "x" * 100,
    7,
    -7,
    1 << 70,
    None,
    True,
    [],
    ["A"],
    {},
)


@given(st.sampled_from(sorted(requests.METHODS)), st.randoms(use_true_random=False))
def test_anything_else_is_an_answer_too(name, chance):
    names = ("symbol", "side", "type", "x", *requests.ORDER, "symbols", "orderId", "timestamp")
    params = {key: chance.choice(HOSTILE) for key in chance.sample(names, chance.randrange(6))}
    requests.weight(name, params)
    with contextlib.suppress(ApiError):
        values = requests.check(name, params)
        if "type" in values:
            requests.new_order(SYMBOL, values)
