from __future__ import annotations

import pytest

from shrivenq.pipeline import fused, topology
from shrivenq.shm.layout import HEADER_SIZE, PAGE, REGION_COUNT_MAX
from shrivenq.stages import control
from shrivenq.stages.conductor import VENUE_WORDS
from shrivenq.stages.stage import DROPS


@pytest.mark.parametrize("spec", topology.RINGS, ids=lambda spec: spec.name)
def test_a_ring_goes_from_the_stage_that_writes_it_to_the_one_that_reads_it(spec):
    assert [name for name, one in topology.STAGES.items() if spec.name in one.writes] == [spec.source]
    assert [name for name, one in topology.STAGES.items() if spec.name in one.reads] == [spec.target]


@pytest.mark.parametrize("spec", topology.RINGS, ids=lambda spec: spec.name)
def test_ring_sizes(spec):
    assert spec.count >= 2
    assert spec.count & (spec.count - 1) == 0
    assert spec.dtype.itemsize % 64 == 0
    assert spec.dtype.isalignedstruct


def test_stages_read_and_write_rings_there_are():
    assert list(topology.STAGES) == ["market_data", "book", "signal", "risk", "gateway", "paper_venue"]
    for one in topology.STAGES.values():
        assert set(one.reads) <= set(topology.RING)
        assert set(one.writes) - set(topology.RING) == ({"journal"} if one.name == "gateway" else set())


def test_reports_find_room_with_every_order_open():
    for name in ("from_venue", "report", "feedback"):
        assert topology.RING[name].count >= 2 * topology.POOL_COUNT


def test_every_owner_has_pages_of_its_own_in_the_control_segment():
    offsets = {one.name: topology.CONTROL.offset(one.name) for one in topology.CONTROL.regions}
    assert all(offset % PAGE == 0 and offset >= HEADER_SIZE for offset in offsets.values())
    assert all(one.size == PAGE for one in topology.CONTROL.regions if one.name != "symbols")
    assert len(set(offsets.values())) == len(offsets) <= REGION_COUNT_MAX
    assert {f"loop.{name}" for name in topology.STAGES} < set(offsets)


def test_words_fit_their_regions():
    for word in (control.MACHINE, VENUE_WORDS, DROPS, topology.SUPERVISOR_PID, topology.INSTRUMENTS_MAX - 1):
        assert word < topology.WORDS_PER_PAGE
    words = (topology.GO, topology.STOP, topology.HEARTBEAT_NS, topology.SUPERVISOR_PID)
    assert len(set(words)) == len(words)


def test_groups_hold_every_stage_once_and_each_has_its_loop():
    for mode in ("replay", "paper", "live"):
        stages = list(topology.stages_of(mode))
        for fused_ in (True, False):
            groups = topology.groups_of(mode, fused=fused_)
            assert [name for group in groups for name in group] == stages
            assert all(len(group) == 1 or (group[0], group[-1]) in fused.LOOPS for group in groups)
        assert len(topology.groups_of(mode, fused=False)) == 5 + (mode != "live")


def test_live_differs_in_the_venue_alone():
    live, paper = topology.stages_of("live"), topology.stages_of("paper")
    assert topology.stages_of("replay") is paper
    assert list(live)[:-1] == list(paper)[:-1]
    ours, theirs = live["live_venue"], paper["paper_venue"]
    assert (ours.reads, ours.writes) == (theirs.reads, theirs.writes)
    assert {f"loop.{name}" for name in topology.EVERY_STAGE} < {one.name for one in topology.CONTROL.regions}
