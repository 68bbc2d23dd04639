"""Shared fixtures: where the captured data is, and that no test leaves shared memory behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import pytest

from shrivenq.pipeline import state

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SHRIVENQ_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of captured market data; where it is absent tests skip, and fail under CI."""
    if not DATA.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"no captured data in {DATA}: set SHRIVENQ_DATA")
        pytest.skip(f"no captured data in {DATA}: set SHRIVENQ_DATA")
    return DATA


@pytest.fixture(scope="session", autouse=True)
def _locks_of_killed_runs():
    """Remove what pipelines that were killed leave of their names' locks; those that are held are somebody's."""
    yield
    for path in state.SHARED.glob("shrivenq-test-*.lock"):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), path.open() as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
