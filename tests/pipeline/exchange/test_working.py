"""An order that works trades, and rests with what it has left, or expires and says why."""

from __future__ import annotations

import pytest

from tests.pipeline.exchange.engine_rig import PLAIN, START_US, limit, market, order


@pytest.mark.parametrize(
    ("force", "status", "executed", "reason"),
    [
        ("GTC", "PARTIALLY_FILLED", 2, None),
        ("IOC", "EXPIRED", 2, "UNFILLED_IOC_QUANTITY_EXPIRED"),
        ("FOK", "EXPIRED", 0, "UNFILLED_FOK_ORDER_EXPIRED"),
    ],
)
def test_what_becomes_of_the_rest(force, status, executed, reason):
    engine = market()
    engine.place(2, limit("SELL", 100, 2), START_US)
    found = engine.place(1, limit("BUY", 100, 5, time_in_force=force), START_US).order
    assert (found.status, found.executed, found.expiry_reason) == (status, executed, reason)
    assert engine.depth(PLAIN.name).bids == ([(100, 3)] if force == "GTC" else [])


def test_a_market_order_never_rests():
    engine = market()
    engine.place(2, limit("SELL", 100, 2), START_US)
    found = engine.place(1, order("BUY", "MARKET", quantity=5), START_US).order
    assert (found.status, found.executed, found.expiry_reason) == ("EXPIRED", 2, "INSUFFICIENT_LIQUIDITY")
