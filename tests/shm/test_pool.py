"""Pool: slots shared by processes, never handed out twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from shrivenq.shm import pool
from shrivenq.shm.atomics import load_acquire, store_release
from shrivenq.shm.kernel import kernel
from shrivenq.shm.segment import SegmentError
from shrivenq.shm.wait import YIELD, idle

SLOT = np.dtype([("owner", "<i8"), ("words", "<i8", (7,))], align=True)


@kernel
def allocate(held):
    return pool.allocate(held)


@kernel
def give_back(held, index, generation):
    return pool.give_back(held, index, generation)


@kernel
def generation_of(held, index):
    return pool.generation_of(held, index)


@kernel
def hammer(held, words, mine, rounds, seed, taken, result):
    """Take and give back at random; `words` are the slots' first words: whoever else writes a taken one is caught.

    `result`: takings, refused returns, foreign writes seen.
    """
    state = seed
    count = 0
    for _ in range(rounds):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0x7FFFFFFFFFFFFFFF
        if (state >> 40) & 1 == 0 and count < taken.shape[0]:
            index = pool.allocate(held)
            if index < 0:
                idle(YIELD)
                continue
            result[0] += 1
            if load_acquire(words, index * 8) != 0:
                result[2] += 1
            store_release(words, index * 8, mine)
            taken[count] = index
            count += 1
        elif count > 0:
            at = (state >> 41) % count
            index = taken[at]
            count -= 1
            taken[at] = taken[count]
            if load_acquire(words, index * 8) != mine:
                result[2] += 1
            store_release(words, index * 8, 0)
            generation = pool.generation_of(held, index)
            if not pool.give_back(held, index, generation):
                result[1] += 1
            if pool.give_back(held, index, generation):
                result[2] += 1
    while count > 0:
        count -= 1
        store_release(words, taken[count] * 8, 0)
        if not pool.give_back(held, taken[count], pool.generation_of(held, taken[count])):
            result[1] += 1


def free_list(held):
    """Walk the free list, slowly."""
    found, index = [], int(held.head[0]) & pool.INDEX_MASK
    while index != pool.NONE:
        found.append(index)
        assert len(found) <= len(held.next), "the free list has a cycle"
        index = int(held.next[index])
    return found


class Reference:
    """The obvious pool: a stack, and the number of times each slot changed hands."""

    def __init__(self, count):
        self.stack, self.generation = list(reversed(range(count))), [0] * count
        self.most = 0

    def allocate(self):
        if not self.stack:
            return -1
        index = self.stack.pop()
        self.generation[index] += 1
        self.most = max(self.most, len(self.generation) - len(self.stack))
        return index

    def give_back(self, index, generation):
        good = 0 <= index < len(self.generation) and generation % 2 == 1 and self.generation[index] == generation
        if good:
            self.generation[index] += 1
            self.stack.append(index)
        return good


@given(
    count=some.integers(1, 6),
    steps=some.lists(some.one_of(some.none(), some.tuples(some.integers(-1, 6), some.integers(-2, 5)))),
)
def test_does_what_a_stack_does(count, steps):
    held, reference = pool.private(SLOT, count), Reference(count)
    for step in steps:
        if step is None:
            assert allocate(held) == reference.allocate()
        else:
            assert give_back(held, *step) == reference.give_back(*step)
        assert free_list(held) == reference.stack[::-1]
        assert held.generation.tolist() == reference.generation
        assert pool.used(held) == count - len(reference.stack)
        assert pool.high_water(held) == reference.most


def test_two_processes_see_one_pool(name, children):
    made = pool.create(name, SLOT, 2)
    held = pool.attach(made)
    index = allocate(held)
    generation = generation_of(held, index)
    assert children.wait(children.start(give_back, held, index, generation)) == 0
    assert pool.used(held) == 0
    assert not give_back(held, index, generation)


def test_a_stale_generation_is_refused_in_the_slots_next_life():
    held = pool.private(SLOT, 1)
    first = generation_of(held, allocate(held))
    assert give_back(held, 0, first)
    second = generation_of(held, allocate(held))
    assert second == first + 2
    assert not give_back(held, 0, first)
    assert give_back(held, 0, second)


def test_a_head_that_came_back_to_the_same_slot_is_not_mistaken():
    held = pool.private(SLOT, 3)
    seen = int(held.head[0])
    # A process that slept since reads the same first slot over another list: 0 → 2 where it saw 0 → 1.
    first, second = allocate(held), allocate(held)
    assert (first, second) == (0, 1)
    give_back(held, 0, generation_of(held, 0))
    assert int(held.head[0]) & pool.INDEX_MASK == seen & pool.INDEX_MASK
    assert int(held.head[0]) != seen


def test_the_tag_wraps_and_the_head_stays_positive():
    held = pool.private(SLOT, 2)
    held.head[0] = pool.TAG_MASK << pool.INDEX_BITS
    assert allocate(held) == 0
    assert int(held.head[0]) == 1
    assert give_back(held, 0, 1)
    assert int(held.head[0]) == 1 << pool.INDEX_BITS


def test_reset_makes_every_earlier_taking_stale():
    held = pool.private(SLOT, 3)
    generations = [generation_of(held, allocate(held)) for _ in range(3)]
    pool.reset(held)
    assert free_list(held) == [0, 1, 2]
    assert not any(give_back(held, index, generation) for index, generation in enumerate(generations))
    assert [allocate(held) for _ in range(4)] == [0, 1, 2, -1]


def test_a_pool_has_slots():
    with pytest.raises(SegmentError, match="1 to 2,147,483,647 slots, not 0"):
        pool.pool_layout(SLOT, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "rounds"), [(3, 1_000_000), (64, 12_000_000)])
def test_four_processes_never_hold_the_same_slot(name, children, count, rounds):
    seeds = (11, 12, 13, 14)
    made = pool.create(name, SLOT, count)
    held = pool.attach(made)
    words = held.slots.view(np.int64)
    taken = np.zeros(max(2, count // 3), np.int64)
    hammer(held, words, 99, 10, 1, taken, np.zeros(3, np.int64))

    def run(number, seed):
        result = np.zeros(3, np.int64)
        hammer(held, words, number, rounds, seed, taken, result)
        assert result[0] > 0
        assert result[1:].tolist() == [0, 0], f"seed {seed}: refused, foreign {result[1:]}"

    pids = [children.start(run, number, seed) for number, seed in enumerate(seeds, start=1)]
    assert [children.wait(pid) for pid in pids] == [0] * 4, f"seeds {seeds}"
    assert sorted(free_list(held)) == list(range(count))
    assert pool.used(held) == 0
    assert (held.generation % 2 == 0).all()
    assert not words[::8].any()
