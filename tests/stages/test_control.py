from __future__ import annotations

import numpy as np
import pytest

from shrivenq.shm.kernel import kernel
from shrivenq.stages import control


@kernel
def level(kill):
    return control.kill_level(kill)


@kernel
def machine(kill, wanted):
    control.raise_kill(kill, wanted)


@pytest.mark.parametrize("operator", range(4))
@pytest.mark.parametrize("stages", range(4))
def test_the_higher_of_the_two_words_counts(operator, stages):
    kill = np.zeros(512, np.int64)
    kill[control.OPERATOR] = 7 << control.GENERATION_SHIFT | operator
    kill[control.MACHINE] = 2 << control.GENERATION_SHIFT | stages
    assert level(kill) == max(operator, stages)


def test_the_machine_raises_and_never_lowers_and_keeps_the_generation():
    kill = np.zeros(512, np.int64)
    kill[control.MACHINE] = 9 << control.GENERATION_SHIFT
    for wanted, found in ((control.HALT, 1), (control.FLATTEN, 3), (control.CANCEL, 3)):
        machine(kill, wanted)
        assert kill[control.MACHINE] == 9 << control.GENERATION_SHIFT | found


def test_holds_are_bits_of_their_own():
    holds = np.zeros(512, np.int64)
    for bit in (control.STAGE_DOWN, control.FEED_STALE):
        control.hold(holds, bit)
    control.unhold(holds, control.STAGE_DOWN)
    assert control.held(holds) == control.FEED_STALE


@pytest.mark.parametrize("names", [control.HOLDS, control.INSTRUMENT_HOLDS])
def test_every_hold_has_a_name(names):
    bits = [getattr(control, name.upper()) for name in names]
    assert bits == [1 << place for place in range(len(names))]
