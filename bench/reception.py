"""What a message of live market data costs, from a loopback socket to the `tick` ring, beside `websockets` and orjson.

A peer process writes the same WebSocket frames (real captured spot messages where there are some) again and again into
a TCP connection, as fast as they are taken. `frames` is the rate at which whole messages are received, parsed, decoded
and published; `frame` the CPU time of that, receiving included, for each message.

- trade_json, depth_json: the production loop: compiled recvmsg, frame parser, decoder, ring; a consumer empties it.
- sbe: the same of the trades in the venue's binary form, one in a message.
- websockets_orjson: trades through `websockets`' sans-I/O protocol fed from a non-blocking socket, orjson, and the same
  integers written to the same ring's slots by Python.

Both sides share two CPUs with the kernel's own work for the loopback: rates are those of the pair.
"""

from __future__ import annotations

import gzip
import os
import resource
import select
import socket
import sys
import time
from pathlib import Path

import numpy as np
import orjson
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.uri import parse_uri

sys.path.insert(0, str(Path(__file__).resolve().parent))
from decode import to_sbe
from report import Report, interleaved

from shrivenq.shm import ring, segment
from shrivenq.shm.kernel import kernel
from shrivenq.stages import market_data, stage
from shrivenq.stages import messages as m
from shrivenq.stages.live import receive, source
from shrivenq.stages.live.transport import RX_SOFTWARE, SO_TIMESTAMPING, SOFTWARE

DATA = Path(os.environ.get("SHRIVENQ_DATA") or Path(__file__).resolve().parent.parent.parent / "shared" / "data")
ROUNDS = 5
SECONDS = 0.5
MESSAGES = 20_000
"""Of a kind, sent again and again."""


def captured(kind):
    """Read real spot messages of a kind; without captures, a made-up one."""
    found = []
    for path in sorted((DATA / "binance" / "spot").glob("*.gz")):
        with gzip.open(path) as lines:
            for line in lines:
                payload = line.rstrip(b"\n").partition(b" ")[2]
                if kind in payload[:60]:
                    found.append(payload)
                if len(found) == MESSAGES:
                    return found
    if found:
        return found
    levels = b",".join(b'["%d.00000000","1.50000000"]' % price for price in range(60000, 60020))
    return [
        b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":2,"b":['
        + levels + b'],"a":[]}}'
        if kind == b"@depth" else
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,'
        b'"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
    ] * MESSAGES  # fmt: skip


def framed(payload):
    """Put a payload into an unmasked frame, JSON into a text one."""
    size, first = len(payload), b"\x81" if payload[:1] == b"{" else b"\x82"
    if size < 126:
        return first + bytes([size]) + payload
    if size < 1 << 16:
        return first + b"\x7e" + size.to_bytes(2) + payload
    return first + b"\x7f" + size.to_bytes(8) + payload


class Peer:
    """A process that sends `data` over and over, from the other CPU."""

    def __init__(self, data):
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.pid = os.fork()
            if self.pid == 0:
                try:
                    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
                    one, _ = server.accept()
                    while True:
                        one.sendall(data)
                finally:
                    os._exit(0)
            self.socket = socket.create_connection(server.getsockname())
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)

    def close(self):
        """End the process."""
        self.socket.close()
        os.waitpid(self.pid, 0)


def instruments():
    """Make the one instrument the messages speak of."""
    table = np.zeros(1, m.INSTRUMENT)
    table["symbol"], table["tick"], table["step"] = b"BTCUSDT", 1, 1000
    table["price_decimals"], table["quantity_decimals"] = 2, 8
    return table


@kernel
def run(context, loop, reader, until_ns):
    """Turn the stage and empty its ring until the time is over; return the records taken."""
    taken = 0
    while stage.turn(loop, 1) and loop[stage.NOW_NS] < until_ns:
        for _ in range(64):
            market_data.step(context, loop)
        waiting = ring.available(reader)
        ring.release(reader, waiting)
        taken += waiting
    return taken


