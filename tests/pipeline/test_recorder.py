"""The recorder: what came in is read back identically, and what is missing is said."""

from __future__ import annotations

import os
import random
import signal
import uuid

import numpy as np
import pytest
import zstandard

from shrivenq.pipeline import placement, recorder, topology
from shrivenq.pipeline.recorder import Recording
from shrivenq.pipeline.state import folder as state_folder
from shrivenq.shm import byte_ring, segment
from shrivenq.stages import market_data, stage
from shrivenq.stages import messages as m
from shrivenq.stages.capture import Capture
from shrivenq.stages.frames import CLOCKS, COUNT, ENDED, LOST, TEXT, make_frames
from tests.pipeline.command_rig import children_of, command, configured, stopped, until
from tests.stages.market_rig import REFUSED, SLOW, Log, Rig, Source, check_stream, joined, trade, without_stamps

T0 = 1_700_000_000_000_000_000
HOUR = 3_600_000_000_000
NAME = "test-recorder"


@pytest.fixture
def raw():
    """Make byte rings by size, (segment's producer, consumer)."""
    made = []

    def make(size=1 << 22):
        made.append(byte_ring.create(f"{segment.PREFIX}test-recorder-{uuid.uuid4().hex[:12]}", size))
        return byte_ring.producer(made[-1]), byte_ring.consumer(made[-1])

    yield make
    for one in made:
        one.close()
        one.unlink()


class NoArrivals:
    """A log of arrivals of which nobody notes any."""

    def drain(self):
        return 0

    def flush(self):
        pass

    def close(self):
        pass


def read(path):
    """Every frame of a capture, (time, payload), payload None for LOST."""
    capture, frames, found = Capture(path), make_frames(1 << 23, 1000), []
    while not frames.words[ENDED]:
        capture.fill(frames)
        for frame in frames.index[: frames.words[COUNT]]:
            start, length = int(frame["offset"]), int(frame["length"])
            payload = frames.data[start : start + length].tobytes()
            found.append((int(frame["time_ns"]), None if frame["flags"] & LOST else payload))
    return found


def replayed(path):
    """TICKs of a replay in lock-step."""
    rig = Rig(None, virtual=True, config=market_data.Config(source="capture", path=str(path)))
    rows = []
    try:
        while not rig.loop[stage.FINISHED]:
            rig.step()
            rows.append(rig.take())
    finally:
        rig.close()
    return joined(rows)


def session(rig, ends, recording, steps=None):
    """Run a stage that is recorded, to its end or so many steps; returns its TICKs."""
    rows = []
    while not rig.loop[stage.FINISHED] and (steps is None or len(rows) < steps):
        rig.step()
        rows.append(rig.take())
        recording.add(byte_ring.drain(ends))
    rows += [rig.take(), rig.take()]
    recording.close()
    rig.close()
    return joined(rows)


def test_a_session_on_the_simulated_market_replays_to_the_same_ticks(raw, tmp_path):
    producer, consumer = raw()
    rig = Rig(None, virtual=True, raw=producer)
    ticks = session(rig, consumer, Recording(tmp_path, "paper", Log()), steps=5000)
    assert int((ticks["kind"] == m.END).sum()) > 4000
    again = replayed(tmp_path)
    check_stream(again)
    assert without_stamps(again).tobytes() == without_stamps(ticks).tobytes()


def test_a_live_session_replays_with_the_times_its_stages_reasoned_with(raw, tmp_path):
    producer, consumer = raw()
    payloads = [trade(1), REFUSED, None, SLOW, *(trade(i) for i in range(2, 200))]
    rig = Rig(Source([(T0, one) for one in payloads]), virtual=False, raw=producer)
    rig.set_clock(T0 + HOUR)
    ticks = session(rig, consumer, Recording(tmp_path, "paper", Log()))
    assert len(set(ticks["time_ns"].tolist())) > 100, "the clock went on"
    assert [payload for _, payload in read(tmp_path)] == payloads, "what was refused is recorded too"
    assert without_stamps(replayed(tmp_path)).tobytes() == without_stamps(ticks).tobytes()


class Stamped(Source):
    """Frames that a network card has stamped, every other one."""

    def fill(self, frames):
        super().fill(frames)
        frames.index["raw_ns"][::2], frames.index["clock"][::2] = 5, CLOCKS.index("hardware")


def test_raw_receive_stamps_are_kept_with_the_name_of_their_clock(raw, tmp_path):
    producer, consumer = raw()
    frames = [(T0 + number, trade(number)) for number in range(1, 5)]
    session(Rig(Stamped(frames, batch=4), virtual=True, raw=producer), consumer, Recording(tmp_path, "paper", Log()))
    (path,) = tmp_path.iterdir()
    text = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read()
    stamps = (b"@hardware:5", b"") * 2
    assert text == b"".join(b"%d%s %s\n" % (at, one, said) for (at, said), one in zip(frames, stamps, strict=True))
    assert read(tmp_path) == frames


