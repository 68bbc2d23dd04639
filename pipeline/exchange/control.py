"""Control: a market's own events on demand, for who tests a client from outside: a halt, another filter.

    POST /control/market   {"symbol": "BTCUSDT", "status": "HALT"}
                           {"symbol": "BTCUSDT", "filters": {"notional_min": "10", "orders_max": "3"}}
    GET  /control/market   what each symbol says now

Filters are named as in `types.Symbol`, numbers are decimal and in text. Orders stay where they are.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import JSONResponse
from starlette.routing import Route

from shrivenq.pipeline.exchange import reference
from shrivenq.pipeline.exchange.types import Symbol, SymbolStatus
from shrivenq.pipeline.instruments import DECIMAL, NUMBER_MAX

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest

    from shrivenq.pipeline.exchange.venue import Venue

FILTERS = {
    **dict.fromkeys(("price_min", "price_max"), "price_decimals"),
    **dict.fromkeys(("quantity_min", "quantity_max", "position_max"), "quantity_decimals"),
    **dict.fromkeys(("market_quantity_min", "market_quantity_max"), "quantity_decimals"),
    **dict.fromkeys(("notional_min", "notional_max"), "quote_decimals"),
    **dict.fromkeys(("trailing_above_min", "trailing_above_max", "trailing_below_min", "trailing_below_max"), ""),
    **dict.fromkeys(("orders_max", "algo_orders_max", "amends_max", "iceberg_parts_max", "icebergs_max"), ""),
    "order_lists_max": "",
}
"""Filter → whose decimals it has; "" for a whole number."""


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall be otherwise in one symbol."""

    symbol: str
    status: SymbolStatus | None = None
    filters: dict[str, str] = {}


def scaled(symbol: Symbol, name: str, text: str) -> int:
    """Turn a filter's number into an int at its decimals. Raises ValueError."""
    if name not in FILTERS:
        raise ValueError(f"filters.{name}: no such filter, allowed: {', '.join(FILTERS)}")
    decimals = getattr(symbol, FILTERS[name]) if FILTERS[name] else 0
    value = Decimal(text) * 10**decimals if DECIMAL.fullmatch(text) else Decimal(-1)
    if value != int(value) or not 0 <= value < NUMBER_MAX:
        raise ValueError(f'filters.{name}: found "{text}", allowed: a decimal number, 0 or more, {decimals} decimals')
    return int(value)


def apply(venue: Venue, change: Change) -> None:
    """Make a change, all of it or nothing. Raises ValueError."""
    symbol = venue.symbols.get(change.symbol)
    if symbol is None:
        raise ValueError(f'symbol: found "{change.symbol}", allowed: {", ".join(venue.symbols)}')
    venue.engine.set_limits(symbol.name, {name: scaled(symbol, name, text) for name, text in change.filters.items()})
    if change.status is not None:
        venue.engine.set_status(symbol.name, change.status)


def routes(venue: Venue) -> list[Route]:
    """Give the endpoint."""

    async def control(request: HttpRequest) -> JSONResponse:
        if request.method == "POST":
            try:
                apply(venue, msgspec.json.decode(await request.body(), type=Change))
            except (msgspec.DecodeError, ValueError) as error:
                return JSONResponse({"error": str(error)}, 400)
        shown: dict[str, Any] = {
            one.name: {"status": one.status, "filters": reference.filters(one)} for one in venue.symbols.values()
        }
        return JSONResponse(shown)

    return [Route("/control/market", control, methods=["GET", "POST"])]
