"""What the benchmarks of the whole pipeline share: frames in memory, a configuration, and a pipeline to run them.

A `Stack` is the production stages in processes of their own, built by `pipeline.runner` and placed by
`pipeline.placement`, without a supervisor: the benchmark lets them go and stops them. Frames come from memory, not
from files: what is measured begins with the last byte of a frame there.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import structlog

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline import placement, processes, runner, topology
from shrivenq.pipeline.assembly import Assembly
from shrivenq.shm import byte_ring, ring
from shrivenq.shm.atomics import load_word, store_word
from shrivenq.stages import control, frames, journal, journal_file, order_flow, stage
from shrivenq.stages import messages as m
from shrivenq.stages.capture import Capture
from shrivenq.stages.simulated_market import SimulatedMarket
from shrivenq.stages.venues.binance import PADDING

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SHRIVENQ_DATA") or ROOT.parent / "shared" / "data")
CAPTURE = DATA / "binance" / "spot"
STRATEGIES = ROOT / "bench" / "strategies"
SIMULATED_FRAMES = 100_000
READY_S = 300.0
RECORD_WORDS = (byte_ring.RECORD_SIZE + 8 * journal.HEADER_WORDS + m.ORDER.itemsize) // 8
"""Of a journal record in its ring: an ORDER's and a REPORT's are of one size, and divide the ring evenly."""

KINDS = {"depth": b'"depthUpdate"', "trade": b'"e":"trade"'}


class BenchmarkError(Exception):
    """A benchmark could not be run as it is meant; one line says why."""


class DisturbedError(BenchmarkError):
    """A run in real time was not what it was meant to be: the machine was too busy with something else."""


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Tape(NamedTuple):
    """Frames in memory that every process sees, and what is known of each."""

    frames: frames.Frames
    depth: np.ndarray  # bool: a depth event
    trade: np.ndarray  # bool
    entries: np.ndarray  # of a depth event, both sides together
    real: bool

    @property
    def count(self):
        """Count its frames."""
        return len(self.frames.index)


def shared(count, dtype):
    """Allocate zeros that processes forked later see as one."""
    size = max(1, count) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype, count)


def load_tape():
    """Read the Spot capture whole, or the beginning of the simulated market where there is no capture."""
    real = CAPTURE.is_dir()
    if real:
        source = Capture(CAPTURE)
    else:
        tables = base_config().tables()
        source = SimulatedMarket(tables.instruments, 1, offset_ns=None, config=order_flow.Config())
    part = frames.make_frames(8 << 20, 1 << 14)
    texts, indices, used, count = [], [], 0, 0
    while not part.words[frames.ENDED] and (real or count < SIMULATED_FRAMES):
        source.fill(part)
        found = part.index[: part.words[frames.COUNT]].copy()
        texts.append(part.data[: part.words[frames.USED]].copy())
        found["offset"] += used
        indices.append(found)
        used += len(texts[-1])
        count += len(found)
    data, index = shared(used + PADDING, np.uint8), shared(count, frames.FRAME)
    data[:used] = np.concatenate(texts)
    index[:] = np.concatenate(indices)
    text = data.tobytes()
    spans = [text[one["offset"] : one["offset"] + one["length"]] for one in index]
    depth = np.array([KINDS["depth"] in one for one in spans])
    return Tape(
        frames=frames.Frames(data, index, np.zeros(16, np.int64)),
        depth=depth,
        trade=np.array([KINDS["trade"] in one for one in spans]),
        entries=np.array([one.count(b'["') if is_depth else 0 for one, is_depth in zip(spans, depth, strict=True)]),
        real=real,
    )


class Loop:
    """A source that plays a tape over and over, each pass later by its length: the first frame of each says LOST."""

    eager = True
    damage = ""

    def __init__(self, tape, passes):
        self.tape = tape
        self.left = passes
        times = tape.frames.index["time_ns"]
        self.span_ns = int(times[-1] - times[0]) + 1

    def fill(self, target):
        """Offer every frame once more; after the last pass say that there are no more."""
        words, index = target.words, target.index
        if self.left == 0:
            words[frames.ENDED] = 1
            return
        if words[frames.COUNT]:
            index["time_ns"] += self.span_ns
        words[frames.COUNT], words[frames.TAKEN] = len(index), 0
        self.left -= 1

    def request_snapshot(self, instrument):
        """Do nothing: the tape holds the snapshot it holds."""


def looped(tape):
    """Copy a tape with a LOST frame in front: its own snapshot is newer than no book that still lives."""
    lost = tape.frames.index[:1].copy()
    lost["length"], lost["flags"] = 0, frames.LOST
    index = shared(tape.count + 1, frames.FRAME)
    index[:1], index[1:] = lost, tape.frames.index
    return tape._replace(frames=frames.Frames(tape.frames.data, index, np.zeros(16, np.int64)))


# ── configuration ────────────────────────────────────────────────────────────────────────────────────────────────────


def base_config():
    """Load the shipped configuration of a Spot replay."""
    found = configuration.load("replay_spot")
    if CAPTURE.is_dir():
        return configuration.for_replay(found, path=str(CAPTURE))
    feed = msgspec.structs.replace(found.market_data, source="simulated")
    return msgspec.structs.replace(found, mode="paper", market_data=feed)


def wide_open(config, *, strategy, params, latency_us=100):
    """Open every limit as wide as it goes: what is measured is the way through the checks, not what they refuse."""
    replace = msgspec.structs.replace
    limits = {
        symbol: replace(
            one,
            price_collar_bps="10000",
            order_quantity_max="1000",
            order_value_max="1000000000",
            position_max="100000",
            gross_exposure_max="10000000000",
            daily_loss_max="10000000000",
            open_orders_max=1 << 24,
            duplicate_window_ms=1,
            market_data_age_ms_max=86_400_000,
            intent_age_ms_max=86_400_000,
            repeated_execution_max=1 << 24,
        )
        for symbol, one in config.risk.limits.items()
    }
    paper = config.paper_venue  # none in mode live
    if paper is not None:
        paper = replace(paper, order_latency_us=latency_us, report_latency_us=latency_us)
    return replace(
        config,
        name=f"bench-{os.getpid()}",
        signal=replace(config.signal, strategy=str(strategy), params=params, timer_ms=0.0),
        risk=replace(
            config.risk,
            limits=limits,
            message_rate_max=1 << 16,
            message_window_ms=1,
            cancel_reserve=1,
            reject_streak_max=1 << 24,
        ),
        gateway=replace(config.gateway, unknown_after_ms=3_600_000, orders_max=1 << 16, window_ms=1),
        paper_venue=paper,
    )


# ── the pipeline ─────────────────────────────────────────────────────────────────────────────────────────────────────


_warm = set()
"""Placements whose machine code this process has."""


class Stack:
    """The stages of one run in their processes; a context manager that leaves neither process nor segment."""

    def __init__(self, config, *, fused, virtual, source, lockstep=True, journal_path=None):
        tables = config.tables()
        self.journal_path = journal_path  # kept by a writer as in a real run; without one `drain` empties the ring
        self.config, self.fused, self.virtual, self.lockstep = config, fused, virtual, lockstep
        self.source = source  # (Tape, passes)
        self.offset_ns = time.time_ns() - time.monotonic_ns()
        self.log = structlog.get_logger()
        run = uuid.uuid4().hex[:8]
        self.assembly = Assembly.create(
            config.name, run, tables.instruments, tables.currencies, virtual=virtual, fused=fused
        )
        self.children, self.writers = [], []
        self.records = []
        self.journal = byte_ring.consumer(self.assembly.segments["journal"])
        store_word(self.assembly.control("kill"), control.OPERATOR, control.ARMED)

    def __enter__(self):
        names = list(topology.STAGES)
        groups = topology.groups_of("paper", fused=self.fused)
        if self.fused not in _warm:
            self._warm_up(groups)
        plan = placement.plan(self.config, groups)
        self.writers = [processes.start("journal", self._write)] if self.journal_path else []
        for group in groups:
            self.children.append(processes.start(group[0], lambda group=group: self._main(group, plan)))
        try:
            self._wait_ready(names)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        store_word(self.assembly.control("supervisor"), topology.STOP, 1)
        processes.stop(self.children, 5.0)
        store_word(self.assembly.control("supervisor"), topology.STOP, topology.STOP_JOURNAL)
        processes.stop(self.writers, 60.0)
        self.assembly.unlink()

    def _build(self, assembly, group, wait):
        return runner.build(
            assembly,
            group,
            self.config.stage_configs(),
            epoch=1,
            timer_ns=0,
            wait=wait,
            offset_ns=self.offset_ns,
            log=self.log,
        )

    def _warm_up(self, groups):
        """Compile or load the machine code in this process, as the supervisor does: a fork then has it."""
        of = self.assembly
        scratch = Assembly.create(
            of.name, f"{of.run}-warm", of.instruments, of.currencies, virtual=self.virtual, fused=self.fused
        )
        try:
            for group in groups:
                self._build(scratch, group, 0).warm()
        finally:
            scratch.unlink()
        _warm.add(self.fused)

    def _main(self, group, plan):
        """Be the stages `group` until told to stop."""
        plan.apply(group[0])
        supervisor = self.assembly.control_read("supervisor")
        held = self._build(self.assembly, group, plan.wait_of(group[0]))
        if group[0] == "market_data":
            self._play(held)
        held.warm()
        held.settle()
        held.set_state(stage.READY)
        while not load_word(supervisor, topology.GO) and not load_word(supervisor, topology.STOP):
            time.sleep(0.0005)
        try:
            while not load_word(supervisor, topology.STOP):
                held.turn()
        except runner.STOPPING_ERRORS as error:
            self.log.warning("stage stopped", stage=group[0], reason=str(error))
            return 1
        return 0

    def _write(self):
        """Be the journal writer until told to stop."""
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        supervisor = self.assembly.control_read("supervisor")
        writer = journal_file.JournalWriter(self.journal_path)
        writer.serve(
            self.journal,
            lambda _: load_word(supervisor, topology.STOP) == topology.STOP_JOURNAL,
            sync_every_ms=self.config.journal.sync_ms,
        )
        return 0

    def _play(self, held):
        """Let market data take its frames from memory instead of the source it was configured with."""
        from shrivenq.stages import market_data_state

        tape, passes = self.source
        source = Loop(tape, passes)
        context = held.context("market_data")._replace(frames=tape.frames)
        source.fill(tape.frames)
        held._arguments = (context, *held._arguments[1:])  # noqa: SLF001 - the one thing production never does
        feed = held.polls[0].__self__
        feed.context, feed.source = context, source
        context.words[market_data_state.LOCKSTEP] = self.lockstep and self.virtual
        context.words[market_data_state.EAGER] = 1

    def _wait_ready(self, names):
        pages = [self.assembly.loop(name) for name in names]
        deadline = time.monotonic() + READY_S
        while any(load_word(page, stage.STATE) != stage.READY for page in pages):
            self.check()
            if time.monotonic() > deadline:
                raise BenchmarkError("stages are not ready")
            time.sleep(0.001)

    def check(self):
        """Raise BenchmarkError if a process has died."""
        dead = [child.name for child in self.children + self.writers if not child.alive()]
        if dead:
            raise BenchmarkError(f"{', '.join(dead)}: died")

    def go(self):
        """Let the stages go."""
        store_word(self.assembly.control("supervisor"), topology.GO, 1)

    def drain(self, *, keep):
        """Empty the journal ring in one copy, as the writer beside a real run does; `keep` the records."""
        head, tail = int(load_word(self.journal.peer, ring.HEAD)), int(self.journal.own[ring.TAIL])
        if keep and head > tail:
            size = len(self.journal.data)
            first, last = tail % size, head % size
            parts = [(first, last)] if first < last else [(first, size), (0, last)]
            for begin, end in parts:
                self.records.append(self.journal.words[begin // 8 : end // 8].copy())
        byte_ring.release_to(self.journal, head)
        return head - tail

    def finished(self):
        """Tell whether market data has sent everything and every ring is empty, twice."""
        return bool(load_word(self.assembly.loop("market_data"), stage.FINISHED)) and self.empty() and self.empty()

    def empty(self):
        """Tell whether nothing waits in any ring."""
        return all(
            load_word(head, ring.HEAD) == load_word(tail, ring.TAIL) for head, tail, _ in self.assembly.cursors()
        )

    def run_out(self, *, keep=True, every_s=0.02):
        """Drain the journal until everything is over."""
        while not self.finished():
            self.check()
            self.drain(keep=keep)
            time.sleep(every_s)
        self.drain(keep=keep)

    def published(self, name):
        """Count the messages a ring has carried."""
        return int(load_word(self.assembly.segments[name].array("producer"), ring.HEAD))

    def frames(self):
        """Count the frames market data has taken."""
        return int(load_word(self.assembly.loop("market_data"), stage.FRAMES))

    def denied(self):
        """Count the intents risk refused: those without an ORDER."""
        return self.published("intent") - self.published("order")

    def drops(self):
        """Count the events market data had to drop."""
        return int(load_word(self.assembly.loop("market_data"), stage.DROPS))

    def refuse_drops(self):
        """Raise DisturbedError if events were dropped: the capture holds no snapshot that would bring the book back."""
        if self.drops():
            raise DisturbedError(
                f"{self.drops()} events were dropped: a stage did not run for a tenth of a second or more"
            )

    def journaled(self):
        """Sort what was kept of the journal into its ORDER and REPORT rows."""
        if not self.records:
            return np.zeros(0, m.ORDER), np.zeros(0, m.REPORT)
        words = np.concatenate(self.records)
        if len(words) % RECORD_WORDS:
            raise BenchmarkError("the journal holds records of an unknown size")
        rows = words.reshape(-1, RECORD_WORDS)
        kinds = rows[:, byte_ring.RECORD_SIZE // 8] >> 32 & 0xFFFF
        payload = np.ascontiguousarray(rows[:, RECORD_WORDS - m.ORDER.itemsize // 8 :])
        return (
            payload[kinds == journal.ORDER_SENT].reshape(-1).view(m.ORDER),
            payload[kinds == journal.REPORT_SEEN].reshape(-1).view(m.REPORT),
        )


ATTEMPTS = 5


def undisturbed(report, call):
    """Call until it is not disturbed, ATTEMPTS times at most; every attempt thrown away is a row."""
    for _ in range(ATTEMPTS - 1):
        try:
            return call()
        except DisturbedError as error:
            report.row("machine", "disturbed", "text", f"a run was repeated: {error}")
    return call()


def percentile(values, percent):
    """Read a percentile of samples, the larger neighbour: it never flatters."""
    if len(values) == 0:
        raise BenchmarkError("not one sample")
    return float(np.percentile(values, percent, method="higher"))


@contextlib.contextmanager
def quiet_logs():
    """Let stages say nothing below an error on the terminal."""
    import logging

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()
