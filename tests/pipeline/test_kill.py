from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from shrivenq.pipeline import inspection, kill, processes, state, topology, venue_cancel
from shrivenq.shm import layout, segment
from shrivenq.shm.atomics import store_word
from shrivenq.stages import control, stage

NAME = "test-kill"


@pytest.fixture(autouse=True)
def state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path))


@pytest.fixture
def running():
    """A control segment without a pipeline behind it."""
    made = segment.create(f"{segment.PREFIX}{NAME}.0.control", topology.CONTROL)
    yield made
    made.unlink()
    made.close()


def answer(held: segment.Segment, names: tuple[str, ...]) -> processes.Process:
    """Start a process that does what risk and gateway do: say which level they act on."""

    def serve() -> int:
        kill_words = held.array("kill")
        pages = [held.array(f"loop.{name}", writable=True) for name in names]
        for page in pages:
            page[stage.PID] = os.getpid()
        until = time.monotonic() + 20
        while time.monotonic() < until:
            level = control.kill_level(kill_words)
            for page in pages:
                page[stage.KILL_SEEN_NS] = time.monotonic_ns()
                store_word(page, stage.KILL_SEEN, level + 1)
        return 0

    control.kill_level(held.array("kill"))  # compiled before the fork
    child = processes.start("gateway", serve)
    pages = [held.array(f"loop.{name}") for name in names]
    deadline = time.monotonic() + 20
    while any(page[stage.KILL_SEEN] == 0 for page in pages):
        assert time.monotonic() < deadline
    return child


def test_the_offsets_it_knows_by_heart_are_those_of_the_schema():
    fields = layout.HEADER.fields
    assert fields["words_size"][1] == kill.WORDS_SIZE
    assert fields["words"][1] == kill.WORDS
    assert layout.HEADER_SIZE == kill.HEADER_SIZE
    assert layout.PAGE == kill.PAGE
    assert control.OPERATOR * 8 == kill.OPERATOR
    assert control.LEVELS == kill.LEVELS
    assert (control.HOLD * 8, control.RECONCILING) == (kill.HOLD, kill.RECONCILING)
    assert [stage.PID * 8, stage.KILL_SEEN * 8, stage.KILL_SEEN_NS * 8] == [kill.PID, kill.KILL_SEEN, kill.KILL_SEEN_NS]


@pytest.mark.parametrize("level", ["halt", "cancel", "flatten"])
def test_raises_the_word_and_reports_who_confirmed(running, capsys, level):
    child = answer(running, ("risk", "gateway"))
    try:
        assert kill.main([level, NAME, "--json"]) == 0
    finally:
        child.send(signal.SIGKILL)
        child.wait(10)
    found = json.loads(capsys.readouterr().out)
    assert found["level"] == level
    assert sorted((one["by"], one["confirmed"]) for one in found["confirmed"]) == [("gateway", True), ("risk", True)]
    assert control.LEVELS[int(control.kill_level(running.array("kill")))] == level
    assert state.armed(NAME) is None


def test_kills_a_gateway_that_does_not_answer_and_says_so(running, capsys):
    child = answer(running, ("risk", "gateway"))
    child.send(signal.SIGSTOP)
    try:
        assert kill.main(["cancel", NAME]) == 3
        assert child.wait(10)
        assert child.status == -signal.SIGKILL
    finally:
        child.send(signal.SIGKILL)
    printed = capsys.readouterr().out
    assert "gateway did not answer in 50 ms and was killed" in printed
    assert "NOT confirmed by risk" in printed


def test_never_signals_a_stranger_whose_pid_is_named(running):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        running.array("loop.gateway", writable=True)[stage.PID] = stranger.pid
        assert kill.main(["halt", NAME]) == 3
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_never_lowers_a_level_and_keeps_the_generation(running, capsys):
    running.array("kill", writable=True)[control.OPERATOR] = 5 << control.GENERATION_SHIFT | control.FLATTEN
    kill.main(["halt", NAME])
    capsys.readouterr()
    assert running.array("kill")[control.OPERATOR] == 5 << control.GENERATION_SHIFT | control.FLATTEN


@pytest.mark.parametrize(
    ("names", "hold", "lives"),
    [
        (("risk", "gateway"), 0, True),
        (("risk", "gateway"), control.RECONCILING, False),
        (("gateway",), 0, False),
    ],
)
def test_only_a_pipeline_that_confirms_and_follows_its_account_does_it_itself(running, monkeypatch, names, hold, lives):
    folder = state.make_folder(NAME)
    (folder / "venue.json").touch()
    found = []
    monkeypatch.setattr(venue_cancel, "clear", lambda _, lives, **__: found.append(lives) or [])
    running.array("hold", writable=True)[control.HOLD] = hold
    child = answer(running, names)
    try:
        kill.main(["cancel", NAME])
    finally:
        child.send(signal.SIGKILL)
        child.wait(10)
    assert found == [lives]


def test_a_name_that_does_not_run_starts_killed(capsys):
    state.write_armed(NAME, "ready")
    assert kill.main(["halt", NAME, "--reason", "not today"]) == 0
    assert "not running" in capsys.readouterr().out
    assert "not today" in (state.folder(NAME) / "armed").read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "Usage"),
        (["stop"], "level stop: expected halt, cancel or flatten"),
        (["halt", "a", "b"], "b: unexpected"),
        (["halt", "--now"], "--now: unknown option"),
        (["halt"], "which name\\?"),
        (["halt", "test-no-such"], "no such name"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys, arguments, line):
    # A pipeline of the machine's user must never feel this test.
    monkeypatch.setattr(kill, "running_names", list)
    assert kill.main(arguments) == 2
    captured = capsys.readouterr()
    assert re.search(line, captured.out + captured.err)


def test_a_damaged_control_segment_is_reported_and_the_name_stays_killed(running, capsys):
    descriptor = os.open(f"/dev/shm/{running.name}", os.O_RDWR)  # noqa: S108
    os.pwrite(descriptor, b"rubbish!" * 8, kill.WORDS)
    os.close(descriptor)
    assert kill.main(["halt", NAME]) == 3
    assert "control" in capsys.readouterr().err
    assert state.armed(NAME) is None


def test_loads_nothing_heavy():
    script = (
        "import sys; sys.argv = ['shrivenq', 'kill', '--help']\n"
        "from shrivenq.pipeline.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in ('numpy', 'numba', 'msgspec', 'typer', 'structlog') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_arm_lifts_both_words_and_begins_a_generation(running):
    words = running.array("kill", writable=True)
    words[control.OPERATOR] = 1 << control.GENERATION_SHIFT | control.HALT
    control.raise_kill(words, control.CANCEL)
    inspection.arm(NAME, "looked at it")
    assert words[control.OPERATOR] == 2 << control.GENERATION_SHIFT
    assert words[control.MACHINE] == 1 << control.GENERATION_SHIFT
    assert (state.armed(NAME) or "").endswith("looked at it")


def test_arm_refuses_an_unknown_name():
    with pytest.raises(inspection.InspectionError, match="no such name"):
        inspection.arm("test-no-such", "why")
