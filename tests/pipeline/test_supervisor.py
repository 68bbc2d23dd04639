"""The supervised pipeline as an operator meets it: started, watched, killed, armed, hit, stopped."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from shrivenq.pipeline import inspection, kill, state
from shrivenq.pipeline.assembly import sweep
from shrivenq.shm import byte_ring, ring, segment
from shrivenq.shm.atomics import load_word, or_word
from shrivenq.stages import control, journal, journal_file, stage
from shrivenq.stages import messages as m
from shrivenq.stages.live import away
from tests.pipeline import command_rig

NAME = "test-supervisor"
LIBC = ctypes.CDLL(None)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))
    # test_kill.py is about the 50 ms after which a gateway is killed; a loaded test machine needs longer than that.
    monkeypatch.setattr(kill, "ACKNOWLEDGE_S", 20.0)


@pytest.fixture
def configured(tmp_path):
    """The shipped default under another name."""
    return command_rig.configured(tmp_path / "test.toml", NAME)


class Run:
    """A supervisor in a process of its own."""

    def __init__(self, path, *options, **how):
        command = [*command_rig.MAIN, "run", str(path), *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, **how)

    def until(self, condition):
        """Wait until the condition holds; the pipeline must live meanwhile."""
        return command_rig.until(condition, self.process)

    def running(self):
        return self.until(lambda: armed_status() and inspection.attach(NAME))

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return errors


def armed_status():
    found = inspection.status(inspection.attach(NAME))
    return found if found["kill"] == "armed" and not found["holds"] else None


def ready():
    """Tell whether the pipeline has been let go, killed or not."""
    found = inspection.status(inspection.attach(NAME))
    return "starting" not in found["holds"] and all(one["state"] == "running" for one in found["stages"])


def wait_for(condition):
    """Wait until the condition holds, whoever lives."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, children_left()
        time.sleep(0.05)


def sent(running):
    return int(load_word(running.part("to_venue").array("producer"), ring.HEAD))


@pytest.fixture(params=["split", "fused"])
def run(request, configured):
    made = Run(configured, "--placement", request.param)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.stop()
        for pid in children_left():
            os.kill(pid, signal.SIGKILL)
        for name in segment.names(f"{NAME}."):
            segment.unlink(name)


