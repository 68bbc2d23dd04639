"""The fused loop with steps that note their calls; that its orders are those of `split` is in test_replay."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from shrivenq.pipeline import fused, topology
from shrivenq.shm.atomics import store_word
from shrivenq.stages import stage

PLAIN, LIVE, GATEWAY = (getattr(one, "py_func", one) for one in (fused.run, fused.run_live, fused.run_gateway))


def run_with(monkeypatch, turns, work_of, run=PLAIN, stages=topology.STAGES):
    """Run the loop for some turns; return the steps called, and the work each turn was told of."""
    calls, told = [], []

    def turn(loop, work):
        told.append(work)
        return len(told) <= turns

    def step_of(name):
        def step(context, loop):
            calls.append((name, context, loop))
            return work_of(name)

        return step

    for name in stages:
        monkeypatch.setattr(fused, name, SimpleNamespace(step=step_of(name)))
    monkeypatch.setattr(fused, "turn", turn)
    page, others = np.zeros(512, np.int64), tuple(np.zeros(512, np.int64) for _ in range(5))
    run(*[f"context of {name}" for name in stages], others, page)
    assert all(one is page for _, _, one in calls)
    return calls, told


def test_every_stage_steps_once_a_turn_in_path_order(monkeypatch):
    calls, _ = run_with(monkeypatch, 2, dict.fromkeys(topology.STAGES, 0).get)
    assert [call[:2] for call in calls] == 2 * [(name, f"context of {name}") for name in topology.STAGES]


def test_in_mode_live_the_live_venue_steps_in_the_paper_venue_s_place(monkeypatch):
    stages = topology.stages_of("live")
    calls, _ = run_with(monkeypatch, 2, dict.fromkeys(stages, 0).get, LIVE, stages)
    assert [call[:2] for call in calls] == 2 * [(name, f"context of {name}") for name in stages]
    assert list(stages)[-1] == "live_venue"


def test_live_the_gateway_and_its_venue_step_in_one_process(monkeypatch):
    stages = topology.groups_of("live", fused=False)[-1]
    assert stages == ["gateway", "live_venue"]
    calls, _ = run_with(monkeypatch, 2, dict.fromkeys(stages, 0).get, GATEWAY, stages)
    assert [call[:2] for call in calls] == 2 * [(name, f"context of {name}") for name in stages]


def test_the_next_turn_is_told_of_all_the_work(monkeypatch):
    work = {name: 10**i for i, name in enumerate(topology.STAGES)}
    _, told = run_with(monkeypatch, 3, work.__getitem__)
    assert told == [0, 111111, 111111, 111111]


def test_a_turn_that_is_over_steps_nothing(monkeypatch):
    calls, told = run_with(monkeypatch, 0, dict.fromkeys(topology.STAGES, 1).get)
    assert not calls
    assert told == [0]


def test_the_other_pages_tell_the_same_heartbeat_and_kill_level(monkeypatch):
    page, others = np.zeros(512, np.int64), tuple(np.zeros(512, np.int64) for _ in range(5))
    seen = []

    def turn(loop, _work):
        loop[stage.NOW_NS] += stage.LOOK_EVERY_NS // 2
        loop[stage.TURNS] += 1
        loop[stage.KILL_SEEN_NS], loop[stage.DEADLINE_NS] = 7, 99
        store_word(loop, stage.KILL_SEEN, 3)
        seen.append([int(one[stage.TURNS]) for one in others])
        return loop[stage.TURNS] < 6

    for name in topology.STAGES:
        monkeypatch.setattr(fused, name, SimpleNamespace(step=lambda _context, _loop: 0))
    monkeypatch.setattr(fused, "turn", turn)
    monkeypatch.setattr(fused, "store_release", store_word, raising=False)
    monkeypatch.setattr(fused, "mirror", getattr(fused.mirror, "py_func", fused.mirror))
    PLAIN(*topology.STAGES, others, page)
    assert seen == [[told] * 5 for told in (0, 0, 2, 2, 4, 4)]
    for one in others:
        assert one[stage.NOW_NS] == 2 * stage.LOOK_EVERY_NS
        assert (one[stage.KILL_SEEN], one[stage.KILL_SEEN_NS], one[stage.DEADLINE_NS]) == (3, 7, 0)
