"""The ladder against dictionaries: any price, any order of changes, windows from one tick to many."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.stages import messages as m
from shrivenq.stages import order_book
from shrivenq.stages.order_book import ASK, BASE, BID, FAR_COUNT, NEAR_COUNT, make_books
from tests.stages.naive_book import Side

PRICES, QUANTITIES = np.zeros(10, np.int64), np.zeros(10, np.int64)


def books_of(tick, window_ticks, far_levels, count=2):
    instruments = np.zeros(count, m.INSTRUMENT)
    instruments["tick"] = tick
    return make_books(instruments, window_ticks, far_levels)


def top(books, instrument, side, count=10):
    filled = order_book.top(books, instrument, side, PRICES, QUANTITIES, count)
    assert not PRICES[filled:count].any()
    assert not QUANTITIES[filled:count].any()
    return list(zip(PRICES[:filled].tolist(), QUANTITIES[:filled].tolist(), strict=True))


class Pair:
    """Instrument 1 of two, and its twin."""

    def __init__(self, tick, window_ticks, far_levels):
        self.books = books_of(tick, window_ticks, far_levels)
        self.far_levels = far_levels
        self.clear()

    def clear(self):
        order_book.clear(self.books, 1)
        self.sides = Side(bids=True), Side(bids=False)

    def set(self, side, price, quantity):
        """Change both; without room nothing changes, and there must have been none."""
        twin = self.sides[side]
        previous = order_book.set_level(self.books, 1, side, price, quantity)
        if previous < 0:
            assert quantity > 0
            assert price not in twin.levels
            assert len(twin.levels) >= self.far_levels
        else:
            assert previous == twin.set(price, quantity)
        return previous

    def check(self):
        for side, twin in enumerate(self.sides):
            assert order_book.level_count(self.books, 1, side) == len(twin.levels)
            assert order_book.best_price(self.books, 1, side) == twin.best()[0]
            assert top(self.books, 1, side) == twin.top(10)
            assert order_book.level_count(self.books, 0, side) == 0

    def check_all(self):
        self.check()
        for side, twin in enumerate(self.sides):
            for price, quantity in twin.levels.items():
                assert order_book.quantity_at(self.books, 1, side, price) == quantity
                for other in (price - 1, price + 1):
                    assert order_book.quantity_at(self.books, 1, side, other) == twin.levels.get(other, 0)


SIZES = st.tuples(st.sampled_from([1, 10, 7]), st.sampled_from([1, 2, 32, 64, 128, 4096]), st.sampled_from([1, 4, 256]))
PRICE = st.one_of(
    st.integers(4_900, 5_100),
    st.integers(1, 20_000),
    st.integers(1, 1 << 40),
    st.sampled_from([1, 64, 4095, 4096, 4097, 1 << 62]),
)
CHANGES = st.lists(st.tuples(st.sampled_from([BID, ASK]), PRICE, st.sampled_from([0, 1, 5])), max_size=60)


@given(sizes=SIZES, changes=CHANGES)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_changes_give_the_twins_book(sizes, changes):
    pair = Pair(*sizes)
    for change in changes:
        pair.set(*change)
        pair.check()
    pair.check_all()


@pytest.mark.parametrize("seed", range(60))
def test_a_wandering_market_gives_the_twins_book(seed):
    """Long sequences around a touch that walks and jumps, with deletes of the best, outliers and prices off tick."""
    rng = random.Random(seed)
    tick = rng.choice([1, 10, 7])
    pair = Pair(tick, rng.choice([1, 2, 32, 64, 128, 256, 4096, 16384]), rng.choice([1, 4, 64, 2048]))
    centre, spread = rng.randrange(50, 100_000) * tick, rng.choice([3, 30, 300, 30_000])
    for _ in range(500):
        if rng.random() < 0.02:
            centre = max(50 * tick, centre + rng.randrange(-3000, 3000) * tick)
        side = rng.choice([BID, ASK])
        price = max(1, centre + rng.randrange(-spread, spread) * tick + (rng.random() < 0.05) * rng.randrange(tick))
        if rng.random() < 0.02:
            price = rng.randrange(1, 1 << 40)
        known = pair.sides[side].prices
        if known and rng.random() < 0.3:
            price = (known[-1] if side == BID else known[0]) if rng.random() < 0.7 else rng.choice(known)
        pair.set(side, price, rng.choice([0, 0, rng.randrange(1, 100)]))
        if rng.random() < 0.005:
            pair.clear()
        pair.check()
    pair.check_all()


def test_the_window_follows_the_touch():
    pair = Pair(1, 256, 4096)
    for centre in (10_000, 10_400, 9_000, 1_000_000, 500):
        pair.clear()
        for distance in range(1, 100):
            pair.set(BID, centre - distance, distance)
            pair.set(ASK, centre + distance, distance)
        pair.check()
        for side in (BID, ASK):
            row = pair.books.rows[2 + side]
            assert (row[NEAR_COUNT], row[FAR_COUNT]) == (99, 0), centre
            assert row[BASE] <= centre <= row[BASE] + 256, centre
    # A walk without a clear: what was near becomes far, and near again on the way back.
    for centre in [*range(500, 5_000, 7), *range(5_000, 500, -7)]:
        pair.set(BID, centre - 1, 1)
        pair.set(ASK, centre + 1, 1)
        for side in (BID, ASK):
            twin = pair.sides[side]
            best = twin.best()[0]
            if abs(best - centre) > 1:
                pair.set(side, best, 0)
        pair.check()
    pair.check_all()


def test_a_window_that_cannot_move_leaves_the_book_right():
    pair = Pair(1, 64, 4)
    for price in range(1_000, 1_016):
        assert pair.set(BID, price, price) == 0
    # Sixteen levels would have to leave; the far part has room for four.
    assert pair.set(BID, 9_000, 5) == 0
    pair.check()
    assert [pair.set(BID, 8_000 + far, 1) for far in range(4)] == [0, 0, 0, -1]
    pair.check()
    assert pair.set(BID, 9_000, 0) == 5
    assert pair.set(BID, 8_003, 1) == 0
    pair.check_all()


@pytest.mark.parametrize(("price", "quantity"), [(0, 1), (-5, 1), (5, -1), (-(1 << 63), 0), (0, 0)])
def test_impossible_levels_are_refused(price, quantity):
    books = books_of(1, 64, 4)
    assert order_book.set_level(books, 1, BID, price, quantity) == -1
    assert order_book.level_count(books, 1, BID) == 0
    assert order_book.quantity_at(books, 1, BID, price) == 0


def test_an_empty_side_has_no_best_price():
    books = books_of(5, 128, 4)
    assert [order_book.best_price(books, 0, side) for side in (BID, ASK)] == [0, 0]
    assert top(books, 0, ASK) == []
    assert order_book.set_level(books, 0, ASK, 100, 0) == 0
    assert order_book.level_count(books, 0, ASK) == 0


def test_sizes_that_are_no_powers_of_two_are_refused():
    with pytest.raises(ValueError, match="window_ticks is a power of two from 1 to 4,194,304, not 100"):
        books_of(1, 100, 4)
    with pytest.raises(ValueError, match="far_levels is a power of two from 1 to 4,194,304, not 0"):
        books_of(1, 64, 0)
    with pytest.raises(ValueError, match="a tick of at least 1, not 0"):
        books_of(0, 64, 4)
