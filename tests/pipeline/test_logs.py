"""Logs: what a line says, what it never says, and that logging holds nobody up."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest
import structlog

from shrivenq.pipeline import logs
from shrivenq.pipeline.logs import LogWriter, Output, Secret, Sender, make_queue, readable, to_line

KEY = "hunter2-hunter2"


@pytest.fixture
def output(tmp_path):
    yield Output(tmp_path / "log.jsonl", terminal=False)
    logs._local = None
    structlog.reset_defaults()


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_secret_shows_itself_to_nobody():
    secret = Secret(KEY)
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r:>20}",
        repr([secret]),
        repr({"a": secret}),
    ]
    record = {"event": "x", "deep": [{"key": secret, "keys": (secret, {secret})}]}
    shown.append(to_line(record).decode())
    try:
        raise ValueError(secret)
    except ValueError:
        shown.append(traceback.format_exc())
    assert not [one for one in shown if "hunter2" in one]
    assert "***" in shown[-2]
    assert secret.reveal() == KEY
    for leak in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="never pickled"):
            leak(secret)


def test_a_line_says_when_who_and_what(output):
    logs.configure(output, "book")
    log = structlog.get_logger()
    log.debug("not shown")
    log.info(
        "book rebuilt", instrument="BTCUSDT", levels=np.int64(5), prices=np.array([1, 2]), raw=b"\xff{", path=Path("/")
    )
    try:
        raise OSError("gone")
    except OSError:
        log.exception("failed", key=Secret(KEY))
    first, second = lines(output.path)
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "process": "book",
        "event": "book rebuilt",
        "instrument": "BTCUSDT",
        "levels": 5,
        "prices": [1, 2],
        "raw": "/3s=",
        "path": "/",
    }
    assert (second["exception"], second["key"]) == ("OSError: gone", "***")
    assert oct(output.path.stat().st_mode & 0o777) == "0o600"


def test_odd_records_still_make_one_line():
    endless: list[object] = []
    endless.append(endless)
    for record in (
        {"event": "loop", "value": endless},
        {"event": "long", "value": "x" * 100_000},
        {"event": "y" * 100_000},
        {"event": "odd keys", 3: 4},
        {"event": "numbers", "nan": float("nan"), "huge": 10**40},
        {"event": "lines\nand\x1b[2J colours"},
    ):
        line = to_line(record)
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        assert len(line) <= logs.LINE_BYTES + 1
        assert json.loads(line)["event"]
        text = readable(line, colour=False)
        assert text.isprintable()
        assert readable(line[:-20], colour=True)


def test_a_readable_line_is_aligned_and_coloured():
    line = to_line(
        {"time": "2026-01-02T03:04:05.678901Z", "level": "warning", "process": "risk", "event": "held", "a": 1}
    )
    assert readable(line, colour=False) == "03:04:05.678 warning risk        held  a=1"
    assert readable(line, colour=True).startswith("\x1b[33m")


class Stuck:
    """A queue whose other end died holding its mutex."""

    def __init__(self):
        self.entered, self.released = threading.Event(), threading.Event()

        self.seen = []

    def put(self, line, timeout):
        assert timeout > 0
        self.entered.set()
        self.released.wait()
        self.seen.append(line)

    def get_many(self, timeout):
        assert timeout > 0
        self.released.wait()

    def get_many_nowait(self):
        self.released.wait()


def test_a_stuck_queue_holds_nobody_up_and_drops_are_counted_and_reported():
    stuck = Stuck()
    sender = Sender(stuck)
    sender.write(b"first\n")
    assert stuck.entered.wait(10)
    for _ in range(logs.WAITING_MAX + 49):
        sender.write(b"more\n")
    assert sender.dropped == 50
    assert not sender.flush(0.0)
    stuck.released.set()
    assert sender.flush(10)
    while len(stuck.seen) <= logs.WAITING_MAX:
        sender.flush(0.01)
    assert json.loads(stuck.seen[-1])["count"] == 50


def test_the_writer_abandons_a_stuck_queue_and_reads_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "END_S", 0.2)
    queue, stuck = make_queue(), Stuck()
    for number in range(3):
        queue.put(to_line({"event": str(number)}))
    reading, writing = os.pipe()
    os.close(writing)
    assert LogWriter([stuck, queue], tmp_path / "log", terminal=False).run(reading) == 0
    os.close(reading)
    assert [one["event"] for one in lines(tmp_path / "log")] == ["0", "1", "2"]


def test_a_log_that_cannot_be_written_is_said_once(tmp_path, capsys):
    output = Output(tmp_path / "missing" / "log", terminal=True)
    for _ in range(3):
        output.write(to_line({"event": "hello"}))
    said = capsys.readouterr().err
    assert said.count("cannot be written: No such file or directory") == 1
    assert said.count("hello") == 3


SESSION = """
import os, signal, sys, time
from types import SimpleNamespace
from shrivenq.pipeline import logs, processes
config = SimpleNamespace(name="t", logs=SimpleNamespace(path=sys.argv[1], level="info", terminal=False))
with logs.session(config) as log:
    log.info("supervisor here")
    def stage(number):
        for line in range(200):
            log.info("line", number=number, line=line)
        logs.flush(30)
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0
    children = [processes.start(f"stage{n}", lambda n=n: stage(n)) for n in range(4)]
    for child in children:
        child.wait(60)
    again = processes.start("stage2", lambda: stage(9))
    again.wait(60)
    if sys.argv[2] == "kill":
        found = [p for p in os.listdir("/proc") if p.isdigit() and
                 open(f"/proc/{p}/stat").read().split()[3] == str(os.getpid())]
        assert len(found) == 1, found
        os.kill(int(found[0]), signal.SIGKILL)
        last = processes.start("orphan", lambda: stage(10))
        assert last.wait(60) and last.status == 0
    log.info("supervisor ends", statuses=[child.status for child in children])
"""


def run_session(path, how):
    done = subprocess.run(
        [sys.executable, "-c", SESSION, str(path), how], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return lines(path)


def test_every_line_of_every_process_arrives_whole_even_of_one_that_was_killed(tmp_path):
    found = run_session(tmp_path / "log.jsonl", "")
    for number, process in ((0, "stage0"), (1, "stage1"), (2, "stage2"), (3, "stage3"), (9, "stage2")):
        own = [one for one in found if one.get("number") == number]
        assert [one["line"] for one in own] == list(range(200))
        assert {one["process"] for one in own} == {process}
    told = [one["event"] for one in found if one["process"] == "supervisor"]
    assert told == ["supervisor here", "supervisor ends"]
    assert next(one for one in found if "statuses" in one)["statuses"] == [0, 0, -signal.SIGKILL, 0]


def test_stages_and_supervisor_outlive_the_writer(tmp_path):
    found = run_session(tmp_path / "log.jsonl", "kill")
    assert found[-1]["event"] == "supervisor ends"
