"""FIX at the benchmarks' venue, Python's half: a logon and a question for limits, before orders are compiled code's."""

from __future__ import annotations

import contextlib
import socket
import time

import peer_state as p
from harness import BenchmarkError

from shrivenq.pipeline.exchange import fix_wire
from shrivenq.shm.atomics import store_word

LIMIT = "999999999"
LIMITS = [(25003, "2")]
for _kind, _number, _unit in (("1", "10", "s"), ("2", "10", "s")):
    LIMITS += [(25004, _kind), (25005, "0"), (25006, LIMIT), (25007, _number), (25008, _unit)]


class FixDesk:
    """One FIX session with a client, once it has connected."""

    def __init__(self, accepted, words):
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setblocking(False)
        self.socket, self.words = accepted, words
        self.frames = fix_wire.Frames()
        self.number = 1

    def look(self):
        """Answer what has come."""
        try:
            self.frames.add(self.socket.recv(1 << 16))
        except (BlockingIOError, ConnectionError):
            return
        while (message := self.frames.next()) is not None:
            self._answer(message)

    def _answer(self, message):
        kind, sender = message.kind, message.get(49)
        if kind == "A":
            self._send("A", sender, [(98, "0"), (108, message.get(108)), (25037, "bench")])
        elif kind == "XLQ":
            self._send("XLR", sender, [(6136, message.get(6136)), *LIMITS])
            self._hand_over(sender, int(message.get(34)))
        elif kind == "5":
            self._send("5", sender, [])

    def _send(self, kind, sender, fields):
        message = fix_wire.write(kind, "SPOT", sender, self.number, time.time_ns() // 1_000, fields)
        with contextlib.suppress(ConnectionError):  # a client that has gone hears nothing
            self.socket.send(message)
        self.number += 1

    def _hand_over(self, sender, number):
        """Leave the session to compiled code: from here on orders come by it."""
        if len(sender) != 8:
            raise BenchmarkError(f"SenderCompID {sender}: eight characters expected")
        store_word(self.words, p.ORDERS, self.socket.fileno())
        store_word(self.words, p.FIX_IN, number + 1)
        store_word(self.words, p.FIX_OUT, self.number)
        store_word(self.words, p.FIX_SENDER, int.from_bytes(sender.encode(), "little", signed=True))
