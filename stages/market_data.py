"""Market data: raw frames → TICK.

Takes frames from a source (a capture, the simulated market, a socket), decodes each, JSON or SBE, with the venue's
compiled scanner and puts the records of its event on the `tick` ring. What the scanner does not recognise goes to the
strict slow path in `poll`; what that refuses is counted, sampled to the log and dropped. A full ring drops whole
events, with GAP on the next one, and never part of one; a snapshot, and every event in virtual time, waits for room
instead.

What was taken is handed to the recorder, if there is one, as it came and with the time the stages reason with. That
never waits: what the recorder has no room for is counted, and the recording says so before the next frame.

In lock-step replay this stage is the conductor: it decides what happens next, see `conductor`.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

import numpy as np

from shrivenq.shm import byte_ring, ring
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.shm.prefetch import prefetch_read
from shrivenq.stages import arrivals
from shrivenq.stages import conductor as lockstep
from shrivenq.stages import frames as f
from shrivenq.stages import messages as m
from shrivenq.stages.capture import Capture
from shrivenq.stages.frames import Source
from shrivenq.stages.live import receive
from shrivenq.stages.live.source import LiveSource
from shrivenq.stages.market_data_state import (
    ASKED,
    ASKED_LOOK_NS,
    DRAIN_NS,
    DROPPED,
    DROPPED_NOW,
    EAGER,
    END_NS,
    ENDED,
    EVENTS,
    IN_HAND,
    LAST_NS,
    LOCKSTEP,
    NUMBER,
    PENDING,
    RECORDED,
    RECORDING,
    REFUSED,
    SENT,
    SLOW,
    SPEED_PPM,
    START_MONO_NS,
    START_TIME_NS,
    TIMER_NEXT_NS,
    TIMER_PERIOD_NS,
    UNRECOGNISED,
    UNRECORDED_SAID,
    WORDS,
    Config,
    MarketData,
    finish,
    marker,
    note,
)
from shrivenq.stages.simulated_market import SimulatedMarket
from shrivenq.stages.stage import (
    DROPS,
    FINISHED,
    FRAMES,
    LOOK_EVERY_NS,
    NOW_NS,
    OFFSET_NS,
    UNRECORDED,
    VIRTUAL,
    Setup,
    Stage,
    return_soon,
    stamp,
    time_of,
    turn,
)
from shrivenq.stages.venues import binance, binance_sbe, binance_sbe_slow
from shrivenq.stages.venues.binance_slow import Refused, decode_slow
from shrivenq.stages.venues.binance_symbols import make_symbols

__all__ = ["STAGE", "Config", "Feed", "MarketData", "build", "run", "step"]

EVENT_MAX = binance.EVENT_MAX
CHUNK = 1024
"""Records of a waiting event sent at a time."""
AHEAD = 8
"""Slots of `tick` fetched ahead: most events are no longer."""
TEXT_LINES = 4
"""Cache lines of the next frame's text fetched ahead."""
SNAPSHOT_OF = re.compile(rb'\{"stream":"([^"@]{1,64})@snapshot"')
FRAME_BYTES = 8 << 20
FRAME_COUNT = 1 << 14


@inlined
def send(context: Any, loop: Any) -> int:
    """Publish the event in hand, or as much of it as there is room for; return the records sent."""
    words = context.words
    tick = context.tick
    waiting = words[PENDING] - words[SENT]
    whole = loop[VIRTUAL] == 0 and context.event[0]["kind"] != m.SNAPSHOT
    if whole and not ring.claim(tick, waiting):
        words[PENDING] = 0
        words[DROPPED] += 1
        loop[DROPS] = words[DROPPED]
        words[DROPPED_NOW] = 1
        note(context, arrivals.DROPPED)
        return 0
    count = waiting
    if not whole and not ring.claim(tick, waiting):
        count = min(waiting, CHUNK)
        if not ring.claim(tick, count):
            return 0
    if words[SENT] == 0 and words[DROPPED_NOW] != 0:
        context.event[0]["flags"] |= m.GAP
        words[DROPPED_NOW] = 0
    for i in range(words[SENT], words[SENT] + count):
        position = tick.own[ring.NEXT]
        slot = ring.next_slot(tick)
        tick.slots[slot] = context.event[i]
        tick.slots[slot]["sequence"] = position
    ring.publish(tick)
    words[SENT] += count
    if words[SENT] == words[PENDING]:
        words[PENDING] = 0
        words[EVENTS] += 1
        ring.prepare(tick, AHEAD)
    return count


