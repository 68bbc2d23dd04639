"""The book stage against its naive twin, on random streams and on the captures."""

from __future__ import annotations

import gzip
import random
from bisect import bisect_right
from itertools import islice

import numpy as np
import pytest

from shrivenq.shm import ring
from shrivenq.stages import book, book_sync, order_book
from shrivenq.stages import messages as m
from shrivenq.stages.stage import FAULT, FAULT_DETAIL, FAULT_RING_FULL, FAULT_SEQUENCE
from shrivenq.stages.venues import binance
from shrivenq.stages.venues.binance_symbols import make_symbols
from tests.stages.book_rig import (
    MARKETS,
    check_depth,
    drain,
    instruments_of,
    levels,
    live_rig,
    make_rig,
    marker,
    send,
    ticks_of,
    top_ten,
)
from tests.stages.naive_book import Diff, NaiveBook, Quote, Snapshot, Trade, read_capture

# ── captures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def decoded(paths, market):
    """Decode a capture with the compiled decoder: the TICK records of one event after the other."""
    instruments = instruments_of(market)
    symbols = make_symbols(instruments)
    event = np.zeros(binance.EVENT_MAX, m.TICK)
    cause = 0
    for path in paths:
        text = gzip.decompress(path.read_bytes())
        data = np.frombuffer(text + bytes(binance.PADDING), np.uint8)
        at = 0
        while at < len(text):
            space, end = text.index(b" ", at), text.index(b"\n", at)
            time_ns = int(text[at:space])
            count = binance.decode(data, space + 1, end, symbols, instruments, event, time_ns, cause)
            assert count > 0, text[at:end]
            yield event[:count].copy()
            cause += 1
            at = end + 1


def joined(events):
    """Concatenate TICK records; numpy's own would give the fields that share an offset places of their own."""
    return np.concatenate([event.view(np.int64) for event in events]).view(m.TICK)


def replayed(rig, events):
    """Send many events at a time; yield what came of each: BOOKs and TOUCHes."""
    causes = 0
    while chunk := list(islice(events, 256)):
        books, touches, fills = send(rig, joined(chunk))
        assert len(fills) == sum(map(len, chunk))
        edges = np.arange(causes, causes + len(chunk) + 1)
        book_edges, touch_edges = np.searchsorted(books["cause"], edges), np.searchsorted(touches["cause"], edges)
        for i in range(len(chunk)):
            yield books[book_edges[i] : book_edges[i + 1]], touches[touch_edges[i] : touch_edges[i + 1]]
        causes += len(chunk)


RUNS = {
    # market, files, agreeing, compared, last u, bid, ask, bid levels, ask levels, blind after s (None: not checked):
    # first the touch that bookTicker tells, which may be gone again by the next depth event, then the book's own.
    "spot": ("spot", "*", 6491, 6493, 50093696318, 6160201, 6160202, 1971, 2962, (247, 260)),
    "usdm_0718": ("usdm", "*_2024071*", 9017, 9017, 4984057064916, 6386740, 6386750, 5276, 5156, None),
    "usdm_0808": ("usdm", "*_20240808*", 6547, 6547, 5123135475514, 6165970, 6165980, 5018, 4578, (216, 216)),
    "cm": ("cm", "*", 44772, 44772, 1007206781963, 616000, 616001, 1510, 1733, None),
}


def agreement(points, quotes):
    """Count the (u, bid, ask) that equal the last quote with an id up to u."""
    quotes = sorted(quotes)
    ids = [quote[0] for quote in quotes]
    return sum(quotes[bisect_right(ids, u) - 1][1:] == (bid, ask) for u, bid, ask in points)


