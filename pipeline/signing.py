"""Signing: what of a request is signed, and how it is spelled, for REST, the WebSocket API and FIX.

Every payload is what Binance documents as signed: REST the percent-encoded query, WebSocket API all parameters sorted
by name and not encoded, FIX the values of five fields of the logon. Ed25519 gives base64, HMAC-SHA256 hexadecimal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shrivenq.pipeline.keys import Key

SOH = "\x01"
KEY_HEADER = "X-MBX-APIKEY"
Value = str | int | bool


def _plain(value: Value) -> str:
    """Spell a parameter as the venue reads it in a query."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


# ── REST ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def rest_payload(params: Mapping[str, Value]) -> str:
    """Spell a query, percent-encoded, in the order given: what is signed and what is sent."""
    return urlencode({name: _plain(value) for name, value in params.items()}, quote_via=quote, safe="")


def rest_query(key: Key, params: Mapping[str, Value], timestamp_ms: int) -> str:
    """Spell a signed query: `params`, `timestamp` and, last, `signature`; the key goes into KEY_HEADER."""
    payload = rest_payload({**params, "timestamp": timestamp_ms})
    return f"{payload}&signature={quote(key.sign(payload.encode()), safe='')}"


# ── WebSocket API ────────────────────────────────────────────────────────────────────────────────────────────────────


def websocket_payload(params: Mapping[str, Value]) -> str:
    """Spell what is signed: every parameter but `signature`, sorted by name, not encoded."""
    return "&".join(f"{name}={_plain(params[name])}" for name in sorted(params) if name != "signature")


def websocket_params(key: Key, params: Mapping[str, Value], timestamp_ms: int) -> dict[str, Value]:
    """Complete parameters with `apiKey`, `timestamp` and `signature`."""
    complete: dict[str, Value] = {**params, "apiKey": key.api_key.reveal(), "timestamp": timestamp_ms}
    return {**complete, "signature": key.sign(websocket_payload(complete).encode())}


def websocket_request(name: str | int, method: str, params: Mapping[str, Value]) -> bytes:
    """Spell a request: the text of a WebSocket frame."""
    return msgspec.json.encode({"id": name, "method": method, **({"params": dict(params)} if params else {})})


def logon_request(key: Key, name: str | int, timestamp_ms: int, receive_window_ms: int = 5_000) -> bytes:
    """Spell `session.logon`; after it requests carry no key and no signature. Raises ValueError for an HMAC key."""
    if not key.is_ed25519:
        raise ValueError(f"{key.source}: an HMAC key cannot log a session on, allowed: an Ed25519 key")
    params = websocket_params(key, {"recvWindow": receive_window_ms}, timestamp_ms)
    return websocket_request(name, "session.logon", params)


# ── FIX ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def fix_payload(sender: str, target: str, sequence: int, sending_time: str) -> str:
    """Spell what is signed of a logon: MsgType, SenderCompID, TargetCompID, MsgSeqNum, SendingTime."""
    return SOH.join(("A", sender, target, str(sequence), sending_time))


def fix_message(fields: list[tuple[int, str]]) -> bytes:
    """Put BeginString and BodyLength before `fields`, and CheckSum behind them."""
    body = "".join(f"{tag}={value}{SOH}" for tag, value in fields)
    message = f"8=FIX.4.4{SOH}9={len(body.encode())}{SOH}{body}".encode()
    return message + f"10={sum(message) % 256:03d}{SOH}".encode()


def fix_logon(
    key: Key,
    sender: str,
    sending_time: str,
    *,
    heartbeat_s: int = 30,
    message_handling: int = 2,
    response_mode: int = 0,
) -> bytes:
    """Spell a FIX Logon, the first message of its session. Raises ValueError for an HMAC key.

    `sending_time` is UTC, `YYYYMMDD-HH:MM:SS.sss`; `message_handling` 1 unordered, 2 sequential; `response_mode` 1
    everything, 2 acknowledgements only, 0 the venue's default.
    """
    if not key.is_ed25519:
        raise ValueError(f"{key.source}: an HMAC key cannot log on to FIX, allowed: an Ed25519 key")
    signature = key.sign(fix_payload(sender, "SPOT", 1, sending_time).encode())
    fields = [(35, "A"), (34, "1"), (49, sender), (52, sending_time), (56, "SPOT")]
    fields += [(95, str(len(signature))), (96, signature), (98, "0"), (108, str(heartbeat_s)), (141, "Y")]
    fields += [(553, key.api_key.reveal()), (25035, str(message_handling))]
    if response_mode:
        fields.append((25036, str(response_mode)))
    return fix_message(fields)
