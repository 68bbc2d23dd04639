from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from shrivenq.pipeline import processes


def sleep_long() -> int:
    time.sleep(60)
    return 0


def test_the_exit_code_is_what_the_target_returned():
    child = processes.start("seven", lambda: 7)
    assert child.wait(10)
    assert child.status == 7
    assert not child.alive()


def test_an_exception_ends_the_child_with_a_traceback_and_code_70(capfd):
    def fail() -> int:
        raise ValueError("broken")

    child = processes.start("fails", fail)
    assert child.wait(10)
    assert child.status == 70
    assert "ValueError: broken" in capfd.readouterr().err


def test_the_child_has_a_name_and_ignores_the_terminals_interrupt():
    child = processes.start("named", sleep_long)
    try:
        deadline = time.monotonic() + 10
        while Path(f"/proc/{child.pid}/comm").read_text() != "sq-named\n":
            assert time.monotonic() < deadline
        child.send(signal.SIGINT)
        assert not child.wait(0.05)
        assert child.alive()
    finally:
        child.send(signal.SIGKILL)
    assert child.wait(10)
    assert child.status == -signal.SIGKILL


def test_a_signal_to_an_ended_process_goes_nowhere():
    child = processes.start("ended", lambda: 0)
    assert child.wait(10)
    child.send(signal.SIGKILL)
    assert child.status == 0


def test_stop_kills_those_that_do_not_end():
    children = [processes.start("slow", sleep_long), processes.start("quick", lambda: 0)]
    assert processes.stop(children, 0.05) == ["slow"]
    assert [child.status for child in children] == [-signal.SIGKILL, 0]


@pytest.mark.parametrize("status", [0, 3])
def test_a_child_never_returns_into_the_callers_code(status):
    before = os.getpid()
    child = processes.start("exits", lambda: status)
    assert os.getpid() == before
    assert child.wait(10)
    assert child.status == status
