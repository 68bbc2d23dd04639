"""Public commands: what anybody may ask about the market (protocol sheet, sections 3, 8 and 10)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange import reference
from shrivenq.pipeline.exchange.accounts import last_us, to_us
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.klines import INTERVALS
from shrivenq.pipeline.exchange.types import Symbol, Ticker

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.pipeline.exchange.venue import Call, Venue

DEPTH_DEFAULT, DEPTH_MAX = 100, 5_000
TRADES_DEFAULT = KLINES_DEFAULT = 500


def symbol_of(venue: Venue, call: Call) -> Symbol:
    """Give the symbol a call is about. Raises ApiError -1121."""
    return known(venue, call.values["symbol"])


def known(venue: Venue, name: str) -> Symbol:
    """Give a symbol by name. Raises ApiError -1121."""
    found = venue.symbols.get(name)
    if found is None:
        raise ApiError(-1121, "Invalid symbol.")
    return found


def _ping(venue: Venue, call: Call) -> Any:
    return {}


def _time(venue: Venue, call: Call) -> Any:
    return {"serverTime": call.time(call.now_us)}


def _depth(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    book = venue.engine.depth(symbol.name, min(call.values.get("limit", DEPTH_DEFAULT), DEPTH_MAX))
    form = venue.formats[symbol.name]
    return {"lastUpdateId": book.last_update_id, "bids": form.levels(book.bids), "asks": form.levels(book.asks)}


def _trades(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    form = venue.formats[symbol.name]
    found = venue.engine.trades(
        symbol.name, from_id=call.values.get("fromId"), limit=call.values.get("limit", TRADES_DEFAULT)
    )
    return [
        {
            "id": one.trade_id,
            "price": form.price(one.price),
            "qty": form.quantity(one.quantity),
            "quoteQty": form.value(one.price * one.quantity),
            "time": call.time(one.time_us),
            "isBuyerMaker": one.buyer_is_maker,
            "isBestMatch": True,
        }
        for one in found
    ]


def _aggregate_trades(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    form = venue.formats[symbol.name]
    values = call.values
    found = venue.tape.aggregates(
        symbol.name,
        values.get("limit", TRADES_DEFAULT),
        from_id=values.get("fromId"),
        start_us=to_us(values["startTime"]) if "startTime" in values else None,
        end_us=last_us(values["endTime"]) if "endTime" in values else None,
    )
    return [
        {
            "a": one.aggregate_id,
            "p": form.price(one.price),
            "q": form.quantity(one.quantity),
            "f": one.first_id,
            "l": one.last_id,
            "T": call.time(one.time_us),
            "m": one.buyer_is_maker,
            "M": True,
        }
        for one in found
    ]


def _klines(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    form, values, interval = venue.formats[symbol.name], call.values, INTERVALS[call.values["interval"]]
    zone_s = values.get("timeZone", 0)
    start_s = -(-to_us(values["startTime"]) // 1_000_000) if "startTime" in values else None
    end_s = last_us(values["endTime"]) // 1_000_000 if "endTime" in values else None
    limit, now_s = values.get("limit", KLINES_DEFAULT), call.now_us // 1_000_000
    edges = interval.chosen(limit, now_s, start_s, end_s, zone_s)
    ends = dict(pairwise(edges))
    return [
        [
            call.time(one.start_s * 1_000_000),
            form.price(one.open),
            form.price(one.high),
            form.price(one.low),
            form.price(one.close),
            form.quantity(one.quantity),
            call.time(ends[one.start_s] * 1_000_000) - 1,
            form.value(one.value),
            one.trades,
            form.quantity(one.bought),
            form.value(one.bought_value),
            "0",
        ]
        for one in venue.klines.klines(symbol.name, interval.source_s(zone_s), edges)
    ]


def _average_price(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    minutes, price = venue.engine.average_price(symbol.name)
    return {
        "mins": minutes,
        "price": venue.formats[symbol.name].price(price),
        "closeTime": last_trade_time(venue, symbol, call.time),
    }


def last_trade_time(venue: Venue, symbol: Symbol, time: Callable[[int], int]) -> int:
    """Tell when a symbol last traded, 0 for never."""
    traded_us = venue.rolling.last_us(symbol.name)
    return time(traded_us) if traded_us else 0


def of_symbols(venue: Venue, call: Call, make: Callable[[Symbol], dict[str, Any]]) -> Any:
    """Answer about one symbol with an object, about several or all with a list.

    Only symbols of the `symbolStatus` that was asked for, if one was. Raises ApiError -1121, and -1220 for one symbol
    that has another.
    """
    status = call.values.get("symbolStatus")
    if "symbol" in call.values:
        symbol = symbol_of(venue, call)
        if status not in (None, symbol.status):
            raise ApiError(-1220, "The symbol's status does not match the requested symbolStatus.")
        return make(symbol)
    found = [known(venue, name) for name in call.values.get("symbols", list(venue.symbols))]
    return [make(one) for one in found if status in (None, one.status)]


def ticker_object(venue: Venue, ticker: Ticker) -> dict[str, Any]:
    """Give the best bid and ask of a symbol."""
    form = venue.formats[ticker.symbol]
    return {
        "symbol": ticker.symbol,
        "bidPrice": form.price(ticker.bid),
        "bidQty": form.quantity(ticker.bid_quantity),
        "askPrice": form.price(ticker.ask),
        "askQty": form.quantity(ticker.ask_quantity),
    }


def _book_ticker(venue: Venue, call: Call) -> Any:
    return of_symbols(venue, call, lambda one: ticker_object(venue, venue.engine.book_ticker(one.name)))


def _price_ticker(venue: Venue, call: Call) -> Any:
    def make(symbol: Symbol) -> dict[str, Any]:
        price = venue.engine.last_price(symbol.name)
        return {"symbol": symbol.name, "price": venue.formats[symbol.name].price(price)}

    return of_symbols(venue, call, make)


def _reference_price(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    if not symbol.has_reference:
        raise ApiError(-2043, "This symbol doesn't have a reference price.")
    price = venue.engine.reference_price(symbol.name)
    return {
        "symbol": symbol.name,
        "referencePrice": venue.formats[symbol.name].price(price) if price else None,
        "timestamp": call.time(call.now_us),
    }


def _exchange_info(venue: Venue, call: Call) -> Any:
    return reference.exchange_info(venue, call)


def _execution_rules(venue: Venue, call: Call) -> Any:
    def make(symbol: Symbol) -> dict[str, Any]:
        return {"symbol": symbol.name, "rules": reference.execution_rules(symbol)}

    rules = of_symbols(venue, call, make)
    return {"symbolRules": rules if isinstance(rules, list) else [rules]}


COMMANDS = {
    "ping": _ping,
    "time": _time,
    "exchangeInfo": _exchange_info,
    "executionRules": _execution_rules,
    "depth": _depth,
    "trades.recent": _trades,
    "trades.historical": _trades,
    "trades.aggregate": _aggregate_trades,
    "klines": _klines,
    "uiKlines": _klines,
    "avgPrice": _average_price,
    "ticker.book": _book_ticker,
    "ticker.price": _price_ticker,
    "referencePrice": _reference_price,
}
