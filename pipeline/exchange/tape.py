"""Tape: the aggregated trades of each symbol, newest last.

An aggregate is what one taker took at one price: trades that follow each other at the same time, price and side.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from shrivenq.pipeline.exchange.types import Event, TradeEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

AGGREGATES_KEPT = 20_000
"""Of each symbol; older ones are forgotten."""


class Aggregate(NamedTuple):
    """Trades of one taker at one price."""

    aggregate_id: int
    symbol: str
    price: int
    quantity: int
    first_id: int
    last_id: int
    time_us: int
    buyer_is_maker: bool


def aggregate(trades: list[TradeEvent], first_id: int) -> Iterator[Aggregate]:
    """Aggregate trades of one symbol, given in order; ids count from `first_id`."""
    group: Aggregate | None = None
    for trade in trades:
        if (
            group is not None
            and (group.price, group.time_us) == (trade.price, trade.time_us)
            and group.buyer_is_maker == trade.buyer_is_maker
        ):
            group = group._replace(quantity=group.quantity + trade.quantity, last_id=trade.trade_id)
            continue
        if group is not None:
            yield group
            first_id += 1
        group = Aggregate(
            first_id,
            trade.symbol,
            trade.price,
            trade.quantity,
            trade.trade_id,
            trade.trade_id,
            trade.time_us,
            trade.buyer_is_maker,
        )
    if group is not None:
        yield group


class Tape:
    """The latest aggregates of all symbols."""

    def __init__(self) -> None:
        self._aggregates: dict[str, deque[Aggregate]] = {}
        self.fresh: list[Aggregate] = []
        """Aggregates of the events last taken."""

    def take(self, events: list[Event]) -> None:
        """Take the trades among `events`."""
        by_symbol: dict[str, list[TradeEvent]] = {}
        for event in events:
            if isinstance(event, TradeEvent):
                by_symbol.setdefault(event.symbol, []).append(event)
        self.fresh = []
        for symbol, trades in by_symbol.items():
            kept = self._aggregates.setdefault(symbol, deque(maxlen=AGGREGATES_KEPT))
            found = list(aggregate(trades, kept[-1].aggregate_id + 1 if kept else 1))
            kept.extend(found)
            self.fresh += found

    def aggregates(
        self,
        symbol: str,
        limit: int,
        *,
        from_id: int | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
    ) -> list[Aggregate]:
        """Give aggregates, oldest first: the latest ones, or those from an id or a time on."""
        kept = self._aggregates.get(symbol, deque())
        if from_id is None and start_us is None and end_us is None:
            return list(islice(kept, max(0, len(kept) - limit), None))
        chosen = (
            one
            for one in kept
            if (from_id is None or one.aggregate_id >= from_id)
            and (start_us is None or one.time_us >= start_us)
            and (end_us is None or one.time_us <= end_us)
        )
        return list(islice(chosen, limit))
