"""The risk stage against its slow twin, and what no random walk would find."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from shrivenq.shm import pool, ring
from shrivenq.shm.kernel import COMPILED
from shrivenq.stages import control, risk, risk_state, stage
from shrivenq.stages import messages as m
from tests.stages.risk_desk import MS, OTHER, PERPETUAL, SPOT, Desk, armed_desk, hold_position, make_config
from tests.stages.risk_twin import STOPS, Twin

TIGHT = {"repeated_execution_max": 12, "daily_loss_max": "300", "open_orders_max": 8}
TIGHT_PERPETUAL = {
    "repeated_execution_max": 12,
    "daily_loss_max": "0.002",
    "gross_exposure_max": "0.05",
    "order_value_max": "0.01",
}
PRICE = {SPOT: 50_000, PERPETUAL: 500_000, OTHER: 20_000}
SPREAD = {SPOT: 10, PERPETUAL: 5, OTHER: 10}


class Walk:
    """A random market, venue and strategy in front of the stage and its twin."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.desk = Desk(
            make_config(
                TIGHT,
                TIGHT_PERPETUAL,
                message_rate_max=60,
                message_window_ms=40,
                cancel_reserve=5,
                reject_streak_max=4,
            )
        )
        spot, perpetual, other = self.desk.instruments
        spot["stop_orders_max"], spot["market_step"] = 2, 1_000
        perpetual["market_quantity_min"], perpetual["refused_modes"] = 5, 1 << m.TRANSFER - 1
        other["market_quantity_max"], other["refused_types"] = 1_500_000, 1 << m.TAKE_PROFIT - 1
        other["refused_requests"] = m.NO_AMEND
        self.twin = Twin(self.desk.instruments, self.desk.currencies, self.desk.setup.config)
        self.price = dict(PRICE)
        self.orders = {}  # order id → its ORDER record, from admission to its end
        self.trade_id = 0
        self.past_fills = []
        self.count = self.rounds = 0
        self.reasons = {}

    def move_market(self):
        pick = self.random
        self.desk.now += pick.choice((0, 1, 1, 5, 20)) * MS + (pick.random() < 0.01) * 3_600_000 * MS
        for i in pick.sample((SPOT, PERPETUAL, OTHER), pick.randint(0, 3)):
            tick = SPREAD[i]
            self.price[i] = max(PRICE[i] // 2, self.price[i] + tick * pick.randint(-4, 4))
            bid = self.price[i]
            ask = bid + tick * pick.choice((1, 1, 1, 2, 0, -1)) if pick.random() < 0.05 else bid + tick
            flags = pick.choice((m.VALID | m.BLIND, 0)) if pick.random() < 0.02 else m.VALID
            self.desk.touch(i, bid, ask, flags)
            self.twin.on_touch(i, bid, ask, flags, self.desk.now)

    def report(self, **fields):
        values = dict.fromkeys(("flags", "target_id", "fee", "trade_id", "last_price", "last_quantity"), 0)
        values |= {"time_ns": self.desk.now, "fee_currency": -1} | fields
        self.desk.write("report", **values)
        self.twin.on_report(values)
        self.count += 1

    def end(self, order_id):
        order = self.orders.pop(order_id)
        assert pool.give_back(self.desk.pool, order["slot"], order["generation"])

    def move_venue(self):
        """Report something about some of the open orders."""
        pick = self.random
        for order_id in pick.sample(sorted(self.orders), min(len(self.orders), pick.randint(0, 12))):
            order = self.orders[order_id]
            about = {"order_id": order_id} | {
                key: int(order[key]) for key in ("instrument", "side", "price", "quantity")
            }
            kinds = (m.ACCEPTED, m.FILL, m.FILL, m.CANCELLED, m.REJECTED, m.EXPIRED, m.UNKNOWN, m.AMENDED)
            kind = pick.choice(kinds)
            if kind == m.FILL:
                self.fill(order_id, about)
            elif kind == m.AMENDED:
                self.amend(order_id, about)
            elif kind == m.CANCELLED:
                self.end(order_id)
                about |= {"order_id": self.desk.next_id + 10**6, "target_id": order_id}
                self.report(**about, kind=kind, flags=m.FINAL)
            elif kind in (m.REJECTED, m.EXPIRED):
                self.end(order_id)
                reason = m.REASON[pick.choice(("none", "not_tradable", "venue"))] if kind == m.REJECTED else 0
                self.report(**about, kind=kind, flags=m.FINAL, reason=reason)
            else:
                self.report(**about, kind=kind)
        if self.past_fills and pick.random() < 0.05:
            self.report(**(pick.choice(self.past_fills) | {"time_ns": self.desk.now, "flags": 0}))

    def amend(self, order_id, about):
        """Tell of a smaller quantity, now and then of one that leaves nothing, or that is no smaller."""
        order = self.twin.open[order_id]
        filled = order["size"] - order["leaves"]
        quantity = self.random.choice((filled, order["size"], self.random.randint(filled, order["size"])))
        about |= {"target_id": order_id, "quantity": quantity}
        if self.random.random() < 0.5:
            about["order_id"] = self.desk.next_id + 10**6
        if quantity == filled:
            self.end(order_id)
        self.report(**about, kind=m.AMENDED, flags=m.FINAL if quantity == filled else 0)

    def fill(self, order_id, about):
        leaves = self.twin.open[order_id]["leaves"]
        quantity = leaves if self.random.random() < 0.5 else self.random.randint(1, leaves)
        price = about["price"] or self.price[about["instrument"]]
        self.trade_id += 1
        row = self.desk.instruments[about["instrument"]]
        about |= {"kind": m.FILL, "last_price": price, "last_quantity": quantity, "trade_id": self.trade_id}
        about |= {"fee": self.random.randint(-100, 5_000), "fee_currency": int(row["settle_currency"])}
        about["flags"] = m.FINAL if quantity == leaves else 0
        if quantity == leaves:
            self.end(order_id)
        self.report(**about)
        self.past_fills = [*self.past_fills[-50:], about]

    def move_person(self):
        """Pull and release stops."""
        pick, desk, twin = self.random, self.desk, self.twin
        if pick.random() < 0.01:
            twin.hold = pick.choice((control.FEED_STALE, control.RECONCILING))
        elif pick.random() < 0.2:
            twin.hold = 0
        desk.hold[control.HOLD] = twin.hold
        i = pick.choice((SPOT, PERPETUAL, OTHER))
        if pick.random() < (0.5 if i in twin.alone else 0.03):
            twin.alone ^= {i}
            desk.hold_alone(i, control.OTHER_RULES if i in twin.alone else 0)
        if pick.random() < 0.01:
            twin.operator = pick.choice((0, control.HALT, control.CANCEL))
            desk.kill[control.OPERATOR] = 7 << control.GENERATION_SHIFT | twin.operator
        if (twin.machine or twin.operator) and pick.random() < 0.1:
            twin.machine = twin.operator = 0
            desk.kill[control.OPERATOR] = desk.kill[control.MACHINE] = 8 << control.GENERATION_SHIFT

    def intent(self):
        """Make up an intent that often passes and sometimes stands at a boundary."""
        pick = self.random
        i = pick.choice((SPOT, SPOT, PERPETUAL, OTHER))
        row = self.desk.instruments[i]
        side = pick.choice((m.BUY, m.SELL))
        price = self.price[i] - side * SPREAD[i] * pick.choice((-1, 0, 1, 2, 3, 5, 8))
        quantity = int(row["step"]) * pick.randint(1, 40) * (1 if i == PERPETUAL else 500)
        if pick.random() < 0.1:
            price = pick.choice(
                (1, 5, 10, 1_000_000, 1_000_010, 50_500, 50_505, 50_510, 49_500, 49_490, self.price[i] + 1, 0, -5)
            )
        if pick.random() < 0.1:
            quantity = pick.choice(
                (0, -1, 1, 50, 99, 100, 999, 1_000, 5_000_000, 5_000_100, 500, 501, 10**7, 10**7 + 100)
            )
        made = {
            "instrument": i,
            "kind": m.NEW,
            "time_ns": self.desk.now - pick.choice((0, 0, 0, 0, 1, 20, 21)) * MS,
            "order_id": self.desk.next_id,
            "target_id": 0,
            "price": price,
            "quantity": quantity,
            "side": side,
            "order_type": pick.choice((m.LIMIT, m.LIMIT, m.LIMIT, m.LIMIT_MAKER)),
            "time_in_force": m.GTC,
            "stop_price": 0,
            "self_trade": pick.choice((0, 0, 0, m.STP_NONE, m.EXPIRE_TAKER, m.TRANSFER)),
        }
        self.desk.next_id += 1
        if pick.random() < 0.1:
            made |= {"order_type": m.MARKET, "price": 0}
        elif pick.random() < 0.1:
            made |= {"order_type": pick.choice(STOPS), "self_trade": pick.choice((0, 2, 3, 4, 5, 6))}
            made["stop_price"] = self.price[i] + side * SPREAD[i] * pick.choice((-9, -3, 1, 5, 20, 400))
            if made["order_type"] in (m.STOP_LOSS, m.TAKE_PROFIT):
                made["price"] = 0
        if pick.random() < 0.3 and self.twin.open:
            made["kind"] = pick.choice((m.CANCEL, m.CANCEL, m.REPLACE, m.AMEND))
            made["target_id"] = pick.choice(sorted(self.twin.open))
            target = self.twin.open[made["target_id"]]
            made["instrument"] = target["instrument"]
            if made["kind"] == m.AMEND and pick.random() < 0.8:
                step = int(self.desk.instruments[target["instrument"]]["step"])
                made["quantity"] = pick.randint(0, target["size"] // step) * step
        elif pick.random() < 0.02:
            made["kind"] = m.CANCEL_ALL
        if pick.random() < 0.03:
            key = pick.choice(list(made))
            made[key] = pick.choice((0, -1, 1, 2, 3, 4, 127, made[key] + 1 if made[key] < 100 else made[key] - 1))
        return made

    def ask(self):
        """Send a batch; what each is expected to become."""
        expected = []
        end = self.desk.ends["intent"][0]
        for _ in range(self.random.randint(0, 30)):
            made = self.intent()
            in_sequence = self.random.random() > 0.002
            position = int(end.own[ring.NEXT])
            self.desk.write("intent", **made, **({} if in_sequence else {"sequence": position + 1}))
            expected.append((made["order_id"], made, in_sequence))
        return expected

    def round(self):
        self.desk.now = max(self.desk.now, self.twin.now)
        self.move_person()
        self.move_market()
        level_before = max(self.twin.operator, self.twin.machine)
        # The stage looks at the kill word between touches and reports.
        self.twin.watch_kill()
        assert self.twin.level == level_before
        self.move_venue()
        asked = self.ask()
        decided = [(order_id, made, *self.twin.on_intent(made, good)) for order_id, made, good in asked]
        cancels = self.twin.enforce()
        self.desk.step()
        orders, feedback = self.desk.read("order"), self.desk.read("feedback")
        forced = [order for order in orders if order["flags"] & m.FORCED]
        assert {int(order["target_id"]) for order in forced} == cancels
        assert len(forced) == len(cancels)
        ours = iter([order for order in orders if not order["flags"] & m.FORCED])
        denied = iter([report for report in feedback if report["kind"] == m.DENIED])
        for order_id, made, reason, reducing in decided:
            self.count += 1
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
            found = next(ours if reason is None else denied)
            assert found["order_id"] == order_id, (made, reason, found)
            if reason is not None:
                assert m.REASONS[found["reason"]] == reason, made
                continue
            assert found["kind"] == made["kind"]
            assert bool(found["flags"] & m.REDUCING) == reducing
            if made["kind"] in (m.NEW, m.REPLACE):
                assert (found["stop_price"], found["self_trade"]) == (made["stop_price"], made["self_trade"])
                self.orders[order_id] = found
        assert next(ours, None) is None
        assert next(denied, None) is None
        self.rounds += 1
        if self.rounds % 8 == 0:
            self.compare()

    def compare(self):
        """Everything the twin knows, the stage knows."""
        twin, context = self.twin, self.desk.context
        for i in range(3):
            row, position = context.rows[i], context.positions.rows[i]
            assert row["open_buy"] == twin.open_quantity(i, m.BUY)
            assert row["open_sell"] == twin.open_quantity(i, m.SELL)
            assert row["open_stops"] == twin.open_stops(i)
            assert row["open_orders"] == sum(order["instrument"] == i for order in twin.open.values())
            assert (position["position"], position["cost"]) == (twin.position[i], twin.cost[i])
            assert position["realised"] == twin.realised[i]
            assert row["streak"] == twin.streak[i]
        for currency in range(2):
            assert context.totals[currency]["open_value"] == twin.open_value(currency)
            assert context.totals[currency]["day_start"] == twin.day_start[currency]
            assert context.positions.accounts[currency]["value"] == twin.gross(currency) - twin.open_value(currency)
        assert self.desk.kill[control.MACHINE] & control.LEVEL_MASK == twin.machine
        assert pool.used(self.desk.pool) == len(self.orders)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_stage_decides_as_its_twin(seed):
    walk = Walk(seed)
    step = 0
    while walk.count < 52_000:
        try:
            walk.round()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, round {step}: {error}") from error
        step += 1
    unseen = {"step_size", "gross_exposure", "reject_streak"}  # rare: they have tests of their own
    frequent = {
        "not_armed",
        "held",
        "not_tradable",
        "not_supported",
        "unknown_instrument",
        "malformed",
        "tick_size",
        "price_range",
        "quantity_range",
        "notional_range",
        "no_touch",
        "stale_touch",
        "price_collar",
        "order_quantity",
        "order_value",
        "position",
        "open_orders",
        "message_rate",
        "duplicate",
        "intent_age",
        "unknown_order",
        "repeated_cause",
        "self_trade",
    }
    assert frequent <= set(walk.reasons), (seed, frequent - set(walk.reasons))
    assert set(walk.reasons) - frequent - {None, "daily_loss"} <= unseen


def test_the_stage_runs_uncompiled():
    """Plain Python finds what compiled code would not: an index beyond an array, a number beyond 64 bits."""
    if not COMPILED:
        pytest.skip("this run is uncompiled as a whole")
    program = (
        "from tests.stages.test_risk import Walk\n"
        "from tests.stages.test_risk_intents import throw_rubbish\n"
        "walk = Walk(11)\n"
        "while walk.count < 1_500: walk.round()\n"
        "throw_rubbish(12, 300)\n"
    )
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]


def test_a_wrong_sequence_stops_the_stage():
    for name in ("touch", "report"):
        desk = Desk()
        desk.write(name, sequence=5)
        desk.step()
        assert desk.loop[stage.FAULT] == stage.FAULT_SEQUENCE


def test_a_kill_to_cancel_cancels_everything():
    desk = armed_desk()
    orders = [desk.ask(quantity=100_000 * n) for n in (1, 2, 3)]
    desk.kill[control.OPERATOR] = 4 << control.GENERATION_SHIFT | control.CANCEL
    desk.step()
    cancels = desk.read("order")
    assert {int(one["target_id"]) for one in cancels} == {int(one["order_id"]) for one in orders}
    for one in cancels:
        assert (one["kind"], one["flags"], one["cause"]) == (m.CANCEL, m.FORCED, -1)
        assert one["order_id"] >> m.EPOCH_SHIFT == 3
        assert one["slot"] in {order["slot"] for order in orders}
    assert desk.loop[stage.KILL_SEEN] == control.CANCEL + 1
    desk.report(orders[0], m.CANCELLED, target_id=orders[0]["order_id"], flags=m.FINAL)
    desk.step()
    assert desk.read("order") == []
    # Armed again and killed again: what is still open is cancelled again.
    desk.kill[control.OPERATOR] = 5 << control.GENERATION_SHIFT
    desk.step()
    desk.kill[control.OPERATOR] = 5 << control.GENERATION_SHIFT | control.CANCEL
    desk.step()
    assert len(desk.read("order")) == 2


def test_a_kill_cancels_until_an_order_has_ended():
    desk = armed_desk()
    ended, kept = desk.ask(quantity=100_000), desk.ask(quantity=200_000)
    desk.kill[control.OPERATOR] = 4 << control.GENERATION_SHIFT | control.CANCEL
    desk.step()
    cancels = {int(one["target_id"]): one for one in desk.read("order")}
    desk.report(ended, m.CANCELLED, target_id=ended["order_id"], flags=m.FINAL)
    target = int(kept["order_id"])
    for _ in range(3):
        desk.report(cancels[target], m.CANCEL_REJECTED, target_id=target, reason=m.REASON["disconnected"])
        desk.now += risk.AGAIN_NS - 1
        desk.touch()
        desk.step()
        assert desk.read("order") == []
        desk.now += 1
        desk.touch()
        desk.step()
        (again,) = desk.read("order")
        assert (again["kind"], again["target_id"], again["flags"]) == (m.CANCEL, target, m.FORCED)
        assert again["order_id"] != cancels[target]["order_id"]
        cancels[target] = again
    desk.report(kept, m.CANCELLED, target_id=target, flags=m.FINAL)
    desk.now += 2 * risk.AGAIN_NS
    desk.touch()
    desk.step()
    assert desk.read("order") == []
    assert desk.context.words[risk_state.SPARED] == 0


@pytest.mark.parametrize("side", [m.BUY, m.SELL])
def test_a_kill_to_flatten_closes_at_market(side):
    desk = hold_position(-side * 4_000_050 // 100 * 100)
    held = int(abs(desk.context.positions.rows[SPOT]["position"]))
    other = desk.ask(side=side, quantity=1_000_000, price=50_000 - side * 200)
    desk.kill[control.OPERATOR] = 4 << control.GENERATION_SHIFT | control.FLATTEN
    desk.touch(flags=0)
    desk.step()
    assert [one["kind"] for one in desk.read("order")] == [m.CANCEL]  # no valid touch: nothing at market
    desk.touch()
    desk.step()
    (closing,) = desk.read("order")
    assert (closing["kind"], closing["order_type"], closing["time_in_force"]) == (m.NEW, m.MARKET, m.IOC)
    assert closing["flags"] == m.FORCED | m.REDUCING
    # What the other order may still close is left to it: never through zero.
    assert (closing["side"], closing["quantity"]) == (side, held - 1_000_000)
    desk.step()
    assert desk.read("order") == []
    desk.fill(closing, 50_000, int(closing["quantity"]), 77)
    desk.report(other, m.CANCELLED, target_id=other["order_id"], flags=m.FINAL)
    (rest,) = desk.read("order")
    assert rest["quantity"] == 1_000_000
    desk.fill(rest, 50_000, 1_000_000, 78)
    assert desk.context.positions.rows[SPOT]["position"] == 0
    assert desk.read("order") == []


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("market_quantity_max", 300_000, [300_000]),
        ("market_step", 3_000, [3_999_000]),
        ("market_quantity_min", 4_000_000, [4_000_000]),
        ("market_quantity_min", 4_000_100, []),
    ],
)
def test_what_flatten_sends_is_a_market_order_that_the_venue_takes(field, value, expected):
    desk = hold_position(4_000_000)
    desk.instruments[SPOT][field] = value
    desk.hold_alone(SPOT, control.OTHER_RULES)
    desk.kill[control.OPERATOR] = 4 << control.GENERATION_SHIFT | control.FLATTEN
    desk.touch()
    desk.step()
    assert [int(one["quantity"]) for one in desk.read("order")] == expected


