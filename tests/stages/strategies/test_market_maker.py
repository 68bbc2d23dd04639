"""The market maker, on books and reports made by hand, and against a venue that is as slow and as rude as they come."""

from __future__ import annotations

import random

import pytest

from shrivenq.stages import messages as m
from shrivenq.stages.strategies import market_maker
from tests.stages.strategies.desk import TICK, Desk

QUANTITY = 3


def make(position_max=12, half_spread=2, skew=4, requote=2):
    return Desk(
        market_maker,
        quantity=QUANTITY,
        position_max=position_max,
        half_spread_ticks=half_spread,
        skew_ticks=skew,
        requote_ticks=requote,
    )


def show(desk, bid=1000, ask=1010, **fields):
    """Show a book with this touch; returns (kind, side, price) of the intents and keeps those."""
    desk.sent = desk.book([(bid, 5)], [(ask, 5)], **fields)
    return [(int(one["kind"]), int(one["side"]), int(one["price"])) for one in desk.sent]


def quoting(**params):
    """A desk with both quotes open: bid 980, ask 1030 around 1005."""
    desk = make(**params)
    assert show(desk) == [(m.NEW, m.BUY, 980), (m.NEW, m.SELL, 1030)]
    desk.bid, desk.ask = desk.sent
    for order in (desk.bid, desk.ask):
        assert (int(order["quantity"]), int(order["order_type"])) == (QUANTITY, m.LIMIT_MAKER)
        desk.report(m.ACCEPTED, order["order_id"], price=order["price"])
    return desk


def fill(desk, order, quantity, final):
    desk.report(
        m.FILL, order["order_id"], side=order["side"], price=order["price"], last_quantity=quantity,
        flags=m.FINAL if final else 0,
    )  # fmt: skip


def test_quotes_stand_around_the_middle_once():
    desk = quoting()
    assert show(desk) == []


@pytest.mark.parametrize("fields", [{"flags": 0}, {"flags": m.BLIND}])
def test_nothing_on_an_invalid_book(fields):
    assert show(make(), **fields) == []


def test_nothing_on_a_book_without_two_sides():
    assert make().book([(1000, 1)], []) == []
    assert make().book([], [(1000, 1)]) == []


def test_no_second_order_while_one_is_in_flight():
    desk = make()
    show(desk)
    bid, ask = desk.sent
    for middle in (1000, 2000, 500):
        assert show(desk, middle, middle + TICK) == []
    desk.report(m.UNKNOWN, bid["order_id"], price=bid["price"])
    assert show(desk, 2000, 2010) == [], "unknown is in flight still"
    desk.report(m.ACCEPTED, bid["order_id"], price=bid["price"])
    assert [kind for kind, _, _ in show(desk, 2000, 2010)] == [m.REPLACE]
    assert int(desk.sent[0]["target_id"]) == int(bid["order_id"])
    assert show(desk, 3000, 3010) == []
    assert int(desk.mine["ask_busy"]) == int(ask["order_id"])


@pytest.mark.parametrize("kind", [m.REJECTED, m.DENIED, m.EXPIRED])
def test_a_quote_that_was_refused_is_placed_again(kind):
    desk = make()
    show(desk)
    bid, ask = desk.sent
    desk.report(kind, bid["order_id"], flags=m.FINAL)
    desk.report(m.ACCEPTED, ask["order_id"], price=ask["price"])
    assert show(desk) == [(m.NEW, m.BUY, 980)]


def test_the_quotes_lean_against_the_inventory():
    long, short = quoting(), quoting()
    fill(long, long.bid, QUANTITY, final=True)
    fill(short, short.ask, QUANTITY, final=True)
    assert (int(long.mine["position"]), int(short.mine["position"])) == (QUANTITY, -QUANTITY)
    # 4 ticks at a full position, a quarter full: the middle moves a tick, and only the missing quote is sent.
    assert show(long) == [(m.NEW, m.BUY, 970)]
    assert show(short) == [(m.NEW, m.SELL, 1040)]
    # A tick further the quotes that stand are off by two ticks.
    assert show(long, 990, 1000) == [(m.REPLACE, m.SELL, 1010)]
    assert show(short, 1010, 1020) == [(m.REPLACE, m.BUY, 1000)]


def test_a_quote_moves_only_when_it_is_off_by_enough():
    desk = quoting(requote=3)
    assert show(desk, 1020, 1030) == []
    assert show(desk, 1030, 1040) == [(m.REPLACE, m.BUY, 1010), (m.REPLACE, m.SELL, 1060)]


