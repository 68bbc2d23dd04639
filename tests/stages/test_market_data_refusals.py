"""Market data: frames that its slow path refuses."""

from __future__ import annotations

import pytest

from shrivenq.stages import market_data_state, stage
from shrivenq.stages import messages as m
from tests.stages.market_rig import (
    REFUSED,
    SILENT,
    SLOW,
    Source,
    check_stream,
    trade,
)
from tests.stages.test_market_data import HOUR, T0, everything, rig_of


@pytest.mark.parametrize("virtual", [False, True])
def test_frames_that_fail_are_counted_and_the_pipeline_goes_on(virtual):
    frames = [(T0, one) for one in (trade(1), REFUSED, SLOW, SILENT, b"\xff\xfe", trade(2))]
    with rig_of(Source(frames, 3), virtual=virtual) as rig:
        rig.set_clock(T0 + HOUR)
        rows = everything(rig)
        assert rows[rows["kind"] == m.TRADE]["id"].tolist() == [1, 7, 2]
        assert rows[rows["kind"] == m.TRADE]["cause"].tolist() == [1, 3, 6]
        check_stream(rows)
        assert (rig.words[market_data_state.REFUSED], rig.words[market_data_state.SLOW]) == (2, 2)
        assert rig.loop[stage.FRAMES] == 6
        assert [(event, fields["frame"]) for event, fields in rig.log.lines] == [
            ("frame refused", 2),
            ("frame refused", 5),
        ]


@pytest.mark.parametrize(
    "body", [b"<html>", b'{"result":null,"id":1}', b'{"lastUpdateId":-1,"bids":[],"asks":[]}', b""]
)
def test_a_snapshot_that_is_none_says_of_its_instrument_that_it_is_lost(body):
    broken = b'{"stream":"btcusdt@snapshot","data":' + body + b"}"
    stranger = b'{"stream":"nosuch@snapshot","data":' + body + b"}"
    with rig_of(Source([(T0, one) for one in (trade(1), broken, stranger, trade(2))], 2), virtual=True) as rig:
        rows = everything(rig)
        check_stream(rows)
        assert rows["kind"].tolist() == [m.TRADE, m.END, m.LOST, m.END, m.TRADE, m.END]
        assert rows[rows["kind"] == m.LOST]["instrument"].tolist() == [0], "of one, and not -1"


def test_refusals_beyond_the_first_ten_are_sampled_to_the_log():
    with rig_of(Source([(T0, REFUSED)] * 2005, 50), virtual=True) as rig:
        while not rig.loop[stage.FINISHED]:
            rig.step()
        assert rig.words[market_data_state.REFUSED] == 2005
        assert [fields["frame"] for _, fields in rig.log.lines] == [*range(1, 11), 1000, 2000]
