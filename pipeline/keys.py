"""Keys: from a systemd credential or a private file, never shown, and bound to where they may be used.

A key file is TOML:

    environment = "testnet"        # production, testnet or simulator: where the key is valid
    purpose = "trade"              # trade, or data: market data only, the one kind a paper run takes
    api_key = "…"
    private_key = '''              # Ed25519, PEM, PKCS#8, not encrypted; or hmac_secret = "…"
    -----BEGIN PRIVATE KEY-----
    …
    -----END PRIVATE KEY-----
    '''
    expires = 2027-06-30           # optional

It comes from `credential:NAME` (systemd's $CREDENTIALS_DIRECTORY), from `file:PATH` (a regular file of mode 0600 that
is ours and no symlink), or, for testnet and simulator only, from `environment`: SHRIVENQ_KEY holds the same text.
A process that loads one, and what it forks, leaves no core dump and lets no other process of its user read its memory.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import hmac
import os
import re
import resource
import stat
import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shrivenq.pipeline.logs import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

VARIABLE = "SHRIVENQ_KEY"
SIZE_MAX = 1 << 14
NAME_SHOWN = 16
SOURCES = "credential:NAME, file:PATH, or environment (testnet and simulator only)"
_PR_SET_DUMPABLE = 4
_WORD = re.compile(r"[A-Za-z0-9_-]{1,256}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}", re.ASCII)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PUBLIC = ("data-api.binance.vision", "data-stream.binance.vision")
"""Production's hosts for public data, under the domain that is otherwise the testnet's."""

ENVIRONMENTS = ("production", "testnet", "simulator")
PURPOSES = ("trade", "data")
_FIELDS = ("environment", "purpose", "api_key", "private_key", "hmac_secret", "expires")


class KeyProblem(ValueError):  # noqa: N818 - what is wrong with a key, not with the program
    """A key that cannot be used; its text is one line and shows nothing of the key."""


@dataclass(frozen=True)
class Key:
    """An API key and what signs with it."""

    environment: str
    purpose: str
    api_key: Secret
    source: str
    """Where it came from, to be told in messages."""
    _private: Secret
    _signer: Ed25519PrivateKey | None

    @property
    def is_ed25519(self) -> bool:
        """Tell whether it may log a session on: HMAC keys may not."""
        return self._signer is not None

    def sign(self, payload: bytes) -> str:
        """Sign: base64 with Ed25519, hexadecimal with HMAC-SHA256."""
        if self._signer is not None:
            return base64.b64encode(self._signer.sign(payload)).decode()
        return hmac.new(self._private.reveal().encode(), payload, hashlib.sha256).hexdigest()

    def __reduce__(self) -> str:
        raise TypeError("a key is never pickled")


def load_key(source: str, now: datetime | None = None) -> Key:
    """Load a key from `credential:NAME`, `file:PATH` or `environment`. Raises KeyProblem in one line."""
    _keep_to_itself()
    kind, _, rest = source.partition(":")
    if kind == "credential" and rest:
        text, where = _read_credential(rest)
    elif kind == "file" and rest:
        text, where = _read_private(Path(rest).expanduser()), f"key file {rest}"
    elif source == "environment":
        where = f"environment variable {VARIABLE}"
        text = os.environ.get(VARIABLE, "")
        if not text:
            raise KeyProblem(f"{where}: is not set")
    else:
        raise KeyProblem(f"key source: found {_short(source)}, allowed: {SOURCES}")
    key = parse_key(text, where, now)
    if source == "environment" and key.environment == "production":
        raise KeyProblem(f"{where}: holds a production key, allowed: testnet or simulator: every child could read it")
    return key


def _keep_to_itself() -> None:
    """See to it that this process's memory is nobody else's: no core dump, no ptrace, no /proc/PID/mem.

    Source: prctl(2), PR_SET_DUMPABLE; core(5): a limit alone does not bind where cores are piped to a program.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def parse_key(text: str, where: str, now: datetime | None = None) -> Key:
    """Make a key of a key file's text; `where` begins what is said of a mistake. Raises KeyProblem."""
    table = _parse_table(text, where)
    for name in table:
        if name not in _FIELDS:
            shown = _short(name) if len(name) <= NAME_SHOWN else "a long name"  # it may be a secret out of place
            raise KeyProblem(f"{where}: {shown}: unknown, allowed: {', '.join(_FIELDS)}")
    # A value that is wrong may be a secret in the wrong place: say its key, never what was found.
    for name in ("api_key", "private_key", "hmac_secret"):
        if not isinstance(table.get(name, ""), str):
            raise KeyProblem(f"{where}: {name}: text in quotes expected")
    for name, allowed in (("environment", ENVIRONMENTS), ("purpose", PURPOSES)):
        if table.get(name) not in allowed:
            raise KeyProblem(f"{where}: {name}: missing or unknown, allowed: {', '.join(allowed)}")
    api_key, private, secret = (table.get(name, "") for name in ("api_key", "private_key", "hmac_secret"))
    if not _WORD.fullmatch(api_key):
        raise KeyProblem(f"{where}: api_key: missing or not a key, allowed: letters and digits")
    if bool(private) == bool(secret):
        raise KeyProblem(f"{where}: needs private_key (Ed25519) or hmac_secret, one of them")
    if "expires" in table:
        _check_expiry(table["expires"], where, now or datetime.now(UTC))
    signer = _read_ed25519(private, where) if private else None
    return Key(table["environment"], table["purpose"], Secret(api_key), where, Secret(private or secret), signer)


