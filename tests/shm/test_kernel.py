"""The compile decorator: caches that follow the sources, kernels that allocate nothing, plain Python on request."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from shrivenq.shm import kernel as module
from shrivenq.shm.kernel import COMPILED, cache_folder, inlined, kernel

compiled_only = pytest.mark.skipif(not COMPILED, reason="about compiled kernels")

PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import shrivenq
shrivenq.__path__.append({folder!r})  # the package under test gets two modules more
from shrivenq.outer import outer
from shrivenq.alone import alone
import numpy as np
from shrivenq.shm.kernel import COMPILED, cache_folder
from pathlib import Path
print(outer(1), alone(1))
if COMPILED:
    stats = [one.stats for one in (outer, alone)]
    print(*[f"{{sum(one.cache_hits.values())}}/{{sum(one.cache_misses.values())}}" for one in stats])
    print(*[cache_folder(Path({folder!r}) / name).name for name in ("inner.py", "outer.py", "alone.py")])
"""


@pytest.fixture
def package(tmp_path):
    """Three modules of kernels: `outer` imports `inner`, `alone` imports nothing of theirs."""
    head = "from shrivenq.shm.kernel import kernel\n"
    (tmp_path / "inner.py").write_text(f"{head}@kernel\ndef inner(x):\n    return x + 1\n")
    (tmp_path / "outer.py").write_text(
        f"from shrivenq.inner import inner\n{head}@kernel\ndef outer(x):\n    return inner(x) * 10\n"
    )
    (tmp_path / "alone.py").write_text(f"{head}@kernel\ndef alone(x):\n    return x + 5\n")
    return tmp_path


def run(package, **environment):
    """Run the program in a process of its own; its lines."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(folder=str(package))],
        env={**os.environ, "SHRIVENQ_CACHE": str(package / "cache"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@compiled_only
def test_second_process_hits_the_cache(package):
    assert run(package)[:2] == ["20 6", "0/1 0/1"]
    assert run(package)[:2] == ["20 6", "1/0 1/0"]


@compiled_only
def test_editing_an_imported_kernel_invalidates_its_importers_and_nobody_else(package):
    _, _, before = run(package)
    source = (package / "inner.py").read_text()
    (package / "inner.py").write_text(source.replace("x + 1", "x + 2"))
    result, hits, after = run(package)
    assert result == "30 6", "the old kernel was inlined"
    assert hits == "0/1 1/0"
    assert [one == other for one, other in zip(before.split(), after.split(), strict=True)] == [False, False, True]
    # Taking the edit back finds the old cache again.
    (package / "inner.py").write_text(source)
    assert run(package)[:2] == ["20 6", "1/0 1/0"]


def test_same_answers_as_plain_python(package):
    assert run(package, NUMBA_DISABLE_JIT="1") == ["20 6"]


def test_every_module_of_kernels_imports_as_plain_python():
    """Under NUMBA_DISABLE_JIT every kernel is an ordinary function that a debugger can step into."""
    root = Path(module.__file__).parent
    names = [f"shrivenq.shm.{path.stem}" for path in root.glob("*.py") if path.stem != "__init__"]
    program = textwrap.dedent(f"""
        import importlib, types
        for name in {names!r}:
            importlib.import_module(name)
        from shrivenq.shm import ring, wait
        assert isinstance(ring.claim, types.FunctionType) and isinstance(wait.idle, types.FunctionType)
        for kind in range(3):
            wait.idle(kind)
    """)
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_optimised_python_is_refused():
    command = [sys.executable, "-O", "-c", "import shrivenq.shm.kernel"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "does not run under python -O" in done.stderr


def test_import_cycles_end(tmp_path, monkeypatch):
    import shrivenq

    (tmp_path / "cycle_a.py").write_text("from shrivenq import cycle_b\n")
    (tmp_path / "cycle_b.py").write_text("from shrivenq.cycle_a import (\n    one,\n    two as three,\n)\n")
    monkeypatch.setattr(shrivenq, "__path__", [*shrivenq.__path__, str(tmp_path)])
    for one in "ab":
        assert len(cache_folder(tmp_path / f"cycle_{one}.py").name) == 20
    assert "shrivenq.cycle_a" not in sys.modules, "finding the sources imported them"
    assert set(module._closures[tmp_path / "cycle_a.py"]) >= {tmp_path / "cycle_b.py"}
    for one in list(module._closures):
        if tmp_path in one.parents:
            del module._closures[one]


def test_cache_place_can_be_chosen(monkeypatch, tmp_path):
    here = Path(__file__)
    monkeypatch.setenv("SHRIVENQ_CACHE", str(tmp_path))
    assert cache_folder(here).parent == tmp_path
    monkeypatch.delenv("SHRIVENQ_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(here).parent == tmp_path / "xdg" / "shrivenq"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder(here).parent == Path("~/.cache/shrivenq").expanduser()


@kernel
def divide(a, b):
    return a // b


@kernel
def allocates(count):
    return np.zeros(count)[0]


@inlined
def double(array):
    array[0] *= 2


@kernel
def quadruple(array):
    double(array)
    double(array)


@compiled_only
def test_division_by_zero_raises_nothing():
    assert divide(1, 0) == 0


@compiled_only
def test_kernel_that_allocates_does_not_compile():
    from numba.core.errors import NumbaError

    with pytest.raises((NumbaError, RuntimeError), match="Only accept returning of array passed into the function"):
        allocates(3)


@compiled_only
def test_passing_arrays_on_counts_no_references_and_inlined_is_inlined():
    array = np.array([3], dtype=np.int64)
    # A fresh dispatcher: what came from the cache shows no assembly.
    import numba

    options = {name: value for name, value in quadruple.targetoptions.items() if name != "nopython"}
    fresh = numba.njit(**options)(quadruple.py_func)
    fresh(array)
    assert array[0] == 12
    (assembly,) = fresh.inspect_asm().values()
    body = assembly.partition(".Lfunc_end0")[0]
    assert "NRT_" not in body
    assert "\tcall" not in body


def test_kernel_keeps_the_setting_of_others():
    import numba

    before = numba.config.CACHE_DIR
    kernel(lambda x: x)
    assert before == numba.config.CACHE_DIR


def test_whether_machine_code_is_on_disk(package):
    program = (
        f"import sys; sys.path.insert(0, {str(package)!r})\n"
        f"import shrivenq; shrivenq.__path__.append({str(package)!r})\n"
        "from shrivenq.outer import outer\n"
        "from shrivenq.shm.kernel import is_cached\n"
        "before = is_cached(outer); outer(1); print(before, is_cached(outer))\n"
    )
    environment = {**os.environ, "SHRIVENQ_CACHE": str(package / "cache")}
    told = [
        subprocess.run(
            [sys.executable, "-c", program], env={**environment, "NUMBA_DISABLE_JIT": plain}, capture_output=True,
            text=True, check=True,
        ).stdout.split()
        for plain in ("0", "0", "1")
    ]  # fmt: skip
    assert told == [["False", "True"], ["True", "True"], ["True", "True"]]
