"""Reconciliation with a scripted venue: what is asked, what is adopted, what holds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from shrivenq.shm import pool
from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.reconcile import PAGE, OpenOrder, Orders, Reconciliation
from shrivenq.stages.venues.binance_reports_slow import Refused
from tests.stages.live.orders_rig import OrdersRig
from tests.stages.venue_rig import currencies, instruments_of

OWN = 7 << m.EPOCH_SHIFT | 1


class Desk:
    """A reconciliation, and what it asked."""

    def __init__(self):
        tables = SimpleNamespace(instruments=instruments_of(2), currencies=currencies())
        self.rig = OrdersRig.__new__(OrdersRig)
        made = OrdersRig("ws://127.0.0.1:1", tables)
        self.context, self.pool = made.venue, made.pool
        self.asked, self.queried = [], []
        self.orders = Orders(self.pool.slots, self.pool.generation)
        self.one = Reconciliation(
            self.context, self.orders, lambda name, _, params: self.asked.append((name, params)), self.queried.append
        )

    def open(self, order_id, state, venue_order_id=0):
        slot = pool.allocate(self.pool)
        self.pool.slots[slot]["order_id"], self.pool.slots[slot]["state"] = order_id, state
        self.pool.slots[slot]["venue_order_id"] = venue_order_id
        return slot

    def answer_rest(self):
        for name in ("account", "orders SYM0", "orders SYM1"):
            self.take(name, {"balances": []} if name == "account" else [])

    def take(self, name, result):
        rows = self.one.take(name, result)
        self.one.went_on(name, rows)
        return rows


@pytest.fixture
def desk():
    return Desk()


def trade(number, **changed):
    one = {"symbol": "SYM0", "id": number, "orderId": 55, "price": "100.0", "qty": "2.00", "commission": "0.1"}
    return one | {"commissionAsset": "USD", "time": 1_700_000_000_000, "isBuyer": True, "isMaker": True} | changed


def test_everything_is_asked_and_only_then_compared(desk):
    slot = desk.open(OWN, o.ACCEPTED)
    desk.open(OWN + 1, o.NEW)
    over = desk.open(OWN + 2, o.FILLED)
    pool.give_back(desk.pool, over, desk.pool.generation[over])
    desk.context.trades[1] = 41
    desk.one.begin()
    assert desk.queried == [slot]
    desk.answer_rest()
    assert not desk.one.is_answered
    assert not any(name.startswith("trades") for name, _ in desk.asked)  # whose they are is not known yet
    desk.one.placed(OWN, 0, 55)
    assert dict(desk.asked)["trades SYM0"] == {"symbol": "SYM0", "limit": 1}
    assert dict(desk.asked)["trades SYM1"] == {"symbol": "SYM1", "limit": PAGE, "fromId": 42}
    desk.take("trades SYM0", [])
    assert not desk.one.is_answered
    desk.take("trades SYM1", [])
    assert desk.one.is_answered
    assert desk.context.trades.tolist() == [v.NO_TRADES, 41]


def test_an_account_is_looked_at_first_without_taking_its_past(desk):
    assert desk.one.take("trades SYM0", [trade(90)]) == 0
    assert desk.context.trades[0] == 90


def test_trades_become_fills_of_our_orders_or_of_nobody_s(desk):
    desk.open(OWN, o.ACCEPTED, venue_order_id=55)
    desk.context.trades[0] = 3
    assert desk.one.take("trades SYM0", [trade(4), trade(5, orderId=56, isBuyer=False)]) == 2
    found = desk.context.reports[:2]
    assert found["order_id"].tolist() == [OWN, 0]
    assert found["side"].tolist() == [m.BUY, m.SELL]
    assert found["trade_id"].tolist() == [4, 5]
    assert (found["last_price"][0], found["last_quantity"][0], found["fee"][0]) == (1000, 200, 10_000_000)
    assert (found["flags"] & m.MAKER).all()
    assert desk.one.adopted_fills == 2


def test_a_trade_is_of_the_order_that_the_venue_has_just_named(desk):
    desk.open(OWN, o.UNKNOWN)
    desk.context.trades[0] = 3
    desk.one.placed(OWN, 0, 55)
    assert desk.one.take("trades SYM0", [trade(4)]) == 1
    assert desk.context.reports[0]["order_id"] == OWN


def test_a_full_page_of_trades_has_another_behind_it(desk):
    desk.context.trades[0] = 0
    desk.one._trades_asked = True
    name = "trades SYM0"
    rows = desk.one.take(name, [trade(number) for number in range(1, PAGE + 1)])
    desk.context.trades[0] = PAGE
    desk.one.went_on(name, rows)
    assert desk.asked == [(name, {"symbol": "SYM0", "limit": PAGE, "fromId": PAGE + 1})]
    assert not desk.one.is_answered


def test_open_orders_are_ours_left_behind_or_foreign(desk):
    desk.open(OWN, o.SENT)
    run = desk.context.run.tobytes().decode()
    names = [f"{run}-7-1", f"{run[:8]}-3-7-2", f"{run}-7-9", "x-HNA2TXFJ", "ffffffff-1-7-2"]
    desk.one.take("orders SYM0", [{"clientOrderId": name, "orderId": 9} for name in names])
    assert desk.one.open_orders == [
        OpenOrder("SYM0", 9, names[1], True),
        OpenOrder("SYM0", 9, names[2], True),
        OpenOrder("SYM0", 9, names[3], False),
        OpenOrder("SYM0", 9, names[4], False),
    ]


def test_balances_are_noted_against_us(desk):
    desk.one.take("account", {"balances": [{"asset": "USD", "free": "1.5", "locked": "0.000000019"}, {"asset": "X"}]})
    assert desk.context.balances[0].tolist() == [150_000_000, 1]


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("orders SYM0", {}),
        ("orders SYM0", [1]),
        ("orders SYM0", [{"orderId": 1}]),
        ("trades SYM0", [trade(1, symbol="SYM1")]),
        ("trades SYM0", [trade(1, qty="-1")]),
        ("account", []),
        ("account", {"balances": [{"asset": "USD", "free": None, "locked": "0"}]}),
    ],
)
def test_what_cannot_be_read_is_refused(desk, name, result):
    desk.context.trades[:] = 0
    with pytest.raises(Refused):
        desk.one.take(name, result)


def test_slots_are_found_while_they_are_taken(desk):
    slot = desk.open(OWN, o.UNKNOWN, venue_order_id=3)
    assert desk.orders.find(OWN) == slot
    assert desk.orders.owner(0, 3) == OWN
    assert desk.orders.owner(1, 3) == 0
    pool.give_back(desk.pool, slot, desk.pool.generation[slot])
    assert desk.orders.find(OWN) == -1
    assert desk.orders.owner(0, 3) == 0
    assert np.array_equal(desk.orders.taken(), [])
