"""The price-range rule, and what a survey of the book foresees."""

from __future__ import annotations

import random

import pytest

from shrivenq.pipeline.exchange import crossing
from shrivenq.pipeline.exchange import state as s
from shrivenq.stages.messages import BUY, SELL
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, limit, market, order

RANGE = {"range_bid_up": 110_000_000, "range_ask_down": 90_000_000, "has_reference": True, "average_minutes": 0}


def ready(**fields):
    """Open a market whose last price is 100."""
    engine = market(**(RANGE | fields))
    engine.place(2, limit("SELL", 100, 1), START_US)
    engine.place(2, limit("BUY", 100, 1), START_US)
    return engine


@pytest.mark.parametrize("side", ["BUY", "SELL"])
@pytest.mark.parametrize("order_type", ["LIMIT", "MARKET"])
def test_who_would_take_outside_the_range_expires(side, order_type):
    engine = ready()
    prices = (105, 110, 111) if side == "BUY" else (95, 90, 89)
    for price in prices:
        engine.place(2, limit("SELL" if side == "BUY" else "BUY", price, 5), START_US)
    if order_type == "MARKET":
        new = order(side, "MARKET", quantity=12)
    else:
        new = limit(side, 120 if side == "BUY" else 80, 12)
    one = engine.place(1, new, START_US).order
    assert (one.status, one.executed) == ("EXPIRED", 10)
    assert one.expiry_reason == "EXECUTION_RULE_PRICE_RANGE_EXCEEDED"
    assert [locked for _, locked in engine.balances(1).values()] == [0, 0]


def test_the_rule_is_for_those_who_take():
    engine = ready()
    assert engine.place(1, limit("BUY", 150, 5), START_US).order.status == "NEW"


def test_without_a_reference_the_rule_is_not_enforced():
    engine = ready(has_reference=False)
    assert engine.reference_price(PLAIN.name) is None
    engine.place(2, limit("SELL", 150, 5), START_US)
    assert engine.place(1, order("BUY", "MARKET", quantity=5), START_US).order.status == "FILLED"
    engine = ready()
    assert engine.reference_price(PLAIN.name) == 100


@pytest.mark.parametrize("seed", range(5))
def test_what_a_survey_foresees_is_what_happens(seed):
    draw = random.Random(seed)
    engine = market(accounts=3)
    for _ in range(200):
        side = draw.choice(["BUY", "SELL"])
        engine.place(draw.randint(1, 2), limit(side, draw.randint(90, 110), draw.randint(1, 20)), START_US)
        taking, quantity = draw.choice(["BUY", "SELL"]), draw.randint(1, 30)
        bound = draw.randint(85, 115)
        words = engine.exchange.words
        crossing.survey(engine.exchange, 3, 0, 0, BUY if taking == "BUY" else SELL, bound, quantity, 0)
        found, cost = int(words[s.SURVEYED]), int(words[s.COST])
        if draw.random() < 0.3:
            one = engine.place(3, limit(taking, bound, quantity, time_in_force="IOC"), START_US).order
            assert (one.executed, one.cumulative_quote) == (found, cost), seed
