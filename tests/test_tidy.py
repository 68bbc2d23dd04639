"""Tests about the code itself: what imports what, what is packaged, what is documented, what is tested."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("shm", "stages", "pipeline")
LINES_MAX = 500
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")

SOURCES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
PROGRAMS = sorted(
    path for folder in (*LAYERS, "bench", "tests", "configs", "deploy") for path in (ROOT / folder).rglob("*.py")
)


def short(path):
    return str(path.relative_to(ROOT))


def sources(function):
    return pytest.mark.parametrize("path", SOURCES, ids=short)(function)


def imported(path):
    """Every ShrivenQ module a file imports, at whatever level and depth, as (line, name)."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, one.name) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "." * node.level + (node.module or "")))
            found += [(node.lineno, f"{node.module}.{one.name}") for one in node.names]
    return found


@sources
def test_imports_point_one_way(path):
    """`shm` knows nothing of trading, `stages` nothing of processes: shm ← stages ← pipeline."""
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    for line, name in imported(path):
        assert not name.startswith("."), f"{short(path)}:{line}: relative imports hide the layer"
        assert name.split(".")[0] not in LAYERS, f"{short(path)}:{line}: imports a second copy of {name}"
        for above in LAYERS[layer + 1 :]:
            assert not (name + ".").startswith(f"shrivenq.{above}."), f"{short(path)}:{line}: {LAYERS[layer]} ← {above}"


def test_packages_are_the_folders():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {"configs": "shrivenq.configs"}
    for layer in LAYERS:
        for path in (ROOT / layer, *(ROOT / layer).rglob("*")):
            if path.is_dir() and path.name != "__pycache__" and any(path.glob("*.py")):
                folders[short(path)] = "shrivenq." + short(path).replace("/", ".")
    assert sorted(project["packages"]) == sorted(folders.values())
    assert project["package-dir"] == {name: folder for folder, name in folders.items()}


@sources
def test_everything_public_is_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{short(path)} does not say what it is"

    def check(body, owner):
        for node in body:
            if isinstance(node, ast.If) and not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
                check(node.body, owner)  # not `orelse`: the plain Python twins of what is documented there
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name[0] == "_":
                continue
            assert ast.get_docstring(node), f"{short(path)}:{node.lineno}: {owner}{node.name} has no docstring"
            if isinstance(node, ast.ClassDef):
                check(node.body, f"{node.name}.")

    check(tree.body, "")


@pytest.mark.parametrize("path", PROGRAMS, ids=short)
def test_no_file_is_too_long_to_read_at_one_sitting(path):
    lines = len(path.read_text().splitlines())
    assert lines <= LINES_MAX, f"{short(path)} has {lines} lines"


@pytest.mark.parametrize("path", PROGRAMS, ids=short)
def test_nothing_unfinished_is_left_in(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for word in UNFINISHED:
            assert word not in line, f"{short(path)}:{number}: {line.strip()}"


@sources
def test_every_source_file_has_a_test_file(path):
    if path.name == "__init__.py":
        pytest.skip("holds no code")
    inside = path.relative_to(ROOT)
    twin = ROOT / "tests" / inside.parent / f"test_{inside.name}"
    assert twin.exists(), f"{short(path)} has no {twin.relative_to(ROOT)}"


def test_init_files_hold_no_code():
    for path in SOURCES:
        if path.name == "__init__.py":
            assert len(ast.parse(path.read_text()).body) <= 1, short(path)


def test_changelog_has_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    assert any(line.startswith((f"## [{version}]", f"## {version}")) for line in lines), f"no section for {version}"
