"""The exchange beside a pipeline: it listens before the pipeline starts, and is gone after it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from shrivenq.pipeline import simulator, state, topology
from tests.pipeline.command_rig import until

NAME = "test-simulator"

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def exchange(tmp_path, monkeypatch):
    """The shipped exchange on a port of its own: its file and its port."""
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))
    shipped = Path(topology.__file__).resolve().parent.parent / "configs" / "exchange.toml"
    port = free_port()
    path = tmp_path / "exchange.toml"
    text = shipped.read_text().replace("port = 9000", "port = 0")
    path.write_text(re.sub(r"^port = \d{4}", f"port = {port}", text, flags=re.MULTILINE))
    return path, port


def answers(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v3/ping", timeout=10) as answer:
        return answer.read() == b"{}"


def gone(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def never():
    return False


def test_it_listens_when_it_was_started_and_is_gone_when_it_was_stopped(exchange):
    path, port = exchange
    process = simulator.start(str(path), NAME, never)
    try:
        assert answers(port)
        with pytest.raises(simulator.SimulatorError, match="somebody listens there already"):
            simulator.start(str(path), NAME, never)
    finally:
        simulator.stop(process)
    assert gone(port)
    assert process.status == 0
    log = state.folder(NAME) / "exchange.log"
    assert f"127.0.0.1:{port}" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_it_ends_with_whoever_started_it(exchange):
    path, port = exchange
    script = (
        "import sys, time; from shrivenq.pipeline import simulator;"
        f"simulator.start({str(path)!r}, {NAME!r}, lambda: False); print('up', flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout.readline() == "up\n"
        assert answers(port)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.communicate()
    until(lambda: gone(port))


def test_it_stops_while_it_starts(exchange):
    path, port = exchange
    assert simulator.start(str(path), NAME, lambda: True) is None
    assert gone(port)


def test_a_port_that_nobody_knows_is_refused(exchange):
    path, port = exchange
    path.write_text(path.read_text().replace(f"port = {port}", "port = 0"))
    with pytest.raises(simulator.SimulatorError, match="port: found 0"):
        simulator.start(str(path), NAME, never)


def test_what_keeps_it_from_starting_is_said(exchange, monkeypatch):
    path, _ = exchange
    monkeypatch.setattr(simulator, "PROGRAM", "import sys; sys.exit('shrivenq: no way')")
    with pytest.raises(simulator.SimulatorError, match=r"^the exchange did not start: no way$"):
        simulator.start(str(path), NAME, never)
