"""Placement on machines made of files, and on this one as somebody without permissions."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from shrivenq.pipeline import placement
from shrivenq.pipeline.config import StagePlace
from shrivenq.pipeline.placement import look, plan
from shrivenq.pipeline.topology import groups_of
from shrivenq.shm.wait import SPIN, YIELD


def tree(root, nodes, isolated="", siblings=None):
    """Write sysfs for `nodes`, a list of CPU lists such as "0-3"; siblings maps a CPU to its core's threads."""
    files = {"node/online": f"0-{len(nodes) - 1}", "cpu/isolated": isolated}
    for number, cpus in enumerate(nodes):
        files[f"node/node{number}/cpulist"] = cpus
        files[f"node/node{number}/distance"] = " ".join(
            "10" if there == number else "21" for there in range(len(nodes))
        )
        files[f"node/node{number}/meminfo"] = f"Node {number} MemTotal: 1024 kB\nNode {number} MemFree: 512 kB"
    for cpu, threads in (siblings or {}).items():
        files[f"cpu/cpu{cpu}/topology/thread_siblings_list"] = threads
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def placed(machine, *, mode="paper", fused=False, **stages):
    return plan(SimpleNamespace(stages=stages), groups_of(mode, fused=fused), machine=machine)


def cpus(made):
    return [place.cpu for place in made.places.values()]


def waits(made):
    return {place.wait for place in made.places.values()}


def test_each_stage_has_a_cpu_of_its_own_where_there_are_enough(tmp_path):
    made = placed(look(tree(tmp_path, ["0-7"]), range(8)))
    assert cpus(made) == [1, 2, 3, 4, 5, 6]
    assert waits(made) == {SPIN}
    assert not any(made.problems.values())


def test_six_cpus_for_six_stages_leave_none_for_the_rest(tmp_path):
    made = placed(look(tree(tmp_path, ["0-5"]), range(6)))
    assert sorted(cpus(made)) == [0, 1, 2, 3, 4, 5]
    assert waits(made) == {YIELD}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_cpus_are_shared_evenly_and_yielded(tmp_path, count):
    made = placed(look(tree(tmp_path, [f"0-{count - 1}" if count > 1 else "0"]), range(count)))
    shares = [cpus(made).count(cpu) for cpu in range(count)]
    assert sum(shares) == 6
    assert max(shares) - min(shares) <= 1
    assert waits(made) == {YIELD}


def test_one_node_is_used_even_if_stages_share_there(tmp_path):
    made = placed(look(tree(tmp_path, ["0-3", "4-11"]), range(12)))
    assert set(cpus(made)) <= set(range(4, 12))
    assert {place.node for place in made.places.values()} == {1}
    assert waits(made) == {SPIN}


def test_isolated_cpus_come_first_and_decide_the_node(tmp_path):
    root = tree(tmp_path, ["0-7", "8-15", "16-23", "24-31"], isolated="17-22")
    # The kernel keeps isolated CPUs out of a process's affinity.
    made = placed(look(root, [one for one in range(32) if not 17 <= one <= 22]))
    assert cpus(made) == [17, 18, 19, 20, 21, 22]
    assert waits(made) == {SPIN}


def test_second_threads_of_a_core_come_last(tmp_path):
    siblings = {cpu: f"{cpu % 8},{cpu % 8 + 8}" for cpu in range(16)}
    made = placed(look(tree(tmp_path, ["0-15"], siblings=siblings), range(16)))
    assert cpus(made) == [1, 2, 3, 4, 5, 6]


def test_what_is_configured_is_obeyed_and_others_keep_away(tmp_path):
    machine = look(tree(tmp_path, ["0-7", "8-15"]), range(16))
    made = placed(machine, risk=StagePlace(cpu=9, wait="yield"), book=StagePlace(cpu=12))
    assert (made.places["risk"].cpu, made.wait_of("risk")) == (9, YIELD)
    assert made.places["book"].cpu == 12
    assert {place.node for place in made.places.values()} == {1}
    assert len(set(cpus(made))) == 6
    assert made.wait_of("signal") == SPIN
    elsewhere = placed(machine, signal=StagePlace(node=1))
    assert elsewhere.node_of("signal") == 1
    assert elsewhere.node_of("risk") == 0


