"""The paper venue: time, lock-step and the clock, the feed, the kill word; money is conserved."""

from __future__ import annotations

import random
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest

from shrivenq.stages import book_sync, control, paper_venue
from shrivenq.stages import messages as m
from shrivenq.stages.conductor import DONE, GRANTED_NS, GRANTS, NEVER, NEXT_DUE_NS
from tests.stages.naive_book import Diff, Snapshot, Trade, read_capture
from tests.stages.naive_fills import Naive
from tests.stages.venue_rig import VenueRig, drain, instruments_of

BIDS, ASKS = [(1000, 10), (990, 20), (980, 30)], [(1010, 8), (1020, 6), (1030, 40)]
A, F, C, RJ, E, CR, RP = m.ACCEPTED, m.FILL, m.CANCELLED, m.REJECTED, m.EXPIRED, m.CANCEL_REJECTED, m.REPLACED


@pytest.fixture
def rig():
    made = VenueRig()
    made.snapshot(BIDS, ASKS)
    return made


def reasons(rig):
    return [m.REASONS[one["reason"]] for one in rig.settle()]


def test_an_order_acts_one_latency_later_on_the_market_of_that_moment():
    rig = VenueRig(order_us=5, report_us=3)
    rig.snapshot(BIDS, ASKS)
    order = rig.buy(1010, 2, tif=m.IOC)
    assert rig.venue[NEXT_DUE_NS] == rig.now + 5_000
    sent = rig.now
    rig.now += 5_000
    rig.diff(asks=[(1010, 0)])  # at the very moment: the market comes first
    reports = rig.grant(sent + 5_000)
    assert reports == []
    assert rig.venue[NEXT_DUE_NS] == sent + 8_000
    reports = rig.settle()
    assert [int(one["kind"]) for one in reports] == [A, E]
    assert {int(one["time_ns"]) for one in reports} == {sent + 8_000}
    assert {int(one["venue_ns"]) for one in reports} == {sent + 5_000}
    assert reports[0]["order_id"] == order
    assert rig.venue[NEXT_DUE_NS] == NEVER


def test_a_fill_before_the_cancel_arrives_wins():
    rig = VenueRig(order_us=10)
    rig.snapshot(BIDS, ASKS)
    order = rig.buy(1000, 4)
    rig.settle()
    rig.now += 10_000
    cancel = rig.send(m.CANCEL, target_id=order)
    rig.now += 5_000
    rig.trade(990, 1, m.SELL)
    rig.now += 5_000
    assert rig.said() == [(F, order, 4, 1000), (CR, cancel, 0, 0)]


def test_no_orders_without_a_whole_book():
    rig = VenueRig()
    rig.buy(1000, 2)
    assert reasons(rig) == ["no_touch"]
    rig.snapshot(BIDS, ASKS)
    order = rig.buy(1000, 2)
    rig.settle()
    rig.update_id += 50
    rig.diff(bids=[(1000, 5)])
    rig.buy(1000, 2)
    assert reasons(rig) == ["no_touch"]
    rig.trade(990, 2, m.SELL)
    assert rig.said() == [(F, order, 2, 1000)]
    rig.snapshot(BIDS, ASKS)
    rig.buy(1000, 2)
    assert reasons(rig) == ["none"]


def test_echo_comes_back_after_both_latencies():
    rig = VenueRig(order_us=4, report_us=2)
    order = rig.send(m.ECHO, echo=m.DENIED, reason=m.REASON["second_line"], slot=5, generation=3, price=9, quantity=7)
    (report,) = rig.settle()
    assert (report["kind"], report["order_id"], report["slot"], report["generation"]) == (m.DENIED, order, 5, 3)
    assert (m.REASONS[report["reason"]], report["price"], report["quantity"]) == ("second_line", 9, 7)
    assert report["time_ns"] == rig.now + 6_000


def test_a_grant_serves_one_report(rig):
    rig.buy(1020, 14)
    due = int(rig.venue[NEXT_DUE_NS])
    counts = []
    for _ in range(4):
        rig.venue[GRANTED_NS] = due
        rig.venue[GRANTS] += 1
        rig.step()
        assert rig.venue[DONE] == rig.venue[GRANTS]
        counts.append(len(drain(rig.from_venue)))
    assert counts == [1, 1, 1, 0]


