from __future__ import annotations

import itertools
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from shrivenq.pipeline import inspection, rest, state, topology
from shrivenq.pipeline.assembly import Assembly
from shrivenq.pipeline.inspection import InspectionError
from shrivenq.shm import ring, segment
from shrivenq.shm.atomics import store_word
from shrivenq.shm.layout import Layout, Region
from shrivenq.stages import control, stage
from shrivenq.stages import messages as m
from shrivenq.stages.live import source
from tests.pipeline.pipeline_rig import assembled, publish, tables

NAME = "test-inspection"


@pytest.fixture(autouse=True)
def state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path))


@pytest.fixture
def run():
    with assembled(NAME) as made:
        yield made


# ── attach ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_finds_a_run_by_name(run):
    found = inspection.attach(NAME)
    assert (found.name, found.run) == (NAME, run.run)


@pytest.mark.parametrize("name", ["no-such-name", "*", "test-inspectio?", "test-inspection.*", "..", "/"])
def test_a_name_is_no_pattern(run, name):
    with pytest.raises(InspectionError, match=r"not running; running: .*test-inspection"):
        inspection.attach(name)


def test_the_only_one_needs_no_name(run, monkeypatch):
    monkeypatch.setattr(inspection.kill, "running_names", lambda: [NAME])
    assert inspection.attach("").run == run.run
    monkeypatch.setattr(inspection.kill, "running_names", lambda: ["a", "b"])
    with pytest.raises(InspectionError, match=r"which name\? running: a, b$"):
        inspection.attach("")
    monkeypatch.setattr(inspection.kill, "running_names", list)
    with pytest.raises(InspectionError, match=r"which name\? running: none$"):
        inspection.attach("")


def test_a_segment_of_another_layout_is_refused():
    made = segment.create(f"{segment.PREFIX}{NAME}.0.control", Layout("other", (Region("x", np.dtype("<i8"), 1),)))
    try:
        with pytest.raises(InspectionError, match="layout other"):
            inspection.attach(NAME)
    finally:
        made.unlink()
        made.close()


def test_of_several_runs_the_newest_that_lives_is_looked_at(run):
    # Named so that the order of names says nothing.
    left = [segment.create(f"{segment.PREFIX}{NAME}.{part}.control", topology.CONTROL) for part in ("0dead", "zdead")]
    header = left[1].header
    try:
        assert inspection.attach(NAME).run == "zdead"
        for one in left:
            one.header["creator_start"] -= 1  # another process had this pid
        assert inspection.attach(NAME).run == run.run
        header["magic"] = b"nothing"
        assert inspection.attach(NAME).run == run.run
    finally:
        for one in left:
            one.unlink()
            one.close()


def test_the_newest_epoch_of_a_part_counts(run):
    for _ in range(11):
        run._add("tick", ring.ring_layout(m.TICK, 2))
    for part in [key for key in run.epochs if key == "tick"]:
        assert run.epochs[part] == 12
    try:
        assert inspection.attach(NAME).part("tick").epoch == 12
        assert inspection.attach(NAME).part("order").epoch == 1  # and `orders` is another part
        with pytest.raises(InspectionError, match="no such segment"):
            inspection.attach(NAME).part("nope")
    finally:
        for name in segment.names(f"{NAME}.{run.run}.tick"):
            segment.unlink(name)


# ── status ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_status_says_what_the_words_say(run):
    state.write_armed(NAME, "tested")
    store_word(run.control("kill"), control.OPERATOR, 5 << control.GENERATION_SHIFT | control.CANCEL)
    store_word(run.control("hold"), control.HOLD, control.FEED_STALE | control.STOPPING)
    store_word(run.control("instrument_hold"), 1, control.NOT_TRADING | control.OTHER_RULES)
    page = run.control("loop.risk")
    page[stage.PID], page[stage.STATE], page[stage.TURNS], page[stage.WORK] = os.getpid(), stage.RUNNING, 11, 7
    run.control("loop.gateway")[stage.FAULT] = stage.FAULT_RING_FULL
    publish(run, "order", np.zeros(3, m.ORDER))
    found = inspection.status(inspection.attach(NAME))
    assert (found["name"], found["run"], found["kill"], found["supervisor_alive"]) == (NAME, run.run, "cancel", True)
    assert found["armed"].endswith(": tested")
    assert found["holds"] == ["feed_stale", "stopping"]
    assert found["held_alone"] == ["ETHUSDT: not_trading", "ETHUSDT: other_rules"]
    stages = {row["stage"]: row for row in found["stages"]}
    assert list(stages) == list(topology.STAGES)
    assert (stages["risk"]["state"], stages["risk"]["alive"], stages["risk"]["messages"]) == ("running", True, 7)
    assert (stages["gateway"]["fault"], stages["gateway"]["alive"]) == ("ring_full", False)
    rings = {row["ring"]: row for row in found["rings"]}
    assert (rings["order"]["published"], rings["order"]["waiting"]) == (3, 3)
    assert (rings["order"]["from"], rings["order"]["to"]) == ("risk", "gateway")
    assert rings["tick"]["waiting"] == 0
    assert {row["name"] for row in found["memory"]} == set(segment.names(f"{NAME}.{run.run}."))
    json.dumps(found)


