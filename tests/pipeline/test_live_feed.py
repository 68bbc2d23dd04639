"""Live market data from the exchange simulator through every part of ours: a book that is right, and a replay of it."""

from __future__ import annotations

import contextlib
import random
import time
import uuid

import numpy as np
import pytest

from shrivenq.pipeline import rest
from shrivenq.pipeline.instruments import Tables
from shrivenq.pipeline.recorder import Recording
from shrivenq.pipeline.rest import HttpClient, Requests, Side
from shrivenq.shm import byte_ring, segment
from shrivenq.stages import book, book_sync, market_data, order_book
from shrivenq.stages import messages as m
from shrivenq.stages.frames import BINARY
from shrivenq.stages.live import receive, source
from tests.pipeline.exchange.exchange_rig import FLOWING, TRADER, running
from tests.stages import book_rig
from tests.stages.market_rig import Log, Rig, joined, without_stamps

PATIENCE_S = 120  # kernels may be compiled first


class Stack:
    """market_data with the REST process's work beside it and a book behind it, turned by hand."""

    def __init__(self, venue, shared=None, **options):
        shared = shared or {}
        name = f"{segment.PREFIX}test-live-{uuid.uuid4().hex[:12]}"
        self.segments = [byte_ring.create(f"{name}-{part}", 1 << 24) for part in ("rest", "raw")]
        rest, raw = self.segments
        self.shown, self.streaming = np.zeros(512, np.int64), np.zeros(512, np.int64)
        options = {"stream_url": venue.ws, "rest_url": venue.rest, "snapshot_levels": 1000} | options
        config = source.Config(**options)
        self.rig = Rig(
            None,
            virtual=False,
            count=1 << 15,
            config=market_data.Config(source="binance", binance=config),
            raw=byte_ring.producer(raw),
            shared={"rest": byte_ring.consumer(rest), "live": self.shown, "streaming": self.streaming, **shared},
        )
        self.rig.set_clock(time.time_ns())
        self.raw = byte_ring.consumer(raw)
        self.client = HttpClient(venue.rest)
        self.side = Side(
            config, Tables(self.rig.instruments, np.zeros(1, m.CURRENCY)), Requests(self.client),
            byte_ring.producer(rest), self.rig.resync, self.streaming, np.zeros(16, np.int64), np.zeros(16, np.int64),
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


@pytest.mark.parametrize("encoding", ["json", "sbe"])
def test_the_book_is_the_venues_and_its_recording_replays(venue, tmp_path, encoding):
    with stack_of(venue, encoding) as stack:
        stack.until(lambda: stack.valid() >= 20, "twenty valid books")
        rows = np.concatenate(stack.books)
        assert check_against_quotes(rows) >= 10
        assert (rows["kind"] == m.TRADE).any()
        recording = Recording(tmp_path / "recorded", "live", Log())
        frames = byte_ring.drain(stack.raw)
        assert (BINARY in {kind for kind, _, _ in frames}) == (encoding == "sbe")
        recording.add(frames)
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


def levels_of(stack):
    """Every level of a book: prices and quantities of both sides."""
    sides = []
    for side in (order_book.BID, order_book.ASK):
        count = 1 << 14
        prices, quantities = np.zeros(count, np.int64), np.zeros(count, np.int64)
        found = int(order_book.top(stack.book.context.books, 0, side, prices, quantities, count))
        assert found < count
        sides.append(list(zip(prices[:found].tolist(), quantities[:found].tolist(), strict=True)))
    return sides


def trades_of(stack):
    rows = joined(stack.ticks)
    rows = rows[rows["kind"] == m.TRADE]
    return {int(row["id"]): (int(row["price"]), int(row["quantity"]), int(row["flags"])) for row in rows}


def test_sbe_and_json_build_the_same_book(venue):
    with stack_of(venue) as text, stack_of(venue, "sbe") as binary:

        def turn():
            text.turn()
            return binary.turn()

        binary.until(lambda: text.valid() >= 10 <= binary.valid() or turn(), "valid books of both")
        # The market stands still, and both come to the same last update.
        venue.call(lambda: setattr(venue.venue.engine, "advance", lambda _now_us: None))
        last = venue.call(lambda: venue.venue.engine.depth("BTCUSDT", 5000))
        states = (text.book.state(), binary.book.state())
        binary.until(
            lambda: all(one["update_id"] == last.last_update_id for one in states) or turn(), "the last update"
        )
        assert all(one["status"] == book_sync.LIVE for one in states)
        assert levels_of(text) == levels_of(binary)
        shown = venue.venue.symbols["BTCUSDT"]
        assert levels_of(text)[0][:100] == [(price, quantity) for price, quantity in last.bids[:100]], shown
        assert levels_of(text)[1][:100] == [(price, quantity) for price, quantity in last.asks[:100]], shown
        # On the way, at every update that ended an event of both.
        rows = [np.concatenate(one.books) for one in (text, binary)]
        rows = [one[(one["kind"] == m.DEPTH_BOOK) & ((one["flags"] & m.VALID) != 0)] for one in rows]
        common = np.intersect1d(rows[0]["update_id"], rows[1]["update_id"])
        assert len(common) >= 1
        for update_id in common:
            first, second = (one[one["update_id"] == update_id][-1] for one in rows)
            for name in ("bid_count", "ask_count", "bid_price", "bid_quantity", "ask_price", "ask_quantity"):
                assert (first[name] == second[name]).all(), (name, update_id)
        first, second = trades_of(text), trades_of(binary)
        assert set(first) & set(second)
        assert all(second[number] == one for number, one in first.items() if number in second)


def test_partial_depth_in_sbe_is_a_book_without_a_snapshot(venue):
    with stack_of(venue, "sbe", streams=("depth20", "bestBidAsk")) as stack:
        stack.until(lambda: stack.valid() >= 5, "valid books")
        assert not any("depth?" in line for line in map(str, stack.side.log.lines))
        assert stack.side.words[rest.SNAPSHOTS] == 0
        assert check_against_quotes(np.concatenate(stack.books)) >= 3


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


@pytest.mark.parametrize("encoding", ["json", "sbe"])
def test_a_roll_over_loses_and_repeats_nothing(venue, encoding):
    with stack_of(venue, encoding, roll_h=1.0 / 3600) as stack:
        stack.until(lambda: stack.shown[source.CONNECTS] >= 3, "two switches")
        count = stack.valid()
        stack.until(lambda: stack.valid() > count + 3, "books after them")
        assert stack.book.state()["losses"] == 0
        assert stack.book.state()["gaps"] == 0
        ticks = joined(stack.ticks)
        trades = ticks[ticks["kind"] == m.TRADE]["id"]
        assert (np.diff(trades) == 1).all(), "trade ids leave none out"
        assert check_against_quotes(np.concatenate(stack.books)) >= 5
