"""Matching against a slow, obvious engine, and what must be conserved."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching
from shrivenq.stages.matching import LEVELS, cancel, hide, make_matching, place, reduce
from shrivenq.stages.messages import BUY, GTC, IOC, LIMIT, MARKET, REASONS, SELL

BASES, TICKS = [1_000, 5_000_000], [1, 10]


class Reference:
    """One instrument: a plain list of resting orders, searched from end to end for every match."""

    def __init__(self, base, tick, slots):
        self.base, self.tick, self.slots = base, tick, slots
        self.resting = []  # [side, price, leaves, owner, hidden, part], in order of arrival
        self.trade_id = 0

    def place(self, side, order_type, time_in_force, price, quantity, owner):
        """Return (reason, trades, resting order or None, leaves)."""
        rests = order_type != MARKET and time_in_force == GTC
        if quantity <= 0:
            return "quantity_range", [], None, 0
        if order_type != MARKET:
            if not self.base <= price < self.base + LEVELS * self.tick:
                return "price_range", [], None, 0
            if (price - self.base) % self.tick:
                return "tick_size", [], None, 0
            if rests and len(self.resting) == self.slots:
                return "no_slot", [], None, 0
        trades = []
        while quantity and len(trades) <= self.slots:
            others = [one for one in self.resting if one[0] == -side]
            if order_type != MARKET:
                others = [one for one in others if (price - one[1]) * side >= 0]
            if not others:
                break
            # min and max return the first of equals: time priority.
            maker = min(others, key=lambda one: one[1] * side)
            traded = min(quantity, maker[2])
            quantity -= traded
            maker[2] -= traded
            self.trade_id += 1
            trades.append((self.trade_id, maker[1], traded, maker[3], maker[2] + maker[4], owner, side))
            if not maker[2]:
                self.remove(maker)
                maker[2] = min(maker[4], maker[5])
                maker[4] -= maker[2]
                self.resting += [maker] if maker[2] else []
        if quantity and rests and len(trades) <= self.slots:
            order = [side, price, quantity, owner, 0, 0]
            self.resting.append(order)
            return "none", trades, order, 0
        return "none", trades, None, quantity

    def remove(self, order):
        self.resting = [one for one in self.resting if one is not order]

    def hide(self, order, part):
        order[2], order[4], order[5] = min(order[2], part), max(order[2] - part, 0), part

    def reduce(self, order, quantity):
        if not any(one is order for one in self.resting):
            return 0
        left = max(order[2] + order[4] - quantity, 0)
        taken = order[2] + order[4] - left
        order[2] = min(order[2], left)
        order[4] = left - order[2]
        if not left:
            self.remove(order)
        return taken

    def levels(self):
        found = {}
        for side, price, leaves, *_ in self.resting:
            quantity, orders = found.get((side, price), (0, 0))
            found[side, price] = (quantity + leaves, orders + 1)
        return found


TRADE_FIELDS = ("trade_id", "price", "quantity", "maker_owner", "maker_leaves", "taker_owner", "side")


def trades_of(core):
    rows = core.trades[: core.words[matching.TRADES]]
    return [tuple(int(row[name]) for name in TRADE_FIELDS) for row in rows]


def levels_of(core, instrument):
    first = instrument * LEVELS
    rows = core.levels[first : first + LEVELS]
    found = {}
    for level in np.flatnonzero(rows["orders"]).tolist():
        price = matching.price_of(core, instrument, level)
        side = matching.side_of(core, instrument, level)
        found[side, price] = (int(rows[level]["quantity"]), int(rows[level]["orders"]))
    return found


def check_touch(core, instrument, reference):
    bids = [price for side, price in reference.levels() if side == BUY]
    asks = [price for side, price in reference.levels() if side == SELL]
    ladder = core.ladders[instrument]
    base, tick = reference.base, reference.tick
    assert ladder["best_bid"] == ((max(bids) - base) // tick if bids else -1)
    assert ladder["best_ask"] == ((min(asks) - base) // tick if asks else LEVELS)
    assert (ladder["bid_levels"], ladder["ask_levels"]) == (len(bids), len(asks))
    assert ladder["resting"] == len(reference.resting)
    assert ladder["hiding"] == sum(1 for one in reference.resting if one[5])


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_the_reference_on_random_commands(seed):
    random.seed(seed)
    slots = 40
    core = make_matching(BASES, TICKS, slots)
    references = [Reference(base, tick, slots) for base, tick in zip(BASES, TICKS, strict=True)]
    # Some seeds trade in a narrow band, some across the whole ladder.
    width = (8, 30, LEVELS)[seed % 3]
    known = []
    for step in range(3_000):
        where = f"seed {seed} step {step}"
        instrument = random.randrange(2)
        reference = references[instrument]
        if known and random.random() < 0.3:
            handle, order, owner_of = known.pop(random.randrange(len(known)))
            some = random.randrange(1, 15)
            assert reduce(core, handle, some) == owner_of.reduce(order, some), where
            if random.random() < 0.3:
                known.append((handle, order, owner_of))
            else:
                assert cancel(core, handle) == owner_of.reduce(order, 1 << 62), where
                assert cancel(core, handle) == 0, where
        else:
            side = random.choice((BUY, SELL))
            order_type = random.choices((LIMIT, MARKET), (8, 1))[0]
            time_in_force = random.choices((GTC, IOC), (4, 1))[0]
            price = reference.base + reference.tick * random.randrange(-1, width + 1) + (random.random() < 0.02)
            quantity = random.randrange(20) if random.random() < 0.9 else random.randrange(10**12)
            reason, trades, order, leaves = reference.place(side, order_type, time_in_force, price, quantity, step)
            found = place(core, instrument, side, order_type, time_in_force, price, quantity, step)
            assert REASONS[found] == reason, where
            assert trades_of(core) == trades, where
            assert core.words[matching.LEAVES] == leaves, where
            assert (core.words[matching.HANDLE] != 0) == (order is not None), where
            if order is not None:
                known.append((int(core.words[matching.HANDLE]), order, reference))
                if random.random() < 0.2:
                    part = random.randrange(1, 8)
                    hide(core, instrument, known[-1][0], part)
                    reference.hide(order, part)
        check_touch(core, instrument, reference)
        if step % 50 == 0:
            assert levels_of(core, instrument) == reference.levels(), where
    for instrument, reference in enumerate(references):
        assert levels_of(core, instrument) == reference.levels(), f"seed {seed}"


def test_changed_names_every_level_that_differs():
    random.seed(7)
    core = make_matching([1_000], [1], 60)
    before = levels_of(core, 0)
    handles = []
    for step in range(2_000):
        if handles and random.random() < 0.4:
            cancel(core, handles.pop(random.randrange(len(handles))))
        else:
            place(core, 0, random.choice((BUY, SELL)), LIMIT, GTC, 1_000 + random.randrange(20), 5, 0)
            handles.append(int(core.words[matching.HANDLE]))
        if step % 10 == 0:
            after = levels_of(core, 0)
            changed = core.changed[: core.ladders[0]["changed"]].tolist()
            assert len(changed) == len(set(changed))
            differing = {price - 1_000 for side, price in before.items() ^ after.items() for side, price in [side]}
            assert differing <= set(changed), f"step {step}"
            matching.clear_changed(core, 0)
            assert not core.levels["marked"].any()
            before = after


@kernel
def churn(core, commands, totals):
    """Run random commands: columns kind, instrument, side, price, quantity, slot. Totals: in, traded, out."""
    for row in range(commands.shape[0]):
        if commands[row, 0] < 45:
            slot = commands[row, 5]
            totals[2] += cancel(core, core.orders[slot]["handle"])
            continue
        order_type = 2 if commands[row, 0] > 95 else 1
        time_in_force = 2 if commands[row, 0] > 85 else 1
        quantity = commands[row, 4]
        if place(core, commands[row, 1], commands[row, 2], order_type, time_in_force, commands[row, 3], quantity, row):
            continue
        totals[0] += quantity
        totals[2] += core.words[2]
        if core.words[1] != 0 and row % 4 == 0:
            hide(core, commands[row, 1], core.words[1], 1 + quantity // 5)
        for position in range(core.words[0]):
            totals[1] += core.trades[position]["quantity"]


def test_a_million_commands_conserve_quantity():
    seed = 11
    generator = np.random.default_rng(seed)
    count, slots = 1_000_000, 500
    core = make_matching([10_000, 10_000], [1, 1], slots)
    commands = np.empty((count, 6), np.int64)
    commands[:, 0] = generator.integers(0, 100, count)
    commands[:, 1] = generator.integers(0, 2, count)
    commands[:, 2] = generator.choice([BUY, SELL], count)
    commands[:, 3] = 10_000 + LEVELS // 2 + (generator.standard_normal(count) * 40).astype(np.int64)
    commands[:, 4] = generator.integers(1, 1_000_000, count)
    commands[:, 5] = generator.integers(0, 2 * slots, count)
    totals = np.zeros(3, np.int64)
    churn(core, commands, totals)
    placed, traded, out = totals.tolist()
    resting, hidden = int(core.orders["leaves"].sum()), int(core.orders["hidden"].sum())
    assert placed == 2 * traded + out + resting + hidden, f"seed {seed}"
    assert resting == int(core.levels["quantity"].sum()), f"seed {seed}"
    assert hidden > 0
    assert traded > count // 10
    assert int(core.ladders["trade_id"].sum()) > count // 10
    for instrument in range(2):
        first = instrument * LEVELS
        rows = core.levels[first : first + LEVELS]
        assert (
            int((rows["orders"] > 0).sum())
            == core.ladders[instrument]["bid_levels"] + core.ladders[instrument]["ask_levels"]
        )
        assert core.ladders[instrument]["best_bid"] < core.ladders[instrument]["best_ask"]
        # Every slot is either resting or on the free list, once.
        free, slot = 0, int(core.ladders[instrument]["free"])
        while slot >= 0:
            free, slot = free + 1, int(core.orders[slot]["next"])
        assert free + core.ladders[instrument]["resting"] == slots
    counted = (core.levels["orders"] > 0).reshape(-1, 64).sum(axis=1)
    assert (counted == core.blocks).all()


def test_unknown_handles_cancel_nothing():
    core = make_matching([1_000], [1], 4)
    for handle in (-1, 0, 3, 4, 1 << 24, 1 << 40, (1 << 63) - 1):
        assert cancel(core, handle) == 0


def test_an_order_that_shrinks_keeps_its_place():
    core = make_matching([1_000], [1], 4)
    handles = []
    for owner in (1, 2):
        place(core, 0, BUY, LIMIT, GTC, 1_000, 10, owner)
        handles.append(int(core.words[matching.HANDLE]))
    matching.clear_changed(core, 0)
    assert matching.reduce(core, handles[0], 6) == 6
    assert core.changed[: core.ladders[0]["changed"]].tolist() == [0]
    assert levels_of(core, 0) == {(BUY, 1_000): (14, 2)}
    place(core, 0, SELL, LIMIT, IOC, 1_000, 5, 3)
    assert [(one[3], one[2]) for one in trades_of(core)] == [(1, 4), (2, 1)]
    assert matching.reduce(core, handles[1], 0) == matching.reduce(core, handles[1], -5) == 0
    assert matching.reduce(core, handles[1], 100) == 9
    assert matching.reduce(core, handles[1], 1) == 0
    assert levels_of(core, 0) == {}


def test_a_ladder_may_have_any_number_of_blocks():
    for levels in (64, 1 << 20):
        core = make_matching([10, 10], [1, 1], 8, levels)
        for instrument in range(2):
            assert core.ladders[instrument]["best_ask"] == levels
            assert place(core, instrument, SELL, LIMIT, GTC, 9 + levels, 5, 0) == matching.PLACED
            assert place(core, instrument, BUY, LIMIT, GTC, 10, 5, 0) == matching.PLACED
            assert REASONS[place(core, instrument, BUY, LIMIT, GTC, 10 + levels, 5, 0)] == "price_range"
            assert (core.ladders[instrument]["best_bid"], core.ladders[instrument]["best_ask"]) == (0, levels - 1)
            assert place(core, instrument, BUY, MARKET, IOC, 0, 5, 0) == matching.PLACED
            assert core.ladders[instrument]["best_ask"] == levels


def test_a_level_cannot_overflow():
    core = make_matching([1_000], [1], 4)
    assert REASONS[place(core, 0, BUY, LIMIT, GTC, 1_000, (1 << 60) + 1, 0)] == "quantity_range"
    for _ in range(4):
        assert place(core, 0, BUY, LIMIT, GTC, 1_000, 1 << 60, 0) == matching.PLACED
    assert core.levels[0]["quantity"] == 1 << 62


@pytest.mark.parametrize(("bases", "ticks", "slots"), [([0], [1], 8), ([1], [0], 8), ([1], [1], 1 << 24)])
def test_impossible_shapes_are_refused(bases, ticks, slots):
    with pytest.raises(ValueError, match="ladders from"):
        make_matching(bases, ticks, slots)


@pytest.mark.parametrize("levels", [0, 63, 65, -64])
def test_ladders_are_whole_blocks(levels):
    with pytest.raises(ValueError, match="ladders from"):
        make_matching([1], [1], 8, levels)
