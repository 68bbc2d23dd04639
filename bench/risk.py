"""What a risk check costs: every check on distinct intents, over a state larger than the L2 cache.

512 instruments, 8,192 orders always open, a rate window that holds 50,000 messages. Per batch of 64: 64 touches and the
64 reports that end the oldest orders, then 64 new intents, all admitted. `check` is the time of a step that decides
intents, per intent: reading it, all checks, the order slot, the ORDER (median batch). `rate` is intents per second in
those steps, `messages` touches, reports and intents per second in all of them (best stretch of 4,096 intents).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from report import Report

from shrivenq.shm import pool, ring
from shrivenq.shm.clock import monotonic_ns
from shrivenq.shm.kernel import kernel
from shrivenq.stages import messages as m
from shrivenq.stages import risk, stage
from shrivenq.stages.orders import ORDER_SLOT
from shrivenq.stages.risk_limits import Config, Limits

INSTRUMENTS = 512
OPEN = 8192
BATCH = 64
BATCHES = 4096
STRETCH = 64  # batches that a rate is taken over
ROUNDS = 7
STEP_NS = 20_000
START_NS = 1_700_000_000_000_000_000


def private_ring(dtype: np.dtype[Any], count: int) -> tuple[ring.Producer, ring.Consumer]:
    own, peer, slots = np.zeros(512, np.int64), np.zeros(512, np.int64), np.zeros(count, dtype)
    return ring.Producer(own, peer, slots), ring.Consumer(peer, own, slots)


def make_tables() -> tuple[Any, Any]:
    currencies = np.zeros(2, m.CURRENCY)
    currencies["decimals"] = 8
    instruments = np.zeros(INSTRUMENTS, m.INSTRUMENT)
    instruments["symbol"] = [b"I%d" % i for i in range(INSTRUMENTS)]
    instruments["tick"], instruments["step"] = 1, 1000
    instruments["price_min"], instruments["price_max"] = 1, 10**9
    instruments["quantity_min"], instruments["quantity_max"] = 1000, 10**12
    instruments["notional_min"] = 10**8
    instruments["contract_size"] = 10**8
    instruments["price_decimals"], instruments["quantity_decimals"] = 2, 8
    instruments["quote_currency"] = instruments["settle_currency"] = 1
    instruments["tradable"] = 1
    return instruments, currencies


def make_config() -> Config:
    limits = Limits(
        price_collar_bps="500",
        order_quantity_max="10",
        order_value_max="1000000",
        position_max="10000",
        gross_exposure_max="10000000000",
        open_orders_max=1000,
        duplicate_window_ms=100,
        market_data_age_ms_max=60_000,
        intent_age_ms_max=1000,
        daily_loss_max="1000000",
        repeated_execution_max=100_000,
    )
    return Config(
        message_rate_max=60_000,
        message_window_ms=1000,
        cancel_reserve=100,
        reject_streak_max=100,
        limits={f"I{i}": limits for i in range(INSTRUMENTS)},
    )


def make_intents(count: int, seed: int) -> Any:
    """Distinct passive orders at random prices, sizes and instruments."""
    random = np.random.default_rng(seed)
    intents = np.zeros(count, m.INTENT)
    intents["instrument"] = random.integers(0, INSTRUMENTS, count)
    intents["kind"] = m.NEW
    intents["time_ns"] = START_NS + np.arange(1, count + 1) * STEP_NS
    intents["order_id"] = (1 << m.EPOCH_SHIFT) + np.arange(1, count + 1)
    side = np.where(random.random(count) < 0.5, m.BUY, m.SELL)
    intents["side"] = side
    away = random.integers(0, 20_000, count)
    intents["price"] = np.where(side == m.BUY, 5_000_000 - away, 5_000_001 + away)
    intents["quantity"] = random.integers(100, 100_000, count) * 1000
    intents["order_type"], intents["time_in_force"] = m.LIMIT, m.GTC
    return intents


@kernel
def feed(touch: Any, report: Any, slots: Any, open_orders: Any, first: int, now_ns: int) -> None:
    """Write a batch of touches, and the reports that end the oldest orders, whose slots go back."""
    for _ in range(BATCH):
        sequence = touch.own[ring.NEXT]
        at = ring.next_slot(touch)
        touch.slots[at]["sequence"] = sequence
        touch.slots[at]["time_ns"] = now_ns
        touch.slots[at]["instrument"] = (sequence * 37) % INSTRUMENTS
        touch.slots[at]["flags"] = m.VALID
        touch.slots[at]["bid_price"] = 5_000_000
        touch.slots[at]["ask_price"] = 5_000_001
    ring.publish(touch)
    if first < OPEN:
        return
    for n in range(BATCH):
        oldest = (first + n) % OPEN
        pool.give_back(slots, open_orders[oldest]["slot"], open_orders[oldest]["generation"])
        sequence = report.own[ring.NEXT]
        at = ring.next_slot(report)
        report.slots[at]["sequence"] = sequence
        report.slots[at]["time_ns"] = now_ns
        report.slots[at]["kind"] = m.EXPIRED
        report.slots[at]["flags"] = m.FINAL
        report.slots[at]["order_id"] = open_orders[oldest]["order_id"]
        report.slots[at]["instrument"] = open_orders[oldest]["instrument"]
    ring.publish(report)


@kernel
def ask(intent: Any, intents: Any, first: int) -> None:
    """Write a batch of intents."""
    for n in range(BATCH):
        sequence = intent.own[ring.NEXT]
        at = ring.next_slot(intent)
        intent.slots[at] = intents[first + n]
        intent.slots[at]["sequence"] = sequence
    ring.publish(intent)


@kernel
def collect(order: Any, feedback: Any, open_orders: Any, first: int) -> int:
    """Take the batch's ORDERs; how many there were."""
    ring.release(feedback, ring.available(feedback))
    count = ring.available(order)
    for n in range(count):
        open_orders[(first + n) % OPEN] = order.slots[ring.slot_at(order, n)]
    ring.release(order, count)
    return count


