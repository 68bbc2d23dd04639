"""Run every test, in two halves side by side: most of the time goes into compiling and into waiting.

`python tests/run.py` runs both; with arguments it is pytest with these arguments. The second half is printed when both
have ended. The exit code is 0 only if both passed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PIPELINE = TESTS / "pipeline"
OTHERS = [
    PIPELINE / one
    for one in ("exchange", "test_canary.py", "test_live_fix.py", "test_live_orders.py", "test_reproduce.py")
]
"""Of the pipeline's tests, what the other half has time for."""


def halves() -> list[list[str]]:
    """List the arguments of each half, about as long as each other; together they are everything there is."""
    rest = [one for one in sorted(TESTS.iterdir()) if one.is_dir() or one.name.startswith("test_")]
    rest = [one for one in rest if not one.name.startswith(("_", ".")) and one != PIPELINE]
    return [[str(PIPELINE), *(f"--ignore={one}" for one in OTHERS)], [*map(str, rest), *map(str, OTHERS)]]


def main(arguments: list[str]) -> int:
    """Run the tests; return the exit code."""
    pytest = [sys.executable, "-m", "pytest"]
    if arguments:
        return subprocess.run([*pytest, *arguments], check=False).returncode
    first, second = [[*pytest, "-o", f"cache_dir=.pytest_cache/{i}", *paths] for i, paths in enumerate(halves())]
    with tempfile.TemporaryFile() as output, subprocess.Popen(second, stdout=output, stderr=subprocess.STDOUT) as other:
        code = subprocess.run(first, check=False).returncode
        other.wait()
        output.seek(0)
        sys.stdout.buffer.write(output.read())
    return code or other.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
