"""The strict reader of account events: exact, tolerant of spelling, and one line for what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.binance_reports_slow import Refused, decode_slow
from tests.stages.venues.binance_answers import ANSWERS, EXECUTION, OWN, POSITION, TIME, TRADE, compact, event, slow


def refusal(frame):
    with pytest.raises(Refused) as caught:
        decode_slow(frame, ANSWERS, np.zeros(8, m.REPORT), np.zeros(8, a.NOTE))
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 300
    return said


def test_a_fill_in_another_spelling():
    change = {**TRADE, "q": "1", "z": "0.5", "l": "0.250", "n": "0.000025000"}
    assert [list(one) for one in slow(event(change))] == [list(one) for one in slow(event(TRADE))]


def test_events_of_instruments_we_do_not_trade_are_noted():
    rows, notes, _ = slow(event({"s": "XRPUSDT", "p": "0.123456789"}))
    assert len(rows) == 0
    assert (int(notes[0]["kind"]), int(notes[0]["order_id"])) == (a.FOREIGN, EXECUTION["i"])


def test_events_that_say_nothing_to_us():
    for name in ("listStatus", "externalLockUpdate"):
        assert [len(one) for one in slow(event(base={"e": name, "E": TIME}))] == [0, 0, 0]


def test_a_trade_with_self_trade_prevention():
    row = slow(event({**TRADE, "A": "0.2", "B": "0.2", "pl": "0.1", "X": "PARTIALLY_FILLED"}))[0][0]
    assert (row["order_id"], row["quantity"], row["filled"], row["leaves"]) == (OWN, 80_000_000, 50_000_000, 30_000_000)


def test_balances_are_rounded_down():
    position = {**POSITION, "B": [{"a": "USDT", "f": "1.2345678", "l": "0.0000009"}, {"a": "\u5e01", "f": 1}]}
    _, notes, _ = slow(event(base=position))
    assert [(int(note["what"]), int(note["free"]), int(note["locked"])) for note in notes] == [(3, 1234567, 0)]


@pytest.mark.parametrize(
    ("asset", "delta", "found"),
    [("USDT", "1.2345678", [(3, 1234567)]), ("USDT", "-1.2345678", [(3, -1234568)]), ("XRP", "x", [])],
)
def test_what_came_or_went_from_outside_is_noted_against_us(asset, delta, found):
    _, notes, _ = slow(event(base={"e": "balanceUpdate", "E": TIME, "a": asset, "d": delta, "T": TIME}))
    assert [(int(note["what"]), int(note["free"])) for note in notes] == found
    assert all(note["kind"] == a.MOVED and note["venue_ns"] == TIME * 1_000_000 for note in notes)


@pytest.mark.parametrize("change", [{"d": "--1"}, {"d": 1}, {"d": "+1"}, {"T": -1}, {"a": None}])
def test_a_movement_that_cannot_be_read_is_refused(change):
    assert refusal(event(base={"e": "balanceUpdate", "E": TIME, "a": "USDT", "d": "1", "T": TIME, **change}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x": "ODD"}, "x is ODD: NEW, CANCELED"),
        ({"X": "ODD"}, "X is ODD"),
        ({"S": "ODD"}, "S is ODD: BUY, SELL expected"),
        ({"c": 1}, "c is 1: a string expected"),
        ({"i": 0}, "i is 0: 1 to"),
        ({"i": 10**18}, "i is 1000000000000000000: 1 to"),
        ({"i": 1.5}, "1.5 is no integer"),
        ({"T": 9_223_372_036_855}, "a time in ms or µs expected"),
        ({"q": "0.1", "z": "0.2"}, "z is 0.2: more than is left of q, 0.1"),
        ({"p": "0.123456789"}, "p is 0.123456789: a decimal of at most 8 decimals expected"),
        ({"p": "1e3"}, "p is 1e3: a decimal"),
        ({"p": "9" * 11}, "out of range"),
        ({**TRADE, "l": "0"}, "a trade of nothing"),
        ({**TRADE, "t": -1}, "t is -1: 0 to"),
        ({**TRADE, "n": "-1"}, "n is -1: a plain positive decimal expected"),
        ({**TRADE, "n": 1}, "n is 1: a plain positive decimal expected"),
        ({**TRADE, "N": 1}, "N is 1: a string expected"),
    ],
)
def test_refusals_say_where_and_why(change, reason):
    assert reason in refusal(event(change))


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ({"e": "ODD"}, "e is ODD: no event of the user data stream"),
        ({}, "e is missing"),
        ({**POSITION, "B": [1]}, "B holds 1"),
        ({**POSITION, "B": [{"a": "BTC", "f": "1"}]}, "B.l is None"),
        ({**POSITION, "B": [{"a": "BTC", "f": "1", "l": "0"}] * 9}, "more than 8 notes"),
    ],
)
def test_other_refusals(base, reason):
    assert reason in refusal(event(base=base))
    assert "event is 5: an object expected" in refusal(compact({"event": 5}))
