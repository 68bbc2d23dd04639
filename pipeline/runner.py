"""Run stages in this process: one of them, or several fused.

The compiled loop runs until it needs Python, or the supervisor says stop; then this module does what only Python can:
refills and slow paths, faults.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shrivenq.pipeline import fused
from shrivenq.pipeline.assembly import clock_ns
from shrivenq.pipeline.recovery import RecoveryError
from shrivenq.pipeline.topology import EVERY_STAGE
from shrivenq.shm import resident
from shrivenq.shm.segment import SegmentError
from shrivenq.stages import signal, stage
from shrivenq.stages.capture import CaptureError
from shrivenq.stages.journal import JournalError
from shrivenq.stages.live.venue_clock import ClockError
from shrivenq.stages.signal import StrategyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shrivenq.pipeline.assembly import Assembly


class StageError(Exception):
    """A stage stopped itself; one line says which and why."""


STOPPING_ERRORS = (StageError, SegmentError, StrategyError, CaptureError, JournalError, RecoveryError, ClockError)
"""What ends a stage with one line instead of a traceback."""

TURN_NS = 3_600_000_000_000
"""Longest time without Python. A return costs tens of microseconds: the loop ends by itself when it needs one."""
SETTLING_TURNS = 25
"""Ways from Python into the loop and back, after which they touch no memory that is new to them."""


@dataclass
class Runner:
    """The stages of one process, built and ready to turn."""

    names: Sequence[str]
    loops: list[Any]
    polls: list[Callable[[], None]]
    _run: Callable[..., None]
    _arguments: tuple[Any, ...]
    closes: Sequence[Callable[[], None]] = ()
    keep: list[Any] = field(default_factory=list)
    configs: Mapping[str, Any] = field(default_factory=dict)

    def turn(self, duration_ns: int = TURN_NS) -> None:
        """Run the compiled loop once, then the Python-level edges. Raises StageError when a stage faults."""
        loop = self.loops[0]
        loop[stage.DEADLINE_NS] = clock_ns() + duration_ns
        loop[stage.LOOK_NS] = 0
        try:
            self._run(*self._arguments, loop)
        except Exception as error:
            # Kernels raise nothing: a user's strategy does.
            if "signal" not in self.names:
                raise
            loop[stage.FAULT] = stage.FAULT_STRATEGY
            said = signal.describe_exception(self.context("signal"), self.configs["signal"].strategy, error)
            raise StageError(f"{'+'.join(self.names)}: stopped: {said}") from None
        if loop[stage.FAULT]:
            fault = stage.FAULTS[int(loop[stage.FAULT])]
            raise StageError(f"{'+'.join(self.names)}: stopped: {fault} fault at {int(loop[stage.FAULT_DETAIL])}")
        for poll in self.polls:
            poll()

    def context(self, name: str) -> Any:
        """Give the context of one of its stages."""
        return self._arguments[list(self.names).index(name)]

    def warm(self) -> None:
        """Compile or load the loop without letting it do anything: a deadline that has passed ends it at once."""
        self.loops[0][stage.DEADLINE_NS] = self.loops[0][stage.LOOK_NS] = 0
        self._run(*self._arguments, self.loops[0])

    def settle(self) -> list[str]:
        """Make this process one that runs without page faults and garbage collections; say what could not be had.

        For a process that does nothing else. Python's heap is copied only where Python works on the path (market
        data's edge): six copies would take longer than a restart may.
        """
        for array in resident.arrays_in((self._arguments, tuple(self.loops))):
            resident.bring_in(array)
        gc.freeze()
        gc.disable()
        resident.bring_in_own(heap=bool(self.polls))
        for _ in range(SETTLING_TURNS):
            self.warm()
        return [f"{'+'.join(self.names)}: {problem}" for problem in resident.keep()]

    def close(self) -> None:
        """Do what an ordered end asks for."""
        for close in self.closes:
            close()

    @property
    def finished(self) -> bool:
        """Tell whether a replay has sent everything and nothing is on its way."""
        return bool(self.loops[0][stage.FINISHED])

    def set_state(self, state: int) -> None:
        """Say on every stage's page what it is doing."""
        for loop in self.loops:
            loop[stage.STATE] = state


def build(
    assembly: Assembly,
    names: Sequence[str],
    configs: Mapping[str, Any],
    *,
    epoch: int,
    timer_ns: int,
    wait: int,
    offset_ns: int,
    log: Any,
) -> Runner:
    """Build the stages `names` in this process: one, or several in path order for which there is a fused loop."""
    setups, contexts = [], []
    for name in names:
        loop = assembly.control(f"loop.{name}")
        loop[stage.WAIT] = wait
        loop[stage.OFFSET_NS] = offset_ns
        loop[stage.VIRTUAL] = assembly.virtual
        loop[stage.PID] = os.getpid()
        loop[stage.PARENT] = os.getppid()
        loop[stage.STOP_AT] = assembly.stop_address()
        loop[stage.STATE] = stage.STARTING
        setup = assembly.setup(name, configs[name], epoch=epoch, timer_ns=timer_ns, log=log)
        setups.append(setup)
        try:
            contexts.append(EVERY_STAGE[name].build(setup))
        except ValueError as error:
            raise StageError(f"{name}: {error}") from None
    loops = [setup.loop for setup in setups]
    run: Callable[..., None] = EVERY_STAGE[names[0]].run
    arguments = tuple(contexts)
    if len(names) > 1:
        run, arguments = fused.LOOPS[names[0], names[-1]], (*contexts, tuple(loops[1:]))
    return Runner(
        names=names,
        loops=loops,
        # The venue's edge first: under TLS an order waits there to be sent.
        polls=[poll for setup in reversed(setups) for poll in setup.polls],
        closes=[close for setup in setups for close in setup.closes],
        _run=run,
        _arguments=arguments,
        keep=[*setups, assembly],
        configs=configs,
    )
