"""Placement: which stage runs on which CPU, and how it waits.

What the configuration does not say is worked out from the machine: one NUMA node, isolated CPUs first, one thread of
each core before the second, in path order. A stage alone on its CPU, with a CPU left for the rest, spins; others
yield. What runs beside the stages keeps off their CPUs, where there are others. SCHED_FIFO is used only where the
configuration asks for it and that is safe: five yielding FIFO processes on shared CPUs starve everything else.

What cannot be had is a line of warning, and the stage goes on without it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shrivenq.shm import numa, wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shrivenq.pipeline.config import Config

SYSTEM = Path("/sys/devices/system")
FIFO_PRIORITY = 10
SIDE_NICE = 19


@dataclass(frozen=True)
class Machine:
    """What placement needs to know of a machine."""

    topology: numa.Topology
    cpus: tuple[int, ...]  # that this process may use, isolated ones included
    isolated: tuple[int, ...]
    siblings: dict[int, tuple[int, ...]]  # hardware threads of the same core


def look(system: Path = SYSTEM, cpus: Iterable[int] | None = None) -> Machine:
    """Look at the machine; `cpus` is what this process may use, by default its affinity and the isolated CPUs.

    The kernel leaves isolated CPUs out of everybody's affinity, but lets them be asked for.
    """
    topology = numa.topology(system / "node")
    isolated = _cpu_list(system / "cpu/isolated")
    usable = tuple(sorted(set(os.sched_getaffinity(0) if cpus is None else cpus) | set(isolated)))
    siblings = {cpu: _cpu_list(system / f"cpu/cpu{cpu}/topology/thread_siblings_list") or (cpu,) for cpu in usable}
    return Machine(topology, usable, isolated, siblings)


def _cpu_list(path: Path) -> tuple[int, ...]:
    try:
        return numa.cpu_list(path.read_text())
    except OSError:
        return ()


@dataclass(frozen=True)
class Place:
    """Where and how one stage runs."""

    cpu: int
    node: int
    wait: int  # shm.wait: SPIN or YIELD
    fifo: bool = False


@dataclass
class Plan:
    """A place for every stage, and what could not be had as asked."""

    places: dict[str, Place]
    problems: dict[str, list[str]] = field(default_factory=dict)
    beside: tuple[int, ...] = ()
    """CPUs that no stage has."""

    def wait_of(self, name: str) -> int:
        """Tell how a stage waits."""
        return self.places[name].wait

    def node_of(self, name: str) -> int:
        """Tell a stage's NUMA node."""
        return self.places[name].node

    def apply(self, name: str) -> list[str]:
        """Pin the calling process as planned for `name`; return what could not be had, one line each."""
        place = self.places[name]
        problems = list(self.problems.get(name, ()))
        try:
            os.sched_setaffinity(0, {place.cpu})
        except OSError as error:
            problems.append(f"{name}: not pinned to CPU {place.cpu}: {error.strerror}")
        numa.forget_node()
        if place.fifo:
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
            except OSError as error:
                problems.append(f"{name}: no SCHED_FIFO: {error.strerror} (ulimit -r, or CAP_SYS_NICE)")
        return problems

    def step_aside(self) -> None:
        """Keep the calling process, and what it forks, off the stages' CPUs, where there are others."""
        if self.beside:
            with contextlib.suppress(OSError):  # it may have lost them meanwhile: then it runs where it may
                os.sched_setaffinity(0, self.beside)

    def rows(self) -> list[tuple[str, int, int, str, str]]:
        """List stage, CPU, node, wait and scheduler, for people."""
        names = {number: name for name, number in wait.NAMES.items()}
        return [
            (name, place.cpu, place.node, names[place.wait], "fifo" if place.fifo else "other")
            for name, place in self.places.items()
        ]


