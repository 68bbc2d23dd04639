"""The session's own requests: each is within the venue's limits, or waits until it is.

They are counted like orders, and wait while the venue limits (429) or bans (418) us, in their order, cancels first: who
goes on asking is banned, and who connects anew asks everything again. What the venue could not say is asked again after
a pause that grows.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import orjson

from shrivenq.stages import messages as m
from shrivenq.stages import token_bucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.stages.live.venue_clock import VenueClock
    from shrivenq.stages.live.venue_state import LiveVenue

S_NS = 1_000_000_000
ANSWER_NS = 10 * S_NS
"""Longest wait for an answer to a request of the session itself."""
LOOK_NS = S_NS // 4
"""How often it is seen whether what waits fits by now."""
PAUSE_NS, PAUSE_MAX_NS = S_NS // 10, 3 * S_NS
"""Before what could not be said is asked again, doubled each time up to the second."""

SECONDS_MAX = 10**11
"""Beyond any year that can be spelt with four digits there is nothing to tell."""

WEIGHTS = {
    "time": 1,
    "session.logon": 2,
    "userDataStream.subscribe": 2,
    "openOrders.status": 6,
    "order.status": 4,
    "myTrades": 20,
    "account.status": 20,
    "account.rateLimits.orders": 40,
}
UNSIGNED = ("time", "userDataStream.subscribe")


SHOWN = 300
"""Characters of a message of the venue's that are logged."""


class _Request(NamedTuple):
    name: str
    cost: int
    """What `token_bucket.take` is told."""
    send: Callable[[], None]


def pause_ns(tries: int) -> int:
    """Tell how long to wait before something is asked again for the so-manyth time."""
    return min(PAUSE_MAX_NS, PAUSE_NS << min(tries, 10))


def shown(payload: bytes) -> str:
    """Spell a message of the venue's for the log."""
    return payload[:SHOWN].decode("utf-8", "replace")


def spelt(time_ns: int) -> str:
    """Spell a time for the log."""
    return datetime.fromtimestamp(min(time_ns // S_NS, SECONDS_MAX), UTC).isoformat()


class Asking:
    """`send_text` takes a whole message; `pending` names what is not answered, and when it is overdue."""

    def __init__(self, context: LiveVenue, clock: VenueClock, send_text: Callable[[bytes], None], log: Any) -> None:
        self._buckets, self._clock, self._send_text, self._log = context.buckets, clock, send_text, log
        self._waiting: deque[_Request] = deque()
        self._later: dict[_Request, int] = {}  # and when to ask
        self._sent: dict[str, _Request] = {}
        self._told = False
        self.time_asked_ns = 0
        """When the venue was last asked for its time, CLOCK_MONOTONIC."""
        self.pending: dict[str, int] = {}

    @property
    def is_waiting(self) -> bool:
        """Tell whether anything has yet to be asked."""
        return bool(self._waiting or self._later)

    def clear(self) -> None:
        """Forget everything: no answer will come."""
        self._waiting.clear()
        self._later.clear()
        self._sent.clear()
        self.pending.clear()
        self._told = False

    def ask(self, name: str, method: str, params: dict[str, Any], *, after_ns: int = 0) -> None:
        """Ask, now or as soon as may be; the answer bears the name."""
        if method == "time":
            self._clock.asked()

        def send() -> None:
            if method == "time":
                self.time_asked_ns = self._clock.asked()
            signed = {} if method in UNSIGNED else {"timestamp": self._clock.now_ns() // 1_000_000}
            self._send_text(orjson.dumps({"id": name, "method": method, "params": params | signed}))

        cost = m.CANCEL if method == "order.cancel" else -WEIGHTS[method]
        self.ask_by(name, cost, send, answers=True, after_ns=after_ns)

    def ask_by(
        self, name: str, cost: int, send: Callable[[], None], *, answers: bool = False, after_ns: int = 0
    ) -> None:
        """Ask by `send()`; `answers`: `take` will be told of the answer."""
        request = _Request(name, cost, self._awaited(name, send) if answers else send)
        if answers:
            self._sent[name] = request
        if after_ns:
            self._later[request] = time.monotonic_ns() + after_ns
        elif all(one.name != name for one in self._waiting):
            self._waiting.append(request)
            self.serve()

    def _awaited(self, name: str, send: Callable[[], None]) -> Callable[[], None]:
        def sends() -> None:
            self.pending[name] = time.monotonic_ns() + ANSWER_NS
            send()

        return sends

    def take(self, name: object) -> TypeGuard[str]:
        """Take note of an answer; False if nobody waits for it."""
        if not isinstance(name, str) or name not in self._sent or self.pending.pop(name, None) is None:
            return False
        if self._sent[name].cost == m.CANCEL:
            token_bucket.answered(self._buckets, m.CANCEL, self._clock.now_ns())
        return True

    def again(self, name: str, after_ns: int = 0) -> None:
        """Ask once more what was asked by this name."""
        request = self._sent[name]
        if after_ns:
            self._later[request] = time.monotonic_ns() + after_ns
        else:
            self._waiting.append(request)

    def say_limited(self) -> None:
        """Tell of a 429."""
        until_ns = int(self._buckets.words[token_bucket.THROTTLED_NS])
        self._log.error("the venue takes no requests but cancels", until=spelt(until_ns))

    def say_banned(self) -> None:
        """Tell of a 418."""
        self._log.error(
            "live orders unreachable", until=spelt(int(self._buckets.words[token_bucket.BANNED_NS])),
            reason="the venue has banned this address; open orders stay",
            fix="cancel from another address (shrivenq kill cancel), or on the venue's own pages",
        )  # fmt: skip

    def serve(self) -> None:
        """Ask what may be asked now."""
        now_ns = time.monotonic_ns()
        for request in [one for one, at_ns in self._later.items() if now_ns >= at_ns]:
            del self._later[request]
            self._waiting.append(request)
        while self._waiting:
            request = next((one for one in self._waiting if one.cost == m.CANCEL), self._waiting[0])
            verdict = token_bucket.take(self._buckets, request.cost, self._clock.now_ns())
            if verdict != token_bucket.PASS:
                if not self._told:
                    self._log.warning("requests wait for the venue's limits", first=request.name, verdict=int(verdict))
                self._told = True
                return
            if request.cost < 0:  # its answer says what of the limits is used
                token_bucket.answered(self._buckets, request.cost, self._clock.now_ns())
            self._waiting.remove(request)
            request.send()
        self._told = False

    def wakes(self, now_ns: int) -> list[int]:
        """List when to be served again."""
        return [*self.pending.values(), *self._later.values(), *([now_ns + LOOK_NS] if self._waiting else [])]
