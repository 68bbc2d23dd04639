"""The command line: what it prints, and that every mistake is one clear line and the right exit code."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrivenq.pipeline import cli, state
from shrivenq.pipeline.config import SHIPPED
from shrivenq.shm import segment
from shrivenq.stages import control
from tests.pipeline.pipeline_rig import START_NS, assembled, capture_lines

COMMAND = [sys.executable, "-c", "from shrivenq.pipeline.main import main; main()"]
NAME = "test-cli"
DEFAULT = (SHIPPED / "default.toml").read_text()
LIMIT = 'price_collar_bps = "100"'


@pytest.fixture(autouse=True)
def state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def call(*arguments):
    """Run a command within this process."""
    return CliRunner().invoke(cli.app, [str(one) for one in arguments])


def start(*arguments):
    """Run a command as a process of its own."""
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


def one_line(found, code, *words):
    """Assert that a command failed with one line that holds all `words`, and nothing else."""
    returned = getattr(found, "returncode", None)
    assert (found.exit_code if returned is None else returned) == code, found.stderr
    lines = found.stderr.splitlines()
    assert len(lines) == 1, found.stderr
    assert lines[0].startswith("shrivenq")
    assert not found.stdout
    for word in words:
        assert word in lines[0]


# ── what it says of itself ───────────────────────────────────────────────────────────────────────────────────────────

HELP = {
    "run": "Start the supervised pipeline",
    "replay": "Replay a capture through the pipeline, in virtual time",
    "reproduce": "Do a recorded run again, exactly, and compare the orders",
    "record": "Start the pipeline as `run` does, and record",
    "status": "Show stages, kill and hold, rings, orders and positions",
    "latency": "Show the latency of every hop",
    "tap": "Follow a ring",
    "inspect": "Say what shared-memory segments are",
    "arm": "Lift the kill",
    "exchange": "Run the exchange simulator, a network server that speaks Binance Spot",
    "doctor": "Look at this machine",
    "version": "Print the version",
    "config check": "Check a configuration file",
}


@pytest.mark.parametrize("command", HELP)
def test_every_command_says_what_it_does(command):
    found = call(*command.split(), "--help")
    assert found.exit_code == 0
    assert HELP[command] in " ".join(found.stdout.split())


def test_help_names_every_command():
    found = call("--help")
    assert found.exit_code == 0
    words = found.stdout.split()
    assert {name.split()[0] for name in HELP} <= set(words)
    assert "kill" in words
    listed = {one.name or one.callback.__name__ for one in cli.app.registered_commands}
    assert {name for name in HELP if " " not in name} == listed


def test_version():
    found = start("version")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == f"shrivenq {json.loads(call('version', '--json').stdout)['version']}\n"


def test_config_check():
    found = call("config", "check", "default")
    assert (found.exit_code, found.stdout) == (0, "default: good: default, paper, split, 2 instruments\n")


def test_doctor():
    findings = json.loads(call("doctor", "--json").stdout)
    assert findings
    assert len(call("doctor").stdout.splitlines()) >= len(findings)


# ── mistakes on the command line ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["frobnicate"], 2, ["No such command 'frobnicate'"]),
        (["status", "--frob"], 2, ["--frob"]),
        (["tap"], 2, ["Missing argument"]),
        (["tap", "book", "--limit", "many"], 2, ["Invalid value for", "--limit"]),
        (["kill", "halt", "a", "b"], 2, ["b: unexpected; expected LEVEL [NAME]"]),
        (["kill", "stop", "x"], 2, ["level stop: expected halt, cancel or flatten"]),
        (["config", "check", "nowhere.toml"], 2, ["nowhere.toml: no such file", "replay_spot"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_mistake_is_one_line(arguments, code, words):
    one_line(start(*arguments), code, *words)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tap", "nope"], 2, ["tap nope: no such ring; expected one of tick, book"]),
        (["status", "no-such-name"], 1, ["no-such-name: not running"]),
        (["latency", "no-such-name"], 1, ["no-such-name: not running"]),
        (["latency", "no-such-name", "--once"], 1, ["no-such-name: not running"]),
        (["tap", "book", "no-such-name"], 1, ["no-such-name: not running"]),
        (["inspect", "shrivenq.nope"], 1, ["shrivenq.nope: no such segment"]),
        (["arm", "no-such-name"], 2, ["--reason TEXT is required"]),
        (["arm", "no-such-name", "--reason", " "], 2, ["--reason TEXT is required"]),
        (["arm", "no-such-name", "--reason", "x"], 1, ["no-such-name: no such name"]),
        (["run", "nowhere"], 2, ["nowhere: no such file"]),
        (["run", "replay_spot"], 2, ['mode: found "replay", allowed: "paper"; `shrivenq replay` replays']),
        (["record", "replay_spot", "--path", "x"], 2, ['mode: found "replay", allowed: "paper"']),
        (["run", "--placement", "both"], 2, ['--placement: found "both"']),
        (["replay", "--pace", "nan"], 2, ['--pace: found "nan"']),
        (["replay", "--placement", "both"], 2, ['--placement: found "both"']),
        (["replay", "default"], 2, ["market_data.path: missing"]),
        (["replay", "--dump", "nope=x.csv"], 2, ["no ring nope; expected one of tick"]),
        (["replay", "--dump", "book"], 2, ["expected RING=FILE"]),
        (["replay", "--dump", "book=x.txt"], 2, [".csv or .jsonl"]),
        (["replay", "--dump", "book=nowhere/x.csv"], 2, ["nowhere/x.csv: cannot be written"]),
        (["replay", "--dump", "book=a.csv", "--dump", "book=b.csv"], 2, ["ring book is dumped already"]),
        (["replay", "--journal", "."], 2, ["--journal .: exists already"]),
        (["replay", "--journal", "nowhere/journal"], 1, ["nowhere/journal: No such file or directory"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_mistake_within_a_command_is_one_line(arguments, code, words):
    one_line(call(*arguments), code, *words)
    assert not segment.names("replay-spot.")


def test_no_command_shows_the_help():
    found = start()
    assert found.returncode == 2
    assert "Usage" in found.stdout + found.stderr
    assert "Traceback" not in found.stderr


def test_a_state_folder_that_cannot_be_made_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "file"))
    one_line(call("replay"), 1, "cannot make the state folder")
    one_line(call("run"), 1, "cannot make the state folder")


# ── mistakes in a configuration ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DEFAULT.replace("seed = 1", "sede = 1"), ["market_data.sede: unknown, allowed: source, path"]),
        (DEFAULT.replace(LIMIT, "", 1), ["risk.limits.BTCUSDT.price_collar_bps: missing"]),
        (DEFAULT.replace(LIMIT, 'price_collar_bps = "nan"', 1), ["risk.limits.BTCUSDT.price_collar_bps", '"nan"']),
        (DEFAULT.replace(LIMIT, "price_collar_bps = nan", 1), ["risk.limits.BTCUSDT.price_collar_bps", "nan"]),
        (DEFAULT.replace('name = "default"', 'name = "../x"'), ["name: "]),
        (DEFAULT.replace('mode = "paper"', 'mode = "dead"'), ["mode: found "]),
        ("rubbish", ["is not TOML"]),
    ],
    ids=["unknown key", "missing limit", "nan in quotes", "nan", "name", "mode", "no toml"],
)
def test_a_mistake_in_a_configuration_is_one_line(text, words):
    assert text != DEFAULT
    Path("mine.toml").write_text(text)
    for command in (["config", "check"], ["run"], ["replay"]):
        one_line(call(*command, "mine.toml"), 2, "mine.toml: ", *words)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({'key = ""': 'key = "file:nowhere"'}, "key file nowhere: cannot be read"),
        ({}, "market_data.binance.key: missing, allowed with encoding"),
        ({'key = ""': 'key = "file:k"', '"bestBidAsk"]': '"aggTrade"]'}, 'streams: found "aggTrade", allowed with'),
        ({'key = ""': 'key = "file:k"', '"bestBidAsk"]': '"depth20"]'}, "found depth and depth20, allowed: one kind"),
        ({'key = ""': 'key = "file:k"', '"sbe"': '"json"', '"bestBidAsk"]': '"bookTicker"]'}, "key: found one"),
        ({'"sbe"': '"SBE"'}, "market_data.binance.encoding: found"),
    ],
)
def test_a_run_on_sbe_that_cannot_be_is_one_line(changes, said):
    text = (SHIPPED / "simulator.toml").read_text()
    streams = {'streams = ["depth@100ms", "trade", "bookTicker"]': 'streams = ["depth", "trade", "bestBidAsk"]'}
    for old, new in ({'encoding = "json"': 'encoding = "sbe"'} | streams | changes).items():
        assert old in text
        text = text.replace(old, new)
    Path("mine.toml").write_text(text)
    one_line(call("run", "mine.toml"), 2, said)


def test_a_live_run_without_its_key_is_one_line():
    live = (SHIPPED / "live_simulator.toml").read_text()
    Path("mine.toml").write_text(live.replace("file:~/.config/shrivenq/simulator.key", "file:nowhere"))
    one_line(call("run", "mine.toml"), 2, "key file nowhere: cannot be read")


def test_all_mistakes_are_said_at_once():
    Path("mine.toml").write_text(DEFAULT.replace(LIMIT, "").replace("seed = 1", "sede = 1"))
    found = start("config", "check", "mine.toml")
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == 3
    assert all(line.startswith("shrivenq: mine.toml: ") for line in found.stderr.splitlines())


# ── captures that cannot be replayed, and those that are only damaged ────────────────────────────────────────────────


def replay(path, *options):
    return call("replay", "replay_spot", "--placement", "fused", "--path", path, *options)


def unreadable(name):
    """Write a capture that cannot be read on; return what is said of it."""
    path = Path(name)
    lines = capture_lines()
    if name == "empty":
        path.mkdir()
        return "empty: a folder without files, captures expected"
    if name == "truncated.gz":
        whole = gzip.compress("".join(lines).encode())
        path.write_bytes(whole[: len(whole) // 2])
        return "truncated.gz: the compressed data ends too early"
    if name == "binary":
        path.write_bytes(bytes(range(256)) * 40)
        return "binary: line 1 begins b'\\x00\\x01"
    if name == "turned":
        path.mkdir()
        (path / "a").write_text("".join(lines[11:]).replace(str(START_NS)[:8], str(START_NS + 10**15)[:8]))
        (path / "b").write_text("".join(lines[:11]))
        return "turned/b: line 1 was received before the end of a"
    if name == "nothing":
        path.write_text("")
        return "nothing: not one line in it"
    return "missing: no such file"


@pytest.mark.parametrize("name", ["missing", "empty", "nothing", "truncated.gz", "binary", "turned"])
def test_a_capture_that_cannot_be_read_on_is_one_line(name):
    said = unreadable(name)
    one_line(replay(name), 1, said)
    assert not segment.names("replay-spot.")


def test_a_missing_capture_as_a_process_of_its_own():
    one_line(start("replay", "replay_spot", "--placement", "split", "--path", "missing"), 1, "missing: no such file")


def damaged(lines, name):
    """Damage a capture in its middle, in one place."""
    if name == "cut":
        return [*lines[:5], lines[5][:60] + "\n", *lines[6:]]
    if name == "giant":
        return [*lines[:5], f"{START_NS + 60_000_000} {'x' * (5 << 20)}\n", *lines[5:]]
    return lines[1:]  # no snapshot


def test_replays_print_what_they_did():
    lines = capture_lines()
    Path("whole").write_text("".join(lines))
    found = replay(
        "whole", "--json", "--journal", "journal", "--dump", "book=book.csv", "--dump", "report=report.jsonl"
    )
    assert (found.exit_code, found.stderr) == (0, "")
    whole = json.loads(found.stdout)
    assert whole["frames"] == len(lines)
    assert whole["orders"] > 0
    assert whole["dumped_book"] == len(Path("book.csv").read_text().splitlines()) - 1 > 0
    assert whole["dumped_report"] == len(Path("report.jsonl").read_text().splitlines()) == whole["reports"]
    assert replay("whole", "--digest").stdout == f"{whole['digest']}\n"
    table = replay("whole").stdout
    assert f"digest: {whole['digest']}" in table
    assert "BTCUSDT" in table
    one_line(replay("whole", "--journal", "journal"), 2, "--journal journal: exists already")


@pytest.mark.parametrize("name", ["cut", "giant", "no snapshot"])
def test_a_capture_with_damage_inside_is_replayed_around_it(name):
    lines = damaged(capture_lines(), name)
    Path("damaged").write_text("".join(lines))
    found = replay("damaged", "--json")
    assert found.exit_code == 0, found.stderr
    did = json.loads(found.stdout)
    assert did["frames"] == len(lines)
    assert (did["orders"] == 0) == (name == "no snapshot")


# ── a pipeline to look at ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def run():
    with assembled(NAME) as made:
        yield made


def test_status_of_a_run(run):
    found = json.loads(call("status", NAME, "--json").stdout)
    assert (found["name"], found["run"]) == (NAME, run.run)
    text = call("status", NAME).stdout
    assert "paper_venue" in text
    assert "fill_feed" in text


def test_status_of_half_a_run_is_one_line(run):
    run.segments["book"].unlink()
    one_line(call("status", NAME), 1, "book: no such segment")
    run.segments["latency"].unlink()
    one_line(call("latency", NAME, "--json"), 1, "latency: no such segment")


def test_latency_of_a_run(run):
    assert "transmission" in call("latency", NAME, "--once").stdout
    assert len(json.loads(call("latency", NAME, "--json").stdout)) == 7
    one_line(call("latency", NAME, "--plot", "x.jpg"), 2, "--plot x.jpg: expected a file ending in .png or .svg")


def test_inspect(run):
    name = run.segments["tick"].name
    (found,) = json.loads(call("inspect", name, "--json").stdout)
    assert found["kind"] == "ring"
    text = call("inspect", name).stdout
    assert f"creator_pid: {os.getpid()}\n" in text
    assert "slots" in text
    assert name in call("inspect").stdout


def test_arm_and_kill(run):
    words = run.control("kill")
    found = start("kill", "halt", NAME, "--reason", "test")
    assert found.returncode == 3  # there is no gateway to confirm it
    assert "NOT confirmed by gateway" in found.stdout
    assert control.LEVELS[int(control.kill_level(words))] == "halt"
    assert call("arm", NAME, "--reason", "looked").stdout == f"{NAME}: armed: looked\n"
    assert int(control.kill_level(words)) == control.ARMED
    assert (state.armed(NAME) or "").endswith(": looked")
