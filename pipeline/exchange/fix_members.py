"""FIX members: who has a session, by account and SenderCompID, and who may not have one now.

A SenderCompID is one session's at a time, and one that went without a Logout is blocked for a while. Accounts have a
limit of sessions at once and of logons in an interval. Source: section 15 of the protocol sheet.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shrivenq.pipeline.exchange.fix_dictionary import RefusedError
from shrivenq.pipeline.exchange.limits import Rule, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.pipeline.exchange.fix_session import FixSession
    from shrivenq.pipeline.exchange.venue import Venue

LOGONS = Rule("CONNECTIONS", "SECOND", 30, 15)
AT_ONCE = 10
TOO_MANY = -1034


class Members:
    """All sessions that are logged on."""

    def __init__(self, venue: Venue, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self._venue = venue
        self._clock = clock
        self._sessions: dict[int, dict[str, FixSession]] = {}
        self._blocked: dict[tuple[int, str], float] = {}
        self._logons: dict[int, Window] = {}

    def of(self, account: int) -> list[FixSession]:
        """Give the sessions of an account."""
        return list(self._sessions.get(account, {}).values())

    def all(self) -> list[FixSession]:
        """Give every session."""
        return [session for own in self._sessions.values() for session in own.values()]

    def enter(self, account: int, sender: str, session: FixSession) -> None:
        """Take in a session whose logon is right. Raises RefusedError."""
        logons = self._logons.setdefault(account, Window(LOGONS))
        now_us = self._venue.market_us()
        own = self._sessions.setdefault(account, {})
        if not logons.room(1, now_us):
            limit = f"current limit is {LOGONS.limit} per '{LOGONS.number} SECOND'"
            raise RefusedError(TOO_MANY, f"Too many connection attempts for account; {limit}.", ends=True)
        logons.add(1, now_us)
        if len(own) >= AT_ONCE:
            text = f"Too many concurrent connections; current limit is '{AT_ONCE}'."
            raise RefusedError(TOO_MANY, text, ends=True)
        if sender in own:
            raise RefusedError(-1178, "`SenderCompId(49)` is in use by another session.", 49, ends=True)
        if self._blocked.get((account, sender), 0.0) > self._clock():
            text = "`SenderCompId(49)` is blocked for a while: its last session did not log out."
            raise RefusedError(-1178, text, 49, ends=True)
        own[sender] = session

    def leave(self, account: int, sender: str, block_s: float) -> None:
        """Let a session go; its name is blocked for `block_s`, 0 for one that logged out."""
        del self._sessions[account][sender]
        now = self._clock()
        self._blocked = {name: until for name, until in self._blocked.items() if until > now}
        if block_s:
            self._blocked[account, sender] = now + block_s
