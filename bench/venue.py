"""A venue for benchmarks: a process that lets clients in, in Python, and then does what is timed, in compiled code.

One port speaks HTTP (exchangeInfo, the depth snapshot, the time), another WebSocket, plain or under TLS: market streams
and the WebSocket API; a third FIX. A client's market data begins when whoever measures says so. The limits it tells are
wider than anything can send.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import select
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fix_desk
import numpy as np
import openssl
import peer
import peer_state as p
from harness import CAPTURE, BenchmarkError, shared
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from shrivenq.pipeline import processes, venue_symbols
from shrivenq.shm.atomics import load_word, store_word

DEPTH_FRAMES = 1_000
"""Of the capture, played over and over."""
TICK = 1_000_000  # 0.01 at eight decimals
BAND = 20 * TICK
"""Around the moving best bid nothing else of the capture is let through."""
WIDE = 10**12
LIMITS = [
    {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": WIDE},
    {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": WIDE},
    {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": WIDE},
]


# ── the market ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _captured():
    """Read the snapshot and depth messages of the capture; without one, make up some."""
    snapshot, events = None, []
    for path in sorted(CAPTURE.glob("*.gz")):
        with gzip.open(path) as lines:
            for line in lines:
                payload = line.partition(b" ")[2]
                if b"lastUpdateId" in payload[:20]:
                    snapshot = json.loads(payload)
                elif snapshot and b"@depth@" in payload[:40]:
                    events.append(json.loads(payload)["data"])
                if len(events) == DEPTH_FRAMES:
                    return snapshot, events
    bids = [[f"{60000 - i * 0.05:.8f}", "1.00000000"] for i in range(1000)]
    asks = [[f"{60000.5 + i * 0.05:.8f}", "1.00000000"] for i in range(1000)]
    event = {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", "U": 1, "u": 20, "b": bids[5:15], "a": asks[5:15]}
    return {"bids": bids, "asks": asks}, [event] * DEPTH_FRAMES


def _eight(text):
    whole, _, part = text.partition(".")
    return int(whole + part.ljust(8, "0"))


class Market:
    """Depth frames of real messages, in each of which the best bid moves: up a tick, and back."""

    def __init__(self):
        snapshot, events = _captured()
        middle = _eight(snapshot["bids"][0][0])
        low, high = f"{middle / 1e8:.8f}", f"{(middle + TICK) / 1e8:.8f}"
        self.bids = [[low, "1.00000000"], *(one for one in snapshot["bids"] if _eight(one[0]) < middle - BAND)]
        self.asks = [one for one in snapshot["asks"] if _eight(one[0]) > middle + BAND]
        texts, rows = [], np.zeros(len(events) + 1, p.FRAME)
        for i, event in enumerate(events):
            rises = i % 2 == 0
            bids = [one for one in event["b"] if _eight(one[0]) < middle - BAND]
            asks = [one for one in event["a"] if _eight(one[0]) > middle + BAND]
            best = [high, "1.00000000" if rises else "0.00000000"]
            texts.append(_depth_text(event["E"], [best, *bids], asks))
            rows[i]["updates"] = event["u"] - event["U"] + 1
            rows[i]["bid"] = middle + TICK if rises else middle
        texts.append(_depth_text(events[-1]["E"], [], []))
        rows[-1]["updates"] = 1
        self.data = np.frombuffer(bytearray(b"".join(texts) + bytes(p.PADDING)), np.uint8)
        at = 0
        for row, text in zip(rows, texts, strict=True):
            row["begin"], row["stop"] = at, at + len(text)
            row["first"], row["last"] = at + text.index(b'"U":') + 4, at + text.index(b'"u":') + 4
            at += len(text)
        self.index = rows


def _depth_text(event_ms, bids, asks):
    """Spell a depth event as an unmasked frame, its update ids still to be written."""
    zeros = 10 ** (p.ID_DIGITS - 1)
    data = {"e": "depthUpdate", "E": event_ms, "s": "BTCUSDT", "U": zeros, "u": zeros, "b": bids, "a": asks}
    payload = json.dumps({"stream": "btcusdt@depth@100ms", "data": data}, separators=(",", ":")).encode()
    size = len(payload)
    header = b"\x81" + (bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2))
    return header + payload


def exchange_info(tables):
    """Spell exchangeInfo with exactly the rules of our own tables."""

    def text(value, decimals):
        return f"{int(value) // 10**decimals}.{int(value) % 10**decimals:0{decimals}d}"

    symbols = []
    for row in tables.instruments:
        base, quote = (tables.currencies[row[f"{one}_currency"]] for one in ("base", "quote"))
        price, quantity, money = int(row["price_decimals"]), int(row["quantity_decimals"]), int(quote["decimals"])
        filters = [
            {"filterType": "PRICE_FILTER", "minPrice": text(row["price_min"], price),
             "maxPrice": text(row["price_max"], price), "tickSize": text(row["tick"], price)},
            {"filterType": "LOT_SIZE", "minQty": text(row["quantity_min"], quantity),
             "maxQty": text(row["quantity_max"], quantity), "stepSize": text(row["step"], quantity)},
            {"filterType": "NOTIONAL", "minNotional": text(row["notional_min"], money),
             "maxNotional": text(row["notional_max"], money)},
        ]  # fmt: skip
        symbols.append(
            {"symbol": row["symbol"].decode(), "status": "TRADING", "baseAsset": base["code"].decode(),
             "quoteAsset": quote["code"].decode(), "filters": filters, "orderTypes": venue_symbols.ORDER_TYPES,
             "allowedSelfTradePreventionModes": venue_symbols.SELF_TRADE_MODES, "isSpotTradingAllowed": True,
             "amendAllowed": True, "cancelReplaceAllowed": True}
        )  # fmt: skip
    return {"timezone": "UTC", "serverTime": 0, "rateLimits": LIMITS, "exchangeFilters": [], "symbols": symbols}


# ── connections ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Channel:
    """One WebSocket connection of a client, plain or under TLS; `protocol` knows no bytes on the wire."""

    def __init__(self, accepted, tls_context):
        self.socket, self.protocol, self.tls = accepted, ServerProtocol(max_size=None), 0
        self.request = None  # of the handshake, while it is not answered
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setblocking(False)
        if tls_context:
            self.tls = openssl.begin(tls_context, accepted.fileno())
        self.secure = not self.tls

    def receive(self):
        """Read what has come and let the protocol take it; return the frames and requests in it."""
        self.secure = self.secure or openssl.accept(self.tls)
        if not self.secure:
            return []
        while True:
            data = self._read()
            if not data:
                break
            self.protocol.receive_data(data)
        return self.protocol.events_received()

    def _read(self):
        if self.tls:
            return openssl.read(self.tls, 1 << 14)
        try:
            return self.socket.recv(1 << 16)
        except (BlockingIOError, ConnectionError):
            return b""

    def send(self):
        """Send what the protocol wants sent."""
        data = np.frombuffer(b"".join(self.protocol.data_to_send()) or b"", np.uint8)
        if len(data):
            peer.write(self.socket.fileno(), self.tls, data, 0, len(data))

    def close(self):
        """Close the socket."""
        self.socket.close()


class Venue:
    """The process; a context manager. `words` and `rtt` are its peer's."""

    def __init__(self, market, tables, *, samples=1, tls_files=None, pause_ns=0, by_fix=False):
        self.peer = p.make_peer(market.data, market.index, samples)
        self.market, self.info, self.pause_ns = market, json.dumps(exchange_info(tables)).encode(), pause_ns
        self.words, self.rtt = self.peer.words, self.peer.rtt
        self.words[p.UPDATE_ID] = 10 ** (p.ID_DIGITS - 1)
        self.tls_files, self.by_fix = tls_files, by_fix
        self.open = shared(1, np.int64)  # 1: market data may begin
        self.channels, self.desk = {}, None

    def __enter__(self):
        _compile(self.market)
        here = ("127.0.0.1", 0)
        with (
            socket.create_server(here) as listener,
            socket.create_server(here) as fix_listener,
            ThreadingHTTPServer(here, self._handler()) as rest,
        ):
            scheme = "wss" if self.tls_files else "ws"
            self.url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
            self.fix_url = f"tcp://127.0.0.1:{fix_listener.getsockname()[1]}" if self.by_fix else ""
            self.rest_url = f"http://127.0.0.1:{rest.server_address[1]}"
            self.process = processes.start("venue", lambda: self._main(listener, fix_listener, rest))
        return self

    def __exit__(self, *_):
        store_word(self.words, p.TASK, p.LEAVE)
        processes.stop([self.process], 5.0)

    # ── seen from outside ────────────────────────────────────────────────────────────────────────────────────────

    def let_market_in(self):
        """Let market data begin: nothing is to be decided before orders may go."""
        store_word(self.open, 0, 1)

    def task(self, task):
        """Give it something to do."""
        store_word(self.words, p.TASK, task)

    def count(self, word):
        """Read a word."""
        return int(load_word(self.words, word))

    def check(self):
        """Raise BenchmarkError if it found something wrong, or has died."""
        found = p.PROBLEMS[self.count(p.PROBLEM)] if self.process.alive() else "it died"
        if found:
            raise BenchmarkError(f"the peer: {found}, after {self.count(p.SAMPLES)} samples")

    # ── the process ──────────────────────────────────────────────────────────────────────────────────────────────

    def _main(self, listener, fix_listener, rest):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        context = openssl.make_context(self.tls_files) if self.tls_files else None
        threading.Thread(target=rest.serve_forever, daemon=True).start()
        listener.setblocking(False)
        fix_listener.setblocking(False)
        calm_at = 0.0
        while (task := self.count(p.TASK)) != p.LEAVE:
            with contextlib.suppress(BlockingIOError):
                accepted, _ = listener.accept()
                self.channels[accepted.fileno()] = Channel(accepted, context)
            with contextlib.suppress(BlockingIOError):
                self.desk = fix_desk.FixDesk(fix_listener.accept()[0], self.words)
            if self.count(p.STATE) == p.CONNECTED and task == p.PLAY:
                peer.play(self.peer, self.pause_ns)
                store_word(self.words, p.STATE, p.PLAYED)
            elif self.count(p.STATE) == p.CONNECTED and task == p.SERVE:
                peer.serve(self.peer)
            self._look_after(busy=task in (p.PLAY, p.SERVE))
            if self.words[p.MARKET] and time.monotonic() >= calm_at:
                calm_at = time.monotonic() + p.CALM_NS / 1e9
                peer.send_depth(self.peer, len(self.market.index) - 1)
            pause_s = 0.0 if task == p.SERVE else p.CALM_NS / 8e9
            select.select([listener, *(one.socket for one in self.channels.values())], [], [], pause_s)
        return 0

    def _look_after(self, *, busy):
        """Let clients in, and answer what a session asks; while orders come, their connection is compiled code's."""
        busy = busy and self.count(p.STATE) == p.CONNECTED
        taken = {self.count(p.ORDERS)} if busy else set()
        if self.desk is not None and self.desk.socket.fileno() not in taken:
            self.desk.look()
        for channel in [one for number, one in self.channels.items() if number not in taken]:
            for event in channel.receive():
                if isinstance(event, Request):
                    channel.request = event
                elif isinstance(event, Frame) and event.opcode is Opcode.TEXT and channel.protocol.state is State.OPEN:
                    self._answer(channel, json.loads(event.data))
            if channel.request is not None:
                self._let_in(channel)
            channel.send()

    def _let_in(self, channel):
        """Answer the handshake; market data waits until it may begin."""
        is_market = channel.request.path.startswith("/stream")
        if is_market and not load_word(self.open, 0):
            return
        channel.protocol.send_response(channel.protocol.accept(channel.request))
        channel.request = None
        channel.send()
        fields = (p.MARKET, p.MARKET_TLS) if is_market else (p.ORDERS, p.ORDERS_TLS)
        if is_market or not self.by_fix:
            for word, value in zip(fields, (channel.socket.fileno(), channel.tls), strict=True):
                store_word(self.words, word, value)
        if self.words[p.MARKET] and self.words[p.ORDERS]:
            store_word(self.words, p.STATE, p.CONNECTED)

    def _answer(self, channel, request):
        """Answer a request of the session itself: an account without orders and trades."""
        method = request["method"]
        result = [] if method in ("openOrders.status", "myTrades") else {}
        if method == "account.status":
            plenty = {"free": "1000000.00000000", "locked": "0.00000000"}
            result = {"balances": [{"asset": one, **plenty} for one in ("BTC", "USDT")]}
        elif method == "userDataStream.subscribe":
            result = {"subscriptionId": 0}
        elif method == "time":
            result = {"serverTime": time.time_ns() // 1_000_000}
        elif method == "account.rateLimits.orders":
            result = [one | {"count": 0} for one in LIMITS if one["rateLimitType"] == "ORDERS"]
        limits = [one | {"count": 1} for one in LIMITS]
        answer = {"id": request["id"], "status": 200, "result": result, "rateLimits": limits}
        channel.protocol.send_text(json.dumps(answer, separators=(",", ":")).encode())

    def _handler(self):
        """Make what answers HTTP requests."""
        venue = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if self.path.startswith("/api/v3/exchangeInfo"):
                    body = venue.info
                elif self.path.startswith("/api/v3/depth"):
                    market, last = venue.market, venue.count(p.UPDATE_ID)
                    body = json.dumps({"lastUpdateId": last, "bids": market.bids, "asks": market.asks}).encode()
                else:
                    body = b'{"serverTime":%d}' % (time.time_ns() // 1_000)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Say nothing."""

        return Handler


def _compile(market):
    """Compile here, so that no child has to."""
    idle = p.make_peer(market.data.copy(), np.zeros(1, p.FRAME), 1)
    idle.words[p.PROBLEM] = p.CLOSED
    peer.play(idle, 0)
    peer.serve(idle)
    peer.write(-1, 0, idle.outbox, 0, 0)
    peer.write(-1, 0, np.frombuffer(b"", np.uint8), 0, 0)
    peer.send_depth(idle, 0)
