"""A supervised pipeline in mode live against the simulator: journal, gateway, risk and venue agree on everything."""

from __future__ import annotations

import os
import re
import signal
from collections import defaultdict

import pytest

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline import inspection, kill, recovery, state
from shrivenq.stages import journal, journal_file
from shrivenq.stages import messages as m
from tests.pipeline import command_rig
from tests.pipeline.exchange.exchange_rig import ED25519_PEM, FLOWING, TRADER, running
from tests.pipeline.test_supervisor import Run

NAME = "test-live-orders"
SYMBOL = "BTCUSDT"
ORDERS, FILLS = 30, 3

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(kill, "ACKNOWLEDGE_S", 20.0)


@pytest.fixture
def exchange(tmp_path):
    limits = {"orders_10s": 100_000, "request_weight": 1_000_000}
    market = FLOWING | {"spread_bps": 5.0, "volatility_bps": 20.0}
    with running(tmp_path, market=market, limits=limits) as rig:
        yield rig


@pytest.fixture
def configured(tmp_path, exchange):
    """The shipped live configuration, with the exchange's address, instruments and prices."""
    key = tmp_path / "key"
    key.write_text(
        f'environment = "simulator"\npurpose = "trade"\napi_key = "{TRADER}"\nprivate_key = """\n{ED25519_PEM}"""\n'
    )
    key.chmod(0o600)
    text = (configuration.SHIPPED / "live_simulator.toml").read_text()
    for found, other in (
        ('name = "live-simulator"', f'name = "{NAME}"'),
        ("127.0.0.1:9443", f"127.0.0.1:{exchange.port}"),
        ("file:~/.config/shrivenq/simulator.key", f"file:{key}"),
        ("instruments_binance_spot.toml", "instruments.toml"),
        ('file = "exchange"  ', 'file = ""'),
        ("quantity = 500_000 ", "quantity = 2_000_000 "),
        ("half_spread_ticks = 50", "half_spread_ticks = 2"),
        ("requote_ticks = 20", "requote_ticks = 5"),
        ('price_min = "1000"', 'price_min = "1"'),
        ('price_min = "100"', 'price_min = "1"'),
        ("reject_streak_max = 50", "reject_streak_max = 100000"),
        ("unknown_after_ms = 2000", "unknown_after_ms = 1000"),
        ("stop_cancel_ms = 3000.0", "stop_cancel_ms = 20000.0"),
        ("silence_kill_ms = 5000.0", "silence_kill_ms = 60000.0"),
    ):
        assert found in text, found
        text = text.replace(found, other)
    path = tmp_path / "live.toml"
    path.write_text(text)
    return path


def trades(exchange):
    trader = exchange.simulator.accounts["trader"]
    return exchange.call(
        lambda: [
            one
            for symbol in ("BTCUSDT", "ETHUSDT")
            for one in exchange.venue.engine.my_trades(trader, symbol, limit=1000)
        ]
    )


def open_orders(exchange):
    return exchange.call(lambda: exchange.venue.engine.open_orders(exchange.simulator.accounts["trader"]))


def orders(exchange):
    trader = exchange.simulator.accounts["trader"]
    return exchange.call(
        lambda: [
            one
            for symbol in ("BTCUSDT", "ETHUSDT")
            for one in exchange.venue.engine.all_orders(trader, symbol, limit=100_000)
        ]
    )


def reconciled():
    """Tell whether nothing holds a run that is ready: one being made, or warmed up, holds nothing yet."""
    found = inspection.status(inspection.attach(NAME))
    return found["holds"] == [] and all(one["state"] == "running" for one in found["stages"])


@pytest.mark.parametrize("placement", ["split", "fused"])
def test_everybody_agrees_on_every_order_fill_fee_and_position(configured, exchange, placement):
    state.write_armed(NAME, "an earlier run")
    run = Run(configured, "--placement", placement)
    try:
        run.until(reconciled)
        assert inspection.status(inspection.attach(NAME))["kill"] == "halt"  # nothing trades before a person says so
        assert state.armed(NAME) is None
        inspection.arm(NAME, "the test")
        run.until(lambda: len(orders(exchange)) > ORDERS and len(trades(exchange)) > FILLS)
        exchange.call(lambda: [one.socket.abort() for one in list(exchange.simulator.ws_api.connections)])
        before = len(orders(exchange))
        run.until(lambda: reconciled() and len(orders(exchange)) > before + ORDERS)
        assert kill.main(["cancel", NAME, "--reason", "the test"]) == 0
        run.until(lambda: not open_orders(exchange))
        errors = run.stop()
        assert run.process.returncode == 0, errors
    finally:
        if run.process.poll() is None:
            run.stop()
    check_agreement(configuration.load(configured), exchange)


