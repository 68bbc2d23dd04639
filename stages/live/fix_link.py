"""A FIX connection: Python's half of it, from the signed Logon to the Logout.

Compiled code (`fix_io`) takes what it recognises; every other message that was understood goes to `take`, one after the
other. Bytes that are no message, a message that makes no sense and one that is not the next end the session: the venue
sends nothing again.

Source: Binance FIX API; FIX 4.4, session protocol.
"""

from __future__ import annotations

import re
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shrivenq.stages.live import fix_io
from shrivenq.stages.live.api import ApiLink
from shrivenq.stages.live.connection import ANSWER_NS, CLOSED, OPEN, SUBSCRIBING, Closed, Connection, Message
from shrivenq.stages.live.transport import TransportError
from shrivenq.stages.stage import time_of
from shrivenq.stages.venues import fix

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from shrivenq.stages.frames import Frames
    from shrivenq.stages.live.transport import Resolver
    from shrivenq.stages.live.venue_state import Fix, LiveVenue

SOH = b"\x01"
SHOWN = 300
"""Characters of a message of the venue's that are logged."""
GOODBYE_NS = 2_000_000_000
"""Longest wait for the answer to a Logout."""
_ADDRESS = re.compile(
    r"tcp(?P<tls>\+tls)?://(?:(?P<host>[A-Za-z0-9.-]{1,255})|\[(?P<address>[0-9A-Fa-f:.]{2,45})\]):(?P<port>[0-9]{1,5})",
    re.ASCII,
)
ALLOWED = "tcp+tls://HOST:PORT, or tcp://HOST:PORT without TLS"


class Address(NamedTuple):
    """Where a FIX venue listens."""

    host: str
    port: int
    secure: bool


def read_address(url: str) -> Address:
    """Read `tcp+tls://HOST:PORT` or `tcp://HOST:PORT`. Raises ValueError for anything else."""
    found = _ADDRESS.fullmatch(url)
    if found is None or not 0 < int(found["port"]) < 1 << 16:
        raise ValueError(f'found "{url}", allowed: {ALLOWED}')
    return Address(found["host"] or found["address"], int(found["port"]), found["tls"] is not None)


def fields_of(message: bytes) -> list[tuple[bytes, bytes]]:
    """Take a message that was understood apart: (tag, value), in order."""
    return [(tag, value) for tag, _, value in (part.partition(b"=") for part in message.split(SOH)[:-1])]


def shown(message: bytes) -> str:
    """Spell a message for the log: on one line, and no longer than a line may be."""
    text = message[:SHOWN].replace(SOH, b"|").decode("ascii", "replace")
    return "".join(one if one.isprintable() else "?" for one in text)


