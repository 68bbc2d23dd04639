"""The exchange simulator: commands a second of its matching engine, orders a second of the server around it.

`engine`: without a network. A compiled client gives random commands of eight accounts in two symbols to the engine's
kernels: of a hundred 50 are limit orders around the middle, 8 market orders, 2 stop orders, 36 cancel and 4 amend an
order given before. Each goes through what a client's command goes through: filters, balances, self-trade prevention,
matching, fees, reports, the stop orders it triggers, and the list of levels it changed. Not in it: Python's names and
views of what happened.

`server`: `shrivenq exchange` in a process of its own, over a loopback socket. A client that is logged on to the
WebSocket API, and follows its account's events, keeps 64 immediate-or-cancel orders in flight that meet nobody; each is
answered, reported NEW and EXPIRED, and the balances with it. The client's frames are encoded before, and it counts
answers without reading them: what is measured is the server. Every order must be accepted.

The figures are medians of several rounds.
"""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from harness import BenchmarkError
from live import KEY, SYMBOL
from report import Report, interleaved
from websockets.frames import Frame, Opcode

from shrivenq.pipeline.config import SHIPPED
from shrivenq.pipeline.exchange import commands, reports
from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.types import Symbol
from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import BUY, GTC, LIMIT, MARKET, SELL
from shrivenq.stages.order_flow import random_bits

