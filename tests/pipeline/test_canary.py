"""A live run with a key that can be recognised: in nothing that the run leaves, refused, killed or crashed, is it seen.

The private key is nowhere but in its file: raw, in hexadecimal, in base64, as lines of PEM, or in part. The API key,
which is public but names the account, is nowhere either: only the protocol sends it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline import inspection, keys, live_key, state
from shrivenq.pipeline.exchange.faults import Rule, Script
from shrivenq.shm import segment
from shrivenq.stages import live_venue
from tests.pipeline import command_rig
from tests.pipeline.exchange.exchange_rig import FLOWING, running
from tests.pipeline.test_supervisor import Run

NAME = "test-canary"
SHIPPED_KEY = "file:~/.config/shrivenq/simulator.key"
RAW = b"canary: nobody may see this one."
API_KEY = "CanaryApiKeyThatNobodyMaySee"
SIGNER = Ed25519PrivateKey.from_private_bytes(RAW)
PEM = SIGNER.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
PUBLIC = base64.b64encode(
    SIGNER.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
BODY = PEM.splitlines()[1]
PART = 12
"""Bytes by which a part of a spelling is recognised: whoever shows twice as many shows one of these."""
NOTHING = bytes(4096)


def spellings():
    """Spell the private key in every way somebody might, cut into parts."""
    whole = [RAW, RAW.hex().encode(), RAW.hex().upper().encode(), base64.b64encode(RAW), BODY[16:].encode()]
    whole += [base64.urlsafe_b64encode(RAW), repr(RAW).encode(), str(list(RAW)).encode(), RAW[::-1]]
    return {one[at : at + PART] for one in whole for at in range(0, len(one) - PART + 1, PART)} | {API_KEY.encode()}


PARTS = spellings()


def shows(content: bytes) -> list[bytes]:
    """List what of the key is in it."""
    content = content.replace(NOTHING, b"")  # rings are mostly empty
    return [one for one in PARTS if one in content]


def assert_clean(**found):
    """Fail for whatever shows something of the key; `found` are bytes or text by what they are."""
    for what, content in found.items():
        seen = shows(content if isinstance(content, bytes) else content.encode())
        assert not seen, f"{what}: {seen[:3]}"


pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))


@pytest.fixture
def exchange(tmp_path):
    folder = tmp_path / "exchange"
    folder.mkdir()
    own = {"account": "trader", "api_key": API_KEY, "public_key": PUBLIC}
    limits = {"orders_10s": 100_000, "request_weight": 1_000_000, "connections": 100_000}
    with running(folder, market=FLOWING | {"spread_bps": 5.0}, keys={"trader": own}, limits=limits) as rig:
        yield rig


@pytest.fixture
def key(tmp_path):
    """The only place where it may be."""
    folder = tmp_path / "safe"
    folder.mkdir()
    path = folder / "key"
    path.write_text(
        f'environment = "simulator"\npurpose = "trade"\napi_key = "{API_KEY}"\nprivate_key = """\n{PEM}"""\n'
    )
    path.chmod(0o600)
    return path


@pytest.fixture
def configured(tmp_path, exchange, key):
    """The shipped live configuration against the exchange, recorded, with everything logged."""
    text = (configuration.SHIPPED / "live_simulator.toml").read_text()
    for found, other in (
        ('name = "live-simulator"', f'name = "{NAME}"'),
        ("127.0.0.1:9443", f"127.0.0.1:{exchange.port}"),
        (SHIPPED_KEY, f"file:{key}"),
        ("instruments_binance_spot.toml", str(tmp_path / "exchange" / "instruments.toml")),
        ('file = "exchange"  ', 'file = ""'),
        ('path = ""                         # a folder makes it record', f'path = "{tmp_path / "recorded"}"  #'),
        ("half_spread_ticks = 50", "half_spread_ticks = 2"),
        ("quantity = 500_000 ", "quantity = 2_000_000 "),
        ('price_min = "1000"', 'price_min = "1"'),
        ('price_min = "100"', 'price_min = "1"'),
        ("reject_streak_max = 50", "reject_streak_max = 100000"),
        ("silence_kill_ms = 5000.0", "silence_kill_ms = 60000.0"),
        ('level = "info"', 'level = "debug"'),
    ):
        assert found in text, found
        text = text.replace(found, other)
    path = tmp_path / "canary.toml"
    path.write_text(text)
    return path


def go_wrong(exchange, *rules):
    exchange.call(lambda: exchange.simulator.faults.arm(Script(rules=[Rule(**one) for one in rules])))


def command(*arguments):
    """Run a command; give all it says."""
    done = subprocess.run([*command_rig.MAIN, *map(str, arguments)], capture_output=True, timeout=120, check=False)
    return done.stdout + done.stderr


def processes():
    """List the run's processes, by what they have mapped; this one is none of them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{segment.PREFIX}{NAME}." in (folder / "maps").read_text():
                found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