def test_a_replacement_carries_the_quote_on():
    desk = quoting()
    show(desk, 1020, 1030)
    bid = desk.sent[0]
    assert int(bid["target_id"]) == int(desk.bid["order_id"])
    desk.report(m.REPLACED, bid["order_id"], target_id=bid["target_id"], price=bid["price"])
    assert int(desk.mine["bid_id"]) == int(bid["order_id"])
    assert show(desk, 1020, 1030) == []
    fill(desk, bid, QUANTITY, final=True)
    assert show(desk, 1020, 1030) == [(m.NEW, m.BUY, 990)]


@pytest.mark.parametrize("kind", [m.DENIED, m.CANCEL_REJECTED])
def test_a_replacement_that_was_refused_leaves_the_quote_at_its_price(kind):
    desk = quoting()
    assert show(desk, 1020, 1030)[0] == (m.REPLACE, m.BUY, 1000)
    desk.report(kind, desk.sent[0]["order_id"], target_id=desk.bid["order_id"], flags=m.FINAL)
    assert (int(desk.mine["bid_id"]), int(desk.mine["bid_price"])) == (int(desk.bid["order_id"]), 980)
    assert show(desk, 1020, 1030) == [(m.REPLACE, m.BUY, 1000)], "it is off still"
    desk.report(kind, desk.sent[0]["order_id"], target_id=desk.bid["order_id"], flags=m.FINAL)
    assert show(desk) == [], "the market came back to it"


def test_a_replacement_half_done_leaves_no_quote():
    desk = quoting()
    show(desk, 1020, 1030)
    request = desk.sent[0]["order_id"]
    desk.report(m.CANCELLED, request, target_id=desk.bid["order_id"], flags=m.FINAL)
    desk.report(m.REJECTED, request, target_id=desk.bid["order_id"], flags=m.FINAL)
    assert int(desk.mine["bid_id"]) == 0
    assert show(desk, 1020, 1030) == [(m.NEW, m.BUY, 1000)]


def test_a_quote_filled_under_its_replacement():
    desk = quoting()
    show(desk, 1020, 1030)
    request = desk.sent[0]["order_id"]
    fill(desk, desk.bid, QUANTITY, final=True)
    assert show(desk, 1020, 1030) == [], "the replacement has no answer yet"
    desk.report(m.CANCEL_REJECTED, request, target_id=desk.bid["order_id"], flags=m.FINAL)
    assert [kind for kind, _, _ in show(desk, 1020, 1030)] == [m.NEW]


def test_an_unknown_replacement_is_followed_to_what_became_of_it():
    desk = quoting()
    show(desk, 1020, 1030)
    bid = desk.sent[0]
    desk.report(m.UNKNOWN, bid["order_id"], target_id=bid["target_id"])
    assert show(desk, 2000, 2010) == []
    # Asked about both, the venue says: the one is gone, the other is open.
    desk.report(m.CANCELLED, bid["target_id"], target_id=bid["target_id"], flags=m.FINAL)
    assert show(desk, 2000, 2010) == []
    desk.report(m.ACCEPTED, bid["order_id"], price=bid["price"])
    assert (int(desk.mine["bid_id"]), int(desk.mine["bid_price"])) == (int(bid["order_id"]), int(bid["price"]))
    assert [kind for kind, _, _ in show(desk, 2000, 2010)] == [m.REPLACE]


def test_a_quote_whose_unknown_cancel_came_to_nothing_is_cancelled_again():
    desk = quoting(position_max=QUANTITY)
    fill(desk, desk.bid, 1, final=False)
    assert show(desk) == [(m.CANCEL, 0, 0)]
    desk.report(m.UNKNOWN, desk.bid["order_id"])
    assert show(desk) == []
    desk.report(m.ACCEPTED, desk.bid["order_id"], price=desk.bid["price"])
    assert show(desk) == [(m.CANCEL, 0, 0)]
    desk.report(m.CANCELLED, desk.sent[0]["order_id"], target_id=desk.bid["order_id"], flags=m.FINAL)
    assert show(desk) == []
    assert int(desk.mine["bid_id"]) == 0


def test_a_fill_says_that_an_unknown_order_is_open():
    desk = make()
    show(desk)
    bid = desk.sent[0]
    desk.report(m.UNKNOWN, bid["order_id"])
    fill(desk, bid, 1, final=False)
    assert show(desk, 2000, 2010)[0][:2] == (m.REPLACE, m.BUY)


def test_the_kill_switch_takes_quotes_away():
    desk = quoting()
    for order in (desk.bid, desk.ask):
        desk.report(m.CANCELLED, order["order_id"], target_id=order["order_id"], flags=m.FINAL)
    assert show(desk) == [(m.NEW, m.BUY, 980), (m.NEW, m.SELL, 1030)]


def test_a_full_position_quotes_one_side():
    desk = quoting(position_max=QUANTITY)
    fill(desk, desk.bid, QUANTITY, final=True)
    # A full position moves the middle by 4 ticks: the ask follows, no bid.
    assert show(desk) == [(m.REPLACE, m.SELL, 1010)]


