"""When to connect next: jittered back-off, within the venue's limit of connection attempts."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

S_NS = 1_000_000_000
ATTEMPTS_MAX = 200
"""Attempts in a window: the venue bans an address at 300, and a second process may share it."""
WINDOW_NS = 300 * S_NS
FIRST_NS = S_NS // 4
"""Longest wait after a connection that had held: all clients of a server that went away come back at once."""
LONGEST_NS = 30 * S_NS


class Pace:
    """Counts the attempts of all connections to one endpoint together, and says when the next may be made."""

    def __init__(self, random: Random, attempts_max: int = ATTEMPTS_MAX, window_ns: int = WINDOW_NS) -> None:
        self._random, self._attempts_max, self._window_ns = random, attempts_max, window_ns
        self._attempts: deque[int] = deque()
        self._away_ns = 0

    def next_ns(self, now_ns: int, failures: int) -> int:
        """Tell when to try again after `failures` attempts in a row that failed, if nobody else tries meanwhile."""
        longest = min(LONGEST_NS, FIRST_NS << min(failures, 20))
        shortest = longest // 2 if failures else 0
        return max(now_ns + self._random.randint(shortest, longest), self.allowed_ns(now_ns))

    def attempt(self, now_ns: int) -> None:
        """Note an attempt."""
        self._attempts.append(now_ns)

    def stay_away(self, until_ns: int) -> None:
        """Allow no attempt before `until_ns`: the venue has said so, and means the address."""
        self._away_ns = max(self._away_ns, until_ns)

    def allowed_ns(self, now_ns: int) -> int:
        """Tell when the next attempt is allowed, whoever makes it; `now_ns` for at once."""
        while self._attempts and self._attempts[0] <= now_ns - self._window_ns:
            self._attempts.popleft()
        full = len(self._attempts) >= self._attempts_max
        return max(now_ns, self._away_ns, self._attempts[-self._attempts_max] + self._window_ns if full else 0)
