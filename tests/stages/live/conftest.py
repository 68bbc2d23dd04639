"""An exchange for each file, and what makes gateways that trade with it; a file may have others of its own."""

from __future__ import annotations

import pytest

from tests.pipeline.exchange.exchange_rig import running
from tests.stages.live.orders_rig import WIDE, rigs
from tests.stages.test_live_venue import Exchange


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    with running(tmp_path_factory.mktemp("exchange"), limits=WIDE) as rig:
        yield Exchange(rig)


@pytest.fixture
def make(exchange):
    with rigs(exchange) as make:
        yield make


@pytest.fixture
def rig(make):
    return make()
