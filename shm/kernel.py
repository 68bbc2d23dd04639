"""The one compile decorator.

`kernel` compiles a function with Numba and caches the machine code on disk. Numba notices only edits to the file
that holds a kernel, never edits to the kernels it inlines from other files, so each module's cache lives in a folder
named by a digest of that module's source and of every ShrivenQ source it imports, directly or not.

`NUMBA_DISABLE_JIT=1` leaves every kernel an ordinary Python function, for debuggers and coverage.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import numba
import numba.extending

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

if not __debug__:
    raise RuntimeError("shrivenq does not run under python -O: its kernels' assertions are part of its safety")

COMPILED: bool = not numba.config.DISABLE_JIT
"""False when kernels run as plain Python (`NUMBA_DISABLE_JIT=1`)."""

_IMPORT = re.compile(r"^\s*from\s+(shrivenq[\w.]*)\s+import\s+(\([^)]*\)|[^\n]*)", re.MULTILINE)
_closures: dict[Path, dict[Path, bytes]] = {}


def _source(module: str) -> Path | None:
    """Find the file of a ShrivenQ module without importing it; None for a name that is no module."""
    top, _, rest = module.partition(".")
    first, _, deeper = rest.partition(".")
    found = importlib.util.find_spec(f"{top}.{first}") if first else None
    name = f"{top}.{first}"
    for part in deeper.split(".") if deeper else ():
        if found is None or found.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        found = PathFinder.find_spec(name, found.submodule_search_locations)
    return Path(found.origin) if found and found.origin else None


def _closure(path: Path) -> dict[Path, bytes]:
    """Collect the sources that can end up inside a kernel of `path`: itself and its ShrivenQ imports, transitively."""
    if path not in _closures:
        text = path.read_bytes()
        # Entered before recursing, so that an import cycle ends.
        _closures[path] = sources = {path: text}
        for package, names in _IMPORT.findall(text.decode()):
            submodules = [f"{package}.{name}" for name in re.findall(r"(\w+)(?:\s+as\s+\w+)?", names)]
            for module in (package, *submodules):
                found = _source(module)
                if found is not None and found not in sources:
                    sources.update(_closure(found))
    return _closures[path]


def cache_folder(path: Path) -> Path:
    """Name the folder that caches the kernels of the source file `path`.

    `SHRIVENQ_CACHE` overrides the place, by default `~/.cache/shrivenq`.
    """
    digest = hashlib.sha256()
    for source, text in sorted(_closure(path).items()):
        digest.update(source.name.encode() + b"\0" + text)
    base = os.environ.get("SHRIVENQ_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "shrivenq"
    return Path(base).expanduser() / digest.hexdigest()[:20]


def is_cached(function: Any) -> bool:
    """Tell whether machine code of a kernel that Python calls may be on disk; always, where nothing is compiled."""
    if not COMPILED:
        return True
    code = function.py_func.__code__
    return any(cache_folder(Path(code.co_filename)).glob(f"*/*.{code.co_name}-*.nbc"))


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` on first use, cached on disk.

    Kernels take arrays, records and numbers, allocate nothing, and raise nothing: they return codes.
    Integer arithmetic wraps silently; divisions by zero give 0 (`error_model="numpy"`).

    They are compiled without Numba's runtime: one that allocates is refused at compile time, and passing an array on
    costs no reference count (two atomic additions a call). An array that a kernel returns to Python must be one of
    its arguments.
    """
    return _compile(function, None, forceinline=False)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile like `kernel` what always becomes part of its caller: for a few lines called once a message.

    Passing a ring to a function that is not inlined costs two dozen stores, more than taking a slot does.
    """
    return _compile(function, None, forceinline=True)


def kernel_of(signature: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile with one explicit Numba `signature`, at once: needed where a function is passed as a value."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        return _compile(function, signature, forceinline=False)

    return decorate


def intrinsic(typed: Callable[..., Any]) -> Any:
    """Register a function that emits LLVM; see `numba.extending.intrinsic`. Only where COMPILED."""
    return numba.extending.intrinsic(typed)


def _compile(function: Callable[P, R], signature: Any, *, forceinline: bool) -> Callable[P, R]:
    if not COMPILED:
        return function
    options = {"nogil": True, "error_model": "numpy", "forceinline": forceinline, "_nrt": False}
    folder = cache_folder(Path(function.__code__.co_filename))
    inner = _dispatcher(
        function, signature, folder / "inner", no_cpython_wrapper=True, no_cfunc_wrapper=True, **options
    )
    if signature:
        return cast("Callable[P, R]", inner)
    # The code that unpacks Python arguments takes longer to compile than most kernels, and a kernel that is called by
    # other kernels only never needs it. So there are two dispatchers: Python calls this one, kernels the inner one.
    outer = _dispatcher(function, None, folder, **options)
    outer.get_call_template = functools.partial(_call_template, inner)
    outer.get_overload = inner.get_overload
    return cast("Callable[P, R]", outer)


def _call_template(inner: Any, arguments: Any, keywords: Any) -> Any:
    """Compile for the types of a call, not for its literal values: `f(a, 1)` and `f(a, 2)` are one compilation."""
    plain = tuple(numba.types.unliteral(one) for one in arguments)
    return inner.get_call_template(plain, {name: numba.types.unliteral(one) for name, one in keywords.items()})


def _dispatcher(function: Callable[P, R], signature: Any, folder: Path, **options: Any) -> Any:
    previous = numba.config.CACHE_DIR
    # Numba reads the setting while it decorates; the next module gets its own folder.
    numba.config.CACHE_DIR = str(folder)
    try:
        return numba.njit(signature, cache=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = previous
