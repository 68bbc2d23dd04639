"""Open orders of the account that are not this run's: told, cancelled where they are ours to cancel, and waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.shm import ring
from shrivenq.stages import control
from shrivenq.stages import messages as m
from shrivenq.stages.live import venue_io
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.stage import time_of
from shrivenq.stages.venues.answers import put_row
from shrivenq.stages.venues.binance_orders import ABSENCE_MS

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.stages.live.reconcile import OpenOrder, Reconciliation
    from shrivenq.stages.live.venue_state import LiveVenue

LOOK_AGAIN_NS = 5_000_000_000
"""Between two looks at open orders that are not ours."""


class Foreign:
    """What comparisons found; `ask(name, method, params)` sends a request."""

    def __init__(
        self, context: LiveVenue, loop: Any, ask: Callable[[str, str, dict[str, Any]], None], log: Any
    ) -> None:
        self._context, self._loop, self._ask, self._log = context, loop, ask, log
        self._orders: list[OpenOrder] = []

    def clear(self) -> None:
        """Forget what was found."""
        self._orders = []
        self._context.words[v.FOREIGN_OPEN] = 0

    def take(self, reconciliation: Reconciliation) -> int:
        """Take what a comparison has found; return after how many ns to look again, 0 if nothing holds new orders."""
        words = self._context.words
        self._settle(reconciliation.settled())
        found, expected = reconciliation.open_orders, reconciliation.expected
        if found and found != self._orders:
            self._log.warning(
                "held: open orders that are not this run's",
                orders=[f"{one.symbol} {one.venue_order_id} {one.name}" for one in found],
                fix="ours, left behind or refused, are cancelled; others: shrivenq kill cancel, or at the venue",
            )
        self._orders = found
        words[v.FOREIGN_OPEN] = len(found)
        if not found and not expected and not words[v.LEFT]:
            return 0
        if expected:
            self._log.info("held: orders of an earlier run may yet arrive at the venue", orders=len(expected))
        self.cancel()
        over_ns = min(expected, default=0) + ABSENCE_MS * 1_000_000 - time_of(self._loop, 0)
        return max(1, min(LOOK_AGAIN_NS, over_ns)) if expected else LOOK_AGAIN_NS

    def _settle(self, over: list[Any]) -> None:
        """Have the journal hold that these orders of earlier runs are over; their fills are told."""
        context = self._context
        for one in over:
            if not ring.claim(context.from_venue, 1):
                return  # told after the next comparison
            put_row(context.reports, 0, m.OVER, one["order_id"], 0, one["instrument"], 0)
            context.reports[0]["venue_order_id"] = one["venue_order_id"]
            venue_io.publish(context, self._loop, 0, 1, True)
            context.unsettled[context.unsettled["order_id"] == one["order_id"]] = 0
            context.words[v.LEFT] -= 1

    def look(self) -> None:
        """Cancel, if a person has asked for it since."""
        words, level = self._context.words, control.kill_level(self._context.kill)
        if level >= control.CANCEL and words[v.ASKED_LEVEL] < level:
            self.cancel()
        words[v.ASKED_LEVEL] = level

    def cancel(self) -> None:
        """Cancel what is ours, left behind or refused, and at kill level `cancel` every other order too."""
        everything = control.kill_level(self._context.kill) >= control.CANCEL
        for one in self._orders:
            if one.left_behind or everything:
                name = f"cancel {one.symbol} {one.venue_order_id}"
                self._ask(name, "order.cancel", {"symbol": one.symbol, "orderId": one.venue_order_id})
