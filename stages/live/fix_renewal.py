"""Two FIX sessions: orders go by one, and the other takes over from it before the venue ends it, each in its turn.

The other is logged on, and has been told the limits, before orders go by it from one to the next; nothing is held. The
one before logs out, and what is on its way there is answered before that is. Where the one in use ends by itself new
orders are held, until it, or the other where that is on its way already, is up, and the account was compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.stages import control, token_bucket
from shrivenq.stages.live import fix_io
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.fix_session import LEAVING, Endpoint, FixSession

if TYPE_CHECKING:
    import random
    from collections.abc import Callable


class FixSessions:
    """Both sessions; `tell()` is called when the one in use comes up and when it is lost."""

    def __init__(
        self,
        config: v.Config,
        context: v.LiveVenue,
        loop: Any,
        endpoint: Endpoint,
        generator: random.Random,
        tell: Callable[[], None],
        log: Any,
    ) -> None:
        self._context, self._tell, self._log = context, tell, log
        self._by = (context.fix, context.other_fix)
        self.now, self.other = (
            FixSession(config, context, loop, by, row, endpoint, generator, self._changed, log)
            for by, row in zip(self._by, (fix_io.ROW, fix_io.OTHER_ROW), strict=True)
        )
        """The session in use, and the one that takes over from it or has been taken over from."""

    @property
    def is_up(self) -> bool:
        """Tell whether orders may go."""
        return self.now.is_up

    def serve(self, now_ns: int) -> None:
        """Look after both."""
        self.now.serve(now_ns)
        if self.other.is_there or self.now.is_old(now_ns):
            self.other.serve(now_ns)
        if self.other.is_up and not self.now.is_sending:
            self._take_over(now_ns)

    def wake_ns(self, now_ns: int) -> int:
        """Tell when to be served again although nothing has asked for it."""
        wakes = [self.now.wake_ns(now_ns)]
        if self.other.is_there or self.now.is_old(now_ns):
            wakes.append(self.other.wake_ns(now_ns))
        elif self.now.is_up:
            wakes.append(self.now.roll_ns)
        return min(wakes)

    def _take_over(self, now_ns: int) -> None:
        """Let orders go by the other session from here on, and the one before log out."""
        ours, theirs = (by.buckets.words for by in self._by)
        until_ns = max(ours[token_bucket.THROTTLED_NS], theirs[token_bucket.THROTTLED_NS])
        ours[token_bucket.THROTTLED_NS] = theirs[token_bucket.THROTTLED_NS] = until_ns
        self._change()
        self._log.info("another fix session has taken over")
        self.other.leave("another session has taken over", now_ns)

    def _change(self) -> None:
        self.now, self.other = self.other, self.now
        words = self._context.words
        words[v.BY_FIX] = v.OTHER_FIX if words[v.BY_FIX] == v.FIX else v.FIX

    def _changed(self, session: FixSession) -> None:
        """Take note that a session came up or was lost; the one in use means that all have to be compared."""
        if session is not self.now:
            return
        if not session.is_up:
            control.hold(self._context.hold, control.RECONCILING)
        self._tell()
        if not session.is_up and self.other.is_there and self.other.state != LEAVING:
            self._change()
            self._tell()

    def close(self) -> None:
        """Log out, in order."""
        self.other.close()
        self.now.close()
