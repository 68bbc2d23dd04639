"""Which intents are admitted, what an ORDER and a denial say, and that rubbish is denied."""

from __future__ import annotations

import time

import numpy as np
import pytest

from shrivenq.shm import pool, ring
from shrivenq.stages import control, stage
from shrivenq.stages import messages as m
from tests.stages.risk_desk import MS, NOON, OTHER, SPOT, USD, Desk, armed_desk, hold_position

CLEARED = ("target_id", "price", "quantity", "side", "order_type", "time_in_force", "stop_price", "self_trade")


def throw_rubbish(seed, count):
    """Send intents of random bytes, a few of them repaired field by field; returns how many were admitted."""
    pick = np.random.default_rng(seed)
    desk = Desk(rings={"intent": 1024, "order": 1024, "feedback": 1024})
    desk.touch()
    end = desk.ends["intent"][0]
    admitted = 0
    for _ in range(count):
        at = ring.next_slot(end)
        sequence = end.own[ring.NEXT] - 1
        end.slots[at : at + 1].view(np.uint8)[:] = pick.integers(0, 256, m.INTENT.itemsize)
        end.slots[at]["sequence"] = sequence
        repairs = {
            "instrument": pick.integers(-2, 5),
            "kind": pick.integers(0, 9),
            "time_ns": desk.now + pick.integers(-3, 1),
            "price": pick.integers(4_900, 5_100) * 10,
            "quantity": pick.integers(20, 1_000) * 1_000,
            "side": pick.choice((-1, 1)),
            "order_type": m.LIMIT,
            "time_in_force": m.GTC,
            "stop_price": 0,
            "self_trade": pick.integers(0, 7),
        }
        for key, value in repairs.items():
            if pick.random() < 0.9:
                end.slots[at][key] = value
        end.slots[at]["order_id"] = (3 << m.EPOCH_SHIFT) + sequence + 1 if pick.random() < 0.95 else -sequence
        given = end.slots[at].copy()
        ring.publish(end)
        desk.step()
        orders, feedback = desk.read("order"), desk.read("feedback")
        assert len(orders) + len(feedback) == 1, seed
        if orders:
            admitted += 1
            assert given["kind"] in (m.NEW, m.REPLACE, m.CANCEL, m.CANCEL_ALL), seed
            assert 0 <= given["instrument"] < 3, seed
            for key in ("instrument", "kind", "order_id"):
                assert orders[0][key] == given[key], seed
            assert orders[0]["flags"] & m.FORCED == 0, seed
            if given["kind"] == m.CANCEL_ALL:
                assert not any(orders[0][key] for key in CLEARED), seed
                continue
            desk.report(orders[0], m.EXPIRED, flags=m.FINAL)
            desk.read("feedback")
            desk.now += MS
            desk.touch()
    return admitted


def test_rubbish_is_denied():
    seed = 5
    assert 20 < throw_rubbish(seed, 4_000) < 3_000


def test_an_admitted_order_carries_its_trace_and_its_slot():
    desk = armed_desk()
    stamps = {"venue_ns": 11, "wire_ns": 12, "decoded_ns": 13, "book_ns": 14, "signal_ns": 15}
    order = desk.ask(**stamps, flags=-1)
    assert {key: int(order[key]) for key in stamps} == stamps
    assert order["risk_ns"] > 0
    assert (order["cause"], order["time_ns"], order["flags"], order["kind"]) == (0, desk.now, 0, m.NEW)
    slot = desk.pool.slots[order["slot"]]
    assert order["generation"] == desk.pool.generation[order["slot"]] == slot["generation"]
    for key in ("order_id", "instrument", "side", "price", "quantity", "order_type", "time_in_force"):
        assert slot[key] == order[key]


def test_a_denial_says_what_was_denied():
    desk = Desk()
    order_id = desk.intent(price=77, wire_ns=5)
    desk.step()
    (denial,) = desk.read("feedback")
    assert m.REASONS[denial["reason"]] == "tick_size"
    assert (denial["order_id"], denial["price"], denial["quantity"], denial["side"]) == (order_id, 77, 1_000_000, m.BUY)
    assert (denial["cause"], denial["slot"], denial["time_ns"], denial["wire_ns"]) == (0, -1, desk.now, 5)


