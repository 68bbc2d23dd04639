"""The market_data stage on a ring of its own, with a source, a venue and a reader driven by hand; and its slow twin."""

from __future__ import annotations

import time
import uuid

import numpy as np

from shrivenq.shm import ring, segment
from shrivenq.stages import conductor, market_data, market_data_state, stage
from shrivenq.stages import frames as f
from shrivenq.stages import messages as m
from shrivenq.stages.venues import binance
from shrivenq.stages.venues.binance_slow import Refused, decode_slow
from shrivenq.stages.venues.binance_symbols import make_symbols
from tests.stages.venues.captures import make_instruments

NAME = f"{segment.PREFIX}test-market-data-"


def trade(number, price="100.00"):
    return (
        f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{number},"s":"BTCUSDT","t":{number},"p":"{price}",'
        f'"q":"1.00000000","T":{number},"m":true,"M":true}}}}'
    ).encode()


def levels(count, first):
    return ",".join(f'["{first + i}.00","1.00000000"]' for i in range(count))


def diff(first_id, last_id, count):
    return (
        f'{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":{first_id},'
        f'"u":{last_id},"b":[{levels(count, 100)}],"a":[]}}}}'
    ).encode()


def snapshot(last_id, count):
    return (
        f'{{"stream":"btcusdt@snapshot","data":{{"lastUpdateId":{last_id},"bids":[{levels(count, 100)}],'
        f'"asks":[{levels(count, 20_000)}]}}}}'
    ).encode()


SLOW = (
    b'{"data": {"M":true,"e":"trade","E":1,"s":"BTCUSDT","t":7,"p":"5","q":"2","T":1,"m":false},'
    b'"stream":"btcusdt@trade"}'
)
SILENT = b'{"result":null,"id":1}'
REFUSED = b'{"stream":"btcusdt@trade","data":{"e":"trade","what":"is this"}}'


class Source:
    """Frames by hand: (time_ns, payload), payload None for LOST; `batch` of them a fill."""

    eager = True
    damage = ""

    def __init__(self, frames, batch=7):
        self.waiting, self.batch = list(frames), batch
        self.asked = []

    def fill(self, frames):
        assert frames.words[f.TAKEN] == frames.words[f.COUNT]
        taken, self.waiting = self.waiting[: self.batch], self.waiting[self.batch :]
        frames.words[: f.ENDED] = 0
        for row, (time_ns, payload) in enumerate(taken):
            start, length = int(frames.words[f.USED]), len(payload or b"")
            frames.data[start : start + length] = np.frombuffer(payload or b"", np.uint8)
            frames.index[row] = (time_ns, 0, start, length, f.TEXT if payload else f.LOST, 0, 0)
            frames.words[f.USED] += length
            frames.words[f.COUNT] += 1
        frames.words[f.ENDED] = not self.waiting

    def request_snapshot(self, instrument):
        self.asked.append(instrument)


class Log:
    """What was logged."""

    def __init__(self):
        self.lines = []

    def warning(self, event, **fields):
        self.lines.append((event, fields))

    info = error = warning