ROUNDS = 7
COMMANDS = 1_000_000
ACCOUNTS = 8
MIDDLE = 50_000  # ticks
ORDERS, IN_FLIGHT = 5_000, 64
COMMAND = [sys.executable, "-c", "from shrivenq.pipeline.main import main; main()", "exchange"]
CHANGES = {
    "port = 9443": "port = 0",
    "port = 9000": "port = 0",
    "orders_10s = 100 ": "orders_10s = 10000000 ",
    "orders_day = 200000": "orders_day = 10000000",
    'source = "synthetic"': 'source = "none"',
}
"""What is otherwise in the configuration that ships: nobody else trades, and nothing is too much."""
ANSWER, ACCEPTED = b'{"id":1,"status":', b'{"id":1,"status":200'
RECEIVE_BYTES, LIMIT_S = 1 << 18, 30.0
UPGRADE = (
    b"GET /ws-api/v3 HTTP/1.1\r\nHost: venue\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@kernel
def fill_request(exchange, random, roll):
    order = exchange.requests[0]
    order["account"] = 1 + random_bits(random) % ACCOUNTS
    order["symbol"] = random_bits(random) & 1
    order["side"] = BUY if random_bits(random) & 1 else SELL
    order["type"] = LIMIT if roll < 50 else MARKET if roll < 58 else s.STOP_LOSS_LIMIT
    order["time_in_force"] = GTC
    order["stp"] = s.EXPIRE_MAKER
    order["quantity"] = 1 + random_bits(random) % 100_000
    order["price"] = order["stop_price"] = order["quote_quantity"] = 0
    # Buyers mostly below the middle, sellers above it: one in eight crosses.
    away = random_bits(random) % 200 - 25
    price = MIDDLE - away if order["side"] == BUY else MIDDLE + away
    if order["type"] != MARKET:
        order["price"] = price
    if order["type"] == s.STOP_LOSS_LIMIT:
        order["stop_price"] = MIDDLE + 20 if order["side"] == BUY else MIDDLE - 20
    order["strategy_id"] = order["strategy_type"] = s.MISSING


@kernel
def drive(exchange, random, count):
    """Give `count` commands; return how many were done."""
    words = exchange.words
    done = 0
    for _ in range(count):
        words[s.NOW_US] += 1
        roll = random_bits(random) % 100
        if roll < 60:
            fill_request(exchange, random, roll)
            symbol = exchange.requests[0]["symbol"]
            code = commands.place(exchange)
        else:
            given = min(words[s.QUEUE_HEAD] + 1, exchange.orders.shape[0])
            order = exchange.orders[random_bits(random) % given]
            symbol = order["symbol"]
            if roll < 96:
                code = commands.cancel(exchange, order["account"], symbol, order["order_id"], commands.ANY)
            else:
                half = order["quantity"] // 2
                code = commands.amend(exchange, order["account"], symbol, order["order_id"], half)
        commands.settle_down(exchange, symbol)
        reports.collect(exchange, symbol)
        words[s.EVENTS] = 0
        done += 1 if code == 0 else 0
    return done


def market():
    """Open two symbols with every kind of filter on, and accounts with plenty."""
    both = [
        Symbol(
            name=base + "USDT", base=base, quote="USDT", price_decimals=2, quantity_decimals=5, tick=1, step=1,
            price_max=1_000_000, quantity_max=10**9, notional_min=1, orders_max=1_000, algo_orders_max=50,
            bid_percent_up=500_000_000, bid_percent_down=20_000_000, ask_percent_up=500_000_000,
            ask_percent_down=20_000_000, range_bid_up=200_000_000, range_ask_down=50_000_000, has_reference=True,
            maker_fee=100_000, taker_fee=100_000,
        )
        for base in ("BTC", "ETH")
    ]  # fmt: skip
    engine = Engine(both, seed=1, orders_kept=1 << 13)
    for _ in range(ACCOUNTS):
        engine.open_account(dict.fromkeys(engine.assets, 10**17))
    return engine.exchange


def timed(exchange, random):
    begun = time.perf_counter_ns()
    done = drive(exchange, random, COMMANDS)
    spent = time.perf_counter_ns() - begun
    assert done > COMMANDS // 2
    return {"commands": COMMANDS * 1e9 / spent}


# ── over a socket ────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def serving():
    """Run the server; gives its address."""
    text = (SHIPPED / "exchange.toml").read_text()
    for old, new in CHANGES.items():
        if old not in text:
            raise BenchmarkError(f"exchange.toml: no {old!r}")
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory(prefix="shrivenq-") as folder:
        path = Path(folder) / "exchange.toml"
        path.write_text(text)
        with subprocess.Popen([*COMMAND, str(path)], stdout=subprocess.PIPE, text=True) as process:
            try:
                line = process.stdout.readline()
                if " at http" not in line:
                    raise BenchmarkError(f"the server did not start: {line!r}")
                host, port = line.split("//")[1].split(",")[0].split(":")
                yield host, int(port)
            finally:
                process.send_signal(signal.SIGINT)


def request(method, params):
    """Encode a request as a client's frame."""
    text = json.dumps({"id": 1, "method": method, "params": params}).encode()
    return Frame(Opcode.TEXT, text).serialize(mask=True)


class Client:
    """One connection to the WebSocket API, logged on, that follows its account."""

    def __init__(self, connection):
        self.socket = connection
        connection.sendall(UPGRADE)
        if b" 101 " not in connection.recv(RECEIVE_BYTES):
            raise BenchmarkError("no WebSocket")
        key = tomllib.loads(KEY)
        params = {"apiKey": key["api_key"], "timestamp": time.time_ns() // 1_000_000}
        payload = "&".join(f"{name}={value}" for name, value in params.items()).encode()
        private = load_pem_private_key(key["private_key"].encode(), None)
        self.ask("session.logon", params | {"signature": base64.b64encode(private.sign(payload)).decode()})
        self.ask("userDataStream.subscribe", {})

    def ask(self, method, params):
        """Have a request accepted."""
        self.socket.sendall(request(method, params))
        answer = self.socket.recv(RECEIVE_BYTES)
        if ACCEPTED not in answer:
            raise BenchmarkError(f"{method}: {answer!r}")

    def place(self):
        """Place ORDERS orders, IN_FLIGHT at a time; give how many a second were accepted."""
        params = {
            "symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "IOC", "price": "60000",
            "quantity": "0.001", "timestamp": time.time_ns() // 1_000_000, "recvWindow": 60_000,
            "newOrderRespType": "ACK",
        }  # fmt: skip
        frame = request("order.place", params)
        rest = b""
        begun, sent, answered = time.perf_counter_ns(), IN_FLIGHT, 0
        self.socket.sendall(frame * IN_FLIGHT)
        while answered < ORDERS:
            data = rest + self.socket.recv(RECEIVE_BYTES)
            if data == rest:
                raise BenchmarkError("the server ended the connection")
            whole = data.rfind(b"}") + 1
            data, rest = data[:whole], data[whole:]
            found = data.count(ACCEPTED)
            if found != data.count(ANSWER):
                raise BenchmarkError(f"an order was refused: {data[:500]!r}")
            answered += found
            due = min(found, ORDERS - sent)
            self.socket.sendall(frame * due)
            sent += due
        return {"orders": ORDERS * 1e9 / (time.perf_counter_ns() - begun)}


# ── the program ──────────────────────────────────────────────────────────────────────────────────────────────────────


def main():
    report = Report("exchange")
    exchange, random = market(), np.array([1, 2, 3, 4], np.int64)
    drive(exchange, random, 20_000)
    found = interleaved(ROUNDS, {"engine": lambda: timed(exchange, random)})
    report.row("engine", "commands", "1/s", found["engine"]["commands"])
    with serving() as address, socket.create_connection(address, LIMIT_S) as connection:
        client = Client(connection)
        found = interleaved(ROUNDS, {"server": client.place})
    report.row("server", "orders", "1/s", found["server"]["orders"])


if __name__ == "__main__":
    main()