def test_the_message_window_slides_to_the_nanosecond():
    desk = armed_desk(message_rate_max=3, message_window_ms=1_000, cancel_reserve=1)
    first = desk.ask(quantity=200_000)
    desk.now += 1
    desk.touch()
    assert desk.ask(quantity=300_000)["kind"] == m.NEW
    assert desk.ask(quantity=400_000) == "message_rate"
    assert desk.ask(kind=m.CANCEL, target_id=first["order_id"])["kind"] == m.CANCEL  # the reserve
    assert desk.ask(kind=m.CANCEL, target_id=first["order_id"]) == "message_rate"
    desk.now += 1_000 * MS - 1
    desk.touch()
    # The first has left the window, the cancel has not.
    assert desk.ask(quantity=400_000) == "message_rate"
    assert desk.ask(kind=m.CANCEL, target_id=first["order_id"])["kind"] == m.CANCEL
    desk.now += 1
    desk.touch()
    assert desk.ask(quantity=400_000)["kind"] == m.NEW


def test_duplicates_pass_when_the_window_is_over():
    desk = armed_desk()
    assert desk.ask()["kind"] == m.NEW
    desk.now += 50 * MS - 1
    desk.touch()
    assert desk.ask() == "duplicate"
    assert desk.ask(quantity=1_000_100)["kind"] == m.NEW
    desk.now += 1
    desk.touch()
    assert desk.ask()["kind"] == m.NEW


def test_a_replace_binds_both_until_it_is_resolved():
    desk = armed_desk()
    old = desk.ask(quantity=2_000_000)
    new = desk.ask(kind=m.REPLACE, target_id=old["order_id"], price=49_990, quantity=3_000_000)
    assert (new["target_id"], new["target_slot"]) == (old["order_id"], old["slot"])
    assert desk.context.rows[SPOT]["open_buy"] == 5_000_000
    desk.report(new, m.REPLACED, target_id=old["order_id"])
    assert desk.context.rows[SPOT]["open_buy"] == 3_000_000
    assert desk.ask(kind=m.REPLACE, target_id=old["order_id"]) == "unknown_order"
    assert desk.ask(kind=m.REPLACE, target_id=new["order_id"], side=m.SELL, price=50_100) == "malformed"
    assert desk.ask(kind=m.CANCEL, target_id=new["order_id"], instrument=OTHER) == "unknown_order"


def test_an_amendment_releases_when_the_venue_says_so():
    desk = armed_desk()
    order = desk.ask(quantity=1_000_000)
    value = int(desk.context.totals[USD]["open_value"])
    amend = desk.ask(kind=m.AMEND, target_id=order["order_id"], quantity=400_000, price=7, side=0, order_type=99)
    assert (amend["kind"], amend["target_id"], amend["quantity"]) == (m.AMEND, order["order_id"], 400_000)
    assert (amend["slot"], amend["side"], amend["price"]) == (order["slot"], m.BUY, 50_000)
    assert (desk.context.rows[SPOT]["open_buy"], desk.context.totals[USD]["open_value"]) == (1_000_000, value)
    about = {"target_id": order["order_id"], "order_id": amend["order_id"]}
    desk.report(order, m.AMEND_REJECTED, **about)
    assert desk.context.rows[SPOT]["open_buy"] == 1_000_000
    desk.fill(order, 50_000, 100_000, 1, final=False)
    desk.report(order, m.AMENDED, **about, quantity=400_000)
    assert desk.context.rows[SPOT]["open_buy"] == 300_000
    assert desk.context.totals[USD]["open_value"] == value * 3 // 10
    desk.report(order, m.AMENDED, **about, quantity=400_000)  # told twice
    assert desk.context.rows[SPOT]["open_buy"] == 300_000
    assert desk.ask(kind=m.AMEND, target_id=order["order_id"], quantity=400_000) == "quantity_range"
    assert desk.ask(kind=m.AMEND, target_id=order["order_id"], quantity=99_900) == "quantity_range"
    assert desk.ask(kind=m.AMEND, target_id=order["order_id"], quantity=200_050) == "step_size"
    assert desk.ask(kind=m.AMEND, target_id=order["order_id"], quantity=-5) == "malformed"
    assert desk.ask(kind=m.AMEND, target_id=order["order_id"], quantity=200_000, instrument=OTHER) == "unknown_order"
    assert desk.ask(kind=m.AMEND, target_id=order["order_id"], quantity=100_000)["kind"] == m.AMEND
    desk.report(order, m.AMENDED, **about, quantity=100_000, flags=m.FINAL)
    assert (desk.context.rows[SPOT]["open_orders"], desk.context.totals[USD]["open_value"]) == (0, 0)
    assert [int(one["kind"]) for one in desk.read("feedback")] == [m.AMENDED]


