"""A link: one connection's state machine, its transport, and its row of the receiver, moved along together.

`serve` is called when every frame in the index was taken. It looks at what compiled code left to Python and enters what
is a message after all, in its place.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any

from shrivenq.stages.frames import BINARY, COUNT, TEXT
from shrivenq.stages.live import receive as r
from shrivenq.stages.live.connection import CLOSED, UPGRADING, Closed, Connection, Message, Restarting
from shrivenq.stages.live.transport import Resolver, Transport, TransportError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from websockets.uri import WebSocketURI

    from shrivenq.stages.frames import Frames
    from shrivenq.stages.live.transport import Address

SOON_NS = 1_000_000
"""While something is on its way that no compiled code watches, Python looks this often."""
CONNECT_NS = 10_000_000_000
"""Longest wait for a name, a TCP connection and a TLS handshake."""


class Link:
    """One attempt at a connection, from looking up the host's name to the end; `closed` then says why it ended."""

    def __init__(
        self,
        live: r.Receiver,
        row: int,
        uri: WebSocketURI,
        url: str,
        streams: Sequence[str],
        resolver: Resolver,
        context: ssl.SSLContext | None,
        now_ns: int,
        attempt: int,
        read_key: Callable[[], str] | None = None,
    ) -> None:
        self._live, self.row = live, row
        self._record = live.rows[row]
        self._uri, self._url, self._streams = uri, url, streams
        self._context, self._attempt, self._read_key = context, attempt, read_key
        self._began_ns = now_ns
        self._looked_up: Future[list[Address]] | None = resolver.look_up(uri.host, uri.port)
        self._transport: Transport | None = None
        self._waiting: deque[Message] = deque()
        self.connection: Connection | None = None
        self.closed: Closed | None = None
        self.is_restarting = False
        self.is_watched = False
        """Messages go through Python, which looks at each: while connections are switched."""
        self.has_data = False
        """The venue has accepted the connection: messages may have come."""
        self.may_connect = True
        """Being connected may go on, a step of it."""
        begin = self._record["begin"]
        for name in self._record.dtype.names:
            if name not in ("begin", "limit", "frames", "bytes"):
                self._record[name] = 0
        self._record["parsed"] = self._record["filled"] = begin

    @property
    def is_connecting(self) -> bool:
        """Tell whether the transport is still being made."""
        return self.closed is None and self.connection is None

    @property
    def is_open(self) -> bool:
        """Tell whether the venue sends what was asked for."""
        return self.connection is not None and self.connection.state == "open"

    def deadline_ns(self, now_ns: int) -> int:
        """Tell when to be served again although nothing has asked for it; 0 for never."""
        if self.closed is not None:
            return 0
        if self._transport is None or self.connection is None or self._transport.is_sending or self._waiting:
            return now_ns + SOON_NS
        return self.connection.deadline_ns()

    def serve(self, frames: Frames, now_ns: int, time_ns: int) -> None:
        """Go on: connect, look at what has come, answer, and enter messages into `frames`."""
        if self.closed is not None:
            return
        try:
            if self.connection is None and self.may_connect:
                self._connect(now_ns)
            if self.connection is not None:
                self._talk(frames, now_ns, time_ns)
        except TransportError as error:
            if self.connection is not None and self.connection.state == UPGRADING:
                self._take_response(frames, now_ns, is_all=True)  # it may say why
            self._end(Closed(str(error)))

    def _connect(self, now_ns: int) -> None:
        if self._looked_up is not None and self._looked_up.done():
            try:
                found = self._looked_up.result()
            except (OSError, UnicodeError) as error:
                why = getattr(error, "strerror", None) or error
                raise TransportError(f"{self._uri.host}: {why}") from None
            self._looked_up = None
            turned = self._attempt % len(found)
            self._transport = Transport(found[turned:] + found[:turned], self._uri.host, self._context)
        if self._transport is not None and self._transport.advance():
            self._record["descriptor"] = self._transport.descriptor
            self._record["sealed"] = self._transport.sealed.ctypes.data if self._context else 0
            self._record["tls"] = self._transport.tls
            self._record["data_ns"] = now_ns
            self.connection = self._open(now_ns)
        elif now_ns > self._began_ns + CONNECT_NS:
            raise TransportError(f"{self._uri.host} port {self._uri.port}: no connection in {CONNECT_NS // 10**9} s")

    def _open(self, now_ns: int) -> Connection:
        """Begin to talk over the transport that is there now."""
        try:
            api_key = self._read_key() if self._read_key is not None else ""
        except ValueError as error:
            raise TransportError(str(error)) from None
        return Connection(self._url, self._streams, now_ns, api_key)

    def _talk(self, frames: Frames, now_ns: int, time_ns: int) -> None:
        assert self.connection is not None
        assert self._transport is not None
        self._record["mode"] = r.OFF
        while self.connection.state != CLOSED:
            if self._context is not None:
                self._unseal(frames)
            is_stuck = not self._look(frames, now_ns, time_ns)
            if is_stuck or not self._transport or not self._transport.has_more:
                break
        self.connection.tick(now_ns)
        has_more = bool(self._waiting) or (self._transport is not None and self._transport.has_more)
        if self._ended and not has_more:
            self.connection.receive_eof(now_ns, self._ended)
        self._take_events()
        if self._transport is None:
            return
        self._transport.send(self.connection.data_to_send())
        if not self._record["failed"]:
            is_compiled = self._context is None or self._transport.tls != 0
            is_direct = self.has_data and is_compiled and not self.is_watched and not self._waiting
            self._record["mode"] = r.DIRECT if is_direct else r.HELD
        if has_more or self._record["stopped"] == r.FULL:
            self._live.words[r.ATTENTION] = 1

    @property
    def _ended(self) -> str:
        """Say why nothing more comes; empty while something may."""
        code = int(self._record["failed"])
        if code:
            return "closed by the venue" if code < 0 else os.strerror(code)
        return self._transport.ended if self._transport is not None else ""

    def _unseal(self, frames: Frames) -> None:
        """Turn ciphertext into plain bytes in the stripe, as many as fit."""
        assert self._transport is not None
        record = self._record
        begin, parsed, filled = int(record["begin"]), int(record["parsed"]), int(record["filled"])
        if frames.words[COUNT] == 0 and parsed > begin:  # nothing in the index points into the stripe
            frames.data[begin : begin + filled - parsed] = frames.data[parsed:filled].copy()
            parsed, filled = begin, begin + filled - parsed
            record["parsed"], record["filled"] = parsed, filled
        size, record["sealed_filled"] = int(record["sealed_filled"]), 0
        room = memoryview(frames.data)[filled : int(record["limit"])]
        record["filled"] = filled + self._transport.unseal(size, room)

    def _look(self, frames: Frames, now_ns: int, time_ns: int) -> bool:
        """Look at the stripe until bytes are missing; False if it has to wait for room."""
        assert self.connection is not None
        record, connection = self._record, self.connection
        if connection.state == UPGRADING:
            self._take_response(frames, now_ns, is_all=bool(self._ended))
            if connection.state == UPGRADING:
                return True
        if connection.state != CLOSED:
            self.has_data = True
        while self._enter_waiting(frames, now_ns, time_ns) and self.closed is None:
            record["strict"] = connection.strict
            self._parse(frames, time_ns)
            stopped = int(record["stopped"])
            if stopped == r.MORE:
                return True
            if stopped == r.FULL:
                return False
            found = frames.data[int(record["special_begin"]) : int(record["special_stop"])].tobytes()
            record["parsed"] = record["special_stop"]
            if stopped == r.NOTICE:
                connection.receive_notice(found, now_ns)
            else:
                connection.receive_frames(found, now_ns)
            self._take_events()
        return False

    def _take_response(self, frames: Frames, now_ns: int, *, is_all: bool) -> None:
        """Take the answer to the handshake, as far as it has come."""
        assert self.connection is not None
        begin, filled = int(self._record["parsed"]), int(self._record["filled"])
        found = frames.data[begin:filled].tobytes()
        self._record["parsed"] = begin + self.connection.receive_response(found, now_ns, is_all=is_all)
        self._take_events()

    def _parse(self, frames: Frames, time_ns: int) -> None:
        """Let compiled code take the messages of the stripe, up to the first thing that is none."""
        r.parse(self._live, frames, self.row, time_ns)

    def _take_events(self) -> None:
        assert self.connection is not None
        while self.connection.events:
            event = self.connection.events.popleft()
            if isinstance(event, Message):
                self._waiting.append(event)
            elif isinstance(event, Restarting):
                self.is_restarting = True
            else:
                self._end(event)

    def _enter_waiting(self, frames: Frames, now_ns: int, time_ns: int) -> bool:
        """Enter messages that Python has put together; False while there is no room for one."""
        while self._waiting:
            payload, is_binary = self._waiting[0]
            if not r.enter_bytes(self._live, frames, payload, BINARY if is_binary else TEXT, time_ns, now_ns):
                return False
            self._waiting.popleft()
            self._record["data_ns"] = now_ns
            self._record["frames"] += 1
        return True

    def _end(self, closed: Closed) -> None:
        self.closed = self.closed or closed
        self._record["mode"], self._record["descriptor"], self._record["tls"] = r.OFF, -1, 0
        if self._transport is not None:
            if self.connection is not None:
                self._say_goodbye(self._transport, self.connection)
            self._transport.close()
            self._transport = None

    @staticmethod
    def _say_goodbye(transport: Transport, connection: Connection) -> None:
        """Send what the protocol has to say at the end, if it still can be sent."""
        connection.close()
        try:
            transport.send(connection.data_to_send())
        except TransportError:
            return

    def close(self, reason: str) -> None:
        """End the connection from our side."""
        self._end(Closed(reason))

    def data_age_ns(self, now_ns: int) -> int:
        """Tell how long ago the last message came."""
        return now_ns - int(self._record["data_ns"])

    def describe(self) -> dict[str, Any]:
        """Say what came over this row, for the log."""
        return {"frames": int(self._record["frames"]), "bytes": int(self._record["bytes"])}
