"""What every benchmark prints with: a table for people, or one JSON object per line with `--json`.

    report = Report("ring")
    found = interleaved(5, {"ours": ours, "peer": peer})  # each call returns {figure: value}
    for case, figures in found.items():
        report.row(case, "rtt_p50", "ns", figures["rtt_p50"])

Each line is `{"bench", "case", "figure", "unit", "value"}`. The first is always the machine's: case `machine`, figure
`description`, unit `text`, value one sentence (CPU, topology, load, versions). A case that could not run gets figure
`skipped`, unit `text`, and the reason as its value.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

NODES = Path("/sys/devices/system/node")


def machine() -> str:
    """Describe this machine in one sentence: CPU, topology, load, versions."""
    import numba

    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cpus = len(os.sched_getaffinity(0))
    nodes = len(list(NODES.glob("node[0-9]*"))) or 1
    kernel = platform.release().partition("-")[0]
    return (
        f"{model}, {cpus} CPU{'s' * (cpus != 1)}, {nodes} NUMA node{'s' * (nodes != 1)}, "
        f"load {os.getloadavg()[0]:.1f}, Linux {kernel}, "
        f"Python {platform.python_version()}, Numba {numba.__version__}"
    )


def _readable(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


class Report:
    """Print the figures of one benchmark; `sys.argv` may hold `--json` and nothing else."""

    def __init__(self, name: str, arguments: Iterable[str] | None = None) -> None:
        self.name = name
        given = list(sys.argv[1:] if arguments is None else arguments)
        if given not in ([], ["--json"]):
            sys.exit(f"usage: {name}.py [--json]")
        self.json = bool(given)
        self.row("machine", "description", "text", machine())

    def row(self, case: str, figure: str, unit: str, value: float | str) -> None:
        """Print one figure."""
        plain: Any = value.item() if hasattr(value, "item") else value
        if self.json:
            line = {"bench": self.name, "case": case, "figure": figure, "unit": unit, "value": plain}
            print(json.dumps(line), flush=True)
        elif unit == "text":
            print(f"{self.name:<14} {case:<16} {figure}: {plain}", flush=True)
        else:
            print(f"{self.name:<14} {case:<16} {figure:<18} {_readable(plain):>16} {unit}", flush=True)

    def skip(self, case: str, reason: str) -> None:
        """Say why a case has no figures."""
        self.row(case, "skipped", "text", reason)


def interleaved(
    rounds: int,
    cases: Mapping[str, Callable[[], Mapping[str, float]]],
    choose: Callable[[list[float]], Any] = statistics.median,
) -> dict[str, dict[str, Any]]:
    """Run every case once a round, the order reversed each round, so that noise falls on peers alike.

    Each call returns `{figure: value}`; the answer is, for each case and figure, `choose` of its rounds (the median;
    `list` keeps them all, for ratios within a round).
    """
    seen: dict[str, dict[str, list[float]]] = {case: {} for case in cases}
    for turn in range(rounds):
        order = list(cases.items())
        for case, call in order if turn % 2 == 0 else reversed(order):
            for figure, value in call().items():
                seen[case].setdefault(figure, []).append(float(value))
    return {case: {figure: choose(values) for figure, values in found.items()} for case, found in seen.items()}