class FixConnection(Connection):
    """The state machine of one FIX session: SUBSCRIBING until the venue has answered the Logon, then OPEN.

    It needs the clock that SendingTime is of: silence is counted by it, so no step of the system's may move it.
    """

    def __init__(self, session: fix.Session, logon: bytes, now_ns: int, clock: Callable[[], int]) -> None:
        self._session, self._clock = session, clock
        self._buffer = np.zeros(fix.MESSAGE_MAX, np.uint8)
        self._unsent = [logon]
        self._answer_by_ns = now_ns + ANSWER_NS
        self._leaving = ""
        self.state = SUBSCRIBING
        self.events: deque[Any] = deque()
        session.words[fix.SENT_NS] = session.words[fix.RECEIVED_NS] = clock()

    @property
    def strict(self) -> bool:
        """Tell nothing: every message is looked at by compiled code first."""
        return False

    def data_to_send(self) -> bytes:
        """Take what is to be written to the transport."""
        data, self._unsent = b"".join(self._unsent), []
        return data

    def deadline_ns(self) -> int:
        """Tell when `tick` has something to do, at the latest."""
        if self.state == SUBSCRIBING or self._leaving:
            return self._answer_by_ns
        return time.monotonic_ns() + fix.due_ns(self._session) - self._clock()

    def tick(self, now_ns: int) -> None:
        """Do what is due: a Heartbeat, a TestRequest, giving up."""
        if self.state == CLOSED:
            return
        if self.state == SUBSCRIBING or self._leaving:
            if now_ns >= self._answer_by_ns:
                self._end(self._leaving or f"no answer to the logon in {ANSWER_NS // 10**9} s")
            return
        what = fix.due(self._session, self._clock())
        if what == fix.SEND_HEARTBEAT:
            self.heartbeat(b"")
        elif what == fix.SEND_TEST:
            self._put(fix.encode_test(self._session, self._clock(), self._buffer))
        elif what == fix.GIVE_UP:
            self._end("the venue does not answer a TestRequest")

    # ── what the session has to say ──────────────────────────────────────────────────────────────────────────────

    def _put(self, found: tuple[int, int]) -> None:
        begin, end = found
        self._unsent.append(self._buffer[begin:end].tobytes())

    def heartbeat(self, name: bytes) -> None:
        """Send a Heartbeat; `name` is the TestReqID it answers, if any."""
        data = np.frombuffer(name or b"\0", np.uint8).copy()
        self._put(fix.encode_heartbeat(self._session, self._clock(), data, 0, len(name), self._buffer))

    def ask_limits(self) -> None:
        """Ask what of the venue's limits is used."""
        self._put(fix.encode_limits(self._session, self._clock(), self._buffer))

    def opened(self) -> None:
        """Note that the venue has answered the Logon."""
        self.state = OPEN

    def leave(self, reason: str, now_ns: int) -> None:
        """Log out, and end for this reason once the venue has answered: without it our name stays taken for a while."""
        if self.state == OPEN and not self._leaving:
            self._put(fix.encode_logout(self._session, self._clock(), self._buffer))
            self._leaving, self._answer_by_ns = reason, now_ns + GOODBYE_NS

    @property
    def leaving(self) -> str:
        """Tell why we are logging out; empty if we are not."""
        return self._leaving

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────────────────

    def receive_notice(self, payload: bytes, now_ns: int) -> None:  # noqa: ARG002
        """Hand a message on."""
        self.events.append(Message(payload))

    def receive_frames(self, data: bytes, now_ns: int) -> None:  # noqa: ARG002
        """Take what broke the session."""
        self._end(f"not the session's next message, or none at all: {shown(data)}")

    def receive_eof(self, now_ns: int, reason: str) -> None:  # noqa: ARG002
        """Take the end of the transport."""
        self._end(self._leaving or reason)

    def close(self) -> None:
        """Say goodbye, where there is somebody to say it to."""
        if self.state == OPEN and not self._leaving:
            self._put(fix.encode_logout(self._session, self._clock(), self._buffer))
        self.state = CLOSED

    def _end(self, reason: str) -> None:
        if self.state != CLOSED:
            self.close()
            self.events.append(Closed(reason))


class FixLink(ApiLink):
    """One attempt at a FIX connection. `logon()` spells its first message, once there is a connection to send it on."""

    connection: FixConnection | None  # type: ignore[assignment]

    def __init__(
        self,
        context: LiveVenue,
        loop: Any,
        by: Fix,
        row: int,
        address: Address,
        url: str,
        resolver: Resolver,
        tls: ssl.SSLContext | None,
        now_ns: int,
        attempt: int,
        take: Callable[[bytes, ApiLink], bool],
        logon: Callable[[], bytes],
    ) -> None:
        super().__init__(context, loop, row, address, url, resolver, tls, now_ns, attempt, take)  # type: ignore[arg-type]
        self._by, self._spell_logon = by, logon

    def _open(self, now_ns: int) -> Connection:
        try:
            logon = self._spell_logon()
            return FixConnection(self._by.session, logon, now_ns, lambda: int(time_of(self._loop, 0)))
        except ValueError as error:
            raise TransportError(f"no logon: {error}") from None

    def flush(self) -> None:
        """Send what waits to be sent."""
        if self.connection is not None:
            self.send_bytes(self.connection.data_to_send())

    def _parse(self, frames: Frames, time_ns: int) -> None:  # noqa: ARG002
        fix_io.parse(self._venue, self._loop, self._by, self.row)
