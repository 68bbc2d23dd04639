"""Renewal: the connection in use, the one that will take over from it, and the one before.

    opening ──READY──▶ link ──another takes over──▶ old ──nothing awaited, or 10 s──▶ ended

Before the venue cuts the connection, or when it says that it will, another is opened beside it. Once that one follows
the account's events too, and no request of the session itself is on its way, requests go by it from one moment to the
next, and nothing is held. The one before is kept until what is on its way there has been answered, for a while at most:
what has not by then is asked for by the gateway. Meanwhile each event is told twice, and counts once. Where nothing is
left to take over from, and where the connection in use ends by itself, a comparison follows.

Connecting is done in steps: the longest step of a TLS handshake takes a millisecond or two, in which no order goes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from shrivenq.stages import control, token_bucket
from shrivenq.stages.live import away
from shrivenq.stages.live import receive as r
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.api import ApiLink
from shrivenq.stages.live.asking import LOOK_NS, S_NS
from shrivenq.stages.live.opening import KEY_AGAIN_NS, READY, Opening
from shrivenq.stages.live.pace import Pace
from shrivenq.stages.live.transport import TransportError, make_tls_context

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Callable

    from shrivenq.stages.live.transport import Resolver
    from shrivenq.stages.live.venue_clock import VenueClock

SILENT_NS = 65 * S_NS
"""A connection without a byte for this long is dead: the venue pings every 20 s."""
CLOCKS_NS = S_NS
"""Longer than a ban says: its end is told in milliseconds of the venue's clock, and who is early is sent away."""
HELD_NS = 60 * S_NS
"""A connection that lasted this long starts the back-off anew."""
DRAIN_NS, DRAIN_MIN_NS = 10 * S_NS, S_NS
"""How long a connection that another has taken over from is kept: while an answer is on its way, and at least."""


class Owner(Protocol):
    """Whose connections they are."""

    def take(self, payload: bytes, link: ApiLink) -> bool:
        """Take a message that compiled code left; False if it has to wait."""

    def watch(self, link: ApiLink, now_ns: int) -> None:
        """Do what is due over the connection in use."""

    def is_idle(self) -> bool:
        """Tell whether no request of the owner itself is on its way."""

    def is_awaiting(self) -> bool:
        """Tell whether the answer to any order is."""

    def began(self) -> None:
        """Take note of a connection that took over from none."""

    def lost(self) -> str:
        """Take note that the connection in use has ended; say what that was in the middle of."""


