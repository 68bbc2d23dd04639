"""A compiled client: random commands straight into the engine's kernels, as fast as they go."""

from __future__ import annotations

from typing import Any

from shrivenq.pipeline.exchange import commands
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
def drive(exchange: Any, random: Any, count: int, middle: int) -> int:
    """Give `count` random commands: two thirds orders, the rest cancels and amendments; return how many were done."""
    done = 0
    for _ in range(count):
        exchange.words[s.NOW_US] += _below(random, 1000)
        roll = _below(random, 100)
        if roll < 60:
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
