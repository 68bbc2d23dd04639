"""The venue's rules one at a time; random streams and captures are in test_book.py."""

from __future__ import annotations

import random

import pytest

from shrivenq.stages import book, book_sync, order_book
from shrivenq.stages import messages as m
from shrivenq.stages.book_sync import APPLY, BROKEN, IGNORE
from tests.stages.book_rig import instruments_of, levels, live_rig, make_rig, marker, send, ticks_of, top_ten
from tests.stages.naive_book import Diff, NaiveBook, Snapshot

# The book is at update id 10; the protocol sheet, section 5, line by line.
SPOT = [
    (8, 9, IGNORE),
    (8, 10, IGNORE),
    (10, 10, IGNORE),
    (10, 11, APPLY),
    (11, 11, APPLY),
    (5, 12, APPLY),
    (12, 12, BROKEN),
    (13, 20, BROKEN),
]
FUTURES_FRESH = [
    (5, 9, 4, IGNORE),
    (9, 10, 8, APPLY),
    (10, 10, 9, APPLY),
    (10, 15, 9, APPLY),
    (11, 15, 10, APPLY),  # names the snapshot's own id
    (11, 15, 9, BROKEN),
    (12, 15, 11, BROKEN),
]
FUTURES = [(5, 9, 4, IGNORE), (9, 10, 8, IGNORE), (13, 15, 10, APPLY), (11, 15, 9, BROKEN), (12, 15, 11, BROKEN)]


@pytest.mark.parametrize(
    ("market", "fresh", "first", "last", "previous", "verdict"),
    [("spot", fresh, first, last, -1, verdict) for first, last, verdict in SPOT for fresh in (0, 1)]
    + [("cm", 1, *row) for row in FUTURES_FRESH]
    + [("cm", 0, *row) for row in FUTURES],
)
def test_each_rule(market, fresh, first, last, previous, verdict):
    rig = make_rig(instruments_of(market))
    rig.state()["update_id"], rig.state()["fresh"] = 10, fresh
    assert book_sync.judge(rig.context, 0, first, last, previous) == verdict
    twin = NaiveBook(market != "spot", last=10, fresh=bool(fresh))
    named = {"apply": APPLY, "ignore": IGNORE, "gap": BROKEN}
    assert named[twin.verdict(Diff(first, last, previous, []))] == verdict


def test_a_snapshot_in_chunks_is_valid_at_its_last():
    rig = make_rig(instruments_of("spot"))
    chunk = ticks_of(Snapshot(10, levels()))
    chunk[0]["flags"] = m.BUILDING
    books, _, _ = send(rig, chunk)
    assert not books[0]["flags"] & m.VALID
    send(rig, ticks_of(Diff(11, 12, -1, levels(bid=99))))
    books, _, _ = send(rig, ticks_of(Snapshot(10, levels(bid=98, ask=102))))
    assert books[0]["flags"] & m.VALID
    assert books[0]["update_id"] == 12
    assert top_ten(books[0]) == [[(100, 1), (99, 1), (98, 1)], [(101, 1), (102, 1)]]


def test_the_rest_of_a_broken_off_snapshot_is_ignored():
    rig = make_rig(instruments_of("spot"))
    chunk = ticks_of(Snapshot(10, levels()))
    chunk[0]["flags"] = m.BUILDING
    send(rig, chunk)
    send(rig, marker(m.LOST))
    books, _, _ = send(rig, ticks_of(Snapshot(10, levels(bid=98, ask=102))))
    assert not books[0]["flags"] & m.VALID
    assert top_ten(books[0]) == [[], []]
    books, _, _ = send(rig, ticks_of(Snapshot(10, levels())))
    assert books[0]["flags"] & m.VALID


@pytest.mark.parametrize("price", [0, -1])
def test_an_impossible_level_makes_the_book_invalid(price):
    rig = live_rig()
    books, touches, _ = send(rig, ticks_of(Diff(11, 11, -1, [(0, 99, 1), (0, price, 1), (0, 98, 1)])))
    assert not (books[0]["flags"] | touches[0]["flags"]) & m.VALID
    assert top_ten(books[0]) == [[], []]
    assert (rig.state()["refused"], rig.context.resync[0]) == (1, 1)


