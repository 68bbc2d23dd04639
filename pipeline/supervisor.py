"""The supervisor: starts the stages, arms them, watches over them, and takes everything down in order.

It is the warm template itself: it imports and compiles first, single-threaded, and forks each stage from there, so
that a start takes milliseconds. It holds every child by a pidfd. A dead stage is never continued: everything is
stopped, new segments are made under a new epoch, and the pipeline is rebuilt from the journal and a fresh snapshot,
held until it has been; restart and recovery are one path. Deaths that repeat wait longer each time, and too many of
them kill (latched).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from shrivenq.pipeline import (
    placement,
    processes,
    recorder,
    recovery,
    rest,
    runner,
    simulator,
    state,
    topology,
    unwritten,
)
from shrivenq.pipeline.assembly import Assembly, sweep
from shrivenq.pipeline.config import ConfigError
from shrivenq.pipeline.inspection import Running
from shrivenq.pipeline.venue_symbols import Rules
from shrivenq.pipeline.watch import CYCLE_S, Watch
from shrivenq.shm import byte_ring
from shrivenq.shm.atomics import and_word, load_word, or_word, store_word
from shrivenq.shm.kernel import is_cached
from shrivenq.stages import control, journal_file, stage
from shrivenq.stages.live import away

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.pipeline.config import Config
    from shrivenq.pipeline.processes import Process

READY_S = 120.0
"""Longest wait for stages to be ready: on a cold cache they compile first."""
STOP_S = 3.0
ORPHAN_S = 5.0
"""How long a stage whose supervisor has died stays, held and killed, so that `status` and `kill` still find it."""
ORPHAN_TURN_NS = 100_000_000
RESTARTS_MAX = 5
"""Deaths within RESTART_WINDOW_S that are answered by a restart; one more kills."""
RESTART_WINDOW_S = 60.0
BACKOFF_S = 0.05
BACKOFF_MAX_S = 5.0


class SupervisorError(Exception):
    """The pipeline cannot run; one line says why."""


@dataclass
class Supervisor:
    """One name's pipeline, from start to stop."""

    config: Config
    log: Any
    show: Callable[[Running], None]
    """Told now and then of the running pipeline, to show it."""
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    starts: int = 0

    def __post_init__(self) -> None:
        self.assembly: Assembly | None = None
        self.running: Running | None = None
        self.children: list[Process] = []
        self.exchange: Process | None = None  # a venue of our own
        self.recorder: Process | None = None  # beside the path: its death is told, and stops nothing
        self.rest: Process | None = None  # live market data: snapshots; a new one is started when it dies
        self.stopping = False
        self.deaths: list[float] = []
        self.started_ns = time.time_ns()
        self._away = np.zeros(away.WORDS, np.int64)  # a ban outlives a stage
        self.stages = topology.stages_of(self.config.mode)
        self.groups = topology.groups_of(self.config.mode, fused=self.config.placement == "fused")
        self._machine = placement.look()
        self._watch = Watch(self.config.supervisor, [names[0] for names in self.groups], self.log)

    # ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> int:
        """Run until SIGINT or SIGTERM; return the exit code. Raises SupervisorError, StateError and SegmentError."""
        with state.locked(self.config.name, "lock", wait=False), state.claimed(self.config.name):
            try:
                unwritten.finish(self.config.name, self.log)
            except unwritten.UnwrittenError as error:
                raise SupervisorError(str(error)) from None
            living = sweep(self.config.name, unfinished=True)  # the name is ours: no run is being made
            if living:
                raise SupervisorError(f"{living[0].name}: belongs to the living process {living[0].creator_pid}")
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._on_signal)
            try:
                self.log.info(
                    "preparing", name=self.config.name, note="on a new machine kernels are compiled first, once"
                )
                self._start_exchange()
                self._check_instruments()
                self.warm_up()
                self.start()
                while not self.stopping:
                    self.watch()
            finally:
                self.stop()
                if self.exchange is not None:
                    simulator.stop(self.exchange)
        return 0

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.stopping = True

    # ── start ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _start_exchange(self) -> None:
        if not self.config.exchange.file:
            return
        try:
            self.exchange = simulator.start(self.config.exchange.file, self.config.name, lambda: self.stopping)
        except (ConfigError, simulator.SimulatorError) as error:
            raise SupervisorError(str(error)) from None

    def _check_instruments(self) -> None:
        """Compare the instruments with those of a live venue, and go on with the stricter limits of both."""
        feed = self.config.market_data
        if feed.source != "binance":
            return
        try:
            found = rest.check_instruments(feed.binance, self._rules(), self.log)
        except rest.RestError as error:
            raise SupervisorError(f"market_data.binance: {error}") from None
        self.config = msgspec.structs.replace(self.config, loaded=found.tables, risk=found.risk)

    def _rules(self) -> Rules:
        return Rules(self.config.tables(), self.config.risk)

    def warm_up(self) -> None:
        """Compile or load every stage's machine code here, so that a fork has it and a restart takes milliseconds.

        Raises what a stage that cannot be built raises: better here than in six children.
        """
        scratch = self._create(f"{self.run_id}-warm", recorded=False)
        try:
            self._compile_ahead(scratch)
            for names in self.groups:
                self._build(scratch, names, wait=0, epoch=1).warm()
        finally:
            scratch.unlink()

    def _compile_ahead(self, scratch: Assembly) -> None:
        """Let every CPU compile what the disk cache lacks, a stage in each process; it is loaded from there then."""
        missing = [name for name, one in self.stages.items() if not is_cached(one.run)]
        compiling: list[Process] = []
        try:
            while (missing or compiling) and not self.stopping:
                if missing and len(compiling) < len(os.sched_getaffinity(0)):
                    compiling.append(processes.start("compile", self._compile_target(scratch, missing.pop())))
                    continue
                compiling = [one for one in compiling if one.alive()]
                time.sleep(0.01)
        finally:
            processes.stop(compiling, 0.0)

    def _compile_target(self, scratch: Assembly, name: str) -> Callable[[], int]:
        def target() -> int:
            # What goes wrong here goes wrong again in the supervisor, which says so.
            with contextlib.suppress(Exception):
                self._build(scratch, [name], wait=0, epoch=1).warm()
            return 0

        return target

    def _create(self, part: str, *, recorded: bool) -> Assembly:
        tables, is_live = self.config.tables(), self.config.market_data.source == "binance"
        return Assembly.create(
            self.config.name,
            part,
            tables.instruments,
            tables.currencies,
            virtual=False,
            fused=len(self.groups) == 1,
            recorded=recorded,
            live=is_live,
            hold=control.STARTING | control.RECONCILING | (control.SYMBOLS_UNKNOWN if is_live else 0),
        )

    def _build(self, assembly: Assembly, names: list[str], *, wait: int, epoch: int) -> runner.Runner:
        return runner.build(
            assembly,
            names,
            self.config.stage_configs(),
            epoch=epoch,
            timer_ns=self.config.timer_ns(),
            wait=wait,
            offset_ns=time.time_ns() - time.monotonic_ns(),
            log=self.log,
        )

    def start(self) -> None:
        """Make the segments, recover, fork the stages, wait until they are ready, and let them go."""
        tables = self.config.tables()
        part = self.run_id if self.starts == 0 else f"{self.run_id}-{self.starts}"
        self.starts += 1
        recorded = bool(self.config.recorder.path)
        self.assembly = self._create(part, recorded=recorded)
        self.assembly.control("away")[: away.WORDS] = self._away
        self._words(topology.SUPERVISOR_PID, os.getpid())
        path = state.make_folder(self.config.name) / "journal"
        writer = journal_file.JournalWriter(path)
        if writer.quarantine:
            self.log.warning("journal tail set aside", file=str(writer.quarantine), problem=writer.found.problem)
        recovered = recovery.recover(writer.found, tables, self.config.mode)
        epoch = writer.begin_run(part.encode(), time.time_ns())
        writer.note(recovery.describe(tables, self.config.mode))
        if self.config.mode == "live":
            self._remember_venue()
        plan = placement.plan(self.config, self.groups, machine=self._machine)
        plan.step_aside()
        for problem in self.assembly.shortfalls():
            self.log.warning("memory", problem=problem)
        self.children = [processes.start("journal", lambda: self._journal_main(writer))]
        writer.detach()
        self.recorder = self._start_recorder(part, epoch) if recorded else None
        self._start_rest()
        for names in self.groups:
            self.children.append(processes.start(names[0], self._stage_target(names, plan, epoch, recovered)))
        if not self._wait_ready():
            return
        self._words(topology.GO, 1)
        if self.config.mode != "live":  # a live venue is reconciled with by its stage
            and_word(self.assembly.control("hold"), control.HOLD, ~control.RECONCILING)
        self._arm()
        self.running = Running(self.config.name, part, self.assembly.segments["control"])
        self.log.info(
            "running",
            name=self.config.name,
            run=part,
            placement="fused" if len(self.groups) == 1 else "split",
            pids={child.name: child.pid for child in self.children},
        )

    def _start_recorder(self, part: str, epoch: int) -> Process:
        assert self.assembly is not None
        try:
            return recorder.start(self.config, self.assembly, part, epoch, self.log)
        except OSError as error:
            raise SupervisorError(f"{self.config.recorder.path}: cannot be recorded to: {error.strerror}") from None

    def _start_rest(self) -> None:
        assert self.assembly is not None
        if self.config.market_data.source == "binance":
            self.rest = rest.start(self.config.market_data.binance, self._rules(), self.assembly, self.log)

    def _remember_venue(self) -> None:
        """Leave for `shrivenq kill` where orders can be cancelled without us."""
        from shrivenq.pipeline import venue_cancel  # noqa: PLC0415 - it loads what signs, which only mode live needs

        live, symbols = self.config.live_venue, [one.decode() for one in self.config.tables().instruments["symbol"]]
        assert live is not None
        url = self.config.market_data.binance.rest_url
        place = venue_cancel.Place(rest_url=url, authority=live.authority, key=live.key, symbols=symbols)
        venue_cancel.remember(self.config.name, place)

    def _words(self, index: int, value: int) -> None:
        assert self.assembly is not None
        store_word(self.assembly.control("supervisor"), index, value)

    def _arm(self) -> None:
        """Arm if the armed file says so."""
        assert self.assembly is not None
        name = self.config.name
        with state.locked(name, "operator", wait=True):
            if self.starts == 1:  # a restart after a death goes on as it was
                state.begin(name, self.config.mode)
            who = state.armed(name)
            if who is None:
                self.log.warning("not armed", name=name, fix=f"shrivenq arm {name} --reason TEXT")
            else:
                generation = self.starts << control.GENERATION_SHIFT
                store_word(self.assembly.control("kill"), control.OPERATOR, generation | control.ARMED)
                self.log.info("armed", name=name, by=who)
        self._watch.begin(time.monotonic_ns())
        and_word(self.assembly.control("hold"), control.HOLD, ~control.STARTING)

    def _wait_ready(self) -> bool:
        """Wait until every stage is ready; False if it is to stop before."""
        assert self.assembly is not None
        deadline = time.monotonic() + READY_S
        names = [name for names in self.groups for name in names]
        while True:
            waiting = [one for one in names if load_word(self.assembly.loop(one), stage.STATE) != stage.READY]
            if not waiting:
                return True
            for child in self.children:
                if not child.alive():
                    raise SupervisorError(f"{child.name}: did not start: {describe_exit(child.status)}")
            if self.stopping:
                return False
            if time.monotonic() > deadline:
                raise SupervisorError(f"not ready after {READY_S:.0f} s: {', '.join(waiting)}")
            time.sleep(0.001)

    # ── children ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _stage_target(self, names: list[str], plan: Any, epoch: int, recovered: Any) -> Any:
        assert self.assembly is not None
        assembly = self.assembly

        def target() -> int:
            for problem in plan.apply(names[0]):
                self.log.warning("placement", problem=problem)
            try:
                assembly.forget()
                held = self._build(assembly, names, wait=plan.wait_of(names[0]), epoch=epoch)
                held.warm()
                recovery.restore({name: held.context(name) for name in names}, recovered)
                for problem in held.settle():
                    self.log.warning("memory", problem=problem)
                held.set_state(stage.READY)
                return self._serve(held, assembly)
            except runner.STOPPING_ERRORS as error:
                self.log.warning("stage stopped", stage=names[0], reason=str(error))
                return 1

        return target

    def _serve(self, held: runner.Runner, assembly: Assembly) -> int:
        """Turn until the supervisor says stop, or is gone."""
        supervisor = assembly.control_read("supervisor")
        parent = int(load_word(supervisor, topology.SUPERVISOR_PID))
        while not load_word(supervisor, topology.GO):
            if load_word(supervisor, topology.STOP) or os.getppid() != parent:
                return 0
            time.sleep(0.0005)
        held.set_state(stage.RUNNING)
        while not load_word(supervisor, topology.STOP):
            held.turn()
            if os.getppid() != parent:
                return self._orphaned(held, assembly)
        held.close()
        held.set_state(stage.STOPPED)
        return 0

    def _orphaned(self, held: runner.Runner, assembly: Assembly) -> int:
        """Hold and kill at once, stay a while so that orders are cancelled and `status` and `kill` work, then stop."""
        if any(name in ("risk", "gateway") for name in held.names):
            or_word(assembly.control("hold"), control.HOLD, control.NO_SUPERVISOR)
            control.raise_kill(assembly.control("kill"), control.CANCEL)
            state.write_killed(self.config.name, "cancel", "the supervisor died")
        until = time.monotonic() + ORPHAN_S
        while time.monotonic() < until:
            held.turn(ORPHAN_TURN_NS)
        held.close()
        held.set_state(stage.STOPPED)
        return 3

    def _journal_main(self, writer: journal_file.JournalWriter) -> int:
        """Be the journal writer until everybody else is done."""
        assert self.assembly is not None
        # Orders wait for this one, so it gets its share of a CPU even where all are busy; it interrupts nobody.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        ring = byte_ring.consumer(self.assembly.segments["journal"])
        supervisor = self.assembly.control_read("supervisor")
        parent = os.getppid()

        def over(quiet_s: float) -> bool:
            orphaned = os.getppid() != parent and quiet_s > 2 * ORPHAN_S
            return orphaned or bool(load_word(supervisor, topology.STOP) == topology.STOP_JOURNAL)

        writer.serve(ring, over, sync_every_ms=self.config.journal.sync_ms)
        return 0

    # ── watch ────────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self) -> None:
        """Look after the children once: beat, notice deaths and silence."""
        assert self.assembly is not None
        self._words(topology.HEARTBEAT_NS, time.monotonic_ns())
        dead = [child for child in self.children if not child.alive()]
        if dead:
            self._on_death(dead)
            return
        if self.recorder is not None and not self.recorder.alive():
            self.log.error("recorder died: no longer recorded", how=describe_exit(self.recorder.status))
            self.recorder = None
        if self.rest is not None and not self.rest.alive():
            self.log.error("the REST process died: another one is started", how=describe_exit(self.rest.status))
            self._start_rest()
        if self.exchange is not None and not self.exchange.alive():
            self.log.error("the exchange died", how=describe_exit(self.exchange.status))
            self.exchange = None
        for name in self._watch.look(self.assembly, time.monotonic_ns()):
            self._kill_group_of(name)
        if self.running is not None:
            self.show(self.running)
        time.sleep(CYCLE_S)

    def _kill_group_of(self, name: str) -> None:
        """Kill the process that runs a stage: it is answered like any other death."""
        group = next(names for names in self.groups if name in names)
        next(child for child in self.children if child.name == group[0]).send(signal.SIGKILL)

    def _how(self, child: Process) -> str:
        """Say how a child ended, and by which fault if it knew."""
        assert self.assembly is not None
        # The journal writer has no page.
        fault = int(load_word(self.assembly.loop(child.name), stage.FAULT)) if child.name in self.stages else 0
        return describe_exit(child.status) + (f", {stage.FAULTS[fault]} fault" if fault else "")

    def _on_death(self, dead: list[Process]) -> None:
        """Hold, take the rest down, and start anew from the journal; too many deaths kill."""
        assert self.assembly is not None
        or_word(self.assembly.control("hold"), control.HOLD, control.STAGE_DOWN)
        for child in dead:
            self.log.error("stage died", stage=child.name, how=self._how(child))
        how = f"{dead[0].name}: {self._how(dead[0])}"
        now = time.monotonic()
        self.deaths = [at for at in self.deaths if now - at < RESTART_WINDOW_S] + [now]
        self.stop()
        often = f"{len(self.deaths)} deaths in {RESTART_WINDOW_S:.0f} s"
        if len(self.deaths) > RESTARTS_MAX:
            state.write_killed(self.config.name, "halt", f"{often}, the last: {how}")
            raise SupervisorError(f"{how}: {often}: killed; arm again when the cause is known")
        pause = 0.0 if len(self.deaths) == 1 else min(BACKOFF_MAX_S, BACKOFF_S * 2 ** len(self.deaths))
        until = time.monotonic() + pause
        while time.monotonic() < until and not self.stopping:
            time.sleep(CYCLE_S)
        if not self.stopping:
            self.start()

    # ── stop ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def stop(self) -> None:
        """Stop trading, cancel, stop the stages in path order, then the journal writer; remove the segments."""
        if self.assembly is None:
            return
        or_word(self.assembly.control("hold"), control.HOLD, control.STOPPING)
        # Without the strategy its orders can still be cancelled, without any other stage they cannot.
        if len(self.children) > 1 and all(child.alive() or child.name == "signal" for child in self.children):
            self._cancel_all()
        self._words(topology.STOP, 1)
        writers = [child for child in self.children if child.name == "journal"]
        killed = processes.stop([child for child in self.children if child.name != "journal"], STOP_S)
        self._words(topology.STOP, topology.STOP_JOURNAL)
        killed += processes.stop(writers, STOP_S)
        unwritten.write(self.config.name, self.assembly.segments["journal"], self.log)
        if self.recorder is not None:
            killed += processes.stop([self.recorder], STOP_S)
            self.recorder = None
        if self.rest is not None:
            processes.stop([self.rest], 0.1)  # it may be waiting for an answer, and holds nothing
            self.rest = None
        if killed:
            self.log.warning("had to be killed", stages=killed)
        self._away = self.assembly.control_read("away")[: away.WORDS].copy()
        self.assembly.unlink()
        self.assembly = self.running = None
        self.children = []

    def _cancel_all(self) -> None:
        """Ask risk to cancel every open order and give it a moment; what stays open is for reconciliation."""
        assert self.assembly is not None
        control.raise_kill(self.assembly.control("kill"), control.CANCEL)
        until = time.monotonic() + self.config.supervisor.stop_cancel_ms / 1e3
        while time.monotonic() < until and self.assembly.open_orders():
            time.sleep(0.001)


def describe_exit(status: int | None) -> str:
    """Say how a process ended."""
    if status is None:
        return "still running"
    return f"exit code {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
