"""Counters: named words, read from the segment alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from shrivenq.shm import counters, segment
from shrivenq.shm.kernel import kernel
from shrivenq.shm.layout import LINE_WORDS
from shrivenq.shm.segment import SegmentError


@kernel
def add(words, index, amount):
    counters.add(words, index, amount)


@kernel
def put(words, index, value):
    counters.put(words, index, value)


@kernel
def count_for_ever(words):
    while True:
        counters.add(words, 1, 1)


NUMBER = some.integers(-(1 << 40), 1 << 40)


@given(steps=some.lists(some.tuples(some.booleans(), some.integers(0, 2), NUMBER)))
def test_counts_like_a_dictionary(steps):
    words, reference = np.zeros(3 * LINE_WORDS, np.int64), [0, 0, 0]
    for is_add, index, number in steps:
        (add if is_add else put)(words, index, number)
        reference[index] = number + (reference[index] if is_add else 0)
    assert words[::LINE_WORDS].tolist() == reference
    assert not words.reshape(3, LINE_WORDS)[:, 1:].any()


def test_the_segment_names_them(name):
    made = counters.create(name, ["frames", "drops", "x" * 32])
    add(counters.values(made), 1, 3)
    found = segment.attach(name)
    assert counters.read(found) == {"frames": 0, "drops": 3, "x" * 32: 0}
    assert counters.indices(found) == {"frames": 0, "drops": 1, "x" * 32: 2}


def test_readable_after_the_owner_was_killed(name, children):
    made = counters.create(name, ["frames", "drops"])
    words = counters.values(made)
    put(words, 0, 5)
    pid = children.start(count_for_ever, words)
    while counters.read(made)["drops"] == 0:
        assert pid in children.running
    children.kill(pid)
    first = counters.read(segment.attach(name))
    assert first["frames"] == 5
    assert first["drops"] > 0
    assert counters.read(made) == first


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "at least one name"),
        ([""], "1 to 32 ASCII characters, not ''"),
        (["x" * 33], "1 to 32 ASCII"),
        (["größe"], "1 to 32 ASCII"),
        (["a\0b"], "1 to 32 ASCII"),
        (["a", "b", "a"], "a is named twice"),
    ],
)
def test_bad_names_are_refused(name, names, message):
    with pytest.raises(SegmentError, match=message):
        counters.create(name, names)


def test_a_segment_has_counters():
    with pytest.raises(SegmentError, match="at least one counter, not 0"):
        counters.counters_layout(0)
