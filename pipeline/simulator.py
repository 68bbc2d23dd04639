"""The exchange simulator beside a pipeline: started before its stages, stopped after them.

For a configuration whose `exchange.file` names one, so that a single command brings up a venue and a pipeline that
trades on it over real sockets. It is a program of its own, `shrivenq exchange`, and knows nothing of the pipeline; what
it prints goes to `exchange.log` in the state folder. It ends with the supervisor, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from shrivenq.pipeline import processes, state
from shrivenq.pipeline.exchange import config as exchange_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shrivenq.pipeline.exchange.config import Config
    from shrivenq.pipeline.processes import Process

PROGRAM = "from shrivenq.pipeline.main import main; main()"
READY_S = 600.0
"""On a new machine its engine is compiled first."""
PAUSE_S = 0.02
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class SimulatorError(Exception):
    """The simulator cannot be used; one line says why."""


def start(file: str, name: str, stopping: Callable[[], bool]) -> Process | None:
    """Start the exchange configured in `file` for pipeline `name`, and wait until it listens; None if told to stop.

    Raises ConfigError for its configuration, SimulatorError if it does not start.
    """
    config = exchange_config.load(file)
    if config.port == 0:
        raise SimulatorError(f"{config.file}: port: found 0, allowed beside a pipeline: the port it connects to")
    if _listens(config):
        raise SimulatorError(f"{config.host}:{config.port}: somebody listens there already, no exchange was started")
    log = state.make_folder(name) / "exchange.log"
    parent = os.getpid()
    process = processes.start("exchange", lambda: _become(config, log, parent))
    deadline = time.monotonic() + READY_S
    while not stopping():
        if not process.alive():
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            said = lines[-1] if lines else f"it ended with {process.status}"
            raise SimulatorError(f"the exchange did not start: {said.removeprefix('shrivenq: ')}")
        if _listens(config):
            return process
        if time.monotonic() > deadline:
            break
        time.sleep(PAUSE_S)
    stop(process)
    if not stopping():
        raise SimulatorError(f"the exchange did not listen at {config.host}:{config.port} in {READY_S:.0f} s")
    return None


def stop(process: Process) -> None:
    """Stop the exchange in order; it tells its clients."""
    process.send(signal.SIGTERM)
    processes.stop([process], 10.0)


def _listens(config: Config) -> bool:
    try:
        with socket.create_connection((config.host, config.port), timeout=1.0):
            return True
    except OSError:
        return False


def _become(config: Config, log: Path, parent: int) -> NoReturn:
    """Become the exchange: another program in this process, which ends when its parent does."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    os.setsid()  # Ctrl-C is for the supervisor: it stops the venue last
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.execv(sys.executable, [sys.executable, "-c", PROGRAM, "exchange", str(config.file)])  # noqa: S606
