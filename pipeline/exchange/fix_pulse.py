"""FIX pulse: what silence asks for.

Nothing sent for an interval: a Heartbeat. Nothing received: a TestRequest, and without its Heartbeat within another
interval the peer is gone. Source: FIX 4.4, session protocol; section 15 of the protocol sheet.
"""

from __future__ import annotations

from typing import Literal

Need = Literal["nothing", "heartbeat", "test", "end"]


class Pulse:
    """The silence of one session; times are seconds of any clock that never goes back."""

    def __init__(self, interval_s: float, now: float) -> None:
        self.interval_s = interval_s
        self.sent = now
        self.heard = now
        self._asked: float | None = None
        self._asks = 0

    def ask(self, now: float) -> str:
        """Name a TestRequest that is sent now."""
        self._asked = now
        self._asks += 1
        return str(self._asks)

    def answered(self, name: str | None) -> None:
        """Take a Heartbeat; one that answers a TestRequest names it."""
        if name == str(self._asks):
            self._asked = None

    def need(self, now: float) -> Need:
        """Tell what must be done now."""
        if self._asked is not None:
            if now >= self._asked + self.interval_s:
                return "end"
        elif now >= self.heard + self.interval_s:
            return "test"
        return "heartbeat" if now >= self.sent + self.interval_s else "nothing"

    def due(self) -> float:
        """Tell when to look again at the latest."""
        return min(self.sent, self.heard if self._asked is None else self._asked) + self.interval_s
