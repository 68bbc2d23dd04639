"""Cancelling at the venue itself, past the pipeline: what `shrivenq kill` does once the word is set, over REST.

A live pipeline leaves in its state folder where its venue is, which symbols it trades and where its key is kept (never
the key). With that every open order of those symbols can be cancelled, and seen to be gone, by a connection of our own,
whatever has become of the gateway. A gateway that lives gets a moment to do it first; what is left then is cancelled
here.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from shrivenq.pipeline import keys, signing, state
from shrivenq.pipeline.deadline import deadline

if TYPE_CHECKING:
    from pathlib import Path

FILE = "venue.json"
TIMEOUT_S = 5.0
"""A request, from the connection to the last byte of its answer; a name is looked up outside of it."""
BODY_MAX = 1 << 24
"""Bytes of an answer: open orders of a symbol are far fewer."""
SHOWN = 200
PATIENCE_S = 1.0
"""How long a gateway that lives has to see its orders cancelled."""
PAUSE_S = 0.05
TRIES = 3
RECEIVE_WINDOW_MS = 5_000
TIMESTAMP = -1021
NOTHING_TO_CANCEL = -2011


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a live pipeline trades."""

    rest_url: str
    authority: str
    key: str
    """Where the key is, as in `[live_venue]`."""
    symbols: list[str]


class VenueError(Exception):
    """The venue did not do it, or cannot be asked; one line says why."""


def remember(name: str, place: Place) -> None:
    """Leave in the state folder where a pipeline trades, for its user alone."""
    path = state.make_folder(name) / FILE
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(place))


def recall(folder: Path) -> Place | None:
    """Read where a pipeline trades; None for one that was never live. Raises VenueError."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Place)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise VenueError(f"{path}: {error}") from None


class Venue:
    """A connection of our own. Raises VenueError for a key that cannot be used."""

    def __init__(self, place: Place) -> None:
        try:
            self._key = keys.load_key(place.key)
            keys.bind(self._key, "live", [place.rest_url])
        except ValueError as error:
            raise VenueError(str(error)) from None
        self._place = place
        self._offset_ms = 0

    def open_orders(self, symbol: str) -> int:
        """Count the open orders of a symbol."""
        found = self._ask("GET", "/api/v3/openOrders", symbol)
        if not isinstance(found, list):
            raise VenueError(_shown(f"{symbol}: openOrders: expected a list, found {found}"))
        return len(found)

    def cancel(self, symbol: str) -> None:
        """Cancel every open order of a symbol; that there was none is no problem."""
        self._ask("DELETE", "/api/v3/openOrders", symbol)

    def _ask(self, verb: str, path: str, symbol: str) -> Any:
        for _ in range(2):
            status, found = self._send(verb, path, {"symbol": symbol, "recvWindow": RECEIVE_WINDOW_MS})
            if status == http.client.OK:
                return found
            code, said = (found.get("code"), found.get("msg")) if isinstance(found, dict) else ("", found)
            if code == NOTHING_TO_CANCEL and verb == "DELETE" and status == http.client.BAD_REQUEST:
                return []
            if code != TIMESTAMP:
                break
            self._set_clock()
        raise VenueError(_shown(f"{symbol}: {verb} {path}: HTTP {status}: {code} {said}"))

    def _set_clock(self) -> None:
        """Measure how far the venue's clock is off ours: it does not take our time."""
        _, found = self._exchange("GET", "/api/v3/time", {})
        if isinstance(found, dict) and isinstance(found.get("serverTime"), int):
            self._offset_ms = found["serverTime"] - time.time_ns() // 1_000_000

    def _send(self, verb: str, path: str, params: dict[str, str | int]) -> tuple[int, Any]:
        query = signing.rest_query(self._key, params, time.time_ns() // 1_000_000 + self._offset_ms)
        return self._exchange(verb, f"{path}?{query}", {signing.KEY_HEADER: self._key.api_key.reveal()})

    def _exchange(self, verb: str, target: str, headers: dict[str, str]) -> tuple[int, Any]:
        """Send one request over a connection of its own; HTTP status and what the body holds, its text if no JSON."""
        connection = None
        try:
            with deadline(TIMEOUT_S):
                connection, path = self._connect()
                connection.request(verb, path + target, headers=headers)
                answer = connection.getresponse()
                body = answer.read(BODY_MAX + 1)
                if answer.length and len(body) <= BODY_MAX:
                    raise http.client.IncompleteRead(body, answer.length)  # an empty list cut short is none
        except (OSError, http.client.HTTPException, ValueError) as error:
            # The target holds a signature: not said.
            asked = f"{self._place.rest_url}: {verb} {target.partition('?')[0]}"
            raise VenueError(_shown(f"{asked}: {str(error) or type(error).__name__}")) from None
        finally:
            if connection is not None:
                connection.close()
        if len(body) > BODY_MAX:
            raise VenueError(f"{self._place.rest_url}: an answer too long, above {BODY_MAX} bytes")
        try:
            return answer.status, json.loads(body)
        except (ValueError, RecursionError):
            return answer.status, body[:SHOWN].decode("utf-8", "replace")

    def _connect(self) -> tuple[http.client.HTTPConnection, str]:
        """Make a connection, and say what paths begin with."""
        url = urlsplit(self._place.rest_url)
        host, path = url.hostname or "", url.path.rstrip("/")
        if url.scheme != "https":
            return http.client.HTTPConnection(host, url.port, timeout=TIMEOUT_S), path
        try:
            context = ssl.create_default_context(cafile=self._place.authority or None)
        except OSError as error:
            raise OSError(f"{self._place.authority}: no file of certificates: {error.strerror or error}") from None
        return http.client.HTTPSConnection(host, url.port, timeout=TIMEOUT_S, context=context), path


def _shown(text: str) -> str:
    """Give a line for a terminal of what may come from anybody."""
    return "".join(one if one.isprintable() else "?" for one in text[:SHOWN])


def clear(name: str, *, patience_s: float) -> list[dict[str, object]]:
    """See to it that no order of a pipeline is open; what was confirmed of each symbol, or the problem, for the report.

    Nothing to report of a pipeline that was never live.
    """
    try:
        place = recall(state.folder(name))
        if place is None:
            return []
        venue = Venue(place)
    except VenueError as error:
        return [{"by": "venue", "confirmed": False, "problem": str(error)}]
    began = time.monotonic()
    return [_clear(venue, symbol, began, patience_s) for symbol in place.symbols]


def _clear(venue: Venue, symbol: str, began: float, patience_s: float) -> dict[str, object]:
    problem = ""
    tried = cancelled = 0
    while tried <= TRIES:
        try:
            count = venue.open_orders(symbol)
            if count == 0:
                took = (time.monotonic() - began) * 1e6
                return {"by": f"venue: {symbol}", "confirmed": True, "us": round(took), "cancelled": cancelled}
            problem = f"{count} orders are open"
            if time.monotonic() - began < patience_s:
                time.sleep(PAUSE_S)
                continue
            tried += 1
            venue.cancel(symbol)
            cancelled = max(cancelled, count)
        except VenueError as error:
            tried += 1
            problem = str(error)
    return {"by": f"venue: {symbol}", "confirmed": False, "problem": problem}