def test_status_tells_how_live_market_data_is():
    found = tables()
    made = Assembly.create(NAME, "fed", found.instruments, found.currencies, virtual=False, fused=False, live=True)
    try:
        running = inspection.attach(NAME)
        side = made.control("rest")
        shown = inspection.status(running)["market_data"]
        assert shown["connected"] == "no"
        assert "venue_clock_ahead_ms" not in shown, "nothing is known of it yet"
        side[rest.VENUE_OFFSET_NS], side[rest.VENUE_ERROR_NS], side[rest.SNAPSHOTS] = -1_500_000, 250_000, 7
        live = made.control("live")
        live[source.OPEN], live[source.LOSSES], live[source.CLOCK] = 1, 3, 1
        made.control("loop.market_data")[stage.FRAMES] = 9
        shown = inspection.status(running)["market_data"]
        assert (shown["connected"], shown["losses"], shown["snapshots"], shown["frames"]) == ("yes", 3, 7, 9)
        assert (shown["venue_clock_ahead_ms"], shown["venue_clock_error_ms"]) == (-1.5, 0.25)
        assert shown["receive_clock"] == "CLOCK_REALTIME"
        json.dumps(shown)
    finally:
        made.unlink()


def test_status_of_a_live_pipeline_names_the_venue_it_has(run):
    run.control("loop.live_venue")[stage.PID] = os.getpid()
    found = inspection.status(inspection.attach(NAME))
    assert [row["stage"] for row in found["stages"]] == list(topology.LIVE_STAGES)
    rings = {row["ring"]: (row["from"], row["to"]) for row in found["rings"]}
    assert (rings["to_venue"], rings["from_venue"]) == (("gateway", "live_venue"), ("live_venue", "gateway"))


def test_status_of_a_pipeline_that_goes_meanwhile_is_one_line(run):
    found = inspection.attach(NAME)
    run.segments["book"].unlink()
    with pytest.raises(InspectionError, match="book: no such segment"):
        inspection.status(found)


# ── segments ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_segment_is_described_from_its_header(run):
    name = run.segments["touch"].name
    for spelled in (name, "/" + name):
        (found,) = inspection.segments(spelled)
        assert (found["segment"], found["kind"], found["epoch"]) == (name, "ring", 1)
        assert (found["creator_pid"], found["creator_alive"]) == (os.getpid(), True)
        assert [one["name"] for one in found["regions"]] == ["producer", "consumer", "slots"]
        assert "bid_price" in found["regions"][2]["fields"]
    with pytest.raises(InspectionError, match="no such segment"):
        inspection.segments("shrivenq.nope")


def test_all_segments_and_what_is_wrong_with_one(run):
    damaged = segment.FOLDER / f"{segment.PREFIX}{NAME}.damaged"
    damaged.write_bytes(b"rubbish")
    try:
        found = {row["segment"]: row for row in inspection.segments("")}
    finally:
        damaged.unlink()
    assert "shorter than a header" in found[damaged.name]["problem"]
    assert set(segment.names(f"{NAME}.{run.run}.")) < set(found)
    text = "\n".join(inspection.lines(list(found.values())))
    assert "shorter than a header" in text
    assert "byte_ring" in text


# ── tap ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def tapped(run, monkeypatch, name, batches, limit=0):
    """Tap a ring; whenever the tap waits the next batch is published, and after the last the pipeline is gone."""
    found = inspection.attach(NAME)
    waiting = iter(batches)

    def publish_next(_seconds):
        batch = next(waiting, None)
        if batch is None:
            found.control.creator_alive = lambda: False
        else:
            publish(run, name, batch)

    monkeypatch.setattr(inspection, "time", SimpleNamespace(sleep=publish_next))
    return list(inspection.tap(found, name, limit))


def rows(first, count):
    made = np.zeros(count, m.INTENT)
    made["sequence"] = range(first, first + count)
    return made


