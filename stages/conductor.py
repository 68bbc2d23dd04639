"""The conductor: lock-step replay, one event at a time through the whole pipeline.

It releases the next thing that happens (a venue event, a timer, a report that is due at the paper venue) only when the
pipeline is quiescent: every ring empty, and no cursor moved between two readings. Cursors never go back, and a stage
publishes before it releases its input, so two equal readings with every ring empty mean that nothing was on its way.
What happens next is therefore decided by (virtual time, kind, sequence) alone, never by the speed of a process.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import ring
from shrivenq.shm.atomics import load_acquire, load_address, store_release
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import kernel

# Words of the `venue` array shared with the paper venue (int64). The venue writes its own, the conductor its own.
NEXT_DUE_NS = 0  # venue: time of the next thing scheduled there, NEVER for none
DONE = 1  # venue: grants served
GRANTED_NS = 16  # conductor: act on everything scheduled up to this time
GRANTS = 17  # conductor: grants given
VENUE_WORDS = 32

NEVER = 1 << 62


@by_reference
class Conductor(NamedTuple):
    """Addresses of every ring's HEAD and TAIL, how far each TAIL may lag, the last reading, the venue's words."""

    heads: Any
    tails: Any
    slack: Any  # 0 for the pipeline's rings; an observer, such as a dump, may be behind by this much
    seen: Any
    venue: Any


def make_conductor(cursors: list[tuple[Any, Any, int]], venue: Any) -> Conductor:
    """Watch rings given as (producer's cursors, consumer's cursors, slack); the caller keeps the arrays alive."""
    heads = np.array([head.ctypes.data + 8 * ring.HEAD for head, _, _ in cursors], np.int64)
    tails = np.array([tail.ctypes.data + 8 * ring.TAIL for _, tail, _ in cursors], np.int64)
    slack = np.array([slack for _, _, slack in cursors], np.int64)
    return Conductor(heads, tails, slack, np.full(len(cursors), -1, np.int64), venue)


BUSY, MOVED, STILL = 0, 1, 2


@kernel
def quiescent(conductor: Any) -> bool:
    """Tell whether nothing is on its way: every ring empty and every grant served, in two equal readings."""
    found = _reading(conductor)
    if found == MOVED:
        found = _reading(conductor)
    return bool(found == STILL)


@kernel
def _reading(conductor: Any) -> int:
    """Read all cursors: BUSY if anything waits, else STILL or MOVED compared with the reading before."""
    # The venue publishes before it says that a grant is served, so this word is read before the cursors.
    if load_acquire(conductor.venue, DONE) != conductor.venue[GRANTS]:
        return BUSY
    found = STILL
    for i in range(conductor.heads.shape[0]):
        head = load_address(conductor.heads[i])
        if head - load_address(conductor.tails[i]) > conductor.slack[i]:
            return BUSY
        if conductor.seen[i] != head:
            conductor.seen[i] = head
            found = MOVED
    return found


@kernel
def next_due(conductor: Any) -> int:
    """Tell when the venue has something to do next; only meaningful while quiescent."""
    return load_acquire(conductor.venue, NEXT_DUE_NS)


@kernel
def grant(conductor: Any, time_ns: int) -> None:
    """Let the venue act on everything scheduled up to `time_ns`."""
    conductor.venue[GRANTED_NS] = time_ns
    store_release(conductor.venue, GRANTS, conductor.venue[GRANTS] + 1)


@kernel
def let_on(conductor: Any, time_ns: int) -> None:
    """Let the venue act on what is due by `time_ns` unless it is acting already: for runs without lock-step."""
    if load_acquire(conductor.venue, DONE) == conductor.venue[GRANTS] and next_due(conductor) <= time_ns:
        grant(conductor, time_ns)