def test_a_request_without_room_is_made_again():
    desk = quoting()
    assert desk.book_without_room([(1020, 5)], [(1030, 5)]) == 2
    assert (int(desk.mine["bid_busy"]), int(desk.mine["bid_price"])) == (0, 980)
    assert show(desk, 1020, 1030) == [(m.REPLACE, m.BUY, 1000), (m.REPLACE, m.SELL, 1050)]


@pytest.mark.parametrize("half_spread", [0, 1, 5])
@pytest.mark.parametrize("spread", [1, 2, 9])
def test_quotes_never_cross_the_market_or_each_other(half_spread, spread):
    for position in range(-60, 61):
        desk = make(half_spread=half_spread, skew=30)
        desk.mine["position"] = position
        desk.params["position_max"] = 60 + QUANTITY
        bid, ask = 5000, 5000 + spread * TICK
        orders = {side: price for _, side, price in show(desk, bid, ask)}
        assert orders[m.BUY] < ask, position
        assert orders[m.SELL] > bid, position
        assert orders[m.BUY] < orders[m.SELL], position
        assert orders[m.BUY] % TICK == orders[m.SELL] % TICK == 0, position


class Venue:
    """Opens, fills, refuses, cancels and forgets by chance; reports in the order things happened, when it likes."""

    def __init__(self, desk, rng):
        self.desk, self.rng, self.open, self.outbox, self.position = desk, rng, {}, [], 0

    def say(self, kind, order_id, **fields):
        self.outbox.append((kind, int(order_id), fields))

    def take(self, order):
        kind, order_id, target = (int(order[name]) for name in ("kind", "order_id", "target_id"))
        if self.rng.random() < 0.1:
            self.say(m.DENIED, order_id, target_id=target, flags=m.FINAL)
            return
        if kind != m.NEW and target not in self.open:
            self.say(m.CANCEL_REJECTED, order_id, target_id=target, flags=m.FINAL)
            return
        refused = self.rng.random() < 0.1
        if kind != m.NEW:
            del self.open[target]
            if kind == m.CANCEL or refused:
                self.say(m.CANCELLED, order_id, target_id=target, flags=m.FINAL)
        if kind == m.CANCEL:
            return
        if refused:
            self.say(m.REJECTED, order_id, target_id=target, flags=m.FINAL)
            return
        self.open[order_id] = {"side": int(order["side"]), "price": int(order["price"]), "leaves": QUANTITY}
        self.say(m.ACCEPTED if kind == m.NEW else m.REPLACED, order_id, target_id=target, price=order["price"])

    def trade(self):
        for order_id, order in list(self.open.items()):
            if self.rng.random() < 0.2:
                quantity = self.rng.randint(1, order["leaves"])
                order["leaves"] -= quantity
                self.position += order["side"] * quantity
                if not order["leaves"]:
                    del self.open[order_id]
                self.say(
                    m.FILL, order_id, side=order["side"], price=order["price"], last_quantity=quantity,
                    flags=0 if order["leaves"] else m.FINAL,
                )  # fmt: skip

    def report(self, count):
        for _ in range(min(count, len(self.outbox))):
            kind, order_id, fields = self.outbox.pop(0)
            self.desk.report(kind, order_id, **fields)


@pytest.mark.parametrize("seed", range(8))
def test_strategy_and_venue_agree_whatever_happens(seed):
    rng = random.Random(seed)
    desk = make(position_max=10)
    venue = Venue(desk, rng)
    middle = 100_000
    for step in range(1500):
        where = f"seed {seed}, step {step}"
        middle += rng.randint(-3, 3) * TICK
        show(desk, middle, middle + TICK)
        sides = [int(one["side"]) for one in desk.sent if int(one["kind"]) != m.CANCEL]
        assert len(set(sides)) == len(sides), where
        for order in desk.sent:
            venue.take(order)
        for side in (m.BUY, m.SELL):
            assert sum(one["side"] == side for one in venue.open.values()) <= 1, where
        if rng.random() < 0.3:
            venue.trade()
        venue.report(rng.randint(0, 4))
        # A replacement of a partly filled quote is for the whole quantity: beyond the limit by less than one quote.
        assert abs(venue.position) < 10 + QUANTITY, where
        if not venue.outbox:
            assert int(desk.mine["position"]) == venue.position, where
            known = {int(desk.mine[f"{side}_id"]) for side in ("bid", "ask")} - {0}
            assert known == set(venue.open), where
            for side in ("bid", "ask"):
                assert int(desk.mine[f"{side}_busy"]) == 0, where
                if desk.mine[f"{side}_id"]:
                    assert int(desk.mine[f"{side}_price"]) == venue.open[int(desk.mine[f"{side}_id"])]["price"], where
