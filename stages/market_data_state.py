"""What market data knows: its configuration, its context, its words, and the event in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from shrivenq.shm import byte_ring
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined
from shrivenq.stages import arrivals, order_flow
from shrivenq.stages import messages as m
from shrivenq.stages.conductor import Conductor
from shrivenq.stages.frames import Frames
from shrivenq.stages.live import source as live_source
from shrivenq.stages.live.receive import Receiver
from shrivenq.stages.stage import stamp

if TYPE_CHECKING:
    from shrivenq.shm.ring import Producer

# Words (int64).
NUMBER = 0  # frames taken: the `cause` of their ticks
PENDING = 1  # records of the event in hand
SENT = 2  # of those, already published
LAST_NS = 3  # virtual time
TIMER_PERIOD_NS = 4  # 0: no timer
TIMER_NEXT_NS = 5
UNRECOGNISED = 6  # 1: the frame in hand waits for the slow path
REFUSED = 7  # frames refused by the slow path
SLOW = 8  # frames decoded by the slow path
DROPPED = 9  # events dropped for want of room
DROPPED_NOW = 10  # 1: the next event must say GAP
LOCKSTEP = 11
SPEED_PPM = 12  # replay speed: 1,000,000 is as recorded, 0 flat out
START_MONO_NS = 13  # of the paced replay
START_TIME_NS = 14
DRAIN_NS = 15  # after the last frame the venue is served this long
ENDED = 16  # 1: everything has been sent and the pipeline is quiescent
EAGER = 17  # 1: the source can refill at any time (a file), so an empty buffer ends the turn
EVENTS = 18  # events published
END_NS = 19  # virtual time up to which the venue is served, known once the source has ended
RECORDING = 20  # 1: there is a recorder
RECORDED = 21  # frames it was offered
IN_HAND = 22  # index of the frame taken last
UNRECORDED_SAID = 23  # of the frames it had no room for, those the recording tells of
ASKED = 24  # snapshots asked for, as far as the source was told
ASKED_LOOK_NS = 25  # CLOCK_MONOTONIC of the next look at that
WORDS = 32


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[market_data]`: where market data comes from, and how fast."""

    source: Literal["simulated", "capture", "binance"]
    path: str = ""
    """Capture: a file, or a folder whose files are read in name order."""
    pace: Literal["flat", "recorded"] | float = "flat"
    """Replay: `recorded`, a multiple of it such as 1000.0, or `flat` out."""
    seed: int = 1
    """Simulated market: the same seed gives the same market."""
    simulated: order_flow.Config = order_flow.Config()
    """Simulated market: how lively it is."""
    drain_ms: float = 1000.0
    """Replay: virtual time the paper venue is still served after the last frame."""
    binance: live_source.Config = live_source.Config()
    """Live market data: where it comes from."""


@by_reference
class MarketData(NamedTuple):
    """Context of the stage."""

    frames: Frames
    symbols: Any
    instruments: Any
    event: Any  # TICK records of the frame in hand
    tick: Producer
    raw: byte_ring.Producer
    resync: Any  # int64, one an instrument: counts the snapshots `book` has asked for
    words: Any
    conductor: Conductor
    arrivals: arrivals.Arrivals
    live: Receiver  # without connections where the source is no live one


@inlined
def note(context: Any, kind: int) -> None:
    """Note what no recorded frame tells."""
    if context.arrivals.words[arrivals.ON] != 0:
        words = context.words
        arrivals.note(context.arrivals, kind, words[LAST_NS], words[NUMBER], 0, 0, 0, 0, 0, 0, 0)


@inlined
def finish(context: Any, loop: Any, count: int, wire_ns: int) -> None:
    """Make the `count` decoded records of the frame in hand ready to send."""
    event = context.event
    now = stamp(loop)
    event[count - 1]["wire_ns"] = wire_ns if wire_ns != 0 else now
    event[count - 1]["decoded_ns"] = now
    context.words[PENDING] = count
    context.words[SENT] = 0


@inlined
def marker(context: Any, kind: int) -> int:
    """Fill in an event without content (TIMER, LOST); return its records."""
    event = context.event
    for i in range(2):
        event[i] = event[-1]  # the last record of the buffer is kept zero
        event[i]["cause"] = context.words[NUMBER]
        event[i]["time_ns"] = context.words[LAST_NS]
    event[0]["kind"] = kind
    if kind == m.LOST:
        event[0]["instrument"] = -1  # of all
    event[1]["kind"] = m.END
    event[1]["count"] = 1
    return 2
