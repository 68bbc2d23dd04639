"""Market data's event in hand: a marker is empty but for its kind, and what no frame tells is noted."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.shm.kernel import kernel
from shrivenq.stages import arrivals, stage
from shrivenq.stages import market_data_state as state
from shrivenq.stages import messages as m
from tests.stages.market_rig import Rig, Source, trade
from tests.stages.test_arrivals import ends, take


@kernel
def mark(context, loop, kind):
    count = state.marker(context, kind)
    state.finish(context, loop, count, 0)
    state.note(context, arrivals.TIMER)
    return count


@pytest.fixture
def rig():
    made = Rig(Source([(1, trade(1))]), virtual=True)
    yield made
    made.close()


def test_a_marker_is_an_event_without_content(rig):
    words = rig.context.words
    words[state.NUMBER], words[state.LAST_NS] = 7, 1_000
    rig.context.event["price"][:2] = 99
    assert mark(rig.context, rig.loop, m.TIMER) == 2
    first, last = rig.context.event[:2]
    assert (first["kind"], last["kind"], last["count"]) == (m.TIMER, m.END, 1)
    assert (first["cause"], first["time_ns"], first["price"]) == (7, 1_000, 0)
    assert last["wire_ns"] == last["decoded_ns"] > 0
    assert (words[state.PENDING], words[state.SENT]) == (2, 0)


def test_what_no_frame_tells_is_noted_only_where_somebody_records(rig):
    producer, consumer = ends(16)
    rig.loop[stage.VIRTUAL] = 1
    words = rig.context.words
    words[state.NUMBER], words[state.LAST_NS] = 7, 1_000
    mark(rig.context, rig.loop, m.TIMER)
    assert take(consumer) == []
    mark(rig.context._replace(arrivals=arrivals.to(producer)), rig.loop, m.TIMER)
    assert take(consumer) == [(arrivals.TIMER, 1_000, 7, *[0] * 7)]
    assert np.all(producer.slots["zero"] == 0)
