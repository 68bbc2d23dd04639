"""Account events, compiled: every execution type, keys in any order, numbers as large as they come."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.stages import messages as m
from tests.stages.venues.binance_answers import (
    EXECUTION,
    OTHER,
    OWN,
    POSITION,
    REQUEST,
    TIME,
    TRADE,
    agree,
    compact,
    event,
    slow,
    spelled,
)


def row_of(change):
    rows, notes = agree(event(change))
    assert (len(rows), len(notes)) == (1, 0)
    return rows[0]


STATUS_OF = {"NEW": "NEW", "CANCELED": "CANCELED", "REPLACED": "NEW", "REJECTED": "REJECTED", "EXPIRED": "EXPIRED"}


@pytest.mark.parametrize(
    ("change", "kind", "reason", "final"),
    [
        ({}, m.ACCEPTED, "none", False),
        ({"X": "PENDING_NEW"}, m.ACCEPTED, "none", False),
        ({"x": "CANCELED", "X": "CANCELED"}, m.CANCELLED, "by_request", True),
        ({"x": "REPLACED"}, m.AMENDED, "by_request", False),
        ({"x": "REJECTED", "X": "REJECTED"}, m.REJECTED, "venue", True),
        ({"x": "REJECTED", "X": "REJECTED", "r": "WOULD_MATCH_IMMEDIATELY"}, m.REJECTED, "would_take", True),
        ({"x": "REJECTED", "r": "STOP_PRICE_WOULD_TRIGGER_IMMEDIATELY"}, m.REJECTED, "would_trigger", True),
        ({"x": "REJECTED", "X": "REJECTED", "r": "INSUFFICIENT_BALANCES"}, m.REJECTED, "insufficient_balance", True),
        ({"x": "EXPIRED", "X": "EXPIRED"}, m.EXPIRED, "venue", True),
        ({"x": "EXPIRED", "X": "EXPIRED", "f": "FOK"}, m.EXPIRED, "unfilled", True),
        ({"x": "EXPIRED", "X": "EXPIRED", "o": "MARKET"}, m.EXPIRED, "no_liquidity", True),
        ({"x": "EXPIRED", "X": "EXPIRED", "eR": "INSUFFICIENT_LIQUIDITY"}, m.EXPIRED, "no_liquidity", True),
        ({"x": "EXPIRED", "X": "EXPIRED", "eR": "UNFILLED_FOK_ORDER_EXPIRED"}, m.EXPIRED, "unfilled", True),
        ({"x": "EXPIRED", "X": "EXPIRED", "eR": "EXECUTION_RULE_PRICE_RANGE_EXCEEDED"}, m.EXPIRED, "price_range", True),
        ({"x": "EXPIRED", "X": "EXPIRED", "eR": "OCO_TRIGGER"}, m.EXPIRED, "venue", True),
        ({"x": "EXPIRED", "X": "EXPIRED_IN_MATCH"}, m.EXPIRED, "self_trade", True),
        ({"x": "TRADE_PREVENTION", "X": "EXPIRED_IN_MATCH"}, m.EXPIRED, "self_trade", True),
        ({"x": "TRADE_PREVENTION", "X": "NEW", "A": "0.4", "B": "0.4"}, m.AMENDED, "self_trade", False),
    ],
)  # fmt: skip
def test_execution_types(change, kind, reason, final):
    row = row_of(change)
    assert (row["kind"], m.REASONS[row["reason"]], bool(row["flags"] & m.FINAL)) == (kind, reason, final)
    assert (row["order_id"], row["instrument"], row["venue_order_id"], row["slot"]) == (OWN, 1, 4293153, -1)
    left = 60_000_000 if "A" in change else 100_000_000
    assert (row["quantity"], row["leaves"]) == (left, 0 if final else left)
    assert row["target_id"] == (OWN if kind in (m.CANCELLED, m.EXPIRED, m.AMENDED) else 0)


@pytest.mark.parametrize(
    ("name", "original", "order_id", "target_id"),
    [
        (spelled(REQUEST), spelled(OWN), REQUEST, OWN),
        ("by-hand", spelled(OWN), OWN, OWN),
        (spelled(OWN), "", OWN, OWN),
        ("by-hand", "", 0, 0),
        ("by-hand", "another", 0, 0),
        (spelled(OWN, b"b2c3d4e5"), "", 0, 0),
        (spelled(OWN) + "0", "", OWN * 0 + (3 << 40 | 70), 3 << 40 | 70),
    ],
)
def test_whose_order_was_cancelled(name, original, order_id, target_id):
    row = row_of({"x": "CANCELED", "X": "CANCELED", "c": name, "C": original})
    assert (row["order_id"], row["target_id"]) == (order_id, target_id)


def test_a_trade_of_an_order_that_is_being_cancelled_is_its_own():
    assert row_of({**TRADE, "c": spelled(REQUEST), "C": spelled(OTHER)})["order_id"] == OTHER


@pytest.mark.parametrize(
    ("fee", "asset", "expected"),
    [
        ("0.00001", "ETH", (1000, 1)),
        ("0", None, (0, 3)),
        ("0.000001", "USDT", (1, 3)),
        ("0.00000001", "BNB", (1, -1)),
        ("0.5", "LONGCODE", (5000, 4)),
    ],
)
def test_fees(fee, asset, expected):
    row = row_of({**TRADE, "n": fee, "N": asset})
    assert (row["fee"], row["fee_currency"]) == expected


@pytest.mark.parametrize(
    ("fee", "asset", "expected"),
    [("0.0000001", "USDT", (1, 3)), ("0.000000001", "BNB", (1, -1)), ("0.00001", "LONGCODE", (1, 4))],
)
def test_fees_finer_than_the_currency_are_rounded_up_by_the_slow_path(fee, asset, expected):
    frame = event({**TRADE, "n": fee, "N": asset})
    assert agree(frame) is None
    row = slow(frame)[0][0]
    assert (row["fee"], row["fee_currency"]) == expected


@pytest.mark.parametrize("seed", range(20))
def test_keys_in_any_order_but_the_first_two_and_the_symbol(seed):
    rest = [key for key in EXECUTION if key not in ("e", "s")]
    random.Random(seed).shuffle(rest)
    frame = compact({"subscriptionId": 0, "event": {key: {**EXECUTION, **TRADE}[key] for key in ("e", "s", *rest)}})
    assert list(agree(frame)[0]) == list(agree(event(TRADE))[0]), f"seed {seed}"


@pytest.mark.parametrize("key", [key for key in EXECUTION if key in "scSofqpCxXrilzLnNTtm"])
def test_a_field_that_is_missing_is_not_recognised(key):
    frame = {
        "subscriptionId": 0,
        "event": {name: value for name, value in {**EXECUTION, **TRADE}.items() if name != key},
    }
    assert agree(compact(frame)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"s": "XRPUSDT"},
        {"x": "LIQUIDATED"},
        {"X": "SUSPENDED"},
        {"S": "HOLD"},
        {"i": 0},
        {"i": -5},
        {"q": "0.1", "z": "0.2"},
        {"q": "1", "A": "1.5"},
        {"p": "-1"},
        {"p": "1e5"},
        {"p": "0.123456789"},
        {"p": 1},
        {"T": -1},
        {"T": "5"},
        {"c": 5},
        {"gP": "PRIMARY_PEG"},
        {"?": 1},
        {**TRADE, "t": -1},
        {**TRADE, "l": "0"},
        {**TRADE, "L": "0.00000000"},
        {**TRADE, "m": 1},
        {**TRADE, "N": 5},
        {**TRADE, "X": "CANCELED"},
        {"W": [1]},
        {"w": 1.5},
        {"V": "\u00e9"},
        {"V": "\n"},
    ],
)
def test_what_is_not_the_venue_s_spelling_is_not_recognised(change):
    assert agree(event(change)) is None


@pytest.mark.parametrize("key", ["q", "V", "eR", "s"])
def test_a_key_that_stands_twice_is_not_recognised(key):
    frame = event({"eR": "X"})
    value = json.dumps({**EXECUTION, "eR": "X"}[key])
    assert agree(frame[:-2] + f',"{key}":{value}}}}}'.encode()) is None


amount = st.integers(0, 10**18 - 1)


@settings(deadline=None)
@given(amount, amount, st.integers(1, 10**18 - 1), st.integers(0, 10**18 - 1), st.integers(0, 9_223_372_036_854))
def test_numbers_are_exact(quantity, price, venue_id, trade_id, time_ms):
    def text(value):
        return f"{value // 10**8}.{value % 10**8:08d}"

    change = {**TRADE, "q": text(quantity), "z": text(quantity), "l": text(quantity), "L": text(price), "i": venue_id}
    found = agree(event({**change, "t": trade_id, "T": time_ms, "X": "FILLED"}))
    assert (found is not None) == (quantity > 0 and price > 0)
    if found:
        row = found[0][0]
        assert (row["last_quantity"], row["last_price"], row["quantity"]) == (quantity, price, quantity)
        assert (row["venue_order_id"], row["trade_id"], row["venue_ns"]) == (venue_id, trade_id, time_ms * 10**6)


def test_balances():
    _, notes = agree(event(base=POSITION))
    assert [(int(note["what"]), int(note["free"]), int(note["locked"])) for note in notes] == [
        (1, 1_000_000_000_000, 50_000_000),
        (4, 1234, 0),
    ]
    assert len(agree(event(base={**POSITION, "B": []}))[1]) == 0
    many = [{"a": "ETH", "f": "1", "l": "0"}] * 16
    assert len(agree(event(base={**POSITION, "B": many}))[1]) == 16
    assert agree(event(base={**POSITION, "B": many * 2})) is None


@pytest.mark.parametrize(
    "change",
    [
        {"B": [{"a": "ETH", "f": "1"}]},
        {"B": [{"a": "ETH", "f": "1", "l": -1}]},
        {"B": [1]},
        {"B": None},
        {"u": -1},
        {"E": "x"},
        {"B": [{"a": "USDT", "f": "0.0000001", "l": "0"}]},
    ],
)
def test_odd_balances_are_not_recognised(change):
    assert agree(event(base={**POSITION, **change})) is None


def test_other_events_are_not_recognised():
    for name in ("listStatus", "balanceUpdate", "executionReport2"):
        assert agree(event(base={"e": name, "E": TIME})) is None
