"""The shape all stages share: a context, a step, and the turn that paces the loop.

A stage is free functions over preallocated arrays. `build` makes its context, a NamedTuple of ring ends and state
arrays; the compiled `step(context, loop)` takes what waits in its input rings, in bounded batches, and returns how
many messages that was; `run` repeats it until the turn is over:

    @kernel
    def run(context, loop):
        work = 0
        while turn(loop, work):
            work = step(context, loop)

`fused` placement calls the very same steps one after the other. `loop` is the stage's page of the control segment:
its owner writes it, everybody else reads it, even when the stage hangs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from shrivenq.shm.atomics import load_address, store_release
from shrivenq.shm.clock import monotonic_ns
from shrivenq.shm.kernel import COMPILED, inlined, kernel
from shrivenq.shm.wait import idle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shrivenq.shm.ring import Consumer, Producer

# Words of `loop` (int64).
NOW_NS = 0  # CLOCK_MONOTONIC at the last turn: the heartbeat
TURNS = 1
WORK = 2  # messages handled
DEADLINE_NS = 3  # CLOCK_MONOTONIC at which `run` returns to Python
WAIT = 4  # shm.wait: SPIN, YIELD, PARK
VIRTUAL = 5  # 1: time comes from the messages (replay, backtest); 0: it is the clock's
OFFSET_NS = 6  # live and paper: time_ns = CLOCK_MONOTONIC + this
STATE = 7  # STARTING … STOPPED below
FAULT = 8  # what made the stage stop, FAULTS below
FAULT_DETAIL = 9
EPOCH = 10  # of the rings in use
PID = 11
KILL_SEEN = 13  # risk and gateway: the kill level this stage acts on, plus 1; 0 before the first look
KILL_SEEN_NS = 14
BOOKS_VALID = 18  # book: valid DEPTH_BOOKs published
FRAMES = 15  # market_data: frames taken
DROPS = 16  # market_data: events dropped for want of room
UNRECORDED = 17  # market_data: frames the recorder had no room for
FINISHED = 12  # market_data in replay: 1 when everything was sent and nothing is on its way
LOOK_NS = 19  # CLOCK_MONOTONIC of the next `look`
PARENT = 20  # pid of the parent when last looked; 0: never mind
STOP_AT = 21  # address, in this process, of the word that stops it; 0: none

STARTING, READY, RUNNING, STOPPING, STOPPED, FAILED = 0, 1, 2, 3, 4, 5
STATES = ("starting", "ready", "running", "stopping", "stopped", "failed")

FAULTS = ("none", "sequence", "ring_full", "strategy", "journal", "config", "exception")
FAULT_SEQUENCE, FAULT_RING_FULL, FAULT_STRATEGY, FAULT_JOURNAL, FAULT_CONFIG, FAULT_EXCEPTION = 1, 2, 3, 4, 5, 6


LOOK_EVERY_NS = 1_000_000

if COMPILED:
    from numba.core import types

    _getppid: Any = types.ExternalFunction("getppid", types.int32())
else:
    _getppid = os.getppid


@kernel
def look(loop: Any, now: int) -> bool:
    """Tell whether `run` may go on: no fault, time left, not told to stop, and the parent still the same."""
    stopped = loop[STOP_AT] != 0 and load_address(loop[STOP_AT]) != 0
    orphaned = loop[PARENT] != 0 and _getppid() != loop[PARENT]
    if orphaned:
        loop[PARENT] = _getppid()  # said once
    if loop[FAULT] != 0 or now >= loop[DEADLINE_NS] or stopped or orphaned:
        return False
    loop[LOOK_NS] = min(now + LOOK_EVERY_NS, loop[DEADLINE_NS])
    return True


@inlined
def turn(loop: Any, work: int) -> bool:
    """Begin the next turn: wait if the last one found no work, note the time; False when `run` is to return.

    A return to Python and back costs tens of microseconds, so `run` does so only when there is something to do.
    """
    if work == 0:
        idle(loop[WAIT])
    now = monotonic_ns()
    store_release(loop, NOW_NS, now)
    loop[TURNS] += 1
    loop[WORK] += work
    return now < loop[LOOK_NS] or look(loop, now)


@inlined
def return_soon(loop: Any) -> None:
    """Let `run` return to Python when this turn is over."""
    loop[DEADLINE_NS] = 0
    loop[LOOK_NS] = 0


@kernel
def fault(loop: Any, code: int, detail: int) -> None:
    """Stop the stage: `run` returns, the supervisor reads why."""
    loop[FAULT] = code
    loop[FAULT_DETAIL] = detail
    loop[LOOK_NS] = 0


@kernel
def time_of(loop: Any, message_ns: int) -> int:
    """Tell the time to reason with now: the message's own in replay, the clock's otherwise."""
    if loop[VIRTUAL] != 0:
        return message_ns
    return monotonic_ns() + loop[OFFSET_NS]


@kernel
def stamp(loop: Any) -> int:
    """Read the clock for a trace."""
    return monotonic_ns()


@dataclass
class Setup:
    """What a stage is built from: its configuration, the shared tables, its ring ends and its loop page."""

    config: Any
    instruments: Any  # INSTRUMENT array
    currencies: Any  # CURRENCY array
    producers: Mapping[str, Producer]
    consumers: Mapping[str, Consumer]
    loop: Any
    shared: Mapping[str, Any] = field(default_factory=dict)  # other arrays by name: kill word, order slots …
    cursors: list[tuple[Any, Any, int]] = field(default_factory=list)  # of every ring, for `conductor`
    polls: list[Callable[[], None]] = field(default_factory=list)  # `build` adds what runs in Python between turns
    closes: list[Callable[[], None]] = field(default_factory=list)  # … and what is done when the stage stops in order
    log: Any = field(default_factory=structlog.get_logger)


@dataclass(frozen=True)
class Stage:
    """One stage as data: what it reads and writes, and how it is built and run."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    build: Callable[[Setup], Any]
    step: Callable[[Any, Any], int]
    run: Callable[[Any, Any], None]