def check_memory_and_processes():
    """Look through every segment of the run and at what its processes show of themselves."""
    names = segment.names(f"{NAME}.")
    assert names
    assert_clean(**{one: Path("/dev/shm", one).read_bytes() for one in names})  # noqa: S108
    pids = processes()
    assert len(pids) > 5
    for pid in pids:
        assert_clean(**{f"{pid}.{one}": Path(f"/proc/{pid}/{one}").read_bytes() for one in ("cmdline", "environ")})
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        (cores,) = [one for one in limits if one.startswith("Max core file size")]
        assert cores.split()[4:6] == ["0", "0"], "a core dump would hold the key"


def stage(name):
    (found,) = [one for one in inspection.status(inspection.attach(NAME))["stages"] if one["stage"] == name]
    return found["pid"]


def trading():
    found = inspection.status(inspection.attach(NAME))
    return found["run"] if found["holds"] == [] and all(one["state"] == "running" for one in found["stages"]) else None


def test_what_is_looked_for_is_found_where_it_is(key):
    assert len(shows(key.read_bytes())) >= 4
    assert shows(b"..." + RAW[5:20].hex().encode())
    assert shows(NOTHING + BODY[20:].encode() + NOTHING)
    assert shows(f"api_key={API_KEY}".encode())
    assert not shows(PUBLIC.encode())


def test_a_run_in_which_all_goes_wrong_leaves_nothing_of_its_key(configured, exchange, tmp_path):
    run = Run(configured, "--placement", "split")
    try:
        first = run.until(trading)
        inspection.arm(NAME, "the canary")
        run.until(lambda: exchange.call(lambda: len(exchange.venue.engine.open_orders(1))) >= 2)
        check_memory_and_processes()
        go_wrong(
            exchange,
            {"on": "request", "name": "order.place", "action": "clock_offset", "ms": -5000, "times": 1},
            {"on": "response", "name": "order.*", "action": "garbage", "times": 1},
            {"on": "event", "action": "giant", "size": 70_000, "times": 1},
            {"on": "response", "name": "order.*", "action": "disconnect", "skip": 3, "times": 1},
            {"on": "response", "name": "session.logon", "action": "garbage", "times": 1},
        )
        log = state.folder(NAME) / "log.jsonl"
        run.until(lambda: b"venue disconnected" in log.read_bytes())
        check_memory_and_processes()
        said = [command("status", NAME, "--json"), command("inspect"), command("tap", "order", NAME, "--count", 1)]
        go_wrong(exchange)
        run.until(trading)
        gateway = stage("gateway")
        os.kill(stage("live_venue"), signal.SIGABRT)
        os.kill(gateway, signal.SIGKILL)
        run.until(lambda: trading() not in (None, first))
        check_memory_and_processes()
        go_wrong(exchange, {"on": "request", "name": "*penOrders*", "action": "error_not_placed"})
        said.append(command("kill", "cancel", NAME, "--reason", "the canary"))
        errors = run.stop()
    finally:
        if run.process.poll() is None:
            errors = run.stop()
        for pid in processes():
            os.kill(pid, signal.SIGKILL)
        for name in segment.names(f"{NAME}."):
            segment.unlink(name)
    assert_clean(errors=errors, **{f"command{at}": one for at, one in enumerate(said)})
    left = [one for one in tmp_path.rglob("*") if one.is_file() and "safe" not in one.parts]
    kinds = {one.name for one in left} | {one.suffix for one in left}
    assert {"journal", "log.jsonl", "venue.json", "armed"} <= kinds, kinds
    assert any("recorded" in one.parts for one in left)
    assert_clean(**{str(one): one.read_bytes() for one in left if one.parent.name != "exchange"})


def test_a_key_that_cannot_be_read_is_not_shown(key, tmp_path):
    key.write_text(key.read_text().replace(BODY, BODY[:-8]))  # cut short
    path = tmp_path / "canary.toml"
    path.write_text((configuration.SHIPPED / "live_simulator.toml").read_text().replace(SHIPPED_KEY, f"file:{key}"))
    said = command("run", path)
    assert b"private_key: is not a private key" in said, said
    assert b"Traceback" not in said
    assert_clean(said=said)


def test_neither_exceptions_nor_what_is_printed_for_debugging_shows_it(key):
    config = live_venue.Config(environment="simulator", url="ws://127.0.0.1:1", key=f"file:{key}")
    loaded = keys.load_key(config.key)
    logon = live_key.Logon(config)
    request = logon("logon", 1_700_000_000_000)
    assert json.loads(request)["params"]["apiKey"] == API_KEY  # where the protocol sends it
    assert not [one for one in shows(request) if one != API_KEY.encode()]
    shown = [f"{one!r} {one!s} {one}" for one in (config, loaded, logon, logon._key, vars(logon))]
    shown += whole_traceback(lambda: loaded.sign("no bytes"))
    shown += whole_traceback(lambda: keys.bind(loaded, "paper", []))
    shown += whole_traceback(loaded.__reduce__)
    assert len(shown) > 10
    assert_clean(**{str(at): one for at, one in enumerate(shown)})


def whole_traceback(wrong):
    """Spell what goes wrong with every local variable on the way."""
    with pytest.raises(Exception) as caught:
        wrong()
    return list(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