def test_the_kill_word_reaches_the_venue():
    rig = VenueRig(virtual=False)
    rig.snapshot(BIDS, ASKS)
    order = rig.buy(1000, 2)
    rig.step()
    rig.kill[control.OPERATOR] = control.CANCEL
    rig.step()
    rig.buy(1000, 2)
    rig.buy(1000, 2, flags=m.REDUCING)
    rig.step()
    found = [(int(one["kind"]), m.REASONS[one["reason"]]) for one in drain(rig.from_venue)]
    assert found == [(A, "none"), (C, "killed"), (RJ, "killed"), (A, "none")]
    assert order == 1


def test_config_is_checked():
    with pytest.raises(ValueError, match="model is one of queue, trade_through, touch, not 'hope'"):
        paper_venue.Config(model="hope", order_latency_us=1, report_latency_us=1)
    with pytest.raises(ValueError, match="order_latency_us is 0 to"):
        paper_venue.Config(order_latency_us=-1, report_latency_us=1)


def test_a_lost_feed_makes_the_books_invalid(rig):
    rig.tick(kind=m.TIMER, flags=m.GAP)
    rig.tick(kind=m.END)
    rig.buy(1000, 2)
    assert reasons(rig) == ["no_touch"]
    assert rig.context.words[paper_venue.FEED_GAPS] == 1


def test_a_loss_of_one_instrument_leaves_the_others_alone():
    rig = VenueRig(instruments=instruments_of(2))
    for row in range(2):
        rig.snapshot(BIDS, ASKS, row)
    rig.step()
    status = rig.context.sync.state["status"]
    assert status.tolist() == [book_sync.LIVE] * 2
    rig.tick(kind=m.LOST, instrument=1)
    rig.tick(kind=m.END, instrument=1)
    rig.step()
    assert status.tolist() == [book_sync.LIVE, book_sync.INVALID]
    rig.tick(kind=m.LOST, instrument=-1)
    rig.tick(kind=m.END)
    rig.step()
    assert status.tolist() == [book_sync.INVALID] * 2


