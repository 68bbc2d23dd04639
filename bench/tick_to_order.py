"""Tick to order: from the last byte of a frame in memory until the order it causes is ready, its text encoded.

One immediate-or-cancel order for each depth event, through every limit check, the journal, and on to the paper venue.
The pipeline runs free on frames of the Spot capture in memory, released by the clock: open loop, so latency counts
from the instant a frame was due, whoever was late. `split`, `fused`: 50 µs between two frames. `*_burst`: the busiest
stretch of the capture, in the capture's own times. `bare`: five processes on the same CPUs that wait in the same way
and only forward 64 bytes, on the same schedule.

`total_*`: all depth events; `depth_10_*`: those of exactly ten entries; `trade_p50`: orders on trades, in runs of their
own; one median a hop. Figures are medians over the rounds.

`idle`: what a loop that does nothing but read the clock loses: the share of time, and how often a second, its CPU
was taken away for more than 5 µs. No percentile of the others can be better than that allows.
"""

from __future__ import annotations

import os
import time

import numpy as np
from harness import (
    STRATEGIES,
    BenchmarkError,
    Stack,
    base_config,
    load_tape,
    percentile,
    quiet_logs,
    shared,
    undisturbed,
    wide_open,
)
from report import Report, interleaved

from shrivenq.pipeline import placement, processes, topology
from shrivenq.shm import ring
from shrivenq.shm.atomics import load_acquire, store_word
from shrivenq.shm.clock import monotonic_ns
from shrivenq.shm.kernel import kernel
from shrivenq.shm.wait import idle
from shrivenq.stages import frames, hops
from shrivenq.stages import messages as m

SPACING_NS = 50_000
FRAMES = 60_000
WARM_UP = 2_000
"""Frames at the beginning that count for nothing: the first touch of every page is among them."""
ROUNDS = 3
TRADE_FRAMES = 20_000
BURST_S = 12.0
TRADE_BURST_S = 3.0
LEAD_NS = 100_000_000
"""From letting the stages go to the first frame."""
DEPTH, TRADES = 0, 1
GAP_NS, GAP_S = 5_000, 2
MESSAGE = np.dtype([("words", "<i8", (8,))], align=True)
STAGES = 5
FIRST, GO, READY = 0, 16, 32  # words


# ── ours ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def scheduled(tape, count):
    """Take the first `count` frames of a tape, in memory of their own."""
    index = shared(count, frames.FRAME)
    index[:] = tape.frames.index[:count]
    return tape._replace(frames=frames.Frames(tape.frames.data, index, np.zeros(16, np.int64)))


def play(tape, schedule, *, fused, events):
    """Release frame i at `schedule[i]` ns; return when it began and the rows ORDER and REPORT of every order."""
    parameters = {"events": events, "quantity": 10_000, "buys_only": 0}
    config = wide_open(base_config(), strategy=STRATEGIES / "one_order.py", params=parameters)
    part = scheduled(tape, len(schedule))
    with Stack(config, fused=fused, virtual=False, source=(part, 1)) as stack:
        index = part.frames.index
        start_ns = time.monotonic_ns() + LEAD_NS
        index["wire_ns"] = start_ns + schedule
        index["time_ns"] = index["wire_ns"] + stack.offset_ns
        stack.go()
        # Not a look before the end, as for the peer: the journal's ring holds all of it.
        time.sleep((LEAD_NS + int(schedule[-1])) / 1e9)
        stack.run_out(every_s=0.1)
        orders, reports = stack.journaled()
        stack.refuse_drops()
        return start_ns, orders, reports


