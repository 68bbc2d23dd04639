"""Order lists as the server sees them: placed, cancelled and asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.pipeline.exchange import list_commands
from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.desk import Desk, outcome_of
from shrivenq.pipeline.exchange.entry import CLIENT_ID
from shrivenq.pipeline.exchange.history import within
from shrivenq.pipeline.exchange.refusals import ERRORS, error_of
from shrivenq.pipeline.exchange.types import (
    Error,
    ListEvent,
    ListKind,
    ListOutcome,
    ListView,
    NewOrder,
    OrderEvent,
    Outcome,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS: dict[ListKind, int] = {"OCO": s.OCO, "OTO": s.OTO, "OTOCO": s.OTOCO}
ANY_SYMBOL = -1
"""A list is found by its client id alone."""


class OrderLists(Desk):
    """Commands about order lists, and questions."""

    def place_list(
        self, account: int, kind: ListKind, orders: Sequence[NewOrder], now_us: int, *, client_id: str | None = None
    ) -> ListOutcome:
        """Place a list of orders in one symbol.

        Above and below of an OCO, working and pending of an OTO, working, above and below of an OTOCO.
        """
        problem = self._prepare_list(account, orders, now_us, client_id)
        if problem is not None:
            return ListOutcome(problem)
        code = list_commands.place_list(self.exchange, KINDS[kind], len(orders))
        if code != 0:
            return ListOutcome(ERRORS[code])
        row = int(self.exchange.words[s.LIST])
        one = self.exchange.lists[row]
        at = int(one["symbol"])
        name = client_id or self._client_ids.make()
        self._list_names.give(row, int(one["list_id"]), account, ANY_SYMBOL, name)
        for leg, order in enumerate(orders):
            word = order.client_id or self._client_ids.make()
            self._client_ids.give(int(one[f"row_{leg}"]), int(one[f"id_{leg}"]), account, at, word)
        view = self._list_view(row, "EXEC_STARTED")
        return ListOutcome(None, view, self._finish_list(at, view, now_us))

    def cancel_list(
        self,
        account: int,
        symbol: str,
        now_us: int,
        *,
        list_id: int | None = None,
        client_id: str | None = None,
        new_client_id: str | None = None,
    ) -> ListOutcome:
        """Cancel what is open of a list, named by `list_id` or by `client_id` (or both, if they agree)."""
        at = self._at.get(symbol)
        if at is None:
            return ListOutcome(error_of("bad_symbol"))
        if new_client_id is not None and not CLIENT_ID.fullmatch(new_client_id):
            return ListOutcome(error_of("bad_client_id"))
        row = self._find_list(account, list_id, client_id)
        if row is None or self.exchange.lists[row]["symbol"] != at:
            return ListOutcome(error_of("unknown_list"))
        self.exchange.words[s.NOW_US] = max(now_us, int(self.exchange.words[s.NOW_US]))
        code = list_commands.cancel_list(self.exchange, row)
        if code != 0:
            return ListOutcome(ERRORS[code])
        self._name_cancels(at, new_client_id or self._client_ids.make())
        outcomes = self._finish_list(at, self._list_view(row, "ALL_DONE"), now_us)
        return ListOutcome(None, self._list_view(row, "ALL_DONE"), outcomes)

    def order_list(self, account: int, *, list_id: int | None = None, client_id: str | None = None) -> ListView | Error:
        """Look a list up, open or done, by either id (or both, if they agree)."""
        row = self._find_list(account, list_id, client_id)
        return error_of("no_such_list") if row is None else self._list_view(row)

    def open_lists(self, account: int) -> list[ListView]:
        """List an account's open order lists, the oldest first."""
        lists = self.exchange.lists
        return [self._list_view(row) for row in self._lists_of(account) if lists[row]["executing"]]

    def all_lists(
        self,
        account: int,
        *,
        from_id: int | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        limit: int = 500,
    ) -> list[ListView]:
        """List an account's order lists, the oldest first, of those that are still kept.

        From list id `from_id` on, else the last `limit`; created from `start_us` to `end_us`, both included.
        """
        rows = self._lists_of(account)
        lists = self.exchange.lists[rows]
        kept = rows[within(lists["created_us"], start_us, end_us) & (lists["list_id"] >= (from_id or 0))]
        first = from_id is not None or start_us is not None
        return [self._list_view(row) for row in (kept[:limit] if first else kept[-limit:])]

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare_list(
        self, account: int, orders: Sequence[NewOrder], now_us: int, client_id: str | None
    ) -> Error | None:
        """Check what needs no market, and put the orders where the kernels look for them."""
        if client_id is not None and not CLIENT_ID.fullmatch(client_id):
            return error_of("bad_client_id")
        for leg, order in enumerate(orders, 1):
            problem = self._prepare(account, order, now_us, leg)
            if problem is not None:
                return problem
        named = [one.client_id for one in orders if one.client_id is not None]
        holder = None if client_id is None else self._find_list(account, None, client_id)
        taken = holder is not None and self.exchange.lists[holder]["executing"] != 0
        return error_of("duplicate") if taken or len(set(named)) < len(named) else None

    def _finish_list(self, at: int, view: ListView, now_us: int) -> tuple[Outcome, ...]:
        """Take the events of a command about a list, answer for each of its orders, and let the rest follow."""
        names = dict(self._names)
        events, preventions = self._take()
        found = []
        for order_id, word in view.orders:
            mine = [one for one in events if isinstance(one, OrderEvent) and one.order.order_id == order_id]
            if mine:  # one that was closed before its list was cancelled has nothing to say
                last = mine[-1]
                found.append(outcome_of(mine, preventions, last.client_id, last.original_client_id or word, now_us))
        assert found or not names
        self._settle(at)
        return tuple(found)

    def _name_cancels(self, at: int, name: str) -> None:
        """Note the cancel's own id for every order that has just been cancelled in a symbol."""
        exchange = self.exchange
        events = exchange.events[: int(exchange.words[s.EVENTS])]
        gone = events[(events["kind"] == s.REPORT) & (events["execution"] == s.X_CANCELED) & (events["symbol"] == at)]
        for row in gone["row"].tolist():
            self._names[row] = (name, self._client_ids.of(row))

    def _tell_renamed(self, row: int, now_us: int) -> None:
        """Tell that an order of a list, if it is one, has another client id."""
        at = int(self.exchange.orders[row]["list"]) - 1
        if at >= 0:
            view = self._list_view(at, "UPDATED")
            self._events.append(ListEvent(view.account, view, now_us))

    def _find_list(self, account: int, list_id: int | None, client_id: str | None) -> int | None:
        """Find the row of an account's list; None if there is none that both ids name."""
        named = None if client_id is None else self._list_names.find(account, ANY_SYMBOL, client_id)
        if client_id is not None and (named is None or list_id not in (None, named)):
            return None
        wanted = list_id if named is None else named
        lists = self.exchange.lists
        rows = np.flatnonzero((lists["account"] == account) & (lists["list_id"] == (wanted or 0)))
        return int(rows[0]) if wanted and len(rows) and self._is_kept(int(rows[0])) else None

    def _lists_of(self, account: int) -> Any:
        """Find the rows of an account's lists, the oldest first."""
        lists = self.exchange.lists
        rows = np.flatnonzero((lists["account"] == account) & (lists["list_id"] > 0))
        kept = np.array([row for row in rows.tolist() if self._is_kept(row)], np.int64)
        return kept[np.argsort(lists["list_id"][kept])]

    def _is_kept(self, row: int) -> bool:
        """Tell whether the rows of all orders of a list are still theirs."""
        one = self.exchange.lists[row]
        return all(
            self.exchange.orders[one[f"row_{leg}"]]["order_id"] == one[f"id_{leg}"] for leg in range(one["legs"])
        )
