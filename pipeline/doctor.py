"""Doctor: what about this machine costs latency, and how to mend it.

Everything is read from files under `root`, so that tests bring trees of their own; only a NIC's timestamping needs
the kernel itself (ethtool's ioctl) and is asked where `root` is the real one. Nothing is changed.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil  # type: ignore[import-untyped]  # it ships no types

from shrivenq.shm import numa

STAGES = 6
"""Processes that want a CPU of their own."""
SHM_BYTES = 256 << 20
"""What a run needs in /dev/shm, with room to spare."""
GOOD_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
CAP_IPC_LOCK, CAP_SYS_NICE = 14, 23
VIRTUAL_NICS = ("lo", "ifb", "veth", "docker", "br-", "virbr", "tun", "tap", "dummy", "bond", "wg")

Severity = Literal["good", "note", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    severity: Severity
    found: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """Give the finding as plain data."""
        return asdict(self)

    def line(self) -> str:
        """Say it on one line."""
        return f"{self.severity:<7} {self.topic:<12} {self.found}" + (f"; fix: {self.fix}" if self.fix else "")


def diagnose(root: str | Path = "/") -> list[Finding]:
    """Look at everything; in the order of `_CHECKS`, at least one finding each."""
    base = Path(root)
    return [finding for check in _CHECKS for finding in check(base)]


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _words(cpus: tuple[int, ...]) -> str:
    return ",".join(map(str, cpus))


def _cpus(root: Path) -> list[Finding]:
    """Count CPUs against stages, and see whether two hardware threads share a core."""
    cpus = numa.cpu_list(_read(root / "sys/devices/system/cpu/online") or "")
    many = len(cpus) > STAGES
    found = [
        Finding(
            "cpus",
            "good" if many else "warning",
            f"{len(cpus)} online ({_words(cpus)}) for {STAGES} processes",
            "" if many else f"stages share CPUs and yield; {STAGES + 1} CPUs let each spin, or use placement = fused",
        )
    ]
    if _read(root / "sys/devices/system/cpu/smt/active") == "1":
        found.append(
            Finding(
                "cpus", "note", "two hardware threads share each core", "echo off > /sys/devices/system/cpu/smt/control"
            )
        )
    return found


def _isolation(root: Path) -> list[Finding]:
    """See which CPUs the kernel leaves to us."""
    isolated = numa.cpu_list(_read(root / "sys/devices/system/cpu/isolated") or "")
    quiet = numa.cpu_list(_read(root / "sys/devices/system/cpu/nohz_full") or "")
    if not isolated:
        fix = "boot with isolcpus=LIST nohz_full=LIST rcu_nocbs=LIST for the stages' CPUs"
        return [Finding("isolation", "warning", "no CPU is isolated: anything may run beside a stage", fix)]
    noisy = tuple(cpu for cpu in isolated if cpu not in quiet)
    if noisy:
        fix = f"boot with nohz_full={_words(isolated)} rcu_nocbs={_words(isolated)}"
        return [Finding("isolation", "note", f"CPUs {_words(isolated)} isolated, {_words(noisy)} still tick", fix)]
    return [Finding("isolation", "good", f"CPUs {_words(isolated)} isolated and tickless")]


def _governor(root: Path) -> list[Finding]:
    """See whether CPUs change their clock."""
    files = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
    governors = {_read(one) or "unreadable" for one in files}
    if not governors:
        return [Finding("governor", "note", "no frequency control here: a virtual machine, or the firmware decides")]
    slow = sorted(governors - {"performance"})
    if slow:
        return [Finding("governor", "warning", f"CPUs run {', '.join(slow)}", "cpupower frequency-set -g performance")]
    return [Finding("governor", "good", "all CPUs run performance")]


def _huge_pages(root: Path) -> list[Finding]:
    """See what the kernel does with huge pages behind our back."""
    mode = _read(root / "sys/kernel/mm/transparent_hugepage/enabled") or ""
    chosen = mode[mode.find("[") + 1 : mode.find("]")] if "[" in mode else "unknown"
    reserved = _read(root / "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages") or "0"
    found = f"transparent {chosen}, {reserved} of 2 MB reserved"
    if chosen == "always":
        fix = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
        return [Finding("huge pages", "warning", f"{found}: compaction may stall a stage", fix)]
    return [Finding("huge pages", "good" if chosen != "unknown" else "note", found)]


def _numa(root: Path) -> list[Finding]:
    """List nodes, and see whether the kernel moves pages between them."""
    try:
        nodes = numa.topology(root / "sys/devices/system/node").nodes
    except (OSError, KeyError, ValueError) as error:
        return [Finding("numa", "note", f"topology cannot be read: {error}")]
    said = ", ".join(f"node {one.number}: {len(one.cpus)} CPUs, {one.total_bytes >> 30} GiB" for one in nodes)
    if len(nodes) > 1 and (_read(root / "proc/sys/kernel/numa_balancing") or "0") != "0":
        return [
            Finding("numa", "warning", f"{said}; automatic balancing moves pages", "sysctl kernel.numa_balancing=0")
        ]
    return [Finding("numa", "good", said)]


def _nics(root: Path) -> list[Finding]:
    """Look at each network card: driver, node, interrupts, timestamping."""
    names = sorted(one.name for one in root.glob("sys/class/net/*"))
    real = [name for name in names if not name.startswith(VIRTUAL_NICS)]
    if not real:
        return [Finding("nic", "note", "no network card: only the loopback")]
    return [finding for name in real for finding in _nic(root, name)]


def _nic(root: Path, name: str) -> list[Finding]:
    device = root / "sys/class/net" / name / "device"
    driver = (device / "driver").resolve().name if (device / "driver").exists() else "unknown driver"
    node = _read(device / "numa_node") or "-1"
    isolated = set(numa.cpu_list(_read(root / "sys/devices/system/cpu/isolated") or ""))
    # A virtio device has none of its own: they are its PCI parent's.
    folders = (device / "msi_irqs", device.resolve().parent / "msi_irqs")
    interrupts = sorted({int(one.name) for folder in folders for one in folder.glob("*") if one.name.isdigit()})
    found = [Finding("nic", "good", f"{name}: {driver}, node {node}, {len(interrupts)} interrupts")]
    landing: set[int] = set()
    for number in interrupts:
        landing.update(numa.cpu_list(_read(root / f"proc/irq/{number}/smp_affinity_list") or ""))
    hit = tuple(sorted(landing & isolated))
    if hit:
        fix = "write the housekeeping CPUs to /proc/irq/N/smp_affinity_list and stop irqbalance"
        found.append(Finding("nic", "warning", f"{name}: interrupts may land on isolated CPUs {_words(hit)}", fix))
    if root.resolve() == Path("/"):
        found.append(_timestamping(name))
    return found


class _TimestampInfo(ctypes.Structure):
    """`struct ethtool_ts_info`, linux/ethtool.h."""

    _fields_ = (
        ("cmd", ctypes.c_uint32),
        ("so_timestamping", ctypes.c_uint32),
        ("phc_index", ctypes.c_int32),
        ("tx_types", ctypes.c_uint32),
        ("tx_reserved", ctypes.c_uint32 * 3),
        ("rx_filters", ctypes.c_uint32),
        ("rx_reserved", ctypes.c_uint32 * 3),
    )


def _timestamping(name: str) -> Finding:
    """Ask a card what it can stamp (ETHTOOL_GET_TS_INFO)."""
    siocethtool, get_ts_info, hardware_receive, software_receive = 0x8946, 0x41, 1 << 2, 1 << 3
    info = _TimestampInfo(cmd=get_ts_info)
    request = struct.pack("16sP16x", name.encode(), ctypes.addressof(info))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            fcntl.ioctl(probe.fileno(), siocethtool, request)
    except OSError as error:
        return Finding("nic", "note", f"{name}: timestamping cannot be asked for: {error.strerror}")
    if info.so_timestamping & hardware_receive:
        return Finding("nic", "good", f"{name}: stamps received packets in hardware, clock /dev/ptp{info.phc_index}")
    how = "software" if info.so_timestamping & software_receive else "no"
    return Finding("nic", "note", f"{name}: {how} receive timestamps only", "a card with a PTP hardware clock")


def _permissions(root: Path) -> list[Finding]:
    """See whether memory may be locked and SCHED_FIFO be had."""
    status = dict(line.split(":", 1) for line in (_read(root / "proc/self/status") or "").splitlines() if ":" in line)
    capabilities = int(status.get("CapEff", "0").strip() or "0", 16)
    limits = {}
    for line in (_read(root / "proc/self/limits") or "").splitlines()[1:]:
        limits[line[:26].strip()] = line[26:].split()[0] if line[26:].split() else "0"
    found = []
    locked = limits.get("Max locked memory", "0")
    if capabilities >> CAP_IPC_LOCK & 1 or locked == "unlimited":
        found.append(Finding("permissions", "good", "memory may be locked"))
    elif int(locked) >= SHM_BYTES:
        found.append(Finding("permissions", "good", f"{int(locked):,} bytes may be locked"))
    else:
        fix = "ulimit -l unlimited (LimitMEMLOCK=infinity in systemd), or CAP_IPC_LOCK"
        found.append(Finding("permissions", "warning", f"only {int(locked):,} bytes may be locked", fix))
    priority = limits.get("Max realtime priority", "0")
    if capabilities >> CAP_SYS_NICE & 1 or priority not in ("0", ""):
        found.append(Finding("permissions", "good", "SCHED_FIFO may be used"))
    else:
        fix = "ulimit -r 10 (LimitRTPRIO=10 in systemd), or CAP_SYS_NICE"
        found.append(
            Finding("permissions", "note", "SCHED_FIFO may not be used; only a config that asks needs it", fix)
        )
    return found


def _shared_memory(root: Path) -> list[Finding]:
    """See whether the rings fit."""
    path = root / "dev/shm"
    if not path.is_dir():
        return [Finding("memory", "warning", "no /dev/shm", "mount -t tmpfs -o size=1g tmpfs /dev/shm")]
    free = psutil.disk_usage(str(path)).free
    if free < SHM_BYTES:
        fix = "mount -o remount,size=1g /dev/shm (containers: --shm-size=1g)"
        return [Finding("memory", "warning", f"{free >> 20} MiB free in /dev/shm, {SHM_BYTES >> 20} wanted", fix)]
    return [Finding("memory", "good", f"{free >> 20:,} MiB free in /dev/shm")]


def _clock(root: Path) -> list[Finding]:
    """See whether reading the clock is cheap."""
    folder = root / "sys/devices/system/clocksource/clocksource0"
    current = _read(folder / "current_clocksource") or "unknown"
    if current in GOOD_CLOCKS:
        return [Finding("clock", "good", f"{current}: read without a system call")]
    offered = _read(folder / "available_clocksource") or ""
    better = next((one for one in GOOD_CLOCKS if one in offered.split()), "tsc")
    fix = f"echo {better} > /sys/devices/system/clocksource/clocksource0/current_clocksource"
    return [Finding("clock", "warning", f"{current}: each reading is a system call, of a microsecond or more", fix)]


def _load(root: Path) -> list[Finding]:
    """See what else is running."""
    cpus = len(numa.cpu_list(_read(root / "sys/devices/system/cpu/online") or "0"))
    text = (_read(root / "proc/loadavg") or "").split()
    if not text:
        return [Finding("load", "note", "cannot be read")]
    load = float(text[0])
    if load > cpus / 2:
        fix = "stop what else runs here, or give it SCHED_IDLE (chrt --idle 0)"
        return [Finding("load", "warning", f"{load:g} on {cpus} CPUs: stages will wait for their turn", fix)]
    return [Finding("load", "good", f"{load:g} on {cpus} CPUs")]


_CHECKS = (_cpus, _isolation, _governor, _huge_pages, _numa, _nics, _permissions, _shared_memory, _clock, _load)
