"""Sockets: WebSocket connections of the venue, over uvicorn's `websockets` protocol.

What uvicorn does stays: handshake, pings and pongs, close. Added is what a venue needs: a frame encoded once and sent
to many, frames of one turn in one write, a limit on incoming messages of every kind, a word when a slow reader has
caught up, and an end for who reads too slowly, so that nobody else waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode

TOO_MANY = 1008
RESERVED = 0x3
"""An opcode that means nothing."""
CLOSE_S = 2.0
"""How long a client may take to answer a close."""


def encode(payload: bytes, *, text: bool = True) -> bytes:
    """Encode a message as the one frame a server sends."""
    return Frame(Opcode.TEXT if text else Opcode.BINARY, payload).serialize(mask=False)


class VenueSocket(WebSocketsSansIOProtocol):
    """One connection. An ASGI application finds it as `scope["state"]["socket"]`."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, {**app_state, "socket": self}, _loop)
        self.backlog_bytes: int = app_state.get("backlog_bytes", 1 << 22)
        """Unsent bytes at which the client has read too slowly."""
        self.messages_s = 0
        """Incoming messages a second, pings and pongs too; 0 for any number."""
        self.close_timeout = CLOSE_S
        self._pending: list[bytes] = []
        self._caught_up: Callable[[], None] | None = None
        self._second = 0
        self._count = 0

    @property
    def is_open(self) -> bool:
        """Tell whether anything can still be sent."""
        return self.handshake_complete and not self.close_sent and not self.transport.is_closing()

    @property
    def is_behind(self) -> bool:
        """Tell whether something that was written for the client still waits here."""
        return not self.writable.is_set()

    def watch_backlog(self, caught_up: Callable[[], None]) -> None:
        """Have `is_behind` say so from the first byte on that waits, and call `caught_up` when none does any more."""
        # 1, not 0: TLS would take an empty buffer for a full one.
        self.transport.set_write_buffer_limits(high=1, low=0)
        self._caught_up = caught_up

    def resume_writing(self) -> None:
        """Go on: the client has read what waited."""
        super().resume_writing()
        if self._caught_up is not None:
            self._caught_up()

    def send_message(self, payload: bytes, *, text: bool = True) -> None:
        """Send one message, at the end of this turn of the loop."""
        self.send_frame(encode(payload, text=text))

    def send_unknown(self, payload: bytes) -> None:
        """Send one message in a frame whose opcode is reserved."""
        frame = encode(payload)
        self.send_frame(bytes([frame[0] & ~Opcode.TEXT | RESERVED]) + frame[1:])

    def send_frame(self, frame: bytes) -> None:
        """Send a frame that was encoded already; what was garbled on purpose passes too."""
        if not self._pending:
            self.loop.call_soon(self.flush)
        self._pending.append(frame)

    def flush(self) -> None:
        """Write what is pending; end the connection if the client does not keep up."""
        pending, self._pending = self._pending, []
        if not pending or not self.is_open:
            return
        self.transport.write(b"".join(pending))
        if self.transport.get_write_buffer_size() > self.backlog_bytes:
            self.transport.abort()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close after what was sent so far; what is sent from now on goes nowhere."""
        self.flush()
        if not self.is_open:
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        # A client that does not answer a close is not waited for.
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    def shutdown(self) -> None:
        """Close because the server stops, after what was sent so far."""
        self.flush()
        super().shutdown()

    def abort(self) -> None:
        """End the connection without a word."""
        self._pending.clear()
        self.transport.abort()

    def handle_ping(self) -> None:
        """Count a ping, then answer it."""
        super().handle_ping()
        self._count_message()

    def handle_pong(self, event: Frame) -> None:
        """Count a pong, then take it."""
        super().handle_pong(event)
        self._count_message()

    def send_receive_event_to_app(self) -> None:
        """Count a message, then hand it on."""
        super().send_receive_event_to_app()
        self._count_message()

    def _count_message(self) -> None:
        second = int(self.loop.time())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        if self.messages_s and self._count > self.messages_s:
            self.close(TOO_MANY, "Too many requests")


class VenueHttp(H11Protocol):
    """One HTTP connection. An ASGI application finds it as `scope["state"]["http"]`."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, {**app_state, "http": self}, _loop)