@inlined
def _decode(context: Any, start: int, stop: int, flags: int) -> int:
    """Decode a frame by what it is; its records, 0 if it is not recognised."""
    data, words, symbols, instruments = context.frames.data, context.words, context.symbols, context.instruments
    now, number = words[LAST_NS], words[NUMBER]
    if flags & f.BINARY:
        return binance_sbe.decode(data, start, stop, symbols, instruments, context.event, now, number)
    return binance.decode(data, start, stop, symbols, instruments, context.event, now, number)


@inlined
def take_frame(context: Any, loop: Any) -> None:
    """Decode the next frame; when the scanner does not recognise it, leave it to `poll`."""
    words, frames = context.words, context.frames
    i = frames.words[f.TAKEN]
    words[IN_HAND] = i
    frame = frames.index[i]
    words[LAST_NS] = max(words[LAST_NS], time_of(loop, frame["time_ns"]))
    words[NUMBER] += 1
    loop[FRAMES] = words[NUMBER]
    wire_ns = frame["wire_ns"] if frame["wire_ns"] != 0 else loop[NOW_NS]
    if frame["flags"] & f.LOST:
        count = marker(context, m.LOST)
    else:
        count = _decode(context, frame["offset"], frame["offset"] + frame["length"], frame["flags"])
        if count == 0:
            words[UNRECOGNISED] = 1
            return_soon(loop)
            return
    frames.words[f.TAKEN] = i + 1
    if i + 1 < frames.words[f.COUNT]:
        for line in range(TEXT_LINES):
            prefetch_read(frames.data, frames.index[i + 1]["offset"], line)
    finish(context, loop, count, wire_ns)


@inlined
def timer(context: Any, loop: Any) -> None:
    """Make the timer event that is due."""
    words = context.words
    words[LAST_NS] = max(words[LAST_NS], words[TIMER_NEXT_NS])
    words[TIMER_NEXT_NS] += words[TIMER_PERIOD_NS]
    note(context, arrivals.TIMER)
    finish(context, loop, marker(context, m.TIMER), stamp(loop))


@kernel
def _due(context: Any, loop: Any, time_ns: int) -> bool:
    """Tell whether something of virtual time `time_ns` may happen now, at the replay's pace."""
    words = context.words
    if words[SPEED_PPM] == 0:
        return True
    if words[START_MONO_NS] == 0:
        words[START_MONO_NS] = stamp(loop)
        words[START_TIME_NS] = time_ns
    # In floats: as integers these products leave 64 bits after hours, at high speeds after seconds.
    passed = float(stamp(loop) - words[START_MONO_NS]) * float(words[SPEED_PPM])
    return bool(float(time_ns - words[START_TIME_NS]) * 1e6 <= passed)


@inlined
def _waiting_frame(context: Any, loop: Any) -> int:
    """Tell the time of the next frame, NEVER if there is none; asks for a refill where that can help."""
    frames = context.frames
    if frames.words[f.TAKEN] == frames.words[f.COUNT]:
        if context.words[EAGER] != 0 and frames.words[f.ENDED] == 0:
            return_soon(loop)
        if context.live.words[receive.ENABLED] == 0 or receive.poll(context.live, frames, loop) == 0:
            return lockstep.NEVER
    return max(frames.index[frames.words[f.TAKEN]]["time_ns"], context.words[LAST_NS])


@kernel
def _refill_pending(context: Any) -> bool:
    """Tell whether the source may still have an earlier event than anything known."""
    frames = context.frames
    return frames.words[f.ENDED] == 0 and frames.words[f.TAKEN] == frames.words[f.COUNT]


@kernel
def _conduct(context: Any, loop: Any) -> int:
    """Release the next thing that happens, if the pipeline is quiescent; return 1 if something was released."""
    words, venue = context.words, context.conductor
    if not lockstep.quiescent(venue):
        return 0
    frame_ns = _waiting_frame(context, loop)
    if _refill_pending(context):
        return 0
    ended = frame_ns == lockstep.NEVER
    timer_ns = words[TIMER_NEXT_NS] if words[TIMER_NEXT_NS] != 0 and not ended else lockstep.NEVER
    venue_ns = lockstep.next_due(venue)
    if ended:
        if words[END_NS] == 0:
            words[END_NS] = words[LAST_NS] + words[DRAIN_NS]
        if venue_ns > words[END_NS]:
            words[ENDED] = 1
            loop[FINISHED] = 1
            return 0
    first = min(frame_ns, venue_ns, timer_ns)
    if not _due(context, loop, first):
        return 0
    # At one instant: market data first, so that an order meets the market of its time; then the venue; then timers.
    if frame_ns == first:
        _start_timer(context, first)
        take_frame(context, loop)
    elif venue_ns == first:
        words[LAST_NS] = max(words[LAST_NS], first)
        lockstep.grant(venue, first)
    else:
        timer(context, loop)
    return 1


