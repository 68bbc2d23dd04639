"""Stop orders wait for the last price, trigger in order, and then do what they say."""

from __future__ import annotations

import random

import pytest

from shrivenq.pipeline.exchange.types import OrderEvent
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, limit, market, order


def trade(engine, price, quantity=1, account=2):
    """Make the last price, against an order of one's own."""
    engine.place(account, limit("SELL", price, quantity), START_US)
    engine.place(account, limit("BUY", price, quantity), START_US)


def status(engine, order_id, account=1):
    one = engine.order(account, PLAIN.name, order_id=order_id)
    return one.status, one.is_working


@pytest.mark.parametrize(
    ("side", "order_type", "rises"),
    [
        ("BUY", "STOP_LOSS_LIMIT", True),
        ("SELL", "STOP_LOSS_LIMIT", False),
        ("BUY", "TAKE_PROFIT_LIMIT", False),
        ("SELL", "TAKE_PROFIT_LIMIT", True),
    ],
)
def test_which_way_each_waits(side, order_type, rises):
    engine = market()
    trade(engine, 100)
    stop = 110 if rises else 90
    new = order(side, order_type, time_in_force="GTC", stop_price=stop, price=10 if side == "BUY" else 500, quantity=5)
    outcome = engine.place(1, new, START_US)
    number = outcome.order.order_id
    assert (outcome.order.status, outcome.order.working_us) == ("NEW", 0)
    trade(engine, stop - 1 if rises else stop + 1)
    assert status(engine, number) == ("NEW", False)
    engine.take_events()
    trade(engine, stop)
    assert status(engine, number) == ("NEW", True)
    said = [one for one in engine.take_events() if isinstance(one, OrderEvent) and one.account == 1]
    assert [(one.execution, one.order.working_us) for one in said] == [("NEW", START_US)]
    assert engine.place(1, new, START_US).error == (-2010, "Order would trigger immediately.")


def test_a_triggered_market_stop_trades_at_what_there_is():
    engine = market()
    trade(engine, 100)
    engine.place(1, order("SELL", "STOP_LOSS", stop_price=95, quantity=5), START_US)
    assert engine.balances(1)["BTC"][1] == 5_000
    engine.place(2, limit("BUY", 93, 3), START_US)
    engine.place(2, limit("BUY", 95, 1), START_US)
    engine.place(2, limit("SELL", 95, 1), START_US)
    one = engine.order(1, PLAIN.name, order_id=3)
    assert (one.status, one.executed, one.expiry_reason) == ("EXPIRED", 3, "INSUFFICIENT_LIQUIDITY")
    assert engine.balances(1)["BTC"][1] == 0


def test_a_buying_market_stop_that_has_become_too_dear_expires():
    engine = market()
    poor = engine.open_account({"USDT": 110 * 5 * 10})
    trade(engine, 100)
    engine.place(poor, order("BUY", "STOP_LOSS", stop_price=110, quantity=5), START_US)
    assert engine.balances(poor)["USDT"] == (0, 5_500)
    engine.place(2, limit("SELL", 120, 50), START_US)
    trade(engine, 110)
    one = engine.order(poor, PLAIN.name, order_id=3)
    assert (one.status, one.executed, one.expiry_reason) == ("EXPIRED", 0, "REJECTED")
    assert engine.balances(poor)["USDT"] == (5_500, 0)


def test_stops_trigger_stops():
    engine = market()
    trade(engine, 100)
    for stop, price in ((98, 96), (96, 94), (94, 92)):
        engine.place(1, order("SELL", "STOP_LOSS", stop_price=stop, quantity=1), START_US)
        engine.place(2, limit("BUY", price, 1), START_US)
    engine.place(2, limit("BUY", 98, 1), START_US)
    engine.place(2, limit("SELL", 98, 1), START_US)
    assert [engine.order(1, PLAIN.name, order_id=number).status for number in (3, 5, 7)] == ["FILLED"] * 3
    assert engine.last_price(PLAIN.name) == 92


@pytest.mark.parametrize("seed", range(3))
def test_they_trigger_by_price_and_then_by_age(seed):
    draw = random.Random(seed)
    engine = market()
    trade(engine, 100)
    waiting = []
    for number in range(60):
        rises = draw.random() < 0.5
        stop = draw.randint(101, 110) if rises else draw.randint(90, 99)
        new = order(
            "BUY" if rises else "SELL", "STOP_LOSS_LIMIT", time_in_force="GTC", stop_price=stop,
            price=1 if rises else 500, quantity=1,
        )  # fmt: skip
        waiting.append((rises, stop, engine.place(1, new, START_US).order.order_id))
        if number % 4 == 0:
            gone = waiting.pop(draw.randrange(len(waiting)))
            assert engine.cancel(1, PLAIN.name, START_US, order_id=gone[2]).error is None
    engine.take_events()
    for price, rising in ((120, True), (80, False)):
        trade(engine, price)
        said = [one for one in engine.take_events() if isinstance(one, OrderEvent) and one.account == 1]
        mine = [(stop, number) for rises, stop, number in waiting if rises == rising]
        wanted = sorted(mine, key=lambda one: (one[0] if rising else -one[0], one[1]))
        assert [one.order.order_id for one in said] == [number for _, number in wanted], seed


