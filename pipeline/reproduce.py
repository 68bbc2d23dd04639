"""Reproduce: a recorded run done again, exactly.

Live and paper stages run free and merge their inputs by arrival, so the same market does not give the same orders
twice. What a run noted (`stages.arrivals`), its frames and its journal hold all that was chance: here the same
compiled steps run in one process, each handed what it had then, told the time it took for now, and refused the room it
was refused. The venue's reports, and the gateway's own, come from the journal; the orders risk makes of all that are
compared with those the journal holds.

No stage knows. Its ring ends are given cursors of our own for the other side (`Gate`), moved by what it took then.
"""

from __future__ import annotations

import tempfile
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from shrivenq.pipeline import arrival_log, recovery, state
from shrivenq.pipeline import config as configuration
from shrivenq.pipeline.arrival_log import LogError
from shrivenq.pipeline.assembly import Assembly
from shrivenq.pipeline.topology import STAGES
from shrivenq.shm import pool, ring
from shrivenq.shm.kernel import kernel
from shrivenq.stages import arrivals, book, control, frames, journal, journal_file, market_data, risk, signal, stage
from shrivenq.stages import market_data_state as feed
from shrivenq.stages import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.pipeline.config import Config
    from shrivenq.shm.ring import Consumer, Producer
    from shrivenq.stages.stage import Setup


# ── the stages' own steps, one at a time ─────────────────────────────────────────────────────────────────────────────


@kernel
def take_frame(context: Any, loop: Any) -> None:
    """Make the event of the next frame."""
    market_data.take_frame(context, loop)


@kernel
def make_timer(context: Any, loop: Any) -> None:
    """Make a timer's event."""
    market_data.timer(context, loop)


@kernel
def pass_on(feed_context: Any, feed_loop: Any, book_context: Any, book_loop: Any) -> None:
    """Bring the event in hand through `book`, whatever its size."""
    while market_data.send(feed_context, feed_loop) > 0:
        while book.step(book_context, book_loop) > 0:
            pass


@kernel
def step_signal(context: Any, loop: Any) -> None:
    """Let the strategy take what it sees."""
    signal.step(context, loop)


@kernel
def step_risk(context: Any, loop: Any) -> None:
    """Let risk take what it sees."""
    risk.step(context, loop)


# ── what a stage sees ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Gate:
    """Both ends of a ring, and what each is shown of the other."""

    producer: Producer
    consumer: Consumer

    def waiting(self) -> int:
        """Count what was published and not taken."""
        return int(self.producer.own[ring.HEAD] - self.consumer.own[ring.TAIL])

    def show(self, count: int) -> None:
        """Let the consumer see the next `count` messages."""
        self.consumer.peer[ring.HEAD] = self.consumer.own[ring.TAIL] + count

    def allow(self, room: int) -> None:
        """Let the producer find room for `room` messages; for as many as there really is with EVERY."""
        tail = self.consumer.own[ring.TAIL]
        if room != arrivals.EVERY:
            tail = self.producer.own[ring.NEXT] + room - len(self.producer.slots)
        self.producer.peer[ring.TAIL] = self.producer.own[ring.CACHED] = tail

    def take(self) -> Any:
        """Take every message, as the consumer."""
        tail, head = int(self.consumer.own[ring.TAIL]), int(self.producer.own[ring.HEAD])
        rows = self.producer.slots[np.arange(tail, head) & (len(self.producer.slots) - 1)]
        self.consumer.own[ring.TAIL] = head
        return rows


def _gate(setups: dict[str, Setup], assembly: Assembly, name: str) -> Gate:
    """Give both ends of a ring peers of our own; an end no stage here has is mapped for us."""
    page = np.zeros_like
    producer, consumer = ring.producer(assembly.segments[name]), ring.consumer(assembly.segments[name])
    gate = Gate(producer._replace(peer=page(producer.peer)), consumer._replace(peer=page(consumer.peer)))
    for setup in setups.values():
        if name in setup.producers:
            setup.producers[name] = gate.producer  # type: ignore[index]
        if name in setup.consumers:
            setup.consumers[name] = gate.consumer  # type: ignore[index]
    return gate


GATED = ("book", "touch", "fill_feed", "intent", "order", "report", "feedback")


# ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Result:
    """What came of doing a run again."""

    run: str
    frames: int
    steps: int  # of signal and risk
    orders: int  # compared
    digest: str  # of those, as the run made them
    digest_again: str  # and as they came out now
    difference: str  # the first one, in a line; empty for none
    unfinished: str  # why it could not be done to its end; empty if it could

    @property
    def identical(self) -> bool:
        """Tell whether the whole run came out the same."""
        return not self.difference and not self.unfinished

    def as_dict(self) -> dict[str, Any]:
        """Flatten for printing."""
        return {**asdict(self), "identical": self.identical}


@dataclass(frozen=True)
class Run:
    """A run as it was recorded."""

    header: arrival_log.Header
    steps: dict[str, Any]  # ARRIVAL rows of each stage
    config: Config
    files: list[Path]  # the recording
    earlier: journal_file.Contents  # the journal before it
    sent: Any  # ORDER rows
    reports: Any  # REPORT rows, as risk saw them


def read_run(path: Path, journal_path: Path | None) -> Run:
    """Collect what the run noted in `path` left behind. Raises LogError, ConfigError and JournalError."""
    header, steps = arrival_log.read(path)
    config = configuration.check(header.config, Path(header.file))
    config = msgspec.structs.replace(config, loaded=header.tables())
    source = journal_path or state.folder(header.name) / "journal"
    contents = journal_file.read_journal(source)
    runs = contents.rows(journal.RUN)
    found = np.flatnonzero(runs["run"] == header.run.encode())
    if not len(found):
        raise LogError(f"{source}: does not hold run {header.run}, whose arrivals are in {path}")
    begins = [*np.flatnonzero(contents.index["kind"] == journal.RUN).tolist(), len(contents.index)]
    begin, end = begins[found[0]], begins[found[0] + 1]
    own = replace(contents, index=contents.index[begin:end])
    reports = own.rows(journal.REPORT_SEEN)
    return Run(
        header=header,
        steps=steps,
        config=config,
        files=_recording(path, header.name),
        earlier=replace(contents, index=contents.index[:begin]),
        sent=own.rows(journal.ORDER_SENT),
        reports=reports[reports["sequence"] >= 0],
    )


def _recording(path: Path, name: str) -> list[Path]:
    """List the recording's files from the log's number up to the next log's. Raises LogError for none."""
    first = int(path.stem.removeprefix(f"{name}-"))
    later = [int(one.stem.removeprefix(f"{name}-")) for one in path.parent.glob(f"{name}-*.zst")]
    last = min((number for number in later if number > first), default=None)
    files = [
        one
        for one in sorted(path.parent.parent.glob(f"{name}-*.zst"))
        if first <= int(one.stem.removeprefix(f"{name}-")) and (last is None or int(one.stem[-4:]) < last)
    ]
    if not files:
        raise LogError(f"{path.parent.parent}: no recording {name}-{first:04}.zst to go with {path}")
    return files


