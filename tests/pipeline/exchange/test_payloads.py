"""Numbers as text; objects with exactly the venue's fields."""

from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shrivenq.pipeline.exchange import payloads
from shrivenq.pipeline.exchange.payloads import Format, multiplier_text, rate_text, to_text
from shrivenq.pipeline.exchange.types import Error, Fill, OrderView, Outcome, Symbol

SYMBOL = Symbol(name="BTCUSDT", base="BTC", quote="USDT", price_decimals=2, quantity_decimals=5, tick=1, step=1)
FORM = Format(SYMBOL)
ORDER = OrderView(
    account=1, symbol="BTCUSDT", order_id=12569099453, client_id="mine", side="SELL", type="LIMIT",
    time_in_force="GTC", price=52000_00, quantity=1000, quote_quantity=0, stop_price=0, executed=400,
    cumulative_quote=208_00000000, status="PARTIALLY_FILLED", stp="NONE", prevented=0, prevented_match_id=-1,
    created_us=1_000_001, updated_us=2_000_001, working_us=1_000_001, expiry_reason=None, strategy_id=None,
    strategy_type=None, amends=0, trade_group=-1,
)  # fmt: skip
FILL = Fill(
    account=1, symbol="BTCUSDT", order_id=12569099453, trade_id=7, price=52000_00, quantity=400,
    quote=208_00000000, commission=20_800_000, commission_asset="USDT", time_us=1_000_001, is_buyer=False,
    is_maker=False,
)  # fmt: skip
OUTCOME = Outcome(
    error=None, order=ORDER, fills=(FILL,), client_id="mine", original_client_id="old", time_us=1_000_001,
    execution_id=75,
)  # fmt: skip
SIZES = {
    "price": "52000.00000000",
    "origQty": "0.01000000",
    "executedQty": "0.00400000",
    "origQuoteOrderQty": "0.00000000",
    "cummulativeQuoteQty": "208.00000000",
    "status": "PARTIALLY_FILLED",
    "timeInForce": "GTC",
    "type": "LIMIT",
    "side": "SELL",
}
ACK = {
    "symbol": "BTCUSDT",
    "orderId": 12569099453,
    "orderListId": -1,
    "clientOrderId": "mine",
    "transactTime": 1000,
}


def millis(time_us):
    return time_us // 1000


@given(st.integers(-(10**25), 10**25), st.integers(0, 12))
def test_a_number_is_written_with_all_its_decimals(value, decimals):
    text = to_text(value, decimals)
    assert Decimal(text) * 10**decimals == value
    assert len(text.partition(".")[2]) == decimals


@given(st.integers(0, 10**12))
def test_a_multiplier_is_written_short(value):
    text = multiplier_text(value)
    assert Decimal(text) * 10**8 == value
    assert "." not in text or not text.endswith(("0", "."))


def test_examples_of_numbers():
    assert (multiplier_text(5 * 10**8), multiplier_text(2 * 10**7), multiplier_text(0)) == ("5", "0.2", "0")
    assert rate_text(100_000) == "0.00100000"
    assert FORM.levels([(123, 45)]) == [["1.23000000", "0.00045000"]]
    assert (FORM.price(1), FORM.quantity(1), FORM.quote(1)) == ("0.01000000", "0.00001000", "0.00000001")
    base = msgspec.structs.replace(FILL, commission=5, commission_asset="BTC")
    assert (FORM.commission(FILL), FORM.commission(base)) == ("0.20800000", "0.00000005")


def test_a_new_order_is_answered_in_three_lengths():
    assert payloads.new_order(OUTCOME, FORM, millis, "ACK") == ACK
    result = {**ACK, **SIZES, "workingTime": 1000, "selfTradePreventionMode": "NONE"}
    assert payloads.new_order(OUTCOME, FORM, millis, "RESULT") == result
    fill = {
        "price": "52000.00000000",
        "qty": "0.00400000",
        "commission": "0.20800000",
        "commissionAsset": "USDT",
        "tradeId": 7,
    }
    assert payloads.new_order(OUTCOME, FORM, millis, "FULL") == {**result, "fills": [fill]}


