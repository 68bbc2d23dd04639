"""Write the generated parts of ARCHITECTURE.md: the rings and the message tables. `--check` only compares.

.venv/bin/python docs/generate.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from shrivenq.pipeline.topology import RINGS
from shrivenq.stages.messages import MESSAGES

ARCHITECTURE = Path(__file__).resolve().parent.parent / "ARCHITECTURE.md"


def rings() -> str:
    """Tabulate the rings."""
    names = {id(dtype): name for name, (dtype, _) in MESSAGES.items()}
    lines = ["| ring | from → to | carries | slots | bytes |", "|---|---|---|---:|---:|"]
    for one in RINGS:
        carried = names[id(one.dtype)]
        lines.append(
            f"| `{one.name}` | {one.source} → {one.target} | {carried} | {one.count:,} "
            f"| {one.count * one.dtype.itemsize:,} |"
        )
    return "\n".join(lines)


def messages() -> str:
    """Tabulate every field of every message."""
    parts = []
    for name, (dtype, fields) in MESSAGES.items():
        parts.append(f"### {name}, {dtype.itemsize} bytes\n\n| offset | field | type | meaning |\n|---:|---|---|---|")
        parts.extend(f"| {offset} | `{field}` | `{form}` | {text} |" for field, form, offset, text in fields)
        parts.append("")
    return "\n".join(parts).rstrip()


def generated(text: str) -> str:
    """Replace what stands between the markers."""
    for mark, made in (("rings", rings()), ("messages", messages())):
        before, _, rest = text.partition(f"<!-- {mark} -->")
        _, _, after = rest.partition(f"<!-- /{mark} -->")
        text = f"{before}<!-- {mark} -->\n{made}\n<!-- /{mark} -->{after}"
    return text


def main() -> int:
    """Write, or compare; 1 if the file is not fresh."""
    found = ARCHITECTURE.read_text()
    made = generated(found)
    if "--check" in sys.argv[1:]:
        if made != found:
            print(f"{ARCHITECTURE.name}: not fresh: run .venv/bin/python docs/generate.py", file=sys.stderr)
            return 1
        return 0
    ARCHITECTURE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
