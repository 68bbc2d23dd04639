"""Engine: the simulator's matching engine as the server sees it.

A thin facade: what decides is compiled (`commands.py` and what it is built of), here are names, client ids and views.
There is no clock inside: every command brings its time, in microseconds, and none goes back. Errors are values.

    engine = Engine([symbol], seed=7, flow=order_flow.Config())
    account = engine.open_account({"USDT": 1_000_000_00000000})
    engine.advance(now_us)                                     # the synthetic flow acts, stop orders trigger
    outcome = engine.place(account, NewOrder(...), now_us)     # Outcome(error, order, fills, …)
    for event in engine.take_events(): ...                     # all that happened since the last call, in order
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from shrivenq.pipeline.exchange import background, commands, reports
from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.capture_feed import CaptureFeed
from shrivenq.pipeline.exchange.client_ids import ClientIds
from shrivenq.pipeline.exchange.entry import CLIENT_ID
from shrivenq.pipeline.exchange.filters import check
from shrivenq.pipeline.exchange.ledger import AMOUNT_MAX
from shrivenq.pipeline.exchange.listing import assets_of, make_books, symbol_table
from shrivenq.pipeline.exchange.order_lists import OrderLists
from shrivenq.pipeline.exchange.refusals import ERRORS, REJECTIONS, error_of
from shrivenq.pipeline.exchange.types import (
    BalanceEvent,
    CancelRestrictions,
    DepositEvent,
    Error,
    Event,
    ListOutcome,
    NewOrder,
    OrderEvent,
    Outcome,
    Prevention,
    ReplaceMode,
    ReplaceOutcome,
    Symbol,
    SymbolStatus,
)
from shrivenq.pipeline.exchange.views import order_view
from shrivenq.stages.id_map import ABSENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from shrivenq.stages.order_flow import Config

RESTRICTIONS: dict[str | None, int] = {
    None: commands.ANY,
    "ONLY_NEW": commands.ONLY_NEW,
    "ONLY_PARTIALLY_FILLED": commands.ONLY_PARTIALLY_FILLED,
}
PREVENTIONS_KEPT = 10_000
CAPTURE_SLOTS = 1 << 15
"""Room in each book for a capture's levels."""


