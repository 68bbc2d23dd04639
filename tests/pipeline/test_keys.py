"""Keys come from where nobody else can read them, are never shown, and are used where they belong."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import subprocess
import sys
import traceback
from datetime import UTC, datetime

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shrivenq.pipeline import logs
from shrivenq.pipeline.keys import KeyProblem, bind, environment_of, load_key, parse_key

API_KEY = "CanaryApiKeyThatNobodyMaySee"
CANARY = "CanarySecretThatNobodyMaySee"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def pem_of(key=None, password=None):
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key = key or Ed25519PrivateKey.generate()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


PEM = pem_of()
BODY = PEM.splitlines()[1]


def text_of(environment="testnet", purpose="trade", private_key=PEM, hmac_secret="", more=""):
    text = f'environment = "{environment}"\npurpose = "{purpose}"\napi_key = "{API_KEY}"\n{more}\n'
    if private_key:
        text += f"private_key = '''\n{private_key}'''\n"
    if hmac_secret:
        text += f'hmac_secret = "{hmac_secret}"\n'
    return text


def write(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def refusal(function, *arguments):
    with pytest.raises(KeyProblem) as caught:
        function(*arguments)
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 400
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (API_KEY, CANARY, BODY):
        assert secret not in shown
    return said


# ── where keys lie ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_private_file(tmp_path):
    key = load_key(f"file:{write(tmp_path / 'key.toml', text_of())}")
    assert (key.environment, key.purpose, key.is_ed25519) == ("testnet", "trade", True)
    assert key.api_key.reveal() == API_KEY
    assert str(tmp_path / "key.toml") in key.source


def test_an_hmac_secret(tmp_path):
    key = load_key(f"file:{write(tmp_path / 'key.toml', text_of(private_key='', hmac_secret=CANARY))}")
    assert not key.is_ed25519
    assert len(key.sign(b"x")) == 64


def test_a_systemd_credential(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    write(tmp_path / "binance", text_of("production"), 0o440)  # systemd's own mode: an access list makes it ours
    assert load_key("credential:binance").environment == "production"
    (tmp_path / "link").symlink_to(tmp_path / "binance")
    assert "is a symlink" in refusal(load_key, "credential:link")
    assert "cannot be read: No such file" in refusal(load_key, "credential:other")
    for name in ("../binance", "a/b", "..", "a\nb"):
        assert "not a name" in refusal(load_key, f"credential:{name}")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert "$CREDENTIALS_DIRECTORY" in refusal(load_key, "credential:binance")


def test_the_environment_is_for_testnet_and_simulator(monkeypatch):
    monkeypatch.setenv("SHRIVENQ_KEY", text_of("simulator"))
    assert load_key("environment").environment == "simulator"
    monkeypatch.setenv("SHRIVENQ_KEY", text_of("production"))
    assert "holds a production key" in refusal(load_key, "environment")
    monkeypatch.delenv("SHRIVENQ_KEY")
    assert "is not set" in refusal(load_key, "environment")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o400, 0o700, 0o000])
def test_another_mode_is_refused(tmp_path, mode):
    said = refusal(load_key, f"file:{write(tmp_path / 'key', text_of(), mode)}")
    assert f"has mode {mode:04o}, allowed: 0600" in said or "Permission denied" in said


def test_what_is_not_our_own_plain_file_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "key", text_of())
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is a symlink" in refusal(load_key, f"file:{tmp_path / 'link'}")
    assert "is a symlink" in refusal(load_key, f"file:{tmp_path / 'dangling'}")
    assert "is no regular file" in refusal(load_key, f"file:{tmp_path / 'pipe'}")
    assert "is no regular file" in refusal(load_key, f"file:{tmp_path}")
    assert "No such file" in refusal(load_key, f"file:{tmp_path / 'nothing'}")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert "belongs to user" in refusal(load_key, f"file:{path}")


@pytest.mark.parametrize("source", ["", "file:", "credential:", "key.toml", "environment:x", "\n\0"])
def test_an_unknown_source_is_refused(source):
    assert "key source" in refusal(load_key, source)


# ── what a key file says ─────────────────────────────────────────────────────────────────────────────────────────────

RSA = pem_of(rsa.generate_private_key(65537, 2048))
PUBLIC = (
    Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "environment: missing"),
        (f"{CANARY}", "not TOML (at"),
        (PEM, "not TOML"),
        (text_of("demo"), "environment: missing or unknown"),
        (text_of(purpose="withdraw"), "purpose: missing or unknown"),
        (text_of(more=f'password = "{CANARY}"'), '"password": unknown'),
        (text_of(private_key=""), "needs private_key (Ed25519) or hmac_secret, one of them"),
        (text_of(hmac_secret=CANARY), "one of them"),
        (text_of(private_key="", more=f"hmac_secret = [1, '{CANARY}']"), "hmac_secret: text in quotes expected"),
        (text_of().replace(API_KEY, f"{API_KEY}\\n"), "api_key: missing or not a key"),
        (text_of().replace(API_KEY, ""), "api_key: missing or not a key"),
        (text_of(private_key=CANARY), "private_key: is not a private key in PEM, PKCS#8"),
        (text_of(private_key=PEM.replace(BODY[:8], "AAAAAAAA")), "private_key: is not a private key"),
        (text_of(private_key=PEM[:60]), "private_key: is not a private key"),
        (text_of(private_key=PUBLIC), "private_key: is a public key"),
        (text_of(private_key=RSA), "private_key: is no Ed25519 key"),
        (text_of(private_key=pem_of(password=b"x")), "private_key: is encrypted"),
        (text_of(more="expires = 2026-11-22"), "expired on 2026-11-22"),
        (text_of(more="expires = 2026-11-23T11:59:59Z"), "expired on 2026-11-23T11:59:59"),
        (text_of(more=f'expires = "{CANARY}"'), "expires: no date"),
    ],
)
def test_every_mistake_has_one_line(text, reason):
    assert reason in refusal(parse_key, text, "key file k", NOW)


@pytest.mark.parametrize("expires", ["2026-11-23", "2026-11-23T12:00:01Z", "2026-11-23T12:00:01", "2027-01-01"])
def test_a_key_is_good_until_it_expires(expires):
    assert parse_key(text_of(more=f"expires = {expires}"), "k", NOW).environment == "testnet"


def test_files_that_are_no_text(tmp_path):
    path = write(tmp_path / "key", "")
    path.write_bytes(b"\xff\xfe")
    assert "is not text" in refusal(load_key, f"file:{path}")
    path.write_bytes(b"#" * 20_000)
    assert "has more than" in refusal(load_key, f"file:{path}")


# ── nobody sees them ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", [text_of(), text_of(private_key="", hmac_secret=CANARY)])
def test_nothing_shows_a_key(text):
    key = parse_key(text, "k", NOW)
    record = {"event": "x", "key": key, "deep": [{"api": key.api_key}], "text": f"{key.api_key} {key}"}
    shown = [repr(key), str(key), f"{key}", f"{key.api_key:>40}", "%s" % (key,), logs.to_line(record).decode()]  # noqa: UP031
    for one in shown:
        for secret in (API_KEY, CANARY, BODY):
            assert secret not in one
    for what in (key, key.api_key):
        for show in (pickle.dumps, json.dumps, msgspec.json.encode, copy.deepcopy):
            with pytest.raises(TypeError):
                show(what)


# ── where they may be used ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("https://api.binance.com", "production"),
        ("https://api4.binance.com/api/v3", "production"),
        ("wss://ws-api.binance.com:443/ws-api/v3", "production"),
        ("wss://stream-sbe.binance.com:9443", "production"),
        ("https://data-api.binance.vision", "production"),
        ("fix-oe.binance.com:9000", "production"),
        ("https://testnet.binance.vision", "testnet"),
        ("wss://ws-api.testnet.binance.vision/ws-api/v3", "testnet"),
        ("fix-oe.testnet.binance.vision:9000", "testnet"),
        ("ws://127.0.0.1:8080/ws-api/v3", "simulator"),
        ("http://localhost:1", "simulator"),
        ("wss://[::1]:5", "simulator"),
    ],
)
def test_endpoints_are_known(url, environment):
    assert environment_of(url) == environment


@pytest.mark.parametrize(
    "url",
    ["", "https://binance.com.evil.example", "https://api.binance.com@evil.example/", "wss://demo-api.binance.com"],
)
def test_other_endpoints_are_refused(url):
    assert "unknown, allowed" in refusal(environment_of, url)


@pytest.mark.parametrize(
    ("environment", "purpose", "mode", "url", "reason"),
    [
        ("production", "trade", "live", "https://testnet.binance.vision", "is for production, the endpoint"),
        ("testnet", "trade", "live", "https://api.binance.com", "is production"),
        ("simulator", "trade", "live", "https://api.binance.com", "is production"),
        ("production", "trade", "live", "http://localhost:8080", "is simulator"),
        ("production", "trade", "paper", "https://api.binance.com", 'may "trade", mode paper takes none'),
        ("testnet", "trade", "replay", "https://testnet.binance.vision", "mode replay takes none"),
        ("production", "data", "live", "https://api.binance.com", 'needs a key that may "trade"'),
    ],
)
def test_a_key_for_something_else_is_refused(environment, purpose, mode, url, reason):
    key = parse_key(text_of(environment, purpose), "k", NOW)
    assert reason in refusal(bind, key, mode, [url])


def test_a_key_that_fits_is_taken():
    bind(parse_key(text_of("production"), "k", NOW), "live", ["https://api.binance.com", "wss://ws-api.binance.com"])
    bind(parse_key(text_of("production", "data"), "k", NOW), "paper", ["wss://stream-sbe.binance.com"])


PROBE = """
import ctypes, os, resource, sys
from shrivenq.pipeline.keys import load_key

