"""Symbols that make no market are refused in one line."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.listing import LEVELS_MAX, assets_of, make_books
from shrivenq.stages.order_flow import Config
from tests.pipeline.exchange.engine_rig import PLAIN, changed


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"tick": 0}, "tick and step must be at least 1"),
        ({"step": -1}, "tick and step must be at least 1"),
        ({"base_decimals": 4}, "base_decimals must not be below quantity_decimals"),
        ({"quote_decimals": 40}, "decimals must be"),
        ({"average_minutes": 61}, "average_minutes must be 0 to 60"),
        ({"price_max": 1 << 62}, "price_max is too high"),
        ({"taker_fee": 20_000_000}, "fees must be 0 to 10 %"),
        ({"maker_fee": -1}, "fees must be 0 to 10 %"),
        ({"stp_default": "TRANSFER", "stp_allowed": ("NONE",)}, "stp_default must be allowed"),
    ],
)
def test_what_a_symbol_may_not_say(fields, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        Engine([changed(PLAIN, **fields)], seed=1)
    assert str(caught.value).startswith("exchange: BTCUSDT: ")


def test_what_symbols_may_not_say_together():
    with pytest.raises(ValueError, match="expected one or more, no name twice"):
        Engine([], seed=1)
    with pytest.raises(ValueError, match="expected one or more, no name twice"):
        Engine([PLAIN, PLAIN], seed=1)
    with pytest.raises(ValueError, match="ETHUSDT: USDT has 6 decimals here and 8 before"):
        Engine([PLAIN, changed(PLAIN, name="ETHUSDT", base="ETH", quote_decimals=6)], seed=1)


def test_assets_in_the_order_in_which_they_come():
    other = changed(PLAIN, name="ETHBTC", base="ETH", quote="BTC")
    assert assets_of([PLAIN, other]) == {"BTC": 8, "USDT": 8, "ETH": 8}


def test_a_ladder_reaches_the_highest_price_but_not_for_ever():
    high = make_books([changed(PLAIN, price_max=1_000_000)], 1, None, 64).core
    assert (high.ladders[0]["base"], high.ladders[0]["levels"]) == (1, 1_000_000)
    assert make_books([changed(PLAIN, price_max=10**9)], 1, None, 64).core.ladders[0]["levels"] == LEVELS_MAX


def test_the_flow_begins_at_its_price():
    one = changed(PLAIN, price_max=20_000_000)
    books = make_books([one], 1, Config(price={"BTCUSDT": "50000.00"}, resting_orders=400), 64)
    bid = int(books.core.ladders[0]["best_bid"]) + int(books.core.ladders[0]["base"])
    assert abs(bid - 5_000_000) < 5_000
    with pytest.raises(ValueError, match="not a number"):
        make_books([one], 1, Config(price={"BTCUSDT": "much"}), 64)
