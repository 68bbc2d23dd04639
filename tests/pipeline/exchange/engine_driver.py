"""A compiled client: random commands straight into the engine's kernels, as fast as they go."""

from __future__ import annotations

from typing import Any

from shrivenq.pipeline.exchange import commands, list_commands
from shrivenq.pipeline.exchange import state as s
from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import BUY, FOK, GTC, IOC, LIMIT, LIMIT_MAKER, MARKET, SELL
from shrivenq.stages.order_flow import random_bits


@kernel
def _below(random: Any, count: int) -> int:
    return random_bits(random) % count


@kernel
def fill_request(exchange: Any, random: Any, middle: int) -> None:
    """Make an order of any type within a few ticks of `middle`."""
    order = exchange.requests[0]
    symbol = _below(random, exchange.symbols.shape[0])
    own = exchange.symbols[symbol]
    order["account"] = 1 + _below(random, exchange.accounts.shape[0] - 1)
    order["symbol"] = symbol
    order["side"] = BUY if _below(random, 2) else SELL
    roll = _below(random, 100)
    if roll < 70:
        order["type"] = LIMIT
    elif roll < 80:
        order["type"] = LIMIT_MAKER
    elif roll < 92:
        order["type"] = MARKET
    else:
        order["type"] = s.STOP_LOSS + _below(random, 4)
    order["time_in_force"] = GTC
    if order["type"] not in (LIMIT_MAKER, MARKET) and _below(random, 8) == 0:
        order["time_in_force"] = IOC if _below(random, 2) else FOK
    order["stp"] = _below(random, 6)
    order["price"] = order["stop_price"] = order["quote_quantity"] = 0
    order["quantity"] = own["step"] * (1 + _below(random, 50))
    around = middle + _below(random, 41) - 20
    if s.has_limit(order["type"]):
        order["price"] = own["tick"] * around
    order["trailing_delta"] = 0
    if s.is_stop(order["type"]):
        order["stop_price"] = own["tick"] * (middle + _below(random, 41) - 20)
        if _below(random, 2):
            order["trailing_delta"] = 1 + _below(random, 40)
            order["stop_price"] *= _below(random, 2)
    if order["type"] == MARKET and _below(random, 4) == 0:
        order["quote_quantity"], order["quantity"] = 1 + _below(random, 1 << 30), 0
    order["iceberg"] = 0
    if s.has_limit(order["type"]) and order["time_in_force"] == GTC and _below(random, 8) == 0:
        order["iceberg"] = own["step"] * (1 + _below(random, 10))
    order["strategy_id"] = order["strategy_type"] = s.MISSING


@kernel
def _fill_pair(exchange: Any, random: Any, first: int, like: Any) -> None:
    """Make a pair around the last price in `requests[first]` and the next: a limit or take profit, and a stop loss."""
    last, side = exchange.symbols[like["symbol"]]["last_price"], like["side"]
    for position in range(2):
        exchange.requests[first + position] = like
        order = exchange.requests[first + position]
        tick = exchange.symbols[like["symbol"]]["tick"]
        away = tick * (1 + _below(random, 6))
        price = max((last // tick) * tick + (away if position == 0 else -away), tick)
        order["time_in_force"], order["quote_quantity"], order["iceberg"], order["trailing_delta"] = GTC, 0, 0, 0
        order["price"], order["stop_price"] = price, price
        order["quantity"] = max(like["quantity"], exchange.symbols[like["symbol"]]["step"])
        if (position == 0) == (side == BUY):
            order["type"] = s.STOP_LOSS + _below(random, 2)
        elif _below(random, 2):
            order["type"], order["stop_price"] = LIMIT_MAKER, 0
        else:
            order["type"] = s.TAKE_PROFIT + _below(random, 2)
        if not s.has_limit(order["type"]):
            order["price"] = 0


@kernel
def place_some_list(exchange: Any, random: Any, middle: int) -> int:
    """Place a list: an OCO, an OTO of any order, an OTOCO."""
    fill_request(exchange, random, middle)
    kind = 1 + _below(random, 3)
    if kind != s.OCO:
        exchange.requests[1] = exchange.requests[0]
        working = exchange.requests[1]
        working["type"], working["time_in_force"], working["quote_quantity"], working["stop_price"] = LIMIT, GTC, 0, 0
        working["trailing_delta"] = working["iceberg"] = 0
        own = exchange.symbols[working["symbol"]]
        working["price"] = own["tick"] * (middle + _below(random, 41) - 20)
        working["quantity"] = max(working["quantity"], own["step"])
        account, symbol = working["account"], working["symbol"]
        fill_request(exchange, random, middle)
        exchange.requests[0]["account"], exchange.requests[0]["symbol"] = account, symbol
        pending = exchange.requests[0]
        pending["quantity"], pending["quote_quantity"] = max(pending["quantity"], own["step"]), 0
        exchange.requests[2] = pending
    if kind != s.OTO:
        _fill_pair(exchange, random, 1 if kind == s.OCO else 2, exchange.requests[0])
    return list_commands.place_list(exchange, kind, 3 if kind == s.OTOCO else 2)


@kernel
def drive(exchange: Any, random: Any, count: int, middle: int) -> int:
    """Give `count` random commands: two thirds orders, the rest cancels and amendments; return how many were done."""
    done = 0
    for _ in range(count):
        exchange.words[s.NOW_US] += _below(random, 1000)
        roll = _below(random, 100)
        if roll < 6:
            code = place_some_list(exchange, random, middle)
            symbol = exchange.requests[1]["symbol"]
        elif roll < 60:
            fill_request(exchange, random, middle)
            symbol = exchange.requests[0]["symbol"]
            code = commands.place(exchange)
        else:
            order = exchange.orders[_below(random, min(exchange.words[s.QUEUE_HEAD] + 1, exchange.orders.shape[0]))]
            account, symbol, order_id = order["account"], order["symbol"], order["order_id"]
            if roll < 90:
                code = commands.cancel(exchange, account, symbol, order_id, commands.ANY)
            else:
                quantity = order["quantity"] - exchange.symbols[symbol]["step"] * _below(random, 20)
                code = commands.amend(exchange, account, symbol, order_id, quantity)
        if code == 0:
            done += 1
        while not commands.settle_down(exchange, symbol):
            exchange.words[s.EVENTS] = 0
        exchange.words[s.EVENTS] = 0
    return done
