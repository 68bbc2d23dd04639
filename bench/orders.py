"""Orders a second: from the strategy through risk, journal and gateway to the paper venue and back to the strategy.

The strategy keeps 256 immediate-or-cancel orders in flight; each that has ended is followed by the next. The venue
answers at once. Every order passes all checks and is journaled before it is sent, every report before risk sees it,
and the journal writer of a real run keeps the file beside them, on disk. From that file come both figures: `orders` is
how many ended a second, `ready_p99` the time from the report that lets an order go until its text is ready. Medians
over the rounds.
"""

from __future__ import annotations

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
    wide_open,
)
from report import Report, interleaved

from shrivenq.stages import frames, journal, journal_file
from shrivenq.stages import messages as m

ROUNDS = 5
FRAMES = 4_000
SPACING_NS = 1_000_000
IN_FLIGHT = 256
SETTLE_S = 0.5
SECONDS = 2.0
LEAD_NS = 50_000_000


def paper(tape):
    """Measure one round."""
    config = wide_open(
        base_config(),
        strategy=STRATEGIES / "in_flight.py",
        params={"orders": IN_FLIGHT, "quantity": 10_000},
        latency_us=0,
    )
    index = shared(min(FRAMES, tape.count), frames.FRAME)
    index[:] = tape.frames.index[: len(index)]
    part = tape._replace(frames=frames.Frames(tape.frames.data, index, np.zeros(16, np.int64)))
    with tempfile.TemporaryDirectory(prefix="shrivenq-", dir="/var/tmp") as folder:
        path = Path(folder) / "journal"
        with Stack(config, fused=False, virtual=False, source=(part, 1), journal_path=path) as stack:
            start_ns = time.monotonic_ns() + LEAD_NS
            index["time_ns"] = start_ns + stack.offset_ns + np.arange(len(index)) * SPACING_NS
            stack.go()
            time.sleep(SETTLE_S)
            settled_ns = time.monotonic_ns()
            time.sleep(SECONDS)
            ended_ns = time.monotonic_ns()
            stack.check()
            denied = stack.denied()
        contents = journal_file.read_journal(path)
        if contents.problem:
            raise BenchmarkError(f"the journal: {contents.problem}")
        reports = contents.rows(journal.REPORT_SEEN)
    final = reports[(reports["flags"] & m.FINAL != 0)]
    final = final[(final["acknowledged_ns"] >= settled_ns) & (final["acknowledged_ns"] < ended_ns)]
    denied += int((final["kind"] == m.DENIED).sum())
    if len(final) == 0 or denied > IN_FLIGHT:
        raise BenchmarkError(f"{len(final)} orders ended, {denied} were denied")
    return {
        "orders": len(final) / ((ended_ns - settled_ns) / 1e9),
        "ready_p99": percentile(final["ready_ns"] - final["wire_ns"], 99),
    }


def main():
    report = Report("orders")
    tape = load_tape()
    if not tape.real:
        report.row("paper", "note", "text", "no captured data: frames of the simulated market")
    with quiet_logs():
        found = interleaved(ROUNDS, {"paper": lambda: paper(tape)})["paper"]
    report.row("paper", "orders", "1/s", found["orders"])
    report.row("paper", "ready_p99", "ns", found["ready_p99"])


if __name__ == "__main__":
    main()