def test_a_full_structure_makes_the_book_invalid():
    rig = live_rig(book.Config(window_ticks=64, far_levels=4, buffer_ticks=64))
    books, _, _ = send(rig, ticks_of(Diff(11, 11, -1, [(1, 1_000 * away, 1) for away in range(1, 8)])))
    assert not books[0]["flags"] & m.VALID
    assert rig.state()["refused"] == 1
    books, _, _ = send(rig, ticks_of(Snapshot(20, levels())))
    assert books[0]["flags"] & m.VALID


def test_a_full_structure_at_a_replayed_event_makes_the_book_invalid():
    rig = make_rig(instruments_of("spot"), book.Config(window_ticks=64, far_levels=4, buffer_ticks=64))
    send(rig, ticks_of(Diff(11, 11, -1, [(1, 1_000 * away, 1) for away in range(1, 8)])))
    books, _, _ = send(rig, ticks_of(Snapshot(10, levels())))
    assert not books[0]["flags"] & m.VALID
    assert (rig.state()["refused"], rig.state()["resyncs"]) == (1, 2)


def test_a_full_buffer_drops_the_oldest_events():
    rig = make_rig(instruments_of("spot"), book.Config(window_ticks=64, far_levels=4, buffer_ticks=8))
    for last in range(1, 8):
        send(rig, ticks_of(Diff(last, last, -1, [(0, 90 + last, 1)])))
    assert (rig.state()["buffer_count"], rig.state()["overflows"]) == (8, 3)
    # One event larger than the buffer takes everything with it.
    send(rig, ticks_of(Diff(8, 8, -1, [(0, 50 + away, 1) for away in range(9)])))
    assert rig.state()["buffer_count"] == 0
    send(rig, ticks_of(Diff(9, 9, -1, [(0, 99, 1)])))
    books, _, _ = send(rig, ticks_of(Snapshot(7, levels(bid=98))))
    assert not books[0]["flags"] & m.VALID
    books, _, _ = send(rig, ticks_of(Snapshot(8, levels(bid=98))))
    assert books[0]["flags"] & m.VALID
    assert top_ten(books[0])[0] == [(99, 1), (98, 1)]


def test_a_snapshot_older_than_the_book_is_ignored():
    rig = live_rig()
    send(rig, ticks_of(Diff(11, 15, -1, levels(bid=99))))
    books, touches, _ = send(rig, ticks_of(Snapshot(12, levels(bid=50))))
    assert (len(books), len(touches)) == (0, 0)
    assert (rig.state()["update_id"], rig.state()["stale"]) == (15, 1)
    assert order_book.best_price(rig.context.books, 0, order_book.BID) == 100


# The protocol sheet, section 17, one item after the other; `levels()` is 1 bid at 100, 1 asked at 101.
CHECKLIST = {
    "snapshot older than the first event": ([Diff(15, 16, -1, []), Snapshot(10, levels())], None),
    "and fetched again": (
        [Diff(15, 16, -1, [(0, 99, 2)]), Snapshot(10, levels()), Snapshot(14, levels())],
        (16, [[(100, 1), (99, 2)], [(101, 1)]]),
    ),
    "event that ends right at the snapshot": (
        [Diff(9, 10, -1, [(0, 99, 2)]), Snapshot(10, levels())],
        (10, [[(100, 1)], [(101, 1)]]),
    ),
    "event wholly before the snapshot": (
        [Diff(5, 6, -1, [(0, 99, 2)]), Diff(7, 12, -1, [(0, 98, 3)]), Snapshot(10, levels())],
        (12, [[(100, 1), (98, 3)], [(101, 1)]]),
    ),
    "overlap": (
        [Snapshot(10, levels()), Diff(8, 12, -1, [(0, 99, 2)]), Diff(11, 13, -1, [(0, 99, 3)])],
        (13, [[(100, 1), (99, 3)], [(101, 1)]]),
    ),
    "first event right behind the snapshot": (
        [Snapshot(10, levels()), Diff(11, 12, -1, [(1, 101, 4)])],
        (12, [[(100, 1)], [(101, 4)]]),
    ),
    "gap of 1": ([Snapshot(10, levels()), Diff(12, 12, -1, [(0, 99, 2)])], None),
    "delete of a level that is not there": (
        [Snapshot(10, levels()), Diff(11, 11, -1, [(0, 77, 0), (1, 177, 0)])],
        (11, [[(100, 1)], [(101, 1)]]),
    ),
    "crossed result": ([Snapshot(10, levels()), Diff(11, 11, -1, [(0, 101, 2)])], None),
    "locked, and mended within the event": (
        [Snapshot(10, levels()), Diff(11, 11, -1, [(0, 101, 2), (1, 101, 0), (1, 102, 5)])],
        (11, [[(101, 2), (100, 1)], [(102, 5)]]),
    ),
    "empty arrays": ([Snapshot(10, levels()), Diff(11, 14, -1, [])], (14, [[(100, 1)], [(101, 1)]])),
    "a side that becomes empty": ([Snapshot(10, levels()), Diff(11, 11, -1, [(1, 101, 0)])], (11, [[(100, 1)], []])),
}


