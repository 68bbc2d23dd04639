"""Sessions: who is logged on to a WebSocket API connection, whose requests are whose, and what the connection follows.

Only Ed25519 keys log on. A request may carry a key and a signature of its own all the same, and then counts as that
key's. Source: sections 7 and 8 of the protocol sheet.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from shrivenq.pipeline.exchange import requests
from shrivenq.pipeline.exchange.accounts import RECV_WINDOW_US, check_time, to_us
from shrivenq.pipeline.exchange.errors import ApiError, missing
from shrivenq.pipeline.exchange.user_data import Subscriber, Subscription, Subscriptions, terminated

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.pipeline.exchange.accounts import Key
    from shrivenq.pipeline.exchange.venue import Venue

Json = dict[str, Any]


class SessionCall(NamedTuple):
    """A request about the session."""

    values: Json
    """Its parameters, checked."""
    params: Json
    """As they were sent and signed."""
    now_us: int
    limits: bool
    """Whether rate limits are told."""


def payload(params: Json) -> bytes:
    """Give what is signed: all parameters but the signature, sorted by name, not percent-encoded."""
    return "&".join(f"{key}={text_of(params[key])}" for key in sorted(params) if key != "signature").encode()


def text_of(value: Any) -> str:
    """Write a JSON value as it is signed."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


class Session:
    """The session of one connection."""

    def __init__(self, venue: Venue, subscriptions: Subscriptions, client: Subscriber) -> None:
        self.subscriptions = subscriptions
        self.client = client
        self.connected_us = venue.now_us()
        self.authorised_us = 0
        self.key: Key | None = None
        self.keyring = venue.keyring
        self._now_us = venue.now_us

    def authorise(self, params: Json, now_us: int) -> Key:
        """Find whose signed request this is: the session's, or by a signature of its own. Raises ApiError."""
        key = self.key
        if key is None or "apiKey" in params or "signature" in params:
            key = self._signer(params)
        if "timestamp" not in params:
            raise missing("timestamp")
        stamp = requests.value_of("timestamp", params["timestamp"])
        window = requests.value_of("recvWindow", params["recvWindow"]) if "recvWindow" in params else RECV_WINDOW_US
        check_time(to_us(stamp), window, now_us)
        return key

    def _signer(self, params: Json) -> Key:
        """Find the key that signed these parameters. Raises ApiError."""
        for name in ("apiKey", "signature"):
            if name not in params:
                raise missing(name)
        key = self.keyring.find(text_of(params["apiKey"]))
        if not key.verify(payload(params), text_of(params["signature"])):
            raise ApiError(-1022, "Signature for this request is not valid.")
        return key

    def revoked(self) -> ApiError | None:
        """Tell why the session's key is no longer good; the session has ended then."""
        if self.key is None:
            return None
        try:
            self.keyring.find(self.key.api_key)
        except ApiError as error:
            self.end()
            return error
        return None

    def end(self) -> None:
        """Forget the key and what was followed by it."""
        self.key = None
        self.stop(self.subscriptions.of_session())

    def stop(self, ended: list[Subscription]) -> None:
        """End subscriptions, and say so."""
        self.subscriptions.end(ended)
        for one in ended:
            self.client.send_event("eventStreamTerminated", terminated(one.id, self.client.time(self._now_us())))


def _status(session: Session, call: SessionCall) -> Json:
    """Tell who is logged on, and since when."""
    key, time = session.key, session.client.time
    return {
        "apiKey": key.api_key if key else None,
        "authorizedSince": time(session.authorised_us) if key else None,
        "connectedSince": time(session.connected_us),
        "returnRateLimits": call.limits,
        "serverTime": time(call.now_us),
        "userDataStream": bool(session.subscriptions.of_session()),
    }


def _log_on(session: Session, call: SessionCall) -> Json:
    """Authenticate the connection; another key takes the place of the one before."""
    key = session.authorise(call.params, call.now_us)
    if key.public is None:
        raise ApiError(-4056, "HMAC_SHA256 API key is not supported.")
    if session.key is not None and session.key.account != key.account:
        session.end()
    session.key, session.authorised_us = key, call.now_us
    return _status(session, call)


def _log_out(session: Session, call: SessionCall) -> Json:
    """Forget the key; the connection stays."""
    session.end()
    return _status(session, call)


def _subscribe(session: Session, call: SessionCall) -> Json:
    """Follow the account of the session."""
    if session.key is None:
        raise ApiError(-1002, "You are not authorized to execute this request.")
    return {"subscriptionId": session.subscriptions.subscribe(session.key.account, by_session=True)}


def _subscribe_signed(session: Session, call: SessionCall) -> Json:
    """Follow the account of a key of any type, without a logon."""
    account = session.authorise(call.params, call.now_us).account
    return {"subscriptionId": session.subscriptions.subscribe(account, by_session=False)}


def _unsubscribe(session: Session, call: SessionCall) -> Json:
    """Follow one account, or all of them, no longer."""
    session.stop(session.subscriptions.find(call.values.get("subscriptionId")))
    return {}


def _list(session: Session, call: SessionCall) -> list[Json]:
    """List what is followed."""
    return [{"subscriptionId": number} for number in session.subscriptions.active]


SESSION_COMMANDS: dict[str, Callable[[Session, SessionCall], Any]] = {
    "session.logon": _log_on,
    "session.status": _status,
    "session.logout": _log_out,
    "session.subscriptions": _list,
    "userDataStream.subscribe": _subscribe,
    "userDataStream.subscribe.signature": _subscribe_signed,
    "userDataStream.unsubscribe": _unsubscribe,
}
