"""SBE market streams of the simulator: what the engine tells of its markets → the venue's binary frames.

The four templates of stream schema 1, version 0. Mantissas are the engine's own integers, so the exponents are the
symbol's decimals with a minus. One message is one WebSocket frame.

Source: Binance `stream_1_0.xml`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shrivenq.pipeline.exchange.types import BookView, DepthEvent, Symbol, TickerEvent, TradeEvent

SCHEMA_ID, VERSION = 1, 0
TRADES, BEST, DEPTH20, DEPTH = 10_000, 10_001, 10_002, 10_003
"""Template ids."""

LEVELS_MAX = 20
"""Levels a side of partial depth."""

_TRADE, _LEVEL = struct.Struct("<qqqB"), struct.Struct("<qq")


def _message(template: int, symbol: Symbol, block: bytes, groups: bytes = b"") -> bytes:
    """Put a message together: header, root block, groups, symbol."""
    name = symbol.name.encode()
    header = struct.pack("<HHHH", len(block), template, SCHEMA_ID, VERSION)
    return b"".join((header, block, groups, bytes([len(name)]), name))


def _exponents(symbol: Symbol) -> tuple[int, int]:
    return -symbol.price_decimals, -symbol.quantity_decimals


def _levels(levels: Sequence[tuple[int, int]]) -> bytes:
    """Write one side as a group of (price, quantity)."""
    dimension = struct.pack("<HH", _LEVEL.size, len(levels))
    return dimension + b"".join(_LEVEL.pack(price, quantity) for price, quantity in levels)


def trades(symbol: Symbol, events: Sequence[TradeEvent], event_us: int) -> bytes:
    """Encode the trades of one taker order, all of one moment, sent at `event_us` (`<symbol>@trade`)."""
    block = struct.pack("<qqbb", event_us, events[0].time_us, *_exponents(symbol))
    dimension = struct.pack("<HI", _TRADE.size, len(events))
    rows = (_TRADE.pack(one.trade_id, one.price, one.quantity, one.buyer_is_maker) for one in events)
    return _message(TRADES, symbol, block, dimension + b"".join(rows))


def best_bid_ask(symbol: Symbol, event: TickerEvent, event_us: int) -> bytes:
    """Encode the best of both sides (`<symbol>@bestBidAsk`)."""
    block = struct.pack(
        "<qqbbqqqq",
        event_us,
        event.update_id,
        *_exponents(symbol),
        event.bid,
        event.bid_quantity,
        event.ask,
        event.ask_quantity,
    )
    return _message(BEST, symbol, block)


def depth20(symbol: Symbol, book: BookView, event_us: int) -> bytes:
    """Encode the twenty best levels a side (`<symbol>@depth20`)."""
    block = struct.pack("<qqbb", event_us, book.last_update_id, *_exponents(symbol))
    sides = _levels(book.bids[:LEVELS_MAX]) + _levels(book.asks[:LEVELS_MAX])
    return _message(DEPTH20, symbol, block, sides)


def depth(symbol: Symbol, event: DepthEvent, event_us: int) -> bytes:
    """Encode the levels that changed (`<symbol>@depth`). Raises struct.error beyond 65,535 levels a side."""
    block = struct.pack("<qqqbb", event_us, event.first_id, event.last_id, *_exponents(symbol))
    return _message(DEPTH, symbol, block, _levels(event.bids) + _levels(event.asks))