def test_what_cannot_be_is_a_warning(tmp_path):
    machine = look(tree(tmp_path, ["0-3"]), range(4))
    made = placed(machine, book=StagePlace(cpu=40), risk=StagePlace(node=3))
    assert made.problems["book"] == ["book: CPU 40 is not available, only 0, 1, 2, 3"]
    assert made.problems["risk"] == ["risk: node 3 has no usable CPU"]
    assert set(cpus(made)) <= {0, 1, 2, 3}


def test_fifo_only_alone_and_with_a_cpu_left(tmp_path):
    fifo = StagePlace(scheduler="fifo")
    roomy = placed(look(tree(tmp_path / "a", ["0-7"]), range(8)), risk=fifo)
    assert roomy.places["risk"].fifo
    assert not roomy.places["book"].fifo
    shared = placed(look(tree(tmp_path / "b", ["0-3"]), range(4)), risk=fifo)
    assert not shared.places["risk"].fifo
    assert "no SCHED_FIFO" in shared.problems["risk"][0]
    full = placed(look(tree(tmp_path / "c", ["0-5"]), range(6)), risk=fifo)
    assert not full.places["risk"].fifo


def test_fused_needs_one_cpu(tmp_path):
    made = placed(look(tree(tmp_path / "a", ["0-1"]), range(2)), fused=True, market_data=StagePlace(scheduler="fifo"))
    assert len(set(cpus(made))) == 1
    assert waits(made) == {SPIN}
    assert made.places["market_data"].fifo
    alone = placed(look(tree(tmp_path / "b", ["0"]), [0]), fused=True)
    assert waits(alone) == {YIELD}


def test_a_live_venue_is_where_the_gateway_is(tmp_path):
    made = placed(look(tree(tmp_path, ["0-5"]), range(6)), mode="live")
    assert made.places["live_venue"] == made.places["gateway"]
    assert len(set(cpus(made))) == 5
    assert waits(made) == {SPIN}


def test_what_runs_beside_the_stages_keeps_off_their_cpus(tmp_path):
    made = placed(look(tree(tmp_path / "a", ["0-9"], isolated="8-9"), range(8)))
    assert set(made.beside) == set(range(8)) - set(cpus(made))
    assert placed(look(tree(tmp_path / "b", ["0-1"]), range(2))).beside == ()
    before = os.sched_getaffinity(0)
    try:
        placement.Plan({}, beside=(max(before),)).step_aside()
        assert os.sched_getaffinity(0) == {max(before)}
        placement.Plan({}).step_aside()
        placement.Plan({}, beside=(4000,)).step_aside()
        assert os.sched_getaffinity(0) == {max(before)}
    finally:
        os.sched_setaffinity(0, before)


def test_rows_are_for_people(tmp_path):
    made = placed(look(tree(tmp_path, ["0-7"]), range(8)))
    assert made.rows()[0] == ("market_data", 1, 0, "spin", "other")


def test_a_machine_without_sysfs_is_one_node(tmp_path):
    made = placed(look(tmp_path, os.sched_getaffinity(0)))
    assert set(cpus(made)) <= os.sched_getaffinity(0)


CHILD = """
import os, resource
from shrivenq.pipeline import placement
from shrivenq.shm.wait import SPIN
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
cpu = max(os.sched_getaffinity(0))
made = placement.Plan({"risk": placement.Place(cpu, 0, SPIN, fifo=True), "book": placement.Place(4000, 0, SPIN)})
print(made.apply("risk"))
print(sorted(os.sched_getaffinity(0)) == [cpu], os.sched_getscheduler(0) == os.SCHED_OTHER)
print(made.apply("book"))
print(placement.apply_side(), os.sched_getscheduler(0) == os.SCHED_IDLE)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_somebody_without_permissions_is_warned_and_goes_on():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second, third, fourth = done.stdout.splitlines()
    assert first == "['risk: no SCHED_FIFO: Operation not permitted (ulimit -r, or CAP_SYS_NICE)']"
    assert second == "True True"
    assert third == "['book: not pinned to CPU 4000: Invalid argument']"
    assert fourth == "[] True"


def test_this_process_can_be_placed():
    machine = look()
    assert set(machine.cpus) >= os.sched_getaffinity(0)
    assert placement.SYSTEM.is_dir()
