"""History: what can be asked of the engine: orders, fills, trades, the book and its prices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.pipeline.exchange import reports
from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.refusals import error_of
from shrivenq.pipeline.exchange.types import BookView, Error, Fill, OrderView, Ticker, TradeEvent
from shrivenq.pipeline.exchange.views import fill_view, order_view
from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching
from shrivenq.stages.id_map import ABSENT, find
from shrivenq.stages.messages import BUY

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.client_ids import ClientIds
    from shrivenq.pipeline.exchange.types import Symbol


ID_MAX = (1 << 63) - 1


@kernel
def list_levels(exchange: s.Exchange, symbol: int, limit: int) -> int:
    """List up to `limit` levels a side in `changes`, bids first, best first; return how many."""
    core = exchange.core
    first = core.ladders[symbol]["first"]
    limit = min(limit, exchange.changes.shape[0] // 2)
    count = 0
    level = core.ladders[symbol]["best_bid"]
    for _ in range(min(limit, core.ladders[symbol]["bid_levels"])):
        row = exchange.changes[count]
        row["side"], row["price"] = BUY, matching.price_of(core, symbol, level)
        row["quantity"] = core.levels[first + level]["quantity"]
        level = matching.occupied_below(core, symbol, level - 1)
        count += 1
    level = core.ladders[symbol]["best_ask"]
    for _ in range(min(limit, core.ladders[symbol]["ask_levels"])):
        row = exchange.changes[count]
        row["side"], row["price"] = -BUY, matching.price_of(core, symbol, level)
        row["quantity"] = core.levels[first + level]["quantity"]
        level = matching.occupied_above(core, symbol, level + 1)
        count += 1
    return count


class History:
    """The questions; `Engine` adds the commands."""

    exchange: s.Exchange
    symbols: dict[str, Symbol]
    _list: list[Symbol]
    _at: dict[str, int]
    _client_ids: ClientIds

    def order(
        self, account: int, symbol: str, *, order_id: int | None = None, client_id: str | None = None
    ) -> OrderView | Error:
        """Look an order up, open or closed, by either id (or both, if they agree)."""
        at = self._at.get(symbol)
        if at is None:
            return error_of("bad_symbol")
        found = self._resolve(account, at, order_id, client_id)
        if isinstance(found, Error):
            return error_of("no_such_order") if found == error_of("unknown_order") else found
        row = find(self.exchange.ids, found, 0)
        order = self.exchange.orders[row]
        if row == ABSENT or order["account"] != account or order["symbol"] != at:
            return error_of("no_such_order")
        return self._view(row)

    def open_orders(self, account: int, symbol: str | None = None) -> list[OrderView]:
        """List an account's open orders, in one symbol or in all, the oldest first."""
        orders = self._orders_of(account, symbol)
        return [self._view(row) for row in orders if self.exchange.orders[row]["status"] <= s.PARTIALLY_FILLED]

    def all_orders(
        self,
        account: int,
        symbol: str,
        *,
        order_id: int | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        limit: int = 500,
    ) -> list[OrderView]:
        """List an account's orders in a symbol, the oldest first, of those that are still kept.

        From `order_id` on, else the last `limit`; created from `start_us` to `end_us`, both included.
        """
        rows = self._orders_of(account, symbol)
        orders = self.exchange.orders[rows]
        chosen = within(orders["created_us"], start_us, end_us)
        if order_id is not None:
            return [self._view(row) for row in rows[chosen & (orders["order_id"] >= order_id)][:limit]]
        kept = rows[chosen]
        return [self._view(row) for row in (kept[:limit] if start_us is not None else kept[-limit:])]

    def my_trades(
        self,
        account: int,
        symbol: str,
        *,
        order_id: int | None = None,
        from_id: int | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        limit: int = 500,
    ) -> list[Fill]:
        """List an account's fills in a symbol, the oldest first, of those that are still kept.

        From trade id `from_id` on, else the last `limit`; `order_id` and times choose among them.
        """
        fills = self._ring(self.exchange.fills, int(self.exchange.words[s.FILLS]))
        chosen = (fills["account"] == account) & (fills["symbol"] == self._at[symbol])
        chosen &= within(fills["time_us"], start_us, end_us)
        if order_id is not None:
            chosen &= fills["order_id"] == order_id
        if from_id is not None:
            chosen &= fills["trade_id"] >= from_id
        first = from_id is not None or start_us is not None
        found = fills[chosen][:limit] if first else fills[chosen][-limit:]
        return [fill_view(row, self._list) for row in found.tolist()]

    def trades(self, symbol: str, *, from_id: int | None = None, limit: int = 500) -> list[TradeEvent]:
        """List trades of the market, the oldest first: from `from_id` on, else the last `limit`."""
        ring = self.exchange.trades[self._at[symbol]]
        rows = ring[ring["trade_id"] > 0]
        rows = rows[np.argsort(rows["trade_id"])]
        if from_id is not None:
            rows = rows[rows["trade_id"] >= from_id][:limit]
        return [
            TradeEvent(symbol, trade_id, price, quantity, bool(maker), time_us)
            for trade_id, price, quantity, maker, time_us in rows[-limit:].tolist()
        ]

    def depth(self, symbol: str, limit: int = 100) -> BookView:
        """Show the book, up to `limit` levels a side."""
        at = self._at[symbol]
        count = list_levels(self.exchange, at, limit)
        rows = self.exchange.changes[:count].tolist()
        bids = [(price, quantity) for side, price, quantity in rows if side == BUY]
        asks = [(price, quantity) for side, price, quantity in rows if side != BUY]
        return BookView(int(self.exchange.core.ladders[at]["update_id"]), bids, asks)

    def book_ticker(self, symbol: str) -> Ticker:
        """Show the best of both sides."""
        last_id, bids, asks = self.depth(symbol, 1)
        return Ticker(symbol, last_id, *(bids or [(0, 0)])[0], *(asks or [(0, 0)])[0])

    def last_price(self, symbol: str) -> int:
        """Tell the price of the last trade, 0 before the first."""
        return int(self.exchange.symbols[self._at[symbol]]["last_price"])

    def average_price(self, symbol: str) -> tuple[int, int]:
        """Tell the minutes of the average price and that price: 0 before the first trade."""
        minutes = self.symbols[symbol].average_minutes
        return minutes, int(reports.average_price(self.exchange, self._at[symbol], minutes))

    def reference_price(self, symbol: str) -> int | None:
        """Tell the reference price, None where there is none."""
        return (self.average_price(symbol)[1] or None) if self.symbols[symbol].has_reference else None

    def fees(self) -> dict[str, int]:
        """Tell what the exchange has collected, by asset."""
        names = {int(row["base"]): one.base for row, one in zip(self.exchange.symbols, self._list, strict=True)}
        names |= {int(row["quote"]): one.quote for row, one in zip(self.exchange.symbols, self._list, strict=True)}
        return {name: int(self.exchange.fees[at]) for at, name in sorted(names.items())}

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _resolve(self, account: int, at: int, order_id: int | None, client_id: str | None) -> int | Error:
        """Find the order id that a client means."""
        if order_id is None and client_id is None:
            return error_of("no_id")
        if order_id is not None and not 0 < order_id <= ID_MAX:
            return error_of("unknown_order")
        if client_id is None:
            assert order_id is not None
            return order_id
        named = self._client_ids.find(account, at, client_id)
        if order_id is not None and named != order_id:
            return error_of("ids_differ" if named is not None else "unknown_order")
        return error_of("unknown_order") if named is None else named

    def _view(self, row: int) -> OrderView:
        groups = self.exchange.accounts["trade_group"]
        return order_view(self.exchange.orders[row].item(), self._client_ids.of(row), self._list, groups)

    def _orders_of(self, account: int, symbol: str | None) -> Any:
        """Find the rows of an account's orders, the oldest first."""
        # Rows beyond the first round of the queue were never used.
        used = self.exchange.orders[: int(self.exchange.words[s.QUEUE_HEAD])]
        chosen = used["account"] == account
        if symbol is not None:
            chosen &= used["symbol"] == self._at[symbol]
        rows = np.flatnonzero(chosen)
        return rows[np.argsort(used["order_id"][rows])]

    @staticmethod
    def _ring(kept: Any, count: int) -> Any:
        """Unroll a ring that was written `count` times, the oldest first."""
        if count <= len(kept):
            return kept[:count]
        return np.roll(kept, -(count % len(kept)))


def within(times: Any, start_us: int | None, end_us: int | None) -> Any:
    """Choose times from `start_us` to `end_us`, both included; None is no bound."""
    chosen = np.ones(len(times), bool)
    if start_us is not None:
        chosen &= times >= start_us
    if end_us is not None:
        chosen &= times <= end_us
    return chosen
