"""The venue's words in the simulator's types."""

from __future__ import annotations

import typing

from shrivenq.pipeline.exchange import types


def order(**changed):
    """Make an open order that waits for nothing."""
    plain = {
        "account": 1, "symbol": "BTCUSDT", "order_id": 7, "client_id": "a", "side": "BUY", "type": "LIMIT",
        "time_in_force": "GTC", "price": 100, "quantity": 10, "quote_quantity": 0, "stop_price": 0, "executed": 3,
        "cumulative_quote": 300, "status": "PARTIALLY_FILLED", "stp": "NONE", "prevented": 2,
        "prevented_match_id": -1, "created_us": 1, "updated_us": 2, "working_us": 1, "expiry_reason": None,
        "strategy_id": None, "strategy_type": None, "amends": 0, "trade_group": -1,
    }  # fmt: skip
    return types.OrderView(**(plain | changed))


def test_the_lists_hold_every_word():
    assert set(types.STP_MODES) == set(typing.get_args(types.StpMode))
    assert set(types.ORDER_TYPES) == set(typing.get_args(types.OrderType))


def test_what_an_order_has_left():
    assert order().leaves == 5
    assert order(status="EXPIRED_IN_MATCH").leaves == 0


def test_a_stop_that_waits_is_open_and_not_working():
    waiting = order(working_us=0, status="NEW", executed=0)
    assert waiting.is_open
    assert not waiting.is_working
    assert order().is_working
    assert not order(status="FILLED").is_working
