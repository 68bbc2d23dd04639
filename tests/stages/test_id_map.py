"""The id map against a dict, and the memory of recent pairs against a list."""

from __future__ import annotations

import random

import pytest

from shrivenq.stages.id_map import ABSENT, find, make_map, make_recent, put, remember, remove


@pytest.mark.parametrize("seed", range(4))
def test_map_is_a_dict(seed):
    chance = random.Random(seed)
    ids, twin = make_map(64), {}
    epoch = 3 << 40
    for step in range(6_000):
        key, second = epoch + chance.randrange(120), chance.choice((-1, 0, 7))
        action = chance.random()
        if action < 0.45:
            fits = len(twin) < 64 or (key, second) in twin
            assert put(ids, key, second, step) == fits, f"seed {seed} step {step}"
            if fits:
                twin[key, second] = step
        elif action < 0.85:
            assert remove(ids, key, second) == (twin.pop((key, second), None) is not None), f"seed {seed} step {step}"
        assert find(ids, key, second) == twin.get((key, second), ABSENT), f"seed {seed} step {step}"
        assert ids.size[0] == len(twin)
    for (key, second), value in twin.items():
        assert find(ids, key, second) == value, f"seed {seed}"


def test_large_and_negative_ids():
    ids = make_map(4)
    for key in (2**63 - 1, -(2**63), 0, -1):
        assert put(ids, key, -key if key != -(2**63) else 0, 5)
    assert not put(ids, 9, 9, 1)
    assert find(ids, 2**63 - 1, -(2**63 - 1)) == 5


@pytest.mark.parametrize("seed", range(3))
def test_recent_forgets_the_oldest_only(seed):
    chance = random.Random(seed)
    recent, twin = make_recent(16), []
    for step in range(3_000):
        pair = (chance.randrange(2), chance.randrange(30))
        assert remember(recent, *pair) == (pair not in twin), f"seed {seed} step {step}"
        if pair not in twin:
            twin = [*twin, pair][-16:]