class Again:
    """A run under way once more."""

    def __init__(self, run: Run, assembly: Assembly, folder: Path, log: Any) -> None:
        self.run = run
        for file in run.files:
            (folder / file.name).symlink_to(file.resolve())
        capture = msgspec.structs.replace(run.config.market_data, source="capture", path=str(folder), pace="flat")
        configs = run.config.stage_configs() | {"market_data": capture}
        setups = {
            name: assembly.setup(name, configs[name], epoch=run.header.epoch, timer_ns=run.config.timer_ns(), log=log)
            for name in arrivals.STAGES
        }
        # Frames carry the time the run reasoned with; for risk each ARRIVAL does.
        setups["market_data"].loop[stage.VIRTUAL] = 1
        self.gates = {name: _gate(setups, assembly, name) for name in GATED}
        self.kill, self.holds = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self.instrument_hold = np.zeros(len(assembly.instruments), np.int64)
        told = {"kill": self.kill, "hold": self.holds, "instrument_hold": self.instrument_hold}
        for setup in setups.values():
            setup.shared = {**setup.shared, **told}
        self.pool = setups["risk"].shared["orders"]
        self.loops = {name: setup.loop for name, setup in setups.items()}
        self.contexts = {name: STAGES[name].build(setup) for name, setup in setups.items()}
        self._poll = setups["market_data"].polls[0]
        recovery.restore(self.contexts, recovery.recover(run.earlier, run.config.tables(), run.config.mode))
        self.at = dict.fromkeys(arrivals.STAGES, 0)
        self.orders: list[Any] = []
        self._slots: dict[int, tuple[int, int]] = {}  # of the orders that are open
        self._reported = 0
        self.unfinished = ""
        self._lacking = {int(row["number"]) for row in run.steps["market_data"] if row["kind"] == arrivals.UNRECORDED}

    def next_of(self, name: str) -> Any:
        """Look at the next ARRIVAL of a stage; None at the end of its log."""
        rows, at = self.run.steps[name], self.at[name]
        if at == len(rows):
            return None
        if rows[at]["kind"] == arrivals.INCOMPLETE:
            self.unfinished = f"the log of {name} is incomplete: it found no room"
            return None
        return rows[at]

    # ── market data and book ─────────────────────────────────────────────────────────────────────────────────────

    def go(self, progress: Callable[[int], None]) -> None:
        """Do the whole run again."""
        words, index = self.contexts["market_data"].words, self.contexts["market_data"].frames
        if self.run.header.continues:
            index.words[frames.TAKEN] = 1
        while True:
            number = int(words[feed.NUMBER])
            progress(number)
            if self._chance(number):
                continue
            if index.words[frames.TAKEN] == index.words[frames.COUNT] and not index.words[frames.ENDED]:
                self._poll()
                continue
            if index.words[frames.TAKEN] == index.words[frames.COUNT]:
                break
            if number + 1 in self._lacking:
                self.unfinished = f"the recording lacks frame {number + 1}: the recorder had no room for it"
                break
            take_frame(self.contexts["market_data"], self.loops["market_data"])
            if words[feed.UNRECOGNISED]:
                self._poll()
            self._event()
        self._catch_up()

    def _chance(self, number: int) -> bool:
        """Do what happened after frame `number` that no frame tells: timers, and events that were dropped."""
        row = self.next_of("market_data")
        if row is None or row["number"] != number or row["kind"] == arrivals.UNRECORDED:
            return False
        self.at["market_data"] += 1
        words = self.contexts["market_data"].words
        words[feed.TIMER_NEXT_NS] = row["time_ns"]
        make_timer(self.contexts["market_data"], self.loops["market_data"])
        self._event()
        return True

    def _event(self) -> None:
        """Pass the event in hand on, unless it was dropped then; and let everybody take what they took."""
        context = self.contexts["market_data"]
        words = context.words
        if not words[feed.PENDING]:
            return
        row = self.next_of("market_data")
        if row is not None and row["kind"] == arrivals.DROPPED and row["number"] == words[feed.NUMBER]:
            self.at["market_data"] += 1
            words[feed.PENDING] = 0
            words[feed.DROPPED_NOW] = 1
            return
        row = self.next_of("book")
        end = int(context.tick.own[ring.NEXT] + words[feed.PENDING]) - 1
        dropped = row is not None and row["number"] == end
        self.at["book"] += dropped
        self.gates["touch"].allow(row["room_first"] if dropped else arrivals.EVERY)
        self.gates["book"].allow(row["room_second"] if dropped else arrivals.EVERY)
        self.gates["fill_feed"].allow(len(self.gates["fill_feed"].producer.slots))
        pass_on(context, self.loops["market_data"], self.contexts["book"], self.loops["book"])
        self._catch_up()

    def _catch_up(self) -> None:
        while self._risk() or self._signal():
            pass

    # ── signal and risk ──────────────────────────────────────────────────────────────────────────────────────────

    def _signal(self) -> bool:
        """Do the strategy's next step, if what it took is there."""
        row, gates = self.next_of("signal"), self.gates
        if row is None or gates["feedback"].waiting() < row["first"] or gates["book"].waiting() < row["second"]:
            return False
        self.at["signal"] += 1
        gates["feedback"].show(int(row["first"]))
        gates["book"].show(int(row["second"]))
        gates["intent"].allow(int(row["room_first"]))
        step_signal(self.contexts["signal"], self.loops["signal"])
        return True

    def _risk(self) -> bool:
        """Do risk's next step, if what it took is there."""
        row, gates = self.next_of("risk"), self.gates
        if row is not None and row["kind"] == arrivals.HELD:
            self.at["risk"] += 1
            self.instrument_hold[row["number"]] = row["held"]
            self.holds[control.CHANGES] += 1
            return True
        if row is None or gates["touch"].waiting() < row["first"] or gates["intent"].waiting() < row["third"]:
            return False
        if self._reported + row["second"] > len(self.run.reports):
            return False
        self.at["risk"] += 1
        self._report(int(row["second"]))
        gates["touch"].show(int(row["first"]))
        gates["report"].show(int(row["second"]))
        gates["intent"].show(int(row["third"]))
        gates["order"].allow(int(row["room_first"]))
        gates["feedback"].allow(int(row["room_second"]))
        self.kill[:] = 0
        self.kill[control.OPERATOR] = row["level"]
        self.holds[control.HOLD] = row["held"]
        self.loops["risk"][stage.NOW_NS] = self.contexts["risk"].arrivals.words[arrivals.TOLD_NS] = row["time_ns"]
        step_risk(self.contexts["risk"], self.loops["risk"])
        made = gates["order"].take()
        for order in made[np.isin(made["kind"], (m.NEW, m.REPLACE))]:
            self._slots[int(order["order_id"])] = int(order["slot"]), int(order["generation"])
        self.orders.append(made)
        return True

    def _report(self, count: int) -> None:
        """Publish the next reports of the journal; as the gateway did, give back the slots of orders they end."""
        out = self.gates["report"].producer
        for row in self.run.reports[self._reported : self._reported + count]:
            position = int(out.own[ring.NEXT])
            out.slots[position & (len(out.slots) - 1)] = row
            out.own[ring.NEXT] = out.own[ring.HEAD] = position + 1
            final = row["flags"] & m.FINAL
            requested = row["kind"] in (m.CANCELLED, m.REPLACED) and row["target_id"] > 0
            requested = requested or (row["kind"] == m.AMENDED and final)
            if requested or final:
                held = self._slots.pop(int(row["target_id" if requested else "order_id"]), None)
                if held is not None:
                    pool.give_back(self.pool, *held)
        self._reported += count

    # ── what came of it ──────────────────────────────────────────────────────────────────────────────────────────

    def result(self) -> Result:
        """Compare the orders."""
        left = {name: len(self.run.steps[name]) - self.at[name] for name in ("signal", "risk")}
        if not self.unfinished and any(left.values()):
            self.unfinished = f"steps whose messages did not come: {left['signal']} of signal, {left['risk']} of risk"
        sent = self.run.sent
        made = np.concatenate([np.zeros(0, m.ORDER), *self.orders])
        # The gateway journals no order it does not mean to send.
        again = made[np.isin(made["order_id"], sent["order_id"])]
        return Result(
            run=self.run.header.run,
            frames=int(self.contexts["market_data"].words[feed.NUMBER]),
            steps=self.at["signal"] + self.at["risk"],
            orders=len(again),
            digest=journal_file.digest_orders(sent),
            digest_again=journal_file.digest_orders(again),
            difference=_difference(sent, again),
            unfinished=self.unfinished,
        )