def capture_rig(market):
    config = book.Config(window_ticks=16_384, far_levels=8_192)
    return make_rig(instruments_of(market), config, books=1 << 11, touches=1 << 11, fills=1 << 13)


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_captures_give_the_documented_figures(data, run):
    market, files, agreeing, compared, last, bid, ask, bids, asks, blind_s = RUNS[run]
    paths = sorted((data / "binance" / market).glob(f"{files}.gz"))
    rig = capture_rig(market)
    twin = NaiveBook(MARKETS[market][5] == 1)
    points, quotes, blind_ns, start_ns = [], [], [0, 0], 0
    known_low = known_high = 0
    events = read_capture(paths, *MARKETS[market][3:5])
    outcomes = replayed(rig, decoded(paths, market))
    for number, (event, (books, touches)) in enumerate(zip(events, outcomes, strict=True)):
        where = f"{run}, line {number + 1}"
        published = True
        start_ns = start_ns or event.time_ns
        if isinstance(event, Diff):
            published = twin.diff(event)
        elif isinstance(event, Snapshot):
            published = twin.snapshot(event)
            known_low = min(price for side, price, _ in event.levels if side == order_book.BID)
            known_high = max(price for side, price, _ in event.levels if side == order_book.ASK)
        if isinstance(event, Quote):
            quotes.append((event.id, event.bid, event.ask))
            assert top_ten(books[0]) == [[event.bid], [event.ask]], where
            if twin.live and not known_low <= event.bid[0] < event.ask[0] <= known_high:
                blind_ns[0] = blind_ns[0] or event.time_ns - start_ns
        if isinstance(event, Quote | Trade):
            assert (len(books), len(touches)) == (1, 0), where
            continue
        assert len(books) == len(touches) == published, where
        if published:
            check_depth(twin, books[0], touches[0], event, where)
            if twin.live and isinstance(event, Diff):
                points.append((twin.last, twin.bids.best(), twin.asks.best()))
            if twin.live:
                blind = not known_low <= twin.bids.best()[0] < twin.asks.best()[0] <= known_high
                assert bool(books[0]["flags"] & m.BLIND) == bool(touches[0]["flags"] & m.BLIND) == blind, where
                if blind:
                    blind_ns[1] = blind_ns[1] or event.time_ns - start_ns
    points += twin.replayed
    assert (agreement(points, quotes), len(points)) == (agreeing, compared)
    state = rig.state()
    assert book_sync.STATUS[state["status"]] == "live"
    assert (state["update_id"], state["events"], state["replayed"]) == (last, compared, len(twin.replayed))
    assert (state["gaps"], state["crossed"], state["refused"]) == (0, 0, 0)
    assert state["resyncs"] == rig.context.resync[0] - state["blinded"] == twin.requests
    assert state["blinded"] == twin.renewals == twin.wants_more
    books = rig.context.books
    assert [order_book.best_price(books, 0, side) for side in (0, 1)] == [bid, ask]
    assert [order_book.level_count(books, 0, side) for side in (0, 1)] == [bids, asks]
    if blind_s is not None:
        assert tuple(one // 1_000_000_000 for one in blind_ns) == blind_s


@pytest.mark.slow
def test_twenty_days_between_two_runs_are_one_gap(data):
    rig = capture_rig("usdm")
    paths = sorted((data / "binance" / "usdm").glob("*.gz"))
    invalid = [
        int(one["cause"])
        for books, _ in replayed(rig, decoded(paths, "usdm"))
        for one in books
        if one["kind"] == m.DEPTH_BOOK and not one["flags"] & m.VALID
    ]
    state = rig.state()
    assert (state["gaps"], state["snapshots"], state["resyncs"]) == (1, 2, 2)
    assert (state["update_id"], state["events"]) == (5123135475514, 9017 + 6547)
    assert book_sync.STATUS[state["status"]] == "live"
    assert len(invalid) == 6 + 6  # what came before either snapshot


# ── random streams ───────────────────────────────────────────────────────────────────────────────────────────────────


class Venue:
    """One instrument's stream, with everything that goes wrong: loss, repeats, overlaps, old snapshots, crosses."""

    def __init__(self, rng, *, futures):
        self.rng = rng
        self.futures = futures
        self.update_id = rng.randrange(1, 1000)
        self.time_ns = 1_000
        self.sent = []

    def levels(self, most):
        rng = self.rng
        crossing = 20 if rng.random() < 0.02 else 0
        found = []
        for _ in range(rng.randrange(most)):
            side = rng.randrange(2)
            away = rng.randrange(1, 50) - crossing
            found.append((side, 1_000 + (away if side else -away), rng.choice([0, 1, 2, 3])))
        return found

    def diff(self):
        rng = self.rng
        previous = self.update_id
        first = previous + 1 + (rng.randrange(3) if self.futures else 0)
        self.update_id = first + rng.randrange(5)
        if not self.futures and rng.random() < 0.1:
            first -= rng.randrange(3)
        made = Diff(first, self.update_id, previous if self.futures else -1, self.levels(8))
        self.sent.append(made)
        return made

    def next(self):
        """Make the next event; None when it got lost."""
        rng = self.rng
        self.time_ns += rng.randrange(3)
        kind = rng.random()
        if kind < 0.70:
            event = self.diff()
            if rng.random() < 0.05:
                return None
        elif kind < 0.75 and self.sent:
            event = rng.choice(self.sent[-3:])
        elif kind < 0.85:
            behind = rng.choice([0, 0, 2, 5, 20])
            event = Snapshot(max(0, self.update_id - behind), self.levels(30))
        elif kind < 0.92:
            event = Quote(self.update_id, (990, 5), (1010, 6))
        else:
            event = Trade(rng.randrange(100), 1_000, 7, rng.random() < 0.5)
        event.time_ns = self.time_ns
        event.venue_ns = self.time_ns - 5
        return event


def check_outcome(twin, event, books, touches, where):
    """Compare what the stage published for one event with what the twin says."""
    if isinstance(event, Quote):
        assert (books["kind"].tolist(), len(touches)) == ([m.QUOTE], 0), where
        assert top_ten(books[0]) == [[event.bid], [event.ask]], where
        assert books[0]["update_id"] == event.id, where
    elif isinstance(event, Trade):
        assert (books["kind"].tolist(), len(touches)) == ([m.TRADE], 0), where
        trade = books[0]
        assert (trade["trade_id"], trade["price"], trade["quantity"]) == (event.id, event.price, event.quantity)
        assert bool(trade["flags"] & m.SELLER_AGGRESSED) == event.seller_aggressed, where
    else:
        published = twin.diff(event) if isinstance(event, Diff) else twin.snapshot(event)
        assert books["kind"].tolist() == touches["kind"].tolist() == [m.DEPTH_BOOK] * published, where
        if published:
            check_depth(twin, books[0], touches[0], event, where)


def check_loss(twins, books, touches, where, only=None):
    """After a loss the books, or the `only` one, are published, empty and invalid; return what came after that."""
    rows = range(len(twins)) if only is None else [only]
    for row in rows:
        twins[row].lose()
    count = len(rows)
    assert books["instrument"][:count].tolist() == touches["instrument"][:count].tolist() == list(rows), where
    assert not ((books["flags"][:count] | touches["flags"][:count]) & m.VALID).any(), where
    assert all(top_ten(one) == [[], []] for one in books[:count]), where
    return books[count:], touches[count:]


def run_random(seed, *, virtual):
    rng = random.Random(seed)
    markets = ("spot", "cm", "cm")
    rig = make_rig(instruments_of(*markets), virtual=virtual)
    venues = [Venue(rng, futures=market != "spot") for market in markets]
    twins = [NaiveBook(futures=market != "spot") for market in markets]
    for number in range(400):
        where = f"seed {seed}, event {number}"
        if rng.random() < 0.01:
            only = rng.choice((None, 0, 1, 2))
            books, touches, _ = send(rig, marker(m.LOST, -1 if only is None else only))
            books, touches = check_loss(twins, books, touches, where, only)
            assert len(books) == len(touches) == 0, where
        i = rng.randrange(3)
        event = venues[i].next()
        if event is None:
            continue
        gap = rng.random() < 0.01
        books, touches, fills = send(rig, ticks_of(event, i, number), gap=gap)
        assert (fills["cause"] == number).all(), where
        assert (fills["instrument"] == i).all(), where
        assert (books["wire_ns"] == number * 10 + 1).all(), where
        assert (books["decoded_ns"] == number * 10 + 2).all(), where
        assert (books["book_ns"] > 0).all(), where
        assert (books["cause"] == number).all(), where
        assert (books["time_ns"] == event.time_ns).all(), where
        if gap:
            books, touches = check_loss(twins, books, touches, where)
        assert (books["venue_ns"] == event.venue_ns).all(), where
        check_outcome(twins[i], event, books, touches, where)
        for name in ("gaps", "crossed"):
            assert rig.context.state[name].tolist() == [getattr(one, name) for one in twins], where
        assert rig.context.state["blinded"].tolist() == [one.renewals for one in twins], where
        invalid = rig.context.resync - rig.context.state["blinded"]
        assert invalid.tolist() == [one.requests for one in twins], where
    return twins


@pytest.mark.parametrize("virtual", [0, 1])
def test_random_streams_give_the_twins_books(virtual):
    twins = [twin for seed in range(40) for twin in run_random(seed, virtual=virtual)]
    # Otherwise the streams are not the test they are meant to be.
    for name in ("gaps", "crossed", "live", "renewals", "late"):
        assert sum(getattr(twin, name) for twin in twins) > 20, name
    assert sum(len(twin.replayed) for twin in twins) > 20


# ── one thing at a time ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_snapshot_larger_than_every_ring_passes():
    rig = make_rig(
        instruments_of("spot"), book.Config(window_ticks=1024, far_levels=2048), ticks=64, fills=16, books=4, touches=4
    )
    wide = [(side, 5_000 + (away if side else -away), away) for side in (0, 1) for away in range(1, 1_500)]
    books, touches, fills = send(rig, ticks_of(Snapshot(10, wide)))
    assert (len(books), len(touches), len(fills)) == (1, 1, len(wide) + 2)
    assert top_ten(books[0]) == [[(5_000 + sign * away, away) for away in range(1, 11)] for sign in (-1, 1)]
    assert order_book.level_count(rig.context.books, 0, order_book.BID) == 1_499


def test_events_of_unknown_instruments_are_counted_only():
    rig = live_rig()
    events = (Diff(11, 11, -1, levels()), Snapshot(10, levels()), Quote(1, (1, 1), (2, 2)), Trade(1, 1, 1, True))
    for instrument in (-1, 1, 1 << 30):
        for event in events:
            books, touches, fills = send(rig, ticks_of(event, instrument))
            assert (len(books), len(touches)) == (0, 0)
            assert len(fills) > 0
    assert rig.context.words[book_sync.UNKNOWN] == 15  # a quote has two records
    assert rig.state()["status"] == book_sync.LIVE


def test_a_timer_passes():
    rig = live_rig()
    timer = marker(m.TIMER)
    timer["time_ns"] = 77
    books, touches, fills = send(rig, timer)
    assert (books["kind"].tolist(), books["time_ns"].tolist()) == ([m.TIMER], [77])
    assert (len(touches), len(fills)) == (0, 2)


# ── rings ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_sequence_is_a_fault():
    rig = live_rig()
    position = int(rig.tick.own[ring.HEAD])
    rig.tick.slots[position & (len(rig.tick.slots) - 1)]["sequence"] = position + 1
    rig.tick.own[ring.HEAD] = rig.tick.own[ring.NEXT] = position + 1
    assert book.step(rig.context, rig.loop) == 0
    assert (rig.loop[FAULT], rig.loop[FAULT_DETAIL]) == (FAULT_SEQUENCE, position)


def push(rig, records):
    """Put records on `tick` and step once; nobody reads what comes out."""
    head, mask = int(rig.tick.own[ring.HEAD]), len(rig.tick.slots) - 1
    positions = np.arange(head, head + len(records))
    rig.tick.slots[positions & mask] = records
    rig.tick.slots["sequence"][positions & mask] = positions
    rig.tick.own[ring.HEAD] = rig.tick.own[ring.NEXT] = head + len(records)
    return book.step(rig.context, rig.loop)


@pytest.mark.parametrize("full", ["book", "touch", "fill_feed"])
def test_in_replay_a_full_ring_is_waited_for(full):
    rig = live_rig(books=4, touches=4, fills=16)
    ends = {"book": rig.book, "touch": rig.touch, "fill_feed": rig.fill_feed}
    found = []
    taken = 0
    for last in range(11, 31):
        taken += push(rig, ticks_of(Diff(last, last, -1, levels(quantity=last))))
        for name, consumer in ends.items():
            if name != full:
                drain(consumer)
    assert taken < 80
    assert book.step(rig.context, rig.loop) == 0
    for _ in range(100):
        for name, consumer in ends.items():
            found += drain(consumer)["flags"].tolist() if name == full else drain(consumer)[:0].tolist()
        taken += book.step(rig.context, rig.loop)
    assert taken == 80
    assert len(found) == (80 if full == "fill_feed" else 20)
    assert not any(flags & m.GAP for flags in found)
    assert not any(rig.context.words[book_sync.TOUCH_DROPPED : book_sync.HOLD + 1])
    assert rig.state()["update_id"] == 30


@pytest.mark.parametrize("full", ["book", "touch", "fill_feed"])
def test_live_a_full_ring_drops_and_says_so(full):
    rig = live_rig(virtual=0, books=4, touches=4, fills=16)
    ends = {"book": rig.book, "touch": rig.touch, "fill_feed": rig.fill_feed}
    for last in range(11, 31):
        assert push(rig, ticks_of(Diff(last, last, -1, levels(quantity=last)))) == 4
        for name, consumer in ends.items():
            if name != full:
                assert not (drain(consumer)["flags"] & m.GAP).any()
    words = rig.context.words
    dropped = {"book": book_sync.BOOK_DROPPED, "touch": book_sync.TOUCH_DROPPED, "fill_feed": book_sync.FEED_DROPPED}
    kept = drain(ends[full])
    per_event = 4 if full == "fill_feed" else 1
    assert len(kept) % per_event == 0  # whole events only
    assert words[dropped[full]] == 20 * per_event - len(kept) > 0
    assert words[book_sync.HOLD] == (full == "book")
    # The next record says that something is missing, once.
    for last in (31, 32):
        push(rig, ticks_of(Diff(last, last, -1, levels(quantity=last))))
    flags = drain(ends[full])["flags"] & m.GAP
    assert flags.tolist() == [m.GAP] + [0] * (2 * per_event - 1)
    assert rig.state()["update_id"] == 32


def test_in_replay_a_ring_that_can_never_take_an_event_is_a_fault():
    rig = live_rig(books=2, touches=4)
    trades = [ticks_of(Trade(trade, 1, 1, seller_aggressed=True))[:1] for trade in range(3)]
    assert push(rig, joined(trades)) == 2
    assert rig.loop[FAULT] == FAULT_RING_FULL


def test_config_refuses_other_sizes():
    with pytest.raises(ValueError, match="far_levels is a power of two, not 3"):
        book.Config(far_levels=3)
