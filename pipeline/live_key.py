"""The keys of a live venue: checked before anything starts, and loaded where they are used.

Only the process that talks to the venue holds one, from its first logon or connection on; what is checked before is
forgotten. Orders take a key that may trade, market data in SBE one that may not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shrivenq.pipeline.keys import Key
    from shrivenq.stages.live import source
    from shrivenq.stages.live_venue import Config


def environments(*urls: str) -> list[str]:
    """Tell whose endpoint each URL is: production, testnet, simulator, or "nobody we know"."""
    # Loaded late, and so is what signs: only mode live needs them.
    from shrivenq.pipeline import keys  # noqa: PLC0415

    found = []
    for url in urls:
        try:
            found.append(keys.environment_of(url))
        except keys.KeyProblem:
            found.append("nobody we know")
    return found


def load(config: Config) -> Key:
    """Load the key and hold it against the configuration. Raises ValueError in one line that shows nothing of it."""
    from shrivenq.pipeline import keys  # noqa: PLC0415

    key = keys.load_key(config.key)
    keys.bind(key, "live", [config.url, *([config.fix_url] if config.order_entry == "fix" else [])])
    if key.environment != config.environment:
        raise ValueError(f"{key.source}: is for {key.environment}, live_venue.environment says {config.environment}")
    if not key.is_ed25519:
        raise ValueError(f"{key.source}: is an HMAC key, allowed: an Ed25519 key, others cannot log a session on")
    return key


def load_data(config: source.Config) -> Key:
    """Load the key of market data in SBE. Raises ValueError in one line that shows nothing of it."""
    from shrivenq.pipeline import keys  # noqa: PLC0415

    key = keys.load_key(config.key)
    environment = keys.environment_of(config.stream_url)
    if environment != key.environment:
        raise ValueError(f"{key.source}: is for {key.environment}, market_data.binance.stream_url is of {environment}")
    if key.purpose != "data":
        raise ValueError(f'{key.source}: its purpose is "{key.purpose}", market data takes a key of purpose "data"')
    if not key.is_ed25519:
        raise ValueError(f"{key.source}: is an HMAC key, allowed: an Ed25519 key, SBE is sent to no other")
    return key


class DataKey:
    """Gives the API key of market data; reads it anew for each connection, so that it can be replaced."""

    def __init__(self, config: source.Config) -> None:
        self._config = config

    def __call__(self) -> str:
        """Give the API key. Raises ValueError for one that cannot be used."""
        return load_data(self._config).api_key.reveal()


class Logon:
    """Spells the signed `session.logon`, and the Logon of FIX; loads the key when first asked."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._key: Key | None = None

    def __call__(self, name: str, timestamp_ms: int) -> bytes:
        """Spell the request. Raises ValueError for a key that cannot be used."""
        from shrivenq.pipeline import signing  # noqa: PLC0415

        return signing.logon_request(self._load(), name, timestamp_ms)

    def fix(self, sender: str, sending_time: str, heartbeat_s: int) -> bytes:
        """Spell a FIX Logon; messages are handled in their order. Raises ValueError for a key that cannot be used."""
        from shrivenq.pipeline import signing  # noqa: PLC0415

        return signing.fix_logon(self._load(), sender, sending_time, heartbeat_s=heartbeat_s)

    def _load(self) -> Key:
        if self._key is None:
            self._key = load(self._config)
        return self._key