@kernel
def drive(
    context: Any,
    loop: Any,
    touch: Any,
    report: Any,
    intent: Any,
    order: Any,
    feedback: Any,
    intents: Any,
    open_orders: Any,
    spent: Any,
) -> int:
    """Run all batches; `spent` gets the ns of a batch: with intents and without, once all are open."""
    admitted = 0
    for first in range(0, intents.shape[0], BATCH):
        feed(touch, report, context.slots, open_orders, first, intents[first]["time_ns"])
        began = monotonic_ns()
        risk.step(context, loop)
        between = monotonic_ns()
        ask(intent, intents, first)
        decided = monotonic_ns()
        risk.step(context, loop)
        ended = monotonic_ns()
        admitted += collect(order, feedback, open_orders, first)
        if first >= OPEN:
            batch = (first - OPEN) // BATCH
            spent[batch, 0] = ended - decided
            spent[batch, 1] = between - began
    return admitted


def measure(seed: int) -> tuple[float, float, float]:
    """Run once: ns a check, intents per second, messages per second."""
    instruments, currencies = make_tables()
    dtypes = {"touch": m.TOUCH, "report": m.REPORT, "intent": m.INTENT, "order": m.ORDER, "feedback": m.REPORT}
    ends = {name: private_ring(dtype, 1024) for name, dtype in dtypes.items()}
    loop, kill, hold, instrument_hold = (np.zeros(512, np.int64) for _ in range(4))
    loop[stage.VIRTUAL] = 1
    slots = pool.private(ORDER_SLOT, OPEN + BATCH)
    context = risk.build(
        stage.Setup(
            config=make_config(),
            instruments=instruments,
            currencies=currencies,
            producers={name: ends[name][0] for name in risk.STAGE.writes},
            consumers={name: ends[name][1] for name in risk.STAGE.reads},
            loop=loop,
            shared={
                "kill": kill,
                "hold": hold,
                "instrument_hold": instrument_hold,
                "orders": slots,
                "epoch": np.array([1], np.int64),
            },
        )
    )
    context.rows["bid"], context.rows["ask"], context.rows["touch_valid"] = 5_000_000, 5_000_001, 1
    context.rows["touch_ns"] = START_NS
    intents = make_intents(OPEN + BATCHES * BATCH, seed)
    spent = np.zeros((BATCHES, 2), np.int64)
    sources = (ends[name][0] for name in ("touch", "report", "intent"))
    sinks = (ends[name][1] for name in ("order", "feedback"))
    admitted = drive(context, loop, *sources, *sinks, intents, np.zeros(OPEN, m.ORDER), spent)
    if admitted != len(intents):
        raise SystemExit(f"only {admitted} of {len(intents)} intents were admitted: {context.words}")
    # The median batch, and the best stretch: what another process interrupted says nothing about ours.
    check = float(np.median(spent[:, 0])) / BATCH
    stretches = spent.reshape(-1, STRETCH, 2).sum(axis=1)
    count = STRETCH * BATCH
    return check, count / float(stretches[:, 0].min()) * 1e9, 3 * count / float(stretches.sum(axis=1).min()) * 1e9


def main() -> None:
    report = Report("risk")
    rounds = [measure(seed) for seed in range(ROUNDS)]
    report.row("all_checks", "check", "ns", min(one[0] for one in rounds))
    report.row("all_checks", "rate", "1/s", max(one[1] for one in rounds))
    report.row("all_checks", "messages", "1/s", max(one[2] for one in rounds))


if __name__ == "__main__":
    main()