def samples(tape, schedule, *, fused, events, first):
    """Play, and return by frame: the number of the frame, its total, and every hop, for frames from `first` on."""
    start_ns, orders, reports = play(tape, schedule, fused=fused, events=events)
    _, at = np.unique(reports["order_id"], return_index=True)
    ids, reports = reports["order_id"][at], reports[at]
    orders = orders[(orders["kind"] == m.NEW) & np.isin(orders["order_id"], ids)]
    reports = reports[np.searchsorted(ids, orders["order_id"])]
    number = np.searchsorted(schedule, orders["wire_ns"] - start_ns)
    chosen = number >= first
    orders, reports, number = orders[chosen], reports[chosen], number[chosen]
    stamps = [orders[name] for name in ("wire_ns", "decoded_ns", "book_ns", "signal_ns", "risk_ns")]
    stamps += [reports["ready_ns"], reports["sent_ns"]]
    spent = {name: stamps[i + 1] - stamps[i] for i, name in enumerate(hops.NAMES[:-1])}
    return number, reports["ready_ns"] - orders["wire_ns"], spent


def measure(tape, schedule, *, fused, first):
    """Measure one round of a case."""
    number, total, spent = samples(tape, schedule, fused=fused, events=DEPTH, first=first)
    ten = total[tape.entries[number] == 10]
    found = {f"total_{name}": percentile(total, value) for name, value in PERCENTILES.items()}
    found |= {f"depth_10_{name}": percentile(ten, PERCENTILES[name]) for name in ("p50", "p99") if len(ten)}
    return found | {f"{name}_p50": percentile(values, 50) for name, values in spent.items()}


def measure_trades(tape, schedule, *, fused, first):
    """Measure orders on trades."""
    _, total, _ = samples(tape, schedule, fused=fused, events=TRADES, first=first)
    return {"trade_p50": percentile(total, 50)}


PERCENTILES = {"p50": 50, "p99": 99, "p999": 99.9}


