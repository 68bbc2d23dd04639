"""The soak: live orders under random faults, after which journal, gateway, risk and venue agree on everything.

A few thousand orders as a test; `make soak` is the full size, and SOAK_ORDERS and SOAK_SEED choose another.
"""

from __future__ import annotations

import copy
import json
import os
import random
import sys

import pytest

from shrivenq.pipeline.instruments import read_instruments
from shrivenq.shm import segment
from tests.pipeline import soak_agreement, soak_faults, soak_rig
from tests.pipeline.soak_agreement import Order, Told, Trade, Venue

DEATH_EVERY = 20_000
"""Orders after which the gateway is killed."""
ORDERS = int(os.environ.get("SOAK_ORDERS", "3000"))
SEED = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)


@pytest.fixture
def soak(tmp_path, monkeypatch):
    """A soak that begins, in a state folder of its own."""
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))
    try:
        with soak_rig.Soak(tmp_path, SEED, say=lambda line: print(line, file=sys.stderr)) as made:
            yield made
    finally:
        for name in segment.names(f"{soak_rig.NAME}."):
            segment.unlink(name)


@pytest.mark.slow
def test_after_everything_that_went_wrong_all_agree_on_every_order_fill_fee_and_position(soak, capsys):
    with capsys.disabled():
        print(f"\nsoak: {ORDERS:,} orders, SOAK_SEED={SEED}")
        soak.run(ORDERS, ORDERS // DEATH_EVERY)
        print(json.dumps(soak.figures(), indent=1))
    found = soak.disagreements()
    assert not found, "\n".join([f"SOAK_SEED={SEED}", *found])
    figures = soak.figures()
    assert figures["orders"] >= ORDERS
    assert figures["fills"] > ORDERS // 20, figures
    errors = sum(count for kind, count in figures["faults"].items() if "error_" in kind)
    assert figures["were_unknown"] > 0 or errors < 20, figures
    assert sum(figures["faults"].values()) > ORDERS // 200, figures
    spoiled = copy.deepcopy(soak.venue)
    spoiled.trades[0] = spoiled.trades[0]._replace(fee=spoiled.trades[0].fee + 1)
    soak.venue = spoiled
    assert len(soak.disagreements()) >= 3, "one fee is wrong, and nobody sees it"


# ── the comparison can fail ──────────────────────────────────────────────────────────────────────────────────────────

FILL, CANCELLED, REJECTED = (soak_agreement.m.FILL, soak_agreement.m.CANCELLED, soak_agreement.m.REJECTED)
TRADE = Trade("BTCUSDT", 7, "r-1-1", 600_00, 1_00000000, 1, 100_000, "BTC")
EPOCH = 1 << soak_agreement.m.EPOCH_SHIFT


def sides():
    """Give a journal and a venue that agree: one order filled, one cancelled, one refused."""
    told = Told(
        trades=[TRADE], names={EPOCH | 1: "r-1-1", EPOCH | 2: "r-1-2", EPOCH | 3: "r-1-3"},
        ends={EPOCH | 1: [FILL], EPOCH | 2: [CANCELLED], EPOCH | 3: [REJECTED]}, epoch=1, unknown=0, repeated=0,
    )  # fmt: skip
    venue = Venue(
        trades=[TRADE], orders=[Order("r-1-1", "FILLED", 1_00000000), Order("r-1-2", "CANCELED", 0)],
        gained={"BTC": 1_00000000 - 100_000, "USDT": -600_00000000, "ETH": 0}, locked={"BTC": 0},
    )  # fmt: skip
    return told, venue


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    soak_rig.make_config(folder)
    found, errors = read_instruments(folder / "instruments.toml", [])
    assert not errors
    return found


def lines(told, venue, tables, taken=0, rows=None):
    if rows is None:
        rows = soak_agreement.positions_of(sides()[1], tables).rows
    return soak_agreement.disagreements(told, venue, rows, taken, tables)


def test_what_agrees_is_found_to_agree(tables):
    assert lines(*sides(), tables) == []


@pytest.mark.parametrize(
    "change",
    [
        {"fee": 99_999},
        {"fee": 100_000_000, "currency": "USDT"},
        {"quantity": 1_00000001},
        {"price": 600_01},
        {"side": -1},
        {"trade_id": 8},
        {"order": "r-1-2"},
    ],
)
def test_one_wrong_fill_is_found_on_either_side(tables, change):
    for side in (0, 1):
        found = sides()
        found[side].trades[0] = TRADE._replace(**change)
        assert any(one.startswith("fill: ") for one in lines(*found, tables)), side


def test_a_fill_too_many_and_a_fill_too_few_are_found(tables):
    for trades in ([], [TRADE, TRADE]):
        told, venue = sides()
        told.trades[:] = trades
        assert {one.partition(":")[0] for one in lines(told, venue, tables)} == {"fill", "order", "balance"}


def test_orders_that_ended_otherwise_or_not_or_twice_are_found(tables):
    for change in ({EPOCH | 2: [FILL]}, {EPOCH | 2: []}, {EPOCH | 2: [CANCELLED] * 2}, {EPOCH | 1: [REJECTED]}):
        told, venue = sides()
        told.ends.update(change)
        assert any(one.startswith("order: ") for one in lines(told, venue, tables)), change
    for orders in ([Order("r-1-2", "OPEN", 0)], [Order("r-1-2", "CANCELED", 1)], [], [Order("r-1-9", "FILLED", 0)]):
        told, venue = sides()
        venue.orders[1:] = orders
        assert any(one.startswith("order: ") for one in lines(told, venue, tables)), orders


def test_positions_balances_and_slots_that_are_off_are_found(tables):
    told, venue = sides()
    for name in ("position", "bought", "fills", "foreign_fees", "cost"):
        rows = soak_agreement.positions_of(venue, tables).rows
        rows[0][name] += 1
        assert any(one.startswith("risk: ") for one in lines(told, venue, tables, rows=rows)), name
    assert lines(told, venue, tables, taken=1) == ["gateway: 1 order slots are in use"]
    venue.gained["USDT"] += 1
    venue.locked["BTC"] = 5
    assert len(lines(told, venue, tables)) == 2


def test_the_same_seed_draws_the_same_faults():
    dice = [random.Random(3), random.Random(3), random.Random(4)]
    first, second, other = ([soak_faults.draw(one) for _ in range(20)] for one in dice)
    assert first == second != other
    assert {rule.action for script in first for rule in script.rules} >= {"drop", "late", "duplicate"}
