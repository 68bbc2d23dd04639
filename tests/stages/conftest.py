"""Fixtures that several test files of the stages share."""

from __future__ import annotations

import pytest

from tests.stages.journal_rig import Ring


@pytest.fixture
def rings():
    made = []

    def make(size=1 << 16):
        made.append(Ring(size))
        return made[-1]

    yield make
    for one in made:
        one.segment.unlink()
        one.segment.close()