def test_a_cancel_all_says_nothing_but_its_instrument():
    desk = armed_desk()
    desk.ask()
    stale = desk.ends["order"][0].slots
    stale[:] = np.frombuffer(b"\x7f" * stale.nbytes, m.ORDER)  # what lies in a slot from before
    order = desk.ask(kind=m.CANCEL_ALL, instrument=OTHER, target_id=-5, quantity=-1, side=9)
    assert (order["kind"], order["instrument"], order["slot"], order["flags"]) == (m.CANCEL_ALL, OTHER, -1, 0)
    assert not any(order[key] for key in CLEARED)
    assert desk.ask(kind=m.CANCEL_ALL, instrument=3) == "unknown_instrument"


def test_the_reserve_of_the_message_rate_is_for_cancels():
    desk = armed_desk(message_rate_max=4, cancel_reserve=2)
    order = desk.ask()
    assert desk.ask(kind=m.AMEND, target_id=order["order_id"], quantity=500_000)["kind"] == m.AMEND
    assert desk.ask(kind=m.AMEND, target_id=order["order_id"], quantity=400_000) == "message_rate"
    assert desk.ask(kind=m.CANCEL_ALL)["kind"] == m.CANCEL_ALL
    assert desk.ask(kind=m.CANCEL, target_id=order["order_id"])["kind"] == m.CANCEL
    assert desk.ask(kind=m.CANCEL_ALL) == "message_rate"


@pytest.mark.parametrize("order_type", [m.STOP_LOSS, m.STOP_LOSS_LIMIT, m.TAKE_PROFIT, m.TAKE_PROFIT_LIMIT])
def test_a_stop_order_binds_from_its_admission(order_type):
    desk = armed_desk()
    limited = order_type in (m.STOP_LOSS_LIMIT, m.TAKE_PROFIT_LIMIT)
    fields = {"order_type": order_type, "price": 60_100 if limited else 0, "stop_price": 60_000, "quantity": 100_000}
    assert desk.ask(**fields, self_trade=m.STP_NONE) == "self_trade"
    order = desk.ask(**fields, self_trade=m.EXPIRE_MAKER)
    assert (order["stop_price"], order["self_trade"], order["order_type"]) == (60_000, m.EXPIRE_MAKER, order_type)
    assert desk.context.rows[SPOT]["open_buy"] == 100_000
    # 0.1 at 601.00, or at 600.00 and the collar of 1 %
    assert desk.context.totals[USD]["open_value"] == (60_10000000 if limited else 60_60000000)
    assert desk.ask(**fields, self_trade=m.EXPIRE_MAKER) == "duplicate"
    fields |= {"stop_price": 60_010, "price": 60_110 if limited else 0}
    assert desk.ask(**fields, self_trade=m.EXPIRE_MAKER)["stop_price"] == 60_010
    assert desk.ask(**(fields | {"stop_price": 60_015}), self_trade=m.EXPIRE_MAKER) == "tick_size"


def test_no_slot():
    desk = Desk(pool_count=2)
    desk.touch()
    orders = [desk.ask(quantity=100_000 * n) for n in (1, 2, 3)]
    assert orders[2] == "no_slot"
    assert desk.context.rows[SPOT]["open_orders"] == 2
    desk.report(orders[0], m.EXPIRED, flags=m.FINAL)
    assert desk.ask(quantity=400_000)["slot"] == orders[0]["slot"]


