"""The shared memory of one run: made by the supervisor, handed to each stage as its Setup.

A stage maps what it owns for writing and everything else read-only. Names are `shrivenq.NAME.RUN.PART`; a ring that
was replaced after a death carries the next epoch, `shrivenq.NAME.RUN.tick.2`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.pipeline import live_key, topology, unwritten
from shrivenq.pipeline.topology import CONTROL, EVERY_STAGE, RING, RINGS
from shrivenq.shm import board, byte_ring, counters, histogram, pool, ring, segment
from shrivenq.shm.atomics import store_word
from shrivenq.shm.clock import monotonic_ns
from shrivenq.shm.kernel import kernel
from shrivenq.shm.layout import Layout, Region
from shrivenq.stages import arrivals, control, hops, orders, positions, stage
from shrivenq.stages.stage import Setup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shrivenq.shm.segment import Segment

OBSERVER_SLACK = 2
"""In lock-step replay an observer may be behind by 1 / OBSERVER_SLACK of its ring before the conductor waits."""


@kernel
def clock_ns() -> int:
    """Read CLOCK_MONOTONIC from Python through the very function the kernels use."""
    return int(monotonic_ns())


def sweep(name: str, *, unfinished: bool) -> list[Segment]:
    """Remove what dead processes left of runs of `name`; return the segments of living ones but our own.

    A segment without a header is `unfinished`, or foreign: nothing says whose it is. A journal's ring that was not read
    to its end is removed with those only: by one who holds the name, and has seen to its records.
    """
    living = []
    for one in segment.names(f"{name}."):
        try:
            held = segment.attach(one)
        except segment.SegmentError:
            if unfinished:
                segment.unlink(one)
            continue
        if not held.creator_alive():
            if not unfinished and unwritten.is_unread(held):
                held.close()
                continue
            held.unlink()
            held.close()
        elif held.creator_pid != os.getpid():
            living.append(held)
        else:
            held.close()
    return living


@dataclass
class Assembly:
    """Segments of one run."""

    name: str
    run: str  # random, hexadecimal: one for each start
    instruments: Any
    currencies: Any
    virtual: bool
    segments: dict[str, Segment] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    _pool: Any = None
    observers: dict[str, Any] = field(default_factory=dict)  # ring name → its observer's cursor words

    @classmethod
    def create(
        cls,
        name: str,
        run: str,
        instruments: Any,
        currencies: Any,
        *,
        virtual: bool,
        fused: bool,
        recorded: bool = False,
        live: bool = False,
        hold: int = 0,
    ) -> Assembly:
        """Make every segment of a run, sized for its placement, with the recorder's rings if it is recorded.

        `live` market data has a ring from the REST process; `hold`: what holds the run from the first moment on.

        Raises SegmentError, leaving nothing behind.
        """
        made = cls(name, run, instruments, currencies, virtual)
        try:
            made._add("control", CONTROL)
            # Killed until somebody arms it: what is only being made must not look like a pipeline that trades.
            store_word(made.control("kill"), control.OPERATOR, control.HALT)
            store_word(made.control("hold"), control.HOLD, hold)
            made.control("symbols").view(instruments["symbol"].dtype)[: len(instruments)] = instruments["symbol"]
            made._add("orders", pool.pool_layout(orders.ORDER_SLOT, topology.POOL_COUNT))
            made._pool = pool.attach(made.segments["orders"])
            pool.reset(made._pool)
            for spec in RINGS:
                made._add(spec.name, ring.ring_layout(spec.dtype, spec.slots(fused=fused)))
            made._add("positions", board.board_layout(positions.POSITION, len(instruments)))
            made._add("latency", histogram.histogram_layout(len(hops.NAMES)))
            made.segments["latency"].array("names", writable=True)[:] = counters.name_array(hops.NAMES)
            made._add("journal", byte_ring.byte_ring_layout(topology.JOURNAL_BYTES))
            if live:
                made._add("rest", byte_ring.byte_ring_layout(topology.REST_BYTES))
            if recorded:
                made._add("raw", byte_ring.byte_ring_layout(topology.RAW_BYTES))
                for part in topology.ARRIVALS.values():
                    made._add(part, ring.ring_layout(arrivals.ARRIVAL, topology.ARRIVALS_COUNT))
        except segment.SegmentError:
            made.unlink()
            raise
        return made

    def _add(self, part: str, layout: Layout) -> None:
        epoch = self.epochs[part] = self.epochs.get(part, 0) + 1
        suffix = "" if epoch == 1 else f".{epoch}"
        self.segments[part] = segment.create(
            f"{segment.PREFIX}{self.name}.{self.run}.{part}{suffix}", layout, epoch=epoch
        )

    def observe(self, names: Iterable[str]) -> dict[str, ring.Tap]:
        """Make observers that a lock-step replay waits for, so that they miss nothing. Call before any `setup`."""
        taps = {}
        for name in names:
            self._add(f"{name}.observer", Layout("observer", (Region("consumer", np.dtype("<i8"), 512),)))
            words = self.segments[f"{name}.observer"].array("consumer", writable=True)
            self.observers[name] = words
            source = self.segments[name]
            taps[name] = ring.Tap(words, source.array("producer"), source.array("slots"))
        return taps

    def slots(self, name: str) -> int:
        """Count the slots of a ring."""
        return int(self.segments[name].layout.region("slots").count)

    def control(self, region: str) -> Any:
        """Map a region of the control segment for writing."""
        return self.segments["control"].array(region, writable=True)

    def control_read(self, region: str) -> Any:
        """Map a region of the control segment, read-only."""
        return self.segments["control"].array(region)

    def loop(self, name: str) -> Any:
        """Map a stage's page, read-only."""
        return self.control_read(f"loop.{name}")

    def stop_address(self) -> int:
        """Give the address, in this process, of the word that stops every stage; it lives as long as the assembly."""
        return int(self.control_read("supervisor").ctypes.data) + 8 * topology.STOP

    def positions(self) -> Any:
        """Read every instrument's POSITION row; a row whose writer died half-way is left zero."""
        found = np.zeros(len(self.instruments), positions.POSITION)
        reader = board.reader(self.segments["positions"])
        for row in range(len(found)):
            board.read(reader, row, found[row : row + 1])
        return found

    def open_orders(self) -> int:
        """Count the order slots in use."""
        return int(pool.used(self._pool))

    def shortfalls(self) -> list[str]:
        """Collect what could not be had: memory that is not locked or not on its node."""
        return [problem for one in self.segments.values() for problem in one.shortfalls]

    def forget(self) -> None:
        """Drop what a forked child inherited mapped: a stage maps anew, and for writing only what it owns.

        Raises SegmentError if the run is being taken down.
        """
        self._pool = None
        self.segments = {part: segment.attach(one.name, one.layout) for part, one in self.segments.items()}

    def cursors(self) -> list[tuple[Any, Any, int]]:
        """Collect every ring's cursors for the conductor, read-only."""
        found = [
            (self.segments[spec.name].array("producer"), self.segments[spec.name].array("consumer"), 0)
            for spec in RINGS
        ]
        found += [
            (self.segments[name].array("producer"), words, self.slots(name) // OBSERVER_SLACK)
            for name, words in self.observers.items()
        ]
        return found

    def setup(self, name: str, config: Any, *, epoch: int, timer_ns: int, log: Any) -> Setup:
        """Map what stage `name` needs; `epoch` is the order-id epoch made durable for this start."""
        made = EVERY_STAGE[name]
        loop = self.control(f"loop.{name}")
        loop[stage.VIRTUAL] = self.virtual
        shared = {
            "kill": self._words("kill", writable=name in ("risk", "gateway")),
            "hold": self._words("hold", writable=name in ("risk", "gateway", "book", "live_venue")),
            "instrument_hold": self.control_read("instrument_hold"),
            "venue": self._words("venue", writable=name in ("market_data", "paper_venue")),
            "resync": self._words("resync", writable=name == "book"),
            "away": self._words("away", writable=name in ("market_data", "live_venue")),
            "epoch": np.array([epoch], np.int64),
            "timer_ns": np.array([timer_ns], np.int64),
            "run": np.frombuffer(self.run.encode(), np.uint8),
        }
        if name in ("risk", "gateway"):
            shared["orders"] = pool.attach(self.segments["orders"])
        if name == "live_venue":
            for region in ("slots", "generation"):
                shared[region] = self.segments["orders"].array(region)
            shared["logon"] = logon = live_key.Logon(config)
            shared["fix_logon"] = logon.fix
        if name == "risk":
            shared["positions"] = board.writer(self.segments["positions"])
        producers: dict[str, Any] = {part: ring.producer(self.segments[part]) for part in made.writes if part in RING}
        if name == "market_data" and "rest" in self.segments:
            shared["rest"] = byte_ring.consumer(self.segments["rest"])
            shared["live"], shared["streaming"] = self.control("live"), self.control("streaming")
            if config.binance.key:
                shared["api_key"] = live_key.DataKey(config.binance)
        if name == "market_data" and "raw" in self.segments:
            shared["raw"] = byte_ring.producer(self.segments["raw"])
        if topology.ARRIVALS.get(name) in self.segments:
            shared["arrivals"] = arrivals.to(ring.producer(self.segments[topology.ARRIVALS[name]]))
        if name == "gateway":
            producers["journal"] = byte_ring.producer(self.segments["journal"])
            shared["hops"] = hops.Hops(**histogram.histograms(self.segments["latency"], writable=True))
        return Setup(
            config=config,
            instruments=self.instruments,
            currencies=self.currencies,
            producers=producers,
            consumers={part: ring.consumer(self.segments[part]) for part in made.reads},
            loop=loop,
            shared=shared,
            cursors=self.cursors() if name == "market_data" else [],
            log=log,
        )

    def _words(self, region: str, *, writable: bool) -> Any:
        return self.control(region) if writable else self.control_read(region)

    def unlink(self) -> None:
        """Remove every segment's name; memory goes with its last user."""
        for one in self.segments.values():
            one.unlink()
            one.close()
