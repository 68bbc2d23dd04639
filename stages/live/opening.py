"""From a connection to the account's events: logon, the account's limits, subscription.

Sources: Binance WebSocket API, session.logon, account.rateLimits.orders, userDataStream.subscribe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.stages import token_bucket
from shrivenq.stages.live.asking import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.stages.live.asking import Asking
    from shrivenq.stages.live.venue_clock import VenueClock
    from shrivenq.stages.live.venue_state import LiveVenue

KEY_AGAIN_NS = 900 * 10**9
"""Until a key that the venue has refused for certain is tried again: it takes a person to make that better."""
KEY_REFUSED = (-1002, -1022, -2014, -2015)
UNAUTHORIZED = 401


class Opening:
    """The steps of one opening; `logon(name, timestamp_ms)` spells the signed request, `close(reason)` gives up."""

    def __init__(
        self,
        context: LiveVenue,
        clock: VenueClock,
        asking: Asking,
        logon: Callable[[str, int], bytes],
        send: Callable[[bytes], None],
        close: Callable[[str], None],
        log: Any,
    ) -> None:
        self._buckets, self._clock, self._asking, self._log = context.buckets, clock, asking, log
        self._logon, self._send, self._close = logon, send, close
        self.is_refused = False
        """The venue will not have the key, for certain."""

    def log_on(self) -> None:
        """Log on: the venue's time is known."""
        self.is_refused = False
        self._asking.ask_by("logon", -WEIGHTS["session.logon"], self._send_logon, answers=True)

    def _send_logon(self) -> None:
        try:
            request = self._logon("logon", self._clock.now_ns() // 1_000_000)
        except ValueError as error:
            self._close(f"no logon: {error}")
            return
        self._send(request)

    def refused(self, status: int, code: Any, said: str) -> None:
        """Take the refusal of a logon: of a key that is none any more, new orders stay held."""
        self.is_refused = status == UNAUTHORIZED or code in KEY_REFUSED
        if self.is_refused:
            self._log.error(
                "held: the venue refuses the key", text=said, again_in_s=KEY_AGAIN_NS // 10**9,
                fix="look at the key at the venue: is it there, may it trade, from this address? Then restart",
            )  # fmt: skip

    def ask_limits(self) -> None:
        """Ask how many orders the account may place: the first burst is to be within that."""
        self._asking.ask("limits", "account.rateLimits.orders", {})

    def take_limits(self, result: Any) -> None:
        """Take them, and follow the account."""
        try:
            limits = token_bucket.read_limits(result)
        except ValueError as error:
            self._close(f"limits cannot be read: {error}")
            return
        for kind, interval_ns, limit, used in limits:
            token_bucket.report(self._buckets, kind, interval_ns, limit, used, self._clock.now_ns())
        self._asking.ask("follow", "userDataStream.subscribe", {})
