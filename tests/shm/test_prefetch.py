"""Hints to the cache: there in the machine code, and without any other effect."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.shm import byte_ring, ring
from shrivenq.shm.kernel import COMPILED, kernel
from shrivenq.shm.prefetch import LINE, prefetch_read, prefetch_write
from tests.shm.machine_code import fresh, instructions

compiled_only = pytest.mark.skipif(not COMPILED, reason="about compiled kernels")

WIDE = np.dtype([("words", "<i8", (20,))], align=True)


@kernel
def fetch(array, index, line):
    prefetch_read(array, index, line)
    prefetch_write(array, index, line)


@kernel
def prepare(producer, count):
    ring.prepare(producer, count)


@kernel
def prepare_one(producer):
    ring.prepare(producer, 1)


@kernel
def prepare_bytes(producer, size):
    byte_ring.prepare(producer, size)


def hints(function, *arguments):
    (text,) = fresh(function, *arguments).inspect_asm().values()
    return [line.split()[0] for line in instructions(text) if line.startswith(("prefetch", "prfm"))]


def test_nothing_happens_wherever_it_points():
    array = np.arange(8)
    for index in (0, 7, 10**12, -(10**12)):
        fetch(array, index, 3)
    assert array.tolist() == list(range(8))


@compiled_only
def test_the_hints_are_in_the_machine_code():
    found = hints(fetch, np.arange(8), 0, 0)
    assert len(found) == 2
    assert found[0] != found[1] or found[0] == "prfm"


@compiled_only
def test_only_contiguous_arrays_have_lines():
    with pytest.raises(Exception, match="only contiguous one-dimensional arrays can be prefetched"):
        fetch(np.arange(8)[::2], 0, 0)


def test_preparing_a_ring_changes_nothing():
    producer = ring.Producer(np.zeros(512, np.int64), np.zeros(512, np.int64), np.zeros(4, WIDE))
    prepare(producer, 3)
    assert not producer.own.any()
    assert not producer.slots["words"].any()


@compiled_only
def test_every_line_of_a_slot_is_fetched():
    producer = ring.Producer(np.zeros(512, np.int64), np.zeros(512, np.int64), np.zeros(4, WIDE))
    assert WIDE.itemsize > 2 * LINE
    assert len(hints(prepare_one, producer)) == 3


def test_preparing_a_byte_ring_changes_nothing():
    data = np.zeros(1 << 10, np.uint8)
    producer = byte_ring.Producer(np.zeros(512, np.int64), np.zeros(512, np.int64), data, data.view(np.int64))
    prepare_bytes(producer, 500)
    assert not producer.own.any()
    assert not data.any()
