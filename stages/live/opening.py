"""Opening: from nothing to a connection that follows the account's events.

    connecting ──▶ LOGGING_ON ──▶ FOLLOWING ──▶ READY: orders may go over it, and events come
                   time, session.logon   limits, userDataStream.subscribe

Every connection of the session begins so, the first and those that take over from another one, which goes on meanwhile.

Sources: Binance WebSocket API, session.logon, account.rateLimits.orders, userDataStream.subscribe.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from shrivenq.stages import token_bucket
from shrivenq.stages.live.asking import WEIGHTS, Asking, shown
from shrivenq.stages.venues.binance_slow import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.stages.live.api import ApiLink
    from shrivenq.stages.live.venue_clock import VenueClock
    from shrivenq.stages.live.venue_state import LiveVenue

KEY_AGAIN_NS = 900 * 10**9
"""Until a key that the venue has refused for certain is tried again: it takes a person to make that better."""
KEY_REFUSED = (-1002, -1022, -2014, -2015)
UNAUTHORIZED = 401
LIMITED = (418, 429)

CONNECTING, LOGGING_ON, FOLLOWING, READY = "connecting", "logging on", "following", "ready"


class Opening:
    """One attempt over `link`; `logon(name, timestamp_ms)` spells the signed request."""

    def __init__(
        self,
        context: LiveVenue,
        clock: VenueClock,
        link: ApiLink,
        logon: Callable[[str, int], bytes],
        log: Any,
    ) -> None:
        self._frames, self._buckets, self._clock, self._log = context.frames, context.buckets, clock, log
        self._logon, self.link = logon, link
        self._asking = Asking(context, clock, link.send_text, log)
        self.state = CONNECTING
        self.is_refused = False
        """The venue will not have the key, for certain."""

    def serve(self, now_ns: int) -> None:
        """Go on: connect, take what came, ask what is next."""
        link = self.link
        link.serve(self._frames, now_ns, time.time_ns())
        if link.closed is not None or not link.is_open:
            return
        if self.state == CONNECTING:
            self.state = LOGGING_ON
            self._asking.ask("time", "time", {})
        self._asking.serve()
        overdue = [name for name, due_ns in self._asking.pending.items() if now_ns >= due_ns]
        if overdue:
            link.close(f"no answer in time: {overdue[0]}")

    def wakes(self, now_ns: int) -> list[int]:
        """List when to be served again."""
        deadline = self.link.deadline_ns(now_ns)
        return [*self._asking.wakes(now_ns), *([deadline] if deadline else [])]

    def take(self, message: dict[str, Any], payload: bytes) -> None:
        """Take the answer to a request of the opening's own."""
        name = message.get("id")
        if not self._asking.take(name):
            return
        if message["status"] in LIMITED and name != "logon":
            self._asking.again(name)
        elif message["status"] != 200:
            self._refused(name, message, payload)
        elif name == "time":
            self._take_time(message.get("result"))
        elif name == "logon":
            self.state = FOLLOWING
            self._asking.ask("limits", "account.rateLimits.orders", {})  # the first burst is to be within that
        elif name == "limits":
            self._take_limits(message.get("result"))
        else:
            self.state = READY

    def _refused(self, name: str, message: dict[str, Any], payload: bytes) -> None:
        """Give up; of a key that is none any more, new orders stay held."""
        error = message.get("error")
        code = error.get("code") if type(error) is dict else None
        self.is_refused = name == "logon" and (message["status"] == UNAUTHORIZED or code in KEY_REFUSED)
        if self.is_refused:
            self._log.error(
                "held: the venue refuses the key", text=shown(payload), again_in_s=KEY_AGAIN_NS // 10**9,
                fix="look at the key at the venue: is it there, may it trade, from this address? Then restart",
            )  # fmt: skip
        self.link.close(f"{name} refused: {shown(payload)}")

    def _take_time(self, result: Any) -> None:
        """Take the venue's time, and log on by it."""
        try:
            self._clock.take(result, self._asking.time_asked_ns)
        except Refused as refused:
            self.link.close(f"time cannot be read: {refused}")
            return
        self._asking.ask_by("logon", -WEIGHTS["session.logon"], self._send_logon, answers=True)

    def _send_logon(self) -> None:
        try:
            request = self._logon("logon", self._clock.now_ns() // 1_000_000)
        except ValueError as error:
            self.link.close(f"no logon: {error}")
            return
        self.link.send_text(request)

    def _take_limits(self, result: Any) -> None:
        """Take how many orders the account may place, and follow the account."""
        try:
            limits = token_bucket.read_limits(result)
        except ValueError as error:
            self.link.close(f"limits cannot be read: {error}")
            return
        for kind, interval_ns, limit, used in limits:
            token_bucket.report(self._buckets, kind, interval_ns, limit, used, self._clock.now_ns())
        self._asking.ask("follow", "userDataStream.subscribe", {})