@pytest.mark.parametrize(("events", "expected"), CHECKLIST.values(), ids=CHECKLIST)
def test_the_checklist_of_the_protocol_sheet(events, expected):
    rig, twin = make_rig(instruments_of("spot")), NaiveBook(futures=False)
    for event in events:
        books, _, _ = send(rig, ticks_of(event))
        getattr(twin, type(event).__name__.lower())(event)
    valid = bool(len(books)) and bool(books[0]["flags"] & m.VALID)
    assert valid == twin.live == (expected is not None)
    if expected is None:
        assert rig.state()["resyncs"] > 0 or rig.context.resync[0] > 0  # another snapshot is asked for
        assert top_ten(books[0]) == [[], []]
    else:
        assert (int(books[0]["update_id"]), top_ten(books[0])) == expected


@pytest.mark.parametrize("late", range(1, 8))
def test_a_resync_while_events_pour_in(late):
    """A gap, then the snapshot comes `late` events later, as old as it may be: whatever it does not hold is applied."""
    rig = live_rig()
    send(rig, ticks_of(Diff(13, 13, -1, [(0, 95, 5)])))
    assert rig.state()["status"] != book_sync.LIVE
    for number in range(14, 14 + late):
        books, _, _ = send(rig, ticks_of(Diff(number, number, -1, [(0, 80 + number - 13, number)])))
        assert not any(one["flags"] & m.VALID for one in books)
    held = 13 + late // 2
    books, _, _ = send(rig, ticks_of(Snapshot(held, levels())))
    assert books[0]["flags"] & m.VALID
    bids = [(80 + number - 13, number) for number in range(13 + late, held, -1)]
    assert (int(books[0]["update_id"]), top_ten(books[0])) == (13 + late, [[(100, 1), *bids], [(101, 1)]])


# ── the range of a snapshot ──────────────────────────────────────────────────────────────────────────────────────────


class Market:
    """The venue's whole book, as a dict a side, with all it has been; it wanders far beyond any snapshot's levels."""

    def __init__(self, rng):
        self.rng, self.middle, self.last = rng, 1_000, 10
        self.sides = [{1_000 - away: 1 for away in range(1, 100)}, {1_000 + away: 1 for away in range(1, 100)}]
        self.past = {10: [dict(side) for side in self.sides]}

    def step(self):
        """Change the book; return the diff that says so."""
        self.middle += self.rng.choice((-2, -1, 1, 2)) + (1 if self.last % 400 < 200 else -1)
        said = []
        for _ in range(self.rng.randrange(1, 5)):
            away = self.rng.randrange(1, 100)
            side = self.rng.randrange(2)
            said.append((side, self.middle + (away if side else -away), self.rng.randrange(3)))
        said += [(0, price, 0) for price in self.sides[0] if price >= self.middle]
        said += [(1, price, 0) for price in self.sides[1] if price <= self.middle]
        said += [(0, self.middle - 1, 1), (1, self.middle + 1, 1)]
        for side, price, quantity in said:
            self.sides[side][price] = quantity
        self.sides = [{price: quantity for price, quantity in side.items() if quantity} for side in self.sides]
        first, self.last = self.last + 1, self.last + self.rng.randrange(1, 4)
        self.past |= {last: [dict(side) for side in self.sides] for last in range(first, self.last + 1)}
        return Diff(first, self.last, -1, said)

    def snapshot(self, last, depth=20):
        bids, asks = self.past[last]
        best = [(0, price, bids[price]) for price in sorted(bids)[-depth:]]
        return Snapshot(last, best + [(1, price, asks[price]) for price in sorted(asks)[:depth]])