def plan(config: Config, groups: Sequence[Sequence[str]], *, machine: Machine | None = None) -> Plan:
    """Place stages, in path order; those of one group, which share a process, where the first of them is placed."""
    found = machine or look()
    movers = [group[0] for group in groups]
    said = {name: config.stages.get(name) for name in movers}
    problems: dict[str, list[str]] = {name: [] for name in movers}
    chosen = _choose(found, said, problems)
    places = {}
    for name in movers:
        cpu = chosen[name]
        alone = list(chosen.values()).count(cpu) == 1 and len(found.cpus) > len(set(chosen.values()))
        own = said[name]
        how = wait.SPIN if alone else wait.YIELD
        if own is not None and own.wait != "auto":
            how = wait.NAMES[own.wait]
        fifo = own is not None and own.scheduler == "fifo"
        if fifo and not alone:
            problems[name].append(f"{name}: no SCHED_FIFO: CPU {cpu} is shared, or none is left for the rest")
            fifo = False
        places[name] = Place(cpu, found.topology.node_of(cpu), how, fifo)
    taken = {place.cpu for place in places.values()}
    beside = tuple(cpu for cpu in found.cpus if cpu not in taken and cpu not in found.isolated)
    return Plan({name: places[group[0]] for group in groups for name in group}, problems, beside)


def _choose(machine: Machine, said: dict[str, Any], problems: dict[str, list[str]]) -> dict[str, int]:
    """Choose a CPU for each stage: what was said first, then those of one node, free ones before taken ones."""
    chosen: dict[str, int] = {}
    for name, own in said.items():
        if own is None or own.cpu is None:
            continue
        if own.cpu in machine.cpus:
            chosen[name] = own.cpu
        else:
            problems[name].append(f"{name}: CPU {own.cpu} is not available, only {_words(machine.cpus)}")
    free = [name for name in said if name not in chosen]
    taken = set(chosen.values())
    preferred = _best_node(machine, len(free), taken, list(chosen.values()))
    turns: dict[int, int] = {}
    for name in free:
        own = said[name]
        node = preferred if own is None or own.node is None else own.node
        order = _order(machine, node)
        if not order:
            problems[name].append(f"{name}: node {node} has no usable CPU")
            node = preferred
            order = _order(machine, node)
        order = _reserve([cpu for cpu in order if cpu not in taken] or order, machine, len(free), taken)
        chosen[name] = order[turns.get(node, 0) % len(order)]
        turns[node] = turns.get(node, 0) + 1
    return chosen


def _reserve(order: list[int], machine: Machine, stages: int, taken: set[int]) -> list[int]:
    """Leave the last CPU to the rest of the machine where the stages do not need it."""
    everywhere = len(machine.cpus) - len(taken)
    return order[: max(stages, 1)] if stages < everywhere else order


def _best_node(machine: Machine, stages: int, taken: set[int], chosen: Sequence[int]) -> int:
    """Choose the node of the stages already placed, else one with enough isolated CPUs, else with the most CPUs."""
    if chosen:
        return machine.topology.node_of(chosen[0])

    def merit(node: numa.Node) -> tuple[int, int, int]:
        usable = [cpu for cpu in node.cpus if cpu in machine.cpus and cpu not in taken]
        isolated = sum(cpu in machine.isolated for cpu in usable)
        return min(isolated, stages), min(len(usable), stages), -node.number

    return max(machine.topology.nodes, key=merit).number


def _order(machine: Machine, number: int) -> list[int]:
    """Order a node's usable CPUs: isolated first, first threads of cores before second ones, CPU 0 last of its kind."""
    cpus = [
        cpu
        for node in machine.topology.nodes
        if node.number == number
        for cpu in (node.cpus or machine.cpus)
        if cpu in machine.cpus
    ]

    def rank(cpu: int) -> tuple[bool, int, bool, int]:
        return cpu not in machine.isolated, machine.siblings[cpu].index(cpu), cpu == 0, cpu

    return sorted(cpus, key=rank)


def _words(cpus: Iterable[int]) -> str:
    return ", ".join(map(str, cpus))


def apply_side() -> list[str]:
    """Make the calling process one that runs only when nothing else wants the CPU; return what could not be had."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        os.setpriority(os.PRIO_PROCESS, 0, SIDE_NICE)
        return [f"no SCHED_IDLE: {error.strerror}; nice {SIDE_NICE} instead"]
    return []