class Connections:
    """The connections of `owner`; `logon(name, timestamp_ms)` spells the signed request of each.

    Raises ValueError for an address that is none.
    """

    def __init__(
        self,
        config: v.Config,
        context: v.LiveVenue,
        loop: Any,
        clock: VenueClock,
        logon: Callable[[str, int], bytes],
        owner: Owner,
        resolver: Resolver,
        generator: random.Random,
        log: Any,
    ) -> None:
        self._config, self._context, self._loop, self._clock = config, context, loop, clock
        self._logon, self._owner, self._log = logon, owner, log
        try:
            self._uri = parse_uri(config.url)
            self._tls: ssl.SSLContext | None = make_tls_context(config.authority) if self._uri.secure else None
        except (InvalidURI, TransportError) as error:
            raise ValueError(f"live_venue.url: {error}") from None
        self._random, self._resolver, self._pace = generator, resolver, Pace(generator)
        self.link: ApiLink | None = None
        """The one that requests go by."""
        self.opening: Opening | None = None
        self.old: ApiLink | None = None
        self.attempts = self.failures = 0
        self.try_ns = self.roll_ns = 0
        self._opened_ns = 0
        self._bytes = self._bytes_ns = 0

    # ── between turns ────────────────────────────────────────────────────────────────────────────────────────────

    def serve(self, now_ns: int) -> None:
        """Look after all of them."""
        if self.opening is None and now_ns >= self.try_ns and self._wants_another(now_ns):
            self._open(now_ns)
        if self.link is not None:
            self._serve(self.link, now_ns)
        if self.opening is not None:
            self._serve_opening(self.opening, now_ns)
        if self.old is not None:
            self._drain(self.old, now_ns)

    def wakes(self, now_ns: int) -> list[int]:
        """List when to be served again."""
        link, opening = self.link, self.opening
        wakes = opening.wakes(now_ns) if opening is not None else []
        if link is None:
            return wakes if opening is not None else [self.try_ns]
        wakes += [self._bytes_ns + SILENT_NS + 1, link.deadline_ns(now_ns) or now_ns + S_NS]
        if self.old is not None:
            wakes += [now_ns + LOOK_NS]
        elif opening is None:
            wakes += [max(0 if link.is_restarting else self.roll_ns, self.try_ns)]
        return wakes

    def stay_away(self, until_ns: int) -> None:
        """Connect no earlier than this, CLOCK_MONOTONIC."""
        self.try_ns = max(self.try_ns, until_ns + CLOCKS_NS)

    def close(self, reason: str) -> None:
        """End all of them."""
        for link in (self.link, self.old, self.opening.link if self.opening is not None else None):
            if link is not None:
                link.close(reason)

    # ── the one in use ───────────────────────────────────────────────────────────────────────────────────────────

    def _serve(self, link: ApiLink, now_ns: int) -> None:
        words, row = self._context.words, self._context.live.rows[link.row]
        if words[v.OUT_END]:
            link.send_bytes(self._context.outbox[words[v.OUT_BEGIN] : words[v.OUT_END]].tobytes())
            words[v.OUT_BEGIN] = words[v.OUT_END] = 0
        words[v.SENDS] = 0
        link.serve(self._context.frames, now_ns, time.time_ns())
        if row["bytes"] != self._bytes:
            self._bytes, self._bytes_ns = int(row["bytes"]), now_ns
        if link.closed is None:
            self._owner.watch(link, now_ns)
        if link.closed is None and now_ns - self._bytes_ns > SILENT_NS:
            link.close(f"nothing received for {SILENT_NS // S_NS} s")
        if link.closed is not None:
            self._lost(link, now_ns)
            return
        words[v.SENDS] = row["mode"] == r.DIRECT and not link.is_sending

    def _lost(self, link: ApiLink, now_ns: int) -> None:
        """Let the connection in use go, which has ended: what was on its way has no answer from here on."""
        words = self._context.words
        words[v.READY] = words[v.SENDS] = words[v.OUT_BEGIN] = words[v.OUT_END] = 0
        control.hold(self._context.hold, control.RECONCILING)
        token_bucket.reconnected(self._context.buckets)
        if self.old is not None:
            self.old.close("the connection after it has ended")
        self.link = self.old = None
        self._back_off(link, now_ns, held=now_ns - self._opened_ns > HELD_NS)
        self._say_closed("venue disconnected", link, self._owner.lost(), now_ns)

    # ── the next one ─────────────────────────────────────────────────────────────────────────────────────────────

    def _wants_another(self, now_ns: int) -> bool:
        """Tell whether a connection is to be opened: the first, or one that takes over from what is there."""
        if self.link is None:
            return True
        return self.old is None and (now_ns >= self.roll_ns or self.link.is_restarting)

    def _open(self, now_ns: int) -> None:
        if self.link is None:
            control.hold(self._context.hold, control.RECONCILING)
        self._pace.attempt(now_ns)
        self.attempts += 1
        row = 0 if self.link is None else 1 - self.link.row
        link = ApiLink(
            self._context, self._loop, row, self._uri, self._config.url, self._resolver, self._tls, now_ns,
            self.attempts, self._owner.take,
        )  # fmt: skip
        self.opening = Opening(self._context, self._clock, link, self._logon, self._log)

    def _serve_opening(self, opening: Opening, now_ns: int) -> None:
        opening.serve(now_ns)
        if opening.link.closed is not None:
            self.opening = None
            self._back_off(opening.link, now_ns, held=False, is_refused=opening.is_refused)
            event = "venue disconnected" if self.link is None else "no connection to take over"
            self._say_closed(event, opening.link, opening.state, now_ns)
        elif opening.state == READY and self.may_take_over():
            self._take_over(opening.link, now_ns)

    def may_take_over(self) -> bool:
        """Tell whether nothing is half sent, and nothing but orders on its way."""
        link = self.link
        if link is None:
            return True
        return self._owner.is_idle() and not self._context.words[v.OUT_END] and not link.is_sending

    def _take_over(self, link: ApiLink, now_ns: int) -> None:
        """Let requests go by a new connection."""
        words, row = self._context.words, self._context.live.rows[link.row]
        self.link, self.old, self.opening = link, self.link, None
        words[v.ROW], words[v.READY] = link.row, 1
        words[v.SENDS] = row["mode"] == r.DIRECT and not link.is_sending
        self._opened_ns, self._bytes, self._bytes_ns = now_ns, int(row["bytes"]), now_ns
        roll_ns = int(self._config.roll_h * 3600 * S_NS)
        self.roll_ns = now_ns + roll_ns - self._random.randint(0, roll_ns // 50)
        if self.old is None:
            self._owner.began()
            return
        self.failures = 0
        self._log.info("another connection has taken over", url=self._config.url)

    def _back_off(self, link: ApiLink, now_ns: int, *, held: bool, is_refused: bool = False) -> None:
        """Work out when to connect again."""
        assert link.closed is not None
        self.try_ns = self._pace.next_ns(now_ns, 0 if held else self.failures)
        self.failures = 1 if held else self.failures + 1
        buckets = self._context.buckets.words
        until_ns = int(max(buckets[token_bucket.BANNED_NS], buckets[token_bucket.THROTTLED_NS]))
        limited_ns = until_ns + CLOCKS_NS - self._clock.now_ns()
        refused_ns = KEY_AGAIN_NS if is_refused else 0
        if link.closed.retry_after_s:
            word = away.BANNED_NS if link.closed.is_ban else away.LIMITED_NS
            away.tell(self._context.away, word, time.time_ns() + link.closed.retry_after_s * S_NS)
        self.try_ns = max(self.try_ns, now_ns + max(limited_ns, refused_ns, link.closed.retry_after_s * S_NS))

    def _say_closed(self, event: str, link: ApiLink, state: str, now_ns: int) -> None:
        assert link.closed is not None
        again_ms = (self.try_ns - now_ns) // 1_000_000
        self._log.warning(event, reason=link.closed.reason, state=state, again_in_ms=again_ms)

    # ── the one before ───────────────────────────────────────────────────────────────────────────────────────────

    def _drain(self, old: ApiLink, now_ns: int) -> None:
        """Take what still comes over it, and end it once no answer is on its way."""
        old.serve(self._context.frames, now_ns, time.time_ns())
        open_ns = now_ns - self._opened_ns
        if old.closed is None and (open_ns >= DRAIN_NS or (open_ns >= DRAIN_MIN_NS and not self._owner.is_awaiting())):
            old.close("another has taken over")
        if old.closed is not None:
            self.old = None
            self._log.info("the connection before has ended", reason=old.closed.reason)
