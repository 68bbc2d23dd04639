"""A connection to the WebSocket API: Python's half of it. Messages both ways, and nothing subscribed to.

Compiled code (`venue_io`) takes what it recognises; every other message goes to `take`, one after the other, in the
order they came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.stages.live import venue_io
from shrivenq.stages.live.connection import CLOSED, Connection, Message
from shrivenq.stages.live.link import Link
from shrivenq.stages.live.transport import TransportError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from websockets.uri import WebSocketURI

    from shrivenq.stages.frames import Frames
    from shrivenq.stages.live.transport import Resolver
    from shrivenq.stages.live.venue_state import LiveVenue


class ApiConnection(Connection):
    """The state machine of one connection; what a message means is its owner's business."""

    PATH = "/ws-api/v3"

    def receive_notice(self, payload: bytes, now_ns: int) -> None:  # noqa: ARG002
        """Hand a text message on."""
        self.events.append(Message(payload))

    def send_text(self, payload: bytes) -> None:
        """Send a text message with the next `data_to_send`."""
        if self.state != CLOSED:
            self._protocol.send_text(payload)


class ApiLink(Link):
    """One attempt at a connection to the WebSocket API, in a row of the receiver.

    `take` is told each message and who brings it, and answers False if it has to wait.
    """

    connection: ApiConnection | None

    def __init__(
        self,
        context: LiveVenue,
        loop: Any,
        row: int,
        uri: WebSocketURI,
        url: str,
        resolver: Resolver,
        tls: ssl.SSLContext | None,
        now_ns: int,
        attempt: int,
        take: Callable[[bytes, ApiLink], bool],
    ) -> None:
        super().__init__(context.live, row, uri, url, (), resolver, tls, now_ns, attempt)
        self._venue, self._loop, self._take = context, loop, take

    def _open(self, now_ns: int) -> Connection:
        return ApiConnection(self._url, (), now_ns)

    def _parse(self, frames: Frames, time_ns: int) -> None:  # noqa: ARG002
        venue_io.parse(self._venue, self._loop, self.row)

    def _enter_waiting(self, frames: Frames, now_ns: int, time_ns: int) -> bool:  # noqa: ARG002
        while self._waiting:
            if not self._take(self._waiting[0].payload, self):
                return False
            self._waiting.popleft()
        return True

    def send_text(self, payload: bytes) -> None:
        """Send a message."""
        if self.connection is not None and self._transport is not None:
            self.connection.send_text(payload)
            self.send_bytes(self.connection.data_to_send())

    def send_bytes(self, frame: bytes) -> None:
        """Send a whole frame, or the rest of one, behind what is on its way."""
        if self._transport is None:
            return
        try:
            self._transport.send(frame)
        except TransportError as error:
            self.close(str(error))

    @property
    def is_sending(self) -> bool:
        """Tell whether something of Python's waits to be sent."""
        return self._transport is not None and self._transport.is_sending
