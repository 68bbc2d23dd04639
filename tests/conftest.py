"""Shared fixtures: where the captured data is, and that no test leaves shared memory behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