load_key(sys.argv[1])
if os.fork() == 0:  # what a stage inherits
    print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)
    os._exit(0)
os.wait()
"""


def test_who_has_loaded_a_key_leaves_no_core_dump(tmp_path):
    source = f"file:{write(tmp_path / 'key', text_of())}"
    shown = subprocess.run([sys.executable, "-c", PROBE, source], check=True, capture_output=True, text=True)
    assert shown.stdout.split() == ["(0,", "0)", "0"]  # PR_GET_DUMPABLE


@pytest.mark.parametrize("seed", range(3))
def test_whatever_became_of_a_key_file_it_is_read_or_refused_and_shows_nothing(seed):
    rng = random.Random(seed)
    text = text_of(more="expires = 2027-06-30")
    pieces = ('"', "'''", "[", "]", "=", "\n", "\0", "#", "9" * 50, "true", "1.5", "\\", "\N{SNOWMAN}", "api_key")
    parts = {secret[at : at + 17] for secret in (API_KEY, BODY) for at in range(len(secret) - 16)}
    for _ in range(1_000):
        hostile = text
        for _ in range(rng.randint(1, 3)):
            at, end = sorted(rng.sample(range(len(hostile) + 1), 2))
            other = rng.choice((rng.choice(pieces), hostile[at : min(end, at + 60)]))
            hostile = hostile[:at] + other + hostile[at + rng.choice((0, 0, 1, 12)) :]
        try:
            parse_key(hostile, "key file x", NOW)
        except KeyProblem as problem:
            said = str(problem)
            assert said.isprintable(), f"seed {seed}: {hostile!r}"
            assert not any(one in said for one in parts), f"seed {seed}: {hostile!r}"
