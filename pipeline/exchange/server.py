"""Server: the exchange simulator on the network, one process, one asyncio loop, many clients.

    /api/v3/…                REST
    /ws/NAME, /stream        market streams, JSON
    /sbe/ws/…, /sbe/stream   market streams, SBE
    /ws-api/v3               WebSocket API and user data
    /control/faults          what shall go wrong
    /control/market          a symbol halted, a filter changed
    a port of its own        order entry in FIX 4.4

An ordered stop: every connection is told `serverShutdown`, then closed; requests under way are answered first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from shrivenq.pipeline.config import ConfigError
from shrivenq.pipeline.exchange import control, faults, tls
from shrivenq.pipeline.exchange.config import Config
from shrivenq.pipeline.exchange.fix_server import FixServer
from shrivenq.pipeline.exchange.klines import INTERVALS
from shrivenq.pipeline.exchange.rest import serve_rest
from shrivenq.pipeline.exchange.sbe_streams import SbeStreams, serve_sbe
from shrivenq.pipeline.exchange.sockets import VenueHttp, VenueSocket
from shrivenq.pipeline.exchange.stream_sessions import StreamLimits, serve_streams
from shrivenq.pipeline.exchange.streams import Streams
from shrivenq.pipeline.exchange.user_data import UserData
from shrivenq.pipeline.exchange.venue import Venue
from shrivenq.pipeline.exchange.warm import warm
from shrivenq.pipeline.exchange.ws_api import WsApi

MESSAGE_BYTES = 1 << 20
"""Longest incoming WebSocket message; a longer one ends the connection."""
STOP_S = 3
"""How long an ordered stop waits for clients to go."""
KEEP_ALIVE_S = 60
"""How long an idle HTTP connection stays."""
BACKLOG = 2048


class Simulator:
    """The exchange, ready to be served."""

    def __init__(self, config: Config) -> None:
        """Open the market. Raises ConfigError."""
        self.config = config
        engine, self.accounts = config.engine()
        self.venue = Venue(engine, config.markets, config.keyring(self.accounts), config.rules())
        self.streams = Streams(self.venue)
        self.sbe_streams = SbeStreams(self.venue)
        self.user_data = UserData(self.venue)
        self.ws_api = WsApi(self.venue, self.user_data, config.sessions.lifetime_s)
        self.fix = FixServer(self.venue, config.sessions.backlog_bytes) if config.fix else None
        self.fix_socket: socket.socket | None = None
        """Where FIX listens, once it does."""
        self.faults = faults.Faults(self.venue, faults.Script())
        self.venue.outgoing = self.faults
        self.failure: BaseException | None = None
        """What stopped the server, if not a person."""
        self._server: uvicorn.Server | None = None
        self.app = Starlette(routes=self._routes(), lifespan=self._lifespan)

    def _routes(self) -> list[BaseRoute]:
        venue, limits = self.venue, self._stream_limits()

        async def rest(request: HttpRequest) -> Response:
            return await serve_rest(request, venue)

        def json(*, combined: bool) -> Callable[[WebSocket], Awaitable[None]]:
            return lambda one: serve_streams(one, venue, self.streams, limits, combined=combined)

        def sbe(*, combined: bool) -> Callable[[WebSocket], Awaitable[None]]:
            return lambda one: serve_sbe(one, venue, self.sbe_streams, limits, combined=combined)

        return [
            Route("/api/v3/{path:path}", rest, methods=["GET", "POST", "PUT", "DELETE"]),
            WebSocketRoute("/ws-api/v3", self.ws_api.serve),
            WebSocketRoute("/ws", json(combined=False)),
            WebSocketRoute("/ws/{names:path}", json(combined=False)),
            WebSocketRoute("/stream", json(combined=True)),
            WebSocketRoute("/sbe/ws", sbe(combined=False)),
            WebSocketRoute("/sbe/ws/{names:path}", sbe(combined=False)),
            WebSocketRoute("/sbe/stream", sbe(combined=True)),
            *faults.routes(self.faults),
            *control.routes(venue),
        ]

    def _stream_limits(self) -> StreamLimits:
        limits = self.config.limits
        return StreamLimits(limits.messages_s, limits.streams, self.config.sessions.lifetime_s)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[dict[str, Any]]:
        """Keep the market moving while the server runs."""
        times = self.config.streams
        works = (
            (times.step_ms, self.venue.step),
            (times.depth_ms, lambda: self.streams.publish_depth("@100ms")),
            (times.depth_slow_ms, lambda: self.streams.publish_depth("")),
            (times.reference_ms, self.streams.publish_reference),
            (times.ticker_ms, self.streams.publish_tickers),
            (times.kline_1s_ms, lambda: self.streams.publish_klines(["1s"])),
            (times.kline_ms, lambda: self.streams.publish_klines([one for one in INTERVALS if one != "1s"])),
            (times.sbe_depth_ms, self.sbe_streams.publish_depth),
            (times.sbe_partial_ms, self.sbe_streams.publish_partial),
        )
        self.venue.step()
        self.faults.arm(self.config.script)
        tasks = [asyncio.create_task(_every(interval_ms / 1000, work)) for interval_ms, work in works]
        for task in tasks:
            task.add_done_callback(self._note_end)
        if self.fix is not None and self.fix_socket is not None:
            await self.fix.start(self.fix_socket, self._server.config.ssl if self._server else None)
        try:
            yield {"backlog_bytes": self.config.sessions.backlog_bytes}
        finally:
            if self.fix is not None:
                await self.fix.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """Stop the server when what keeps the market moving has failed: a market that stands still is no market."""
        if not task.cancelled() and task.exception() is not None:
            self.failure = task.exception()
            if self._server is not None:
                self._server.should_exit = True

    def announce(self) -> None:
        """Tell every connection that the venue is about to stop."""
        self.streams.shut_down()
        self.sbe_streams.shut_down()
        self.ws_api.shut_down()
        if self.fix is not None:
            self.fix.shut_down()

    def server(self) -> uvicorn.Server:
        """Make the server; `serve(sockets=[…])` runs it until `should_exit`, or a signal. Raises ConfigError."""
        sessions = self.config.sessions
        certificate, key = self._certificate()
        self._server = _Server(
            self,
            uvicorn.Config(
                self.app,
                http=VenueHttp,
                ws=VenueSocket,
                ws_max_size=MESSAGE_BYTES,
                ws_ping_interval=sessions.ping_s,
                ws_ping_timeout=sessions.pong_s,
                ws_per_message_deflate=False,
                ssl_certfile=certificate,
                ssl_keyfile=key,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=STOP_S,
            ),
        )
        return self._server

    def listen(self) -> socket.socket:
        """Open the listening socket, and that of FIX. Raises ConfigError if an address cannot be had."""
        found = self._listen(self.config.port)
        if self.config.fix is not None:
            try:
                self.fix_socket = self._listen(self.config.fix.port)
            except ConfigError:
                found.close()
                raise
        return found

    @property
    def fix_port(self) -> int:
        """Tell the port of FIX, 0 where there is none."""
        return int(self.fix_socket.getsockname()[1]) if self.fix_socket is not None else 0

    def _listen(self, port: int) -> socket.socket:
        host = self.config.host
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            # The protocol is named: asyncio sets TCP_NODELAY only where it sees TCP, and without it answers wait 40 ms.
            found = socket.socket(family, kind, protocol)
            try:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                found.bind(address)
                found.listen(BACKLOG)
            except OSError:
                found.close()
                raise
        except OSError as error:
            said = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise ConfigError([f"{self.config.file}: {host}:{port}: cannot listen: {said}"]) from None
        return found

    def _certificate(self) -> tuple[str | None, str | None]:
        """Give certificate and key, made if the configuration says so; nothing without TLS."""
        table, folder = self.config.tls, self.config.file.parent
        if table.generate:
            try:
                made = tls.generate(folder / table.generate, table.names)
            except OSError as error:
                raise ConfigError([f"{self.config.file}: tls.generate: {error}"]) from None
            return str(made.certificate), str(made.key)
        if table.certificate:
            return str(folder / table.certificate), str(folder / table.key)
        return None, None


class _Server(uvicorn.Server):
    """uvicorn, and a word to every client before it stops."""

    def __init__(self, simulator: Simulator, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._simulator = simulator

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop in order."""
        self._simulator.announce()
        await super().shutdown(sockets)


async def _every(interval_s: float, work: Callable[[], None]) -> None:
    """Do some work again and again; what is late is not made up for."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due = max(due + interval_s, loop.time())
        await asyncio.sleep(due - loop.time())
        work()


def run(config: Config, said: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `said` gets the line that says where.

    Raises ConfigError, and whatever the market stopped for.
    """
    warm()
    simulator = Simulator(config)
    server = simulator.server()
    try:
        server.config.load()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError([f"{config.file}: tls: {error}"]) from None
    simulator.venue.step()  # compiles on a new machine: who connects is answered at once
    listening = simulator.listen()
    host, port = listening.getsockname()[:2]
    scheme, fix_scheme = ("https", "tcp+tls") if server.config.is_ssl else ("http", "tcp")
    fix = f", FIX at {fix_scheme}://{host}:{simulator.fix_port}" if simulator.fix_port else ""
    said(f"exchange: {', '.join(simulator.venue.symbols)} at {scheme}://{host}:{port}{fix}; Ctrl-C stops")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(server.serve(sockets=[listening]))
    if simulator.failure is not None:
        raise simulator.failure
