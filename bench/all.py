"""Run every benchmark of this folder and write their figures into README.md.

The table goes between the lines `<!-- figures -->` and `<!-- /figures -->`. Names on the command line choose some
programs (`bench/all.py ring decode`): the figures of the others are kept as the table has them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
README = FOLDER.parent / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
HEADING = ["| program | case | figure | value | unit |", "|---|---|---|---:|---|"]
TIME_LIMIT_S = 600
HELPERS = ("all", "bare", "clients", "fix_desk", "harness", "live", "openssl", "peer", "peer_state", "report", "venue")
"""What is here besides programs."""


def programs() -> list[str]:
    """Name the benchmark programs of this folder."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in HELPERS)


def run(name: str) -> list[dict[str, Any]]:
    """Run one program and return its rows; raises CalledProcessError if it fails."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--json"]
    print(f"{name} …", file=sys.stderr, flush=True)
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIME_LIMIT_S)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _figure(value: float | str) -> str:
    if isinstance(value, str):
        return value
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def lines_of(rows: list[dict[str, Any]]) -> list[str]:
    """Write rows as lines of the markdown table; the machine's becomes a line of its own above it."""
    return [
        f"| `{row['bench']}` | {row['case']} | {row['figure']} | {_figure(row['value'])} | {row['unit']} |"
        for row in rows
        if row["case"] != "machine"
    ]


def insert(text: str, machine: str, lines: list[str]) -> str:
    """Put the table between the markers of `text`. Raises ValueError when they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {BEGIN} … {END}")
    table = "\n".join([*HEADING, *lines])
    return f"{before}{BEGIN}\n\nMachine: {machine}.\n\n{table}\n\n{END}{after}"


def kept(text: str, chosen: list[str]) -> list[str]:
    """Find the lines of programs that are not run this time."""
    between = text.partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in between.splitlines() if line.startswith("| `")]
    return [line for line in rows if line.split("`")[1] not in chosen and line.split("`")[1] in programs()]


def main() -> int:
    """Run the programs, one after the other: each wants the CPUs to itself."""
    chosen = sys.argv[1:] or programs()
    unknown = sorted(set(chosen) - set(programs()))
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(programs())}", file=sys.stderr)
        return 2
    lines, machine, failed = kept(README.read_text(), chosen), "", []
    for name in chosen:
        try:
            rows = run(name)
        except subprocess.CalledProcessError as error:
            print(f"{name} failed ({error.returncode}): {error.stderr.strip()[-2000:]}", file=sys.stderr)
            failed.append(name)
            continue
        except subprocess.TimeoutExpired:
            print(f"{name} took more than {TIME_LIMIT_S} s", file=sys.stderr)
            failed.append(name)
            continue
        machine = machine or str(rows[0]["value"])
        lines += lines_of(rows)
    if machine:
        README.write_text(insert(README.read_text(), machine, sorted(lines, key=lambda line: line.split("`")[1])))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