def _difference(sent: Any, again: Any) -> str:
    """Say in a line where two lists of orders part; empty if they do not."""
    common = min(len(sent), len(again))
    for name in journal_file.DIGEST_FIELDS:
        apart = np.flatnonzero(sent[name][:common] != again[name][:common])
        if len(apart):
            at = int(apart[0])
            return f"order {at + 1}: {name} was {sent[name][at]}, is {again[name][at]} now"
    if len(sent) != len(again):
        return f"{len(sent)} orders were sent, {len(again)} of them came out now"
    return ""


def reproduce(path: Path, *, journal_path: Path | None, progress: Callable[[int], None], log: Any) -> Result:
    """Do the run noted in `path` again, beside its recording, with its journal or the one of its name.

    Raises LogError, ConfigError, JournalError, RecoveryError, StrategyError, CaptureError and SegmentError.
    """
    run = read_run(path, journal_path)
    tables = run.config.tables()
    assembly = Assembly.create(
        run.header.name, uuid.uuid4().hex[:8], tables.instruments, tables.currencies, virtual=False, fused=False
    )
    try:
        with tempfile.TemporaryDirectory(prefix="shrivenq-") as folder:
            again = Again(run, assembly, Path(folder), log)
            again.go(progress)
            return again.result()
    finally:
        assembly.unlink()
