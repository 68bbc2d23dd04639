from __future__ import annotations

import os
import subprocess
import sys

import pytest

from shrivenq.pipeline import cli, kill, main


@pytest.fixture
def called(monkeypatch):
    """Note what would be run, and run nothing."""
    found = []
    monkeypatch.setattr(kill, "main", lambda arguments: found.append(("kill", arguments)) or 3)
    monkeypatch.setattr(cli, "main", lambda: found.append(("cli", sys.argv[1:])))
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")
    return found


def test_kill_goes_to_the_kill_switch_and_its_exit_code_comes_back(called, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["shrivenq", "kill", "halt", "demo"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 3
    assert called == [("kill", ["halt", "demo"])]


@pytest.mark.parametrize("place", [1, 2, 3])
def test_uncompiled_may_stand_anywhere_and_stops_no_kill(called, monkeypatch, place):
    arguments = ["shrivenq", "kill", "halt"]
    arguments.insert(place, "--uncompiled")
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        main.main()
    assert called == [("kill", ["halt"])]


def test_uncompiled_is_said_to_numba_and_taken_away(called, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["shrivenq", "replay", "--uncompiled", "default"])
    main.main()
    assert called == [("cli", ["replay", "default"])]
    assert os.environ["NUMBA_DISABLE_JIT"] == "1"


def test_anything_else_goes_to_the_command_line(called, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["shrivenq", "status"])
    main.main()
    assert called == [("cli", ["status"])]
    assert os.environ["NUMBA_DISABLE_JIT"] == "0"


def test_the_kill_switch_loads_nothing_heavy(tmp_path):
    script = (
        "import sys; from shrivenq.pipeline.main import main\n"
        "sys.argv = ['shrivenq', 'kill', 'halt', 'no-such-name']\n"
        "try: main()\n"
        "except SystemExit as ended: print(ended.code)\n"
        "print(sorted({'numpy', 'numba', 'typer', 'rich', 'msgspec', 'structlog'} & set(sys.modules)))"
    )
    environment = {**os.environ, "SHRIVENQ_STATE": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout == "2\n[]\n"


def test_uncompiled_runs_kernels_as_plain_python():
    script = (
        "import sys; from shrivenq.pipeline.main import main\n"
        "sys.argv = ['shrivenq', '--uncompiled', 'version']\n"
        "try: main()\n"
        "except SystemExit as ended: print(ended.code or 0)\n"
        "from shrivenq.shm.kernel import COMPILED; print(COMPILED)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[1:] == ["0", "False"]
    assert found.stderr == ""