@kernel
def _start_timer(context: Any, time_ns: int) -> None:
    """Count the timer's periods from the first frame."""
    words = context.words
    if words[TIMER_PERIOD_NS] != 0 and words[TIMER_NEXT_NS] == 0:
        words[TIMER_NEXT_NS] = time_ns + words[TIMER_PERIOD_NS]


@inlined
def _free(context: Any, loop: Any) -> int:
    """Release the next frame or timer that is due, whatever the stages behind are doing."""
    words = context.words
    frame_ns = _waiting_frame(context, loop)
    if frame_ns == lockstep.NEVER and context.frames.words[f.ENDED] != 0:
        words[ENDED] = 1
        loop[FINISHED] = 1
        return 0
    # Time that comes from the messages is the next frame's, and the venue is let on to where it has come.
    virtual = loop[VIRTUAL] != 0
    now = words[LAST_NS] if virtual and frame_ns == lockstep.NEVER else time_of(loop, frame_ns)
    if words[TIMER_NEXT_NS] != 0 and words[TIMER_NEXT_NS] <= now and words[TIMER_NEXT_NS] < frame_ns:
        timer(context, loop)
        # Periods missed while the stage was not running are not made up for.
        if words[TIMER_NEXT_NS] <= now:
            words[TIMER_NEXT_NS] = now + words[TIMER_PERIOD_NS]
        return 1
    if frame_ns > now:
        return 0
    if virtual:
        lockstep.let_on(context.conductor, words[LAST_NS])
    take_frame(context, loop)
    _start_timer(context, words[LAST_NS])
    return 1


@kernel
def _record(context: Any, loop: Any) -> None:
    """Offer the frame taken last to the recorder, behind the count of those it had no room for, if there are new ones.

    After the event was sent: recording costs the path nothing.
    """
    words, raw = context.words, context.raw
    words[RECORDED] = words[NUMBER]
    frame = context.frames.index[words[IN_HAND]]
    missing = loop[UNRECORDED]
    at, size = 0, 0
    if missing != words[UNRECORDED_SAID]:
        at = byte_ring.reserve(raw, f.LOST, 8, words[LAST_NS])
        if at >= 0:
            raw.words[at >> 3] = missing
    if at >= 0:
        kind = frame["flags"]
        if frame["raw_ns"] != 0:
            kind, size = kind | f.STAMPED, f.STAMP_BYTES
        at = byte_ring.reserve(raw, kind, size + frame["length"], words[LAST_NS])
    if at < 0:
        byte_ring.abandon(raw)
        loop[UNRECORDED] = missing + 1
        note(context, arrivals.UNRECORDED)
        return
    if size != 0:
        raw.words[at >> 3] = frame["raw_ns"]
        raw.words[(at >> 3) + 1] = frame["clock"]
    for i in range(frame["length"]):
        raw.data[at + size + i] = context.frames.data[frame["offset"] + i]
    byte_ring.commit(raw)
    words[UNRECORDED_SAID] = missing


@kernel
def _look_at_requests(context: Any, loop: Any) -> None:
    """Return to Python if `book` has asked for a snapshot since the source was last told."""
    context.words[ASKED_LOOK_NS] = loop[NOW_NS] + LOOK_EVERY_NS
    asked = 0
    for i in range(context.resync.shape[0]):
        asked += context.resync[i]
    if asked != context.words[ASKED]:
        return_soon(loop)


@inlined
def step(context: Any, loop: Any) -> int:
    """Send what waits, else release what is next; return the work done."""
    words = context.words
    if loop[NOW_NS] >= words[ASKED_LOOK_NS]:
        _look_at_requests(context, loop)
    if words[PENDING] != 0:
        return send(context, loop)
    if words[UNRECOGNISED] != 0 or words[ENDED] != 0:
        return 0
    work = _conduct(context, loop) if words[LOCKSTEP] != 0 else _free(context, loop)
    if words[PENDING] != 0:
        work += send(context, loop)
    if words[RECORDING] != 0 and words[RECORDED] != words[NUMBER]:
        _record(context, loop)
    return work


@kernel
def run(context: Any, loop: Any) -> None:
    """Run until the turn is over."""
    work = 0
    while turn(loop, work):
        work = step(context, loop)


