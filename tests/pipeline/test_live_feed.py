"""Live market data from the exchange simulator through every part of ours: a book that is right, and a replay of it."""

from __future__ import annotations

import contextlib
import random
import time
import uuid

import numpy as np
import pytest

from shrivenq.pipeline.instruments import Tables
from shrivenq.pipeline.recorder import Recording
from shrivenq.pipeline.rest import HttpClient, Requests, Side
from shrivenq.shm import byte_ring, segment
from shrivenq.stages import book, book_sync, market_data
from shrivenq.stages import messages as m
from shrivenq.stages.live import receive, source
from tests.pipeline.exchange.exchange_rig import FLOWING, running
from tests.stages import book_rig
from tests.stages.market_rig import Log, Rig, joined, without_stamps

PATIENCE_S = 30


class Stack:
    """market_data with the REST process's work beside it and a book behind it, turned by hand."""

    def __init__(self, venue, **options):
        name = f"{segment.PREFIX}test-live-{uuid.uuid4().hex[:12]}"
        self.segments = [byte_ring.create(f"{name}-{part}", 1 << 24) for part in ("rest", "raw")]
        rest, raw = self.segments
        self.shown = np.zeros(512, np.int64)
        config = source.Config(stream_url=venue.ws, rest_url=venue.rest, snapshot_levels=1000, **options)
        self.rig = Rig(
            None,
            virtual=False,
            count=1 << 15,
            config=market_data.Config(source="binance", binance=config),
            raw=byte_ring.producer(raw),
            shared={"rest": byte_ring.consumer(rest), "live": self.shown},
        )
        self.rig.set_clock(time.time_ns())
        self.raw = byte_ring.consumer(raw)
        self.client = HttpClient(venue.rest)
        self.side = Side(
            config, Tables(self.rig.instruments, np.zeros(1, m.CURRENCY)), Requests(self.client),
            byte_ring.producer(rest), self.rig.resync, self.shown, np.zeros(16, np.int64), np.zeros(16, np.int64),
            Log(), random.Random(1),
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
        self.rig.resync[:1] = self.book.context.resync
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


@pytest.fixture
def venue(tmp_path):
    with running(tmp_path, market=FLOWING) as rig:
        yield rig


@contextlib.contextmanager
def stack_of(venue, **options):
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


def test_the_book_is_the_venues_and_its_recording_replays(venue, tmp_path):
    with stack_of(venue) as stack:
        stack.until(lambda: stack.valid() >= 20, "twenty valid books")
        rows = np.concatenate(stack.books)
        assert check_against_quotes(rows) >= 10
        assert (rows["kind"] == m.TRADE).any()
        recording = Recording(tmp_path / "recorded", "live", Log())
        recording.add(byte_ring.drain(stack.raw))
        recording.close()
        live = joined(stack.ticks)
    replayed = Rig(
        None,
        virtual=True,
        count=1 << 15,
        config=market_data.Config(source="capture", path=str(tmp_path / "recorded")),
    )
    try:
        found = []
        while not replayed.loop[12]:
            replayed.step()
            found.append(replayed.take())
        found = joined(found)
    finally:
        replayed.close()
    assert without_stamps(found).tobytes() == without_stamps(live).tobytes()


def test_a_cut_connection_invalidates_the_book_until_a_new_snapshot(venue):
    with stack_of(venue) as stack:
        stack.until(lambda: stack.valid() >= 3, "valid books")
        before = stack.valid()
        row = stack.source.live.rows[0]
        # As if the network had gone: our side of the socket is shut.
        stack.source._groups[0].link._transport._socket.shutdown(2)
        stack.until(lambda: row["mode"] == receive.OFF or stack.shown[source.LOSSES] == 1, "the loss")
        stack.until(lambda: stack.book.state()["status"] != book_sync.LIVE, "an invalid book")
        stack.until(lambda: stack.valid() >= before + 5, "valid books again")
        assert stack.book.state()["losses"] == 1
        assert stack.shown[source.CONNECTS] == 2
        assert check_against_quotes(np.concatenate(stack.books)) >= 5


def test_a_roll_over_loses_and_repeats_nothing(venue):
    with stack_of(venue, roll_h=1.0 / 3600) as stack:
        stack.until(lambda: stack.shown[source.CONNECTS] >= 3, "two switches")
        count = stack.valid()
        stack.until(lambda: stack.valid() > count + 3, "books after them")
        assert stack.book.state()["losses"] == 0
        assert stack.book.state()["gaps"] == 0
        ticks = joined(stack.ticks)
        trades = ticks[ticks["kind"] == m.TRADE]["id"]
        assert (np.diff(trades) == 1).all(), "trade ids leave none out"
        assert check_against_quotes(np.concatenate(stack.books)) >= 5
