"""FIX server: order entry in FIX 4.4 over TCP, or TLS, beside the venue's other protocols and for the same accounts.

    bytes ──▶ Frames ──▶ FixSession.take ──▶ Venue.serve            Venue ──events──▶ FixServer.take ──▶ every session

Source: section 15 of the protocol sheet.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shrivenq.pipeline.exchange.fix_members import Members
from shrivenq.pipeline.exchange.fix_session import FAREWELL, FixSession
from shrivenq.pipeline.exchange.fix_sockets import FixSocket
from shrivenq.pipeline.exchange.fix_wire import Frames, GarbledError
from shrivenq.pipeline.exchange.types import OrderEvent

if TYPE_CHECKING:
    import socket
    import ssl

    from shrivenq.pipeline.exchange.types import Event
    from shrivenq.pipeline.exchange.venue import Venue

READ_BYTES = 1 << 16
LOGON_S = 10.0
"""A connection that has not logged on within this is cut."""
STOP_S = 2.0
"""How long an ordered stop waits for sessions to end."""


class FixServer:
    """Every FIX connection of the venue."""

    def __init__(self, venue: Venue, backlog_bytes: int) -> None:
        self._venue = venue
        self._backlog_bytes = backlog_bytes
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], FixSession] = {}
        self._members = Members(venue)
        venue.listen(self.take)

    def take(self, events: list[Event]) -> None:
        """Pass on what happened to orders; what was refused only its sender is told."""
        for event in events:
            if isinstance(event, OrderEvent) and event.execution != "REJECTED":
                for session in self._members.of(event.account):
                    session.take_event(event)

    async def start(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._serve, sock=listening, ssl=context, limit=READ_BYTES)

    def shut_down(self) -> None:
        """Tell every session that the venue is about to stop."""
        for session in self._members.all():
            session.warn()

    async def stop(self) -> None:
        """Log everybody out, and accept nobody any more."""
        if self._server is not None:
            self._server.close()
        for session in self._connections.values():
            session.end(FAREWELL)
        if self._connections:
            await asyncio.wait(self._connections, timeout=STOP_S)
        late = list(self._connections)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        socket = FixSocket(writer, self._backlog_bytes)
        host, *_ = writer.get_extra_info("peername") or ("",)  # nobody, where the peer is gone again
        session = FixSession(self._venue, self._members, socket, host)
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        self._connections[task] = session
        patience = asyncio.get_running_loop().call_later(LOGON_S, _part, session)
        try:
            await _read(reader, session)
        except GarbledError as error:
            session.take_garbled(error)
        except OSError:  # the connection is gone
            pass
        finally:
            patience.cancel()
            session.leave()
            socket.close()
            del self._connections[task]


def _part(session: FixSession) -> None:
    """Cut a connection that has not logged on."""
    if session.logon is None:
        session.socket.close()


async def _read(reader: asyncio.StreamReader, session: FixSession) -> None:
    """Have a session take what comes. Raises GarbledError, and OSError when the connection breaks."""
    frames = Frames()
    while session.socket.is_open and (data := await reader.read(READ_BYTES)):
        frames.add(data)
        while session.socket.is_open and (message := frames.next()) is not None:
            await session.take(message)
            await asyncio.sleep(0)  # a client with much to say does not keep the others waiting
