"""The kill switch, pulled at full speed: how soon the last order has left, and how long the command takes.

Five processes trade on the Spot capture, an order for every market event, 50 µs apart: 20,000 a second.
`last_order_p99`: the operator's word is set to `halt` in shared memory and some time later to armed again, 600 times
over; from the store of the word to the last order sent before it is lifted, 0 if none was. (They buy only: what reduces
a position passes a halt.) `command_p50`: the whole
command `shrivenq kill halt NAME`, from its start to its end, with risk's and the gateway's confirmation.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
from report import Report

from shrivenq.shm.atomics import store_release
from shrivenq.shm.clock import monotonic_ns
from shrivenq.shm.kernel import kernel
from shrivenq.stages import control, frames

KILLS = 600
COMMANDS = 21
SPACING_NS = 50_000
FRAMES = 95_000
LEAD_NS = 50_000_000
SETTLE_S = 0.5
KILLED_S, ARMED_S = 0.002, 0.003
ALL = 2  # events the strategy answers
RATE_MIN = 10_000


@kernel
def pull(kill, value):
    """Set the operator's word; return the time just before."""
    now = monotonic_ns()
    store_release(kill, control.OPERATOR, value)
    return now


class Switch:
    """The operator's word of a pipeline."""

    def __init__(self, stack):
        self.words = stack.assembly.control("kill")
        self.generation = 1

    def halt(self):
        """Kill; return when, ns."""
        return int(pull(self.words, self.generation << control.GENERATION_SHIFT | control.HALT))

    def arm(self):
        """Lift the kill: a new generation; return when, ns."""
        self.generation += 1
        return int(pull(self.words, self.generation << control.GENERATION_SHIFT | control.ARMED))


def trading(tape):
    """Make the pipeline, and its schedule of frames."""
    parameters = {"events": ALL, "quantity": 10_000, "buys_only": 1}
    config = wide_open(base_config(), strategy=STRATEGIES / "one_order.py", params=parameters)
    index = shared(min(FRAMES, tape.count), frames.FRAME)
    index[:] = tape.frames.index[: len(index)]
    part = tape._replace(frames=frames.Frames(tape.frames.data, index, np.zeros(16, np.int64)))
    return Stack(config, fused=False, virtual=False, source=(part, 1)), index


def let_go(stack, index):
    """Let it go, and wait until it trades."""
    start_ns = time.monotonic_ns() + LEAD_NS
    index["wire_ns"] = start_ns + np.arange(len(index)) * SPACING_NS
    index["time_ns"] = index["wire_ns"] + stack.offset_ns
    stack.go()
    time.sleep(SETTLE_S)


def last_orders(tape):
    """Kill and arm again and again; return for each kill the ns until its last order had left, and the rate."""
    made, index = trading(tape)
    with made as stack:
        let_go(stack, index)
        switch = Switch(stack)
        first_ns = time.monotonic_ns()
        intents, spans = stack.published("intent"), []
        for _ in range(KILLS):
            killed_ns = switch.halt()
            time.sleep(KILLED_S)
            spans.append((killed_ns, switch.arm()))
            time.sleep(ARMED_S)
            stack.drain(keep=True)
            stack.check()
        rate = (stack.published("intent") - intents) / (time.monotonic_ns() - first_ns) * 1e9
        stack.drain(keep=True)
        _, reports = stack.journaled()
        stack.refuse_drops()
    sent = np.unique(reports["sent_ns"][reports["sent_ns"] > first_ns])
    after = []
    for killed, armed in spans:
        between = sent[np.searchsorted(sent, killed) : np.searchsorted(sent, armed)]
        after.append(int(between[-1]) - killed if len(between) else 0)
    return after, rate


def commands(tape):
    """Run the command again and again, armed in between; return the seconds each took."""
    made, index = trading(tape)
    environment = dict(os.environ)
    taken = []
    with tempfile.TemporaryDirectory(prefix="shrivenq-") as folder, made as stack:
        environment["SHRIVENQ_STATE"] = folder
        let_go(stack, index)
        switch = Switch(stack)
        program = Path(sys.executable).with_name("shrivenq")
        for _ in range(COMMANDS):
            started = time.monotonic()
            done = subprocess.run(
                [program, "kill", "halt", stack.config.name], env=environment, check=False, capture_output=True
            )
            taken.append(time.monotonic() - started)
            if done.returncode:
                raise BenchmarkError(f"kill: exit code {done.returncode}: {(done.stdout + done.stderr).decode()[:300]}")
            switch.arm()
            stack.drain(keep=False)
            time.sleep(ARMED_S)
    return taken


def main():
    report = Report("kill")
    tape = load_tape()
    if not tape.real:
        report.row("paper", "note", "text", "no captured data: frames of the simulated market")
    with quiet_logs():
        after, rate = undisturbed(report, lambda: last_orders(tape))
        taken = commands(tape)
    report.row("paper", "last_order_p99", "µs", percentile(after, 99) / 1e3)
    report.row("paper", "command_p50", "µs", statistics.median(taken) * 1e6)
    slow = "" if rate >= RATE_MIN else f", fewer than {RATE_MIN:,}"
    late = sum(one > 0 for one in after)
    report.row(
        "paper", "note", "text", f"{KILLS} kills at {rate:,.0f} orders/s{slow}; an order left after {late} of them"
    )


if __name__ == "__main__":
    main()
