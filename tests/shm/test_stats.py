"""Statistics: what `collect` reads from segments it knows nothing else about."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.shm import board, byte_ring, counters, hazard, histogram, pool, ring, segment, slab, stats
from shrivenq.shm.kernel import kernel
from shrivenq.shm.layout import HEADER_SIZE, PAGE, Layout, Region
from shrivenq.stages import messages, orders

SLOT = np.dtype([("words", "<i8", (8,))], align=True)


@kernel
def fill_ring(producer, count):
    if ring.claim(producer, count):
        for _ in range(count):
            ring.next_slot(producer)
        ring.publish(producer)


@kernel
def look(consumer, count):
    ring.available(consumer)
    ring.release(consumer, count)


@kernel
def use(held_pool, held_slab):
    for _ in range(3):
        pool.allocate(held_pool)
        slab.allocate(held_slab)
    pool.give_back(held_pool, 1, 1)
    slab.free(held_slab, 1)


@kernel
def put(writer, value, producer, data):
    board.write(writer, 2, value)
    byte_ring.append(producer, 1, data, 0, 5, 0)


def one(prefix, kind):
    return next(row for row in stats.collect(prefix) if row.kind == kind)


def used(prefix, kind):
    row = one(prefix, kind)
    return row.capacity, row.used, row.high_water


def test_use_of_every_kind(prefix):
    base = f"{segment.PREFIX}{prefix}"
    made = ring.create(f"{base}ring", SLOT, 16)
    fill_ring(ring.producer(made), 5)
    look(ring.consumer(made), 3)
    assert used(prefix, "ring") == (16, 2, 5)

    pools, slabs = pool.create(f"{base}pool", SLOT, 8), slab.create(f"{base}slab", SLOT, 8)
    use(pool.attach(pools), slab.owner(slabs))
    assert used(prefix, "pool") == used(prefix, "slab") == (8, 2, 3)

    boards, bytes_ring = board.create(f"{base}board", SLOT, 4), byte_ring.create(f"{base}bytes", 1024)
    put(board.writer(boards), np.zeros(1, SLOT), byte_ring.producer(bytes_ring), np.zeros(8, np.uint8))
    assert used(prefix, "board") == (4, 1, 1)
    assert used(prefix, "byte_ring") == (1024, 24, 24)
    byte_ring.drain(byte_ring.consumer(bytes_ring))
    assert used(prefix, "byte_ring") == (1024, 0, 24)

    tables = hazard.create(f"{base}table", SLOT, 3, versions=4, readers=2)
    hazard.publish(hazard.publisher(tables), np.zeros(3, SLOT))
    assert used(prefix, "hazard") == (4, 1, -1)

    times = histogram.create(f"{base}times", ["a", "b"])
    histogram.record(histogram.histograms(times, writable=True)["b"], 5)
    assert used(prefix, "histogram") == (2, 1, 1)

    counts = counters.create(f"{base}counts", ["a", "b", "c"])
    counters.put(counters.values(counts), 1, 7)
    assert used(prefix, "counters") == (3, 1, -1)

    segment.create(f"{base}other", Layout("control", (Region("loop", np.dtype("<i8"), 512),)))
    assert used(prefix, "control") == (512, -1, -1)
    assert len(stats.collect(prefix)) == 9


def test_bytes_add_up(prefix):
    pool.create(f"{segment.PREFIX}{prefix}pool", SLOT, 100)
    row = one(prefix, "pool")
    assert row.size == HEADER_SIZE + PAGE + PAGE + PAGE + 2 * PAGE
    assert row.bookkeeping == PAGE + 2 * 100 * 8
    assert row.header == row.size - row.bookkeeping - 100 * SLOT.itemsize


def test_rows_say_who_made_the_segment_and_where(prefix, children):
    name = f"{segment.PREFIX}{prefix}ring"
    pid = children.start(lambda: ring.create(name, SLOT, 16, epoch=3))
    assert children.wait(pid) == 0
    row = one(prefix, "ring")
    assert (row.name, row.epoch, row.node, row.alive) == (name, 3, -1, False)


def test_nodes_add_up(prefix):
    made = [
        stats.Row(f"s{node}", "ring", node, 1, True, size, 10, 20, 1, 0, 0) for node, size in ((1, 100), (0, 7), (1, 5))
    ]
    assert stats.by_node(made) == [stats.NodeRow(0, 1, 7, 10, 20), stats.NodeRow(1, 2, 105, 20, 40)]
    assert stats.by_node([]) == []


def test_a_segment_that_cannot_be_read_is_left_out(prefix):
    name = f"{segment.PREFIX}{prefix}"
    ring.create(f"{name}good", SLOT, 16)
    made = ring.create(f"{name}unfinished", SLOT, 16)
    made.header["magic"] = b""
    assert [row.name for row in stats.collect(prefix)] == [f"{name}good"]


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("ring", lambda name: ring.create(name, messages.TICK, 1 << 16)),
        ("ring", lambda name: ring.create(name, messages.BOOK, 1 << 12)),
        ("ring", lambda name: ring.create(name, messages.ORDER, 1 << 12)),
        ("byte_ring", lambda name: byte_ring.create(name, 1 << 24)),
        ("board", lambda name: board.create(name, messages.BOOK, 1000)),
        ("pool", lambda name: pool.create(name, orders.ORDER_SLOT, 1 << 12)),
        ("slab", lambda name: slab.create(name, orders.ORDER_SLOT, 1 << 12)),
        ("histogram", lambda name: histogram.create(name, [str(hop) for hop in range(16)])),
        ("hazard", lambda name: hazard.create(name, messages.INSTRUMENT, 1000, versions=8, readers=6)),
    ],
)
def test_headers_take_less_than_five_percent(prefix, kind, make):
    make(f"{segment.PREFIX}{prefix}one")
    row = one(prefix, kind)
    assert row.overhead < 0.05
    # Links and generations of 16 bytes beside slots of 192 are the most that bookkeeping costs.
    assert row.bookkeeping / row.size < 0.08
