"""Slots taken and given back: the slab of one owner, the pool shared by processes.

One operation is a pair: take a slot of 192 bytes (an order's), write its first word, give it back, in bursts of a
few, as orders do. For `slab` and `pool` a sample is short enough to fit between two turns of the scheduler, and the
figure is the fastest of many interleaved ones, in wall time per pair: the cost of the code, not of sharing the CPU.
Longer samples on a loaded machine gave two to four times the CPU time they used.

`pool_contended` is two processes at once on one pool, wall time of one of them per pair, waiting for the other and
whatever the scheduler adds included. Its samples are long, so that the two overlap, and the figure is their median: the
fastest are those in which the other happened not to run.
"""

from __future__ import annotations

import os
import time

import numpy as np
from report import Report, interleaved

from shrivenq.shm import pool, segment, slab
from shrivenq.shm.atomics import fetch_add, load_acquire
from shrivenq.shm.kernel import kernel
from shrivenq.shm.wait import SPIN, YIELD, idle
from shrivenq.stages.orders import ORDER_SLOT

COUNT = 4096
BURST = 8
PAIRS = 20_000
ROUNDS = 500
CONTENDED_PAIRS = 4_000_000
CONTENDED_ROUNDS = 7


@kernel
def slab_pairs(held, taken, pairs):
    """Take and give back in bursts; the slots that were refused."""
    refused = 0
    for number in range(pairs // BURST):
        for i in range(BURST):
            taken[i] = slab.allocate(held)
            held.slots[taken[i]]["order_id"] = number
        for i in range(BURST):
            if not slab.free(held, taken[i]):
                refused += 1
    return refused


@kernel
def pool_pairs(held, taken, pairs):
    """Take and give back in bursts; the slots that were refused."""
    refused = 0
    for number in range(pairs // BURST):
        for i in range(BURST):
            taken[i] = pool.allocate(held)
            held.slots[taken[i]]["order_id"] = number
        for i in range(BURST):
            if not pool.give_back(held, taken[i], pool.generation_of(held, taken[i])):
                refused += 1
    return refused


@kernel
def meet(gate, others, wait):
    """Wait until all have come."""
    fetch_add(gate, 0, 1)
    while load_acquire(gate, 0) < others:
        idle(wait)


def timed(pairs_of, held, pairs):
    taken = np.zeros(BURST, np.int64)
    begun = time.perf_counter_ns()
    refused = pairs_of(held, taken, pairs)
    spent = time.perf_counter_ns() - begun
    assert refused == 0
    return {"alloc_free": spent / pairs}


def contended(held, gate):
    """Time this process while a child does the same."""
    gate[0] = 0
    wait = SPIN if len(os.sched_getaffinity(0)) > 1 else YIELD
    pid = os.fork()
    if pid == 0:
        meet(gate, 2, wait)
        timed(pool_pairs, held, CONTENDED_PAIRS)
        os._exit(0)
    meet(gate, 2, wait)
    found = timed(pool_pairs, held, CONTENDED_PAIRS)
    assert os.waitpid(pid, 0)[1] == 0
    return found


def main():
    report = Report("memory")
    name = f"{segment.PREFIX}bench.memory.{os.getpid()}"
    made = [slab.create(f"{name}.slab", ORDER_SLOT, COUNT), pool.create(f"{name}.pool", ORDER_SLOT, COUNT)]
    try:
        owned, shared, gate = slab.owner(made[0]), pool.attach(made[1]), pool.attach(made[1]).head[256:]
        meet(gate, 0, SPIN)  # compiled before anything forks
        cases = {
            "slab": lambda: timed(slab_pairs, owned, PAIRS),
            "pool": lambda: timed(pool_pairs, shared, PAIRS),
        }
        for call in cases.values():
            call()
        found = interleaved(ROUNDS, cases, min)
        found |= interleaved(CONTENDED_ROUNDS, {"pool_contended": lambda: contended(shared, gate)})
        for case, figures in found.items():
            report.row(case, "alloc_free", "ns", figures["alloc_free"])
    finally:
        for one in made:
            one.unlink()


if __name__ == "__main__":
    main()