def test_what_a_dead_stage_left_behind_is_cancelled_and_its_fills_are_taken_over(configured, exchange):
    run = Run(configured, "--placement", "split")
    try:
        run.until(reconciled)
        inspection.arm(NAME, "the test")
        first = run.until(lambda: command_rig.armed(NAME)).run
        run.until(lambda: len(open_orders(exchange)) >= 2 and len(trades(exchange)) > FILLS)
        (gateway,) = [one for one in inspection.status(inspection.attach(NAME))["stages"] if one["stage"] == "gateway"]
        os.kill(gateway["pid"], signal.SIGKILL)
        run.until(lambda: (found := command_rig.armed(NAME)) and found.run != first)
        # Run and epoch of the second start begin alike: 0123abcd-1-N was the first's, 0123abcd-1-2-N is the second's.
        assert not [one for one in open_orders(exchange) if re.fullmatch(rf"{first}-1-[0-9]+", one.client_id)]
        before = len(trades(exchange))
        run.until(lambda: len(trades(exchange)) > before)
        errors = run.stop()
        assert run.process.returncode == 0, errors
    finally:
        if run.process.poll() is None:
            run.stop()
    check_agreement(configuration.load(configured), exchange)


def check_agreement(config, exchange):
    """Compare the journal with the venue's own records."""
    contents = journal_file.read_journal(state.folder(NAME) / "journal")
    assert contents.problem == ""
    tables = config.tables()
    fills = recovery.recover(contents, tables, "live").fills
    symbols = [row["symbol"].decode() for row in tables.instruments]
    codes = [row["code"].decode() for row in tables.currencies]
    ours = sorted(
        (symbols[one["instrument"]], int(one["trade_id"]), int(one["last_price"]), int(one["last_quantity"]),
         int(one["side"]), int(one["fee"]), codes[one["fee_currency"]]) for one in fills
    )  # fmt: skip
    theirs = sorted(
        (one.symbol, one.trade_id, one.price, one.quantity, m.BUY if one.is_buyer else m.SELL, one.commission,
         one.commission_asset) for one in trades(exchange)
    )  # fmt: skip
    assert len(theirs) > FILLS
    assert ours == theirs
    check_orders(contents, exchange)
    trader = exchange.simulator.accounts["trader"]
    balances = exchange.call(lambda: exchange.venue.engine.balances(trader))
    for row, symbol in enumerate(symbols):
        position = int((fills["side"] * fills["last_quantity"])[fills["instrument"] == row].sum())
        base = symbol.removesuffix("USDT")
        fees = sum(one.commission for one in trades(exchange) if one.commission_asset == base)
        begun = {"BTC": 10, "ETH": 100}[base] * 10**8
        assert balances[base] == (begun + position - fees, 0)


def check_orders(contents, exchange):
    """Every order the venue knows was journaled before, and is over on both sides with the same quantity filled."""
    run = contents.rows(journal.RUN)[-1]
    sent = contents.rows(journal.ORDER_SENT)
    sent = sent[sent["order_id"] >> m.EPOCH_SHIFT == run["epoch"]]
    named = {m.client_order_id(run["run"], int(one["order_id"])).decode(): int(one["order_id"]) for one in sent}
    reports = contents.rows(journal.REPORT_SEEN)
    filled = defaultdict(int)
    for one in reports[(reports["kind"] == m.FILL) & (reports["sequence"] >= 0)]:
        filled[int(one["order_id"])] += int(one["last_quantity"])
    said = set(reports["order_id"].tolist()) | set(reports["target_id"].tolist())
    last = run["run"].decode()
    for one in orders(exchange):
        assert not one.is_open
        if not one.client_id.startswith(f"{last}-{run['epoch']}-"):
            continue  # of a start before: its fills were counted with the account's
        assert one.client_id in named
        assert filled[named[one.client_id]] == one.executed
    assert {int(one["order_id"]) for one in sent if one["kind"] != m.CANCEL} <= said
