"""How long it takes to trade: from nothing to armed, and from a stage's death to its first message after.

The real command, `shrivenq run`, on the embedded simulated market with the shipped market maker, the compiled kernels
already on disk. `start`: from the start of the process until nothing holds orders and the name is armed, the median of
as many starts as there are stages. `restart`: in each of them another stage is killed with SIGKILL; until that stage
has handled its first message in the pipeline made anew, and of all stages the worst.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import BenchmarkError
from report import Report

from shrivenq.pipeline import config, topology
from shrivenq.pipeline.kill import control_segments
from shrivenq.shm import segment
from shrivenq.stages import control, stage

LIMIT_S = 300.0
TRADING_S = 1.0
"""Long enough for every stage, the last in the path too, to have handled messages before it is killed."""
LOOK_S = 0.0005


def wait_for(running, look):
    """Look again and again until there is an answer; return it."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        found = look()
        if found is not None:
            return found
        if running.poll() is not None:
            raise BenchmarkError(f"shrivenq run ended: exit code {running.returncode}")
        time.sleep(LOOK_S)
    raise BenchmarkError(f"nothing within {LIMIT_S:.0f} s")


def control_of(name, other_than):
    """Attach to the control segment of `name` that is none of `other_than`; None while there is none."""
    for one in control_segments(name):
        if one not in other_than and not one.split(".")[2].endswith("-warm"):
            try:
                return one, segment.attach(one, topology.CONTROL)
            except segment.SegmentError:
                return None
    return None


def is_armed(held):
    """Tell whether the name is armed and nothing holds orders, once its stages were let go."""
    gone = held.array("supervisor")[topology.GO] == 1
    return gone and control.kill_level(held.array("kill")) == control.ARMED and held.array("hold")[control.HOLD] == 0


def start(name, program, environment, folder):
    """Start the pipeline; return it, its control segment, and the seconds until it was armed."""
    started = time.monotonic()
    running = subprocess.Popen(
        program, env=environment, stdout=subprocess.DEVNULL, stderr=(folder / "errors").open("w"), cwd=folder
    )
    try:
        found = wait_for(running, lambda: control_of(name, ()))
        wait_for(running, lambda: is_armed(found[1]) or None)
    except BaseException:
        stop(running)
        raise
    return running, found, time.monotonic() - started


def stop(running):
    """Stop it as Ctrl-C would, and wait."""
    running.send_signal(signal.SIGINT)
    try:
        running.wait(20.0)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()


def restart(name, running, found, victim):
    """Kill one stage; return the seconds until its first message after."""
    segment_name, held = found
    pid = int(held.array(f"loop.{victim}")[stage.PID])
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    _, after = wait_for(running, lambda: control_of(name, (segment_name,)))
    page = after.array(f"loop.{victim}")
    wait_for(running, lambda: True if page[stage.WORK] else None)
    return time.monotonic() - killed


def main():
    report = Report("start")
    name = f"bench-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="shrivenq-") as found:
        folder = Path(found)
        file = folder / "start.toml"
        shipped = config.find("default").read_text()
        file.write_text(shipped.replace('name = "default"', f'name = "{name}"'))
        program = [Path(sys.executable).with_name("shrivenq"), "run", str(file)]
        environment = {**os.environ, "SHRIVENQ_STATE": str(folder)}
        # Not measured: what is not in the kernel cache yet is put there.
        running, _, _ = start(name, program, environment, folder)
        stop(running)
        starts, restarts = [], {}
        for victim in topology.STAGES:
            running, control_segment, seconds = start(name, program, environment, folder)
            try:
                starts.append(seconds)
                time.sleep(TRADING_S)
                restarts[victim] = restart(name, running, control_segment, victim)
            finally:
                stop(running)
    report.row("warm", "start", "s", statistics.median(starts))
    report.row("warm", "restart", "s", max(restarts.values()))
    spelled = ", ".join(f"{victim} {seconds:.2f}" for victim, seconds in restarts.items())
    report.row("warm", "note", "text", f"restarts in s: {spelled}")


if __name__ == "__main__":
    main()