def children_left():
    """Find stages of this test's pipeline that outlived their supervisor, by what they have mapped."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{segment.PREFIX}{NAME}." in (folder / "maps").read_text():
                found.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def test_starts_trades_and_stops_in_order(run):
    running = run.running()
    run.until(lambda: sent(running) > 10)
    found = inspection.status(running)
    assert all(one["state"] == "running" and one["alive"] for one in found["stages"])
    errors = run.stop()
    assert run.process.returncode == 0, errors
    assert segment.names(f"{NAME}.") == []
    assert children_left() == []
    contents = journal_file.read_journal(state.folder(NAME) / "journal")
    assert contents.problem == ""
    assert len(contents.rows(journal.ORDER_SENT)) > 10


def test_a_second_instance_is_refused(run, configured):
    run.running()
    second = subprocess.run([*command_rig.MAIN, "run", str(configured)], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "is running already" in second.stderr
    assert run.process.poll() is None


def in_shared_memory():
    """List all there is of the pipeline: segments, and the lock of its name."""
    return sorted(path.name for path in state.SHARED.iterdir() if NAME in path.name)


def elsewhere(folder):
    """The environment with another state folder."""
    return os.environ | {"SHRIVENQ_STATE": str(folder / "elsewhere")}


def refusal(configured, environment):
    """Start a run that is refused; the line that says why."""
    refused = subprocess.run(
        [*command_rig.MAIN, "run", str(configured)], env=environment, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    (line,) = [one for one in refused.stderr.splitlines() if one.startswith("shrivenq: ")]
    return line


def test_another_state_folder_s_run_of_the_name_is_refused_until_the_first_is_gone(run, configured, tmp_path):
    running = run.running()
    before = in_shared_memory()
    line = refusal(configured, elsewhere(tmp_path))
    assert f"{NAME}: is running already on this machine (process {run.process.pid}, " in line
    assert in_shared_memory() == before
    count = sent(running)
    run.until(lambda: sent(running) > count)
    run.process.kill()
    run.process.communicate()
    wait_for(lambda: not children_left())
    assert in_shared_memory() == before
    third = Run(configured, "--placement", "fused", env=elsewhere(tmp_path))
    try:
        third.until(lambda: inspection.attach(NAME).run != running.run and ready())
        errors = third.stop()
        assert third.process.returncode == 0, errors
    finally:
        if third.process.poll() is None:
            third.process.kill()
            third.process.communicate()
    assert in_shared_memory() == []


def test_kill_stops_orders_and_arm_lets_them_go_on(run, capsys):
    running = run.running()
    run.until(lambda: sent(running) > 10)
    assert kill.main(["cancel", NAME, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(one["confirmed"] for one in found["confirmed"])
    # What was confirmed is over: cancels may still go out, then nothing does.
    run.until(lambda: quiet(running))
    assert inspection.status(running)["kill"] == "cancel"
    count = sent(running)
    inspection.arm(NAME, "the test goes on")
    run.until(lambda: sent(running) > count)


def quiet(running):
    """Tell whether nothing is sent while the stages turn a few hundred times more."""
    before = sent(running)
    loop = running.words("loop.gateway")
    turns, deadline = int(loop[stage.TURNS]), time.monotonic() + 30
    while int(load_word(loop, stage.TURNS)) < turns + 500 and time.monotonic() < deadline:
        pass
    return sent(running) == before


def test_a_killed_name_starts_killed(run, configured):
    running = run.running()
    assert kill.main(["halt", NAME]) == 0
    assert running
    run.stop()
    again = Run(configured, "--placement", "fused")
    try:
        again.until(ready)
        assert inspection.status(inspection.attach(NAME))["kill"] == "halt"
        again.until(lambda: quiet(inspection.attach(NAME)))
    finally:
        again.stop()
    contents = journal_file.read_journal(state.folder(NAME) / "journal")
    orders = contents.rows(journal.ORDER_SENT)
    assert (contents.rows(journal.RUN)["epoch"] == [1, 2]).all()
    # A halt lets pass what reduces a position that the first run left, and the stop cancels that; nothing else.
    begun = orders[(orders["order_id"] >> m.EPOCH_SHIFT == 2) & (orders["kind"] != m.CANCEL)]
    assert (begun["flags"] & m.REDUCING != 0).all()


@pytest.mark.parametrize("victim", ["market_data", "book", "signal", "risk", "gateway", "paper_venue"])
def test_a_dead_stage_is_answered_by_a_restart(configured, victim):
    run = Run(configured, "--placement", "split")
    try:
        running = run.running()
        run.until(lambda: sent(running) > 10)
        os.kill(int(running.words(f"loop.{victim}")[stage.PID]), signal.SIGKILL)
        run.until(lambda: inspection.attach(NAME).run != running.run)
        again = run.running()
        run.until(lambda: sent(again) > 10)
        errors = run.stop()
        assert run.process.returncode == 0, errors
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()
    assert segment.names(f"{NAME}.") == []
    contents = journal_file.read_journal(state.folder(NAME) / "journal")
    assert contents.problem == ""
    assert contents.rows(journal.RUN)["epoch"].tolist() == [1, 2]


def stopped_writer(run, running):
    """Stop the journal writer of a pipeline and let its ring fill; its pid, and both ends' cursors."""
    (writer,) = [pid for pid in children_left() if Path(f"/proc/{pid}/comm").read_text() == "sq-journal\n"]
    ends = [running.part("journal").array(name) for name in ("producer", "consumer")]
    os.kill(writer, signal.SIGSTOP)
    run.until(lambda: int(load_word(ends[0], ring.HEAD)) - int(load_word(ends[1], ring.TAIL)) > 1 << 13)
    return writer, ends


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with its supervisor"])
def test_a_journal_writer_that_dies_loses_nothing(configured, alone, tmp_path):
    run = Run(configured, "--placement", "fused")
    try:
        running = run.running()
        writer, ends = stopped_writer(run, running)
        if not alone:
            run.process.kill()
        os.kill(writer, signal.SIGKILL)
        if not alone:
            run.process.communicate()
            wait_for(lambda: not children_left())
            sweep(NAME, unfinished=False)  # as a replay of that name does
            line = refusal(configured, elsewhere(tmp_path))
            assert "records of a run with another state folder, which are in no file yet: start" in line
            run = Run(configured, "--placement", "fused")
        run.until(lambda: inspection.attach(NAME).run != running.run and ready())
        run.stop()
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()
    head, tail = int(ends[0][ring.HEAD]), int(ends[1][ring.TAIL])
    assert head == tail > 0
    contents = journal_file.read_journal(state.folder(NAME) / "journal")
    assert contents.problem == ""
    second = int(np.flatnonzero(contents.index["kind"] == journal.RUN)[1])
    first = contents.index[:second]
    first = first[np.isin(first["kind"], [journal.ORDER_SENT, journal.REPORT_SEEN])]
    record = byte_ring.RECORD_SIZE + journal.HEADER.itemsize + m.ORDER.itemsize
    assert first["sequence"].tolist() == list(range(head // record))


def test_a_strategy_that_missed_a_report_is_rebuilt(configured):
    run = Run(configured, "--placement", "split")
    try:
        running = run.running()
        away.tell(running.control.array("away", writable=True), away.BANNED_NS, 5)
        # What risk does when `feedback` is full; eight thousand unread reports are hard to come by.
        or_word(running.control.array("hold", writable=True), control.HOLD, control.STRATEGY_DEAF)
        run.until(lambda: inspection.attach(NAME).run != running.run)
        again = run.running()
        run.until(lambda: sent(again) > 10)
        assert int(again.words("away")[away.BANNED_NS]) == 5, "a ban outlives a stage"
        assert "the strategy does not read its reports" in run.stop()
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


def test_silent_market_data_holds_until_it_speaks_again(configured):
    lines = configured.read_text().replace("feed_stale_ms = 5000.0", "feed_stale_ms = 50.0")
    slow = "simulated = { events_per_s = 1, depth_ms = 60_000 }"
    configured.write_text(lines.replace("[market_data]\n", f"[market_data]\n{slow}\n"))
    run = Run(configured, "--placement", "split")
    try:
        run.until(lambda: "feed_stale" in inspection.status(inspection.attach(NAME))["holds"])
        run.until(ready)
        run.until(armed_status)
    finally:
        errors = run.stop()
    assert "held: market data silent" in errors
    assert "market data again" in errors


def test_without_a_supervisor_stages_kill_and_stop_and_the_next_start_cleans_up(configured):
    run = Run(configured, "--placement", "split")
    running = run.running()
    run.until(lambda: sent(running) > 10)
    run.process.kill()
    run.process.communicate()
    wait_for(lambda: state.armed(NAME) is None and not children_left())
    assert "supervisor died" in (state.folder(NAME) / "armed").read_text()
    assert segment.names(f"{NAME}.") != []
    again = Run(configured, "--placement", "fused")
    again.until(lambda: inspection.attach(NAME).run != running.run and ready())
    again.stop()
    assert segment.names(f"{NAME}.") == []


def test_a_restart_may_be_stopped(configured):
    run = Run(configured, "--placement", "split")
    try:
        running = run.running()
        os.kill(int(running.words("loop.book")[stage.PID]), signal.SIGKILL)
        log = state.folder(NAME) / "log.jsonl"
        run.until(lambda: "stage died" in log.read_text())
        errors = run.stop()
        assert run.process.returncode == 0, errors
        assert "shrivenq: " not in errors
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()
    assert segment.names(f"{NAME}.") == []
    assert not children_left()


DROP_CAPABILITY = 24  # PR_CAPBSET_DROP


def without_rights():
    """Give up every capability, root's too, when the next program begins; and lock next to no memory."""
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, 1 << 16))
    for capability in range(64):
        LIBC.prctl(DROP_CAPABILITY, capability)


def test_a_user_without_rights_trades_too_and_is_told_what_could_not_be_had(configured):
    configured.write_text(configured.read_text() + '\n[stages.book]\ncpu = 0\nscheduler = "fifo"\n')
    run = Run(configured, "--placement", "split", preexec_fn=without_rights)
    try:
        running = run.running()
        run.until(lambda: sent(running) > 10)
        assert "CapEff:\t0000000000000000" in Path(f"/proc/{run.process.pid}/status").read_text()
        errors = run.stop()
        assert run.process.returncode == 0, errors
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()
    told = [json.loads(line) for line in (state.folder(NAME) / "log.jsonl").read_text().splitlines()]
    problems = " ".join(str(line.get("problem")) for line in told if line["level"] == "warning")
    assert "lock" in problems
    assert "fifo" in problems.lower()
    assert segment.names(f"{NAME}.") == []
