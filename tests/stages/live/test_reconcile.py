"""Reconciliation with a scripted venue: what is asked, what is adopted, what holds."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

from shrivenq.shm import pool
from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.reconcile import TRIES, OpenOrder, Orders, Reconciliation
from shrivenq.stages.live.trades import PAGE, Trades
from shrivenq.stages.venues.binance_orders import ABSENCE_MS
from shrivenq.stages.venues.binance_reports_slow import Refused
from tests.hostile_json import mutations
from tests.stages.live.orders_rig import OrdersRig
from tests.stages.venue_rig import currencies, instruments_of

OWN = 7 << m.EPOCH_SHIFT | 1
ABSENCE_NS = ABSENCE_MS * 1_000_000


class Desk:
    """A reconciliation, and what it asked."""

    def __init__(self):
        tables = SimpleNamespace(instruments=instruments_of(2), currencies=currencies())
        self.rig = OrdersRig.__new__(OrdersRig)
        made = OrdersRig("ws://127.0.0.1:1", tables)
        self.context, self.pool = made.venue, made.pool
        self.asked, self.queried, self.pauses = [], [], []
        self.orders = Orders(self.pool.slots, self.pool.generation)
        self.trades = Trades(self.context, self.ask)
        self.compare()

    def compare(self, now_ns=0):
        self.asked.clear()
        self.one = Reconciliation(self.context, self.orders, self.ask, self.query, self.trades, now_ns)
        return self.one

    def query(self, slot, after_ns):
        self.queried.append(slot)
        self.pauses.append(after_ns)

    def ask(self, name, _, params, after_ns=0):
        self.asked.append((name, params))
        self.pauses.append(after_ns)

    def left_behind(self, number, time_ns, venue_order_id=0, instrument=0):
        """Let an earlier run have sent an order whose end the journal does not hold; return its name."""
        name = f"0123abcd-3-{number}"
        at = int((self.context.unsettled["order_id"] != 0).sum())
        self.context.unsettled[at] = (name.encode(), 3 << m.EPOCH_SHIFT | number, venue_order_id, instrument, time_ns)
        return name

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
        self.one.went_on(name)
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
    desk.context.anchors[1] = 41
    desk.one.begin()
    assert desk.queried == [slot]
    desk.answer_rest()
    assert not desk.one.is_answered
    assert not any(name.startswith("trades") for name, _ in desk.asked)  # whose they are is not known yet
    desk.one.placed(OWN, 0, 55, is_open=False)
    assert dict(desk.asked)["trades SYM0"] == {"symbol": "SYM0", "limit": 1}
    assert dict(desk.asked)["trades SYM1"] == {"symbol": "SYM1", "limit": PAGE, "fromId": 42}
    desk.take("trades SYM0", [])
    assert not desk.one.is_answered
    desk.take("trades SYM1", [])
    assert desk.one.is_answered
    assert desk.context.anchors.tolist() == [v.NO_TRADES, 41]


def test_trades_become_fills_of_our_orders_or_of_nobody_s(desk):
    desk.open(OWN, o.ACCEPTED, venue_order_id=55)
    desk.context.anchors[0] = 3
    assert desk.one.take("trades SYM0", [trade(4), trade(5, orderId=56, isBuyer=False)]) == 3
    found = desk.context.reports[:2]
    assert found["order_id"].tolist() == [OWN, 0]
    assert found["side"].tolist() == [m.BUY, m.SELL]
    assert found["trade_id"].tolist() == [4, 5]
    assert (found["last_price"][0], found["last_quantity"][0], found["fee"][0]) == (1000, 200, 10_000_000)
    assert (found["flags"] & m.MAKER).all()
    assert desk.one.adopted_fills == 2


def test_a_trade_is_of_the_order_that_the_venue_has_just_named(desk):
    desk.open(OWN, o.UNKNOWN)
    desk.context.anchors[0] = 3
    desk.one.placed(OWN, 0, 55, is_open=False)
    assert desk.one.take("trades SYM0", [trade(4)]) == 2
    assert desk.context.reports[0]["order_id"] == OWN


def test_a_full_page_of_trades_has_another_behind_it(desk):
    desk.context.anchors[0] = 0
    desk.one._trades_asked = True
    name = "trades SYM0"
    desk.one._left.add(name)
    assert desk.take(name, [trade(number) for number in range(1, PAGE + 1)]) == PAGE + 1
    assert desk.asked == [(name, {"symbol": "SYM0", "limit": PAGE, "fromId": PAGE})]
    assert not desk.one.is_answered
    desk.take(name, [])
    assert desk.one.is_answered


def test_open_orders_are_ours_left_behind_refused_or_foreign(desk):
    desk.open(OWN, o.SENT)
    left = desk.left_behind(9, 0)
    run = desk.context.run.tobytes().decode()
    ours = {f"{run}-7-1": None, left: True, f"{run}-7-9": True, "x-HNA2TXFJ": False, "ffffffff-1-7-2": False}
    desk.compare().take("orders SYM0", [{"clientOrderId": name, "orderId": 9} for name in ours])
    assert desk.one.open_orders == [OpenOrder("SYM0", 9, *one) for one in list(ours.items())[1:]]


def test_an_order_of_an_earlier_run_is_over_once_the_venue_holds_it_no_more_and_cannot_get_it(desk):
    arrived, old = desk.left_behind(1, 0, venue_order_id=70), desk.left_behind(2, 1_000, venue_order_id=69)
    young, late = desk.left_behind(3, ABSENCE_NS), desk.left_behind(4, ABSENCE_NS + 5, instrument=1)
    desk.compare(ABSENCE_NS + 1_000).begin()
    asked = [(name, params) for name, params in desk.asked if name.startswith("order ")]
    assert asked == [
        (f"order {young}", {"symbol": "SYM0", "origClientOrderId": young}),
        (f"order {late}", {"symbol": "SYM1", "origClientOrderId": late}),
    ]
    desk.take("account", {"balances": []})
    desk.take("orders SYM0", [{"clientOrderId": arrived, "orderId": 70}])
    desk.take("orders SYM1", [])
    desk.take(f"order {young}", {"status": "FILLED", "orderId": 71})
    assert not desk.one.refused(f"order {late}", -1003)
    assert not desk.one.refused("account", -2013)
    assert desk.one.refused(f"order {late}", -2013)
    desk.context.anchors[0] = 0
    assert desk.take("trades SYM0", [trade(1, orderId=71), trade(2, orderId=70)]) == 3
    numbers = [int(one) & 0xFF for one in desk.context.reports[:2]["order_id"]]
    assert numbers == [3, 1]
    desk.take("trades SYM1", [])
    assert desk.one.is_answered
    assert desk.one.open_orders == [OpenOrder("SYM0", 70, arrived, True)]
    assert desk.one.expected == [ABSENCE_NS + 5]
    assert [one["name"].decode() for one in desk.one.settled()] == [old, young]


def test_an_order_that_was_never_heard_of_is_asked_about_so_that_its_fills_are_its_own(desk):
    old = desk.left_behind(2, 1_000)
    desk.compare(ABSENCE_NS * 2).begin()
    question = (f"order {old}", {"symbol": "SYM0", "origClientOrderId": old})
    assert desk.asked.count(question) == 1
    for again in range(TRIES):
        assert desk.one.refused(f"order {old}", -1007)  # it cannot say now
        assert desk.asked.count(question) == 2 + again
    assert not desk.one.refused(f"order {old}", -1007)
    assert desk.pauses[-TRIES:] == sorted(desk.pauses[-TRIES:])
    assert 0 < desk.pauses[-TRIES] < desk.pauses[-1]
    for name, result in (("account", {"balances": []}), ("orders SYM0", []), ("orders SYM1", [])):
        desk.take(name, result)
    desk.take(f"order {old}", {"status": "FILLED", "orderId": 71})
    desk.context.anchors[0] = 0
    desk.take("trades SYM0", [trade(1, orderId=71)])
    assert int(desk.context.reports[0]["order_id"]) & 0xFF == 2
    desk.take("trades SYM1", [])
    assert [int(one["venue_order_id"]) for one in desk.one.settled()] == [71]
    assert desk.one.expected == []


def test_an_order_is_asked_about_until_the_venue_has_said_where_it_stands(desk):
    slot = desk.open(OWN, o.ACCEPTED, venue_order_id=55)
    desk.one.begin()
    desk.answer_rest()
    for _ in range(TRIES):
        assert desk.one.unsaid(OWN)
    assert desk.queried == [slot] * (TRIES + 1)
    assert not desk.one.unsaid(OWN)
    assert not any(name.startswith("trades") for name, _ in desk.asked)
    desk.one.placed(OWN, 0, 55, is_open=False)
    assert any(name.startswith("trades") for name, _ in desk.asked)
    assert desk.one.unsaid(OWN)  # of no importance any more


def test_an_order_that_is_over_by_event_while_the_venue_cannot_say_is_answered(desk):
    slot = desk.open(OWN, o.ACCEPTED, venue_order_id=55)
    desk.one.begin()
    desk.answer_rest()
    pool.give_back(desk.pool, slot, desk.pool.generation[slot])
    assert desk.one.unsaid(OWN)
    assert any(name.startswith("trades") for name, _ in desk.asked)


def test_an_order_that_is_open_is_on_the_venue_s_list_or_both_do_not_agree(desk):
    slots = [desk.open(OWN + at, o.ACCEPTED, venue_order_id=55 + at) for at in range(3)]
    desk.one.begin()
    run = desk.context.run.tobytes().decode()
    desk.take("orders SYM0", [{"clientOrderId": f"{run}-7-1", "orderId": 55}])
    for at in range(3):
        desk.one.placed(OWN + at, 0, 55 + at, is_open=True)
    assert desk.one.unlisted == {OWN + 1, OWN + 2}
    pool.give_back(desk.pool, slots[1], desk.pool.generation[slots[1]])  # it was filled meanwhile
    assert desk.one.unlisted == {OWN + 2}


def test_an_order_of_an_earlier_run_that_arrived_late_is_left_behind(desk):
    young = desk.left_behind(3, ABSENCE_NS)
    desk.compare(ABSENCE_NS + 1).begin()
    desk.take(f"order {young}", {"status": "NEW", "orderId": 71})
    desk.take("orders SYM0", [{"clientOrderId": young, "orderId": 71}])
    assert desk.one.open_orders == [OpenOrder("SYM0", 71, young, True)]
    assert desk.one.settled() == []


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
        ("order 0123abcd-3-1", []),
        ("order 0123abcd-3-1", {"status": "NEW"}),
        ("order 0123abcd-3-1", {"orderId": 5}),
        ("account", {"balances": [{"asset": "USD", "free": None, "locked": "0"}]}),
    ],
)
def test_what_cannot_be_read_is_refused(desk, name, result):
    desk.context.anchors[:] = 0
    desk.left_behind(1, ABSENCE_NS)
    desk.compare(ABSENCE_NS + 1)
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


def test_whatever_stands_in_an_answer_it_is_taken_or_refused(desk):
    name = desk.left_behind(5, time_ns=0)
    desk.compare(ABSENCE_NS - 1)
    answers = {
        "account": {"balances": [{"asset": "USD", "free": "1.5", "locked": "0"}]},
        "orders SYM0": [{"orderId": 7, "clientOrderId": name}, {"orderId": 8, "clientOrderId": "by-hand"}],
        f"order {name}": {"orderId": 7, "status": "NEW"},
    }
    for what, answer in answers.items():
        for hostile in mutations(answer):
            with contextlib.suppress(Refused):
                desk.take(what, hostile)
