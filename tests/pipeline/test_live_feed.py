"""Live market data from the exchange simulator through every part of ours: a book that is right, and a replay of it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import zstandard

from shrivenq.pipeline import rest
from shrivenq.pipeline.recorder import Recording
from shrivenq.shm import byte_ring
from shrivenq.stages import book_sync, market_data
from shrivenq.stages import messages as m
from shrivenq.stages.frames import BINARY
from shrivenq.stages.live import receive, source
from tests.pipeline.exchange.exchange_rig import FLOWING, running
from tests.pipeline.feed_rig import PATIENCE_S, check_against_quotes, levels_of, stack_of, trades_of
from tests.stages.market_rig import Log, Rig, joined, without_stamps


@pytest.fixture
def venue(tmp_path):
    with running(tmp_path, market=FLOWING) as rig:
        yield rig


@pytest.mark.parametrize("encoding", ["json", "sbe"])
def test_the_book_is_the_venues_and_its_recording_replays(venue, tmp_path, encoding):
    with stack_of(venue, encoding) as stack:
        stack.until(lambda: stack.valid() >= 20, "twenty valid books")
        rows = np.concatenate(stack.books)
        assert check_against_quotes(rows) >= 10
        assert (rows["kind"] == m.TRADE).any()
        recording = Recording(tmp_path / "recorded", "live", Log())
        frames = byte_ring.drain(stack.raw)
        assert any(kind & BINARY for kind, _, _ in frames) == (encoding == "sbe")
        recording.add(frames)
        recording.close()
        (path,) = (tmp_path / "recorded").iterdir()
        text = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read()
        stamps = [(int(one) - int(time)) / 1e9 for time, one in re.findall(rb"(\d+)@CLOCK_REALTIME:(\d+) ", text)]
        assert bool(stamps) == (stack.shown[source.CLOCK] == 1)
        assert all(abs(one) < PATIENCE_S for one in stamps)
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


@pytest.mark.parametrize("encoding", ["json", "sbe"])
def test_under_tls_the_book_is_the_venues_too(tmp_path, encoding):
    with running(tmp_path, market=FLOWING, tls={"generate": "tls"}) as venue:
        venue.ws, venue.rest = f"wss://127.0.0.1:{venue.port}", f"https://127.0.0.1:{venue.port}"
        authority = str(tmp_path / "tls" / "authority.pem")
        with stack_of(venue, encoding, authority=authority, roll_h=1.0 / 3600) as stack:
            stack.until(lambda: stack.valid() >= 10 and stack.shown[source.CONNECTS] >= 2, "valid books, and a switch")
            assert check_against_quotes(np.concatenate(stack.books)) >= 5
            assert stack.book.state()["losses"] == stack.book.state()["gaps"] == 0
