"""Orders in FIX are the same requests as the other protocols make."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange import requests
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.fix_dictionary import RefusedError, check
from shrivenq.pipeline.exchange.fix_orders import METHODS, PARAMETERS, parameters_of, tag_of
from shrivenq.pipeline.exchange.fix_wire import Message

HEADER = [(34, "2"), (49, "T"), (52, "20240627-11:17:25"), (56, "SPOT")]
BASE = {11: "a", 55: "BTCUSDT", 54: "1", 38: "1"}
STOP = {1100: "4", 1101: "1", 1107: "2", 1109: "U", 1102: "110"}


def asked(kind, fields):
    message = Message(kind, [*HEADER, *fields.items()])
    check(message)
    found = parameters_of(message)
    requests.check(METHODS[kind], found)
    return found


def code_of(kind, fields):
    with pytest.raises((ApiError, RefusedError)) as caught:
        asked(kind, fields)
    return caught.value.code


def test_a_limit_order():
    found = asked("D", BASE | {40: "2", 44: "100.50", 59: "1", 25001: "3", 847: "1000000", 7940: "-5", 111: "0.1"})
    assert found == {
        "newClientOrderId": "a", "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC",
        "quantity": "1", "price": "100.50", "selfTradePreventionMode": "EXPIRE_MAKER", "strategyType": "1000000",
        "strategyId": "-5", "icebergQty": "0.1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({40: "1"}, "MARKET"),
        ({40: "1", 152: "50", 38: None}, "MARKET"),
        ({40: "2", 44: "1", 59: "4"}, "LIMIT"),
        ({40: "2", 44: "1", 18: "6"}, "LIMIT_MAKER"),
        ({40: "3", **STOP}, "STOP_LOSS"),
        ({40: "4", 44: "1", 59: "1", **STOP}, "STOP_LOSS_LIMIT"),
        ({40: "3", **STOP, 1109: "D"}, "TAKE_PROFIT"),
        ({40: "4", 44: "1", 59: "3", **STOP, 1109: "D"}, "TAKE_PROFIT_LIMIT"),
        ({40: "3", **STOP, 54: "2"}, "TAKE_PROFIT"),
        ({40: "4", 44: "1", 59: "1", **STOP, 54: "2"}, "TAKE_PROFIT_LIMIT"),
        ({40: "3", **STOP, 54: "2", 1109: "D"}, "STOP_LOSS"),
        ({40: "4", 44: "1", 59: "1", **STOP, 54: "2", 1109: "D"}, "STOP_LOSS_LIMIT"),
        ({40: "3", 1100: "4", 1101: "1", 1107: "2", 25009: "100"}, "TAKE_PROFIT"),
    ],
)
def test_order_types(fields, kind):
    found = asked("D", {tag: value for tag, value in (BASE | fields).items() if value is not None})
    assert found["type"] == kind
    assert found.get("stopPrice") == fields.get(1102)
    assert found.get("quoteOrderQty") == fields.get(152)
    assert found.get("trailingDelta") == fields.get(25009)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({40: "P", 44: "1", 59: "1"}, -1020),
        ({40: "2", 44: "1", 59: "1", 1094: "4"}, -1020),
        ({40: "1", 18: "6"}, -1182),
        ({40: "3", **STOP, 18: "6"}, -1182),
        ({40: "2", 44: "1", 59: "1", 1102: "5"}, -1174),
        ({40: "1", **STOP}, -1174),
        ({40: "3"}, -1174),
        *(({40: "3", **{tag: value for tag, value in STOP.items() if tag != left}}, -1174) for left in (1100, 1101)),
        ({40: "3", **{tag: value for tag, value in STOP.items() if tag not in (1109, 1102)}}, -1174),
        ({40: "2", 44: "x", 59: "1"}, -1100),
        ({40: "2", 44: "-1", 59: "1"}, -1100),
        ({40: "2", 44: "1", 59: "1", 11: "a b"}, -1100),
        ({40: "2", 44: "1", 59: "1", 11: "a" * 37}, -1100),
        ({40: "2", 44: "1", 59: "1", 55: "btcusdt"}, -1100),
        ({40: "2", 44: "1", 59: "1", 847: "9" * 19}, -1108),
        ({40: "2", 44: "1", 59: "1", 7940: "9" * 19}, -1108),
    ],
)
def test_what_makes_no_order(fields, code):
    assert code_of("D", BASE | fields) == code


def test_requests_about_orders():
    which = {11: "c", 55: "BTCUSDT"}
    named = {"newClientOrderId": "c", "symbol": "BTCUSDT"}
    assert asked("F", which | {41: "a", 25002: "1"}) == named | {
        "origClientOrderId": "a",
        "cancelRestrictions": "ONLY_NEW",
    }
    assert asked("F", which | {37: "7", 25002: "2"}) == named | {
        "orderId": "7",
        "cancelRestrictions": "ONLY_PARTIALLY_FILLED",
    }
    assert asked("XAK", which | {37: "7", 38: "0.5"}) == named | {"orderId": "7", "newQty": "0.5"}
    assert asked("q", which | {530: "1"}) == {"symbol": "BTCUSDT"}
    assert code_of("q", which | {530: "1", 11: "a b"}) == -1100
    assert code_of("F", which) == -1102
    assert code_of("XAK", which | {38: "1"}) == -1102
    assert code_of("F", which | {37: "x"}) == -1100


@pytest.mark.parametrize("mode", "12")
@pytest.mark.parametrize("over", "12")
def test_cancel_replace(mode, over):
    found = asked("XCN", BASE | {40: "2", 44: "1", 59: "1", 37: "7", 25034: "c", 25033: mode, 25038: over, 25002: "2"})
    assert found == {
        "newClientOrderId": "a", "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC",
        "quantity": "1", "price": "1", "cancelOrderId": "7", "cancelNewClientOrderId": "c",
        "cancelReplaceMode": "STOP_ON_FAILURE" if mode == "1" else "ALLOW_FAILURE",
        "orderRateLimitExceededMode": "DO_NOTHING" if over == "1" else "CANCEL_ONLY",
        "cancelRestrictions": "ONLY_PARTIALLY_FILLED",
    }  # fmt: skip
    assert asked("XCN", BASE | {40: "1", 41: "b", 25033: mode})["cancelOrigClientOrderId"] == "b"
    assert code_of("XCN", BASE | {40: "1", 25033: mode}) == -1102


def test_the_field_an_error_is_about():
    assert tag_of("D", "Mandatory parameter 'price' was not sent, was empty/null, or malformed.") == 44
    assert tag_of("XAK", "Parameter 'newQty' has too much precision.") == 38
    assert tag_of("XCN", "Param 'cancelOrigClientOrderId' or 'cancelOrderId' must be sent") == 41
    assert tag_of("D", "Parameter 'type' sent when not required.") == 40
    assert tag_of("D", "Invalid symbol.") == 0
    assert tag_of("q", "Parameter 'price' has too much precision.") == 0


def test_every_parameter_is_one_of_the_method():
    for kind, names in PARAMETERS.items():
        method = requests.METHODS[METHODS[kind]]
        assert set(names.values()) <= {*method.mandatory, *method.optional}, kind
