"""Working: an order that was placed, or was triggered, trades with what it meets, and rests or expires."""

from __future__ import annotations

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.crossing import DONE, OUT_OF_RANGE, TOO_LONG, survey, take
from shrivenq.pipeline.exchange.lifecycle import claim, end
from shrivenq.pipeline.exchange.state import Exchange, has_limit, leaves_of
from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching
from shrivenq.stages.messages import FOK, IOC


@kernel
def rest(exchange: Exchange, row: int) -> None:
    """Put what an order has left into the book, if it may rest and there is room for it."""
    order, core = exchange.orders[row], exchange.core
    symbol = order["symbol"]
    if core.ladders[symbol]["free"] < 0:
        claim(exchange, row)
        end(exchange, row, s.EXPIRED, s.BY_EXCHANGE, s.X_EXPIRED)
        return
    ladder = core.ladders[symbol]
    level = (order["price"] - ladder["base"]) // ladder["tick"]
    order["handle"] = matching.rest(core, symbol, order["side"], level, leaves_of(exchange, row), row + 1)
    if order["iceberg"] != 0:
        matching.hide(core, symbol, order["handle"], order["iceberg"])


@kernel
def work(exchange: Exchange, row: int) -> None:
    """Let an order trade, and rest or expire with what is left."""
    order = exchange.orders[row]
    time_in_force = order["time_in_force"]
    if time_in_force == FOK and has_limit(order["type"]):
        leaves = leaves_of(exchange, row)
        survey(exchange, order["account"], order["stp"], order["symbol"], order["side"], order["price"], leaves, 0)
        if exchange.words[s.SURVEYED] < leaves:
            end(exchange, row, s.EXPIRED, s.BY_FOK, s.X_EXPIRED)
            return
    why = take(exchange, row)
    if order["status"] > s.PARTIALLY_FILLED:
        return
    if why == OUT_OF_RANGE:
        end(exchange, row, s.EXPIRED, s.BY_RANGE, s.X_EXPIRED)
    elif why == TOO_LONG:
        end(exchange, row, s.EXPIRED, s.BY_EXCHANGE, s.X_EXPIRED)
    elif why == DONE or not has_limit(order["type"]):
        end(exchange, row, s.EXPIRED, s.BY_LIQUIDITY, s.X_EXPIRED)
    elif time_in_force == IOC:
        end(exchange, row, s.EXPIRED, s.BY_IOC, s.X_EXPIRED)
    elif time_in_force == FOK:
        end(exchange, row, s.EXPIRED, s.BY_FOK, s.X_EXPIRED)
    else:
        rest(exchange, row)
