"""Contexts: what kernels read by reference is what Python sees, cheaply and for ever."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import COMPILED, kernel

compiled_only = pytest.mark.skipif(not COMPILED, reason="about compiled kernels")

RECORD = np.dtype([("price", "<i8"), ("side", "i1")], align=True)


@by_reference
class Inner(NamedTuple):
    """Arrays of every kind."""

    words: Any
    records: Any
    table: Any
    turned: Any
    number: int


@by_reference
class Outer(NamedTuple):
    """A context in a context."""

    before: Any
    inner: Inner
    absent: Any
    after: Any

    def total(self):
        """Sum up in Python, over the same objects."""
        inner = self.inner
        return int(self.before.sum() + self.after.sum() + inner.words.sum() + inner.table.sum() + inner.number)


@by_reference
class Words(NamedTuple):
    """One array."""

    words: Any


def make(seed=0):
    rng = np.random.default_rng(seed)
    inner = Inner(
        words=rng.integers(0, 100, 7),
        records=np.zeros(3, RECORD),
        table=rng.integers(0, 100, (3, 4)),
        turned=rng.integers(0, 100, (5, 2)).T,
        number=int(rng.integers(0, 100)),
    )
    return Outer(rng.integers(0, 100, 5), inner, None, rng.integers(0, 100, 2))


@kernel
def sum_table(inner):
    found = 0
    for row in range(inner.table.shape[0]):
        for column in range(inner.table.shape[1]):
            found += inner.table[row, column]
    return found


@kernel
def total(outer):
    found = sum_table(outer.inner) + outer.inner.number
    for word in outer.before:
        found += word
    for word in outer.inner.words:
        found += word
    for word in outer.after:
        found += word
    return found


@kernel
def transposed(outer, row, column):
    return outer.inner.turned[row, column]


@kernel
def write(outer, row, price, side):
    records = outer.inner.records
    records[row]["price"] = price
    records[row]["side"] = side
    outer.inner.words[0] += 1
    return outer.inner.words[0] + outer.inner.words[1]


@kernel
def absent(outer):
    return outer.absent is None


@kernel
def first(context):
    return context.words[0]


@kernel
def both(left, right):
    return left.words[0] * 1000 + right.words[0]


@pytest.mark.parametrize("seed", range(5))
def test_a_kernel_reads_what_python_reads(seed):
    context = make(seed)
    assert total(context) == context.total()
    turned = context.inner.turned
    assert [[transposed(context, i, j) for j in range(5)] for i in range(2)] == turned.tolist()


def test_what_a_kernel_writes_is_seen_at_once_by_both():
    context = make()
    context.inner.words[:2] = 10, 5
    assert write(context, 1, 77, -1) == 16
    assert context.inner.records[1].tolist() == (77, -1)
    context.inner.words[1] = 100
    assert write(context, 2, 8, 1) == 112


def test_none_is_none():
    assert absent(make())


def test_a_class_stays_the_named_tuple_it_is():
    context = make()
    assert context == tuple(context)
    assert context._fields == ("before", "inner", "absent", "after")
    assert context.total() == make().total()
    assert (Outer.__name__, Outer.__module__, Outer.__doc__) == ("Outer", __name__, "A context in a context.")


def test_a_changed_copy_is_a_context_of_its_own():
    context = Words(np.array([1]))
    assert first(context) == 1
    other = context._replace(words=np.array([2]))
    assert (first(context), first(other), both(context, other)) == (1, 2, 1002)


def test_read_only_arrays_and_other_layouts_are_types_of_their_own():
    words = np.arange(20)
    strided = words[3::4]
    fixed = words.view()
    fixed.flags.writeable = False
    assert [first(Words(one)) for one in (words, strided, fixed)] == [0, 3, 0]


@compiled_only
def test_what_no_context_holds_is_refused_by_name():
    with pytest.raises(TypeError, match=r"^Words\.words: a context holds arrays, integers and contexts, not "):
        first(Words("text"))


@compiled_only
def test_a_context_is_one_argument_however_much_it_holds():
    from llvmlite import ir
    from numba import typeof
    from numba.core.datamodel import default_manager

    for context in (make(), Words(np.arange(3))):
        assert default_manager.lookup(typeof(context)).get_argument_type() == ir.IntType(64).as_pointer()


@compiled_only
def test_the_machine_code_is_found_again_for_another_object():
    before = len(total.signatures)
    total(make(1))
    total(make(2))
    assert len(total.signatures) == max(before, 1)
