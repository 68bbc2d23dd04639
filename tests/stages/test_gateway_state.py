"""The gateway's limits, and its list of orders whose answer is awaited."""

from __future__ import annotations

import random

import pytest

from shrivenq.stages import gateway, gateway_state
from shrivenq.stages import messages as m
from tests.stages.gateway_rig import LIMITS, GatewayRig

A, F, C, RJ, E, CR, RP = m.ACCEPTED, m.FILL, m.CANCELLED, m.REJECTED, m.EXPIRED, m.CANCEL_REJECTED, m.REPLACED


def test_limits_are_checked():
    cases = [
        ({}, "gateway.limits.SYM0: missing, and SYM0 may be traded"),
        ({"SYM0": LIMITS["SYM0"], "ABC": LIMITS["SYM0"]}, "gateway.limits: ABC: no such instrument"),
        ({"SYM0": gateway.Limits(quantity_max="NaN", price_min="1", price_max="2")}, "not a positive number"),
        ({"SYM0": gateway.Limits(quantity_max="x", price_min="1", price_max="2")}, "'x' is no number"),
        ({"SYM0": gateway.Limits(quantity_max="1", price_min="1", price_max="2.001")}, "1 decimals at most"),
        ({"SYM0": gateway.Limits(quantity_max="-1", price_min="1", price_max="2")}, "not a positive number"),
    ]
    for limits, problem in cases:
        with pytest.raises(ValueError, match=problem):
            GatewayRig(limits=limits)
    with pytest.raises(ValueError, match="unknown_after_ms is 1 to"):
        GatewayRig(unknown_after_ms=0)


@pytest.mark.parametrize("seed", range(3))
def test_the_list_of_awaited_answers_is_a_list(seed):
    chance = random.Random(seed)
    context, twin = GatewayRig().context, []
    for now in range(1_000):
        slot = chance.randrange(32)
        twin = [one for one in twin if one != slot]
        if chance.random() < 0.6:
            gateway_state.await_answer(context, slot, now)
            twin.append(slot)
            assert context.watch[slot]["deadline_ns"] == now + 1_000_000_000
        else:
            gateway_state.unwatch(context, slot)
        found, at = [], int(context.words[gateway_state.WATCH_FIRST])
        while at >= 0:
            found.append(at)
            at = int(context.watch[at]["next"])
        assert found == twin, f"seed {seed}, step {now}"
        assert context.words[gateway_state.WATCH_LAST] == (twin[-1] if twin else -1)
