"""From a connection to the account's events, against the exchange simulator."""

from __future__ import annotations

from shrivenq.stages import token_bucket
from shrivenq.stages.venues import answers


def test_the_first_orders_are_within_the_account_s_limits(rig):
    buckets = rig.venue.buckets
    rows = buckets.rows[: buckets.words[token_bucket.COUNT]]
    assert {int(one["interval_ns"]) for one in rows[rows["kind"] == answers.ORDERS]} == {10 * 10**9, 86_400 * 10**9}
