"""Hold and kill: the two ways trading stops, as words in shared memory.

HOLD is a bit per cause; new orders stop, cancels and verified reductions pass (while RECONCILING no reduction is: the
position may lack fills); a bit is cleared when its cause ends. What concerns one instrument holds it alone: a word of
the `instrument_hold` region for each, and CHANGES counts their changes, so that who keeps a copy knows when to look.
KILL is a level that only a person lowers. Two words raise it, each with writers of one kind, so that the operator's
command needs nothing but an ordinary aligned store: OPERATOR is written by `shrivenq kill` and `arm` (one at a time,
under a file lock), MACHINE by stages and the supervisor (by compare-and-swap). The higher level counts. Each word is
`generation << 8 | level`; arming a name begins a new generation.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.atomics import compare_exchange, fetch_and, fetch_or, load_acquire
from shrivenq.shm.kernel import kernel

# Words of the `kill` region.
OPERATOR, MACHINE = 0, 16

ARMED, HALT, CANCEL, FLATTEN = 0, 1, 2, 3
LEVELS = ("armed", "halt", "cancel", "flatten")
LEVEL_MASK = 255
GENERATION_SHIFT = 8

# Words of the `hold` region: the bits below, and how often `instrument_hold` has changed.
HOLD, CHANGES = 0, 1

STARTING = 1  # not every stage is ready, or the name is not armed yet
STAGE_DOWN = 2
STAGE_SILENT = 4
FEED_STALE = 8
RECONCILING = 16
RING_TROUBLE = 32
JOURNAL_LAG = 64
NO_SUPERVISOR = 128
STOPPING = 256
STRATEGY_DEAF = 512  # a report found no room on `feedback`: what the strategy believes is wrong from now on
SYMBOLS_UNKNOWN = 1024  # what the venue says of its symbols has not been read yet, or not for long
HOLDS = (
    "starting",
    "stage_down",
    "stage_silent",
    "feed_stale",
    "reconciling",
    "ring_trouble",
    "journal_lag",
    "no_supervisor",
    "stopping",
    "strategy_deaf",
    "symbols_unknown",
)

# Bits of an instrument's word.
NOT_TRADING = 1  # the venue does not trade it
OTHER_RULES = 2  # its rules are stricter than at the start, or contradict what is built on, or cannot be read
INSTRUMENT_HOLDS = ("not_trading", "other_rules")


@kernel
def kill_level(kill: Any) -> int:
    """Read the level in force: ARMED … FLATTEN."""
    operator = load_acquire(kill, OPERATOR) & LEVEL_MASK
    machine = load_acquire(kill, MACHINE) & LEVEL_MASK
    return max(operator, machine)


@kernel
def raise_kill(kill: Any, level: int) -> None:
    """Raise the machine's word to `level` at least; never lowers it."""
    while True:
        found = load_acquire(kill, MACHINE)
        if found & LEVEL_MASK >= level:
            return
        raised = (found >> GENERATION_SHIFT) << GENERATION_SHIFT | level
        if compare_exchange(kill, MACHINE, found, raised) == found:
            return


@kernel
def hold(holds: Any, bit: int) -> None:
    """Hold new orders for one cause."""
    fetch_or(holds, HOLD, bit)


@kernel
def unhold(holds: Any, bit: int) -> None:
    """End the hold of one cause."""
    fetch_and(holds, HOLD, ~bit)


@kernel
def held(holds: Any) -> int:
    """Read the bits that hold new orders, 0 for none."""
    return load_acquire(holds, HOLD)


@kernel
def held_alone(instrument_hold: Any, i: int) -> int:
    """Read the bits that hold new orders of one instrument, 0 for none."""
    return load_acquire(instrument_hold, i)
