"""Where orders stand, with a scripted venue: what is asked, and in which order it is told."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from shrivenq.shm import pool, ring
from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.reconcile import Orders
from shrivenq.stages.live.standing import Standings
from shrivenq.stages.venues.binance_orders import ABSENCE_MS
from tests.stages.live.orders_rig import OrdersRig
from tests.stages.venue_rig import currencies, drain, instruments_of

OWN = 7 << m.EPOCH_SHIFT | 1


class Desk:
    """An order in the pool, and what is asked and told about it."""

    def __init__(self):
        rig = OrdersRig("ws://127.0.0.1:1", SimpleNamespace(instruments=instruments_of(2), currencies=currencies()))
        self.context, self.pool, self._rig = rig.venue, rig.pool, rig
        self.frames, self.placed, self.unsaid, self.asked = [], [], [], []
        self.standings = Standings(
            self.context, rig.loop, Orders(self.pool.slots, self.pool.generation), self.ask_by, self.frames.append,
            lambda standing: self.placed.append(int(standing["kind"])), self.unsaid.append, rig.log,
        )  # fmt: skip
        self.slot = pool.allocate(self.pool)
        for field, value in {"order_id": OWN, "state": o.SENT, "quantity": 10, "time_ns": time.time_ns()}.items():
            self.pool.slots[self.slot][field] = value

    def ask_by(self, name, request, send, after_ns=0):
        self.asked.append((name, request, after_ns))
        send()

    def age(self, nanoseconds):
        """Let the order have been sent longer ago."""
        self.pool.slots[self.slot]["time_ns"] -= nanoseconds
        self.context.words[v.BEGAN_NS] -= nanoseconds

    def stands(self, kind, filled=0, leaves=0):
        """Let the venue answer a question."""
        report = self.context.reports[0]
        report["kind"], report["order_id"], report["venue_order_id"] = kind, OWN, 55
        report["filled"], report["leaves"] = filled, leaves
        self.standings.take(OWN, 1)

    def trades(self, *quantities, answered=True):
        """Let the venue answer with the order's trades."""
        for row, quantity in enumerate(quantities):
            report = self.context.reports[row]
            report["kind"], report["order_id"], report["trade_id"] = m.FILL, OWN, 100 + row
            report["last_quantity"], report["side"] = quantity, m.BUY
        self.standings.take_trades(OWN, len(quantities), answered=answered)

    def reports(self):
        """List what the gateway was told."""
        words = self._rig.gateway.from_venue
        assert ring.available(words) >= 0
        return drain(words)

    def told(self):
        """List the kinds of that."""
        return [int(one["kind"]) for one in self.reports()]


@pytest.fixture
def desk():
    return Desk()


def text(frame):
    """Unmask a frame with a length of two bytes."""
    mask, payload = frame[4:8], frame[8:]
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)).decode()


def test_a_question_names_the_order_as_the_venue_knows_it(desk):
    desk.standings.ask(desk.slot, 7)
    assert desk.asked == [(f"{m.QUERY} {OWN}", m.QUERY, 7)]
    (frame,) = desk.frames
    assert '"method":"order.status"' in text(frame)
    assert f'"origClientOrderId":"{desk.context.run.tobytes().decode()}-7-1"' in text(frame)


def test_an_order_that_rests_is_told(desk):
    desk.stands(m.ACCEPTED, leaves=10)
    assert desk.told() == [m.ACCEPTED]
    assert desk.placed == [m.ACCEPTED]
    assert desk.frames == []


def test_fills_that_were_not_told_come_first(desk):
    desk.stands(m.CANCELLED, filled=7)
    assert '"method":"myTrades"' in text(desk.frames[0])
    assert '"orderId":55' in text(desk.frames[0])
    assert desk.told() == desk.placed == []
    desk.trades(3, 4)
    assert desk.told() == [m.FILL, m.FILL, m.CANCELLED]
    assert desk.placed == [m.CANCELLED]


def test_of_an_order_s_trades_those_that_were_looked_at_are_not_told_again(desk):
    """They may be older than anybody remembers. An event of one would count: the venue may have left it out."""
    desk.context.anchors[0] = 100
    desk.stands(m.CANCELLED, filled=7)
    desk.trades(3, 4)
    assert [(int(one["kind"]), int(one["trade_id"])) for one in desk.reports()] == [(m.FILL, 101), (m.CANCELLED, 0)]


def test_a_filled_order_is_closed_by_its_fills(desk):
    desk.stands(m.ACCEPTED, filled=10)
    desk.trades(10)
    assert desk.told() == [m.FILL]
    assert desk.placed == [m.ACCEPTED]


def test_without_its_trades_nothing_is_told_of_an_order(desk):
    desk.stands(m.CANCELLED, filled=7)
    desk.trades(answered=False)
    assert desk.told() == desk.placed == []
    assert desk.unsaid == [OWN]
    desk.stands(m.CANCELLED, filled=7)
    desk.standings.clear()
    desk.trades(7)
    assert desk.told() == [m.FILL]


def test_an_order_that_may_yet_arrive_is_not_absent(desk):
    desk.stands(m.ABSENT)
    assert desk.told() == []
    assert desk.placed == [m.ABSENT]  # an answer, all the same
    desk.age(ABSENCE_MS * 1_000_000 + 1)
    desk.stands(m.ABSENT)
    assert desk.told() == [m.ABSENT]
    assert desk._rig.log.lines == []


def test_an_order_that_was_accepted_and_is_absent_is_an_error_and_no_answer_before_that_is_certain(desk):
    desk.pool.slots[desk.slot]["venue_order_id"] = 55
    desk.stands(m.ABSENT)
    assert desk.told() == desk.placed == []
    assert desk.unsaid == [OWN]  # a comparison has to wait
    desk.age(ABSENCE_MS * 1_000_000 + 1)
    desk.stands(m.ABSENT)
    assert desk.told() == desk.placed == [m.ABSENT]
    ((event, fields),) = desk._rig.log.lines
    assert event == "killed: the venue does not know an order that it had accepted"
    assert (fields["order"], fields["venue_order"]) == (OWN, 55)


def test_an_order_that_is_over_by_now_is_not_told_again(desk):
    pool.give_back(desk.pool, desk.slot, desk.pool.generation[desk.slot])
    desk.stands(m.CANCELLED, filled=7)
    assert desk.told() == desk.frames == []
    assert desk.placed == [m.CANCELLED]


def test_an_error_is_no_answer(desk):
    desk.stands(m.UNKNOWN)
    assert desk.told() == desk.placed == []
    assert desk.unsaid == [OWN]


def test_how_long_an_order_may_yet_arrive_counts_from_its_request(desk):
    desk.age(ABSENCE_MS * 1_000_000 + 1)
    sent = desk.context.sent[desk.slot]
    sent["generation"], sent["sent_ns"] = desk.pool.generation[desk.slot], time.time_ns()
    desk.stands(m.ABSENT)
    assert desk.told() == []
    sent["sent_ns"] -= ABSENCE_MS * 1_000_000 + 1
    desk.stands(m.ABSENT)
    assert desk.told() == [m.ABSENT]
