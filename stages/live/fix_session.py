"""The FIX session that orders go out on: Python's edge of it, between turns.

    (none) ──connect──▶ LOGGING_ON ──Logon──▶ ASKING ──limits──▶ UP ──old, News──▶ LEAVING
       ▲                    │                   │                │                    │
       └── close, error, silence, a gap, Logout ┴────────────────┴────────────────────┘

It carries orders and what is said of them, nothing else: whose account it is, what happened while there was no session
and what became of an order that was on its way is asked by the WebSocket API (`session`), which is told when this
session comes and goes. Every session has a name of its own: one that did not log out keeps its name for a while.
"""

from __future__ import annotations

import hashlib
import select
import time
from base64 import b32encode
from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.stages import token_bucket
from shrivenq.stages.live import away, fix_io, fix_link, venue_io
from shrivenq.stages.live import receive as r
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.opening import KEY_AGAIN_NS, KEY_REFUSED
from shrivenq.stages.live.pace import Pace
from shrivenq.stages.live.transport import TransportError, make_tls_context
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues import fix

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Callable

    from shrivenq.stages.live.api import ApiLink
    from shrivenq.stages.live.transport import Resolver

S_NS = 1_000_000_000
ANSWER_NS = 10 * S_NS
"""Longest wait for the venue's limits."""
LIMITS_NS = 60 * S_NS
"""How often they are asked for: what is sent here is counted by us alone in between."""
HELD_NS = 60 * S_NS
"""A session that lasted this long starts the back-off anew."""
ATTEMPTS_MAX, WINDOW_NS = 8, 30 * S_NS
"""The venue takes 15 connects in this time; a second process may share the account."""

DOWN, LOGGING_ON, ASKING, UP, LEAVING = "down", "logging on", "asking for limits", "up", "leaving"

LIMIT_KINDS = {b"1": a.ORDERS, b"2": a.RAW}
RESOLUTIONS_NS = {b"s": S_NS, b"m": 60 * S_NS, b"h": 3_600 * S_NS, b"d": 86_400 * S_NS}
TEXT, TYPE, REFERENCE, ERROR_CODE = b"58", b"35", b"45", b"25016"
KEY_CODES = tuple(b"%d" % code for code in KEY_REFUSED)
REFUSALS = (b"3", b"8", b"9", b"XAR", b"r")


def make_name(run: bytes, epoch: int, attempt: int) -> str:
    """Derive a SenderCompID that no other session of ours has or had."""
    digest = hashlib.sha256(b"%s %d %d" % (run, epoch, attempt)).digest()
    return b32encode(digest)[: v.FIX_NAME_LENGTH].decode().lower()


def read_limits(message: bytes) -> list[tuple[int, int, int, int]]:
    """Read a LimitResponse: (kind, interval in ns, limit, used) of each. Raises ValueError for one that is none."""
    found: list[dict[bytes, bytes]] = []
    for tag, value in fix_link.fields_of(message):
        if tag == b"25004":
            found.append({})
        if found:
            found[-1][tag] = value
    limits = []
    for one in found:
        kind, resolution = LIMIT_KINDS.get(one[b"25004"]), RESOLUTIONS_NS.get(one.get(b"25008", b""))
        numbers = [one.get(tag, b"") for tag in (b"25005", b"25006", b"25007")]
        if kind is None or resolution is None or not all(text.isdigit() and len(text) < 10 for text in numbers):
            raise ValueError(f"a limit that cannot be read: {fix_link.shown(message)}")
        used, limit, count = map(int, numbers)
        limits.append((kind, resolution * count, limit, used))
    return limits


