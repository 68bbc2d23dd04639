"""Slab: a set of free slots, against a Python list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from shrivenq.shm import slab
from shrivenq.shm.kernel import kernel
from shrivenq.shm.segment import SegmentError

SLOT = np.dtype([("owner", "<i8"), ("words", "<i8", (7,))], align=True)


@kernel
def allocate(held):
    return slab.allocate(held)


@kernel
def free(held, index):
    return slab.free(held, index)


class Reference:
    """The obvious slab: a stack of returned slots over the ones never taken."""

    def __init__(self, count):
        self.count, self.fresh, self.stack, self.taken = count, 0, [], set()

    def allocate(self):
        if self.stack:
            index = self.stack.pop()
        elif self.fresh < self.count:
            index, self.fresh = self.fresh, self.fresh + 1
        else:
            return -1
        self.taken.add(index)
        return index

    def free(self, index):
        if index not in self.taken:
            return False
        self.taken.remove(index)
        self.stack.append(index)
        return True


@given(count=some.integers(1, 9), steps=some.lists(some.one_of(some.none(), some.integers(-2, 10))))
def test_does_what_a_list_does(count, steps):
    held, reference = slab.private(SLOT, count), Reference(count)
    for step in steps:
        if step is None:
            assert allocate(held) == reference.allocate()
        else:
            assert free(held, step) == reference.free(step)
        assert slab.used(held) == len(reference.taken)
        assert slab.high_water(held) == reference.fresh


def test_lives_in_a_segment(name):
    made = slab.create(name, SLOT, 3)
    owner = slab.owner(made)
    assert [allocate(owner) for _ in range(4)] == [0, 1, 2, -1]
    assert slab.used(slab.owner(made)) == 3


def test_a_slot_freed_twice_is_found_out():
    held = slab.private(SLOT, 2)
    index = allocate(held)
    assert free(held, index)
    assert not free(held, index)
    assert [allocate(held) for _ in range(3)] == [0, 1, -1]


def test_reset_frees_everything():
    held = slab.private(SLOT, 4)
    for _ in range(4):
        allocate(held)
    free(held, 2)
    slab.reset(held)
    assert slab.used(held) == slab.high_water(held) == 0
    assert not free(held, 1)
    assert [allocate(held) for _ in range(5)] == [0, 1, 2, 3, -1]


def test_a_stray_write_into_a_freed_slot_breaks_nothing():
    held = slab.private(SLOT, 2)
    free(held, allocate(held))
    held.slots[0]["owner"] = -99
    assert [allocate(held) for _ in range(3)] == [0, 1, -1]


def test_a_slab_has_slots():
    with pytest.raises(SegmentError, match="at least one slot, not 0"):
        slab.slab_layout(SLOT, 0)
