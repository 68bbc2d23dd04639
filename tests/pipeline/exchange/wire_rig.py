"""A client of the WebSocket API over the network, as plain as it can be."""

from __future__ import annotations

import contextlib
import time

import orjson
from websockets.sync.client import connect

from shrivenq.pipeline.exchange.requests import METHODS
from tests.pipeline.exchange.exchange_rig import TRADER
from tests.pipeline.exchange.ws_api_rig import ALICE, sign


def now_ms():
    """Give the time as requests carry it."""
    return time.time_ns() // 1_000_000


class Client:
    """One connection of the WebSocket API."""

    def __init__(self, wire):
        self.wire = wire
        self.number = 0

    def log_on(self):
        """Log on, and follow the account."""
        logon = {"apiKey": TRADER, "timestamp": now_ms()}
        assert self.ask("session.logon", {**logon, "signature": sign(logon, ALICE)})["status"] == 200
        assert self.ask("userDataStream.subscribe")["status"] == 200

    def send(self, method, params=None):
        """Send a request; give its id."""
        self.number += 1
        params = dict(params or {})
        if METHODS[method].security in {"TRADE", "USER_DATA"}:
            params.setdefault("timestamp", now_ms())
        self.wire.send(orjson.dumps({"id": self.number, "method": method, "params": params}).decode())
        return self.number

    def next(self):
        """Give the next message."""
        return orjson.loads(self.wire.recv(timeout=30))

    def ask(self, method, params=None):
        """Send a request; give its response, and skip everything before it."""
        number = self.send(method, params)
        while (message := self.next()).get("id") != number:
            pass
        return message

    def until_answer(self, number):
        """Give all messages up to the response to `number`."""
        found = [self.next()]
        while found[-1].get("id") != number:
            found.append(self.next())
        return found


@contextlib.contextmanager
def connected(rig, query="", *, logged_on=True):
    """Connect to the WebSocket API of a simulator that runs."""
    with connect(f"{rig.ws}/ws-api/v3{query}", open_timeout=30, max_size=None) as wire:
        client = Client(wire)
        if logged_on:
            client.log_on()
        yield client