def test_a_waiting_market_stop_can_be_amended():
    engine = market()
    engine.place(1, order("BUY", "TAKE_PROFIT", stop_price=90, quantity=10), START_US)
    outcome = engine.amend(1, PLAIN.name, START_US, order_id=1, new_quantity=4)
    assert outcome.order.quantity == 4
    assert engine.balances(1)["USDT"][1] == 90 * 4 * 10


# ── trailing stops: the scenarios of the venue's page on them, prices in hundreds ───────────────────────────────────

SCENARIOS = {
    # side, type, stop price, bips, limit, prices before the last one, and that, at which it triggers
    "A": ("BUY", "STOP_LOSS_LIMIT", 440, 500, 450, (370, 440, 450, 460, 420), 441),
    "B": ("SELL", "STOP_LOSS_LIMIT", 390, 1000, 380, (415, 390, 370, 410), 369),
    "C": ("BUY", "TAKE_PROFIT_LIMIT", 380, 850, 385, (420, 380, 370, 390, 380), 402),
    "D": ("SELL", "TAKE_PROFIT_LIMIT", 420, 750, 410, (415, 390, 420, 450, 440, 465), 430),
    "E": ("SELL", "STOP_LOSS_LIMIT", None, 700, 390, (420, 395, 455), 423),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_trailing_stop_triggers_where_the_price_has_turned_so_far(name):
    side, order_type, stop, delta, price, path, last = SCENARIOS[name]
    engine = market()
    trade(engine, 400)
    new = order(
        side, order_type, time_in_force="GTC", stop_price=stop, trailing_delta=delta, price=price, quantity=5
    )  # fmt: skip
    placed = engine.place(1, new, START_US).order
    assert (placed.trailing_delta, placed.trailing_us) == (delta, 0 if stop else START_US)
    number = placed.order_id
    for one in path:
        trade(engine, one)
        assert status(engine, number) == ("NEW", False), one
    trade(engine, last + (-1 if side == "BUY" else 1))
    assert status(engine, number) == ("NEW", False)
    trade(engine, last)
    one = engine.order(1, PLAIN.name, order_id=number)
    assert one.working_us
    assert one.trailing_us == START_US


def test_a_trailing_stop_sees_every_price_of_a_command():
    engine = market()
    trade(engine, 400)
    number = engine.place(1, order("BUY", "STOP_LOSS", trailing_delta=1000, quantity=1), START_US).order.order_id
    for price in (300, 330, 331):
        engine.place(2, limit("SELL", price, 1), START_US)
    # The lowest is the first of three trades, the last is ten per cent above it.
    engine.place(2, limit("BUY", 330, 2), START_US)
    one = engine.order(1, PLAIN.name, order_id=number)
    assert (one.status, one.cumulative_quote) == ("FILLED", 331 * 10)


def test_a_trailing_stop_waits_for_the_first_trade_to_follow():
    engine = market()
    number = engine.place(1, order("SELL", "STOP_LOSS", trailing_delta=100, quantity=1), START_US).order.order_id
    assert engine.order(1, PLAIN.name, order_id=number).trailing_us == 0
    trade(engine, 100)
    assert engine.order(1, PLAIN.name, order_id=number).trailing_us == START_US
    trade(engine, 99)
    assert engine.order(1, PLAIN.name, order_id=number).status == "EXPIRED", "there was nobody to sell to"


def test_a_seller_that_trails_by_all_of_the_price_waits_for_ever():
    engine = market()
    trade(engine, 100)
    number = engine.place(1, order("SELL", "STOP_LOSS", trailing_delta=10_000, quantity=1), START_US).order.order_id
    trade(engine, 1)
    assert status(engine, number) == ("NEW", False)


def test_a_trailing_stop_whose_stop_price_is_reached_already_is_refused():
    engine = market()
    trade(engine, 100)
    new = order("SELL", "STOP_LOSS", stop_price=100, trailing_delta=100, quantity=1)
    assert engine.place(1, new, START_US).error == (-2010, "Order would trigger immediately.")


def test_a_buying_trailing_stop_without_a_limit_locks_at_the_last_price():
    engine = market()
    trade(engine, 100)
    number = engine.place(1, order("BUY", "STOP_LOSS", trailing_delta=100, quantity=10), START_US).order.order_id
    assert engine.balances(1)["USDT"][1] == 100 * 10 * 10
    trade(engine, 90)
    assert engine.amend(1, PLAIN.name, START_US, order_id=number, new_quantity=4).error is None
    assert engine.balances(1)["USDT"][1] == 100 * 4 * 10
    assert engine.cancel(1, PLAIN.name, START_US, order_id=number).error is None
    assert engine.balances(1)["USDT"][1] == 0


@pytest.mark.parametrize("seed", range(3))
def test_trailing_stops_that_are_cancelled_leave_the_others_waiting(seed):
    draw = random.Random(seed)
    engine = market()
    trade(engine, 1000)
    numbers = [
        engine.place(1, order("SELL", "STOP_LOSS", trailing_delta=100, quantity=1), START_US).order.order_id
        for _ in range(20)
    ]
    for number in draw.sample(numbers, 12):
        assert engine.cancel(1, PLAIN.name, START_US, order_id=number).error is None
        numbers.remove(number)
    engine.take_events()
    trade(engine, 990)
    said = [one for one in engine.take_events() if isinstance(one, OrderEvent) and one.account == 1]
    assert [one.order.order_id for one in said if one.execution == "NEW"] == numbers, seed