class Rig:
    """The stage and everything around it; `close` it."""

    def __init__(
        self, source, *, virtual, count=2048, timer_ns=0, config=None, raw=None, shared=None, symbols=(b"BTCUSDT",)
    ):
        self.segment = ring.create(f"{NAME}{uuid.uuid4().hex[:12]}", m.TICK, count)
        self.reader = ring.consumer(self.segment)
        self.instruments = np.repeat(make_instruments("spot"), len(symbols))
        self.instruments["symbol"] = symbols
        self.instruments["tick"], self.instruments["step"] = 1, 1000
        self.loop, self.venue, self.resync = (np.zeros(512, np.int64) for _ in range(3))
        self.loop[stage.VIRTUAL] = virtual
        self.venue[conductor.NEXT_DUE_NS] = conductor.NEVER
        self.log = Log()
        # The conductor knows addresses only.
        self.cursors = [(self.segment.array("producer"), self.segment.array("consumer"), 0)]
        setup = stage.Setup(
            config=config or market_data.Config(source="simulated"),
            instruments=self.instruments,
            currencies=np.zeros(1, m.CURRENCY),
            producers={"tick": ring.producer(self.segment)},
            consumers={},
            loop=self.loop,
            shared={
                "timer_ns": np.array([timer_ns]),
                "venue": self.venue,
                "resync": self.resync,
                **({} if raw is None else {"raw": raw}),
                **(shared or {}),
            },
            cursors=self.cursors,
            log=self.log,
        )
        try:
            self.context = market_data.build(setup)
        except BaseException:
            self.close()
            raise
        (poll,) = setup.polls
        self.feed = poll.__self__
        if source is not None:
            self.feed.source = source
            self.context.frames.words[:] = 0  # what the simulated market had ready
            self.context.words[market_data_state.EAGER] = source.eager
        self.words = self.context.words

    def close(self):
        self.segment.close()
        self.segment.unlink()

    def step(self):
        """Let the stage do one thing and Python its part."""
        work = int(market_data.step(self.context, self.loop))
        assert self.loop[stage.FAULT] == 0
        self.feed.poll()
        return work

    def take(self, count=None):
        """Take what waits on the ring, at most `count` records."""
        found = int(ring.available(self.reader))
        found = found if count is None else min(count, found)
        rows = np.array([self.reader.slots[int(ring.slot_at(self.reader, i))] for i in range(found)], m.TICK)
        ring.release(self.reader, found)
        return rows

    def set_clock(self, time_ns):
        """Make it `time_ns` now; the clock runs on from there."""
        self.loop[stage.OFFSET_NS] = time_ns - time.monotonic_ns()


class Twin:
    """What the stage ought to send: frame by frame, decoded by the strict slow path alone."""

    def __init__(self, instruments):
        self.instruments, self.symbols = instruments, make_symbols(instruments)
        self.target = np.zeros(binance.EVENT_MAX + 1, m.TICK)
        self.number, self.last_ns = 0, 0

    def frame(self, time_ns, payload):
        """The event of a frame, without stamps and positions; None for a frame that makes none."""
        self.number += 1
        self.last_ns = max(self.last_ns, time_ns)
        if payload is None:
            return self.marker(m.LOST)
        try:
            count = decode_slow(payload, self.symbols, self.instruments, self.target, self.last_ns, self.number)
        except Refused:
            return None
        return without_stamps(self.target[:count]) if count else None

    def timer(self, time_ns):
        """A timer's event."""
        self.last_ns = max(self.last_ns, time_ns)
        return self.marker(m.TIMER)

    def marker(self, kind):
        rows = np.zeros(2, m.TICK)
        rows["cause"], rows["time_ns"], rows["kind"] = self.number, self.last_ns, (kind, m.END)
        rows[1]["count"] = 1
        if kind == m.LOST:
            rows[0]["instrument"] = -1
        return rows


def joined(events):
    """Join events; numpy's own way would move fields that share an offset apart."""
    return np.frombuffer(bytearray(b"".join(one.tobytes() for one in events)), m.TICK)


def without_stamps(rows):
    """Copy records, with nothing in them that depends on when they were sent."""
    rows = rows.copy()
    rows["sequence"] = 0
    ends = rows["kind"] == m.END
    for name in ("wire_ns", "decoded_ns"):
        rows[name] = np.where(ends, 0, rows[name])
    return rows


def check_stream(rows, first=0):
    """Check what holds for every stream: positions count, every event is whole and stamped, time never goes back."""
    assert rows["sequence"].tolist() == list(range(first, first + len(rows)))
    assert (np.diff(rows["time_ns"]) >= 0).all()
    begin = 0
    for end in np.flatnonzero(rows["kind"] == m.END):
        event = rows[begin : end + 1]
        assert len(set(event["cause"].tolist())) == len(set(event["time_ns"].tolist())) == 1
        assert int(event[-1]["count"]) == len(event) - 1 > 0
        assert 0 < int(event[-1]["wire_ns"]) <= int(event[-1]["decoded_ns"])
        begin = end + 1
    assert begin == len(rows), "half an event"
