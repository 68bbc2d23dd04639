"""What a strategy asks for becomes an intent, field by field."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.shm import ring
from shrivenq.shm.kernel import kernel
from shrivenq.stages import messages as m
from shrivenq.stages import strategy
from shrivenq.stages.strategy import Orders
from tests.stages.venue_rig import private_ring

FIRST = (5 << m.EPOCH_SHIFT) + 1
TRACE = {"cause": 70, "time_ns": 71, "venue_ns": 72, "wire_ns": 73, "decoded_ns": 74, "book_ns": 75}


@kernel
def buy(orders, price):
    return strategy.buy(orders, 2, price, 30)


@kernel
def sell_at_once(orders, price):
    return strategy.sell(orders, 1, price, 31, m.LIMIT, m.FOK)


@kernel
def buy_post_only(orders, price):
    return strategy.buy(orders, 2, price, 32, m.LIMIT_MAKER)


@kernel
def cancel(orders, order_id):
    return strategy.cancel(orders, 3, order_id)


@kernel
def replace(orders, order_id):
    return strategy.replace(orders, 3, order_id, m.SELL, 900, 33)


@kernel
def replace_post_only(orders, order_id):
    return strategy.replace(orders, 3, order_id, m.BUY, 901, 34, m.LIMIT_MAKER)


@kernel
def buy_protected(orders, price):
    return strategy.buy(orders, 2, price, 35, m.LIMIT, m.IOC, m.EXPIRE_TAKER)


@kernel
def sell_protected(orders, price):
    return strategy.sell(orders, 2, price, 36, self_trade=m.DECREMENT)


@kernel
def replace_a_stop(orders, order_id):
    return strategy.replace(orders, 3, order_id, m.SELL, 0, 37, m.STOP_LOSS, 880, m.EXPIRE_BOTH)


@kernel
def amend(orders, order_id):
    return strategy.amend(orders, 3, order_id, 38)


@kernel
def cancel_all(orders, instrument):
    return strategy.cancel_all(orders, instrument)


@kernel
def stop_at_market(orders, stop_price):
    return strategy.stop_loss(orders, 1, m.SELL, stop_price, 39)


@kernel
def stop_with_a_limit(orders, stop_price):
    return strategy.stop_loss(orders, 1, m.BUY, stop_price, 40, 610, m.FOK, m.STP_NONE)


@kernel
def take_profit_at_market(orders, stop_price):
    return strategy.take_profit(orders, 1, m.BUY, stop_price, 41)


@kernel
def take_profit_with_a_limit(orders, stop_price):
    return strategy.take_profit(orders, 1, m.SELL, stop_price, 42, price=590)


@pytest.fixture
def desk():
    producer, consumer = private_ring(m.INTENT, 4)
    # What lies in a slot from before must not shine through.
    producer.slots[:] = np.frombuffer(b"\xff" * producer.slots.nbytes, m.INTENT)
    words = np.zeros(strategy.WORDS, np.int64)
    words[strategy.NEXT_ID] = FIRST
    for name, value in TRACE.items():
        words[getattr(strategy, name.upper())] = value
    return Orders(producer, words, np.zeros(4, m.INSTRUMENT)), consumer


def fields(kind, instrument, side, price, quantity, order_type, time_in_force, target_id, stop_price=0, self_trade=0):
    return {
        "kind": kind, "instrument": instrument, "side": side, "price": price, "quantity": quantity,
        "order_type": order_type, "time_in_force": time_in_force, "target_id": target_id,
        "stop_price": stop_price, "self_trade": self_trade,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("call", "argument", "expected"),
    [
        (buy, 500, fields(m.NEW, 2, m.BUY, 500, 30, m.LIMIT, m.GTC, 0)),
        (sell_at_once, 501, fields(m.NEW, 1, m.SELL, 501, 31, m.LIMIT, m.FOK, 0)),
        (buy_post_only, 502, fields(m.NEW, 2, m.BUY, 502, 32, m.LIMIT_MAKER, m.GTC, 0)),
        (cancel, 77, fields(m.CANCEL, 3, 0, 0, 0, 0, 0, 77)),
        (replace, 78, fields(m.REPLACE, 3, m.SELL, 900, 33, m.LIMIT, m.GTC, 78)),
        (replace_post_only, 79, fields(m.REPLACE, 3, m.BUY, 901, 34, m.LIMIT_MAKER, m.GTC, 79)),
        (buy_protected, 503, fields(m.NEW, 2, m.BUY, 503, 35, m.LIMIT, m.IOC, 0, 0, m.EXPIRE_TAKER)),
        (sell_protected, 504, fields(m.NEW, 2, m.SELL, 504, 36, m.LIMIT, m.GTC, 0, 0, m.DECREMENT)),
        (replace_a_stop, 80, fields(m.REPLACE, 3, m.SELL, 0, 37, m.STOP_LOSS, m.GTC, 80, 880, m.EXPIRE_BOTH)),
        (amend, 81, fields(m.AMEND, 3, 0, 0, 38, 0, 0, 81)),
        (cancel_all, 3, fields(m.CANCEL_ALL, 3, 0, 0, 0, 0, 0, 0)),
        (stop_at_market, 600, fields(m.NEW, 1, m.SELL, 0, 39, m.STOP_LOSS, m.GTC, 0, 600, m.EXPIRE_MAKER)),
        (stop_with_a_limit, 601, fields(m.NEW, 1, m.BUY, 610, 40, m.STOP_LOSS_LIMIT, m.FOK, 0, 601, m.STP_NONE)),
        (take_profit_at_market, 602, fields(m.NEW, 1, m.BUY, 0, 41, m.TAKE_PROFIT, m.GTC, 0, 602, m.EXPIRE_MAKER)),
        (
            take_profit_with_a_limit,
            603,
            fields(m.NEW, 1, m.SELL, 590, 42, m.TAKE_PROFIT_LIMIT, m.GTC, 0, 603, m.EXPIRE_MAKER),
        ),
    ],
)
def test_every_field_of_a_request(desk, call, argument, expected):
    orders, consumer = desk
    assert call(orders, argument) == FIRST
    assert ring.available(consumer) == 0, "requests are committed by the stage, once a message"
    row = orders.intents.slots[0]
    expected = {"sequence": 0, "flags": 0, "order_id": FIRST, **TRACE, **expected}
    assert {name: int(row[name]) for name in expected} == expected
    # The one field left is the stage's own stamp.
    assert set(m.INTENT.names) - set(expected) == {"signal_ns"}


def test_ids_and_positions_count_on_and_a_refusal_uses_none(desk):
    orders, consumer = desk
    assert [buy(orders, 1), cancel(orders, 1), replace(orders, 1), buy(orders, 1)] == [FIRST + i for i in range(4)]
    assert [buy(orders, 1), cancel(orders, 1), replace(orders, 1)] == [0, 0, 0]
    assert orders.words[strategy.REFUSED] == 3
    ring.publish(orders.intents)
    assert ring.available(consumer) == 4
    assert consumer.slots["sequence"].tolist() == [0, 1, 2, 3]
    ring.release(consumer, 1)
    assert buy(orders, 1) == FIRST + 4
    assert int(orders.intents.slots[0]["sequence"]) == 4