def check_range(rig, market, where):
    """Compare every level of the range that is known with the venue's book."""
    state, books = rig.state(), rig.context.books
    for side, prices in enumerate((range(int(state["known_low"]), market.middle), market.sides[1])):
        for price in prices:
            if side == 0 or price <= state["known_high"]:
                found = order_book.quantity_at(books, 0, side, price)
                assert found == market.sides[side].get(price, 0), f"{where}: {price}"


@pytest.mark.parametrize("seed", range(20))
def test_a_book_near_the_end_of_its_snapshot_gets_another_and_is_never_wrong(seed):
    """Each answer is older than the book by the time it comes, some too old to be of use; none costs a valid book."""
    rng = random.Random(seed)
    rig, market = make_rig(instruments_of("spot")), Market(rng)
    send(rig, ticks_of(market.snapshot(10)))
    served, asked_at, due, blind = 0, 0, 0, 0
    for number in range(400):
        where = f"seed {seed}, event {number}"
        events = [market.step()]
        if int(rig.context.resync[0]) != served and not due:
            asked_at, due = market.last - rng.choice((0, 0, 12)), number + rng.randrange(1, 30)
            asked_at = max(10, asked_at)
        if due and number >= due:
            served, due = int(rig.context.resync[0]), 0
            events.append(market.snapshot(asked_at))
        for event in events:
            books, _, _ = send(rig, ticks_of(event))
            assert all(book["flags"] & m.VALID for book in books), where
            check_range(rig, market, where)
        blind += bool(books[-1]["flags"] & m.BLIND) if len(books) else 0
    state = rig.state()
    assert state["resyncs"] == 0
    assert state["snapshots"] > 5
    assert state["buffer_count"] == 0 or state["asked"] == 1
    assert blind < 200, "depth comes back"


def test_a_snapshot_that_is_too_old_is_asked_for_again():
    rig = live_rig()
    send(rig, ticks_of(Diff(11, 15, -1, [(0, 100, 0), (0, 90, 1)])))
    assert rig.context.resync[0] == 1
    for number in range(2, 5):
        send(rig, ticks_of(Diff(14 + number, 14 + number, -1, [])))
        send(rig, ticks_of(Snapshot(14, levels())))
        assert rig.context.resync[0] == number
    # A level set and one deleted since, and one that nobody knew.
    send(rig, ticks_of(Diff(19, 19, -1, [(0, 89, 2), (0, 80, 0)])))
    books, _, _ = send(rig, ticks_of(Snapshot(16, [(0, 90, 1), (0, 80, 3), (0, 70, 4), (1, 101, 1)])))
    assert books[0]["flags"] & (m.VALID | m.BLIND) == m.VALID
    assert (int(books[0]["update_id"]), top_ten(books[0])) == (19, [[(90, 1), (89, 2), (70, 4)], [(101, 1)]])
    assert (rig.state()["resyncs"], rig.context.resync[0]) == (0, 4)


def test_another_snapshot_is_asked_for_before_the_touch_is_at_the_end_of_this_one():
    rig = make_rig(instruments_of("spot"))
    send(rig, ticks_of(Snapshot(10, [(0, price, 1) for price in range(60, 101)] + [(1, 101, 1), (1, 181, 1)])))
    send(rig, ticks_of(Diff(11, 11, -1, [(0, price, 0) for price in range(71, 101)])))
    assert rig.context.resync[0] == 0, "a quarter of the way is left"
    books, _, _ = send(rig, ticks_of(Diff(12, 12, -1, [(0, 70, 0)])))
    assert books[0]["flags"] & (m.VALID | m.BLIND) == m.VALID
    assert rig.context.resync[0] == 1


def test_an_event_that_breaks_off_while_it_is_kept_is_kept_whole():
    """What was kept of it goes on top of the snapshot that mends the book."""
    rig = live_rig(book.Config(window_ticks=64, far_levels=4, buffer_ticks=64))
    send(rig, ticks_of(Diff(11, 11, -1, [(0, 100, 0), (0, 90, 1)])))
    many = [(1, 1_000 * away, 1) for away in range(1, 8)]
    books, _, _ = send(rig, ticks_of(Diff(12, 12, -1, [*many, *((1, price, 0) for _, price, _ in many), (0, 91, 5)])))
    assert not books[0]["flags"] & m.VALID
    assert rig.state()["buffer_count"] == 16
    books, _, _ = send(rig, ticks_of(Snapshot(12, levels(bid=91, quantity=5))))
    assert books[0]["flags"] & m.VALID
    assert rig.state()["buffer_count"] == 0