@pytest.mark.parametrize("seed", range(4))
def test_a_recorder_that_falls_behind_is_told_so_where_frames_are_missing(raw, tmp_path, seed):
    rng = random.Random(seed)
    producer, consumer = raw(1 << 12)
    frames = [(T0 + i, trade(i) + b" " * rng.randrange(900)) for i in range(1, 400)]
    rig, log = Rig(Source(frames), virtual=True, raw=producer), Log()
    recording = Recording(tmp_path, "paper", log)
    missing, expected = set(), []
    while not rig.loop[stage.FINISHED]:
        before = int(rig.loop[stage.UNRECORDED])
        rig.step()
        rig.take()
        if int(rig.loop[stage.UNRECORDED]) > before:
            missing.add(int(rig.loop[stage.FRAMES]))
        if rng.random() < 0.1:
            recording.add(byte_ring.drain(consumer))
    recording.add(byte_ring.drain(consumer))
    recording.tell_lost(int(rig.loop[stage.UNRECORDED]), recording.last_ns)
    recording.close()
    rig.close()
    # The slow twin: every frame that is there, and one LOST for each run of those that are not.
    for number, (time_ns, payload) in enumerate(frames, 1):
        if number not in missing:
            expected.append((time_ns, payload))
        elif number - 1 not in missing:
            expected.append(None)
    found = [one if one[1] is not None else None for one in read(tmp_path)]
    assert missing, f"seed {seed}: the ring was never full"
    assert found == expected, f"seed {seed}"
    assert sum(fields["missing"] for _, fields in log.lines) == len(missing)
    assert {event for event, _ in log.lines} == {"recording incomplete"}


def records(first, count, size=2000):
    rng = random.Random(first)
    return [(TEXT, T0 + first + i, rng.randbytes(size).hex().encode()) for i in range(count)]


def test_files_are_rotated_and_read_in_order(tmp_path):
    recording = Recording(tmp_path, "paper", Log(), file_bytes=50_000)
    given = records(1, 200)
    for one in given:
        recording.add([one])
        recording.flush()
    recording.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"paper-{number:04}.zst" for number in range(1, len(names) + 1)]
    assert len(names) > 5
    assert read(tmp_path) == [(time_ns, payload) for _, time_ns, payload in given]


def test_a_folder_that_is_recorded_to_again_says_that_something_is_missing_between(tmp_path):
    for first in (1, 1000):
        recording = Recording(tmp_path, "paper", Log())
        recording.add(records(first, 2))
        recording.close()
    first, second = records(1, 2), records(1000, 2)
    assert read(tmp_path) == [
        *((time_ns, payload) for _, time_ns, payload in first),
        (T0 + 1000, None),
        *((time_ns, payload) for _, time_ns, payload in second),
    ]


def test_what_was_flushed_is_readable_while_the_recorder_runs(tmp_path, monkeypatch):
    recording = Recording(tmp_path, "paper", Log())
    recording.add(records(1, 3))
    recording.flush_if_due()
    assert not list(tmp_path.iterdir()), "it waits for more"
    monkeypatch.setattr(recorder, "CHUNK_S", 0.0)
    recording.flush_if_due()
    assert len(read(tmp_path)) == 3
    recording.add(records(10, 300, size=4000))
    assert len(read(tmp_path)) == 303, "a whole chunk does not wait"
    recording.close()


def test_nothing_recorded_leaves_no_file(tmp_path):
    Recording(tmp_path, "paper", Log()).close()
    assert not list(tmp_path.iterdir())


def test_the_process_takes_all_and_ends_when_the_stages_are_done(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "apply_side", list)
    producer, consumer = raw()
    for kind, time_ns, payload in records(1, 5):
        assert byte_ring.append(producer, kind, np.frombuffer(payload, np.uint8), 0, len(payload), time_ns)
    page, words = np.zeros(512, np.int64), np.zeros(512, np.int64)
    page[stage.UNRECORDED] = 7
    words[topology.STOP] = topology.STOP_JOURNAL
    log = Log()
    assert recorder.main(Recording(tmp_path, "paper", log), NoArrivals(), consumer, page, words) == 0
    assert read(tmp_path) == [*((time_ns, payload) for _, time_ns, payload in records(1, 5)), (T0 + 5, None)]
    assert log.lines == [("recording incomplete", {"missing": 7, "missing_in_all": 7})]


def test_a_file_that_cannot_be_written_ends_the_recording_with_one_line(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "apply_side", list)
    producer, consumer = raw()
    assert byte_ring.append(producer, TEXT, np.zeros(4, np.uint8), 0, 4, T0)
    words = np.zeros(512, np.int64)
    words[topology.STOP] = topology.STOP_JOURNAL
    log = Log()
    recording = Recording(tmp_path / "gone", "paper", log)
    recording.folder.rmdir()
    assert recorder.main(recording, NoArrivals(), consumer, np.zeros(512, np.int64), words) == 1
    assert [event for event, _ in log.lines] == ["recording ended"]


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """`shrivenq record` on the simulated market in a process of its own, and the folder it records to."""
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))
    path, folder = configured(tmp_path / "test.toml", NAME), tmp_path / "recording"
    with command(NAME, "record", path, "--path", folder, "--placement", "fused") as process:
        yield process, folder


@pytest.mark.slow
def test_record_is_run_and_a_recording_of_it(recorded):
    process, folder = recorded
    until(lambda: list(folder.glob("*.zst")), process)
    stopped(process, NAME)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.zst")) == [
        f"arrivals/{NAME}-0001.zst",
        f"{NAME}-0001.zst",
    ]
    found = read(folder)
    assert found
    assert all(b'"stream":"' in (payload or b"") for _, payload in found)
    ticks = replayed(folder)
    check_stream(ticks)
    # This rig trades one of the two instruments; each of its frames is one event.
    assert int((ticks["kind"] == m.END).sum()) == sum(b'"btcusdt@' in payload for _, payload in found)


@pytest.mark.slow
def test_the_death_of_the_recorder_is_told_and_stops_nothing(recorded):
    process, folder = recorded
    # A chunk is written whole, after a second or a megabyte: wait for the first one.
    until(lambda: any(path.stat().st_size for path in folder.glob("*.zst")), process)
    os.kill(children_of(process.pid)["sq-recorder"], signal.SIGKILL)
    log = state_folder(NAME) / "log.jsonl"
    until(lambda: "recorder died" in log.read_text(), process)
    assert "stage died" not in log.read_text()
    stopped(process, NAME)
    assert read(folder), "what was written before is readable"
