"""The pipeline as data: its stages, its rings, and the shared words beside them.

market_data ─tick▶ book ─book▶ signal ─intent▶ risk ─order▶ gateway ─to_venue▶ paper_venue
├──touch──────────────────▶ ▲ │           ▲ └─report▶ risk ─feedback▶ signal
└──fill_feed──────────────────┼───────────┴─from_venue── paper_venue

In mode live the stage live_venue stands in paper_venue's place, behind the very same rings, and runs in the gateway's
process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.shm.layout import PAGE, Layout, Region
from shrivenq.stages import arrivals, book, gateway, live_venue, market_data, paper_venue, risk, signal
from shrivenq.stages import messages as m

if TYPE_CHECKING:
    from shrivenq.stages.stage import Stage


@dataclass(frozen=True)
class RingSpec:
    """A ring as data: what it carries, how much of it, from which stage to which."""

    name: str
    dtype: np.dtype[Any]
    count: int
    source: str
    target: str
    fused: int = 0
    """Slots where one loop runs all stages, if fewer will do: nobody falls behind, and what is small stays in cache."""

    def slots(self, *, fused: bool) -> int:
        """Count its slots in a placement."""
        return self.fused if fused and self.fused else self.count


RINGS = (
    RingSpec("tick", m.TICK, 1 << 14, "market_data", "book", fused=1 << 13),
    RingSpec("book", m.BOOK, 1 << 11, "book", "signal", fused=1 << 10),
    RingSpec("touch", m.TOUCH, 1 << 12, "book", "risk"),
    RingSpec("fill_feed", m.TICK, 1 << 15, "book", "paper_venue", fused=1 << 12),
    RingSpec("intent", m.INTENT, 1 << 10, "signal", "risk"),
    RingSpec("order", m.ORDER, 1 << 12, "risk", "gateway"),
    RingSpec("to_venue", m.ORDER, 1 << 12, "gateway", "paper_venue"),
    RingSpec("from_venue", m.REPORT, 1 << 13, "paper_venue", "gateway"),
    RingSpec("report", m.REPORT, 1 << 13, "gateway", "risk"),
    RingSpec("feedback", m.REPORT, 1 << 13, "risk", "signal"),
)
RING = {one.name: one for one in RINGS}

STAGES: dict[str, Stage] = {
    one.name: one for one in (market_data.STAGE, book.STAGE, signal.STAGE, risk.STAGE, gateway.STAGE, paper_venue.STAGE)
}
"""Stages in path order; `paper_venue` stands beside the path."""
LIVE_STAGES = {name: one for name, one in STAGES.items() if name != "paper_venue"} | {"live_venue": live_venue.STAGE}
"""The same in mode live."""
EVERY_STAGE = STAGES | LIVE_STAGES


def stages_of(mode: str) -> dict[str, Stage]:
    """Give the stages that run in a mode, in path order."""
    return LIVE_STAGES if mode == "live" else STAGES


def groups_of(mode: str, *, fused: bool) -> list[list[str]]:
    """List the processes of a placement in path order, each by the stages that run in it; the first names it.

    A live venue's connection has no process of its own: an order is on the wire without another one waking up.
    """
    names = list(stages_of(mode))
    if fused:
        return [names]
    groups = [[name] for name in names if name != "live_venue"]
    if mode == "live":
        groups[-1].append("live_venue")
    return groups


WORDS_PER_PAGE = PAGE // 8
CONTROL = Layout(
    "control",
    (
        Region("kill", np.dtype("<i8"), WORDS_PER_PAGE),
        Region("hold", np.dtype("<i8"), WORDS_PER_PAGE),
        Region("symbols", np.dtype("<i8"), 2 * WORDS_PER_PAGE),  # of the instruments, S16: for who looks at a run
        Region("instrument_hold", np.dtype("<i8"), WORDS_PER_PAGE),  # REST process: what holds one instrument alone
        Region("venue", np.dtype("<i8"), WORDS_PER_PAGE),
        Region("resync", np.dtype("<i8"), WORDS_PER_PAGE),  # book: requests for a snapshot, a word an instrument
        Region("live", np.dtype("<i8"), WORDS_PER_PAGE),  # market_data: its connections, words of live/source.py
        Region("streaming", np.dtype("<i8"), WORDS_PER_PAGE),  # market_data: 1 for an instrument that streams
        Region("rest", np.dtype("<i8"), WORDS_PER_PAGE),  # REST process: words of rest.py
        Region("away", np.dtype("<i8"), WORDS_PER_PAGE),  # who speaks to the venue: words of live/away.py
        Region("supervisor", np.dtype("<i8"), WORDS_PER_PAGE),
        *(Region(f"loop.{name}", np.dtype("<i8"), WORDS_PER_PAGE) for name in EVERY_STAGE),
    ),
)
"""The control segment: kill and hold words, what conductor and paper venue tell each other, a page for each stage.

All of it is words of eight bytes, by which `kill` finds its way without a library.
"""

# Words of the `supervisor` region, written by the supervisor only.
GO = 0  # index; 1: stages leave READY and run
STOP = 1  # index; 1: stages end their loops; STOP_JOURNAL: the journal writer too, once its ring is empty
STOP_JOURNAL = 2
HEARTBEAT_NS = 2  # index: CLOCK_MONOTONIC at the supervisor's last look
SUPERVISOR_PID = 3  # index

INSTRUMENTS_MAX = WORDS_PER_PAGE
POOL_COUNT = 1 << 12
"""Order slots: the most orders open at once."""
JOURNAL_BYTES = 1 << 24
RAW_BYTES = 1 << 26
"""Raw frames on their way to the recorder: minutes of a lively market."""
ARRIVALS = {name: f"arrivals.{name}" for name in arrivals.STAGES}
"""Rings to the recorder on which a stage notes in which order it merged its inputs."""
ARRIVALS_COUNT = 1 << 16
"""Seconds of a lively market."""
REST_BYTES = 1 << 22
"""Snapshots on their way to market_data: several of the largest."""
