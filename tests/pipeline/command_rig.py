"""What tests of the command line in processes of their own share: the command, patience, a configuration, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from shrivenq.pipeline import inspection, topology
from shrivenq.shm import segment

MAIN = [sys.executable, "-c", "from shrivenq.pipeline.main import main; main()"]
PATIENCE_S = 400.0
"""Stages compile on first use; on a small machine without a cache that takes minutes."""


def configured(path, name, edit=str):
    """Write the shipped default under another name, changed by `edit`."""
    shipped = Path(topology.__file__).resolve().parent.parent / "configs" / "default.toml"
    path.write_text(edit(shipped.read_text().replace('name = "default"', f'name = "{name}"')))
    return path


def until(condition, process=None, said=lambda: None):
    """Wait until the condition gives something, and return it; `process` must live meanwhile."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = condition()
        except inspection.InspectionError:
            found = None  # not there yet, or being replaced
        if found:
            return found
        assert process is None or process.poll() is None, said() or process.stderr.read()
        assert time.monotonic() < deadline, said()
        time.sleep(0.01)


def armed(name):
    """Attach to a pipeline that trades; None for one that does not yet."""
    running = inspection.attach(name)
    found = inspection.status(running)
    return running if found["kill"] == "armed" and not found["holds"] else None


def children_of(parent):
    """Pids of a process's children by name."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (folder / "stat").read_text()
            name, _, rest = text.partition("(")[2].rpartition(")")
            if int(rest.split()[1]) == parent:
                found[name] = int(folder.name)
    return found


@contextlib.contextmanager
def command(name, *arguments):
    """Run `shrivenq …` in a process of its own; whatever it leaves of pipeline `name` goes when the test ends."""
    process = subprocess.Popen([*MAIN, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            children = children_of(process.pid)
            process.kill()
            process.communicate()
            for pid in children.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.stderr.close()
        for one in segment.names(f"{name}."):
            segment.unlink(one)


def stopped(process, name):
    """Stop a pipeline as an operator does; it must end well and leave nothing."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert not segment.names(f"{name}.")