def burst(tape, seconds):
    """Find the busiest stretch: the schedule up to its end, what was before in even steps, and its first frame."""
    times = tape.frames.index["time_ns"]
    stop = np.searchsorted(times, times + int(seconds * 1e9))
    first = int(np.argmax(stop - np.arange(len(times))))
    last = int(stop[first])
    schedule = np.arange(last, dtype=np.int64) * (SPACING_NS // 2)
    own = times[first:last] - times[first]
    # No two at the same instant: a frame is known by it.
    own = np.maximum.accumulate(own - np.arange(len(own))) + np.arange(len(own))
    schedule[first:] = schedule[first] + own
    return schedule, first


# ── the peer ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def send(out, words, spacing_ns, count, wait):
    """Be the first of the five: publish a message at every instant of the schedule."""
    while count > 0 and load_acquire(words, GO) == 0:
        idle(wait)
    at = 0
    while at < count:
        due = words[FIRST] + at * spacing_ns
        if monotonic_ns() < due or not ring.claim(out, 1):
            idle(wait)
            continue
        slot = ring.next_slot(out)
        for i in range(8):
            out.slots[slot]["words"][i] = due + i
        ring.publish(out)
        at += 1


@kernel
def forward(source, out, words, count, wait):
    """Be one in the middle."""
    at = 0
    while at < count:
        if ring.available(source) == 0 or not ring.claim(out, 1):
            idle(wait)
            continue
        slot, target = ring.slot_at(source, 0), ring.next_slot(out)
        for i in range(8):
            out.slots[target]["words"][i] = source.slots[slot]["words"][i]
        ring.publish(out)
        ring.release(source, 1)
        at += 1


@kernel
def receive(source, latency, words, count, wait):
    """Be the last: note how late each message is."""
    at = 0
    while at < count:
        if ring.available(source) == 0:
            idle(wait)
            continue
        slot = ring.slot_at(source, 0)
        total = np.int64(0)
        for i in range(8):
            total += source.slots[slot]["words"][i]
        latency[at] = monotonic_ns() - (total - 28) // 8
        ring.release(source, 1)
        at += 1


def bare():
    """Measure one round of the peer."""
    words, latency = shared(128, np.int64), shared(FRAMES, np.int64)
    rings = [[shared(512, np.int64), shared(512, np.int64), shared(1 << 12, MESSAGE)] for _ in range(STAGES - 1)]
    outs = [ring.Producer(own, peer, slots) for own, peer, slots in rings]
    sources = [ring.Consumer(own, peer, slots) for peer, own, slots in rings]
    names = list(topology.STAGES)[:STAGES]
    plan = placement.plan(base_config(), [[name] for name in names])

    def work(number, count, wait):
        if number == 0:
            send(outs[0], words, SPACING_NS, count, wait)
        elif number < STAGES - 1:
            forward(sources[number - 1], outs[number], words, count, wait)
        else:
            receive(sources[-1], latency, words, count, wait)

    def main(number):
        plan.apply(names[number])
        words[READY + number] = 1
        work(number, FRAMES, plan.wait_of(names[number]))
        return 0

    for number in range(STAGES):
        work(number, 0, 0)  # compiles, so that no child has to
    children = [processes.start(name, lambda number=number: main(number)) for number, name in enumerate(names)]
    try:
        while not words[READY : READY + STAGES].all():
            time.sleep(0.001)
        words[FIRST] = time.monotonic_ns() + LEAD_NS
        store_word(words, GO, 1)
        if not all(child.wait(60.0) and child.status == 0 for child in children):
            raise BenchmarkError("the peer did not end well")
    finally:
        processes.stop(children, 0.0)
    found = latency[WARM_UP:]
    return {f"total_{name}": percentile(found, value) for name, value in PERCENTILES.items()}


# ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def taken_away(gaps, until_ns):
    """Read the clock until `until_ns`; note every gap above GAP_NS, return how many there were."""
    count, last = 0, monotonic_ns()
    while last < until_ns and count < gaps.shape[0]:
        now = monotonic_ns()
        if now - last > GAP_NS:
            gaps[count] = now - last
            count += 1
        last = now
    return count


def idle_machine():
    """Measure what the worst CPU loses while nothing runs but this."""
    gaps = np.zeros(1 << 20, np.int64)
    taken_away(gaps, 0)
    allowed, found = os.sched_getaffinity(0), []
    for cpu in allowed:
        os.sched_setaffinity(0, {cpu})
        count = taken_away(gaps, time.monotonic_ns() + GAP_S * 1_000_000_000)
        found.append((float(gaps[:count].sum()) / GAP_S / 1e7, count / GAP_S))
    os.sched_setaffinity(0, allowed)
    return max(found)


# ── the program ──────────────────────────────────────────────────────────────────────────────────────────────────────


def main():
    report = Report("tick_to_order")
    tape = load_tape()
    even = np.arange(min(FRAMES, tape.count), dtype=np.int64) * SPACING_NS
    few = even[: min(TRADE_FRAMES, tape.count)]

    def run(call, schedule, first, placed):
        return undisturbed(report, lambda: call(tape, schedule, fused=placed == "fused", first=first))

    cases = {
        "split": lambda: run(measure, even, WARM_UP, "split"),
        "fused": lambda: run(measure, even, WARM_UP, "fused"),
        "bare": bare,
    }
    with quiet_logs():
        found = interleaved(ROUNDS, cases)
        for case in ("split", "fused"):
            found[case] |= run(measure_trades, few, WARM_UP, case)
        if tape.real:
            for case in ("split", "fused"):
                found[f"{case}_burst"] = run(measure, *burst(tape, BURST_S), case)
                found[f"{case}_burst"] |= run(measure_trades, *burst(tape, TRADE_BURST_S), case)
    share, count = idle_machine()
    report.row("idle", "taken_away", "%", share)
    report.row("idle", "taken_away_rate", "1/s", count)
    for case, figures in found.items():
        for figure, value in figures.items():
            report.row(case, figure, "ns", value)
    if not tape.real:
        for case in ("split_burst", "fused_burst"):
            report.skip(case, "no captured data: the other cases are of the simulated market")


if __name__ == "__main__":
    main()
