"""A supervised pipeline whose orders go by FIX: journal, gateway, risk and venue agree, whatever ends in between."""

from __future__ import annotations

import pytest

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline import inspection, kill
from tests.pipeline import test_live_orders
from tests.pipeline.test_live_orders import (  # noqa: F401 - fixtures
    FILLS,
    ORDERS,
    check_agreement,
    configured,
    exchange,
    open_orders,
    orders,
    reconciled,
    state_folder,
    trades,
)
from tests.pipeline.test_supervisor import Run

NAME = "test-live-fix"

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def name(monkeypatch):
    """Run beside the tests of orders by WebSocket API, not in their place."""
    monkeypatch.setattr(test_live_orders, "NAME", NAME)


@pytest.fixture
def by_fix(configured, exchange):  # noqa: F811
    text = configured.read_text()
    for found, other in (
        ('order_entry = "websocket_api"', 'order_entry = "fix"'),
        ("tcp://127.0.0.1:9000", f"tcp://127.0.0.1:{exchange.fix_port}"),
    ):
        assert found in text, found
        text = text.replace(found, other)
    configured.write_text(text)
    return configured


def sessions(exchange):  # noqa: F811
    """Give what the venue knows of its FIX connections, by name."""
    return exchange.call(
        lambda: [one.logon.sender for one in exchange.simulator.fix._connections.values() if one.logon is not None]
    )


@pytest.mark.parametrize("placement", ["split", "fused"])
def test_everybody_agrees_on_every_order_fill_fee_and_position(by_fix, exchange, placement):  # noqa: F811
    run = Run(by_fix, "--placement", placement)
    try:
        run.until(reconciled)
        (first,) = sessions(exchange)
        inspection.arm(NAME, "the test")
        run.until(lambda: len(orders(exchange)) > ORDERS and len(trades(exchange)) > FILLS)
        exchange.call(lambda: [one.socket.abort() for one in list(exchange.simulator.fix._connections.values())])
        before = len(orders(exchange))
        run.until(lambda: reconciled() and len(orders(exchange)) > before + ORDERS)
        exchange.call(lambda: [one.socket.abort() for one in list(exchange.simulator.ws_api.connections)])
        before = len(orders(exchange))
        run.until(lambda: reconciled() and len(orders(exchange)) > before + ORDERS)
        assert [name for name in sessions(exchange) if name != first]
        assert kill.main(["cancel", NAME, "--reason", "the test"]) == 0
        run.until(lambda: not open_orders(exchange))
        errors = run.stop()
        assert run.process.returncode == 0, errors
        assert sessions(exchange) == []
        assert not [name for (_, name) in exchange.simulator.fix._members._blocked if name != first]  # logged out
    finally:
        if run.process.poll() is None:
            run.stop()
    check_agreement(configuration.load(by_fix), exchange)