class Feed:
    """The Python-level edge: refills the frames and takes the slow path."""

    def __init__(self, context: MarketData, source: Source, loop: Any, log: Any) -> None:
        self.context = context
        self.source = source
        self.loop = loop
        self.log = log
        self._served = context.resync.copy()
        self._told = False

    def poll(self) -> None:
        """Do what the compiled loop cannot; called between two of its turns."""
        words, frames = self.context.words, self.context.frames
        if words[UNRECOGNISED]:
            self._slow_path()
        # Read once: a request that comes in between is served the next time.
        asked = self.context.resync.copy()
        for instrument in np.flatnonzero(asked != self._served):
            self.source.request_snapshot(int(instrument))
        self._served = asked
        words[ASKED] = asked.sum()
        if frames.words[f.TAKEN] == frames.words[f.COUNT] and not frames.words[f.ENDED]:
            self.source.fill(frames)
            if self.source.damage and not self._told:
                self._told = True
                self.log.warning(
                    "capture damaged; books are invalid from there to the next snapshot", what=self.source.damage
                )

    def _slow_path(self) -> None:
        """Decode the frame in hand strictly, or refuse it: counted, the first ones and then every 1000th logged."""
        context, words = self.context, self.context.words
        index = int(context.frames.words[f.TAKEN])
        frame = context.frames.index[index]
        start = int(frame["offset"])
        text = context.frames.data[start : start + int(frame["length"])].tobytes()
        count = 0
        binary = bool(frame["flags"] & f.BINARY)
        try:
            count = self._decode_slowly(text, binary=binary)
            words[SLOW] += 1
        except Refused as reason:
            words[REFUSED] += 1
            if words[REFUSED] <= 10 or words[REFUSED] % 1000 == 0:
                self.log.warning(
                    "frame refused",
                    reason=str(reason),
                    frame=int(words[NUMBER]),
                    text=text[:200].hex() if binary else text[:200].decode("utf-8", "replace"),
                )
        if not count and (found := SNAPSHOT_OF.match(text)):
            with contextlib.suppress(Refused):  # the book waits for it, and does not know: let it ask again
                count = self._decode_slowly(b'{"stream":"%s@lost","data":{}}' % found[1], binary=False)
        context.frames.words[f.TAKEN] = index + 1
        words[UNRECOGNISED] = 0
        if count:
            finish(context, self.loop, count, int(frame["wire_ns"]))

    def _decode_slowly(self, text: bytes, *, binary: bool) -> int:
        """Decode strictly; return the event's records. Raises Refused."""
        context, words = self.context, self.context.words
        slowly = binance_sbe_slow.decode_slow if binary else decode_slow
        return slowly(
            text, context.symbols, context.instruments, context.event, int(words[LAST_NS]), int(words[NUMBER])
        )


def build(setup: Setup) -> MarketData:
    """Open the source and make the context. Raises CaptureError for a capture that cannot be read, and ValueError."""
    config: Config = setup.config
    words = np.zeros(WORDS, np.int64)
    virtual = bool(setup.loop[VIRTUAL])
    source: Source
    frames, live = None, None
    if config.source == "binance":
        given = setup.shared
        source = LiveSource(
            config.binance,
            setup.instruments,
            given.get("rest"),
            setup.log,
            given.get("live"),
            given.get("streaming"),
            given.get("api_key"),
            given.get("away"),
        )
        frames, live = source.frames, source.live
    elif config.source == "capture":
        source = Capture(config.path)
    else:
        source = SimulatedMarket(
            setup.instruments,
            config.seed,
            offset_ns=None if virtual else int(setup.loop[OFFSET_NS]),
            config=config.simulated,
        )
    words[EAGER] = source.eager
    words[LOCKSTEP] = virtual
    words[TIMER_PERIOD_NS] = int(setup.shared["timer_ns"][0])
    words[DRAIN_NS] = int(config.drain_ms * 1e6)
    if config.pace != "flat":
        words[SPEED_PPM] = 1_000_000 if config.pace == "recorded" else max(1, round(config.pace * 1_000_000))
    words[RECORDING] = "raw" in setup.shared
    context = MarketData(
        frames=f.make_frames(FRAME_BYTES, FRAME_COUNT) if frames is None else frames,
        symbols=make_symbols(setup.instruments),
        instruments=setup.instruments,
        event=np.zeros(EVENT_MAX + 1, m.TICK),
        tick=setup.producers["tick"],
        raw=setup.shared.get("raw") or byte_ring.nowhere(),
        resync=setup.shared["resync"][: len(setup.instruments)],
        words=words,
        conductor=lockstep.make_conductor(setup.cursors, setup.shared["venue"]),
        arrivals=setup.shared.get("arrivals") or arrivals.nowhere(),
        live=receive.make_receiver(0)[0] if live is None else live,
    )
    feed = Feed(context, source, setup.loop, setup.log)
    # Before the stage is ready: the source's own kernels are compiled or loaded now, not when time counts.
    feed.poll()
    finish(context, setup.loop, 1, 0)  # only the slow path calls it from Python
    words[PENDING] = 0
    setup.polls.append(feed.poll)
    return context


STAGE = Stage(name="market_data", reads=(), writes=("tick",), build=build, step=step, run=run)