def _parse_table(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at [^)]*\)$", str(error))
        raise KeyProblem(f"{where}: is not a key file: not TOML {place[0] if place else ''}".rstrip()) from None


def _check_expiry(expires: Any, where: str, now: datetime) -> None:
    if not isinstance(expires, date):
        raise KeyProblem(f"{where}: expires: no date, allowed: a date such as 2027-06-30, without quotes")
    # A date means its end, in UTC.
    end = expires if isinstance(expires, datetime) else datetime.combine(expires, time.max)
    end = end if end.tzinfo else end.replace(tzinfo=UTC)
    if now >= end:
        raise KeyProblem(f"{where}: expired on {expires.isoformat()}")


def _read_ed25519(text: str, where: str) -> Ed25519PrivateKey:
    where = f"{where}: private_key"
    try:
        key = load_pem_private_key(text.strip().encode(), None)
    except TypeError:
        raise KeyProblem(f"{where}: is encrypted; openssl pkey writes one that is not") from None
    except (ValueError, UnsupportedAlgorithm):
        kind = "a public key" if "PUBLIC KEY" in text else "not a private key in PEM, PKCS#8"
        raise KeyProblem(f"{where}: is {kind}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyProblem(f"{where}: is no Ed25519 key")
    return key


# ── where keys lie ───────────────────────────────────────────────────────────────────────────────────────────────────


def _short(text: str) -> str:
    shown = "".join(one if one.isprintable() else "?" for one in text)
    return f'"{shown[:60]}"'


def _read_credential(name: str) -> tuple[str, str]:
    """Read a systemd credential: the folder is ours alone, systemd sees to it."""
    where = f"credential {_short(name)}"
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise KeyProblem(f"{where}: not a name, allowed: letters, digits, _, . and -")
    if not folder:
        raise KeyProblem(f"{where}: there is no $CREDENTIALS_DIRECTORY: LoadCredential= in the unit makes it")
    return _read(Path(folder) / name, where, None), where


def _read_private(path: Path) -> str:
    return _read(path, f"key file {path}", os.geteuid())


def _read(path: Path, where: str, owner: int | None) -> str:
    """Read a regular file that is no symlink and, with an `owner`, that one's alone (mode 0600)."""
    try:
        # Not blocking: a pipe of that name would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise KeyProblem(f"{where}: is a symlink, allowed: the file itself") from None
        raise KeyProblem(f"{where}: cannot be read: {error.strerror}") from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise KeyProblem(f"{where}: is no regular file")
        mode = stat.S_IMODE(found.st_mode)
        if owner is not None and found.st_uid != owner:
            raise KeyProblem(f"{where}: belongs to user {found.st_uid}, allowed: {owner}, who runs this")
        if owner is not None and mode != 0o600:
            raise KeyProblem(f"{where}: has mode {mode:04o}, allowed: 0600 (chmod 600)")
        content = os.read(handle, SIZE_MAX + 1)
    finally:
        os.close(handle)
    if len(content) > SIZE_MAX:
        raise KeyProblem(f"{where}: has more than {SIZE_MAX} bytes: is not a key file")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise KeyProblem(f"{where}: is not text") from None


# ── where keys may be used ───────────────────────────────────────────────────────────────────────────────────────────


def environment_of(url: str) -> str:
    """Tell whose endpoint a URL is: production, testnet or simulator. Raises KeyProblem for any other."""
    host = (urlsplit(url if "//" in url else f"//{url}").hostname or "").rstrip(".")
    if host in _LOOPBACK:
        return "simulator"
    if host in _PUBLIC:
        return "production"
    if host.endswith(".binance.vision"):
        return "testnet"
    if host.endswith(".binance.com") and not host.startswith("demo-"):
        return "production"
    raise KeyProblem(f"endpoint {_short(url)}: unknown, allowed: Binance's production or testnet, or this machine")


def bind(key: Key, mode: str, urls: Iterable[str]) -> None:
    """Refuse a key that is not for these endpoints, or not for this mode. Raises KeyProblem."""
    for url in urls:
        environment = environment_of(url)
        if environment != key.environment:
            raise KeyProblem(f"{key.source}: is for {key.environment}, the endpoint {_short(url)} is {environment}")
    if mode == "live" and key.purpose != "trade":
        raise KeyProblem(f'{key.source}: its purpose is "{key.purpose}", mode live needs a key that may "trade"')
    if mode != "live" and key.purpose == "trade":
        raise KeyProblem(f'{key.source}: may "trade", mode {mode} takes none that can: use one of purpose "data"')
