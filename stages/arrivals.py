"""Arrivals: in which order a stage that runs free merged its inputs, so that the run can be done again, exactly.

Everything a stage does follows from its messages and from little else: how many of which input it took in one step,
the time it took for now, kill and hold as it read them, what it found no room for. Market data, book, signal and risk
note that, an ARRIVAL for each step that did something, on a ring the recorder empties; the gateway's own order of
events is the journal's. A stage never waits for room here: when the ring is full the log ends with INCOMPLETE.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import ring
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages.stage import stamp

ARRIVAL = np.dtype(
    [
        ("time_ns", "<i8"),  # ns since 1970: what the step took for now; a timer's time
        ("number", "<i8"),  # market data: frames taken before; book: position on `tick` of the event's END; HELD: which
        ("first", "<i4"),  # messages taken: signal from `feedback`, risk from `touch`
        ("second", "<i4"),  # … signal from `book`, risk from `report`
        ("third", "<i4"),  # … risk from `intent`
        ("kind", "<i4"),  # below
        ("level", "<i4"),  # risk: kill level acted on
        ("held", "<i4"),  # risk: hold bits
        ("room_first", "<i4"),  # where an output had no room: what was written of it; EVERY where all had
        ("room_second", "<i4"),  # signal: `intent`; risk: `order`, `feedback`; book: `touch`, `book`
        ("zero", "<i8"),
        ("zero_second", "<i8"),
    ],
    align=True,
)
assert ARRIVAL.itemsize == 64

STEP = 1  # signal and risk: one step
TIMER = 2  # market data: a timer, after `number` frames
DROPPED = 3  # market data: the event made last found no room; book: not all that followed from an event did
UNRECORDED = 4  # market data: frame `number` is not in the recording
INCOMPLETE = 5  # this log found no room: it ends here
HELD = 6  # risk: from its next step on `held` holds instrument `number` alone
EVERY = -1

STAGES = ("market_data", "book", "signal", "risk")
"""Which stages note their arrivals."""

# Words of `Arrivals.words` (int64).
ON = 0  # 1: noted; 0: nobody records
TOLD_NS = 2  # a run done again: what the clock said then, 0 where it is to be read
BROKEN = 1  # 1: something was not noted, which is still to be said; 2: it was said
WORDS = 8


@by_reference
class Arrivals(NamedTuple):
    """The ring's writing end and the words above."""

    out: Any
    words: Any


def to(out: ring.Producer) -> Arrivals:
    """Note arrivals on a ring of ARRIVAL."""
    words = np.zeros(WORDS, np.int64)
    words[ON] = 1
    return Arrivals(out, words)


def nowhere() -> Arrivals:
    """Note nothing."""
    cursors = np.zeros(ring.HIGH_WATER + 1, np.int64)
    return Arrivals(ring.Producer(cursors, cursors.copy(), np.zeros(2, ARRIVAL)), np.zeros(WORDS, np.int64))


@inlined
def read_clock(arrivals: Any, loop: Any) -> int:
    """Read the clock, CLOCK_MONOTONIC; in a run done again, hear what it said then."""
    told = arrivals.words[TOLD_NS]
    return told if told != 0 else stamp(loop)


@kernel
def note(
    arrivals: Arrivals,
    kind: int,
    time_ns: int,
    number: int,
    first: int,
    second: int,
    third: int,
    level: int,
    held: int,
    room_first: int,
    room_second: int,
) -> None:
    """Write one ARRIVAL; without room for it the log is over, and says so as soon as it can."""
    out, words = arrivals.out, arrivals.words
    if words[BROKEN] == 2:
        return
    if not ring.claim(out, 1):
        words[BROKEN] = 1
        return
    if words[BROKEN] == 1:
        words[BROKEN] = 2
        kind = INCOMPLETE
    slot = ring.next_slot(out)
    out.slots[slot]["time_ns"] = time_ns
    out.slots[slot]["number"] = number
    out.slots[slot]["first"] = first
    out.slots[slot]["second"] = second
    out.slots[slot]["third"] = third
    out.slots[slot]["kind"] = kind
    out.slots[slot]["level"] = level
    out.slots[slot]["held"] = held
    out.slots[slot]["room_first"] = room_first
    out.slots[slot]["room_second"] = room_second
    ring.publish(out)
