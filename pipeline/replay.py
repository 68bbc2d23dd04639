"""Replay: a capture through the five stages, one event at a time, in virtual time.

`fused` runs every stage in this process; `split` gives each its own. Either way the conductor in `market_data` decides
what happens next, so the orders are the same, byte for byte. This process drains the journal and the dumps; the
conductor waits for it, so that nothing is missed.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shrivenq.pipeline import dump as dumps
from shrivenq.pipeline import placement, processes, runner, topology
from shrivenq.pipeline.assembly import Assembly, sweep
from shrivenq.pipeline.runner import StageError
from shrivenq.shm import byte_ring
from shrivenq.shm.atomics import load_word, store_word
from shrivenq.stages import control, journal_file, messages, stage
from shrivenq.stages.capture import Capture
from shrivenq.stages.journal import ORDER_SENT, REPORT_SEEN, JournalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shrivenq.pipeline.config import Config
    from shrivenq.pipeline.processes import Process

DRAIN_NS = 5_000_000
"""Fused, the loop gives way to who empties the journal and the dumps this often; they hold far more than that."""


@dataclass
class Result:
    """What a replay did."""

    digest: str  # SHA-256 over the orders, see `journal_file.DIGEST_FIELDS`
    orders: int
    reports: int
    fills: int
    seconds: float
    positions: list[dict[str, str]] = field(default_factory=list)  # where the strategy ended, an instrument each
    counters: dict[str, int] = field(default_factory=dict)
    dumped: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Flatten for printing."""
        found = asdict(self)
        return {
            **found.pop("counters"),
            **{f"dumped_{ring}": rows for ring, rows in found.pop("dumped").items()},
            **found,
        }


def replay(
    config: Config,
    *,
    dump: Sequence[str] = (),
    journal_path: Path | None = None,
    progress: Callable[[int], None],
    log: Any,
) -> Result:
    """Replay the capture that `config` names; `progress` is told the number of frames taken, now and then.

    Raises StageError when a stage faults or dies, DumpError, SegmentError, CaptureError, StrategyError, JournalError.
    """
    requests = dumps.parse_all(dump)
    tables = config.tables()
    run = uuid.uuid4().hex[:8]
    sweep(config.name, unfinished=False)
    fused = config.placement != "split"
    assembly = Assembly.create(config.name, run, tables.instruments, tables.currencies, virtual=True, fused=fused)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shrivenq-") as folder:
        path = journal_path or Path(folder) / "journal"
        try:
            taps = assembly.observe(name for name, _ in requests)
            written = [dumps.Dump(name, file, taps[name], tables.instruments) for name, file in requests]
            one = _Replay(config, assembly, path, Path(folder), written, log, progress)
            if config.market_data.source == "capture":
                Capture(config.market_data.path)  # a mistake is told here, in one line, not by a stage that dies of it
            if fused:
                one.run_fused()
            else:
                one.run_split()
        finally:
            assembly.unlink()
        return one.result(time.monotonic() - started)