def test_flatten_waits_until_the_account_is_reconciled():
    desk = hold_position(1_000_000)
    desk.kill[control.OPERATOR] = control.FLATTEN
    desk.hold[control.HOLD] = control.RECONCILING
    for _ in range(2 * risk.FLATTEN_TRIES):
        desk.step()
    assert desk.read("order") == []
    desk.hold[control.HOLD] = control.STAGE_DOWN
    desk.step()
    (closing,) = desk.read("order")
    # What the venue refused since it had begun to reconcile a moment before is tried again.
    desk.hold[control.HOLD] = control.RECONCILING
    desk.report(closing, m.REJECTED, flags=m.FINAL, reason=m.REASON["held"])
    assert desk.read("order") == []
    desk.hold[control.HOLD] = 0
    desk.now += risk.AGAIN_NS
    desk.touch()
    desk.step()
    assert len(desk.read("order")) == 1


def test_flatten_gives_up_on_a_venue_that_refuses():
    desk = hold_position(1_000_000)
    desk.kill[control.OPERATOR] = control.FLATTEN
    desk.step()
    tries = 0
    while orders := desk.read("order"):
        tries += 1
        desk.report(orders[0], m.REJECTED, flags=m.FINAL, reason=m.REASON["disconnected"])
        assert desk.read("order") == []  # not at once: a connection takes a moment to come back
        desk.now += risk.AGAIN_NS
        desk.touch()
        desk.step()
    assert tries == risk.FLATTEN_TRIES


def test_an_instrument_without_limits_is_refused():
    config = make_config()
    with pytest.raises(ValueError, match=r"^risk\.limits\.OTHER: missing"):
        Desk(msgspec.structs.replace(config, limits={key: config.limits[key] for key in ("SPOT", "PERP")}))


def test_what_was_asked_after_the_turn_began_is_not_of_the_future():
    """Fused, market data takes a frame in the same turn: an intent about a trade is younger than the turn."""
    desk = Desk()
    desk.loop[stage.VIRTUAL] = 0
    desk.now = time.monotonic_ns()
    desk.touch()
    desk.loop[stage.NOW_NS] = desk.now
    desk.step()
    desk.loop[stage.NOW_NS], desk.now = time.monotonic_ns(), time.monotonic_ns() + 1
    assert desk.ask()["kind"] == m.NEW