def test_conditional_fields_come_when_they_say_something():
    order = msgspec.structs.replace(
        ORDER,
        type="STOP_LOSS_LIMIT",
        stop_price=53000_00,
        working_us=0,
        strategy_id=3,
        strategy_type=1_000_000,
        prevented=100,
        prevented_match_id=9,
        expiry_reason="INSUFFICIENT_LIQUIDITY",
    )
    body = payloads.new_order(msgspec.structs.replace(OUTCOME, order=order), FORM, millis, "RESULT")
    extra = {
        "stopPrice": "53000.00000000",
        "strategyId": 3,
        "strategyType": 1_000_000,
        "preventedMatchId": 9,
        "preventedQuantity": "0.00100000",
        "expiryReason": "INSUFFICIENT_LIQUIDITY",
    }
    assert body == {
        **ACK,
        **SIZES,
        "type": "STOP_LOSS_LIMIT",
        "workingTime": -1,
        "selfTradePreventionMode": "NONE",
        **extra,
    }


def test_a_trailing_stop_says_since_when_it_follows():
    for trailing_us, said in ((0, -1), (1_700_000_000_123_456, 1_700_000_000_123)):
        order = msgspec.structs.replace(ORDER, type="STOP_LOSS_LIMIT", trailing_delta=25, trailing_us=trailing_us)
        outcome = msgspec.structs.replace(OUTCOME, order=order)
        for body in (
            payloads.new_order(outcome, FORM, millis, "RESULT"),
            payloads.cancelled(outcome, FORM, millis),
            payloads.order_status(order, FORM, millis),
        ):
            assert (body["trailingDelta"], body["trailingTime"]) == (25, said)


def test_a_cancel_is_answered_with_its_own_id():
    body = payloads.cancelled(msgspec.structs.replace(OUTCOME, client_id="cancel"), FORM, millis)
    head = {**ACK, "clientOrderId": "cancel", "origClientOrderId": "old"}
    assert body == {**head, **SIZES, "selfTradePreventionMode": "NONE"}


def test_an_amendment():
    body = payloads.amended(OUTCOME, FORM, lambda time_us: time_us)
    assert (body["transactTime"], body["executionId"]) == (1_000_001, 75)
    assert body["amendedOrder"] == {
        "symbol": "BTCUSDT",
        "orderId": 12569099453,
        "orderListId": -1,
        "origClientOrderId": "old",
        "clientOrderId": "mine",
        "price": "52000.00000000",
        "qty": "0.01000000",
        "executedQty": "0.00400000",
        "preventedQty": "0.00000000",
        "quoteOrderQty": "0.00000000",
        "cumulativeQuoteQty": "208.00000000",
        "status": "PARTIALLY_FILLED",
        "timeInForce": "GTC",
        "type": "LIMIT",
        "side": "SELL",
        "workingTime": 1_000_001,
        "selfTradePreventionMode": "NONE",
    }


def test_a_query_about_an_order():
    assert payloads.order_status(ORDER, FORM, millis) == {
        "symbol": "BTCUSDT",
        "orderId": 12569099453,
        "orderListId": -1,
        "clientOrderId": "mine",
        **SIZES,
        "stopPrice": "0.00000000",
        "icebergQty": "0.00000000",
        "time": 1000,
        "updateTime": 2000,
        "isWorking": True,
        "workingTime": 1000,
        "selfTradePreventionMode": "NONE",
    }


def test_a_trade_of_ones_own():
    assert payloads.my_trade(FILL, FORM, millis) == {
        "symbol": "BTCUSDT",
        "id": 7,
        "orderId": 12569099453,
        "orderListId": -1,
        "price": "52000.00000000",
        "qty": "0.00400000",
        "quoteQty": "208.00000000",
        "commission": "0.20800000",
        "commissionAsset": "USDT",
        "time": 1000,
        "isBuyer": False,
        "isMaker": False,
        "isBestMatch": True,
    }


def test_a_refusal_of_the_engine():
    assert payloads.refusal(Error(-2011, "Unknown order sent.")) == {"code": -2011, "msg": "Unknown order sent."}
