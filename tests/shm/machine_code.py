"""A kernel's machine code, for tests that look at it."""

from __future__ import annotations

import numba


def fresh(function, *arguments):
    """Compile a kernel anew, since what comes from the cache shows no code; its dispatcher."""
    options = {name: value for name, value in function.targetoptions.items() if name != "nopython"}
    made = numba.njit(**options)(function.py_func)
    made(*arguments)
    return made


def instructions(assembly):
    """Instructions of the kernel itself: the first function in the listing."""
    lines = (line.strip().replace("\t", " ") for line in assembly.partition(".Lfunc_end0")[0].splitlines())
    return [line for line in lines if line and not line.startswith((".", "#", "_")) and not line.endswith(":")]
