"""The runner with stages of plain Python in place of the compiled ones; the real ones run in test_replay."""

from __future__ import annotations

import collections
import ctypes
import os
from types import SimpleNamespace

import pytest

from shrivenq.pipeline import assembly, fused, runner, topology
from shrivenq.pipeline.runner import StageError
from shrivenq.shm import wait
from shrivenq.shm.atomics import store_word
from shrivenq.stages import stage
from shrivenq.stages.stage import Stage
from tests.pipeline.pipeline_rig import assembled

NAME = "test-runner"


@pytest.fixture
def rig(monkeypatch):
    """Build runners whose loops note what they were called with and do what `rig.act(loop)` says."""
    with assembled(NAME) as run:
        made = SimpleNamespace(run=run, calls=[], act=len, polled=[], closed=[])

        def loop_of(*arguments):
            made.calls.append(arguments)
            made.act(arguments[-1])

        def build(setup):
            setup.polls.append(lambda: made.polled.append(setup.config))
            setup.closes.append(lambda: made.closed.append(setup.config))
            return SimpleNamespace(setup=setup)

        stages = {
            name: Stage(one.name, one.reads, one.writes, build, None, loop_of) for name, one in topology.STAGES.items()
        }
        monkeypatch.setattr(runner, "EVERY_STAGE", stages)
        monkeypatch.setattr(assembly, "EVERY_STAGE", stages)
        monkeypatch.setattr(fused, "LOOPS", collections.defaultdict(lambda: loop_of))

        def build_runner(*names):
            configs = {name: f"config of {name}" for name in names}
            return runner.build(run, names, configs, epoch=2, timer_ns=5, wait=wait.YIELD, offset_ns=99, log=None)

        made.build = build_runner
        yield made


def test_a_stage_says_on_its_page_who_runs_it(rig):
    rig.build("book")
    page = rig.run.loop("book")
    found = [int(page[word]) for word in (stage.WAIT, stage.OFFSET_NS, stage.VIRTUAL, stage.PID, stage.STATE)]
    assert found == [wait.YIELD, 99, 1, os.getpid(), stage.STARTING]
    assert int(rig.run.loop("risk")[stage.PID]) == 0


def test_a_stage_alone_runs_its_own_loop(rig):
    held = rig.build("risk")
    held.turn()
    ((context, loop),) = rig.calls
    assert context is held.context("risk")
    assert context.setup.config == "config of risk"
    assert loop is held.loops[0]
    assert rig.polled == ["config of risk"]


def test_all_together_run_fused_in_path_order(rig):
    held = rig.build(*topology.STAGES)
    held.turn()
    ((*contexts, pages, loop),) = rig.calls
    assert contexts == [held.context(name) for name in topology.STAGES]
    assert pages == tuple(held.loops[1:])
    assert loop is held.loops[0]
    assert rig.polled == [f"config of {name}" for name in reversed(topology.STAGES)]


def test_an_ordered_end_is_every_stage_s(rig):
    held = rig.build("book", "risk")
    held.turn()
    assert rig.closed == []
    held.close()
    assert rig.closed == ["config of book", "config of risk"]


def test_a_turn_has_an_end(rig, monkeypatch):
    held = rig.build("book")
    monkeypatch.setattr(runner, "clock_ns", lambda: 1000)
    held.turn(50)
    assert [int(held.loops[0][word]) for word in (stage.DEADLINE_NS, stage.LOOK_NS)] == [1050, 0]
    held.turn()
    assert held.loops[0][stage.DEADLINE_NS] == 1000 + runner.TURN_NS


def test_warming_lets_nothing_happen(rig):
    held = rig.build("book")
    held.loops[0][stage.DEADLINE_NS] = 77
    rig.act = lambda loop: rig.polled.append(int(loop[stage.DEADLINE_NS]))
    held.warm()
    assert rig.polled == [0]


@pytest.mark.parametrize(("code", "name"), list(enumerate(stage.FAULTS))[1:])
def test_a_fault_is_one_line(rig, code, name):
    held = rig.build("signal")

    def act(loop):
        loop[stage.FAULT], loop[stage.FAULT_DETAIL] = code, 42

    rig.act = act
    with pytest.raises(StageError, match=f"^signal: stopped: {name} fault at 42$"):
        held.turn()
    assert not rig.polled


def test_a_loop_knows_whose_word_stops_it_and_whose_child_it_is(rig):
    held = rig.build("book")
    assert held.loops[0][stage.PARENT] == os.getppid()
    word = ctypes.c_int64.from_address(int(held.loops[0][stage.STOP_AT]))
    assert word.value == 0
    store_word(rig.run.control("supervisor"), topology.STOP, 7)
    assert word.value == 7


def test_states_and_the_end_of_a_replay(rig):
    held = rig.build(*topology.STAGES)
    held.set_state(stage.RUNNING)
    assert {int(rig.run.loop(name)[stage.STATE]) for name in topology.STAGES} == {stage.RUNNING}
    assert held.finished is False
    held.loops[0][stage.FINISHED] = 1
    assert held.finished is True


def test_every_error_that_stops_a_stage_is_one_line():
    assert all(issubclass(one, Exception) and one.__doc__ for one in runner.STOPPING_ERRORS)
    assert StageError in runner.STOPPING_ERRORS


def test_a_settled_process_collects_no_garbage_and_says_what_it_could_not_have(rig, monkeypatch):
    asked = []
    held = rig.build("risk", "gateway")
    monkeypatch.setattr(runner, "gc", SimpleNamespace(**{one: lambda one=one: asked.append(one) for one in GC}))
    monkeypatch.setattr(runner.resident, "keep", lambda: ["not locked in memory: why"])
    assert held.settle() == ["risk+gateway: not locked in memory: why"]
    assert asked == list(GC)
    assert len(rig.calls) == runner.SETTLING_TURNS
    assert rig.polled == []


GC = ("freeze", "disable")
