"""The live venue behind a gateway, against the exchange simulator over real sockets."""

from __future__ import annotations

import pytest

from shrivenq.stages import control
from shrivenq.stages import messages as m
from tests.pipeline.exchange.exchange_rig import running
from tests.stages.live.orders_rig import OrdersRig, tables_of


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    with running(tmp_path_factory.mktemp("exchange")) as rig:
        yield rig


@pytest.fixture
def rig(exchange):
    made = OrdersRig(exchange.ws, tables_of(exchange))
    yield made.ready()
    made.close()


def test_orders_are_placed_cancelled_replaced_and_filled(rig):
    first = rig.send(side=m.BUY, price=50_00)
    report = rig.wait(m.ACCEPTED, first)
    assert report["venue_order_id"] > 0
    second = rig.send(m.REPLACE, side=m.BUY, price=49_00, target_id=first)
    rig.wait(m.REPLACED, second)
    taker = rig.send(side=m.SELL, price=49_00, quantity=40000000)
    fill = rig.wait(m.FILL, taker)
    assert (fill["last_price"], fill["last_quantity"], fill["leaves"]) == (49_00, 40000000, 0)
    assert rig.wait(m.FILL, second)["fee"] > 0
    assert rig.state(second) == "partly_filled"
    cancel = rig.send(m.CANCEL, target_id=second)
    rig.wait(m.CANCELLED, cancel)
    assert rig.taken() == 0
    rig.for_a_while()
    assert not rig.gateway.illegal.any()
    assert control.held(rig.hold) == 0
