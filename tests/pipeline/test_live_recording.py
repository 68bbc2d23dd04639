"""A recorded run on live market data in SBE: done again it gives the same orders, and its key is seen by nobody."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import zstandard

from shrivenq.pipeline import inspection
from shrivenq.pipeline.config import SHIPPED
from shrivenq.shm import ring, segment
from shrivenq.shm.atomics import load_word
from tests.pipeline.command_rig import MAIN, armed, command, stopped, until
from tests.pipeline.exchange.exchange_rig import ED25519_PEM, FLOWING, running

NAME = "test-live-recording"
CANARY = "CanaryOfMarketData0123456789"
PUBLIC = "MCowBQYDK2VwAyEAGUIKv9dSpWXBViXp2m6vAIb8QMFJYBgyFEQsFJlqgA0="
KEY = f'environment = "simulator"\npurpose = "data"\napi_key = "{CANARY}"\nprivate_key = """\n{ED25519_PEM}"""\n'
ORDERS = 60
SHM = "/dev/shm"  # noqa: S108 - where the segments are

pytestmark = pytest.mark.slow


@pytest.fixture
def venue(tmp_path):
    with running(
        tmp_path,
        market=FLOWING | {"price": {"BTCUSDT": "61800", "ETHUSDT": "2610"}},
        instruments={"file": "instruments_binance_spot.toml"},
        keys={"trader": {"account": "trader", "api_key": CANARY, "public_key": PUBLIC}},
    ) as rig:
        yield rig


def configured(folder, venue):
    """The shipped configuration for the simulator, on SBE and with nothing started beside it."""
    (folder / "key").write_text(KEY)
    (folder / "key").chmod(0o600)
    text = (SHIPPED / "simulator.toml").read_text()
    for old, new in (
        ('name = "simulator"', f'name = "{NAME}"'),
        ('stream_url = "ws://127.0.0.1:9443"', f'stream_url = "{venue.ws}/sbe"'),
        ('rest_url = "http://127.0.0.1:9443"', f'rest_url = "{venue.rest}"'),
        ('encoding = "json"', 'encoding = "sbe"'),
        ('key = ""', f'key = "file:{folder / "key"}"'),
        ('streams = ["depth@100ms", "trade", "bookTicker"]', 'streams = ["depth", "trade", "bestBidAsk"]'),
        ('file = "exchange"', 'file = ""'),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "sbe.toml").write_text(text)
    return folder / "sbe.toml"


def say(*arguments):
    done = subprocess.run([*MAIN, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_recorded_run_in_sbe_is_done_again_and_shows_no_key(tmp_path, monkeypatch, venue):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))
    config, folder = configured(tmp_path, venue), tmp_path / "recording"
    with command(NAME, "record", config, "--path", folder) as process:
        found = until(lambda: armed(NAME), process)
        orders = found.part("to_venue").array("producer")
        until(lambda: int(load_word(orders, ring.HEAD)) >= ORDERS, process)
        shown = json.loads(say("status", NAME, "--json"))["market_data"]
        assert shown["connected"] == "yes"
        assert shown["venue_clock_error_ms"] > 0
        for name in segment.names(f"{NAME}."):
            assert CANARY.encode() not in Path(SHM, name).read_bytes(), name
        stopped(process, NAME)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "key":
            content = path.read_bytes()
            if path.suffix == ".zst":
                content = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read()
            assert CANARY.encode() not in content, path
    again = json.loads(say("reproduce", folder / "arrivals" / f"{NAME}-0001.zst", "--json"))
    assert again["identical"], again
    assert again["orders"] >= ORDERS
    (recorded,) = folder.glob("*.zst")
    lines = zstandard.ZstdDecompressor().stream_reader(recorded.read_bytes(), read_across_frames=True).read()
    assert lines.count(b" base64:") > 100
    with pytest.raises(inspection.InspectionError):
        inspection.attach(NAME)