class Engine(OrderLists):
    """Books, accounts and orders of several symbols."""

    def __init__(
        self,
        symbols: Sequence[Symbol],
        *,
        seed: int,
        flow: Config | None = None,
        capture: Path | None = None,
        accounts_max: int = 64,
        orders_kept: int = 1 << 17,
        book_slots: int = 1 << 13,
        orders_max: int = 0,
        algo_orders_max: int = 0,
        icebergs_max: int = 0,
        order_lists_max: int = 0,
        asset_max: Mapping[str, int] | None = None,
    ) -> None:
        """Open the market, with the synthetic `flow`, a spot `capture` or nothing in the books.

        A capture is a file or a folder; its symbols need a `price_max` that is above its prices. `orders_kept` bounds
        open and remembered orders together, and fills; `book_slots` the orders of accounts that rest in one book.
        `orders_max`, `algo_orders_max`, `icebergs_max` and `order_lists_max` are EXCHANGE_MAX_NUM_ORDERS,
        EXCHANGE_MAX_NUM_ALGO_ORDERS, EXCHANGE_MAX_NUM_ICEBERG_ORDERS and EXCHANGE_MAX_NUM_ORDER_LISTS; `asset_max` is
        MAX_ASSET by asset. Raises ValueError, and CaptureError for a capture that cannot be read.
        """
        self.assets = assets_of(symbols)
        """Every asset with its decimals."""
        self.orders_max, self.algo_orders_max, self.icebergs_max = orders_max, algo_orders_max, icebergs_max
        self.order_lists_max = order_lists_max
        self.asset_max = dict(asset_max or {})
        """The limits that are no symbol's, 0 or absent for none."""
        table = symbol_table(symbols, self.assets, self.asset_max)
        books = make_books(symbols, seed, flow, book_slots + (CAPTURE_SLOTS if capture else 0))
        self.exchange = s.make_exchange(books, table, accounts_max, len(self.assets), orders_kept)
        self.exchange.words[s.ORDERS_MAX], self.exchange.words[s.ALGO_ORDERS_MAX] = orders_max, algo_orders_max
        self.exchange.words[s.ICEBERGS_MAX], self.exchange.words[s.ORDER_LISTS_MAX] = icebergs_max, order_lists_max
        self.symbols: dict[str, Symbol] = {one.name: one for one in symbols}
        """By name, each with its present status."""
        self._list = list(symbols)
        self._at = {one.name: at for at, one in enumerate(symbols)}
        self._asset_names = list(self.assets)
        self._accounts = 0
        self._client_ids = ClientIds(orders_kept, seed)
        self._list_names = ClientIds(orders_kept, seed)
        self._names: dict[int, tuple[str, str]] = {}
        self._events: list[Event] = []
        self._flow_waits = flow is not None
        self.preventions: deque[Prevention] = deque(maxlen=PREVENTIONS_KEPT)
        """The last prevented matches."""
        if flow is not None and capture is not None:
            raise ValueError("exchange: a synthetic flow and a capture, expected one or the other")
        self.capture = CaptureFeed(capture, symbols, self.exchange) if capture is not None else None
        """The capture behind the market, None without one."""
        for at in range(len(symbols)):
            # What the background placed before anybody watched is the first snapshot.
            self._show_all(at)

    # ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def open_account(self, balances: Mapping[str, int], *, trade_group: int = -1) -> int:
        """Open an account with free balances, by asset at its decimals; return its id, 1 or more. Raises ValueError."""
        if self._accounts + 1 >= len(self.exchange.accounts):
            raise ValueError(f"exchange: no room for more than {self._accounts} accounts")
        wrong = [
            asset for asset, amount in balances.items() if asset not in self.assets or not 0 <= amount <= AMOUNT_MAX
        ]
        if wrong:
            raise ValueError(f"exchange: balances of {', '.join(wrong)}: no such asset, or not 0 to {AMOUNT_MAX} units")
        self._accounts += 1
        self.exchange.accounts[self._accounts]["trade_group"] = trade_group
        for asset, amount in balances.items():
            self.exchange.balances[self._accounts, self._asset_names.index(asset)]["free"] = amount
        return self._accounts

    def balances(self, account: int) -> dict[str, tuple[int, int]]:
        """Tell what an account has, (free, locked) by asset."""
        return dict(zip(self._asset_names, self.exchange.balances[account].tolist(), strict=True))

    def trade_group(self, account: int) -> int:
        """Tell an account's tradeGroupId, -1 for none."""
        return int(self.exchange.accounts[account]["trade_group"])

    def deposit(self, account: int, asset: str, delta: int, now_us: int) -> bool:
        """Bring money in, or take it out; False if that much is not free, or too much."""
        balance = self.exchange.balances[account, self._asset_names.index(asset)]
        if not 0 <= int(balance["free"]) + delta <= AMOUNT_MAX:
            return False
        balance["free"] += delta
        shown = (asset, int(balance["free"]), int(balance["locked"]))
        self._events += [DepositEvent(account, asset, delta, now_us), BalanceEvent(account, (shown,), now_us)]
        return True

    def set_status(self, symbol: str, status: SymbolStatus) -> None:
        """Halt a symbol, or let it trade again. Orders stay where they are."""
        self.exchange.symbols[self._at[symbol]]["status"] = s.SYMBOL_STATUSES.index(status)
        self.symbols[symbol] = msgspec.structs.replace(self.symbols[symbol], status=status)

    def set_limits(self, symbol: str, limits: Mapping[str, int]) -> None:
        """Change filters of a symbol, by their names in `Symbol`. Raises ValueError for prices no book here holds."""
        at = self._at[symbol]
        ladder = self.exchange.core.ladders[at]
        highest = int(ladder["base"] + (ladder["levels"] - 1) * ladder["tick"])
        if not 0 < limits.get("price_max", highest) <= highest:
            raise ValueError(f"exchange: {symbol}: price_max: allowed: up to {highest} units")
        for name, value in limits.items():
            self.exchange.symbols[at][name] = value
        self.symbols[symbol] = msgspec.structs.replace(self.symbols[symbol], **limits)

    # ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def test(self, account: int, order: NewOrder, now_us: int) -> Error | None:
        """Check an order as `place` would; None if it would be placed."""
        problem = self._prepare(account, order, now_us)
        return ERRORS[commands.admit(self.exchange)] if problem is None else problem

    def place(self, account: int, order: NewOrder, now_us: int) -> Outcome:
        """Place an order."""
        problem = self._prepare(account, order, now_us)
        if problem is not None:
            return Outcome(error=problem)
        exchange, at = self.exchange, self._at[order.symbol]
        code = commands.place(exchange)
        if code != 0:
            return Outcome(error=ERRORS[code])
        row = int(exchange.words[s.ROW])
        order_id = int(exchange.orders[row]["order_id"])
        self._client_ids.give(row, order_id, account, at, order.client_id or self._client_ids.make())
        return self._finish(at, row, now_us)

    def cancel(
        self,
        account: int,
        symbol: str,
        now_us: int,
        *,
        order_id: int | None = None,
        client_id: str | None = None,
        new_client_id: str | None = None,
        restrictions: CancelRestrictions | None = None,
    ) -> Outcome:
        """Cancel an open order, named by `order_id` or by `client_id` (or both, if they agree)."""
        at = self._at.get(symbol)
        if at is None:
            return Outcome(error=error_of("bad_symbol"))
        if restrictions not in RESTRICTIONS:
            return Outcome(error=error_of("bad_restrictions"))
        if new_client_id is not None and not CLIENT_ID.fullmatch(new_client_id):
            return Outcome(error=error_of("bad_client_id"))
        found = self._resolve(account, at, order_id, client_id)
        if isinstance(found, Error):
            return Outcome(error=found)
        return self._cancel(account, at, found, new_client_id or self._client_ids.make(), restrictions, now_us)

    def cancel_all(self, account: int, symbol: str, now_us: int) -> list[Outcome | ListOutcome] | Error:
        """Cancel every open order and order list of an account in a symbol, the oldest first; an error for none."""
        at = self._at.get(symbol)
        if at is None:
            return error_of("bad_symbol")
        orders = self.open_orders(account, symbol)
        if not orders:
            return error_of("unknown_order")
        if self.exchange.symbols[at]["status"] == s.BREAK:
            return error_of("cancel_closed")
        # An order list goes as one, with the first of its orders.
        meant = {one.list_id if one.list_id > 0 else -one.order_id: one for one in reversed(orders)}
        return [
            self.cancel_list(account, symbol, now_us, list_id=one.list_id)
            if one.list_id > 0
            else self._cancel(account, at, one.order_id, self._client_ids.make(), None, now_us)
            for one in reversed(meant.values())
        ]

    def cancel_replace(
        self,
        account: int,
        order: NewOrder,
        now_us: int,
        *,
        mode: ReplaceMode,
        cancel_order_id: int | None = None,
        cancel_client_id: str | None = None,
        cancel_new_client_id: str | None = None,
        restrictions: CancelRestrictions | None = None,
    ) -> ReplaceOutcome:
        """Cancel an order, then place another in the same symbol.

        Parameters and filters are checked before either is tried: what they refuse leaves both halves NOT_ATTEMPTED.
        """
        problem = self._prepare(account, order, now_us)
        if problem == error_of("duplicate"):
            # The order that goes may be the one that has it.
            problem = None
        if problem is None and not self.symbols[order.symbol].cancel_replace_allowed:
            problem = error_of("cancel_replace")
        if problem is None and cancel_order_id is None and cancel_client_id is None:
            problem = error_of("no_id")
        if problem is None:
            problem = ERRORS[check(self.exchange)]
        if problem is not None:
            return ReplaceOutcome(problem, "NOT_ATTEMPTED", "NOT_ATTEMPTED", None, None)
        cancelled = self.cancel(
            account,
            order.symbol,
            now_us,
            order_id=cancel_order_id,
            client_id=cancel_client_id,
            new_client_id=cancel_new_client_id,
            restrictions=restrictions,
        )
        if cancelled.error is not None and mode == "STOP_ON_FAILURE":
            return ReplaceOutcome(error_of("replace_failed"), "FAILURE", "NOT_ATTEMPTED", cancelled, None)
        placed = self.place(account, order, now_us)
        done = cancelled.error is None, placed.error is None
        if done == (True, False):
            self._reject(account, order, placed.error, now_us)
        error = None if all(done) else error_of("replace_partly" if any(done) else "replace_failed")
        return ReplaceOutcome(
            error, "SUCCESS" if done[0] else "FAILURE", "SUCCESS" if done[1] else "FAILURE", cancelled, placed
        )

    def amend(
        self,
        account: int,
        symbol: str,
        now_us: int,
        *,
        new_quantity: int,
        order_id: int | None = None,
        client_id: str | None = None,
        new_client_id: str | None = None,
    ) -> Outcome:
        """Reduce an open order to `new_quantity`; it keeps its place in the queue, and gets a new client id."""
        at = self._at.get(symbol)
        if at is None:
            return Outcome(error=error_of("bad_symbol"))
        if new_client_id is not None and not CLIENT_ID.fullmatch(new_client_id):
            return Outcome(error=error_of("bad_client_id"))
        if not self.symbols[symbol].amend_allowed:
            return Outcome(error=error_of("amend_forbidden"))
        found = self._resolve(account, at, order_id, client_id)
        if isinstance(found, Error):
            return Outcome(error=error_of("amend_unknown") if found == error_of("unknown_order") else found)
        name = new_client_id or self._client_ids.make()
        holder = self._open_holder(account, at, name)
        if holder not in (ABSENT, found):
            return Outcome(error=error_of("amend_duplicate"))
        self.exchange.words[s.NOW_US] = max(now_us, int(self.exchange.words[s.NOW_US]))
        code = commands.amend(self.exchange, account, at, found, min(max(new_quantity, 0), AMOUNT_MAX))
        if code != 0:
            return Outcome(error=ERRORS[code])
        row = int(self.exchange.words[s.ROW])
        old = self._client_ids.of(row)
        self._names[row] = (name, old)
        self._client_ids.give(row, found, account, at, name)
        outcome = self._finish(at, row, now_us)
        if old != name:
            self._tell_renamed(row, now_us)
        return outcome

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, now_us: int) -> None:
        """Let the background act until `now_us`, and stop orders trigger."""
        exchange = self.exchange
        if self.capture is not None:
            self._advance_capture(self.capture, now_us)
        if self._flow_waits:
            # It begins when time does.
            exchange.flow.flows["next_ns"] = now_us * background.NS_PER_US
            exchange.words[s.FLOWING] = 1
            self._flow_waits = False
        done = False
        while not done:
            done = bool(background.advance(exchange, now_us))
            self._take()
            for at in range(len(self._list)):
                self._show_depth(at)

    def take_events(self) -> list[Event]:
        """Take everything that happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _advance_capture(self, capture: CaptureFeed, now_us: int) -> None:
        """Let a capture's events happen until `now_us`, one after the other."""
        words = self.exchange.words
        while (due_us := capture.due_us(now_us)) is not None:
            words[s.NOW_US] = max(due_us, int(words[s.NOW_US]))
            self._settle(capture.act())

    def _cancel(
        self, account: int, at: int, order_id: int, name: str, restrictions: CancelRestrictions | None, now_us: int
    ) -> Outcome:
        exchange = self.exchange
        exchange.words[s.NOW_US] = max(now_us, int(exchange.words[s.NOW_US]))
        code = commands.cancel(exchange, account, at, order_id, RESTRICTIONS[restrictions])
        if code != 0:
            return Outcome(error=ERRORS[code])
        row = int(exchange.words[s.ROW])
        self._name_cancels(at, name)
        return self._finish(at, row, now_us)

    def _show_all(self, at: int) -> None:
        """Take the book as it is for shown."""
        reports.show_all(self.exchange, at)
        reports.report_touch(self.exchange, at)
        self.exchange.words[s.EVENTS] = 0

    def _reject(self, account: int, order: NewOrder, error: Error | None, now_us: int) -> None:
        """Report the new order of a cancel-replace that was refused after the cancel: the one kind that is reported."""
        exchange = self.exchange
        exchange.words[s.ORDER_ID] += 1
        exchange.words[s.EXECUTION_ID] += 1
        request = dict(zip(s.REQUEST.names or (), exchange.requests[0].item(), strict=True))
        row: dict[str, Any] = dict.fromkeys(s.ORDER.names or (), 0)
        row |= request | {
            "order_id": int(exchange.words[s.ORDER_ID]),
            "status": s.REJECTED,
            "prevented_match_id": -1,
            "created_us": now_us,
            "updated_us": now_us,
        }
        groups = exchange.accounts["trade_group"]
        client_id = order.client_id or self._client_ids.make()
        view = order_view(tuple(row[name] for name in s.ORDER.names or ()), client_id, self._list, groups)
        reason = REJECTIONS.get(ERRORS.index(error), "NONE")
        self._events.append(
            OrderEvent(
                account=account,
                order=view,
                execution="REJECTED",
                execution_id=int(exchange.words[s.EXECUTION_ID]),
                time_us=now_us,
                client_id=client_id,
                original_client_id="",
                reject_reason=reason,
                fill=None,
            )
        )
