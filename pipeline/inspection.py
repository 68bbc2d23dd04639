"""Look at a pipeline from outside: what runs, what holds it, what its rings carry. Never writes, except to arm."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.pipeline import kill, rest, state, topology
from shrivenq.shm import ring, segment, stats
from shrivenq.shm.atomics import exchange_word, load_word
from shrivenq.shm.segment import Segment, SegmentError
from shrivenq.stages import control, frames, stage
from shrivenq.stages import messages as m
from shrivenq.stages.live import source

if TYPE_CHECKING:
    from collections.abc import Iterator

POLL_S = 0.001


class InspectionError(Exception):
    """There is nothing to look at, or it is not what it should be; one line says why."""


@dataclass
class Running:
    """A pipeline found in shared memory."""

    name: str
    run: str
    control: Segment
    _parts: dict[str, Segment] = field(default_factory=dict)

    def part(self, part: str) -> Segment:
        """Attach to one of its segments, the newest epoch; once. Raises InspectionError."""
        if part not in self._parts:
            self._parts[part] = self._attach(part)
        return self._parts[part]

    def _attach(self, part: str) -> Segment:
        prefix = f"{self.name}.{self.run}.{part}"
        found = [
            one for one in segment.names(prefix) if one.removeprefix(segment.PREFIX + prefix).lstrip(".").isdigit()
        ]
        newest = max(found, key=lambda one: int(one.rpartition(".")[2]), default=segment.PREFIX + prefix)
        try:
            return segment.attach(newest)
        except SegmentError as error:
            raise InspectionError(str(error)) from None

    def words(self, region: str) -> Any:
        """Map a region of the control segment, read-only."""
        return self.control.array(region)


def attach(name: str) -> Running:
    """Find a running pipeline by name, or the only one; of several the newest that lives. Raises InspectionError."""
    names = kill.running_names()
    if not name:
        if len(names) != 1:
            raise InspectionError(f"which name? running: {', '.join(names) or 'none'}")
        name = names[0]
    controls = kill.control_segments(name)
    if not controls:
        why = state.why_killed(name)
        killed = f", killed: {why}" if why else ""
        raise InspectionError(f"{name}: not running{killed}; running: {', '.join(names) or 'none'}")
    found = []
    for one in controls:
        try:
            found.append(segment.attach(one, topology.CONTROL))
        except SegmentError as error:
            problem = str(error)
    if not found:
        raise InspectionError(problem)
    # What a killed process left behind lies there until the next start of its name.
    held = max(found, key=lambda one: (one.creator_alive(), int(one.header["created_ns"][0])))
    return Running(name, held.name.split(".")[2], held)


def _stage(running: Running, name: str) -> dict[str, Any]:
    loop = running.words(f"loop.{name}")
    pid = int(loop[stage.PID])
    return {
        "stage": name,
        "pid": pid,
        "alive": bool(pid and segment.start_time(pid)),
        "state": stage.STATES[int(loop[stage.STATE])],
        "silent_ms": max(0, time.monotonic_ns() - int(load_word(loop, stage.NOW_NS))) // 1_000_000,
        "turns": int(loop[stage.TURNS]),
        "messages": int(loop[stage.WORK]),
        "fault": stage.FAULTS[int(loop[stage.FAULT])],
    }


def _here(running: Running, name: str) -> str:
    """Name a stage as this pipeline runs it: another venue stands at the same rings in mode live."""
    return "live_venue" if name == "paper_venue" and _mode(running) == "live" else name


def _ring(running: Running, spec: topology.RingSpec) -> dict[str, Any]:
    held = running.part(spec.name)
    head = int(load_word(held.array("producer"), ring.HEAD))
    consumer = held.array("consumer")
    return {
        "ring": spec.name,
        "from": _here(running, spec.source),
        "to": _here(running, spec.target),
        "published": head,
        "waiting": head - int(load_word(consumer, ring.TAIL)),
        "high_water": int(consumer[ring.HIGH_WATER]),
        "slots": held.layout.region("slots").count,
    }


def status(running: Running) -> dict[str, Any]:
    """Collect everything an operator asks first."""
    words = running.words("kill")
    holds = int(load_word(running.words("hold"), control.HOLD))
    return {
        "name": running.name,
        "run": running.run,
        "kill": control.LEVELS[int(control.kill_level(words))],
        "armed": state.armed(running.name) or "no",
        "why_killed": state.why_killed(running.name),
        "holds": [name for bit, name in enumerate(control.HOLDS) if holds >> bit & 1],
        "held_alone": _held_alone(running),
        "supervisor_alive": running.control.creator_alive(),
        "stages": [_stage(running, name) for name in topology.stages_of(_mode(running))],
        **({"market_data": _market_data(running)} if _is_fed_live(running) else {}),
        "rings": [_ring(running, spec) for spec in topology.RINGS],
        "memory": [asdict(row) for row in stats.collect(f"{running.name}.{running.run}.")],
    }


def _held_alone(running: Running) -> list[str]:
    """Name the instruments that are held by themselves, and why."""
    words, symbols = running.words("instrument_hold"), running.words("symbols").view(m.INSTRUMENT["symbol"])
    return [
        f"{symbols[row].decode()}: {name}"
        for row in np.flatnonzero(words)
        for bit, name in enumerate(control.INSTRUMENT_HOLDS)
        if int(words[row]) >> bit & 1
    ]


def _is_fed_live(running: Running) -> bool:
    return bool(segment.names(f"{running.name}.{running.run}.rest"))


def _market_data(running: Running) -> dict[str, Any]:
    """Tell how live market data is: its connections, its snapshots, and the clocks."""
    live, side = running.words("live"), running.words("rest")
    clocks = {"venue_clock_ahead_ms": side[rest.VENUE_OFFSET_NS], "venue_clock_error_ms": side[rest.VENUE_ERROR_NS]}
    return {
        "connected": "yes" if load_word(live, source.OPEN) else "no",
        "connections": int(live[source.CONNECTS]),
        "losses": int(live[source.LOSSES]),
        "frames": int(running.words("loop.market_data")[stage.FRAMES]),
        "snapshots": int(side[rest.SNAPSHOTS]),
        "rest_failures": int(side[rest.FAILURES]),
        "rest_weight_used": int(side[rest.USED_WEIGHT]),
        # Nothing is known of the venue's clock before it was asked: an error is never 0.
        **({key: round(int(value) / 1e6, 3) for key, value in clocks.items()} if side[rest.VENUE_ERROR_NS] else {}),
        "receive_clock": frames.CLOCKS[int(live[source.CLOCK])],
        "receive_clock_error_us": round(int(live[source.CLOCK_ERROR_NS]) / 1e3, 3),
    }


def _mode(running: Running) -> str:
    """Tell whether its orders go to a real venue: then that stage has a page in use."""
    return "live" if load_word(running.words("loop.live_venue"), stage.PID) else "paper"


def segments(name: str) -> list[dict[str, Any]]:
    """Describe segments from their own headers: one by name, or all. Raises InspectionError."""
    wanted = [name.removeprefix("/")] if name else segment.names()
    found: list[dict[str, Any]] = []
    for one in wanted:
        try:
            held = segment.attach(one)
        except SegmentError as error:
            if name:
                raise InspectionError(str(error)) from None
            found.append({"segment": one, "problem": str(error)})
            continue
        header = held.header
        found.append(
            {
                "segment": one,
                "kind": held.layout.kind,
                "bytes": held.layout.size,
                "epoch": held.epoch,
                "creator_pid": int(header["creator_pid"][0]),
                "creator_alive": held.creator_alive(),
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(header["created_ns"][0]) / 1e9)),
                "layout": f"{held.layout.digest():#018x}",
                "regions": [
                    {"name": part.name, "count": part.count, "bytes": part.count * part.dtype.itemsize,
                     "fields": list(part.dtype.names or [part.dtype.str])}
                    for part in held.layout.regions
                ],
            }
        )  # fmt: skip
    return found


def tap(running: Running, name: str, limit: int) -> Iterator[dict[str, Any]]:
    """Follow a ring from now on: a dict a message, `{"lost": n}` where the ring was faster. Raises InspectionError."""
    if name not in topology.RING:
        raise InspectionError(f"tap {name}: no such ring; expected one of {', '.join(topology.RING)}")
    held = running.part(name)
    observer = ring.tap(held)
    row = np.zeros(1, topology.RING[name].dtype)
    seen = 0
    while not limit or seen < limit:
        copied = int(ring.copy_next(observer, row))
        if copied == 1:
            seen += 1
            yield {field: _plain(row[0][field]) for field in row.dtype.names or ()}
        elif copied < 0:
            yield {"lost": -copied}
        elif not running.control.creator_alive():
            return
        else:
            time.sleep(POLL_S)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")
    return value.tolist()


def arm(name: str, reason: str) -> str:
    """Lift the kill of a name, running or not; return the line that says so. Raises InspectionError, StateError."""
    controls = kill.control_segments(name)
    if not controls and not (state.NAME.fullmatch(name) and state.folder(name).is_dir()):
        raise InspectionError(f"{name}: no such name; running: {', '.join(kill.running_names()) or 'none'}")
    if not controls and (state.folder(name) / state.LIVE).exists():
        raise InspectionError(f"{name}: not running: a live run begins killed, arm it once it runs")
    with state.locked(name, "operator", wait=True):
        for one in controls:
            words = segment.attach(one, topology.CONTROL).array("kill", writable=True)
            for word in (control.OPERATOR, control.MACHINE):
                seen = int(load_word(words, word))
                generation = (seen >> control.GENERATION_SHIFT) + 1
                armed = generation << control.GENERATION_SHIFT | control.ARMED
                if int(exchange_word(words, word, seen, armed)) != seen:
                    raise InspectionError(f"{name}: the kill was raised meanwhile; look, and arm again")
        state.write_armed(name, reason)
    return f"{name}: armed{'' if controls else ' for its next start'}: {reason}"


def lines(found: Any, indent: str = "") -> Iterator[str]:
    """Spell nested dicts and lists as plain, aligned lines."""
    if isinstance(found, list) and found and all(isinstance(one, dict) for one in found):
        yield from _table(found, indent)
        return
    if isinstance(found, dict):
        for key, value in found.items():
            is_list = isinstance(value, list) and not all(isinstance(one, str) for one in value)
            if is_list or (isinstance(value, dict) and value):
                yield f"{indent}{key}:"
                yield from lines(value, indent + "  ")
            else:
                yield f"{indent}{key}: {_spell(value, key)}"
        return
    for one in found if isinstance(found, list) else [found]:
        yield f"{indent}{_spell(one)}"


def _spell(value: Any, key: str = "") -> str:
    if isinstance(value, list):
        return ", ".join(str(one) for one in value) or "none"
    is_count = isinstance(value, int) and not isinstance(value, bool) and not key.endswith("pid")  # a pid is a name
    return f"{value:,}" if is_count else str(value)


def _table(rows: list[dict[str, Any]], indent: str) -> Iterator[str]:
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if not isinstance(value, list)))
    cells = [columns, *([_spell(row.get(key, ""), key) for key in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        yield (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
