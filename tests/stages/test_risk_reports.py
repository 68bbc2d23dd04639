"""What reports do to positions, to what is open, and to the kill."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.shm import board, pool
from shrivenq.stages import control, risk_state
from shrivenq.stages import messages as m
from shrivenq.stages.positions import POSITION
from tests.stages.risk_desk import SPOT, Desk, armed_desk, make_config


def test_a_repeated_fill_is_passed_on_empty():
    desk = armed_desk()
    order = desk.ask()
    for _ in range(2):
        desk.fill(order, 50_000, 400_000, 9, fee=7, final=False)
    once, again = desk.read("feedback")
    assert (once["last_quantity"], once["fee"]) == (400_000, 7)
    assert (again["last_quantity"], again["fee"]) == (0, 0)
    assert desk.context.positions.rows[SPOT]["position"] == 400_000
    assert desk.context.rows[SPOT]["open_buy"] == 600_000
    # The other side of the same trade is another fill; the same id elsewhere too.
    desk.fill(desk.ask(side=m.SELL, price=50_100), 50_100, 100_000, 9, final=False)
    assert desk.context.positions.rows[SPOT]["position"] == 300_000


def test_a_fill_of_an_unknown_order_counts():
    desk = armed_desk()
    order = desk.ask()
    desk.report(order, m.CANCELLED, target_id=order["order_id"], flags=m.FINAL)
    assert desk.context.rows[SPOT]["open_orders"] == 0
    desk.write(
        "report", kind=m.FILL, order_id=order["order_id"], instrument=SPOT, side=m.BUY, last_price=50_000,
        last_quantity=100, trade_id=3, time_ns=desk.now,
    )  # fmt: skip
    desk.step()
    assert desk.context.positions.rows[SPOT]["position"] == 100


@pytest.mark.parametrize(
    "rubbish", [{"instrument": -1}, {"instrument": 3}, {"last_price": 0}, {"last_quantity": -5}, {"side": 0}]
)
def test_a_fill_that_makes_no_sense_is_not_booked(rubbish):
    desk = armed_desk()
    fields = {"instrument": SPOT, "side": m.BUY, "last_price": 50_000, "last_quantity": 100, "trade_id": 3}
    desk.write("report", kind=m.FILL, order_id=5, time_ns=desk.now, **(fields | rubbish))
    desk.step()
    assert desk.context.words[risk_state.BAD_FILLS] == 1
    assert desk.context.positions.rows[SPOT]["fills"] == 0


def test_a_refused_cancel_changes_nothing_and_an_unknown_outcome_keeps_its_exposure():
    desk = armed_desk()
    order = desk.ask()
    cancel = desk.ask(kind=m.CANCEL, target_id=order["order_id"])
    assert (cancel["slot"], cancel["generation"], cancel["side"]) == (order["slot"], order["generation"], m.BUY)
    desk.report(cancel, m.CANCEL_REJECTED, target_id=order["order_id"])
    desk.report(order, m.UNKNOWN)
    assert desk.context.rows[SPOT]["open_buy"] == 1_000_000
    desk.report(order, m.ABSENT, flags=m.FINAL)
    assert desk.context.rows[SPOT]["open_buy"] == 0


def test_a_slot_may_be_taken_again_before_its_report_arrives():
    desk = Desk(pool_count=1)
    desk.touch()
    old = desk.ask(quantity=100_000)
    assert pool.give_back(desk.pool, old["slot"], old["generation"])
    new = desk.ask(quantity=200_000)
    assert new["slot"] == old["slot"]
    desk.write("report", kind=m.EXPIRED, flags=m.FINAL, order_id=old["order_id"], time_ns=desk.now)
    desk.step()
    assert desk.context.rows[SPOT]["open_buy"] == 200_000


def test_repeated_execution_pulls_the_kill_until_armed_again():
    desk = Desk(make_config({"repeated_execution_max": 3}))
    for n in range(3):
        desk.touch()
        order = desk.ask(quantity=200_000 * (n + 1))
        for part in range(2):  # parts of one order are one execution
            desk.fill(order, 50_000, 100_000 * (n + 1), 10 * n + part, final=part == 1)
    assert desk.kill[control.MACHINE] & control.LEVEL_MASK == control.CANCEL
    assert desk.ask(quantity=900_000) == "not_armed"
    desk.kill[control.MACHINE] = 0
    assert desk.ask(quantity=900_000)["kind"] == m.NEW


def test_a_streak_of_rejections_halts():
    desk = armed_desk()
    for n in range(5):
        desk.report(desk.ask(quantity=100_000 * (n + 1)), m.REJECTED, flags=m.FINAL)
    assert desk.kill[control.MACHINE] & control.LEVEL_MASK == control.HALT


def test_rejections_of_a_symbol_that_the_venue_does_not_trade_are_no_streak():
    desk = armed_desk()
    for n in range(10):
        order = desk.ask(quantity=100_000 * (n + 1))
        desk.report(order, m.REJECTED, flags=m.FINAL, reason=m.REASON["not_tradable"])
    assert control.kill_level(desk.kill) == control.ARMED
    for n in range(5):
        desk.report(desk.ask(quantity=100_000 * (n + 20)), m.REJECTED, flags=m.FINAL, reason=m.REASON["venue"])
    assert control.kill_level(desk.kill) == control.HALT


def test_a_streak_of_unknown_outcomes_halts_but_not_where_a_connection_was_lost():
    for hold, level in ((control.RECONCILING, control.ARMED), (0, control.HALT)):
        desk = armed_desk()
        orders = [desk.ask(quantity=100_000 * (n + 1)) for n in range(5)]
        desk.hold[control.HOLD] = hold
        for order in orders[:4]:
            desk.report(order, m.UNKNOWN, reason=m.REASON["venue_error"])
        assert control.kill_level(desk.kill) == control.ARMED
        desk.report(orders[4], m.UNKNOWN)
        assert control.kill_level(desk.kill) == level


def test_positions_are_published():
    desk = armed_desk()
    order = desk.ask()
    desk.fill(order, 50_000, 1_000_000, 1)
    target = np.zeros(1, POSITION)
    assert board.read(desk.context.board, SPOT, target)
    assert target[0] == desk.context.positions.rows[SPOT]
