"""Build the wheel, install it where no source is, and see that it works.

`make release` and `make test` run this. The fresh environment borrows the dependencies of the one that runs it by a
path file, but not its installation of ShrivenQ; so a run takes seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ("shm", "stages", "pipeline", "configs")
COPIED = (*PACKAGE, "pyproject.toml", "README.md", "LICENSE")

CHECK = """
import importlib, importlib.metadata, pathlib, pkgutil, sys
place = pathlib.Path(sys.argv[1]).resolve()
wanted = set(sys.argv[2].split(","))
assert importlib.metadata.version("shrivenq") == sys.argv[3]
found = set()
for layer in ("shm", "stages", "pipeline"):
    package = importlib.import_module(f"shrivenq.{layer}")
    for one in pkgutil.walk_packages(package.__path__, f"shrivenq.{layer}."):
        module = importlib.import_module(one.name)
        where = pathlib.Path(module.__file__).resolve()
        assert where.is_relative_to(place), f"{one.name} came from {where}"
        found.add(one.name)
assert wanted <= found, f"not in the wheel: {sorted(wanted - found)}"
import shrivenq.configs
folder = pathlib.Path(next(iter(shrivenq.configs.__path__)))
print(len(found), "modules,", len(list(folder.glob("*.toml"))), "configurations")
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command away from the sources; its output. Exits with its words if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def build(folder: Path) -> Path:
    """Build the wheel from a clean copy of what belongs in it."""
    source = folder / "source"
    source.mkdir()
    for name in COPIED:
        original = ROOT / name
        if original.is_dir():
            shutil.copytree(original, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif original.exists():
            shutil.copy(original, source / name)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    shutil.rmtree(source)
    return wheel


def modules() -> list[str]:
    """Name every module that must be in the wheel."""
    paths = [path.relative_to(ROOT) for layer in PACKAGE[:3] for path in (ROOT / layer).rglob("*.py")]
    names = [path.with_suffix("").as_posix().replace("/", ".") for path in paths]
    return sorted(f"shrivenq.{one}" for one in names if not one.endswith("__init__"))


def borrowed_dependencies(folder: Path) -> Path:
    """Link every installed distribution but ShrivenQ into a folder."""
    links = folder / "dependencies"
    links.mkdir()
    for original in Path(sysconfig.get_path("purelib")).iterdir():
        if "shrivenq" not in original.name and original.suffix != ".pth":
            (links / original.name).symlink_to(original)
    return links


def main() -> None:
    """Build, install, check."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        with zipfile.ZipFile(wheel) as archive:
            stray = [one for one in archive.namelist() if "/" not in one]
        if stray:
            sys.exit(f"the wheel holds files at its top: {stray}")
        run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
        python = folder / "venv" / "bin" / "python"
        site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
        run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
        (site / "borrowed.pth").write_text(f"{borrowed_dependencies(folder)}\n")
        said = run(python, "-c", CHECK, site, ",".join(modules()), project["version"], cwd=folder)
        command = folder / "venv" / "bin" / "shrivenq"
        if "kill" not in run(command, "--help", cwd=folder):
            sys.exit("shrivenq --help does not tell of kill")
        if project["version"] not in run(command, "version", cwd=folder):
            sys.exit("shrivenq version does not tell the version")
        print(f"{wheel.name}: {wheel.stat().st_size:,} bytes, {said.strip()}; command and imports work")


if __name__ == "__main__":
    main()