class _Replay:
    """A replay under way."""

    def __init__(
        self,
        config: Config,
        assembly: Assembly,
        path: Path,
        folder: Path,
        written: list[dumps.Dump],
        log: Any,
        progress: Callable[[int], None],
    ) -> None:
        self.config = config
        self.assembly = assembly
        self.path = path
        self.folder = folder  # where a stage that stops itself says why
        self.dumps = written
        self.log = log
        self.progress = progress
        self.writer = journal_file.JournalWriter(path)
        self.epoch = self.writer.begin_run(assembly.run.encode(), time.time_ns())
        self.ring = byte_ring.consumer(assembly.segments["journal"])
        self.positions: list[dict[str, str]] = []
        self.counted: dict[str, int] = {}
        self.frames = assembly.loop("market_data")
        store_word(assembly.control("kill"), control.OPERATOR, control.ARMED)

    def _build(self, names: Sequence[str], wait: int) -> runner.Runner:
        return runner.build(
            self.assembly,
            names,
            self.config.stage_configs(),
            epoch=self.epoch,
            timer_ns=self.config.timer_ns(),
            wait=wait,
            offset_ns=0,
            log=self.log,
        )

    def drain(self) -> int:
        """Take what waits in the journal ring and the dumps; return how much that was."""
        records = self.writer.drain(self.ring)
        self.progress(int(self.frames[stage.FRAMES]))
        return records + sum(one.drain() for one in self.dumps)

    def run_fused(self) -> None:
        """Run every stage here."""
        plan = placement.plan(self.config, topology.groups_of("replay", fused=True))
        held = self._build(list(topology.STAGES), plan.wait_of("market_data"))
        while not held.finished:
            held.turn(DRAIN_NS)
            self.drain()
        self._close()

    def run_split(self) -> None:
        """Run each stage in a process of its own."""
        plan = placement.plan(self.config, topology.groups_of("replay", fused=False))
        supervisor = self.assembly.control("supervisor")
        children = [
            processes.start(name, lambda name=name: self._stage_main(name, plan))  # type: ignore[misc]
            for name in topology.STAGES
        ]
        try:
            self._wait_ready(children)
            store_word(supervisor, topology.GO, 1)
            pages = [self.assembly.loop(name) for name in topology.STAGES]
            while not load_word(pages[0], stage.FINISHED):
                self._check(children)
                if self.drain() == 0:
                    time.sleep(0.0005)
        finally:
            store_word(supervisor, topology.STOP, 1)
            processes.stop(children, 5.0)
        self._check(children, ended=True)
        self._close()

    def _stage_main(self, name: str, plan: Any) -> int:
        """Be one stage until the replay is over, or nobody is left who could say so."""
        plan.apply(name)
        supervisor = self.assembly.control("supervisor")
        parent = os.getppid()
        try:
            held = self._build([name], plan.wait_of(name))
            held.warm()
            for problem in held.settle():
                self.log.warning("memory", problem=problem)
            held.set_state(stage.READY)
            while not load_word(supervisor, topology.GO) and not load_word(supervisor, topology.STOP):
                if os.getppid() != parent:
                    return 3
                time.sleep(0.0005)
            while not load_word(supervisor, topology.STOP):
                held.turn()
                if os.getppid() != parent:
                    return 3
        except runner.STOPPING_ERRORS as error:
            (self.folder / name).write_text(str(error))
            return 1
        return 0

    def _wait_ready(self, children: list[Process]) -> None:
        pages = {name: self.assembly.loop(name) for name in topology.STAGES}
        while any(load_word(page, stage.STATE) != stage.READY for page in pages.values()):
            self._check(children)
            time.sleep(0.001)

    def _check(self, children: list[Process], *, ended: bool = False) -> None:
        """Raise StageError if a stage has died, or (at the end) did not stop cleanly."""
        for child in children:
            if not child.alive() and (child.status or not ended):
                reason = self.folder / child.name
                if reason.exists():
                    raise StageError(reason.read_text())
                how = f"exit code {child.status}" if (child.status or 0) >= 0 else f"signal {-(child.status or 0)}"
                raise StageError(f"{child.name}: died during the replay ({how})")

    def _close(self) -> None:
        self.positions = spelled_positions(self.assembly)
        self.counted = self.counters()
        if not self.counted["valid_books"]:
            self.log.warning(
                "no book was ever valid, so nothing could trade: expected a snapshot in the capture",
                path=self.config.market_data.path,
            )
        while self.drain():
            pass
        for one in self.dumps:
            one.close()
        self.writer.close()

    def result(self, seconds: float) -> Result:
        """Sum up from the journal."""
        contents = journal_file.read_journal(self.path)
        if contents.problem:
            raise JournalError(f"{self.path}: {contents.problem}")
        orders, reports = contents.rows(ORDER_SENT), contents.rows(REPORT_SEEN)
        return Result(
            digest=journal_file.digest_orders(orders),
            orders=len(orders),
            reports=len(reports),
            fills=int((reports["kind"] == messages.FILL).sum()),
            seconds=seconds,
            positions=self.positions,
            counters=self.counted,
            dumped={one.name: one.rows for one in self.dumps},
        )

    def counters(self) -> dict[str, int]:
        """Collect what the stages counted."""
        # Fused, all stages count on the first one's page.
        pages = [self.assembly.loop(name) for name in topology.STAGES]
        books = max(int(page[stage.BOOKS_VALID]) for page in pages)
        return {"frames": int(self.frames[stage.FRAMES]), "valid_books": books}


def spelled_positions(assembly: Assembly) -> list[dict[str, str]]:
    """Spell the positions board in decimals: quantity, realised and unrealised profit before fees, fees, fills."""
    rows = []
    for instrument, row in zip(assembly.instruments, assembly.positions(), strict=True):
        currency = assembly.currencies[instrument["settle_currency"]]
        money = int(currency["decimals"])
        rows.append(
            {
                "symbol": instrument["symbol"].decode(),
                "position": dumps.decimal(int(row["position"]), int(instrument["quantity_decimals"])),
                "realised": dumps.decimal(int(row["realised"]), money),
                "unrealised": dumps.decimal(int(row["unrealised"]), money),
                "fees": dumps.decimal(int(row["fees"]) + int(row["foreign_fees"]), money),
                "currency": currency["code"].decode(),
                "fills": str(int(row["fills"])),
            }
        )
    return rows
