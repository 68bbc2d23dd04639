"""Reconciliation: after every logon, what the venue holds is compared with what we hold, until both agree.

Asked over the same session: balances, the open orders of every symbol, where every order stands that we think open,
what became of those an earlier run sent and heard nothing of, and only then the trades (`trades`): one must not be
anybody's whose order has yet to be told. An error is no answer: every order is asked about until the venue has said
where it stands, and one that it says is open must be on its list. The answers become reports like any other. What we
did not know is adopted: a trade becomes a FILL (of order 0 if its order is not ours), an open order is told in the log.

Orders whose end the journal of earlier runs does not hold (`LiveVenue.unsettled`) stay so until the venue holds them
no more and cannot get them any more: open ones are cancelled, and one that was sent a moment ago and is not there is
waited for. Any other open order holds new orders until it is gone, by hand or by `shrivenq kill cancel`.

Source: Binance WebSocket API, account requests; there is no replay of missed events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from shrivenq.stages.live.asking import pause_ns
from shrivenq.stages.live.trades import PAGE
from shrivenq.stages.venues.binance_events_slow import Desk, integer
from shrivenq.stages.venues.binance_orders import ABSENCE_MS
from shrivenq.stages.venues.binance_slow import Refused, _field

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.stages.live.trades import Trades
    from shrivenq.stages.live.venue_state import LiveVenue

OPEN_STATES = ("NEW", "PARTIALLY_FILLED", "PENDING_NEW")
NO_SUCH_ORDER = -2013
UNSAID = (-1000, -1001, -1006, -1007, -1008)
"""Errors that say nothing but that the venue cannot say it now."""
TRIES = 10
"""Times such a question is asked again in one comparison, more and more slowly: of hundreds some meet an error."""


class OpenOrder(NamedTuple):
    """An open order that we think is none: foreign, or ours, `left_behind` by an earlier run or refused, but there."""

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

    def awaited(self) -> bool:
        """Tell whether the answer to any order or cancel is on its way, or not known."""
        return bool(np.isin(self.slots["state"][self.taken()], (o.SENT, o.CANCEL_SENT, o.UNKNOWN)).any())

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
    """One comparison.

    `ask(name, method, params, after_ns=…)` sends a request, `query(slot, after_ns)` asks where an order stands.
    """

    def __init__(
        self,
        context: LiveVenue,
        orders: Orders,
        ask: Callable[..., None],
        query: Callable[[int, int], None],
        trades: Trades,
        now_ns: int,
    ) -> None:
        self._context, self._orders, self._ask, self._query = context, orders, ask, query
        self._trades = trades
        self._symbols = [row["symbol"].decode() for row in context.instruments]
        self._left: set[str | int] = set()
        self._trades_asked = False
        self._has_moved = False
        self._more = False  # behind the trades that were just taken
        self._tries: dict[str | int, int] = {}
        self._open: set[int] = set()  # orders of ours that are open, as the venue says when asked …
        self._listed: set[int] = set()  # … and as it lists them
        self._owners: dict[tuple[int, int], int] = {}  # orders by instrument and the venue's id, as the venue just said
        left = context.unsettled[context.unsettled["order_id"] != 0]
        self._left_behind = {one["name"].decode(): one for one in left}
        young = left[left["time_ns"] + ABSENCE_MS * 1_000_000 > now_ns]
        self._young = {one["name"].decode(): int(one["time_ns"]) for one in young}
        self._nameless = [one["name"].decode() for one in left if one["venue_order_id"] == 0]
        self.open_orders: list[OpenOrder] = []
        self.adopted_fills = 0
        for one in left:
            if one["venue_order_id"] != 0:
                self._owners[int(one["instrument"]), int(one["venue_order_id"])] = int(one["order_id"])

    @property
    def is_answered(self) -> bool:
        """Tell whether everything asked was answered."""
        return self._trades_asked and not self._left

    def has_moved(self) -> bool:
        """Tell whether any of it was answered since this was asked last; others ask about orders as well."""
        moved, self._has_moved = self._has_moved, False
        return moved

    @property
    def expected(self) -> list[int]:
        """When the orders that may yet arrive at the venue were sent, ns since 1970. Valid once all is answered."""
        return list(self._young.values())

    def settled(self) -> Any:
        """List the orders of earlier runs that are over: rows of `unsettled`. Valid once all is answered."""
        kept = {one.name for one in self.open_orders} | set(self._young)
        return [one for name, one in self._left_behind.items() if name not in kept]

    def begin(self) -> None:
        """Ask for everything but trades."""
        self._request("account", "account.status", {})
        for symbol in self._symbols:
            self._request(f"orders {symbol}", "openOrders.status", {"symbol": symbol})
        for name in {**self._young, **dict.fromkeys(self._nameless)}:
            self._ask_order(name)
        for slot in self._orders.taken().tolist():
            self._left.add(int(self._orders.slots["order_id"][slot]))
            self._query(slot, 0)

    def _request(self, name: str, method: str, params: dict[str, Any], after_ns: int = 0) -> None:
        self._left.add(name)
        self._ask(name, method, params, after_ns=after_ns)

    def _answered(self, what: str | int) -> None:
        self._has_moved = self._has_moved or what in self._left
        self._left.discard(what)
        if not self._left and not self._trades_asked:
            self._trades_asked = True
            self._left.update(self._trades.ask(row) for row in range(len(self._symbols)))

    def placed(self, order_id: int, instrument: int, venue_order_id: int, *, is_open: bool) -> None:
        """Note that it was told where an order stands, and what the venue calls it, 0 if it does not know it."""
        self._owners[instrument, venue_order_id] = order_id
        if is_open and order_id in self._left:
            self._open.add(order_id)
        self._answered(order_id)

    @property
    def unlisted(self) -> set[int]:
        """List the orders of ours that are open and were not listed as such. Valid once all is answered."""
        return {one for one in self._open - self._listed if self._orders.find(one) >= 0}

    def unsaid(self, order_id: int) -> bool:
        """Ask again where an order stands that the venue could not say; False if that has been asked too often."""
        slot = self._orders.find(order_id)
        if order_id not in self._left:
            return True
        self._has_moved = True
        if slot < 0:
            self._answered(order_id)  # it is over: an event has said so meanwhile
            return True
        if not self._may_try(order_id):
            return False
        self._query(slot, pause_ns(self._tries[order_id] - 1))
        return True

    def _may_try(self, what: str | int) -> bool:
        self._tries[what] = self._tries.get(what, 0) + 1
        return self._tries[what] <= TRIES

    def _owner(self, row: int, venue_order_id: int) -> int:
        return self._orders.owner(row, venue_order_id) or self._owners.get((row, venue_order_id), 0)

    def refused(self, name: str, code: Any) -> bool:
        """Take a refusal; False for one that leaves a question open. What the venue could not say is asked again."""
        of = name.removeprefix("order ")
        if of not in self._left_behind:
            return False
        if code == NO_SUCH_ORDER:
            self._answered(name)  # the venue may still be about to learn of it
            return True
        if code not in UNSAID or not self._may_try(of):
            return False
        self._has_moved = True
        self._ask_order(of, pause_ns(self._tries[of] - 1))
        return True

    def _ask_order(self, name: str, after_ns: int = 0) -> None:
        symbol = self._symbols[int(self._left_behind[name]["instrument"])]
        self._request(f"order {name}", "order.status", {"symbol": symbol, "origClientOrderId": name}, after_ns)

    def take(self, name: str, result: Any) -> int:
        """Take the result of a request; return how many reports in `context.reports` follow. Raises Refused.

        `went_on` is to be called once they are published.
        """
        what, _, of = name.partition(" ")
        if what in ("account", "order"):
            if type(result) is not dict:
                raise Refused(f"{name}: an object expected")
            if what == "account":
                self._take_balances(result)
            else:
                self._take_order(of, result)
            return 0
        row = self._symbols.index(of)
        if what == "orders":
            self._take_open(row, result)
            return 0
        rows = self._trades.take(row, result, self._owner)
        self._more = type(result) is list and len(result) == PAGE
        self.adopted_fills += int((self._context.reports[:rows]["kind"] == m.FILL).sum())
        return rows

    def _take_balances(self, result: dict[str, Any]) -> None:
        """Note what the account holds: nothing of a currency that is not listed."""
        context = self._context
        desk = Desk(context.answers, context.reports, context.notes)
        held = np.zeros_like(context.balances)
        for one in _field(result, "balances", list, ""):
            row = desk.currency(_field(one, "asset", str, "")) if type(one) is dict else -1
            if row < 0:
                continue
            decimals = int(context.answers.currencies[row]["decimals"])
            held[row] = [desk.rounded(one.get(key), key, decimals, up=False) for key in ("free", "locked")]
        context.balances[:] = held

    def balances(self) -> dict[str, int]:
        """Say what the account holds, for the log."""
        codes = [row["code"].decode() for row in self._context.answers.currencies]
        return {code: int(sum(pair)) for code, pair in zip(codes, self._context.balances.tolist(), strict=True)}

    def _take_order(self, name: str, result: dict[str, Any]) -> None:
        """Take where an order of an earlier run stands that nothing was heard of."""
        row, venue_order_id = int(self._left_behind[name]["instrument"]), integer(result, "orderId", 1)
        self._note_owner(name, row, venue_order_id)
        if _field(result, "status", str, "") in OPEN_STATES:
            self._note_open(OpenOrder(self._symbols[row], venue_order_id, name, left_behind=True))

    def _take_open(self, row: int, result: Any) -> None:
        if type(result) is not list or any(type(one) is not dict for one in result):
            raise Refused("open orders: a list of objects expected")
        desk = Desk(self._context.answers, self._context.reports, self._context.notes)
        for one in result:
            name, venue_order_id = _field(one, "clientOrderId", str, ""), integer(one, "orderId", 1)
            own = desk.own_id(name)
            self._listed.add(own)
            if own and self._orders.find(own) >= 0:
                continue
            left_behind = name in self._left_behind
            if left_behind:
                self._note_owner(name, row, venue_order_id)
            self._note_open(OpenOrder(self._symbols[row], venue_order_id, name, left_behind or own != 0))

    def _note_owner(self, name: str, row: int, venue_order_id: int) -> None:
        """Note what the venue calls an order of an earlier run: it is there."""
        self._young.pop(name, None)
        self._left_behind[name]["venue_order_id"] = venue_order_id
        order_id = int(self._left_behind[name]["order_id"])
        self._owners[row, venue_order_id] = order_id
        unsettled = self._context.unsettled
        unsettled["venue_order_id"][unsettled["order_id"] == order_id] = venue_order_id

    def _note_open(self, order: OpenOrder) -> None:
        if order not in self.open_orders:
            self.open_orders.append(order)

    def went_on(self, name: str) -> None:
        """Note that the reports of an answer are published: behind a full page of trades there is another."""
        if self._more:
            self._more = False
            self._trades.ask(self._trades.row_of(name))
        else:
            self._answered(name)
