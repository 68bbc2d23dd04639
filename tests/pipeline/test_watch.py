"""The watch: silence holds, then ends; a feed that stands still holds; both let go; our own lateness is nobody's."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.pipeline import state
from shrivenq.pipeline.config import SupervisorTimes
from shrivenq.pipeline.watch import CYCLE_NS, Watch
from shrivenq.shm import board
from shrivenq.shm.atomics import load_word, or_word
from shrivenq.stages import control, positions, stage
from tests.pipeline.pipeline_rig import assembled
from tests.stages.market_rig import Log

NAME = "test-watch"
MS = 1_000_000
LIMITS = SupervisorTimes(silence_hold_ms=500.0, silence_kill_ms=5_000.0, feed_stale_ms=2_000.0)
STAGES = ("market_data", "risk")


class World:
    """A watch, its time, and stages that turn and feed as a test says."""

    def __init__(self, assembly):
        self.assembly, self.log = assembly, Log()
        self.watch = Watch(LIMITS, STAGES, self.log)
        self.now = 1_000_000 * MS
        self.watch.begin(self.now)
        self.turning, self.feeding = set(STAGES), True

    def run(self, duration_ms):
        """Look every cycle for so long; what was to end."""
        ending = []
        for _ in range(duration_ms * MS // CYCLE_NS):
            ending += self.look(CYCLE_NS)
        return ending

    def look(self, later_ns):
        self.now += later_ns
        for name in self.turning:
            self.assembly.control(f"loop.{name}")[stage.NOW_NS] = self.now
        if self.feeding:
            self.assembly.control("loop.market_data")[stage.FRAMES] += 1
        return self.watch.look(self.assembly, self.now)

    def holds(self):
        return load_word(self.assembly.control("hold"), control.HOLD)

    def said(self):
        return [event for event, _ in self.log.lines]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path))
    with assembled(NAME) as assembly:
        yield World(assembly)


def test_stages_that_turn_are_left_alone(world):
    assert world.run(10_000) == []
    assert world.holds() == 0
    assert world.said() == []


def test_a_silent_stage_holds_then_ends(world):
    world.turning.remove("risk")
    assert world.run(480) == []
    assert world.holds() == 0
    assert world.run(100) == []
    assert world.holds() == control.STAGE_SILENT
    assert set(world.run(4_500)) == {"risk"}
    assert world.said() == ["held: stage silent", "stage silent for too long: stopped"]


def test_a_stage_that_answers_again_lets_go(world):
    world.turning.remove("risk")
    world.run(600)
    world.turning.add("risk")
    assert world.run(40) == []
    assert world.holds() == 0
    assert world.said() == ["held: stage silent", "all stages answer again"]


def test_our_own_lateness_is_nobodys_silence(world):
    world.turning.clear()
    assert world.look(60_000 * MS) == []
    assert not world.holds() & control.STAGE_SILENT


def test_a_feed_that_stands_still_holds_until_it_moves(world):
    world.feeding = False
    world.run(1_980)
    assert world.holds() == 0
    assert world.run(100) == []
    assert world.holds() == control.FEED_STALE
    world.feeding = True
    world.run(40)
    assert world.holds() == 0
    assert world.said() == ["held: market data silent", "market data again"]


def test_a_strategy_that_is_deaf_ends(world):
    or_word(world.assembly.control("hold"), control.HOLD, control.STRATEGY_DEAF)
    assert world.run(20) == ["signal"]


def test_fees_of_unknown_worth_are_told_once(world):
    row = np.zeros(1, positions.POSITION)
    writer = board.writer(world.assembly.segments["positions"])
    for row["unconverted"] in (0, 1, 2):
        board.write(writer, 0, row)
        world.run(1_000)
    assert [(event, fields["symbol"]) for event, fields in world.log.lines] == [
        ("fees in a currency of unknown worth: no new orders but reductions", "BTCUSDT")
    ]


def test_a_kill_that_a_stage_raised_is_written_down_once(world):
    state.write_armed(NAME, "why")
    world.assembly.control("kill")[:] = 0
    world.run(40)
    assert state.armed(NAME)
    control.raise_kill(world.assembly.control("kill"), control.CANCEL)
    world.run(100)
    assert state.armed(NAME) is None
    assert state.why_killed(NAME).startswith("cancel by ")
    assert world.said() == ["killed by a stage"]
    world.assembly.control("kill")[control.MACHINE] = 0  # a person arms
    state.write_armed(NAME, "why")
    world.run(40)
    assert state.armed(NAME)


def test_a_person_s_kill_that_goes_further_is_what_stays_written(world):
    state.write_killed(NAME, "flatten", "by hand")
    world.assembly.control("kill")[control.OPERATOR] = control.FLATTEN
    control.raise_kill(world.assembly.control("kill"), control.CANCEL)
    world.run(40)
    assert "by hand" in state.why_killed(NAME)
