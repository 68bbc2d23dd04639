"""Background: the seeded synthetic flow acts in the very books in which accounts' orders rest, and takes them.

Time passes here only as far as the caller says; what is due at one moment happens in the order of the symbols.
"""

from __future__ import annotations

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.commands import settle_down
from shrivenq.pipeline.exchange.ledger import settle_flow, value_of
from shrivenq.pipeline.exchange.lifecycle import claim, fill
from shrivenq.pipeline.exchange.reports import has_room, report_trade
from shrivenq.pipeline.exchange.state import Exchange
from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching, order_flow
from shrivenq.stages.money import FLOOR

NS_PER_US = 1000
CHANGED_MAX = 1024
"""Levels that may change before the facade has to look at them."""


@kernel
def _absorb(exchange: Exchange, symbol: int) -> None:
    """Book what the flow has just traded with accounts, and tell the market of all of it."""
    core = exchange.core
    for position in range(core.words[matching.TRADES]):
        made = core.trades[position]
        report_trade(exchange, symbol, made["trade_id"], made["price"], made["quantity"], made["side"])
        if made["maker_owner"] != 0:
            quote = value_of(exchange, symbol, made["price"], made["quantity"], FLOOR)
            claim(exchange, made["maker_owner"] - 1)
            fill(exchange, made["maker_owner"] - 1, made["price"], made["quantity"], quote, made["trade_id"], 1)
            settle_flow(exchange, symbol, made["side"], made["quantity"], quote)


@kernel
def _has_room(exchange: Exchange, symbol: int) -> bool:
    """Tell whether whatever may happen next in a symbol can be reported, levels included."""
    return exchange.core.ladders[symbol]["changed"] < CHANGED_MAX and has_room(exchange, symbol)


@kernel
def advance(exchange: Exchange, now_us: int) -> bool:
    """Let the flow act until `now_us`; False if the events must be taken before it can go on."""
    flows, words = exchange.flow.flows, exchange.words
    for symbol in range(exchange.symbols.shape[0]):
        if not _has_room(exchange, symbol) or not settle_down(exchange, symbol):
            return False
    while words[s.FLOWING] != 0:
        acting = 0
        for symbol in range(1, flows.shape[0]):
            if flows[symbol]["next_ns"] < flows[acting]["next_ns"]:
                acting = symbol
        if flows[acting]["next_ns"] > now_us * NS_PER_US:
            break
        if not _has_room(exchange, acting):
            return False
        words[s.NOW_US] = max(words[s.NOW_US], flows[acting]["next_ns"] // NS_PER_US)
        if exchange.symbols[acting]["status"] != s.TRADING:
            flows[acting]["next_ns"] += flows[acting]["gap_ns"]
            continue
        order_flow.act(exchange.flow, acting)
        _absorb(exchange, acting)
        if not settle_down(exchange, acting):
            return False
    words[s.NOW_US] = max(words[s.NOW_US], now_us)
    return True
