"""Entry point of the `shrivenq` command: the kill switch before anything heavy is loaded, everything else after."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and exit."""
    if "--uncompiled" in sys.argv[1:]:
        # Numba reads this while it is imported; the whole pipeline then is plain Python, for a debugger.
        sys.argv.remove("--uncompiled")
        os.environ["NUMBA_DISABLE_JIT"] = "1"
    if sys.argv[1:2] == ["kill"]:
        from shrivenq.pipeline import kill

        sys.exit(kill.main(sys.argv[2:]))
    from shrivenq.pipeline import cli

    cli.main()
