"""What one would write without ShrivenQ: clients that keep a book and answer a move of the best bid with an order.

The same decision as `strategies/follow_bid.py`, by the fastest libraries there are for each part: a process pinned to
the CPU ours has, prices as floats, whole sides in sorted lists of which the last ten are the book, an order from a
template. Nothing is checked, journaled or reconciled, and what the venue answers is thrown away.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import os
import time
import urllib.request

import bare
import msgspec
import orjson
import peer_state as p
import picows
import uvloop
from harness import BenchmarkError
from websockets.asyncio.client import connect

from shrivenq.pipeline import processes
from shrivenq.shm.atomics import load_word

QUANTITIES = 128
ORDER = (
    b'{"id":"N000%032x","method":"order.place","params":{"symbol":"BTCUSDT","side":"BUY","type":"LIMIT",'
    b'"timeInForce":"IOC","price":"%.2f","quantity":"%.5f","newClientOrderId":"0123abcd-1-%d",'
    b'"newOrderRespType":"ACK","recvWindow":2000,"timestamp":%d}}'
)


def write_order(number, bid):
    """Spell the order of that number, to buy at that best bid."""
    quantity = 0.0001 + number % QUANTITIES * 0.00001
    return ORDER % (number, bid, quantity, number, time.time_ns() // 1_000_000)


class Depth(msgspec.Struct):
    """What of a depth event is read."""

    b: list[tuple[str, str]]
    a: list[tuple[str, str]]


class Event(msgspec.Struct):
    """A message of a combined stream."""

    data: Depth


class Side:
    """One side of the book: prices sorted, the best one last, and their quantities."""

    def __init__(self, sign, levels):
        self.sign = sign  # asks are sorted by their negative
        self.quantities = {sign * float(price): float(quantity) for price, quantity in levels}
        self.prices = sorted(self.quantities)

    def update(self, levels):
        """Take the changed levels of an event."""
        sign, prices, quantities = self.sign, self.prices, self.quantities
        for text, size in levels:
            price, quantity = sign * float(text), float(size)
            if quantity == 0.0:
                if quantities.pop(price, None) is not None:
                    del prices[bisect.bisect_left(prices, price)]
            else:
                if price not in quantities:
                    bisect.insort(prices, price)
                quantities[price] = quantity

    def best_ten(self):
        """List the ten best levels."""
        return self.prices[-10:]


class Decision:
    """The book, and the order that a move of its best bid causes."""

    def __init__(self, snapshot):
        self.bids, self.asks = Side(1.0, snapshot["bids"]), Side(-1.0, snapshot["asks"])
        self.bid = self.bids.prices[-1]
        self.numbers = itertools.count(1)

    def take(self, bids, asks):
        """Take an event; return the request it causes, None for none."""
        self.bids.update(bids)
        self.asks.update(asks)
        best = self.bids.best_ten()
        self.asks.best_ten()
        if best[-1] == self.bid:
            return None
        self.bid = best[-1]
        return write_order(next(self.numbers), self.bid)


def _snapshot(rest_url):
    with urllib.request.urlopen(f"{rest_url}/api/v3/depth?symbol=BTCUSDT&limit=1000") as answer:  # noqa: S310 - ours
        return orjson.loads(answer.read())


# ── picows and msgspec ───────────────────────────────────────────────────────────────────────────────────────────────


class _Orders(picows.WSListener):
    def on_ws_frame(self, _transport, _frame):
        """Throw away what the venue answers."""


class _Market(picows.WSListener):
    def __init__(self, decision, orders):
        self.decision, self.orders = decision, orders
        self.decoder = msgspec.json.Decoder(Event)

    def on_ws_frame(self, _transport, frame):
        """Decode, update, decide, send."""
        data = self.decoder.decode(frame.get_payload_as_memoryview()).data
        request = self.decision.take(data.b, data.a)
        if request is not None:
            self.orders.send(picows.WSMsgType.TEXT, request)


async def _picows(venue, *, spin):
    decision = Decision(_snapshot(venue.rest_url))
    orders, _ = await picows.ws_connect(_Orders, f"{venue.url}/ws-api/v3")
    market, _ = await picows.ws_connect(lambda: _Market(decision, orders), f"{venue.url}/stream")
    if spin:
        loop = asyncio.get_running_loop()

        def again():
            loop.call_soon(again)

        again()
    await market.wait_disconnected()


# ── websockets and orjson ────────────────────────────────────────────────────────────────────────────────────────────


async def _websockets(venue):
    decision = Decision(_snapshot(venue.rest_url))
    options = {"compression": None, "ping_interval": None, "max_size": None}
    async with (
        connect(f"{venue.url}/ws-api/v3", **options) as orders,
        connect(f"{venue.url}/stream", **options) as market,
    ):
        thrown_away = asyncio.create_task(_throw_away(orders))
        async for text in market:
            data = orjson.loads(text)["data"]
            request = decision.take(data["b"], data["a"])
            if request is not None:
                await orders.send(request, text=True)
        await thrown_away


async def _throw_away(connection):
    async for _ in connection:
        pass


# ── a process of it ──────────────────────────────────────────────────────────────────────────────────────────────────

CLIENTS = {
    "bare": lambda venue: bare.run(venue, write_order),
    "picows_msgspec_spin": lambda venue: uvloop.run(_picows(venue, spin=True)),
    "picows_msgspec": lambda venue: uvloop.run(_picows(venue, spin=False)),
    "websockets_orjson": lambda venue: asyncio.run(_websockets(venue)),
}
CONNECT_S = 20.0


class Client:
    """One of them in a process of its own, connected to a venue; a context manager."""

    def __init__(self, name, venue):
        self.name, self.venue = name, venue

    def __enter__(self):
        self.venue.let_market_in()
        self.process = processes.start(self.name, self._main)
        deadline = time.monotonic() + CONNECT_S
        while load_word(self.venue.words, p.STATE) != p.CONNECTED:
            self.check()
            if time.monotonic() > deadline:
                self.__exit__()
                raise BenchmarkError(f"{self.name}: not connected in {CONNECT_S:.0f} s")
            time.sleep(0.001)
        return self

    def __exit__(self, *_):
        processes.stop([self.process], 0.0)

    def _main(self):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        CLIENTS[self.name](self.venue)
        return 0

    def check(self):
        """Raise BenchmarkError if it has ended, or the venue has found something wrong."""
        if not self.process.alive():
            raise BenchmarkError(f"{self.name}: has ended: exit code {self.process.status}")
        self.venue.check()
