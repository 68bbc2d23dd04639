"""The venue's clock, as we know it: requests bear its time.

It is kept as a distance from the stage's own time, which runs with CLOCK_MONOTONIC: a step of the system's clock moves
no request. Measured before every logon, at every reconciliation, and now and then, since clocks drift apart.

Source: Binance WebSocket API, time; a request is refused (-1021) if its time is a second ahead of the venue's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from shrivenq.stages.live import venue_state as v
from shrivenq.stages.stage import time_of
from shrivenq.stages.venues.binance_events_slow import integer
from shrivenq.stages.venues.binance_slow import Refused

if TYPE_CHECKING:
    from shrivenq.stages.live.venue_state import LiveVenue

S_NS = 1_000_000_000
AGAIN_NS = 600 * S_NS
"""Between two measurements: clocks 50 ppm apart are 30 ms further apart then."""
WRONG_NS = 5 * S_NS
"""A clock of ours that is further off is wrong, and somebody has to set it."""
TIME_MS_MAX = 10**14


class ClockError(Exception):
    """Our clock was wrong when this run began, and has been set since: what reasons with the time has to begin anew."""


class VenueClock:
    """How far the venue's clock is ahead of the stage's."""

    def __init__(self, context: LiveVenue, loop: Any) -> None:
        self._words, self._loop = context.words, loop
        self.due_ns = 0
        """When to measure again, CLOCK_MONOTONIC."""

    def now_ns(self) -> int:
        """Tell the venue's time."""
        return int(time_of(self._loop, 0) + self._words[v.CLOCK_NS])

    @property
    def is_wrong(self) -> bool:
        """Tell whether our clock is not to be traded by."""
        return abs(int(self._words[v.CLOCK_NS])) > WRONG_NS

    def check_ours(self) -> None:
        """Raise ClockError if the system's clock is right: then it is the time that the stages began with that is not.

        That time runs with CLOCK_MONOTONIC, in every process: it is taken from the system's clock at their start alone.
        """
        ahead_ns = self.now_ns() - time.time_ns()
        if abs(ahead_ns) <= WRONG_NS:
            raise ClockError(
                f"our clock was {self.said()['venue_clock_ahead_ms'] / 1e3:.1f} s off and has been set right, to "
                f"{ahead_ns / 1e6:.1f} ms of the venue's: everything begins anew with it"
            )

    def asked(self) -> int:
        """Note that the venue is being asked for its time; return when, CLOCK_MONOTONIC."""
        now_ns = time.monotonic_ns()
        self.due_ns = now_ns + AGAIN_NS
        return now_ns

    def take(self, result: Any, asked_ns: int) -> None:
        """Take the venue's time: it was that half way between question and answer. Raises Refused."""
        if type(result) is not dict:
            raise Refused("time: an object expected")
        server_ms = integer(result, "serverTime", 1)
        if server_ms > TIME_MS_MAX:
            raise Refused(f"serverTime is {server_ms}: milliseconds since 1970 expected")
        half_ns = (time.monotonic_ns() - asked_ns) // 2
        self._words[v.CLOCK_NS] = server_ms * 1_000_000 - (time_of(self._loop, 0) - half_ns)

    def said(self) -> dict[str, float]:
        """Say it, for the log."""
        return {"venue_clock_ahead_ms": round(int(self._words[v.CLOCK_NS]) / 1e6, 1)}
