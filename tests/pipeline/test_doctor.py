"""The doctor on machines made of files, and on this one."""

from __future__ import annotations

import json

import pytest

from shrivenq.pipeline import doctor
from shrivenq.pipeline.doctor import diagnose

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max locked memory         {locked}                8388608              bytes
Max realtime priority     {priority}                    0
"""
LOCKED = LIMITS.format(locked="65536", priority="10")
NO_FIFO = LIMITS.format(locked="unlimited", priority="0")
CPU = "sys/devices/system/cpu"
GOVERNOR = f"{CPU}/cpu0/cpufreq/scaling_governor"
HUGE = "sys/kernel/mm/transparent_hugepage/enabled"

GOOD = {
    "sys/devices/system/cpu/online": "0-15",
    "sys/devices/system/cpu/isolated": "2-9",
    "sys/devices/system/cpu/nohz_full": "2-9",
    "sys/devices/system/cpu/smt/active": "0",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "64",
    "sys/devices/system/node/online": "0-1",
    "sys/devices/system/node/node0/cpulist": "0-7",
    "sys/devices/system/node/node0/distance": "10 21",
    "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 33554432 kB\nNode 0 MemFree: 1024 kB",
    "sys/devices/system/node/node1/cpulist": "8-15",
    "sys/devices/system/node/node1/distance": "21 10",
    "sys/devices/system/node/node1/meminfo": "Node 1 MemTotal: 33554432 kB\nNode 1 MemFree: 1024 kB",
    "proc/sys/kernel/numa_balancing": "0",
    "sys/class/net/lo/mtu": "65536",
    "sys/class/net/eth0/device/numa_node": "1",
    "sys/class/net/eth0/device/msi_irqs/40": "msix",
    "sys/class/net/eth0/device/msi_irqs/41": "msix",
    "proc/irq/40/smp_affinity_list": "0",
    "proc/irq/41/smp_affinity_list": "1",
    "proc/self/status": "Name:\tx\nCapEff:\t0000000000000000",
    "proc/self/limits": LIMITS.format(locked="unlimited", priority="10"),
    "dev/shm/.keep": "",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
    "sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet acpi_pm",
    "proc/loadavg": "0.50 0.40 0.30 1/200 4711",
}


def machine(root, **changes):
    for name, text in {**GOOD, **changes}.items():
        if text is not None:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
    return root


def test_a_good_machine_has_nothing_to_mend(tmp_path):
    found = diagnose(machine(tmp_path))
    assert [one for one in found if one.severity == "warning"] == []
    assert not any(one.fix for one in found if one.severity == "good")
    assert {one.topic for one in found} >= {"cpus", "isolation", "governor", "numa", "nic", "permissions", "clock"}


@pytest.mark.parametrize(
    ("name", "text", "topic", "severity", "said", "fix"),
    [
        (f"{CPU}/online", "0-1", "cpus", "warning", "2 online (0,1)", "fused"),
        (f"{CPU}/smt/active", "1", "cpus", "note", "two hardware threads", "smt/control"),
        (f"{CPU}/isolated", "", "isolation", "warning", "no CPU is isolated", "isolcpus"),
        (
            f"{CPU}/nohz_full",
            "2-5",
            "isolation",
            "note",
            "6,7,8,9 still tick",
            "nohz_full=2,3,4,5,6,7,8,9",
        ),
        (
            GOVERNOR,
            "powersave",
            "governor",
            "warning",
            "powersave",
            "cpupower",
        ),
        (GOVERNOR, None, "governor", "note", "no frequency control", ""),
        (
            HUGE,
            "[always] madvise",
            "huge pages",
            "warning",
            "always",
            "madvise",
        ),
        (HUGE, None, "huge pages", "note", "unknown", ""),
        ("proc/sys/kernel/numa_balancing", "1", "numa", "warning", "balancing moves pages", "numa_balancing=0"),
        ("proc/irq/41/smp_affinity_list", "0-15", "nic", "warning", "isolated CPUs 2,3,4,5,6,7,8,9", "irqbalance"),
        (
            "proc/self/limits",
            LOCKED,
            "permissions",
            "warning",
            "65,536",
            "ulimit -l",
        ),
        (
            "proc/self/limits",
            NO_FIFO,
            "permissions",
            "note",
            "FIFO",
            "ulimit -r",
        ),
        (
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "hpet",
            "clock",
            "warning",
            "hpet: each reading is a system call",
            "echo tsc",
        ),
        ("proc/loadavg", "15.00 1 1 1/2 3", "load", "warning", "15 on 16 CPUs", "SCHED_IDLE"),
        ("proc/loadavg", None, "load", "note", "cannot be read", ""),
        ("dev/shm/.keep", None, "memory", "warning", "no /dev/shm", "mount"),
    ],
)
def test_each_flaw_is_found_with_its_fix(tmp_path, name, text, topic, severity, said, fix):
    found = diagnose(machine(tmp_path, **{name: text}))
    matching = [one for one in found if one.topic == topic and one.severity == severity and said in one.found]
    assert len(matching) == 1, [one.line() for one in found]
    assert fix in matching[0].fix
    assert matching[0].line().count("\n") == 0


def test_capabilities_count_as_permission(tmp_path):
    both = (1 << doctor.CAP_IPC_LOCK) | (1 << doctor.CAP_SYS_NICE)
    changes = {
        "proc/self/limits": LIMITS.format(locked="0", priority="0"),
        "proc/self/status": f"CapEff:\t{both:016x}",
    }
    found = [one for one in diagnose(machine(tmp_path, **changes)) if one.topic == "permissions"]
    assert [one.severity for one in found] == ["good", "good"]


def test_a_small_shared_memory_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "SHM_BYTES", 1 << 60)
    found = [one for one in diagnose(machine(tmp_path)) if one.topic == "memory"]
    assert found[0].severity == "warning"
    assert "--shm-size" in found[0].fix


def test_an_empty_machine_is_described_and_not_tripped_over(tmp_path):
    found = diagnose(tmp_path)
    assert len({one.topic for one in found}) == 10


def test_this_machine_can_be_looked_at():
    found = diagnose()
    assert len({one.topic for one in found}) == 10
    json.dumps([one.as_dict() for one in found])
