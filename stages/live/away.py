"""Away: until when the venue has told this address to stay away, for all that speak to it from here.

Whoever is told (market data's connections, the REST process, the session that orders go by) notes it here, and all of
them obey: who goes on asking is banned, or banned for longer. It is a region of the control segment; its words, each on
a line of its own, are ns since 1970 by the wall clock, and only grow.

Source: Binance, limits: 429 and 418 are of the IP address.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.atomics import compare_exchange, load_acquire
from shrivenq.shm.kernel import inlined, kernel

LIMITED_NS, BANNED_NS = 0, 8
"""429 and 418: requests, and requests and cancels, wait."""
WORDS = 16


@kernel
def tell(away: Any, word: int, until_ns: int) -> None:
    """Note that one of the two words is as late as this at least."""
    while True:
        found = load_acquire(away, word)
        if found >= until_ns or compare_exchange(away, word, found, until_ns) == found:
            return


@inlined
def seen(away: Any) -> int:
    """Read both words as one number, which changes when either does."""
    return load_acquire(away, LIMITED_NS) + load_acquire(away, BANNED_NS)


@kernel
def until_ns(away: Any) -> int:
    """Tell until when no request but cancels may be made; 0 for no time."""
    return max(load_acquire(away, LIMITED_NS), load_acquire(away, BANNED_NS))
