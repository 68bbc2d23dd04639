"""What a running pipeline costs the machine: nothing but time; and what the example strategies do on real captures."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import structlog

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline import inspection, processes, runner, topology
from shrivenq.pipeline.replay import replay
from shrivenq.pipeline.supervisor import Supervisor
from shrivenq.shm import ring, segment
from shrivenq.shm.kernel import COMPILED
from shrivenq.stages import stage

NAME = "test-endurance"
PATIENCE_S = 400.0
"""Stages compile on first use."""
WARM_UP = 300_000
"""Ticks until the pipeline has done everything it does: taken, cancelled, been filled, been refused."""
TICKS = 1_000_000
EVENTS_PER_S = 20_000

pytestmark = pytest.mark.slow


# ── a million messages ───────────────────────────────────────────────────────────────────────────────────────────────

TURNS, COLLECTIONS, ALLOCATIONS = range(3)


class Counted:
    """What every stage process counts of itself, in memory that it shares with the test."""

    def __init__(self, monkeypatch):
        self.rows = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.int64).reshape(-1, 8)
        settle, turn = runner.Runner.settle, runner.Runner.turn

        def settled(held):
            row = self.row(held.names[0])
            gc.callbacks.append(lambda phase, _: row.__setitem__(COLLECTIONS, row[COLLECTIONS] + (phase == "start")))
            runtime().memsys_enable_stats()
            return settle(held)

        def turned(held, *duration):
            row = self.row(held.names[0])
            turn(held, *duration)
            row[TURNS] += 1
            row[ALLOCATIONS] = runtime().memsys_get_stats_alloc()

        monkeypatch.setattr(runner.Runner, "settle", settled)
        monkeypatch.setattr(runner.Runner, "turn", turned)

    def row(self, name):
        return self.rows[list(topology.STAGES).index(name)]


def runtime():
    """Numba's runtime: what a kernel that allocates would call."""
    from numba.core.runtime import _nrt_python

    return _nrt_python


def faults(pid):
    """Read (minor, major) page faults of a process. Source: proc(5), fields 10 and 12."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7]), int(fields[9])


def lively():
    """Load the shipped default with a market that sends tens of thousands of ticks a second."""
    found = configuration.load("default")
    feed = msgspec.structs.replace(
        found.market_data, simulated=msgspec.structs.replace(found.market_data.simulated, events_per_s=EVENTS_PER_S)
    )
    return msgspec.structs.replace(found, name=NAME, market_data=feed)


def armed():
    try:
        running = inspection.attach(NAME)
        found = inspection.status(running)
    except inspection.InspectionError:
        return None
    return running if found["kill"] == "armed" and not found["holds"] else None


def published(running, name):
    return int(running.part(name).array("producer")[ring.HEAD])


def drop_something(running, book, until):
    """Let a reader fall behind until events are dropped: a gap, a request, a snapshot, the slow way of everything."""
    page = running.words("loop.market_data")
    drops = int(page[stage.DROPS])
    os.kill(book, signal.SIGSTOP)
    try:
        until(lambda: page[stage.DROPS] > drops)
    finally:
        os.kill(book, signal.SIGCONT)


@pytest.mark.skipif(not COMPILED, reason="plain Python allocates")
def test_a_million_messages_cost_no_fault_no_collection_and_no_allocation(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path))
    counted = Counted(monkeypatch)
    log = structlog.get_logger()
    child = processes.start("supervisor", lambda: Supervisor(lively(), log, lambda _: None).run())
    deadline = time.monotonic() + PATIENCE_S

    def until(condition):
        while not (found := condition()):
            assert child.alive(), child.status
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return found

    try:
        running = until(armed)
        pids = {name: int(running.words(f"loop.{name}")[stage.PID]) for name in topology.STAGES}
        until(lambda: published(running, "tick") > WARM_UP)
        ticks, sent = published(running, "tick"), published(running, "to_venue")
        before, own = {name: faults(pid) for name, pid in pids.items()}, counted.rows.copy()
        drop_something(running, pids["book"], until)
        until(lambda: published(running, "tick") > ticks + TICKS)
        after, counts = {name: faults(pid) for name, pid in pids.items()}, counted.rows - own
        assert published(running, "to_venue") > sent + 100, "it did not trade"
        assert inspection.status(running)["kill"] == "armed"
        assert after == before, "page faults (minor, major)"
        # A stage returns to Python, where these are read, only when it has to: market data for the next events, the
        # others when they are told to stop.
        assert counts[0, TURNS] > 100
    finally:
        child.send(signal.SIGTERM)
        ended = child.wait(60)
        child.send(signal.SIGKILL)
        for name in segment.names(f"{NAME}."):
            segment.unlink(name)
    assert ended
    stages = counted.rows[: len(topology.STAGES)]
    assert (stages[:, TURNS] > 0).all()
    assert stages[:, COLLECTIONS].tolist() == [0] * len(stages)
    assert stages[:, ALLOCATIONS].tolist() == [0] * len(stages)


# ── the examples ─────────────────────────────────────────────────────────────────────────────────────────────────────

TAKER = {
    "spot": {"quantity": 100_000, "position_max": 2_000_000},  # 0.001 and 0.02 BTC
    "usdm": {"quantity": 2, "position_max": 40},  # 0.002 and 0.04 BTC
    "cm": {"quantity": 2, "position_max": 40},  # contracts of 100 USD
}
"""The market maker's own parameters are those of the shipped configuration."""


def taking(config, market):
    """Let the imbalance taker trade instead."""
    params = {**TAKER[market], "threshold_percent": 60, "cooldown_ns": 1_000_000_000}
    strategy = "shrivenq.stages.strategies.imbalance_taker"
    return msgspec.structs.replace(
        config, signal=msgspec.structs.replace(config.signal, strategy=strategy, params=params)
    )


@pytest.mark.parametrize("market", ["spot", "usdm", "cm"])
@pytest.mark.parametrize("strategy", ["market_maker", "imbalance_taker"])
def test_each_example_is_filled_a_hundred_times_on_each_capture(data, market, strategy):
    config = configuration.load(f"replay_{market}")
    assert config.signal.strategy.endswith(".market_maker")
    config = configuration.for_replay(config, path=str(data / "binance" / market), placement="fused")
    if strategy == "imbalance_taker":
        config = taking(config, market)
    result = replay(config, progress=int, log=structlog.get_logger())
    assert result.fills >= 100
    (position,) = result.positions
    assert int(position["fills"]) == result.fills