@pytest.mark.parametrize("seed", range(3))
def test_money_and_inventory_are_conserved(seed):
    """Random flow: the venue's account of each order is the sum of its fills, and cash, fees and inventory add up."""
    chance = np.random.default_rng(seed)
    rig = VenueRig(order_us=2, report_us=1)
    rig.snapshot([(1000 - 10 * i, 10) for i in range(20)], [(1010 + 10 * i, 10) for i in range(20)])
    reports, ids = [], []
    for _ in range(400):
        rig.now += int(chance.integers(1, 3_000))
        reports += rig.grant(rig.now)
        action = chance.integers(6)
        side = int(chance.choice([m.BUY, m.SELL]))
        price = int(1000 + 10 * chance.integers(-4, 6))
        if action <= 1:
            tif = int(chance.integers(1, 4))
            kind = int(chance.integers(1, 4))
            ids.append(rig.send(m.NEW, side, price, int(2 * chance.integers(1, 15)), order_type=kind, tif=tif))
        elif action == 2 and ids:
            target = int(chance.choice(ids))
            if chance.random() < 0.5:
                rig.send(m.CANCEL, target_id=target)
            else:
                ids.append(rig.send(m.REPLACE, side, price, 10, target_id=target))
        elif action == 3:
            rig.trade(price, int(chance.integers(1, 40)), side)
        else:
            below = price < 1005
            rig.diff(**{"bids" if below else "asks": [(price, int(chance.integers(0, 30)))]})
    reports += rig.settle()
    fills = [one for one in reports if one["kind"] == F]
    assert len(fills) > 30, f"seed {seed}"
    assert len({int(one["trade_id"]) for one in fills}) == len(fills)
    filled: dict[int, int] = defaultdict(int)
    cash, inventory, fees, expected_fees = Fraction(0), 0, 0, Fraction(0)
    ended = set()
    for one in reports:
        order_id = int(one["target_id"] if one["kind"] == C else one["order_id"])
        if one["kind"] == F:
            assert order_id not in ended, f"seed {seed}"
            filled[order_id] += int(one["last_quantity"])
            assert one["filled"] == filled[order_id]
            assert one["leaves"] == one["quantity"] - one["filled"]
            value = Fraction(int(one["last_price"]) * int(one["last_quantity"]), 1000)
            cash -= int(one["side"]) * value
            inventory += int(one["side"]) * int(one["last_quantity"])
            rate = Fraction(10_000 if one["flags"] & m.MAKER else 40_000, 10**8)
            fees += int(one["fee"])
            expected_fees += -(-value * rate * 10**8 // 1)
        if one["flags"] & m.FINAL or one["kind"] == C:
            ended.add(order_id)
    assert fees == expected_fees
    table = rig.context.market.orders
    bought = {1: 0, -1: 0}
    venue_cash = Fraction(0)
    for row in table[table["order_id"] != 0]:
        assert row["filled"] == filled[int(row["order_id"])], f"seed {seed}"
        bought[int(row["side"])] += int(row["filled"])
    for one in rig.context.market.trades[1 : len(fills) + 1]:
        side = int(table[table["order_id"] == one["order_id"]]["side"][0])
        venue_cash -= side * Fraction(int(one["price"]) * int(one["quantity"]), 1000)
    assert inventory == bought[1] - bought[-1]
    assert cash == venue_cash


class Replayed:
    """A capture, record by record, in the paper venue and in its twin; our orders at the touch every few events."""

    def __init__(self, model, events):
        instruments = instruments_of(tick=1, step=1, price_min=1, price_max=10**12, quantity_min=1, quantity_max=10**12)
        instruments["price_decimals"], instruments["quantity_decimals"], instruments["contract_size"] = 2, 8, 10**8
        self.rig, self.twin = VenueRig(model=model, instruments=instruments), Naive(model)
        self.events, self.fills, self.orders = events, [], 0

    def depth(self, levels):
        for side, price, quantity in levels:
            flags = m.SIDE_ASK if side else 0
            self.rig.tick(kind=m.LEVEL, flags=flags, price=price, quantity=quantity)
            self.twin.level(m.SELL if side else m.BUY, price, quantity)
        self.rig.tick(kind=m.END)
        self.rig.step()
        self.twin.event_end()

    def place(self, chance):
        side = chance.choice((m.BUY, m.SELL))
        bid, ask = max(self.twin.levels[m.BUY]), min(self.twin.levels[m.SELL])
        price = (bid if side == m.BUY else ask) - side * chance.choice((0, 0, 0, 1, 100))
        tif = m.GTC
        if chance.random() < 0.2:
            price, tif = (ask if side == m.BUY else bid) + side * chance.randrange(300), chance.choice((m.IOC, m.FOK))
        quantity = chance.randrange(1, 60_000_000)
        order_id = self.rig.send(m.NEW, side, price, quantity, tif=tif)
        self.twin.order(order_id, side, price, quantity, m.LIMIT, tif)

    def diff(self, event):
        if event.last > self.rig.context.sync.state["update_id"][0]:
            self.rig.tick(kind=m.DIFF, first_id=event.first, last_id=event.last, previous_id=-1)
            self.depth(event.levels)

    def trade(self, event):
        aggressor = m.SELL if event.seller_aggressed else m.BUY
        self.rig.trade(event.price, event.quantity, aggressor)
        self.twin.trade(event.price, event.quantity, aggressor)

    def run(self, depth_events, seed):
        chance, early, live = random.Random(seed), [], False
        for event in self.events:
            self.rig.now = max(self.rig.now, event.time_ns)
            if isinstance(event, Snapshot):
                self.rig.tick(kind=m.SNAPSHOT, last_id=event.last)
                self.depth(event.levels)
                live = True
                for one in early:
                    self.diff(one)
            elif isinstance(event, Diff) and not live:
                early.append(event)
            elif isinstance(event, Diff):
                self.diff(event)
                depth_events -= 1
                if depth_events % 3 == 0:
                    self.place(chance)
            elif isinstance(event, Trade) and live:
                self.trade(event)
            for one in self.rig.settle():
                if one["kind"] == F:
                    maker = bool(one["flags"] & m.MAKER)
                    self.fills.append((int(one["order_id"]), int(one["last_price"]), int(one["last_quantity"]), maker))
            if depth_events == 0:
                break


@pytest.mark.parametrize("model", ["queue", "touch"])
def test_a_real_market_fills_as_in_the_twin(data, model):
    events = read_capture([data / "binance" / "spot" / "btcusdt_20240808.gz"], 2, 8)
    replayed = Replayed(model, events)
    replayed.run(450, seed=1)
    assert replayed.fills == replayed.twin.fills
    assert sum(maker for _, _, _, maker in replayed.fills) > 20
    assert sum(not maker for _, _, _, maker in replayed.fills) > 20
    assert replayed.rig.context.sync.state["gaps"][0] == 0
