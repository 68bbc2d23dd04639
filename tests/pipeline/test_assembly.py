from __future__ import annotations

import ast
import os

import numpy as np
import pytest

from shrivenq.pipeline import processes, topology
from shrivenq.pipeline.assembly import OBSERVER_SLACK, Assembly, clock_ns
from shrivenq.shm import pool, ring, segment
from shrivenq.shm.layout import HEADER_SIZE, PAGE
from shrivenq.shm.segment import SegmentError
from shrivenq.stages import hops, stage
from shrivenq.stages import messages as m
from tests.pipeline.pipeline_rig import assembled, publish, tables

NAME = "test-assembly"

WRITES = {  # regions of the control segment beyond its own page, and what it shares with others
    "market_data": {"venue"},
    "book": {"hold", "resync"},
    "signal": set(),
    "risk": {"kill", "hold", "orders", "positions"},
    "gateway": {"kill", "hold", "orders", "hops"},
    "paper_venue": {"venue"},
    "live_venue": {"hold"},
}


@pytest.fixture
def run():
    with assembled(NAME) as made:
        yield made


def setup(run, name):
    return run.setup(name, None, epoch=3, timer_ns=17, log=None)


# ── segments ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_part_is_a_segment_of_the_run(run):
    prefix = f"{segment.PREFIX}{NAME}.{run.run}."
    parts = {"control", "orders", "positions", "latency", "journal", *topology.RING}
    assert {name.removeprefix(prefix) for name in segment.names(f"{NAME}.{run.run}.")} == parts
    for name in parts:
        found = segment.attach(prefix + name)
        assert found.epoch == 1
        assert found.creator_alive()
        assert (segment.FOLDER / found.name).stat().st_mode & 0o777 == 0o600
        found.close()


def test_nothing_is_left_after_it():
    with assembled(NAME) as run:
        run.observe(["book"])
    assert not segment.names(f"{NAME}.{run.run}.")
    run.unlink()  # twice is no error


@pytest.mark.parametrize("fails_at", [0, 1, 2, 7, 14])
def test_a_failure_half_way_leaves_nothing(monkeypatch, fails_at):
    create, made = segment.create, []

    def create_some(name, *arguments, **options):
        if len(made) == fails_at:
            raise SegmentError(f"{name}: no room")
        made.append(name)
        return create(name, *arguments, **options)

    monkeypatch.setattr(segment, "create", create_some)
    found = tables()
    with pytest.raises(SegmentError, match=r"^shrivenq\.test-assembly\.broken\..*: no room$"):
        Assembly.create(NAME, "broken", found.instruments, found.currencies, virtual=True, fused=False)
    assert len(made) == fails_at
    assert not segment.names(f"{NAME}.broken.")


def test_a_run_of_the_same_name_is_refused_and_left_alone(run):
    with pytest.raises(SegmentError, match="exists already"):
        Assembly.create(NAME, run.run, run.instruments, run.currencies, virtual=True, fused=False)
    assert f"{segment.PREFIX}{NAME}.{run.run}.control" in segment.names(f"{NAME}.{run.run}.")


# ── what a stage is given ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", list(topology.EVERY_STAGE))
def test_a_stage_gets_the_rings_it_reads_and_writes(run, name):
    made, one = setup(run, name), topology.EVERY_STAGE[name]
    assert set(made.producers) == set(one.writes)
    assert set(made.consumers) == set(one.reads)
    assert (made.shared["epoch"][0], made.shared["timer_ns"][0]) == (3, 17)
    assert made.shared["run"].tobytes().decode() == run.run
    assert made.loop[stage.VIRTUAL] == 1
    assert len(made.cursors) == (len(topology.RINGS) if name == "market_data" else 0)


