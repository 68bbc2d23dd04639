"""Child processes, each held by a pidfd: a pid that was reused is never signalled, and a death is noticed at once."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_PR_SET_NAME = 15
_libc = ctypes.CDLL(None)


AT_EXIT: list[Callable[[], object]] = []
"""Called in a child before it ends: `os._exit` runs nothing else."""


@dataclass
class Process:
    """A child: alive until its pidfd becomes readable."""

    name: str
    pid: int
    pidfd: int
    status: int | None = None  # exit code, or minus the signal, once it has ended

    def alive(self) -> bool:
        """Tell whether the process still runs; collects its exit status when it does not."""
        if self.status is None and select.select([self.pidfd], [], [], 0)[0]:
            self._collect()
        return self.status is None

    def wait(self, seconds: float) -> bool:
        """Wait for the end; False if it still runs after that time."""
        if self.status is None and select.select([self.pidfd], [], [], seconds)[0]:
            self._collect()
        return self.status is not None

    def _collect(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        os.close(self.pidfd)

    def send(self, number: int) -> None:
        """Send a signal through the pidfd; a process that has ended gets none."""
        if self.alive():
            signal.pidfd_send_signal(self.pidfd, number)


def start(name: str, target: Callable[[], int]) -> Process:
    """Fork a child that runs `target` and exits with what it returns; it never returns into the caller's code."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 70  # EX_SOFTWARE
        try:
            _libc.prctl(_PR_SET_NAME, f"sq-{name}"[:15].encode(), 0, 0, 0)
            # The terminal sends Ctrl-C to the whole group; the supervisor stops its children in order.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            code = target()
        except BaseException:  # noqa: BLE001 - the last line of defence of a process that must not return
            traceback.print_exc()
        finally:
            for one in AT_EXIT:
                one()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return Process(name, pid, os.pidfd_open(pid))


def stop(processes: Iterable[Process], seconds: float) -> list[str]:
    """Wait that long for all to end, then kill; return the names of those that had to be killed."""
    killed = []
    for one in processes:
        if not one.wait(seconds):
            one.send(signal.SIGKILL)
            one.wait(10.0)
            killed.append(one.name)
    return killed
