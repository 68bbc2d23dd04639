"""What an order must say, and what it must not."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.entry import check_entry
from shrivenq.pipeline.exchange.refusals import not_required
from shrivenq.pipeline.exchange.types import NewOrder
from tests.pipeline.exchange.engine_rig import PLAIN, changed

FULL = {
    "LIMIT": {"time_in_force": "GTC", "price": 1, "quantity": 1},
    "LIMIT_MAKER": {"price": 1, "quantity": 1},
    "MARKET": {"quantity": 1},
    "STOP_LOSS": {"quantity": 1, "stop_price": 1},
    "STOP_LOSS_LIMIT": {"time_in_force": "GTC", "price": 1, "quantity": 1, "stop_price": 1},
    "TAKE_PROFIT": {"quantity": 1, "stop_price": 1},
    "TAKE_PROFIT_LIMIT": {"time_in_force": "IOC", "price": 1, "quantity": 1, "stop_price": 1},
}
PARAMETERS = {"time_in_force": "timeInForce", "price": "price", "quantity": "quantity", "stop_price": "stopPrice"}


def verdict(symbol=PLAIN, **fields):
    return check_entry(NewOrder(symbol=symbol.name, side="BUY", **fields), symbol)


@pytest.mark.parametrize("order_type", FULL)
def test_each_type_takes_its_parameters_and_no_others(order_type):
    full = FULL[order_type] | {"type": order_type}
    assert verdict(**full) is None
    stops = "stop_price" in full
    assert verdict(**full, trailing_delta=1) == (None if stops else not_required("trailingDelta"))
    if stops:
        assert verdict(**full | {"stop_price": None}, trailing_delta=1) is None
    for field, parameter in PARAMETERS.items():
        if field in full:
            code, text = verdict(**full | {field: None})
            assert (code, text) == (
                -1102,
                f"Mandatory parameter '{parameter}' was not sent, was empty/null, or malformed.",
            )
        else:
            value = "GTC" if field == "time_in_force" else 1
            assert verdict(**full | {field: value}) == (-1106, f"Parameter '{parameter}' sent when not required.")


def test_a_market_order_has_one_of_two_quantities():
    assert verdict(type="MARKET", quote_quantity=5) is None
    assert verdict(type="MARKET", quote_quantity=5, quantity=5).code == -1106
    assert verdict(type="MARKET").code == -1102
    assert verdict(**FULL["LIMIT"] | {"type": "LIMIT", "quote_quantity": 5}).code == -1106
    closed = changed(PLAIN, quote_quantity_allowed=False)
    assert verdict(closed, type="MARKET", quote_quantity=5).code == -2010


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"price": 0}, -2010),
        ({"quantity": -1}, -2010),
        ({"quantity": 1 << 62}, -1108),
        ({"price": 1 << 80}, -1108),
        ({"client_id": ""}, -1100),
        ({"client_id": "a" * 37}, -1100),
        ({"client_id": "é"}, -1100),
        ({"client_id": "a b"}, -1100),
        ({"client_id": "a\n"}, -1100),
        ({"strategy_type": 999_999}, -1134),
        ({"trailing_delta": 10}, -1106),
        ({"iceberg_quantity": 1}, -2010),
    ],
)
def test_what_is_refused_before_the_market_sees_it(fields, code):
    assert verdict(**FULL["LIMIT"] | {"type": "LIMIT"} | fields).code == code


def test_client_ids_of_the_venues_alphabet():
    for word in ("a", "A-9_z", "x" * 36):
        assert verdict(**FULL["LIMIT"], type="LIMIT", client_id=word) is None
