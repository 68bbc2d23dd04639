"""The arrays of an exchange, as they are at the start."""

from __future__ import annotations

from typing import get_args

import numpy as np

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange import types
from tests.pipeline.exchange.engine_rig import market


def test_words_for_codes_are_the_venues():
    assert set(s.STATUSES) < set(get_args(types.OrderStatus))
    assert set(s.EXECUTIONS) == set(get_args(types.Execution))
    assert set(s.EXPIRIES[1:]) == set(get_args(types.ExpiryReason))
    assert get_args(types.SymbolStatus) == s.SYMBOL_STATUSES
    assert set(s.TYPES[1:]) == set(get_args(types.OrderType))
    assert types.STP_MODES[s.TRANSFER] == "TRANSFER"
    assert (s.STATUSES[s.REJECTED], s.EXECUTIONS[s.X_PREVENTED]) == ("REJECTED", "TRADE_PREVENTION")
    assert s.EXPIRIES[s.BY_RANGE] == "EXECUTION_RULE_PRICE_RANGE_EXCEEDED"


def test_every_row_is_free_and_nobody_waits():
    exchange = market().exchange
    assert sorted(exchange.queue.tolist()) == list(range(len(exchange.orders)))
    assert exchange.words[s.QUEUE_TAIL] - exchange.words[s.QUEUE_HEAD] == len(exchange.orders)
    assert exchange.symbols["rising"].tolist() == exchange.symbols["falling"].tolist() == [-1]
    assert (exchange.accounts["trade_group"] == -1).all()


def test_what_an_order_has_left():
    exchange = market().exchange
    order = exchange.orders[3]
    order["quantity"], order["executed"], order["prevented"] = 10, 3, 2
    assert s.leaves_of(exchange, 3) == 5
    order["status"] = s.CANCELED
    assert s.leaves_of(exchange, 3) == 0


def test_types_with_a_limit_and_types_that_wait():
    assert [name for code, name in enumerate(s.TYPES) if code and s.has_limit(code)] == [
        "LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT",
    ]  # fmt: skip
    assert [name for code, name in enumerate(s.TYPES) if code and s.is_stop(code)] == [
        "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT",
    ]  # fmt: skip
    assert s.ORDER["strategy_id"] == np.int64
