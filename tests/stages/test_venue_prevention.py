"""Taking at the paper venue where our own orders rest: one by one, and against the slow twin."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shrivenq.stages import messages as m
from shrivenq.stages import venue_market
from tests.stages.naive_orders import STOPS, NaiveVenue
from tests.stages.venue_rig import VenueRig

BIDS, ASKS = [(1000, 10), (990, 20), (980, 30)], [(1010, 8), (1020, 6), (1030, 40)]
A, F, C, E, AM = m.ACCEPTED, m.FILL, m.CANCELLED, m.EXPIRED, m.AMENDED


@pytest.fixture
def rig():
    made = VenueRig()
    made.snapshot(BIDS, ASKS)
    return made


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (m.STP_NONE, [("taker", F, 10)]),
        (m.EXPIRE_TAKER, [("taker", F, 8), ("taker", E, 0)]),
        (m.EXPIRE_MAKER, [("taker", F, 8), ("maker", E, 0), ("taker", F, 2)]),
        (m.EXPIRE_BOTH, [("taker", F, 8), ("maker", E, 0), ("taker", E, 0)]),
        (m.DECREMENT, [("taker", F, 8), ("maker", AM, 4), ("taker", E, 0)]),
        (m.TRANSFER, [("taker", F, 8), ("maker", AM, 4), ("taker", E, 0)]),
    ],
)
def test_the_taker_s_mode_decides_where_it_meets_our_own(rig, mode, expected):
    maker = rig.sell(1010, 6)  # behind the 8 of the market
    rig.settle()
    rig.diff(asks=[(1010, 20)])
    taker = rig.buy(1010, 10, self_trade=mode)
    names = {maker: "maker", taker: "taker"}
    reports = [one for one in rig.settle() if one["kind"] != A]
    found = [
        (names[int(one["order_id"])], int(one["kind"]), int(one["leaves" if one["kind"] == AM else "last_quantity"]))
        for one in reports
    ]
    assert found == expected
    for one in reports:
        if one["kind"] in (E, AM):
            assert m.REASONS[one["reason"]] == "self_trade"
            assert (one["target_id"], bool(one["flags"] & m.FINAL)) == (one["order_id"], one["kind"] == E)


def test_our_best_price_comes_first_then_our_oldest(rig):
    worse, first, second = rig.sell(1020, 2), rig.sell(1010, 2), rig.sell(1010, 2)
    rig.settle()
    rig.diff(asks=[(1010, 0), (1020, 0), (1030, 40)])
    rig.buy(1030, 2, self_trade=m.EXPIRE_MAKER)
    expired = [one[1] for one in rig.said() if one[0] == E]
    assert expired == [first, second, worse]


@pytest.mark.parametrize(
    ("mode", "quantity", "filled"),
    [
        (m.EXPIRE_TAKER, 8, 8),
        (m.EXPIRE_TAKER, 10, 0),
        (m.DECREMENT, 10, 0),
        (m.EXPIRE_MAKER, 14, 14),
        (m.EXPIRE_MAKER, 16, 0),
    ],
)
def test_fill_or_kill_counts_what_it_reaches(rig, mode, quantity, filled):
    maker = rig.sell(1010, 4)
    rig.settle()
    rig.buy(1020, quantity, tif=m.FOK, self_trade=mode)
    reports = rig.settle()
    assert sum(int(one["last_quantity"]) for one in reports) == filled
    expired = {int(one["order_id"]) for one in reports if one["kind"] == E}
    assert (maker in expired) == (mode == m.EXPIRE_MAKER and filled == 14)


def test_post_only_is_refused_where_it_would_meet_our_own(rig):
    rig.diff(asks=[(1010, 0)])
    rig.sell(1010, 2)
    rig.settle()
    rig.buy(1010, 2, order_type=m.LIMIT_MAKER, self_trade=m.EXPIRE_MAKER)
    (report,) = rig.settle()
    assert m.REASONS[report["reason"]] == "would_take"


MODELS = ("queue", "trade_through", "touch")
prices = st.integers(-5, 5).map(lambda step: 1000 + 10 * step)
sides = st.sampled_from((m.BUY, m.SELL))
sizes = st.integers(1, 12).map(lambda half: 2 * half)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("new"), sides, prices, sizes, st.integers(m.LIMIT, m.TAKE_PROFIT_LIMIT), st.integers(m.GTC, m.FOK),
            prices, st.integers(0, m.TRANSFER),
        ),
        st.tuples(st.just("trade"), prices, sizes, sides),
        st.tuples(st.just("level"), sides, st.integers(0, 5), st.integers(0, 20)),
        st.tuples(st.just("amend"), st.integers(0, 40), st.integers(0, 12)),
        st.tuples(st.just("cancel"), st.integers(0, 40)),
        st.tuples(st.just("cancel_all")),
    ),
    min_size=1, max_size=40,
)  # fmt: skip


def random_operations(seed, count):
    """Many more operations in a row than hypothesis makes."""
    pick = random.Random(seed)
    for _ in range(count):
        side, price, size = pick.choice((m.BUY, m.SELL)), 1000 + 10 * pick.randint(-5, 5), 2 * pick.randint(1, 12)
        yield pick.choices(
            (
                ("new", side, price, size, pick.randint(1, 7), pick.choice((1, 1, 1, 2, 3)),
                 1000 + 10 * pick.randint(-5, 5), pick.randint(0, 6)),
                ("trade", price, size, side),
                ("level", side, pick.randint(0, 5), pick.randint(0, 20)),
                ("amend", -pick.randint(1, 12), pick.randint(0, 12)),
                ("cancel", -pick.randint(1, 12)),
                ("cancel_all",),
            ),
            (40, 20, 30, 10, 6, 1),
        )[0]  # fmt: skip


class Both:
    """The venue and its twin, given the same; an order number names an order placed before."""

    def __init__(self, model):
        self.rig, self.naive = VenueRig(model=model), NaiveVenue(model)
        self.rig.snapshot(BIDS, ASKS)
        for side, levels in ((m.BUY, BIDS), (m.SELL, ASKS)):
            for price, quantity in levels:
                self.naive.level(side, price, quantity)
        self.naive.event_end()
        self.reports, self.placed = [], []

    def new(self, side, price, quantity, order_type, tif, stop, mode):
        if order_type in (m.MARKET, m.STOP_LOSS, m.TAKE_PROFIT):
            price = 0
        if order_type == m.LIMIT_MAKER:
            tif = m.GTC
        stop = stop if order_type in STOPS else 0
        fields = {"order_type": order_type, "tif": tif, "stop_price": stop, "self_trade": mode}
        self.placed.append(self.rig.send(m.NEW, side, price, quantity, **fields))
        self.naive.new(self.placed[-1], side, price, quantity, order_type, tif, stop, mode)

    def trade(self, price, quantity, side):
        self.rig.trade(price, quantity, side)
        self.naive.traded(price, quantity, side)

    def level(self, side, away, quantity):
        # The feed's book is never crossed, whatever our orders do.
        price = 1005 - side * (5 + 10 * away)
        self.rig.diff(**{"bids" if side == m.BUY else "asks": [(price, quantity)]})
        self.naive.level(side, price, quantity)
        self.naive.changed()

    def amend(self, number, half):
        if self.placed:
            target = self.placed[number % len(self.placed)]
            self.naive.amend(self.rig.send(m.AMEND, quantity=2 * half, target_id=target), target, 2 * half)

    def cancel(self, number):
        if self.placed:
            target = self.placed[number % len(self.placed)]
            self.naive.cancel(self.rig.send(m.CANCEL, target_id=target), target)

    def cancel_all(self):
        self.naive.cancel_all(self.rig.send(m.CANCEL_ALL))

    def compare(self, what=""):
        found = self.rig.settle()
        self.reports.extend(found)
        told = []
        for one in found:
            size = int(one["quantity"] if one["kind"] == AM else one["last_quantity"])
            told.append((int(one["kind"]), int(one["order_id"]), size, int(one["last_price"])))
        expected, self.naive.told = self.naive.told, []
        if [kind for kind, *_ in told] == [C] * len(told) == [kind for kind, *_ in expected]:
            assert sorted(told) == sorted(expected), what  # a cancel-all has no order of its own
        else:
            assert told == expected, what


def check(operations, model, what=""):
    """Compare the venue with its twin after each operation, and all its accounts at the end."""
    both = Both(model)
    for number, (name, *arguments) in enumerate(operations):
        getattr(both, name)(*arguments)
        both.compare(f"{what}, operation {number}: {name} {arguments}")
    both.cancel_all()
    both.compare()
    market = both.rig.context.market
    assert market.words[venue_market.OPEN_COUNT] == 0
    assert not (market.stops["rising"] != venue_market.NONE).any()
    assert not (market.stops["falling"] != venue_market.NONE).any()
    filled, ends = defaultdict(int), defaultdict(int)
    for one in both.reports:
        order = int(one["target_id"] if one["kind"] in (C, AM) else one["order_id"])
        filled[order] += int(one["last_quantity"])
        ends[order] += bool(one["flags"] & m.FINAL)
        if one["kind"] == F:
            assert (one["filled"], one["leaves"]) == (filled[order], one["quantity"] - filled[order])
    accepted = [int(one["order_id"]) for one in both.reports if one["kind"] == A]
    assert {order: ends[order] for order in accepted} == dict.fromkeys(accepted, 1)
    rows = market.orders[market.orders["order_id"] != 0]
    assert {int(row["order_id"]): int(row["filled"]) for row in rows} == {order: filled[order] for order in accepted}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations=OPERATIONS, model=st.sampled_from(MODELS))
def test_any_sequence_of_operations_is_told_as_the_twin_tells_it(operations, model):
    check(operations, model)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_long_sequences_of_operations_are_told_as_the_twin_tells_them(seed, model):
    check(random_operations(seed, 500), model, f"seed {seed}, {model}")
