"""From a connection to the account's events, against the exchange simulator."""

from __future__ import annotations

import pytest

from shrivenq.stages import token_bucket
from shrivenq.stages.venues import answers
from tests.pipeline.exchange.exchange_rig import running
from tests.stages.live.orders_rig import rigs
from tests.stages.test_live_venue import Exchange

LIMITS = {"orders_10s": 10_000, "connections": 10_000, "request_weight": 1_000_000}


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    with running(tmp_path_factory.mktemp("exchange"), limits=LIMITS) as rig:
        yield Exchange(rig)


@pytest.fixture
def make(exchange):
    with rigs(exchange) as make:
        yield make


@pytest.fixture
def rig(make):
    return make()


def test_the_first_orders_are_within_the_account_s_limits(rig):
    buckets = rig.venue.buckets
    rows = buckets.rows[: buckets.words[token_bucket.COUNT]]
    assert {int(one["interval_ns"]) for one in rows[rows["kind"] == answers.ORDERS]} == {10 * 10**9, 86_400 * 10**9}
