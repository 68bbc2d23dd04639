"""The kill switch on a live pipeline, up to the venue: positions closed there, and its errors survived and said."""

from __future__ import annotations

import os
import signal
from collections import Counter

import numpy as np
import pytest

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline import inspection, kill
from shrivenq.pipeline.exchange.faults import Rule, Script
from shrivenq.shm import board
from shrivenq.stages import positions as p
from tests.pipeline import test_live_orders as live
from tests.pipeline.test_supervisor import Run

NAME = live.NAME
STEP_WORTH = 5_00
"""Least value of an order, in units of the price: what is worth less cannot be closed."""
QUANTITY = 2_000_000
"""Of the strategy's orders."""

exchange, configured, state_folder = live.exchange, live.configured, live.state_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def run(configured):
    """A pipeline that trades."""
    made = Run(configured, "--placement", "split")
    try:
        made.until(live.reconciled)
        inspection.arm(NAME, "the test")
        yield made
    finally:
        if made.process.poll() is None:
            made.stop()


def held(exchange):
    """Add up the account's own trades by symbol: position, and what it is worth at the last of their prices."""
    position, price = Counter(), {}
    for one in live.trades(exchange):
        position[one.symbol] += one.quantity if one.is_buyer else -one.quantity
        price[one.symbol] = one.price
    return {symbol: (amount, abs(amount) * price[symbol] // 10**8) for symbol, amount in position.items()}


def positions():
    """Read what risk thinks we hold."""
    found = np.zeros(2, p.POSITION)
    reader = board.reader(inspection.attach(NAME).part("positions"))
    assert all(board.read(reader, row, found[row : row + 1]) for row in range(2))
    return {"BTCUSDT": int(found[0]["position"]), "ETHUSDT": int(found[1]["position"])}


def fail(exchange, name, action, times=0):
    rule = Rule(on="request", name=name, action=action, times=times)
    exchange.call(lambda: exchange.simulator.faults.arm(Script(rules=[rule])))


def test_flatten_closes_every_position_at_the_venue(run, configured, exchange, capsys):
    run.until(lambda: len(live.trades(exchange)) > live.FILLS)
    run.until(lambda: any(abs(amount) >= QUANTITY for amount, _ in held(exchange).values()))
    assert kill.main(["flatten", NAME, "--reason", "the test"]) == 0
    said = capsys.readouterr().out
    for who in ("risk", "gateway", "venue: BTCUSDT", "venue: ETHUSDT"):
        assert f"flatten confirmed by {who}" in said
    run.until(
        lambda: all(worth < STEP_WORTH for _, worth in held(exchange).values()) and not live.open_orders(exchange)
    )
    closed = {symbol: amount for symbol, (amount, _) in held(exchange).items()}
    run.until(lambda: Counter(positions()) == Counter(closed))
    assert inspection.status(inspection.attach(NAME))["kill"] == "flatten"
    before = len(live.orders(exchange))
    errors = run.stop()
    assert run.process.returncode == 0, errors
    assert len(live.orders(exchange)) == before, "something was traded after it"
    live.check_agreement(configuration.load(configured), exchange)


def test_errors_of_the_venue_are_survived_or_said(run, exchange, capsys):
    run.until(lambda: len(live.open_orders(exchange)) >= 2)
    fail(exchange, "openOrders.*", "error_not_placed")
    assert kill.main(["cancel", NAME, "--reason", "the test"]) == 3
    said = capsys.readouterr().out
    assert "cancel confirmed by gateway" in said
    for symbol in ("BTCUSDT", "ETHUSDT"):
        (line,) = [one for one in said.splitlines() if f"venue: {symbol}" in one]
        assert "NOT confirmed" in line
        assert "HTTP 504: -1007 Timeout waiting for response" in line
    run.until(lambda: not live.open_orders(exchange))  # the gateway did it all the same
    fail(exchange, "openOrders.*", "error_not_placed", times=2)
    assert kill.main(["cancel", NAME, "--reason", "once more"]) == 0
    assert "cancel confirmed by venue: BTCUSDT" in capsys.readouterr().out


def test_a_dead_gateway_and_an_error_after_which_all_was_cancelled(run, exchange, capsys, monkeypatch):
    run.until(lambda: len(live.open_orders(exchange)) >= 2)
    (gateway,) = [one for one in inspection.status(inspection.attach(NAME))["stages"] if one["stage"] == "gateway"]
    os.kill(gateway["pid"], signal.SIGSTOP)
    monkeypatch.setattr(kill, "ACKNOWLEDGE_S", 0.05)
    fail(exchange, "openOrders.cancelAll", "error_placed", times=1)
    kill.main(["cancel", NAME, "--reason", "the test"])
    said = capsys.readouterr().out
    assert "gateway did not answer" in said
    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert f"cancel confirmed by venue: {symbol}" in said
    run.until(lambda: not live.open_orders(exchange))
