"""Desk: what every command of the engine does before and after its kernel: checks, ids, events, views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shrivenq.pipeline.exchange import commands, reports
from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.entry import check_entry, request_row
from shrivenq.pipeline.exchange.history import History
from shrivenq.pipeline.exchange.refusals import error_of
from shrivenq.pipeline.exchange.types import (
    DepthEvent,
    Error,
    Event,
    ListView,
    NewOrder,
    OrderEvent,
    Outcome,
    Prevention,
)
from shrivenq.pipeline.exchange.views import show_events, show_preventions
from shrivenq.stages.id_map import ABSENT, find
from shrivenq.stages.messages import BUY

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from shrivenq.pipeline.exchange.client_ids import ClientIds
    from shrivenq.pipeline.exchange.types import ListStatus


def outcome_of(
    mine: Sequence[OrderEvent], preventions: Sequence[Prevention], name: str, original: str, now_us: int
) -> Outcome:
    """Answer a command about an order with what was reported of it; `name` and `original` are the answer's ids."""
    return Outcome(
        error=None,
        order=mine[-1].order,
        fills=tuple(one.fill for one in mine if one.fill is not None),
        preventions=tuple(preventions),
        client_id=name,
        original_client_id=original,
        time_us=now_us,
        execution_id=mine[-1].execution_id,
    )


class Desk(History):
    """The questions, and what commands are made of."""

    preventions: deque[Prevention]
    _list_names: ClientIds
    _names: dict[int, tuple[str, str]]
    _events: list[Event]

    def _prepare(self, account: int, order: NewOrder, now_us: int, leg: int = 0) -> Error | None:
        """Check what needs no market, and put the order where the kernels look for it, or for that of a list."""
        at = self._at.get(order.symbol)
        if at is None:
            return error_of("bad_symbol")
        symbol = self.symbols[order.symbol]
        problem = check_entry(order, symbol)
        if problem is not None:
            return problem
        self.exchange.words[s.NOW_US] = max(now_us, int(self.exchange.words[s.NOW_US]))
        self.exchange.requests[leg] = request_row(order, account, at, symbol)
        if order.client_id is not None and self._open_holder(account, at, order.client_id) != ABSENT:
            return error_of("duplicate")
        return None

    def _open_holder(self, account: int, at: int, client_id: str) -> int:
        """Find the open order that has a client id, ABSENT for none."""
        order_id = self._client_ids.find(account, at, client_id)
        row = ABSENT if order_id is None else find(self.exchange.ids, order_id, 0)
        if order_id is None or row == ABSENT or self.exchange.orders[row]["status"] > s.PARTIALLY_FILLED:
            return ABSENT
        return order_id

    def _finish(self, at: int, row: int, now_us: int) -> Outcome:
        """Take the events of a command, answer it, and let stop orders follow."""
        name, original = self._names.get(row, (self._client_ids.of(row), ""))
        order_id = int(self.exchange.orders[row]["order_id"])
        events, preventions = self._take()
        mine = [one for one in events if isinstance(one, OrderEvent) and one.order.order_id == order_id]
        outcome = outcome_of(mine, preventions, name, original, now_us)
        self._settle(at)
        return outcome

    def _settle(self, at: int) -> None:
        """Let stop orders and order lists follow what a command did."""
        while not commands.settle_down(self.exchange, at):
            self._take()
        self._take()
        self._show_depth(at)

    def _take(self) -> tuple[list[Event], list[Prevention]]:
        """Move what the kernels reported into the list of events."""
        exchange = self.exchange
        if exchange.words[s.EVENTS] == 0:
            return [], []
        events = show_events(exchange, self._list, self._client_ids.of, self._names, self._list_view)
        prevented = any(isinstance(one, OrderEvent) and one.execution == "TRADE_PREVENTION" for one in events)
        preventions = show_preventions(exchange, self._list) if prevented else []
        exchange.words[s.EVENTS] = 0
        self._names.clear()
        self._events += events
        self.preventions += preventions
        return events, preventions

    def _show_depth(self, at: int) -> None:
        """Tell which levels of a book changed, if any did."""
        exchange = self.exchange
        first_id = int(exchange.symbols[at]["shown_id"]) + 1
        count = reports.collect(exchange, at)
        last_id = int(exchange.symbols[at]["shown_id"])
        if last_id < first_id:
            return
        rows = exchange.changes[:count].tolist()
        bids = sorted(((price, quantity) for side, price, quantity in rows if side == BUY), reverse=True)
        asks = sorted((price, quantity) for side, price, quantity in rows if side != BUY)
        now_us = int(exchange.words[s.NOW_US])
        self._events.append(DepthEvent(self._list[at].name, first_id, last_id, tuple(bids), tuple(asks), now_us))

    def _list_view(self, row: int, status: ListStatus | None = None) -> ListView:
        """Show the list in a row."""
        one = self.exchange.lists[row]
        legs = [(int(one[f"row_{leg}"]), int(one[f"id_{leg}"])) for leg in range(int(one["legs"]))]
        return ListView(
            account=int(one["account"]),
            symbol=self._list[int(one["symbol"])].name,
            list_id=int(one["list_id"]),
            client_id=self._list_names.of(row),
            contingency="OCO" if one["kind"] == s.OCO else "OTO",
            status=status or ("EXEC_STARTED" if one["executing"] else "ALL_DONE"),
            orders=tuple((order_id, self._client_ids.of(at)) for at, order_id in legs),
            created_us=int(one["created_us"]),
            updated_us=int(one["updated_us"]),
        )
