"""The fused loop with steps that note their calls; that its orders are those of `split` is in test_replay."""

from __future__ import annotations

from types import SimpleNamespace

from shrivenq.pipeline import fused, topology

PLAIN = getattr(fused.run, "py_func", fused.run)


def run_with(monkeypatch, turns, work_of):
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

    for name in topology.STAGES:
        monkeypatch.setattr(fused, name, SimpleNamespace(step=step_of(name)))
    monkeypatch.setattr(fused, "turn", turn)
    PLAIN(*[f"context of {name}" for name in topology.STAGES], "page")
    return calls, told


def test_every_stage_steps_once_a_turn_in_path_order(monkeypatch):
    calls, _ = run_with(monkeypatch, 2, dict.fromkeys(topology.STAGES, 0).get)
    assert calls == 2 * [(name, f"context of {name}", "page") for name in topology.STAGES]


def test_the_next_turn_is_told_of_all_the_work(monkeypatch):
    work = {name: 10**i for i, name in enumerate(topology.STAGES)}
    _, told = run_with(monkeypatch, 3, work.__getitem__)
    assert told == [0, 111111, 111111, 111111]


def test_a_turn_that_is_over_steps_nothing(monkeypatch):
    calls, told = run_with(monkeypatch, 0, dict.fromkeys(topology.STAGES, 1).get)
    assert not calls
    assert told == [0]