def test_tap_follows_from_now_on_and_ends_with_the_pipeline(run, monkeypatch):
    publish(run, "intent", rows(0, 5))
    found = tapped(run, monkeypatch, "intent", [rows(5, 3), rows(8, 1)])
    assert [row["sequence"] for row in found] == [5, 6, 7, 8]
    assert list(found[0]) == list(m.INTENT.names)
    json.dumps(found)


def test_tap_ends_at_its_limit(run, monkeypatch):
    found = tapped(run, monkeypatch, "intent", [rows(0, 30)], limit=4)
    assert [row["sequence"] for row in found] == [0, 1, 2, 3]


def test_tap_counts_what_was_lost_to_lapping(run, monkeypatch):
    count = topology.RING["intent"].count
    sizes = (10, count - 1, 3, 2 * count + 5, 1)
    firsts = itertools.accumulate(sizes, initial=0)
    found = tapped(run, monkeypatch, "intent", [rows(first, size) for first, size in zip(firsts, sizes, strict=False)])
    seen = [row["sequence"] for row in found if "lost" not in row]
    lost = sum(row.get("lost", 0) for row in found)
    assert seen == sorted(set(seen))
    assert seen[-1] == sum(sizes) - 1
    assert lost >= count + 5
    assert len(seen) + lost == sum(sizes)


def test_tap_of_no_ring_is_one_line(run):
    with pytest.raises(InspectionError, match=r"^tap nope: no such ring; expected one of tick, book, "):
        next(inspection.tap(inspection.attach(NAME), "nope", 0))


# ── arm ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_arm_lifts_both_words_and_begins_a_new_generation(run):
    words = run.control("kill")
    store_word(words, control.OPERATOR, 5 << control.GENERATION_SHIFT | control.CANCEL)
    store_word(words, control.MACHINE, control.FLATTEN)
    assert inspection.arm(NAME, "looked at it") == f"{NAME}: armed: looked at it"
    assert int(control.kill_level(words)) == control.ARMED
    assert int(words[control.OPERATOR]) >> control.GENERATION_SHIFT == 6
    assert int(words[control.MACHINE]) >> control.GENERATION_SHIFT == 1
    assert (state.armed(NAME) or "").endswith(": looked at it")


def test_arm_of_a_name_that_does_not_run_is_for_its_next_start():
    state.make_folder("resting")
    assert inspection.arm("resting", "why") == "resting: armed for its next start: why"
    assert state.armed("resting") is not None


def test_arm_of_a_live_name_waits_until_it_runs():
    state.make_folder("resting")
    state.write_killed("resting", "halt", "a test")
    (state.folder("resting") / state.LIVE).touch()
    with pytest.raises(InspectionError, match="resting: not running: a live run begins killed, arm it once it runs"):
        inspection.arm("resting", "why")
    assert state.armed("resting") is None


@pytest.mark.parametrize("name", ["no-such-name", "*", "test-*", "..", "../..", ".", ""])
def test_arm_of_what_is_no_name_arms_nothing(run, name, tmp_path):
    store_word(run.control("kill"), control.OPERATOR, control.HALT)
    with pytest.raises(InspectionError):
        inspection.arm(name, "why")
    assert int(control.kill_level(run.control("kill"))) == control.HALT
    assert not list(tmp_path.rglob("armed"))


def test_arm_gives_way_to_a_kill_raised_meanwhile(run, monkeypatch):
    words = run.control("kill")

    def too_late(kill, word, old, new):
        store_word(words, control.OPERATOR, control.CANCEL)
        return control.CANCEL

    monkeypatch.setattr(inspection, "exchange_word", too_late)
    with pytest.raises(InspectionError, match="the kill was raised meanwhile; look, and arm again"):
        inspection.arm(NAME, "why")
    assert state.armed(NAME) is None


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_are_plain_and_aligned():
    found = {
        "name": "x",
        "pid": 1234567,
        "messages": 1234567,
        "holds": ["a", "b"],
        "none": [],
        "alive": True,
        "nested": {"deep": 1},
        "rows": [{"stage": "book", "pid": 12345, "turns": 10000, "more": [1]}, {"stage": "risk", "problem": "gone"}],
    }
    assert list(inspection.lines(found)) == [
        "name: x",
        "pid: 1234567",
        "messages: 1,234,567",
        "holds: a, b",
        "none: none",
        "alive: True",
        "nested:",
        "  deep: 1",
        "rows:",
        "  stage  pid    turns   problem",
        "  book   12345  10,000",
        "  risk                  gone",
    ]
