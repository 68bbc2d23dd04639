"""Balances against what fills, fees and movements make of them: adopted, told, or a reason to stop."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.stages import control
from shrivenq.stages import messages as m
from shrivenq.stages.live import funds
from shrivenq.stages.live.ledger import EXPECTED, KNOWN
from shrivenq.stages.venues import answers as a

ONE = 1_00000000
BTC, ETH, USDT = 0, 1, 2
KILLED, ADOPTED = "killed: the account holds less than it should", "balance differs: adopted"


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(funds, "SETTLE_NS", 50_000_000)


def deposit(exchange, asset, amount):
    """Let money come from outside, or go there."""

    def act():
        venue = exchange.rig.venue
        assert venue.engine.deposit(exchange.trader, asset, amount, venue.now_us())
        venue.drain()

    exchange.rig.call(act)


def held(rig):
    return rig.venue.balances.sum(axis=1).tolist()


def expected(rig):
    return rig.venue.ledger[:, EXPECTED].tolist()


def level(rig):
    return control.kill_level(rig.kill)


def said(rig, event):
    return [fields for one, fields in rig.log.lines if one == event]


def journaled(rig, kind):
    return [(int(one["fee_currency"]), int(one["quantity"])) for one in rig.journaled() if one["kind"] == kind]


def away(rig, exchange, *acts):
    """Let things happen while no session follows the account."""
    rig.session._close("for a while")
    for act in acts:
        act()
    rig.until(lambda: control.held(rig.hold) != 0, "the end")
    return rig.ready()


def trade(rig, exchange, side, quantity=ONE):
    """Fill an order of ours, half by half."""
    order = rig.send(side=side, price=40_00, quantity=quantity)
    rig.wait(m.ACCEPTED, order)
    for _ in range(2):
        exchange.place(exchange.other, "SELL" if side == m.BUY else "BUY", 40_00, quantity // 2)
    rig.until(lambda: rig.filled(order) == quantity, "the fills")


def test_the_first_time_the_account_is_taken_as_it_is(rig):
    assert expected(rig) == held(rig)
    assert rig.venue.ledger[:, KNOWN].all()
    assert journaled(rig, m.BALANCE) == list(enumerate(held(rig)))
    assert len(said(rig, "balances taken as they are")) == 1
    assert level(rig) == control.ARMED


def test_fills_and_fees_explain_every_unit_also_those_that_nobody_told(rig, exchange):
    trade(rig, exchange, m.BUY)
    trade(rig, exchange, m.SELL, 66_000_000)
    resting = rig.send(side=m.BUY, price=30_00, quantity=ONE)
    rig.wait(m.ACCEPTED, resting)
    away(rig, exchange, lambda: exchange.place(exchange.other, "SELL", 30_00, 20_001_000))
    rig.until(lambda: expected(rig) == held(rig), "the same on both sides")
    assert rig.filled(resting) == 20_001_000
    assert not said(rig, ADOPTED) + said(rig, KILLED)
    assert len(journaled(rig, m.BALANCE)) == 3  # the first time
    assert level(rig) == control.ARMED


@pytest.mark.parametrize(("asset", "row"), [("BTC", BTC), ("USDT", USDT)])
def test_more_than_expected_is_told_and_adopted(rig, exchange, asset, row):
    before = held(rig)[row]
    away(rig, exchange, lambda: deposit(exchange, asset, 7))
    (line,) = said(rig, ADOPTED)
    spelt = {"expected": before, "found": before + 7, "difference": 7}
    assert line == {"currency": asset, **{key: f"{value / 10**8:.8f}" for key, value in spelt.items()}}
    assert journaled(rig, m.BALANCE)[-1] == (row, before + 7)
    assert level(rig) == control.ARMED
    away(rig, exchange)
    assert len(said(rig, ADOPTED)) == 1


@pytest.mark.parametrize(("asset", "row"), [("BTC", BTC), ("USDT", USDT)])
def test_less_of_what_is_traded_kills_until_a_person_arms(rig, exchange, asset, row):
    before = held(rig)[row]
    away(rig, exchange, lambda: deposit(exchange, asset, -7))
    assert level(rig) == control.HALT
    (line,) = said(rig, KILLED)
    assert (line["currency"], line["difference"]) == (asset, "-0.00000007")
    assert journaled(rig, m.BALANCE)[-1] == (row, before - 7)
    rig.kill[:] = 0  # a person arms
    away(rig, exchange)
    assert level(rig) == control.ARMED
    assert len(said(rig, KILLED)) == 1


def test_less_of_what_is_not_traded_is_adopted(make, exchange):
    rig = make()
    rig.session._funds._traded.discard(ETH)
    away(rig, exchange, lambda: deposit(exchange, "ETH", -7))
    assert [one["currency"] for one in said(rig, ADOPTED)] == ["ETH"]
    assert level(rig) == control.ARMED


def test_a_venue_that_lost_a_fill_is_noticed(rig, exchange):
    """Its numbers go on, the order is over and the trade before the last: nothing else would tell."""
    trade(rig, exchange, m.BUY)
    paid = [40 * ONE, ONE - ONE // 1000]  # USDT, and BTC less the fee

    def lose():
        deposit(exchange, "USDT", paid[0])
        deposit(exchange, "BTC", -paid[1])

    away(rig, exchange, lose)
    assert level(rig) == control.HALT
    assert [one["currency"] for one in said(rig, KILLED)] == ["BTC"]


def test_what_the_venue_tells_of_deposits_is_expected(rig, exchange):
    before = held(rig)
    deposit(exchange, "BTC", 5 * ONE)
    deposit(exchange, "USDT", -9)
    rig.until(lambda: len(said(rig, "deposit or withdrawal")) == 2, "the events")
    rig.until(lambda: len(journaled(rig, m.MOVED)) == 2, "the journal")
    assert journaled(rig, m.MOVED) == [(BTC, 5 * ONE), (USDT, -9)]
    assert expected(rig) == [before[BTC] + 5 * ONE, before[ETH], before[USDT] - 9]
    away(rig, exchange)
    assert not said(rig, ADOPTED) + said(rig, KILLED)
    assert level(rig) == control.ARMED


def test_a_movement_that_is_told_twice_counts_once(rig):
    note = np.zeros(1, a.NOTE)[0]
    note["kind"], note["what"], note["free"], note["venue_ns"] = a.MOVED, USDT, 7, 1_700_000_000_000_000_000
    before = expected(rig)[USDT]
    for at in (0, 0, 1):
        note["venue_ns"] += at
        rig.session._funds.move(note)
    assert expected(rig)[USDT] == before + 14


def test_answers_that_lag_are_waited_for(rig, exchange, monkeypatch):
    """An account.status of before a fill: what differs goes away by itself, and is not adopted."""
    monkeypatch.setattr(funds, "SETTLE_NS", 10**12)
    late = iter([7, 5])
    take = rig.session._funds.agree

    def agree(now_ns):
        rig.venue.balances[USDT, 0] -= next(late, 0)
        return take(now_ns)

    monkeypatch.setattr(rig.session._funds, "agree", agree)
    away(rig, exchange)
    assert said(rig, "held: balances do not agree yet") == [{"currencies": ["USDT"]}]
    assert not said(rig, ADOPTED) + said(rig, KILLED)


def test_a_difference_that_changes_is_none_to_adopt(rig):
    one = rig.session._funds
    for turn, by in enumerate((3, 4, 5, 5)):
        rig.venue.balances[USDT, 0] += by
        assert one.agree(turn * funds.SETTLE_NS // 2) == (turn == 3)
        rig.venue.balances[USDT, 0] -= by if turn < 3 else 0
    assert [line["difference"] for line in said(rig, ADOPTED)] == ["0.00000005"]


def test_a_currency_that_the_venue_does_not_list_is_empty(rig):
    rig.session._reconcile()
    rig.until(lambda: rig.session._reconciliation is not None, "the comparison")
    rig.session._reconciliation.take("account", {"balances": [{"asset": "ETH", "free": "1", "locked": "2"}]})
    assert held(rig) == [0, 3 * ONE, 0]
