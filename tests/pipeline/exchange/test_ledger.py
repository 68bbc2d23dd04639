"""What moves when an order trades, to the last unit."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from shrivenq.pipeline.exchange import ledger
from shrivenq.stages.messages import BUY, SELL
from shrivenq.stages.money import CEIL, FLOOR, OVERFLOW
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, limit, market, order


@pytest.mark.parametrize(("quote_decimals", "unit"), [(8, Fraction(10)), (7, Fraction(1)), (3, Fraction(1, 10_000))])
def test_values_are_exact_and_rounded_as_asked(quote_decimals, unit):
    engine = market(quote_decimals=quote_decimals)
    draw = random.Random(quote_decimals)
    for _ in range(300):
        price, quantity = draw.randint(1, 10 ** draw.randint(1, 9)), draw.randint(1, 10 ** draw.randint(1, 9))
        exact = price * quantity * unit
        assert ledger.value_of(engine.exchange, 0, price, quantity, FLOOR) == exact // 1
        assert ledger.value_of(engine.exchange, 0, price, quantity, CEIL) == -(-exact // 1)
        budget = draw.randint(1, 10**12)
        assert ledger.affordable(engine.exchange, 0, price, budget) == budget / (price * unit) // 1


def test_what_is_too_large_is_said_and_not_wrapped():
    engine = market()
    assert ledger.locking(engine.exchange, 0, BUY, 10**9, 10**9) == OVERFLOW
    assert ledger.locking(engine.exchange, 0, SELL, 1, 10**16) == OVERFLOW


def test_fees_are_taken_from_what_is_received():
    engine = market(maker_fee=100_000, taker_fee=250_000)  # 0.1 % and 0.25 %
    before = [engine.balances(account) for account in (1, 2)]
    engine.place(1, limit("SELL", 10_000, 1_000), START_US)
    fills = engine.place(2, limit("BUY", 10_000, 1_000), START_US).fills
    assert [(one.commission, one.commission_asset) for one in fills] == [(2_500, "BTC")]
    after = [engine.balances(account) for account in (1, 2)]
    assert after[1]["BTC"][0] - before[1]["BTC"][0] == 1_000_000 - 2_500
    assert after[1]["USDT"][0] - before[1]["USDT"][0] == -100_000_000
    assert after[0]["USDT"][0] - before[0]["USDT"][0] == 100_000_000 - 100_000
    assert after[0]["BTC"][0] - before[0]["BTC"][0] == -1_000_000
    assert engine.fees() == {"BTC": 2_500, "USDT": 100_000}


def test_a_better_price_frees_what_the_limit_had_locked():
    engine = market()
    engine.place(1, limit("SELL", 90, 4), START_US)
    before = engine.balances(2)["USDT"][0]
    engine.place(2, limit("BUY", 100, 10), START_US)
    assert engine.balances(2)["USDT"] == (before - 90 * 4 * 10 - 100 * 6 * 10, 100 * 6 * 10)


def test_locks_of_rounded_values_are_enough_for_any_sequence_of_fills():
    engine = market(quote_decimals=3)
    draw = random.Random(5)
    for _ in range(100):
        price, quantity = draw.randint(1, 9_999), draw.randint(1, 50_000)
        number = engine.place(1, limit("BUY", price, quantity), START_US).order.order_id
        while engine.order(1, PLAIN.name, order_id=number).is_open:
            engine.place(2, order("SELL", "MARKET", quantity=draw.randint(1, quantity)), START_US)
            for account in (1, 2):
                assert min(engine.balances(account)["USDT"]) >= 0
        assert engine.balances(1)["USDT"][1] == 0
    total = sum(sum(engine.balances(account)["USDT"]) for account in (1, 2))
    assert total == 2 * 10**15
