"""Cancelling at the venue itself, past the pipeline: what `shrivenq kill` does once the word is set, over REST.

A live pipeline leaves in its state folder where its venue is, which symbols it trades and where its key is kept (never
the key). With that every open order of those symbols can be cancelled, and seen to be gone, by a connection of our own,
whatever has become of the gateway. A gateway that lives gets a moment to do it first; what is left then is cancelled
here. Where none lives an order may still be on its way to the venue: it is cancelled there again and again until
nothing can arrive any more, and only then is an empty list believed.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from shrivenq.pipeline import keys, signing, state
from shrivenq.pipeline.deadline import deadline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIMEOUT_S = 5.0
"""A request, from the connection to the last byte of its answer; a name is looked up outside of it."""
BODY_MAX = 1 << 24
"""Bytes of an answer: open orders of a symbol are far fewer."""
SHOWN = 200
PATIENCE_S = 1.0
"""How long a gateway that lives has to see its orders cancelled."""
PAUSE_S = 0.05
ARRIVAL_S = 13.0
"""What a gateway sent before it died is at the venue by then, or never (`binance_orders.ABSENCE_MS`)."""
LOOK_S = 1.0
"""Between two looks while something may still arrive."""
RETRY_S = 0.1
"""Until what went wrong is tried again, doubled each time up to `LOOK_S` …"""
TRIES = 10
"""… and so often in a row, before the venue is given up."""
LONGEST_S = 180.0
"""The venue is not waited for beyond this, from the beginning: a ban may last three days."""
LIMITED, BANNED = 429, 418
RETRY_AFTER_S = {LIMITED: 10.0, BANNED: 120.0}
"""How long to stay away where the venue does not say."""
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
    """The venue did not do it, or cannot be asked; one line says why.

    `wait_s`: how long it wants no more requests from this address; `banned`: it answers none until then.
    """

    def __init__(self, text: str, wait_s: float = 0.0, *, banned: bool = False) -> None:
        super().__init__(text)
        self.wait_s, self.banned = wait_s, banned


def remember(name: str, place: Place) -> None:
    """Leave in the state folder where a pipeline trades, for its user alone."""
    path = state.make_folder(name) / state.LIVE
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(place))


def recall(folder: Path) -> Place | None:
    """Read where a pipeline trades; None for one that was never live. Raises VenueError."""
    path = folder / state.LIVE
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

    def cancel(self, symbol: str) -> int:
        """Cancel every open order of a symbol, and count them; that there was none is no problem."""
        found = self._ask("DELETE", "/api/v3/openOrders", symbol)
        return len(found) if isinstance(found, list) else 0

    def _ask(self, verb: str, path: str, symbol: str) -> Any:
        for _ in range(2):
            status, found, retry_after = self._send(verb, path, {"symbol": symbol, "recvWindow": RECEIVE_WINDOW_MS})
            if status == http.client.OK:
                return found
            code, said = (found.get("code"), found.get("msg")) if isinstance(found, dict) else ("", found)
            if code == NOTHING_TO_CANCEL and verb == "DELETE" and status == http.client.BAD_REQUEST:
                return []
            if code != TIMESTAMP:
                break
            self._set_clock()
        wait_s = 0.0
        if status in RETRY_AFTER_S:
            wait_s = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else RETRY_AFTER_S[status]
        problem = _shown(f"{symbol}: {verb} {path}: HTTP {status}: {code} {said}")
        raise VenueError(problem, wait_s, banned=status == BANNED)

    def _set_clock(self) -> None:
        """Measure how far the venue's clock is off ours: it does not take our time."""
        _, found, _ = self._exchange("GET", "/api/v3/time", {})
        if isinstance(found, dict) and isinstance(found.get("serverTime"), int):
            self._offset_ms = found["serverTime"] - time.time_ns() // 1_000_000

    def _send(self, verb: str, path: str, params: dict[str, str | int]) -> tuple[int, Any, str]:
        query = signing.rest_query(self._key, params, time.time_ns() // 1_000_000 + self._offset_ms)
        return self._exchange(verb, f"{path}?{query}", {signing.KEY_HEADER: self._key.api_key.reveal()})

    def _exchange(self, verb: str, target: str, headers: dict[str, str]) -> tuple[int, Any, str]:
        """Send one request over a connection of its own.

        HTTP status, what the body holds (its text if it is no JSON), and Retry-After.
        """
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
        retry_after = (answer.getheader("Retry-After") or "")[:9]
        try:
            return answer.status, json.loads(body), retry_after
        except (ValueError, RecursionError):
            return answer.status, body[:SHOWN].decode("utf-8", "replace"), retry_after

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


@dataclass
class _Symbol:
    """How far a symbol is: when to look at it next, errors in a row, and in the end what is reported."""

    name: str
    next_s: float
    tried: int = 0
    cancelled: int = 0
    found: dict[str, object] | None = None

    def give_up(self, problem: str) -> None:
        self.found = {"by": f"venue: {self.name}", "confirmed": False, "problem": problem}


def clear(name: str, *, lives: bool, say: Callable[[str], None]) -> list[dict[str, object]]:
    """See to it that no order of a pipeline is open; what was confirmed of each symbol, or the problem, for the report.

    Nothing to report of a pipeline that was never live. `lives`: its gateway has confirmed and follows the account;
    `say` is told what takes long.
    """
    try:
        place = recall(state.folder(name))
        if place is None:
            return []
        venue = Venue(place)
    except VenueError as error:
        return [{"by": "venue", "confirmed": False, "problem": str(error)}]
    return _Clearing(venue, place.symbols, lives=lives, say=say).run()


class _Clearing:
    """Looks at one symbol after the other, and cancels, until each is confirmed or given up."""

    def __init__(self, venue: Venue, symbols: list[str], *, lives: bool, say: Callable[[str], None]) -> None:
        self._venue, self._say = venue, say
        self._began_s = time.monotonic()
        self._patient_s = self._began_s + (PATIENCE_S if lives else 0.0)
        self._arrived_s = self._began_s + (0.0 if lives else ARRIVAL_S)
        self._symbols = [_Symbol(one, self._began_s) for one in symbols]
        if not lives:
            self._say(f"looking at the venue for {ARRIVAL_S:g} s: what was on its way may still arrive")

    def run(self) -> list[dict[str, object]]:
        """Do it; what was found of each symbol."""
        while waiting := [one for one in self._symbols if one.found is None]:
            symbol = min(waiting, key=lambda one: one.next_s)
            time.sleep(max(0.0, symbol.next_s - time.monotonic()))
            try:
                self._look(symbol)
            except VenueError as error:
                if error.wait_s:
                    self._stay_away(waiting, error)
                else:
                    self._again(symbol, str(error))
        return [one.found for one in self._symbols if one.found is not None]

    def _look(self, symbol: _Symbol) -> None:
        looked_s = time.monotonic()
        count = self._venue.open_orders(symbol.name)
        if count and looked_s < self._patient_s:
            symbol.next_s = looked_s + PAUSE_S
            return
        # The venue's lists may lag behind its engine, which is what cancels.
        gone = self._venue.cancel(symbol.name) if count or self._arrived_s > self._began_s else 0
        symbol.cancelled += gone
        if count or gone:
            self._again(symbol, f"{count or gone} orders are open")
        elif looked_s < self._arrived_s:
            symbol.tried, symbol.next_s = 0, min(looked_s + LOOK_S, self._arrived_s)
        else:
            us = round((time.monotonic() - self._began_s) * 1e6)
            symbol.found = {"by": f"venue: {symbol.name}", "confirmed": True, "us": us, "cancelled": symbol.cancelled}

    def _again(self, symbol: _Symbol, problem: str) -> None:
        """Look again later, or give up what will not be well."""
        now_s = time.monotonic()
        if symbol.tried >= TRIES and now_s >= self._arrived_s:
            symbol.give_up(problem)
        symbol.next_s = now_s + min(LOOK_S, RETRY_S * 2 ** min(symbol.tried, 10))
        symbol.tried += 1

    def _stay_away(self, waiting: list[_Symbol], error: VenueError) -> None:
        """Send nothing for as long as the venue wants that: it bans who goes on."""
        until_s = time.monotonic() + error.wait_s
        if error.banned:
            self._say(
                f"the venue has banned this address for {error.wait_s:g} s; orders stay open: "
                "cancel them from another address, or on the venue's own pages"
            )
        else:
            self._say(f"the venue takes no requests for {error.wait_s:g} s")
        for symbol in waiting:
            symbol.next_s = until_s
            if until_s > self._began_s + LONGEST_S:
                symbol.give_up(f"{error}; no requests for {error.wait_s:g} s")