class Ours:
    """The market_data stage with one open connection to a peer."""

    def __init__(self, payloads):
        self.peer = Peer(b"".join(map(framed, payloads)))
        self.ring = ring.create(f"{segment.PREFIX}bench-reception-{os.getpid()}", m.TICK, 1 << 15)
        self.reader = ring.consumer(self.ring)
        self.loop = np.zeros(512, np.int64)
        self.loop[stage.OFFSET_NS] = time.time_ns() - time.monotonic_ns()
        config = market_data.Config(source="binance", binance=source.Config(stream_url="ws://127.0.0.1:1"))
        setup = stage.Setup(
            config=config, instruments=instruments(), currencies=np.zeros(1, m.CURRENCY),
            producers={"tick": ring.producer(self.ring)}, consumers={}, loop=self.loop,
            shared={name: np.zeros(512, np.int64) for name in ("timer_ns", "venue", "resync")},
            cursors=[(self.ring.array("producer"), self.ring.array("consumer"), 0)],
        )  # fmt: skip
        self.context = market_data.build(setup)
        live = self.context.live
        self.peer.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, RX_SOFTWARE | SOFTWARE)
        live.rows[0]["descriptor"], live.rows[0]["mode"] = self.peer.socket.fileno(), receive.DIRECT
        live.words[receive.STARTED], live.words[receive.WAKE_NS] = 1, 1 << 62
        run(self.context, self.loop, self.reader, 0)  # compiles

    def measure(self):
        """Take messages for a while."""
        row, loop = self.context.live.rows[0], self.loop
        before, cpu = int(loop[stage.FRAMES]), resource.getrusage(resource.RUSAGE_SELF)
        begin = time.monotonic_ns()
        loop[stage.DEADLINE_NS], loop[stage.LOOK_NS] = 1 << 62, 0
        run(self.context, loop, self.reader, begin + int(SECONDS * 1e9))
        taken_ns = time.monotonic_ns() - begin
        used = resource.getrusage(resource.RUSAGE_SELF)
        count = int(loop[stage.FRAMES]) - before
        assert count, (row, self.context.words[:12])
        assert not self.context.live.words[receive.ATTENTION], "something was no market data"
        assert not loop[stage.DROPS], "the ring was full"
        busy_ns = (used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime) * 1e9
        return {"frames": count / taken_ns * 1e9, "frame": busy_ns / count}

    def close(self):
        """Give everything back."""
        self.peer.close()
        self.ring.close()
        self.ring.unlink()


class WebsocketsOrjson:
    """The same by libraries, one Python object after the other."""

    def __init__(self, payloads):
        self.peer = Peer(b"".join(map(framed, payloads)))
        self.protocol = ClientProtocol(parse_uri("ws://127.0.0.1/"), state=State.OPEN)
        self.slots = np.zeros(1 << 15, m.TICK)
        self.position = 0

    def measure(self):
        """Take messages for a while."""
        count, protocol, ours, slots = 0, self.protocol, self.peer.socket, self.slots
        cpu, begin = resource.getrusage(resource.RUSAGE_SELF), time.monotonic_ns()
        until = begin + int(SECONDS * 1e9)
        while time.monotonic_ns() < until:
            try:
                data = ours.recv(1 << 16)
            except BlockingIOError:
                select.select([ours], [], [], 0.001)
                continue
            protocol.receive_data(data)
            for frame in protocol.events_received():
                event = orjson.loads(frame.data)["data"]
                slot = self.position & (len(slots) - 1)
                slots[slot]["price"] = round(float(event["p"]) * 100)
                slots[slot]["quantity"] = round(float(event["q"]) * 100_000_000)
                slots[slot]["id"], slots[slot]["venue_ns"] = event["t"], event["E"] * 1_000_000
                self.position += 1
                count += 1
        taken_ns = time.monotonic_ns() - begin
        used = resource.getrusage(resource.RUSAGE_SELF)
        busy_ns = (used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime) * 1e9
        return {"frames": count / taken_ns * 1e9, "frame": busy_ns / count}

    def close(self):
        """Give everything back."""
        self.peer.close()


def main():
    report = Report("reception")
    trades, depths = captured(b"@trade"), captured(b"@depth")
    binaries = [to_sbe(one) for one in trades]

    def once(make, payloads):
        """Make, warm up, measure once, and close: only one peer runs at a time."""
        one = make(payloads)
        try:
            one.measure()
            return one.measure()
        finally:
            one.close()

    cases = {
        "trade_json": lambda: once(Ours, trades),
        "depth_json": lambda: once(Ours, depths),
        "sbe": lambda: once(Ours, binaries),
        "websockets_orjson": lambda: once(WebsocketsOrjson, trades),
    }
    for name, row in interleaved(ROUNDS, cases).items():
        report.row(name, "frames", "1/s", row["frames"])
        report.row(name, "frame", "ns", row["frame"])


if __name__ == "__main__":
    main()
