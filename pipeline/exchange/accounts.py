"""Keys of the venue's clients, and their signatures: Ed25519 and HMAC-SHA256 (protocol sheet, section 7).

Every signed request carries a time of its own; `check_time` is the venue's rule about it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from shrivenq.pipeline.exchange.errors import ApiError

API_KEY = re.compile(r"[A-Za-z0-9]{1,64}", re.ASCII)
AHEAD_US = 1_000_000
"""A request may say at most this much later than the venue's own time."""
RECV_WINDOW_US = 5_000_000
"""Where a request names no recvWindow."""
RECV_WINDOW_MAX_US = 60_000_000
MICROSECONDS_FROM = 10**15
"""A timestamp from here on is in microseconds: in milliseconds it would be the year 33658."""


class Key(NamedTuple):
    """One API key: whose it is, and how its signatures are checked. Exactly one of the last two is there."""

    api_key: str
    account: int
    """Account id of the engine."""
    public: Ed25519PublicKey | None
    secret: bytes

    def __repr__(self) -> str:
        """Name the account; keys are for nobody's log."""
        return f"Key(account={self.account})"

    def verify(self, payload: bytes, signature: str) -> bool:
        """Say whether `signature` (hex for HMAC, base64 for Ed25519) is this key's for `payload`."""
        if self.public is None:
            wanted = hmac.new(self.secret, payload, hashlib.sha256).hexdigest()
            return signature.isascii() and hmac.compare_digest(wanted, signature.lower())
        try:
            self.public.verify(base64.b64decode(signature, validate=True), payload)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


def read_public_key(text: str) -> Ed25519PublicKey:
    """Read a public key: the base64 body of its PEM, or the whole PEM. Raises ValueError for any other."""
    body = "".join(line.strip() for line in text.splitlines() if not line.startswith("-----"))
    try:
        key = load_der_public_key(base64.b64decode(body, validate=True))
    except (ValueError, binascii.Error):
        raise ValueError("not the base64 of a public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")  # noqa: TRY004 - what is wrong is the text
    return key


class Keyring:
    """All keys of the venue."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}

    def add(self, api_key: str, account: int, *, public_key: str = "", secret: str = "") -> None:
        """Add a key: with a `public_key` Ed25519, with a `secret` HMAC. Raises ValueError for a bad public key."""
        public = read_public_key(public_key) if public_key else None
        self._keys[api_key] = Key(api_key, account, public, secret.encode())

    def remove(self, api_key: str) -> None:
        """Revoke a key."""
        self._keys.pop(api_key, None)

    def find(self, api_key: str) -> Key:
        """Find the key a request names. Raises ApiError, HTTP status 401, for none of ours."""
        if not API_KEY.fullmatch(api_key):
            raise ApiError(-2014, "API-key format invalid.", status=401)
        key = self._keys.get(api_key)
        if key is None:
            raise ApiError(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
        return key


def to_us(timestamp: int) -> int:
    """Convert a request's timestamp, in milliseconds or microseconds, to microseconds."""
    return timestamp if timestamp >= MICROSECONDS_FROM else timestamp * 1000


def last_us(timestamp: int) -> int:
    """Give the last microsecond of a timestamp: one in milliseconds means all of its thousand."""
    return timestamp if timestamp >= MICROSECONDS_FROM else timestamp * 1000 + 999


def check_time(timestamp_us: int, recv_window_us: int, now_us: int) -> None:
    """Check when a request was written against when it arrived. Raises ApiError -1021."""
    if timestamp_us >= now_us + AHEAD_US:
        raise ApiError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now_us - timestamp_us > recv_window_us:
        raise ApiError(-1021, "Timestamp for this request is outside of the recvWindow.")