class Endpoint:
    """The venue's, and what the sessions with it share: the pace of attempts, and names that none of them had before.

    `logon(sender, sending_time, heartbeat_s)` spells the signed first message. Raises ValueError for an address that
    is none.
    """

    def __init__(
        self,
        config: v.Config,
        run: bytes,
        epoch: int,
        logon: Callable[[str, str, int], bytes],
        resolver: Resolver,
        generator: random.Random,
    ) -> None:
        try:
            self.address = fix_link.read_address(config.fix_url)
            self.tls: ssl.SSLContext | None = make_tls_context(config.authority) if self.address.secure else None
        except (ValueError, TransportError) as error:
            raise ValueError(f"live_venue.fix_url: {error}") from None
        self.url, self.logon, self.resolver = config.fix_url, logon, resolver
        self.pace = Pace(generator, ATTEMPTS_MAX, WINDOW_NS)
        self._run, self._epoch, self._names = run, epoch, 0

    def next_name(self) -> str:
        """Make a name for another session."""
        self._names += 1
        return make_name(self._run, self._epoch, self._names)


class FixSession:
    """Keeps one FIX session, in a row of the receiver, with the state that compiled code shares.

    `changed(session)` is called when it comes up and when it is lost: what that means its owner knows.
    """

    def __init__(
        self,
        config: v.Config,
        context: v.LiveVenue,
        loop: Any,
        by: v.Fix,
        row: int,
        endpoint: Endpoint,
        generator: random.Random,
        changed: Callable[[FixSession], None],
        log: Any,
    ) -> None:
        self._config, self._context, self._loop, self._log = config, context, loop, log
        self._fix, self._row, self._endpoint = by, row, endpoint
        self._changed, self._random = changed, generator
        self._link: fix_link.FixLink | None = None
        self._attempts = self._failures = 0
        self._is_closing = False  # the venue has said that it is about to
        self._try_ns = self._opened_ns = self.roll_ns = 0
        self._asked_ns = self._answered_ns = 0  # limits, CLOCK_MONOTONIC
        self._query = 0  # number of the last LimitQuery
        self._is_refused = False  # the key was, for certain
        self.state = DOWN
        self._load()

    def _load(self) -> None:
        """Load the machine code now, and not when the first message comes."""
        session, buffer = self._fix.session, self._fix.outbox
        fix_io.parse(self._context, self._loop, self._fix, self._row)
        fix.encode_heartbeat(session, 0, buffer, 0, 0, buffer)
        fix.encode_test(session, 0, buffer)
        fix.encode_limits(session, 0, buffer)
        fix.encode_logout(session, 0, buffer)
        fix.put_time(buffer, 0, 0)
        fix.due(session, 0)
        token_bucket.report(self._fix.buckets, a.CONNECTIONS, 1, 0, 0, 0)
        token_bucket.take(self._fix.buckets, 0, 0)
        token_bucket.answered(self._fix.buckets, 0, 0)

    @property
    def is_up(self) -> bool:
        """Tell whether orders may go."""
        return self.state == UP

    @property
    def is_there(self) -> bool:
        """Tell whether there is a connection, or one is being made."""
        return self._link is not None

    @property
    def is_sending(self) -> bool:
        """Tell whether a message is half sent."""
        return bool(self._fix.words[v.OUT_END]) or (self._link is not None and self._link.is_sending)

    def is_old(self, now_ns: int) -> bool:
        """Tell whether another session should take over: by age, or since the venue is about to close this one."""
        return self.state == UP and (now_ns >= self.roll_ns or self._is_closing)

    # ── between turns ────────────────────────────────────────────────────────────────────────────────────────────

    def serve(self, now_ns: int) -> None:
        """Look after the connection."""
        if self._link is None:
            away_ns = int(away.until_ns(self._context.away)) - time.time_ns()
            if away_ns > 0:
                self._try_ns = max(self._try_ns, now_ns + away_ns + S_NS)
            if now_ns < self._try_ns:
                return
            self._connect(now_ns)
        link, words = self._link, self._fix.words
        assert link is not None
        if words[v.OUT_END]:
            link.send_bytes(self._fix.outbox[words[v.OUT_BEGIN] : words[v.OUT_END]].tobytes())
            words[v.OUT_BEGIN] = words[v.OUT_END] = 0
        words[v.SENDS] = 0
        link.serve(self._context.frames, now_ns, time.time_ns())
        if link.closed is None:
            self._watch(link, now_ns)
            link.flush()  # numbered already: nothing may overtake it
        if link.closed is not None:
            self._lost(link, now_ns)
            return
        words[v.SENDS] = self._context.live.rows[self._row]["mode"] == r.DIRECT and not link.is_sending

    def wake_ns(self, now_ns: int) -> int:
        """Tell when to be served again although nothing has asked for it."""
        if self._link is None:
            return self._try_ns
        wakes = [self._link.deadline_ns(now_ns) or now_ns + S_NS]
        if self.state == ASKING or self._asked_ns > self._answered_ns:
            wakes.append(self._asked_ns + ANSWER_NS)
        elif self.state == UP:
            wakes.append(self._answered_ns + LIMITS_NS)
        return min(wakes)

    def _watch(self, link: fix_link.FixLink, now_ns: int) -> None:
        """Ask for limits, end what is old."""
        if self.state not in (ASKING, UP):
            return
        if self._asked_ns > self._answered_ns:
            if now_ns >= self._asked_ns + ANSWER_NS:
                link.close("no answer in time: limits")
        elif now_ns >= self._answered_ns + LIMITS_NS:
            self._ask_limits(now_ns)

    def close(self) -> None:
        """Log out, and wait a moment for the venue to have heard it."""
        self.leave("stopped", time.monotonic_ns())
        if self._link is not None:
            self._link.flush()
        row = self._context.live.rows[self._row]
        while self._link is not None and self._link.closed is None and self.state == LEAVING:
            select.select([int(row["descriptor"])], [], [], 0.01)
            if row["mode"] != r.OFF:
                r.receive(self._context.live, self._context.frames, self._row)
            self._link.serve(self._context.frames, time.monotonic_ns(), time.time_ns())
        if self._link is not None:
            self._link.close("stopped")

    # ── connecting ───────────────────────────────────────────────────────────────────────────────────────────────

    def _connect(self, now_ns: int) -> None:
        at = self._endpoint
        at.pace.attempt(now_ns)
        self._attempts += 1
        self._is_closing = False
        self._opened_ns = self._asked_ns = self._answered_ns = 0
        self.state = LOGGING_ON
        self._link = fix_link.FixLink(
            self._context, self._loop, self._fix, self._row, at.address, at.url, at.resolver, at.tls, now_ns,
            self._attempts, self._take, self._spell_logon,
        )  # fmt: skip

    def _spell_logon(self) -> bytes:
        """Begin a session under a name of its own."""
        name = self._endpoint.next_name()
        fix.begin(self._fix.session, name)
        text = np.zeros(32, np.uint8)
        now_ns = venue_io.venue_time(self._context, self._loop)
        sending_time = text[: fix.put_time(text, 0, now_ns)].tobytes().decode()
        return self._endpoint.logon(name, sending_time, v.HEARTBEAT_S)

    def _lost(self, link: fix_link.FixLink, now_ns: int) -> None:
        """Let a connection that has ended go: what was on its way is unknown from here on."""
        assert link.closed is not None
        words = self._fix.words
        words[v.READY] = words[v.SENDS] = words[v.OUT_BEGIN] = words[v.OUT_END] = 0
        # Renewed in order or held for long: at once, or nearly.
        held = self.state == LEAVING or (bool(self._opened_ns) and now_ns - self._opened_ns > HELD_NS)
        self._try_ns = self._endpoint.pace.next_ns(now_ns, 0 if held else self._failures)
        self._failures = 1 if held else self._failures + 1
        if self._is_refused:
            self._try_ns = max(self._try_ns, now_ns + KEY_AGAIN_NS)
        self._is_refused = False
        self._log.warning(
            "fix disconnected", reason=link.closed.reason, state=self.state,
            again_in_ms=(self._try_ns - now_ns) // 1_000_000,
        )  # fmt: skip
        self._link, self.state = None, DOWN
        self._changed(self)

    def leave(self, reason: str, now_ns: int) -> None:
        """Log out; what is on its way is answered before that is."""
        link = self._link
        if self.state not in (ASKING, UP) or link is None or link.connection is None:
            return
        self._fix.words[v.READY] = 0
        self.state = LEAVING
        link.connection.leave(reason, now_ns)

    def _ask_limits(self, now_ns: int) -> None:
        assert self._link is not None
        assert self._link.connection is not None
        sent_ns = venue_io.venue_time(self._context, self._loop)
        token_bucket.take(self._fix.buckets, 0, sent_ns)
        token_bucket.answered(self._fix.buckets, 0, sent_ns)
        self._asked_ns, self._query = now_ns, int(self._fix.session.words[fix.NEXT_OUT])
        self._link.connection.ask_limits()

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, message: bytes, _: ApiLink) -> bool:
        """Take a message that compiled code understood and left."""
        link = self._link
        assert link is not None
        assert link.connection is not None
        fields = dict(fix_link.fields_of(message))
        kind, said = fields[TYPE], fix_link.shown(fields.get(TEXT, b""))
        if self.state == LOGGING_ON and kind != b"A":
            self._refuse_logon(fields, fix_link.shown(message))
        elif kind == b"A":
            self._on_logon(message)
        elif kind == b"XLR":
            self._on_limits(message)
        elif kind == b"1":
            self._on_test(fields.get(b"112", b""))
        elif kind == b"5":
            link.close(link.connection.leaving or f"the venue has logged the session off: {said}")
        elif kind == b"B":
            self._is_closing = True
        elif kind == b"3" and fields.get(REFERENCE, b"") == b"%d" % self._query:
            link.close(f"limits refused: {fix_link.shown(message)}")
        else:
            event = "venue refuses" if kind in REFUSALS else "fix message passed over"
            self._log.warning(event, text=fix_link.shown(message))
        return True

    def _refuse_logon(self, fields: dict[bytes, bytes], said: str) -> None:
        """Give up a logon; a key that the venue will not have is tried again rarely."""
        assert self._link is not None
        self._is_refused = fields.get(ERROR_CODE, b"") in KEY_CODES
        if self._is_refused:
            self._log.error(
                "held: the venue refuses the key for FIX", text=said, again_in_s=KEY_AGAIN_NS // S_NS,
                fix="look at the key at the venue: is it there, may it use FIX, from this address? Then restart",
            )  # fmt: skip
        self._link.close(f"logon refused: {said}")

    def _on_logon(self, message: bytes) -> None:
        assert self._link is not None
        assert self._link.connection is not None
        if self.state != LOGGING_ON:
            self._link.close(f"a second Logon: {fix_link.shown(message)}")
            return
        now_ns = time.monotonic_ns()
        roll_ns = int(self._config.roll_h * 3600 * S_NS)
        self.roll_ns = now_ns + roll_ns - self._random.randint(0, roll_ns // 50)
        self._opened_ns, self.state = now_ns, ASKING
        self._link.connection.opened()
        self._ask_limits(now_ns)

    def _on_test(self, name: bytes) -> None:
        assert self._link is not None
        assert self._link.connection is not None
        if len(name) > fix.TEXT_MAX:
            self._link.close(f"a TestRequest of {len(name)} bytes")
            return
        self._link.connection.heartbeat(name)

    def _on_limits(self, message: bytes) -> None:
        """Take the venue's limits; the first time, orders may go from here on."""
        assert self._link is not None
        try:
            limits = read_limits(message)
        except ValueError as error:
            self._link.close(str(error))
            return
        heard_ns = venue_io.venue_time(self._context, self._loop)
        for kind, interval_ns, limit, used in limits:
            token_bucket.report(self._fix.buckets, kind, interval_ns, limit, used, heard_ns)
        self._answered_ns = max(time.monotonic_ns(), self._asked_ns)
        if self.state != ASKING:
            return
        self.state, self._failures = UP, 0
        self._fix.words[v.READY] = 1
        self._log.info("fix session up", url=self._config.fix_url)
        self._changed(self)
