"""A market-data server to test against, in a thread of its own, and a driver that does what the stage does."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from urllib.parse import parse_qs, urlsplit

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from shrivenq.stages import frames as f
from shrivenq.stages import stage
from shrivenq.stages.live import receive as r
from shrivenq.stages.live.source import Config, LiveSource
from tests.stages.venues.captures import make_instruments

PATIENCE_S = 20


def trade(number, symbol="btcusdt"):
    """Spell one trade as the venue does."""
    return (
        f'{{"stream":"{symbol}@trade","data":{{"e":"trade","E":{number},"s":"{symbol.upper()}","t":{number},"p":"100.00",'
        f'"q":"1.00000000","T":{number},"m":true,"M":true}}}}'
    ).encode()


class Session:
    """One client of the server."""

    def __init__(self, connection):
        self.connection = connection
        query = parse_qs(urlsplit(connection.request.path).query)
        self.streams = [one for text in query.get("streams", []) for one in text.split("/")]
        self.requests = []

    def send(self, payload, **options):
        self.connection.send(payload.decode() if isinstance(payload, bytes) else payload, **options)


class Server:
    """Takes clients; what it sends is up to the test."""

    def __init__(self, answer=True, **options):
        self.sessions, self.answer = [], answer
        self._changed = threading.Condition()
        self._server = serve(self._talk, "127.0.0.1", 0, ping_interval=None, close_timeout=1, **options)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _talk(self, connection):
        session = Session(connection)
        with self._changed:
            self.sessions.append(session)
            self._changed.notify_all()
        with contextlib.suppress(ConnectionClosed):
            for text in connection:
                request = json.loads(text)
                session.requests.append((time.monotonic(), request))
                if self.answer:
                    session.streams += request["params"]
                    connection.send(json.dumps({"result": None, "id": request["id"]}))

    def close(self):
        self._server.shutdown()
        self._thread.join()


class Driver:
    """A LiveSource, polled as the market_data stage does; `taken` are the messages, None for one that says lost."""

    def __init__(self, url, *, symbols=None, rest=None, read_key=None, told=None, **options):
        self.instruments = make_instruments("spot") if symbols is None else make_symbols_table(symbols)
        self.lines = []
        options.setdefault("streams", ["trade"])
        config = Config(stream_url=url, **options)
        self.source = LiveSource(config, self.instruments, rest, self, read_key=read_key, told=told, seed=1)
        self.take_raw = lambda _payload: None
        self.live, self.frames = self.source.live, self.source.frames
        self.loop = np.zeros(512, np.int64)
        self.loop[stage.OFFSET_NS] = time.time_ns() - time.monotonic_ns()
        self.taken, self.flags, self.stamps = [], [], []
        r.poll(self.live, self.frames, self.loop)  # compiled now, and not while a connection waits
        self.live.words[r.STARTED] = 0

    def info(self, event, **fields):
        self.lines.append((event, fields))

    warning = info

    def step(self):
        self.loop[stage.NOW_NS] = time.monotonic_ns()
        self.loop[stage.DEADLINE_NS] = 1
        r.poll(self.live, self.frames, self.loop)
        self.take()
        if self.loop[stage.DEADLINE_NS] == 0:
            self.source.fill(self.frames)
            self.take()

    def take(self):
        for row in range(int(self.frames.words[f.COUNT])):
            frame = self.frames.index[row]
            begin = int(frame["offset"])
            payload = self.frames.data[begin : begin + int(frame["length"])].tobytes()
            self.take_raw(payload)
            self.taken.append(None if b'@lost","data":{}' in payload else payload)
            self.flags.append(int(frame["flags"]))
            self.stamps.append(tuple(int(frame[name]) for name in ("wire_ns", "time_ns", "raw_ns", "clock")))
        self.frames.words[f.TAKEN] = self.frames.words[f.COUNT]

    def until(self, condition, what=""):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"waited in vain: {what}; log: {self.lines}; taken: {self.taken[-3:]}"
            self.step()

    def close(self):
        self.source.close()


def make_symbols_table(symbols):
    table = np.repeat(make_instruments("spot")[:1], len(symbols))
    table["symbol"] = symbols
    return table
