"""FIX sockets: what leaves through one TCP connection, as `sockets.VenueSocket` does it for WebSocket.

Messages of one turn of the loop go in one write; who reads too slowly is cut, so that nobody else waits.
"""

from __future__ import annotations

import asyncio

CLOSE_S = 2.0
"""How long a peer may take to end its side."""


class FixSocket:
    """One connection."""

    def __init__(self, writer: asyncio.StreamWriter, backlog_bytes: int) -> None:
        self._transport = writer.transport
        self._backlog_bytes = backlog_bytes
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Tell whether anything can still be sent."""
        return not self._closed and not self._transport.is_closing()

    def send_message(self, payload: bytes, *, text: bool = True) -> None:  # noqa: ARG002 - as a WebSocket has it
        """Send one message, at the end of this turn of the loop."""
        if not self._pending:
            self._loop.call_soon(self.flush)
        self._pending.append(payload)

    def send_unknown(self, payload: bytes) -> None:
        """Send one message that does not begin as one."""
        self.send_message(b"9=0\x01" + payload)

    def flush(self) -> None:
        """Write what is pending; end the connection if the client does not keep up."""
        pending, self._pending = self._pending, []
        if not pending or not self.is_open:
            return
        self._transport.write(b"".join(pending))
        if self._transport.get_write_buffer_size() > self._backlog_bytes:
            self._transport.abort()

    def close(self) -> None:
        """Close after what was sent so far; what is sent from now on goes nowhere."""
        self.flush()
        if self._closed:
            return
        self._closed = True
        self._transport.close()
        # A client that reads nothing more is not waited for.
        self._loop.call_later(CLOSE_S, self._transport.abort)

    def abort(self) -> None:
        """End the connection without a word."""
        self._pending.clear()
        self._transport.abort()
