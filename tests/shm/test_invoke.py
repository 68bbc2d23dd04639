from __future__ import annotations

import numpy as np
import pytest

from shrivenq.shm.invoke import addresses, compiled_for, invoke
from shrivenq.shm.kernel import COMPILED, kernel

ROW = np.dtype([("value", "<i8")], align=True)


def add(first, second, third, fourth):
    first[0] += second[0]["value"] + third[0] * fourth[0]


def subtract(first, second, third, fourth):
    first[0] -= second[0]["value"] + third[0] * fourth[0]


def refuse(first, second, third, fourth):
    if third[0] == 13:
        raise ValueError("thirteen")
    first[0] += 1


@kernel
def call_each(table, count, first, second, third, fourth):
    for index in range(count):
        invoke(table, index, first, second, third, fourth)
    return first[0]


@pytest.fixture
def arguments():
    row = np.zeros(1, ROW)
    row["value"] = 5
    return np.zeros(1, np.int64), row, np.array([2], np.int64), np.array([7], np.int64)


def test_calls_the_function_at_each_index(arguments):
    compiled = [compiled_for(one, arguments) for one in (add, subtract, add)]
    assert call_each(addresses(compiled), 1, *arguments) == 19
    assert call_each(addresses(compiled), 2, *arguments) == 19
    assert call_each(addresses(compiled), 3, *arguments) == 38


def test_an_exception_reaches_python_and_the_next_call_works(arguments):
    compiled = [compiled_for(refuse, arguments)]
    table = addresses(compiled)
    arguments[2][0] = 13
    with pytest.raises(ValueError, match="thirteen"):
        call_each(table, 1, *arguments)
    arguments[2][0] = 1
    assert call_each(table, 1, *arguments) == 1


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled with NUMBA_DISABLE_JIT=1")
def test_machine_code_of_the_caller_does_not_depend_on_the_function(arguments):
    call_each(addresses([compiled_for(add, arguments)]), 1, *arguments)
    before = len(call_each.overloads)
    call_each(addresses([compiled_for(subtract, arguments)]), 1, *arguments)
    assert len(call_each.overloads) == before
