"""The venue's clock: requests bear its time, and one of ours that is wrong holds."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from shrivenq.pipeline import runner
from shrivenq.stages import control
from shrivenq.stages import messages as m
from shrivenq.stages.live import receive, venue_clock
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.venue_clock import VenueClock
from shrivenq.stages.venues.binance_slow import Refused
from tests.stages.live.orders_rig import OrdersRig


def test_requests_bear_the_venue_s_time_and_a_refusal_measures_it_anew(make, exchange):
    rig = make()
    exchange.rig.call(lambda: setattr(exchange.rig.venue, "clock_offset_us", 3_500_000))
    try:
        refused = rig.send(price=50_00)
        assert rig.reason(rig.wait(m.REJECTED, refused)) == "clock"
        rig.until(lambda: "the venue refuses our time: held, and measured again" in rig.log.events(), "the line")
        rig.ready()
        assert 3_400 < rig.session._clock.said()["venue_clock_ahead_ms"] < 3_600
        order = rig.send(price=50_00)
        rig.wait(m.ACCEPTED, order)
        rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=order))
        assert "venue disconnected" not in rig.log.events()
    finally:
        exchange.rig.call(lambda: setattr(exchange.rig.venue, "clock_offset_us", 0))


def test_a_clock_of_ours_that_is_wrong_holds(exchange):
    exchange.rig.call(lambda: setattr(exchange.rig.venue, "clock_offset_us", -3_600_000_000))
    rig = OrdersRig(exchange.url, exchange.tables)
    try:
        rig.until(lambda: "held: our clock is wrong" in rig.log.events(), "the hold")
        assert control.held(rig.hold) == control.RECONCILING
        exchange.rig.call(lambda: setattr(exchange.rig.venue, "clock_offset_us", 0))
        rig.session._look_ns = 1
        rig.venue.live.words[receive.ATTENTION] = 1
        rig.ready()
    finally:
        exchange.rig.call(lambda: setattr(exchange.rig.venue, "clock_offset_us", 0))
        rig.close()


def test_a_clock_of_ours_that_has_been_set_right_begins_everything_anew(exchange, monkeypatch):
    """Stages take their time from the system's clock at their start alone: setting it does not change theirs."""
    hour_ns = 3_600_000_000_000
    exchange.rig.call(lambda: setattr(exchange.rig.venue, "clock_offset_us", -hour_ns // 1_000))
    rig = OrdersRig(exchange.url, exchange.tables)
    try:
        rig.until(lambda: "held: our clock is wrong" in rig.log.events(), "the hold")
        set_back = SimpleNamespace(monotonic_ns=time.monotonic_ns, time_ns=lambda: time.time_ns() - hour_ns)
        monkeypatch.setattr(venue_clock, "time", set_back)
        rig.session._look_ns = 1
        rig.venue.live.words[receive.ATTENTION] = 1
        with pytest.raises(runner.STOPPING_ERRORS, match=r"our clock was -3600\.\d s off and has been set right"):
            rig.until(lambda: False)
        assert control.held(rig.hold) == control.RECONCILING
    finally:
        exchange.rig.call(lambda: setattr(exchange.rig.venue, "clock_offset_us", 0))
        rig.close()


@pytest.mark.parametrize("result", [None, [], {}, {"serverTime": "1"}, {"serverTime": 0}, {"serverTime": 10**17}])
def test_a_time_that_is_none_is_refused(result):
    clock = VenueClock(SimpleNamespace(words=np.zeros(v.WORDS, np.int64)), np.zeros(512, np.int64))
    with pytest.raises(Refused):
        clock.take(result, 0)
