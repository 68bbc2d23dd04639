"""A recorded run done again gives the same orders; a log that was tampered with does not."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest
import structlog
import zstandard

from shrivenq.pipeline import arrival_log, reproduce, state
from shrivenq.shm import ring, segment
from shrivenq.shm.atomics import load_word
from shrivenq.stages import arrivals, control, journal_file, stage
from shrivenq.stages import messages as m
from shrivenq.stages.journal import ORDER_SENT
from tests.pipeline.command_rig import MAIN, armed, command, configured, stopped, until

NAME = "test-reproduce"
ENOUGH = 300

pytestmark = pytest.mark.slow


def sent(running):
    return int(load_word(running.part("to_venue").array("producer"), ring.HEAD))


def say(*arguments):
    done = subprocess.run([*MAIN, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def record(folder, placement, *, interrupted):
    """Record a run until it has sent enough orders; on the way it is killed, and armed again."""
    path = configured(folder / "test.toml", NAME, lambda text: text.replace("timer_ms = 0.0", "timer_ms = 3.0"))
    with command(NAME, "record", path, "--path", folder / "recording", "--placement", placement) as process:
        running = until(lambda: armed(NAME), process)
        until(lambda: sent(running) > ENOUGH, process)
        if interrupted:
            control.raise_kill(running.part("control").array("kill", writable=True), control.CANCEL)
            until(lambda: running.words("loop.risk")[stage.KILL_SEEN] == control.CANCEL + 1, process)
            say("arm", NAME, "--reason", "to go on")
            before = sent(running)
            until(lambda: sent(running) > before + ENOUGH, process)
        stopped(process, NAME)
    return folder / "recording" / "arrivals" / f"{NAME}-0001.zst"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("reproduce")
    before = os.environ.get("SHRIVENQ_STATE")
    os.environ["SHRIVENQ_STATE"] = str(made / "state")
    yield made
    if before is None:
        del os.environ["SHRIVENQ_STATE"]
    else:
        os.environ["SHRIVENQ_STATE"] = before


@pytest.fixture(scope="module")
def log(folder):
    """One run in split placement, recorded."""
    return record(folder, "split", interrupted=True)


def again(path, journal=None):
    found = reproduce.reproduce(path, journal_path=journal, progress=lambda _: None, log=structlog.get_logger())
    assert not segment.names(f"{NAME}.")
    return found


def tampered(log, folder, change):
    """Copy a log whose header and rows `change` has changed; the recording it goes with is the same."""
    header, steps = arrival_log.read(log)
    steps = {name: rows.copy() for name, rows in steps.items()}
    header = change(header, steps) or header
    content = [msgspec.json.encode(header)]
    for name, rows in steps.items():
        content.append(arrival_log.BLOCK.pack(arrivals.STAGES.index(name), len(rows)) + rows.tobytes())
    copy = folder / "arrivals" / log.name
    copy.parent.mkdir()
    copy.write_bytes(b"".join(zstandard.compress(one) for one in content))
    for file in log.parent.parent.glob("*.zst"):
        (folder / file.name).symlink_to(file)
    return copy


def test_a_run_is_done_again_exactly(log):
    steps = arrival_log.read(log)[1]
    assert (steps["market_data"]["kind"] == arrivals.TIMER).sum() > 10
    assert set(steps["risk"]["level"]) >= {control.ARMED, control.CANCEL}
    found = again(log)
    assert (found.difference, found.unfinished) == ("", "")
    orders = journal_file.read_journal(state.folder(NAME) / "journal").rows(ORDER_SENT)
    assert found.orders == len(orders) > ENOUGH
    assert found.digest == found.digest_again == journal_file.digest_orders(orders)
    assert (orders["flags"] & m.FORCED).any(), "the kill cancelled something"


def test_a_second_run_begins_with_what_the_first_left(folder, log):
    recording = log.parent.parent
    files = set(recording.glob("*.zst"))
    with command(NAME, "record", folder / "test.toml", "--path", recording, "--placement", "fused") as process:
        running = until(lambda: armed(NAME), process)
        until(lambda: sent(running) > ENOUGH, process)
        stopped(process, NAME)
    number = min(int(one.stem[-4:]) for one in set(recording.glob("*.zst")) - files)
    second = arrival_log.path_of(recording, NAME, number)
    assert arrival_log.read(second)[0].continues
    assert [one.header.epoch for one in (reproduce.read_run(log, None), reproduce.read_run(second, None))] == [1, 2]
    assert again(second).identical
    assert again(log).identical
    printed = json.loads(say("reproduce", str(second), "--json"))
    assert printed["identical"] is True
    assert printed["orders"] > ENOUGH


def test_another_time_gives_other_orders(log, tmp_path):
    def later(_, steps):
        steps["risk"]["time_ns"] += 1

    found = again(tampered(log, tmp_path, later))
    assert not found.identical
    assert "time_ns was" in found.difference
    assert found.digest != found.digest_again


def test_a_message_too_few_is_seen(log, tmp_path):
    def fewer(_, steps):
        # From here on each intent reaches risk a step later than it did, at another time.
        busy = np.flatnonzero(steps["risk"]["third"])
        steps["risk"]["third"][busy[len(busy) // 2]] -= 1

    assert not again(tampered(log, tmp_path, fewer)).identical


@pytest.mark.parametrize("name", ["market_data", "signal", "risk"])
def test_an_incomplete_log_or_recording_ends_there_and_says_so(log, tmp_path, name):
    kind = arrivals.UNRECORDED if name == "market_data" else arrivals.INCOMPLETE

    def broken(_, steps):
        rows = steps[name]
        steps[name] = rows[: len(rows) // 2 + 1]
        steps[name]["kind"][-1] = kind

    found = again(tampered(log, tmp_path, broken))
    assert ("lacks frame" if name == "market_data" else f"the log of {name} is incomplete") in found.unfinished
    assert not found.identical


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"instruments": b"0"}, "its instruments are not those of this version"),
        ({"run": "another"}, "does not hold run another"),
    ],
)
def test_what_does_not_belong_together_is_refused(log, tmp_path, change, said):
    path = tampered(log, tmp_path, lambda header, _: msgspec.structs.replace(header, **change))
    with pytest.raises(arrival_log.LogError, match=said):
        again(path)


def test_mistakes_on_the_command_line_are_one_line_each(log, tmp_path):
    lonely = tmp_path / "arrivals" / log.name
    lonely.parent.mkdir()
    lonely.write_bytes(log.read_bytes())
    for path, said in ((tmp_path / "none", "cannot be read"), (lonely, "no recording"), (Path(__file__), "no log of")):
        done = subprocess.run([*MAIN, "reproduce", path], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
