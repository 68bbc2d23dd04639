"""`[live_venue]`: what it refuses."""

from __future__ import annotations

import msgspec
import pytest

from shrivenq.stages.live import venue_state as v
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


def test_no_two_words_have_one_place():
    names = [
        "READY", "SENDS", "OUT_BEGIN", "OUT_END", "SENT", "REFUSED", "SCANNED", "SLOW", "REPEATED", "FOREIGN_OPEN",
        "KILLED", "ASKED_LEVEL", "STRANGE", "BY_FIX", "LEFT",
    ]  # fmt: skip
    places = [getattr(v, name) for name in names]
    assert sorted(places) == list(range(len(names)))
    assert len(names) <= v.WORDS
