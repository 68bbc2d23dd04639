"""The account's trades, looked at: what was never told is found here, once, in whatever order it happened.

Of each instrument it is known up to which trade all of them were looked at (its anchor, which the journal holds too),
and which were told since. Trades behind the anchor are asked for at every reconciliation; and, of one instrument after
the other, while orders pass, so that what was told never has to be remembered for long. A trade that nobody told makes
the session reconcile, which finds out whose it is before it is booked.

Source: Binance WebSocket API, myTrades.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.stages import id_map
from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from shrivenq.stages.live.venue_state import LOOK_AFTER, NEVER_LOOKED, NO_TRADES, TOLD_MAX
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues import binance_reports_slow as slow
from shrivenq.stages.venues.binance_events_slow import Desk, integer, time_ns
from shrivenq.stages.venues.binance_slow import Refused, _field

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.stages.live.venue_state import LiveVenue

PAGE = 1_000
"""Trades asked for at a time, the most the venue gives."""
LOOK_NS = 10_000_000_000
"""Between two looks, each at one instrument: 20 of the venue's weight."""
AGAIN_NS = 1_000_000_000
"""Between two looks at instruments of which much was told."""


class Trades:
    """What is known of the trades of every instrument; `ask(name, method, params)` sends a request."""

    def __init__(self, context: LiveVenue, ask: Callable[[str, str, dict[str, Any]], None]) -> None:
        self._context, self._ask = context, ask
        self._symbols = [row["symbol"].decode() for row in context.instruments]
        self._turn = 0
        self.look_ns = 0
        # Load the machine code now, and not when it is needed.
        id_map.find(context.known.ids, 0, o.trade_key(0, m.BUY))
        a.put_row(context.reports, 0, 0, 0, 0, 0, 0)

    def begin(self, now_ns: int) -> None:
        """Begin to look now and then."""
        self.look_ns = now_ns + LOOK_NS

    def row_of(self, name: str) -> int:
        """Find the instrument that a request of this name was about."""
        return self._symbols.index(name.partition(" ")[2])

    def ask(self, row: int, what: str = "trades") -> str:
        """Ask for the trades behind the anchor; give the request's name, of which `what` is the first word."""
        anchor, name = int(self._context.anchors[row]), f"{what} {self._symbols[row]}"
        known = {"limit": 1} if anchor == NEVER_LOOKED else {"limit": PAGE, "fromId": anchor + 1}
        self._ask(name, "myTrades", {"symbol": self._symbols[row], **known})
        return name

    def look(self, now_ns: int) -> bool:
        """Ask about one instrument if it is time; False if so much was told unseen that this has to come first."""
        told = self._context.told
        if int(told.sum()) >= TOLD_MAX:
            return False
        much = int(told.argmax())
        if told[much] < LOOK_AFTER and now_ns < self.look_ns:
            return True
        if now_ns >= self.look_ns - (LOOK_NS - AGAIN_NS):
            if told[much] < LOOK_AFTER:
                much = self._turn = (self._turn + 1) % len(told)
            self.look_ns = now_ns + LOOK_NS
            self.ask(much, "look")
        return True

    def wake_ns(self) -> int:
        """Say when to look next."""
        return self.look_ns - (LOOK_NS - AGAIN_NS if int(self._context.told.max()) >= LOOK_AFTER else 0)

    def _unknown(self, row: int, result: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """List the trades of an answer that nobody told."""
        desk = Desk(self._context.answers, self._context.reports, self._context.notes)
        found = []
        for one in result:
            if desk.instrument(one, "symbol") != row:
                raise Refused(f"myTrades: symbol is {one['symbol']}: not the request's")
            key = o.trade_key(integer(one, "id"), m.BUY if _field(one, "isBuyer", bool, "") else m.SELL)
            if id_map.find(self._context.known.ids, row, key) == id_map.ABSENT:
                found.append(one)
        return found

    def is_whole(self, row: int, result: Any) -> bool:
        """Tell whether all of an answer was told. Raises Refused."""
        return self._context.anchors[row] != NEVER_LOOKED and not self._unknown(row, _listed(result))

    def take(self, row: int, result: Any, owner: Callable[[int, int], int]) -> int:
        """Make FILLs of what was not told, of the orders `owner(row, venue's id)`, and move the anchor.

        Return how many reports in `context.reports` are to be published. Of an account that was never looked at only
        the number of the last trade is noted. Raises Refused.
        """
        context, result = self._context, _listed(result)
        anchor = int(context.anchors[row])
        desk = Desk(context.answers, context.reports, context.notes)
        for one in self._unknown(row, result) if anchor != NEVER_LOOKED else []:
            venue_order_id = integer(one, "orderId", 1)
            request = slow._Request(m.NEW, row, owner(row, venue_order_id), 0)  # noqa: SLF001
            side = m.BUY if one["isBuyer"] else m.SELL
            told = {"venue_order_id": venue_order_id, "venue_ns": time_ns(one, "time"), "side": side}
            slow._read_trade(desk, request, one, ("qty", "id"), told, 0)  # noqa: SLF001
        return desk.rows + self._move(row, result, desk.rows)

    def _move(self, row: int, result: list[dict[str, Any]], at: int) -> int:
        """Move the anchor behind an answer, and have the journal hold it: a report at `at`; 0 if it stays."""
        context = self._context
        last = max((integer(one, "id") for one in result), default=NO_TRADES)
        # A trade with ourselves stands there twice, and a page may end between.
        last -= len(result) == PAGE
        if last <= context.anchors[row] and context.anchors[row] != NEVER_LOOKED:
            return 0
        context.anchors[row] = last
        context.told[row] = 0
        a.put_row(context.reports, at, m.LOOKED, 0, 0, row, 0)
        context.reports[at]["trade_id"] = last
        return 1


def _listed(result: Any) -> list[dict[str, Any]]:
    """Check that an answer is a list of trades, no longer than was asked for. Raises Refused."""
    if type(result) is not list or len(result) > PAGE or any(type(one) is not dict for one in result):
        raise Refused(f"myTrades: a list of at most {PAGE} objects expected")
    return result
