"""What a request for an order list must say, must not say, and how it is told what is wrong."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.list_requests import list_orders
from shrivenq.pipeline.exchange.requests import METHODS, check
from tests.pipeline.exchange.engine_rig import PLAIN

ABOVE = {"aboveType": "LIMIT_MAKER", "abovePrice": "1.5"}
BELOW = {"belowType": "STOP_LOSS", "belowStopPrice": "0.5"}
OCO = {"symbol": PLAIN.name, "side": "SELL", "quantity": "2", **ABOVE, **BELOW}
WORKING = {
    "symbol": PLAIN.name, "workingType": "LIMIT", "workingSide": "BUY", "workingPrice": "1", "workingQuantity": "3",
    "workingTimeInForce": "GTC",
}  # fmt: skip
OTO = {**WORKING, "pendingType": "MARKET", "pendingSide": "SELL", "pendingQuantity": "3"}
OTOCO = {
    **WORKING, "pendingSide": "SELL", "pendingQuantity": "2", "pendingAboveType": "TAKE_PROFIT_LIMIT",
    "pendingAboveStopPrice": "1.4", "pendingAbovePrice": "1.3", "pendingAboveTimeInForce": "FOK",
    "pendingBelowType": "STOP_LOSS", "pendingBelowTrailingDelta": "30", "pendingBelowClientOrderId": "low",
}  # fmt: skip
LISTS = {"orderList.place.oco": OCO, "orderList.place.oto": OTO, "orderList.place.otoco": OTOCO}


def asked(kind, params):
    return list_orders(f"orderList.place.{kind}", PLAIN, check(f"orderList.place.{kind}", params))


def refused(kind, params):
    with pytest.raises(ApiError) as found:
        asked(kind, params)
    return found.value.code, found.value.msg


def test_each_leg_is_an_order():
    above, below = asked("oco", OCO)
    assert (above.side, above.type, above.quantity, above.price) == ("SELL", "LIMIT_MAKER", 200_000, 150)
    assert (below.side, below.type, below.quantity, below.stop_price) == ("SELL", "STOP_LOSS", 200_000, 50)
    working, pending = asked("oto", OTO)
    assert (working.side, working.price, working.time_in_force) == ("BUY", 100, "GTC")
    assert (pending.side, pending.type, pending.quantity) == ("SELL", "MARKET", 300_000)
    working, above, below = asked("otoco", OTOCO | {"selfTradePreventionMode": "NONE"})
    assert (working.quantity, above.quantity, below.quantity) == (300_000, 200_000, 200_000)
    assert (above.time_in_force, above.price, below.trailing_delta, below.client_id) == ("FOK", 130, 30, "low")
    assert {one.stp for one in (working, above, below)} == {"NONE"}


@pytest.mark.parametrize("name", LISTS)
def test_what_is_mandatory(name):
    kind = name.rsplit(".", 1)[1]
    for key in METHODS[name].mandatory:
        params = {one: value for one, value in LISTS[name].items() if one != key}
        assert refused(kind, params) == (
            -1102,
            f"Mandatory parameter '{key}' was not sent, was empty/null, or malformed.",
        )
    assert METHODS[name].orders == (3 if kind == "otoco" else 2)


@pytest.mark.parametrize(
    ("kind", "change", "code", "words"),
    [
        ("oco", {"abovePrice": None}, -1102, "'abovePrice'"),
        ("oco", {"belowStopPrice": None}, -1102, "Param 'belowStopPrice' or 'belowTrailingDelta' must be sent"),
        ("oco", {"belowPrice": "1"}, -1106, "'belowPrice'"),
        ("oco", {"abovePrice": "x"}, -1100, "'abovePrice'"),
        ("oco", {"abovePrice": "0.001"}, -1111, "'abovePrice'"),
        ("oco", {"quantity": "0.000001"}, -1111, "'quantity'"),
        ("oco", {"abovePrice": ""}, -1105, "'abovePrice'"),
        ("oco", {"aboveType": "LIMIT"}, -1158, "not supported in OCO"),
        ("oco", {"belowType": "LIMIT_MAKER", "belowStopPrice": None, "belowPrice": "1"}, -1168, "At least one"),
        ("oco", {"side": "BUY"}, -1165, "A limit order in a buy OCO must be below."),
        ("oco", {"aboveType": "STOP_LOSS", "belowType": "LIMIT_MAKER"}, -1197, "sell OCO must be below"),
        ("oco", {"aboveType": "TAKE_PROFIT", "belowType": "LIMIT_MAKER"}, -1166, "sell OCO must be above"),
        ("oco", {"aboveType": "TAKE_PROFIT", "belowType": "TAKE_PROFIT"}, -1199, "sell OCO must be above"),
        ("oco", {"side": "BUY", "aboveType": "TAKE_PROFIT"}, -1198, "buy OCO must be below"),
        ("oco", {"side": "BUY", "aboveType": "STOP_LOSS"}, -1196, "buy OCO must be above"),
        ("oco", {"abovePegPriceType": "PRIMARY_PEG"}, -1020, "not supported"),
        ("oto", {"workingType": "MARKET"}, -1130, "'workingType'"),
        ("oto", {"workingTimeInForce": None}, -1102, "'workingTimeInForce'"),
        ("oto", {"pendingType": "STOP_LOSS"}, -1102, "'pendingStopPrice'"),
        ("oto", {"pendingSide": "UP"}, -1117, "Invalid side."),
        ("oto", {"quantity": "1"}, -1104, "Not all sent parameters were read"),
        ("oto", {"workingTimeInForce": "IOC", "workingIcebergQty": "1"}, -1160, "'workingIcebergQty'"),
        ("otoco", {"pendingAboveTimeInForce": None}, -1102, "'pendingAboveTimeInForce'"),
        ("otoco", {"pendingBelowType": "TAKE_PROFIT"}, -1199, "sell OCO must be above"),
        ("otoco", {"pendingQuantity": "0.000001"}, -1111, "'pendingQuantity'"),
    ],
)
def test_what_is_refused(kind, change, code, words):
    params = {key: value for key, value in (LISTS[f"orderList.place.{kind}"] | change).items() if value is not None}
    found = refused(kind, params)
    assert (found[0], words in found[1]) == (code, True), found
