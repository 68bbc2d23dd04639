"""`[live_venue]`: what it refuses."""

from __future__ import annotations

import msgspec
import pytest

from shrivenq.stages.live.venue_state import Config

GOOD = {"environment": "simulator", "url": "ws://127.0.0.1:1", "key": "environment"}


@pytest.mark.parametrize(
    "changed",
    [
        {"environment": "paper"},
        {"order_entry": "smoke"},
        {"fix_url": "x" * 201},
        {"roll_h": 24},
        {"roll_h": 0},
        {"url": "x" * 201},
        {"keys": "x"},
    ],
)
def test_what_cannot_be_meant_is_refused(changed):
    assert msgspec.convert(GOOD, Config).roll_h == 23.5
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(GOOD | changed, Config)
