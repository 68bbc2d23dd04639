"""How much market data the whole pipeline takes: frames from memory in, orders out, nothing dropped.

The Spot capture lies in memory and is played over and over, each pass from its own snapshot behind a frame that says
LOST, each pass later by the capture's length. `ticks` counts records of the `tick` ring, one a level change, trade,
quote side or event end, per second from the moment the stages are let go until every ring is empty.

`split` and `fused` run free in the time of the messages, whoever has no room in front of him waits, and the imbalance
taker trades. `replay_maker` is the lock-step replay of five processes, one event at a time, with a market maker whose
quotes always rest. 50 million ticks, or as many as fit into the time, which `note` then says.
"""

from __future__ import annotations

import time

from harness import BenchmarkError, Stack, base_config, load_tape, looped, quiet_logs, wide_open
from report import Report

from shrivenq.stages import control

TICKS = 50_000_000
MAKER_TICKS = 5_000_000
SECONDS = {"split": 40.0, "fused": 30.0, "replay_maker": 25.0}

TAKER = {
    "strategy": "shrivenq.stages.strategies.imbalance_taker",
    "params": {
        "quantity": 100_000,
        "position_max": 1_000_000_000_000,
        "threshold_percent": 60,
        "cooldown_ns": 1_000_000_000,
    },
}
MAKER = {
    "strategy": "shrivenq.stages.strategies.market_maker",
    "params": {
        "quantity": 100_000,
        "position_max": 1_000_000_000_000,
        "half_spread_ticks": 100,
        "skew_ticks": 200,
        "requote_ticks": 50,
    },
}


def play(tape, traded, passes, *, fused, lockstep):
    """Play the tape `passes` times; return seconds, frames and ticks of it, and how many orders there were."""
    config = wide_open(base_config(), **traded, latency_us=5000)
    with Stack(config, fused=fused, virtual=True, source=(looped(tape), passes), lockstep=lockstep) as stack:
        started = time.monotonic()
        stack.go()
        stack.run_out(keep=False)
        seconds = time.monotonic() - started
        if stack.drops():
            raise BenchmarkError(f"{stack.drops()} events were dropped")
        if control.kill_level(stack.assembly.control_read("kill")) != control.ARMED:
            raise BenchmarkError("trading was killed on the way")
        orders = stack.published("order")
        if orders == 0:
            raise BenchmarkError("the strategy sent nothing")
        return seconds, stack.frames(), stack.published("tick"), orders


def measure(report, tape, case, traded, wanted, *, fused, lockstep, figures):
    """Measure one case: one pass to see how fast it is, then as many as are wanted or fit."""
    seconds, _, ticks, _ = play(tape, traded, 1, fused=fused, lockstep=lockstep)
    fit = int(SECONDS[case] / seconds)
    passes = max(1, min(-(-wanted // ticks), fit))
    seconds, frames, ticks, orders = play(tape, traded, passes, fused=fused, lockstep=lockstep)
    rates = {"frames": frames / seconds, "ticks": ticks / seconds}
    for figure in figures:
        report.row(case, figure, "1/s", rates[figure])
    short = "" if ticks >= wanted else f", {wanted:,} would have taken longer than {SECONDS[case]:.0f} s"
    report.row(case, "note", "text", f"{ticks:,} ticks in {passes} passes, {orders:,} orders{short}")


def main():
    report = Report("throughput")
    tape = load_tape()
    if not tape.real:
        report.row("split", "note", "text", "no captured data: frames of the simulated market")
    both = ("frames", "ticks")
    with quiet_logs():
        measure(report, tape, "split", TAKER, TICKS, fused=False, lockstep=False, figures=both)
        measure(report, tape, "fused", TAKER, TICKS, fused=True, lockstep=False, figures=both)
        measure(report, tape, "replay_maker", MAKER, MAKER_TICKS, fused=False, lockstep=True, figures=("ticks",))


if __name__ == "__main__":
    main()
