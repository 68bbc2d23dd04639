"""Orders a second: from the strategy through risk, journal and gateway to a venue and back to the strategy.

The strategy keeps 256 immediate-or-cancel orders in flight; each that has ended is followed by the next. Every order
passes all checks and is journaled before it is sent, every report before risk sees it, and the journal writer of a real
run keeps the file beside them, on disk. From that file come the figures; medians over the rounds.

`paper`: the embedded paper venue, which answers at once. `orders` is how many ended a second, `ready_p99` the time from
the report that lets an order go until its text is ready.

`websocket_api`, `fix`: `shrivenq run` in mode live, over a loopback socket to a thin compiled venue that answers each
order with a response, an execution report NEW and one EXPIRED, by FIX with the two reports alone. `sent` is how many
orders a second went to the socket, `acknowledged` how many the gateway was told are accepted, `encode` what one takes
to become a WebSocket frame or a FIX message. Nothing may be lost: what the venue received, the gateway's orders, their
acknowledgements and their ends must be as many, each once.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import peer_state as p
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
from live import Live, live_config
from report import Report, interleaved
from venue import Market, Venue

from shrivenq.shm.kernel import kernel
from shrivenq.stages import frames, journal, journal_file
from shrivenq.stages import messages as m
from shrivenq.stages.venues import binance_orders, fix

ROUNDS = 5
FRAMES = 4_000
SPACING_NS = 1_000_000
IN_FLIGHT = 256
SETTLE_S = 0.5
SECONDS = 2.0
LEAD_NS = 50_000_000
ORDERS, WARM_UP = 60_000, 10_000
"""Over a socket; the first of them count for nothing."""
LIMIT_S = 120.0
ENCODED, PASSES = 1 << 12, 20


def paper(tape):
    """Measure one round."""
    config = wide_open(
        base_config(),
        strategy=STRATEGIES / "in_flight.py",
        params={"orders": IN_FLIGHT, "quantity": 10_000, "total": 0},
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


# ── over a socket ────────────────────────────────────────────────────────────────────────────────────────────────────


def over(market, config, *, by_fix=False):
    """Measure one round of a live pipeline: every order there and back."""
    with Venue(market, config.tables(), by_fix=by_fix) as venue:
        venue.task(p.SERVE)
        with Live(config, venue) as pipeline:
            deadline = time.monotonic() + LIMIT_S
            while venue.count(p.ANSWERED) < ORDERS:
                pipeline.check()
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"{venue.count(p.RECEIVED)} of {ORDERS} orders in {LIMIT_S:.0f} s")
                time.sleep(0.01)
            time.sleep(SETTLE_S)
            venue.task(p.IDLE)
            pipeline.stop()
            contents = pipeline.journal()
        venue.check()
        received = venue.count(p.RECEIVED)
    orders, reports = contents.rows(journal.ORDER_SENT), contents.rows(journal.REPORT_SEEN)
    return rates(orders[orders["kind"] == m.NEW], reports, received)


def rates(orders, reports, received):
    """Count everything on both sides, and work out the rates. Raises BenchmarkError if something was lost."""
    accepted, ended = reports[reports["kind"] == m.ACCEPTED], reports[reports["kind"] == m.EXPIRED]
    counts = {"received": received}
    for name, rows in (("sent", orders), ("acknowledged", accepted), ("ended", ended)):
        counts[name] = len(np.unique(rows["order_id"])) if len(rows) == ORDERS else -len(rows)
    if set(counts.values()) != {ORDERS}:
        raise BenchmarkError(f"of {ORDERS} orders: {counts} (negative: not each once)")
    found = {}
    for name, stamp in (("sent", "sent_ns"), ("acknowledged", "acknowledged_ns")):
        times = np.sort(accepted[stamp])[WARM_UP:]
        found[name] = (len(times) - 1) / (int(times[-1] - times[0]) / 1e9)
    return found


# ── encoding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def encode_all(orders, instruments, run, now_ns, masks, buffer):
    """Encode every order as the live venue does; return the bytes."""
    total = 0
    for row in range(orders.shape[0]):
        begin, end = binance_orders.encode_frame(orders, row, instruments, run, now_ns // 1_000_000, masks, buffer)
        total += end - begin
    return total


@kernel
def encode_all_fix(orders, instruments, run, now_ns, session, buffer):
    """Do the same for FIX."""
    total = 0
    for row in range(orders.shape[0]):
        begin, end = fix.encode(orders, row, instruments, run, session, now_ns, buffer)
        total += end - begin
    return total


def encode(tables, *, by_fix=False):
    """Measure one round: ns an order, the best of some passes."""
    orders = np.zeros(ENCODED, m.ORDER)
    orders["kind"], orders["side"], orders["order_type"], orders["time_in_force"] = m.NEW, m.BUY, m.LIMIT, m.IOC
    orders["order_id"] = (1 << m.EPOCH_SHIFT) + 1 + np.arange(ENCODED)
    orders["price"] = 6_183_763 + np.arange(ENCODED)
    orders["quantity"] = 10_000 + np.arange(ENCODED) * 1_000
    run, state = np.frombuffer(b"0123abcd", np.uint8), np.array([1], np.int64)
    if by_fix:
        state = fix.make_session("a2345678", 30)
    buffer = np.zeros(max(binance_orders.FRAME_MAX, fix.MESSAGE_MAX), np.uint8)
    call, best = encode_all_fix if by_fix else encode_all, 1 << 62
    for _ in range(PASSES):
        begun = time.perf_counter_ns()
        if call(orders, tables.instruments, run, time.time_ns(), state, buffer) < 100 * ENCODED:
            raise BenchmarkError("an order could not be encoded")
        best = min(best, time.perf_counter_ns() - begun)
    return {"encode": best / ENCODED}


# ── the program ──────────────────────────────────────────────────────────────────────────────────────────────────────


def main():
    report = Report("orders")
    tape = load_tape()
    if not tape.real:
        report.row("paper", "note", "text", "no captured data: frames of the simulated market")
    with tempfile.TemporaryDirectory(prefix="shrivenq-") as folder, quiet_logs():
        params = {"orders": IN_FLIGHT, "quantity": 10_000, "total": ORDERS}
        config = live_config(Path(folder), fused=False, strategy=STRATEGIES / "in_flight.py", params=params)
        market, tables = Market(), config.tables()
        # Before anything runs beside it.
        encoded = {"websocket_api": lambda: encode(tables), "fix": lambda: encode(tables, by_fix=True)}
        encoded = interleaved(ROUNDS, encoded)
        cases = {
            "paper": lambda: paper(tape),
            "websocket_api": lambda: over(market, config),
            "fix": lambda: over(market, config, by_fix=True),
        }
        found = interleaved(ROUNDS, cases)
    for case, figures in found.items():
        for figure, value in (figures | encoded.get(case, {})).items():
            report.row(case, figure, "ns" if figure in ("ready_p99", "encode") else "1/s", value)


if __name__ == "__main__":
    main()
