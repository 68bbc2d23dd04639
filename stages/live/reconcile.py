"""Reconciliation: after every logon, what the venue holds is compared with what we hold, until both agree.

Asked over the same session: balances, the open orders of every symbol, where every order stands that we think open, and
only then the trades since the last one known: a trade must not be anybody's whose order has yet to be told. The answers
become reports like any other. What we did not know is adopted: a trade
becomes a FILL (of order 0 if its order is not ours), an open order is told in the log. Orders that an earlier start of
this very supervisor left behind are cancelled; any other holds new orders until it is gone, by hand or by
`shrivenq kill cancel`.

Source: Binance WebSocket API, account requests; there is no replay of missed events.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from shrivenq.stages.live.venue_state import NEVER_LOOKED, NO_TRADES
from shrivenq.stages.venues import binance_reports_slow as slow
from shrivenq.stages.venues.binance_events_slow import Desk, integer, time_ns
from shrivenq.stages.venues.binance_slow import Refused, _field

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.stages.live.venue_state import LiveVenue

PAGE = 1_000
"""Trades asked for at a time, the most the venue gives."""
RUN_LENGTH = 8
"""Characters of a run id that all starts of one supervisor share."""
_OWN_NAME = re.compile(r"(?P<run>[0-9a-f]{8}(?:-[0-9]+)?)-[0-9]+-[0-9]+", re.ASCII)


class OpenOrder(NamedTuple):
    """An order that is open at the venue and not ours to know: `left_behind` by an earlier start, or foreign."""

    symbol: str
    venue_order_id: int
    name: str
    left_behind: bool


class Orders(NamedTuple):
    """The order pool, read only: `slots` (ORDER_SLOT) and their `generation`, odd while a slot is taken."""

    slots: Any
    generation: Any

    def taken(self) -> Any:
        """List the slots whose order was sent and is not over."""
        state = self.slots["state"]
        return np.flatnonzero((self.generation & 1 == 1) & (state != o.NEW) & ~o.TERMINAL[state])

    def find(self, order_id: int) -> int:
        """Find the slot of an order; -1 for none."""
        found = np.flatnonzero((self.slots["order_id"] == order_id) & (self.generation & 1 == 1))
        return int(found[0]) if len(found) else -1

    def owner(self, instrument: int, venue_order_id: int) -> int:
        """Find the order of ours that the venue calls so; 0 for none."""
        named = (self.slots["venue_order_id"] == venue_order_id) & (self.slots["instrument"] == instrument)
        found = np.flatnonzero(named & (self.generation & 1 == 1))
        return int(self.slots["order_id"][found[0]]) if len(found) else 0


class Reconciliation:
    """One comparison. `ask(name, method, params)` sends a request, `query(slot)` asks where an order stands."""

    def __init__(
        self,
        context: LiveVenue,
        orders: Orders,
        ask: Callable[[str, str, dict[str, Any]], None],
        query: Callable[[int], None],
    ) -> None:
        self._context, self._orders, self._ask, self._query = context, orders, ask, query
        self._symbols = [row["symbol"].decode() for row in context.instruments]
        self._left: set[str | int] = set()
        self._trades_asked = False
        self._owners: dict[tuple[int, int], int] = {}  # orders by instrument and the venue's id, as the venue just said
        self.open_orders: list[OpenOrder] = []
        self.adopted_fills = 0

    @property
    def is_answered(self) -> bool:
        """Tell whether everything asked was answered."""
        return self._trades_asked and not self._left

    def begin(self) -> None:
        """Ask for everything but trades."""
        self._request("account", "account.status", {})
        for symbol in self._symbols:
            self._request(f"orders {symbol}", "openOrders.status", {"symbol": symbol})
        for slot in self._orders.taken().tolist():
            self._left.add(int(self._orders.slots["order_id"][slot]))
            self._query(slot)

    def _request(self, name: str, method: str, params: dict[str, Any]) -> None:
        self._left.add(name)
        self._ask(name, method, params)

    def _ask_trades(self, row: int) -> None:
        known = int(self._context.trades[row])
        params: dict[str, Any] = {"symbol": self._symbols[row], "limit": 1 if known == NEVER_LOOKED else PAGE}
        if known != NEVER_LOOKED:
            params["fromId"] = known + 1
        self._request(f"trades {self._symbols[row]}", "myTrades", params)

    def _answered(self, what: str | int) -> None:
        self._left.discard(what)
        if not self._left and not self._trades_asked:
            self._trades_asked = True
            for row in range(len(self._symbols)):
                self._ask_trades(row)

    def placed(self, order_id: int, instrument: int, venue_order_id: int) -> None:
        """Note that it was told where an order stands, and what the venue calls it, 0 if it does not know it."""
        self._owners[instrument, venue_order_id] = order_id
        self._answered(order_id)

    def _owner(self, row: int, venue_order_id: int) -> int:
        return self._orders.owner(row, venue_order_id) or self._owners.get((row, venue_order_id), 0)

    def take(self, name: str, result: Any) -> int:
        """Take the result of a request; return how many reports in `context.reports` follow. Raises Refused.

        `went_on` is to be called once they are published.
        """
        what, _, symbol = name.partition(" ")
        if what == "account":
            self._take_balances(result)
            return 0
        if type(result) is not list or any(type(one) is not dict for one in result):
            raise Refused(f"{name}: a list of objects expected")
        row = self._symbols.index(symbol)
        if what == "orders":
            self._take_open(row, result)
            return 0
        return self._take_trades(row, result)

    def _take_balances(self, result: Any) -> None:
        context = self._context
        desk = Desk(context.answers, context.reports, context.notes)
        for one in _field(result if type(result) is dict else {}, "balances", list, ""):
            row = desk.currency(_field(one, "asset", str, "")) if type(one) is dict else -1
            if row < 0:
                continue
            decimals = int(context.answers.currencies[row]["decimals"])
            context.balances[row] = [desk.rounded(one.get(key), key, decimals, up=False) for key in ("free", "locked")]

    def _take_open(self, row: int, result: list[dict[str, Any]]) -> None:
        desk = Desk(self._context.answers, self._context.reports, self._context.notes)
        run = self._context.run.tobytes().decode()
        for one in result:
            name, venue_order_id = _field(one, "clientOrderId", str, ""), integer(one, "orderId", 1)
            own = desk.own_id(name)
            if own and self._orders.find(own) >= 0:
                continue
            found = _OWN_NAME.fullmatch(name)
            left_behind = found is not None and found["run"][:RUN_LENGTH] == run[:RUN_LENGTH]
            self.open_orders.append(OpenOrder(self._symbols[row], venue_order_id, name, left_behind))

    def _take_trades(self, row: int, result: list[dict[str, Any]]) -> int:
        """Make FILLs of trades; of an account that was never looked at, only the number of the last is noted."""
        context = self._context
        if context.trades[row] == NEVER_LOOKED:
            context.trades[row] = max((integer(one, "id") for one in result), default=NO_TRADES)
            return 0
        desk = Desk(context.answers, context.reports, context.notes)
        for one in result:
            if desk.instrument(one, "symbol") != row:
                raise Refused(f"myTrades: symbol is {one['symbol']}: not the request's")
            venue_order_id = integer(one, "orderId", 1)
            request = slow._Request(m.NEW, row, self._owner(row, venue_order_id), 0)  # noqa: SLF001
            side = m.BUY if _field(one, "isBuyer", bool, "") else m.SELL
            known = {"venue_order_id": venue_order_id, "venue_ns": time_ns(one, "time"), "side": side}
            slow._read_trade(desk, request, one, ("qty", "id"), known, 0)  # noqa: SLF001
        self.adopted_fills += desk.rows
        return desk.rows

    def went_on(self, name: str, rows: int) -> None:
        """Note that the reports of an answer are published: behind a full page of trades there is another."""
        self._answered(name)
        if name.startswith("trades ") and rows == PAGE:
            self._ask_trades(self._symbols.index(name.partition(" ")[2]))