def test_a_full_order_ring_denies_when_live():
    desk = Desk(rings={"order": 2})
    desk.loop[stage.VIRTUAL] = 0
    desk.loop[stage.OFFSET_NS] = NOON - time.monotonic_ns()
    for n in range(3):
        now = time.monotonic_ns() + int(desk.loop[stage.OFFSET_NS])
        desk.touch(time_ns=now)
        desk.intent(quantity=100_000 * (n + 1), time_ns=now)
    desk.step()
    assert len(desk.read("order")) == 2
    (denial,) = desk.read("feedback")
    assert m.REASONS[denial["reason"]] == "ring_full"
    assert pool.used(desk.pool) == 2


@pytest.mark.parametrize("stop", ["kill", "hold"])
@pytest.mark.parametrize("side", [m.BUY, m.SELL])
def test_only_cancels_and_verified_reductions_pass_a_stop(stop, side):
    desk = hold_position(-side * 2_000_000)
    resting = desk.ask(side=-side, quantity=100_000, price=50_000)
    reason = "not_armed" if stop == "kill" else "held"
    if stop == "kill":
        desk.kill[control.OPERATOR] = 1 << control.GENERATION_SHIFT | control.HALT
    else:
        desk.hold[control.HOLD] = control.FEED_STALE
    away = 50_000 - side * 200
    assert desk.ask(side=-side, quantity=100_000, price=50_000) == reason
    assert desk.ask(side=side, quantity=2_000_100, price=away) == reason
    assert desk.ask(kind=m.CANCEL, target_id=resting["order_id"])["flags"] == 0
    assert desk.ask(kind=m.AMEND, target_id=resting["order_id"], quantity=50_000)["flags"] == 0
    assert desk.ask(kind=m.CANCEL_ALL)["flags"] == 0
    assert desk.ask(side=side, quantity=1_500_000, price=away)["flags"] == m.REDUCING
    # The first reduction is still open: together they would go through zero.
    assert desk.ask(side=side, quantity=500_100, price=away) == reason
    assert desk.ask(side=side, quantity=500_000, price=away)["flags"] == m.REDUCING


@pytest.mark.parametrize(
    "causes", [control.NOT_TRADING, control.OTHER_RULES, control.NOT_TRADING | control.OTHER_RULES]
)
def test_what_holds_one_instrument_stops_its_new_orders_and_no_others(causes):
    desk = hold_position(2_000_000)
    resting = desk.ask(side=m.SELL, quantity=100_000, price=50_200)
    desk.hold_alone(SPOT, causes)
    desk.touch(OTHER, 20_000, 20_010)
    assert desk.ask(quantity=100_000, price=49_900) == "not_tradable"
    assert desk.ask(kind=m.REPLACE, target_id=resting["order_id"], side=m.SELL, quantity=2_000_100) == "not_tradable"
    assert desk.ask(instrument=OTHER, quantity=100_000, price=20_000)["flags"] == 0
    assert desk.ask(kind=m.AMEND, target_id=resting["order_id"], quantity=50_000)["flags"] == 0
    assert desk.ask(side=m.SELL, quantity=500_000, price=50_300)["flags"] == m.REDUCING
    assert desk.ask(kind=m.CANCEL, target_id=resting["order_id"])["flags"] == 0
    assert desk.ask(kind=m.CANCEL_ALL)["flags"] == 0
    desk.hold_alone(SPOT, 0)
    assert desk.ask(quantity=200_000, price=49_900)["flags"] == 0


def test_nothing_is_a_reduction_of_a_position_that_is_being_reconciled():
    desk = hold_position(2_000_000)
    desk.hold[control.HOLD] = control.RECONCILING
    assert desk.ask(side=m.SELL, quantity=500_000, price=50_200) == "held"
    desk.hold[control.HOLD] = control.STAGE_DOWN
    assert desk.ask(side=m.SELL, quantity=500_000, price=50_200)["flags"] == m.REDUCING


def test_overflow_denies():
    desk = armed_desk()
    desk.instruments["quantity_max"] = desk.instruments["price_max"] = 2**61
    desk.instruments["notional_max"] = 0
    desk.context.rows["order_quantity_max"] = desk.context.rows["position_max"] = 2**62
    desk.touch(bid=2**50, ask=2**50 + 8)
    assert desk.ask(price=2**50 // 10 * 10, quantity=2**60 // 100 * 100) == "overflow"
    assert desk.ask(price=0, order_type=m.MARKET, quantity=2**60 // 100 * 100) == "overflow"
