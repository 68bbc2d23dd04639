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


def fields(kind, instrument, side, price, quantity, order_type, time_in_force, target_id):
    return {
        "kind": kind, "instrument": instrument, "side": side, "price": price, "quantity": quantity,
        "order_type": order_type, "time_in_force": time_in_force, "target_id": target_id,
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
    ],
)
def test_every_field_of_a_request(desk, call, argument, expected):
    orders, consumer = desk
    assert call(orders, argument) == FIRST
    assert ring.available(consumer) == 0, "requests are committed by the stage, once a message"
    row = orders.intents.slots[0]
    expected = {"sequence": 0, "flags": 0, "order_id": FIRST, "stop_price": 0, "self_trade": 0, **TRACE, **expected}
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