@pytest.mark.parametrize("name", list(topology.EVERY_STAGE))
def test_a_stage_may_write_what_it_owns(run, name):
    made = setup(run, name)
    assert made.loop.flags.writeable
    for end in made.producers.values():
        if isinstance(end, ring.Producer):
            assert (end.own.flags.writeable, end.peer.flags.writeable, end.slots.flags.writeable) == (True, False, True)
    for end in made.consumers.values():
        assert (end.own.flags.writeable, end.peer.flags.writeable, end.slots.flags.writeable) == (True, False, False)
    for region in ("kill", "hold", "venue", "resync"):
        assert made.shared[region].flags.writeable == (region in WRITES[name]), region
    for part in ("orders", "positions", "hops"):
        assert (part in made.shared) == (part in WRITES[name]), part
    assert not any(words.flags.writeable for cursors in made.cursors for words in cursors[:2])


def writable_pages(run):
    """Read which pages of a run's segments this process can write: (part, offset of the mapping)."""
    found = set()
    prefix = f"/dev/shm/{segment.PREFIX}{NAME}.{run.run}."  # noqa: S108 - where Linux shows shared memory
    with open("/proc/self/maps") as maps:  # noqa: PTH123 - no file of ours
        for line in maps:
            fields = line.split()
            if len(fields) > 5 and fields[5].startswith(prefix) and "w" in fields[1]:
                found.add((fields[5].removeprefix(prefix), int(fields[2], 16)))
    return found


def test_a_forked_signal_can_write_nothing_but_its_own(run):
    """A strategy is a user's code, and its kernels check no bounds: what it does not own must not be writable."""
    publish(run, "book", np.zeros(1, m.BOOK))  # the parent has written mappings of its own, as a supervisor has
    held = [run.control("kill"), run.control("hold"), setup(run, "risk"), setup(run, "gateway")]
    reading, writing = os.pipe()

    def target():
        held.clear()
        run.forget()
        made = setup(run, "signal")
        os.write(writing, repr(writable_pages(run)).encode())
        return 0 if made else 1

    child = processes.start("signal", target)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = ast.literal_eval(pipe.read().decode())
    assert child.wait(30)
    assert child.status == 0
    layout = run.segments["intent"].layout
    assert found == {
        ("control", topology.CONTROL.offset("loop.signal")),
        ("book", HEADER_SIZE + PAGE),
        ("feedback", HEADER_SIZE + PAGE),
        ("intent", layout.offset("producer")),
        ("intent", layout.offset("slots")),
    }


def test_what_the_stages_share_is_one_memory(run):
    risk, gateway = setup(run, "risk"), setup(run, "gateway")
    risk.shared["hold"][0] = 5
    assert gateway.shared["hold"][0] == setup(run, "signal").shared["hold"][0] == 5
    assert pool.used(gateway.shared["orders"]) == 0
    pool.allocate(risk.shared["orders"])
    assert pool.used(gateway.shared["orders"]) == run.open_orders() == 1
    assert tuple(gateway.shared["hops"]._fields) == hops.NAMES


# ── looking on ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_observers_are_among_the_cursors_with_slack(run):
    taps = run.observe(["book", "order"])
    assert set(taps) == {"book", "order"}
    assert all(tap.own.flags.writeable and not tap.slots.flags.writeable for tap in taps.values())
    cursors = run.cursors()
    assert [slack for _, _, slack in cursors] == [0] * len(topology.RINGS) + [
        topology.RING[name].count // OBSERVER_SLACK for name in ("book", "order")
    ]
    publish(run, "book", np.zeros(3, m.BOOK))
    assert int(cursors[-2][0][ring.HEAD]) == 3
    assert int(cursors[-2][1][ring.TAIL]) == 0


def test_positions_nobody_has_written_are_flat(run):
    found = run.positions()
    assert len(found) == len(run.instruments)
    assert not found["fills"].any()


def test_shortfalls_are_collected(run):
    run.segments["tick"].shortfalls.append("tick: not locked")
    run.segments["book"].shortfalls.append("book: not on its node")
    assert sorted(run.shortfalls()) == ["book: not on its node", "tick: not locked"]


def test_the_clock_goes_on():
    first = clock_ns()
    assert 0 < first <= clock_ns()
