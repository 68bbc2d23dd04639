"""Self-trade prevention, mode by mode; the first case is the venue's own example."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.types import OrderEvent
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, limit, market


def prevented(engine):
    return [one for one in engine.take_events() if isinstance(one, OrderEvent) and one.execution == "TRADE_PREVENTION"]


def state(engine, order_id, account=1):
    one = engine.order(account, PLAIN.name, order_id=order_id)
    return one.status, one.executed, one.prevented, one.leaves


def test_expire_maker_as_the_venue_shows_it():
    engine = market()
    for price, quantity in ((120, 12), (110, 13), (100, 81)):
        engine.place(1, limit("BUY", price, quantity, stp="NONE"), START_US)
    taker = engine.place(1, limit("SELL", 100, 30, stp="EXPIRE_MAKER"), START_US)
    assert taker.order.status == "NEW"
    assert taker.order.leaves == 30
    found = [(one.match_id, one.maker_order_id, one.price, one.maker_quantity) for one in taker.preventions]
    assert found == [(0, 1, 120, 12), (1, 2, 110, 13), (2, 3, 100, 81)]
    assert [state(engine, number) for number in (1, 2, 3)] == [
        ("EXPIRED_IN_MATCH", 0, quantity, 0) for quantity in (12, 13, 81)
    ]
    assert engine.depth(PLAIN.name).asks == [(100, 30)]
    assert [one.counter_order_id for one in prevented(engine)] == [4, 4, 4]
    assert list(engine.preventions) == list(taker.preventions)


@pytest.mark.parametrize(
    ("mode", "taker", "maker"),
    [
        ("NONE", ("FILLED", 4, 0, 0), ("PARTIALLY_FILLED", 4, 0, 6)),
        ("EXPIRE_TAKER", ("EXPIRED_IN_MATCH", 0, 4, 0), ("NEW", 0, 0, 10)),
        ("EXPIRE_MAKER", ("NEW", 0, 0, 4), ("EXPIRED_IN_MATCH", 0, 10, 0)),
        ("EXPIRE_BOTH", ("EXPIRED_IN_MATCH", 0, 4, 0), ("EXPIRED_IN_MATCH", 0, 10, 0)),
        ("DECREMENT", ("EXPIRED_IN_MATCH", 0, 4, 0), ("NEW", 0, 4, 6)),
        ("TRANSFER", ("EXPIRED_IN_MATCH", 0, 4, 0), ("NEW", 0, 4, 6)),  # of one account: as DECREMENT
    ],
)
def test_what_each_mode_does_to_both_sides(mode, taker, maker):
    engine = market()
    engine.place(1, limit("SELL", 100, 10, stp="NONE"), START_US)
    engine.place(1, limit("BUY", 100, 4, stp=mode), START_US)
    assert state(engine, 2) == taker
    assert state(engine, 1) == maker
    total = sum(one for pair in engine.balances(1).values() for one in pair)
    assert total == 2 * 10**15, "nothing was paid to anybody but oneself"


def test_accounts_of_one_group_do_not_trade_and_strangers_do():
    engine = market(accounts=3, groups=(7, 7, -1))
    engine.place(1, limit("SELL", 100, 10), START_US)
    assert engine.place(2, limit("BUY", 100, 4, stp="EXPIRE_TAKER"), START_US).order.status == "EXPIRED_IN_MATCH"
    assert engine.place(3, limit("BUY", 100, 4, stp="EXPIRE_TAKER"), START_US).order.status == "FILLED"


@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_transfer_moves_the_quantity_at_the_makers_price_without_a_fee(side):
    engine = market(groups=(7, 7), maker_fee=100_000, taker_fee=100_000)
    other = "SELL" if side == "BUY" else "BUY"
    engine.place(1, limit(other, 100, 10, stp="TRANSFER"), START_US)
    before = engine.balances(2)
    engine.take_events()
    outcome = engine.place(2, limit(side, 100, 4, stp="TRANSFER"), START_US)
    assert outcome.order.prevented == 4
    assert outcome.fills == ()
    sign = 1 if side == "BUY" else -1
    after = engine.balances(2)
    assert after["BTC"][0] - before["BTC"][0] == sign * 4 * 1000  # base has three more decimals than the quantity
    assert after["USDT"][0] - before["USDT"][0] == -sign * 100 * 4 * 10
    assert set(engine.fees().values()) == {0}
    told = prevented(engine)
    assert [(one.account, one.transferred_quantity, one.transferred_price, one.transferred_quote) for one in told] == [
        (1, 4, 100, 4000), (2, 4, 100, 4000),
    ]  # fmt: skip


def test_transfer_needs_it_on_both_sides():
    engine = market(groups=(7, 7))
    engine.place(1, limit("SELL", 100, 10, stp="NONE"), START_US)
    before = engine.balances(2)
    outcome = engine.place(2, limit("BUY", 100, 4, stp="TRANSFER"), START_US)
    assert outcome.preventions[0].mode == "DECREMENT"
    assert engine.balances(2) == before


def test_the_mode_of_the_order_that_takes_decides():
    engine = market()
    engine.place(1, limit("SELL", 100, 10, stp="EXPIRE_BOTH"), START_US)
    assert engine.place(1, limit("BUY", 100, 4, stp="NONE"), START_US).order.status == "FILLED"


def test_a_mode_the_symbol_does_not_allow_is_refused():
    engine = market(stp_allowed=("NONE", "EXPIRE_TAKER"))
    outcome = engine.place(1, limit("BUY", 100, 4, stp="EXPIRE_MAKER"), START_US)
    assert outcome.error == (-1013, "This symbol does not allow the specified self-trade prevention mode.")


def test_the_symbols_mode_is_the_default():
    engine = market(stp_default="EXPIRE_BOTH")
    engine.place(1, limit("SELL", 100, 10), START_US)
    assert engine.place(1, limit("BUY", 100, 4), START_US).order.stp == "EXPIRE_BOTH"
    assert engine.depth(PLAIN.name).asks == []
