"""A symbol that the venue halts, or whose rules change, while a live pipeline trades: it is held, the others go on."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
import structlog

from shrivenq.pipeline import arrival_log, inspection, reproduce, state
from shrivenq.stages import arrivals, control, journal, journal_file
from shrivenq.stages import messages as m
from tests.pipeline import test_live_orders as live
from tests.pipeline.exchange.exchange_rig import FLOWING, running
from tests.pipeline.test_supervisor import Run

NAME = live.NAME
BTC, ETH = 0, 1

configured, state_folder = live.configured, live.state_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def exchange(tmp_path):
    """Prices at which both symbols are worth an order."""
    market = FLOWING | {"spread_bps": 5.0, "volatility_bps": 20.0, "price": {"BTCUSDT": "600", "ETHUSDT": "500"}}
    limits = {"orders_10s": 100_000, "request_weight": 1_000_000}
    with running(tmp_path, market=market, limits=limits, symbols={"BTCUSDT": {"orders_max": 3}}) as rig:
        yield rig


@pytest.fixture
def recorded(configured, tmp_path):
    """A pipeline that is recorded and looks at the venue's symbols often."""
    text = configured.read_text()
    for found, other in (
        ("exchange_info_s = 60.0", "exchange_info_s = 1.0"),
        ('path = ""                         # a folder', f'path = "{tmp_path / "recording"}"  # a folder'),
    ):
        assert found in text, found
        text = text.replace(found, other)
    configured.write_text(text)
    return configured


def change(exchange, **what):
    httpx.post(f"{exchange.rest}/control/market", json={"symbol": "BTCUSDT", **what}).raise_for_status()


def alone():
    return inspection.status(inspection.attach(NAME))["held_alone"]


def count(exchange, symbol):
    return sum(one.symbol == symbol for one in live.orders(exchange))


def goes_on(run, exchange, *symbols):
    for symbol in symbols:
        before = count(exchange, symbol)
        run.until(lambda symbol=symbol, before=before: count(exchange, symbol) > before + 5)


@pytest.mark.parametrize("placement", ["split", "fused"])
def test_one_symbol_is_held_alone_and_the_run_can_be_done_again(recorded, exchange, placement, tmp_path):
    run = Run(recorded, "--placement", placement)
    try:
        run.until(live.reconciled)
        inspection.arm(NAME, "the test")
        goes_on(run, exchange, "BTCUSDT", "ETHUSDT")
        for begin, end, cause in (
            ({"status": "HALT"}, {"status": "TRADING"}, "not_trading"),
            ({"filters": {"quantity_max": "1"}}, {"filters": {"quantity_max": "9000"}}, "other_rules"),
        ):
            change(exchange, **begin)
            run.until(lambda cause=cause: alone() == [f"BTCUSDT: {cause}"])
            run.until(live.reconciled)  # nothing holds everything
            goes_on(run, exchange, "ETHUSDT")
            change(exchange, **end)
            run.until(lambda: alone() == [])
            goes_on(run, exchange, "BTCUSDT")
        errors = run.stop()
        assert run.process.returncode == 0, errors
    finally:
        if run.process.poll() is None:
            run.stop()
    log = tmp_path / "recording" / "arrivals" / f"{NAME}-0001.zst"
    header, steps = arrival_log.read(log)
    check_orders(steps["risk"])
    most = {symbol: one["open_orders_max"] for symbol, one in header.config["risk"]["limits"].items()}
    assert most == {"BTCUSDT": 3, "ETHUSDT": 20}, "the venue's, where it is stricter"
    lines = (state.folder(NAME) / "log.jsonl").read_text()
    assert "BTCUSDT: open_orders_max is 20, the venue's MAX_NUM_ORDERS.maxNumOrders is 3" in lines
    assert "BTCUSDT: status HALT, orders only in TRADING" in lines
    assert "BTCUSDT: quantity_max is 9000, the venue's maxQty is 1" in lines
    again = reproduce.reproduce(log, journal_path=None, progress=lambda _: None, log=structlog.get_logger())
    assert (again.difference, again.unfinished) == ("", "")
    assert again.orders > 20


def check_orders(steps):
    """While BTCUSDT was held nothing new of it went out but reductions; of ETHUSDT it did."""
    sent = journal_file.read_journal(state.folder(NAME) / "journal").rows(journal.ORDER_SENT)
    new = sent[np.isin(sent["kind"], (m.NEW, m.REPLACE)) & (sent["flags"] & (m.REDUCING | m.FORCED) == 0)]
    held = steps[steps["kind"] == arrivals.HELD]
    assert held["number"].tolist() == [BTC] * 4
    assert held["held"].tolist() == [control.NOT_TRADING, 0, control.OTHER_RULES, 0]
    times = held["time_ns"].tolist()
    for begin, end in zip(times[::2], times[1::2], strict=True):
        within = new["instrument"][(new["time_ns"] >= begin) & (new["time_ns"] < end)]
        assert (within == ETH).any()
        assert not (within == BTC).any()
