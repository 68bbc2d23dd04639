"""What comes in may be anything: the command line answers in one line, or goes on around it and says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrivenq.pipeline import cli
from shrivenq.pipeline.config import SHIPPED
from shrivenq.shm import segment
from tests.pipeline.pipeline_rig import START_NS, assembled, capture_lines

NAME = "test-bad-input"
COMMAND = [sys.executable, "-c", "from shrivenq.pipeline.main import main; main()"]
AT_NS = START_NS + 60_000_000  # between two frames of the small capture


@pytest.fixture(autouse=True)
def state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def replay(lines):
    Path("capture").write_text("".join(lines))
    found = CliRunner().invoke(
        cli.app, ["replay", "replay_spot", "--placement", "fused", "--path", "capture", "--json"]
    )
    assert found.exit_code == 0, found.stderr
    return json.loads(found.stdout)


def trade(**changed):
    fields = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": 9, "p": "60000.00", "q": "0.1", "T": 1, "m": True, "M": True}
    return json.dumps({"stream": "btcusdt@trade", "data": {**fields, **changed}}, separators=(",", ":"))


def depth(price, quantity):
    event = {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", "U": 1, "u": 2, "b": [[price, quantity]], "a": []}
    return json.dumps({"stream": "btcusdt@depth@100ms", "data": event}, separators=(",", ":"))


BAD = {
    "nan price": trade(p="NaN"),
    "nan price, bare": trade(p=0).replace('"p":0', '"p":NaN'),
    "infinite price": trade(p="inf"),
    "negative price": trade(p="-60000.00"),
    "price of nothing": trade(p=""),
    "price in no decimals of ours": trade(p="60000.001"),
    "impossible price": trade(p="9" * 40),
    "price with an exponent": trade(p="6e4"),
    "negative quantity": trade(q="-1"),
    "absurd quantity": trade(q="92233720368547758070"),
    "nan level": depth("NaN", "1"),
    "negative level": depth("-1.00", "1"),
    "absurd level": depth("59000.00", "9" * 30),
    "unknown instrument": trade(s="XRPUSDT").replace("btcusdt@", "xrpusdt@"),
    "instrument that is two": trade(s="ETHUSDT"),
    "rubbish": "\x01\x7f{[}",
    "half": trade()[:40],
    "deep": "[" * 100_000,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("undisturbed")
        patch.chdir(folder)
        patch.setenv("SHRIVENQ_STATE", str(folder / "state"))
        return replay(capture_lines())


@pytest.mark.parametrize("name", BAD)
def test_a_frame_that_cannot_be_is_dropped_and_nothing_else(name, undisturbed):
    lines = capture_lines()
    found = replay([*lines[:5], f"{AT_NS} {BAD[name]}\n", *lines[5:]])
    assert found["frames"] == undisturbed["frames"] + 1
    for key in ("valid_books", "orders", "reports", "fills", "positions"):
        assert found[key] == undisturbed[key], key


def test_a_full_dev_shm_is_one_line():
    Path("capture").write_text("".join(capture_lines()))
    command = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    arguments = ["replay", "replay_spot", "--placement", "fused", "--path", "capture"]
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace is not permitted here")
    found = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, "sh", *COMMAND, *arguments], capture_output=True, text=True, check=False
    )
    if "mount:" in found.stderr:
        pytest.skip("mounting a tmpfs is not permitted here")
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert line.startswith("shrivenq: shrivenq.replay-spot.")
    assert ": no room for " in line


def configured():
    text = (SHIPPED / "default.toml").read_text().replace('name = "default"', f'name = "{NAME}"')
    Path("mine.toml").write_text(text)
    return [*COMMAND, "run", "mine.toml", "--placement", "fused"]


def test_segments_of_a_living_process_are_not_taken_over():
    with assembled(NAME):
        found = subprocess.run(configured(), capture_output=True, text=True, check=False)
        assert found.returncode == 1
        (line,) = found.stderr.splitlines()
        assert f": shrivenq.{NAME}." in line
        assert "belongs to the living process" in line
        assert len(segment.names(f"{NAME}.")) > 5


@pytest.mark.parametrize("content", [b"", b"rubbish" * 1000])
def test_what_is_no_segment_of_ours_is_said_in_one_line(content):
    path = segment.FOLDER / f"{segment.PREFIX}{NAME}.0123abcd.control"
    path.write_bytes(content)
    try:
        for command in ("status", "latency"):
            found = CliRunner().invoke(cli.app, [command, NAME])
            assert found.exit_code == 1
            (line,) = found.stderr.splitlines()
            assert line.startswith(f"shrivenq: {path.name}: ")
        found = CliRunner().invoke(cli.app, ["inspect", path.name])
        assert found.exit_code == 1
        assert len(found.stderr.splitlines()) == 1
    finally:
        path.unlink()
