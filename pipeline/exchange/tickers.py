"""Tickers: how prices changed over the last 24 hours, a trading day, or a window of a client's choice.

    ticker.24hr          24 hours that roll, to the second          @ticker, @miniTicker, !miniTicker@arr are the same
    ticker               a window of minutes, hours or days; it begins on a minute
    ticker.tradingDay    the day, as a time zone has it

A change in percent is rounded half away from zero, an average price down. Source: the venue's REST and stream
documents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange.klines import DAY_S, INTERVALS, MINUTE_S, Kline
from shrivenq.pipeline.exchange.payloads import Format, to_text
from shrivenq.pipeline.exchange.public import last_trade_time, of_symbols
from shrivenq.pipeline.exchange.ticker_requests import WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.pipeline.exchange.rolling import Day
    from shrivenq.pipeline.exchange.types import Symbol
    from shrivenq.pipeline.exchange.venue import Call, Venue

SECOND_US = 1_000_000
PERCENT_DECIMALS = 3


def percent_text(change: int, base: int) -> str:
    """Write a change in percent of what it was before, "0.000" where that was nothing."""
    if not base:
        return to_text(0, PERCENT_DECIMALS)
    scale = 100 * 10**PERCENT_DECIMALS
    rounded = (2 * abs(change) * scale + base) // (2 * base)
    return to_text(-rounded if change < 0 else rounded, PERCENT_DECIMALS)


def average_text(one: Kline, form: Format) -> str:
    """Write the average price, each trade weighing what its quantity is."""
    symbol = form.symbol
    scale = 10 ** (symbol.quote_decimals - symbol.price_decimals)
    return form.quote(one.value * scale // one.quantity if one.quantity else 0)


def _prices(one: Kline, form: Format) -> dict[str, str]:
    return {
        "openPrice": form.price(one.open),
        "highPrice": form.price(one.high),
        "lowPrice": form.price(one.low),
        "lastPrice": form.price(one.close),
        "volume": form.quantity(one.quantity),
        "quoteVolume": form.value(one.value),
    }


def _changes(one: Kline, form: Format) -> dict[str, str]:
    return {
        "priceChange": form.price(one.close - one.open),
        "priceChangePercent": percent_text(one.close - one.open, one.open),
        "weightedAvgPrice": average_text(one, form),
    }


def _span(one: Kline, open_time: int, close_time: int) -> dict[str, int]:
    return {
        "openTime": open_time,
        "closeTime": close_time,
        "firstId": one.first_id,
        "lastId": one.last_id,
        "count": one.trades,
    }


def _day_of(venue: Venue, symbol: Symbol, now_us: int) -> Day:
    return venue.rolling.day(symbol.name, now_us // SECOND_US)


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ticker_24h(venue: Venue, call: Call) -> Any:
    def make(symbol: Symbol) -> dict[str, Any]:
        form, day = venue.formats[symbol.name], _day_of(venue, symbol, call.now_us)
        one = day.kline
        span = _span(one, call.time(call.now_us - DAY_S * SECOND_US), call.time(call.now_us))
        if call.values.get("type") == "MINI":
            return {"symbol": symbol.name, **_prices(one, form), **span}
        best = venue.engine.book_ticker(symbol.name)
        return {
            "symbol": symbol.name,
            **_changes(one, form),
            "prevClosePrice": form.price(day.previous_price),
            "lastPrice": form.price(one.close),
            "lastQty": form.quantity(day.last_quantity),
            "bidPrice": form.price(best.bid),
            "bidQty": form.quantity(best.bid_quantity),
            "askPrice": form.price(best.ask),
            "askQty": form.quantity(best.ask_quantity),
            **_prices(one, form),
            **span,
        }

    return of_symbols(venue, call, make)


def _between(venue: Venue, call: Call, open_s: int, end_s: int, close_time: int) -> Any:
    """Answer about what traded from one minute to another."""

    def make(symbol: Symbol) -> dict[str, Any]:
        form = venue.formats[symbol.name]
        found = venue.klines.klines(symbol.name, MINUTE_S, [open_s, end_s])
        one = found[0] if found else Kline(open_s, 0, 0, 0, 0)
        changes = {} if call.values.get("type") == "MINI" else _changes(one, form)
        span = _span(one, call.time(open_s * SECOND_US), close_time)
        return {"symbol": symbol.name, **changes, **_prices(one, form), **span}

    return of_symbols(venue, call, make)


def _ticker(venue: Venue, call: Call) -> Any:
    minutes, now_s = INTERVALS["1m"], call.now_us // SECOND_US
    open_s = minutes.start_s(minutes.number(now_s - WINDOWS[call.values.get("windowSize", "1d")]))
    end_s = minutes.start_s(minutes.number(now_s) + 1)
    return _between(venue, call, open_s, end_s, call.time(call.now_us))


def _trading_day(venue: Venue, call: Call) -> Any:
    days, zone_s = INTERVALS["1d"], call.values.get("timeZone", 0)
    number = days.number(call.now_us // SECOND_US, zone_s)
    open_s, end_s = days.edges(number, number, zone_s)
    return _between(venue, call, open_s, end_s, call.time(end_s * SECOND_US) - 1)


COMMANDS = {"ticker.24hr": _ticker_24h, "ticker": _ticker, "ticker.tradingDay": _trading_day}


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def mini_event(venue: Venue, symbol: Symbol, day: Day, time: Callable[[int], int]) -> dict[str, Any]:
    """Give a frame of `@miniTicker`."""
    form, one = venue.formats[symbol.name], day.kline
    return {
        "e": "24hrMiniTicker",
        "E": time(venue.now_us()),
        "s": symbol.name,
        "c": form.price(one.close),
        "o": form.price(one.open),
        "h": form.price(one.high),
        "l": form.price(one.low),
        "v": form.quantity(one.quantity),
        "q": form.value(one.value),
    }


def full_event(venue: Venue, symbol: Symbol, day: Day, time: Callable[[int], int]) -> dict[str, Any]:
    """Give a frame of `@ticker`."""
    form, one, now_us = venue.formats[symbol.name], day.kline, venue.now_us()
    best = venue.engine.book_ticker(symbol.name)
    return {
        "e": "24hrTicker",
        "E": time(now_us),
        "s": symbol.name,
        "p": form.price(one.close - one.open),
        "P": percent_text(one.close - one.open, one.open),
        "w": average_text(one, form),
        "x": form.price(day.previous_price),
        "c": form.price(one.close),
        "Q": form.quantity(day.last_quantity),
        "b": form.price(best.bid),
        "B": form.quantity(best.bid_quantity),
        "a": form.price(best.ask),
        "A": form.quantity(best.ask_quantity),
        "o": form.price(one.open),
        "h": form.price(one.high),
        "l": form.price(one.low),
        "v": form.quantity(one.quantity),
        "q": form.value(one.value),
        "O": time(now_us - DAY_S * SECOND_US),
        "C": time(now_us),
        "F": one.first_id,
        "L": one.last_id,
        "n": one.trades,
    }


def average_event(venue: Venue, symbol: Symbol, time: Callable[[int], int]) -> dict[str, Any]:
    """Give a frame of `@avgPrice`."""
    minutes, price = venue.engine.average_price(symbol.name)
    return {
        "e": "avgPrice",
        "E": time(venue.now_us()),
        "s": symbol.name,
        "i": f"{minutes}m",
        "w": venue.formats[symbol.name].price(price),
        "T": last_trade_time(venue, symbol, time),
    }
