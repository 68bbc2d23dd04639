"""Live market data from a venue through every part of ours, turned by hand: what tests of it share."""

from __future__ import annotations

import contextlib
import random
import time
import uuid

import numpy as np

from shrivenq.pipeline.instruments import Tables
from shrivenq.pipeline.rest import HttpClient, Requests, Side
from shrivenq.pipeline.topology import REST_BYTES
from shrivenq.pipeline.venue_symbols import Rules
from shrivenq.shm import byte_ring, segment
from shrivenq.stages import book, market_data, order_book
from shrivenq.stages import messages as m
from shrivenq.stages.live import source
from tests.pipeline.exchange.exchange_rig import TRADER
from tests.pipeline.pipeline_rig import rules
from tests.stages import book_rig
from tests.stages.market_rig import Log, Rig, joined

PATIENCE_S = 120  # kernels may be compiled first


class Stack:
    """market_data with the REST process's work beside it and a book behind it, turned by hand."""

    def __init__(self, venue, shared=None, symbols=(b"BTCUSDT",), **options):
        shared = shared or {}
        name = f"{segment.PREFIX}test-live-{uuid.uuid4().hex[:12]}"
        sizes = {"rest": REST_BYTES, "raw": 1 << 24}
        self.segments = [byte_ring.create(f"{name}-{part}", size) for part, size in sizes.items()]
        rest, raw = self.segments
        self.shown, self.streaming, self.away = (np.zeros(512, np.int64) for _ in range(3))
        options = {"stream_url": venue.ws, "rest_url": venue.rest, "snapshot_levels": 1000} | options
        config = source.Config(**options)
        self.rig = Rig(
            None,
            virtual=False,
            count=1 << 15,
            config=market_data.Config(source="binance", binance=config),
            raw=byte_ring.producer(raw),
            symbols=symbols,
            shared={
                "rest": byte_ring.consumer(rest),
                "live": self.shown,
                "streaming": self.streaming,
                "away": self.away,
                **shared,
            },
        )
        self.rig.set_clock(time.time_ns())
        self.raw = byte_ring.consumer(raw)
        self.client = HttpClient(config.rest_url, config.authority)
        self.requests = Requests(self.client)
        self.side = Side(
            config, Rules(Tables(self.rig.instruments, np.zeros(1, m.CURRENCY)), rules().risk), self.requests,
            byte_ring.producer(rest), self.rig.resync, self.streaming, self.away, np.zeros(16, np.int64),
            np.zeros(16, np.int64), np.zeros(16, np.int64), Log(), random.Random(1),
        )  # fmt: skip
        self.book = book_rig.make_rig(
            self.rig.instruments, book.Config(window_ticks=65_536, far_levels=8192, buffer_ticks=16_384), virtual=0,
            ticks=1 << 15, books=1 << 11, touches=1 << 11, fills=1 << 15,
        )  # fmt: skip
        self.ticks, self.books, self._valid = [], [], 0

    @property
    def source(self):
        return self.rig.feed.source

    def turn(self):
        for _ in range(50):
            self.rig.loop[0] = time.monotonic_ns()
            self.rig.step()
        found = self.rig.take()
        if len(found):
            self.ticks.append(found)
            rows = book_rig.send(self.book, found)[0]
            self.books.append(rows)
            self._valid += int(np.sum((rows["kind"] == m.DEPTH_BOOK) & ((rows["flags"] & m.VALID) != 0)))
        self.rig.resync[: len(self.rig.instruments)] = self.book.context.resync
        if self.side is not None:
            self.side.step()

    def until(self, condition, what):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"waited in vain: {what}; {self.rig.log.lines}; {self.side.log.lines}"
            self.turn()

    def valid(self):
        return self._valid

    def close(self):
        self.source.close()
        self.client.close()
        self.rig.close()
        for one in self.segments:
            one.close()
            one.unlink()


@contextlib.contextmanager
def stack_of(venue, encoding="json", **options):
    if encoding == "sbe":
        options = {
            "encoding": "sbe",
            "stream_url": f"{venue.ws}/sbe",
            "key": "file:here",
            "streams": ("depth", "trade", "bestBidAsk"),
            "shared": {"api_key": lambda: TRADER},
        } | options
    made = Stack(venue, **options)
    # The log of the rig knows warnings only.
    made.rig.log.info = made.side.log.info = made.rig.log.warning
    try:
        yield made
    finally:
        made.close()


def check_against_quotes(rows):
    """Compare each valid book's touch with the venue's own: the last bookTicker up to the book's update id."""
    quotes = rows[rows["kind"] == m.QUOTE]
    order = np.argsort(quotes["update_id"], kind="stable")
    quotes = quotes[order]
    depths = rows[(rows["kind"] == m.DEPTH_BOOK) & ((rows["flags"] & m.VALID) != 0)]
    compared = 0
    for depth in depths:
        at = int(np.searchsorted(quotes["update_id"], depth["update_id"], side="right")) - 1
        if at < 0:
            continue
        compared += 1
        for field in ("bid_price", "bid_quantity", "ask_price", "ask_quantity"):
            assert depth[field][0] == quotes[at][field][0], (field, depth["update_id"], quotes[at]["update_id"])
    return compared


def levels_of(stack, row=0):
    """Every level of a book: prices and quantities of both sides."""
    sides = []
    for side in (order_book.BID, order_book.ASK):
        count = 1 << 14
        prices, quantities = np.zeros(count, np.int64), np.zeros(count, np.int64)
        found = int(order_book.top(stack.book.context.books, row, side, prices, quantities, count))
        assert found < count
        sides.append(list(zip(prices[:found].tolist(), quantities[:found].tolist(), strict=True)))
    return sides


def trades_of(stack):
    rows = joined(stack.ticks)
    rows = rows[rows["kind"] == m.TRADE]
    return {int(row["id"]): (int(row["price"]), int(row["quantity"]), int(row["flags"])) for row in rows}
