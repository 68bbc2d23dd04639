"""Fixtures of the shared-memory tests: names that are always unlinked, children that are always reaped."""

from __future__ import annotations

import os
import signal
import traceback
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from shrivenq.shm import segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A kernel's first call may compile it, and the machine may be busy: no example has a time limit.
settings.register_profile("shm", deadline=None, print_blob=True)
settings.load_profile("shm")


@pytest.fixture
def prefix() -> Iterator[str]:
    """Prefix (without the common one) of segments that are unlinked after the test."""
    own = f"test.{uuid.uuid4().hex[:12]}."
    yield own
    for name in segment.names(own):
        segment.unlink(name)


@pytest.fixture
def name(prefix: str) -> str:
    """Full name of a segment that is unlinked after the test."""
    return f"{segment.PREFIX}{prefix}one"


class Children:
    """Forked children of a test."""

    def __init__(self) -> None:
        self.running: list[int] = []

    def start(self, function: Callable[..., Any], *arguments: Any) -> int:
        """Run `function` in a child; it exits with 0 unless the function raises."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                function(*arguments)
                status = 0
            except BaseException:  # noqa: BLE001 - a child never returns into pytest
                traceback.print_exc()
            finally:
                os._exit(status)
        self.running.append(pid)
        return pid

    def wait(self, pid: int) -> int:
        """Reap a child: its exit code, or minus the signal that killed it."""
        self.running.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def kill(self, pid: int) -> None:
        """Kill a child and reap it."""
        os.kill(pid, signal.SIGKILL)
        self.wait(pid)


@pytest.fixture
def children() -> Iterator[Children]:
    """Fork children; whatever still runs after the test is killed."""
    made = Children()
    yield made
    for pid in list(made.running):
        with suppress(ProcessLookupError):
            made.kill(pid)
