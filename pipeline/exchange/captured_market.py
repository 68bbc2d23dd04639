"""Captured market: the events of a capture act in the very books in which accounts' orders rest.

The capture's market is one order of nobody's at each level, or a few: what rested there before an account's order came
is in front of it, what came later is behind. That gives the queue of the fill model (`stages/fill_model.py`):

- a trade at a price fills those in front first, then ours with what is left of it;
- a level that shrinks by more than was traded loses those in front;
- a trade beyond our price, or a level that crosses it, fills our whole order at its own price;
- what accounts take from a level is gone until the capture next sets that level.
"""

from __future__ import annotations

from typing import Any

from shrivenq.pipeline.exchange.ledger import settle_flow, value_of
from shrivenq.pipeline.exchange.lifecycle import claim, fill
from shrivenq.pipeline.exchange.reports import has_room_to_go_on, report_trade
from shrivenq.pipeline.exchange.state import Exchange
from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching
from shrivenq.stages.messages import BUY, DIFF, LEVEL, SELL, SELLER_AGGRESSED, SIDE_ASK, SNAPSHOT, TRADE
from shrivenq.stages.money import FLOOR

NOBODY = 0
ALL = 1 << 62


@kernel
def _fill_whole(exchange: Exchange, symbol: int, slot: int) -> None:
    """Fill an account's resting order with all it has left, at its own price."""
    core = exchange.core
    side, leaves = core.orders[slot]["side"], core.orders[slot]["leaves"] + core.orders[slot]["hidden"]
    price = matching.price_of(core, symbol, core.orders[slot]["level"])
    row = core.orders[slot]["owner"] - 1
    matching.reduce(core, core.orders[slot]["handle"], leaves)
    core.ladders[symbol]["trade_id"] += 1
    _book(exchange, symbol, row, price, leaves, core.ladders[symbol]["trade_id"], -side)


@kernel
def _book(exchange: Exchange, symbol: int, row: int, price: int, quantity: int, trade_id: int, taker_side: int) -> None:
    """Book a trade of the capture's market, which takes, with an account's order in `row`."""
    quote = value_of(exchange, symbol, price, quantity, FLOOR)
    report_trade(exchange, symbol, trade_id, price, quantity, taker_side)
    claim(exchange, row)
    fill(exchange, row, price, quantity, quote, trade_id, 1)
    settle_flow(exchange, symbol, taker_side, quantity, quote)


@kernel
def _clear_way(exchange: Exchange, symbol: int, side: int, price: int) -> None:
    """Make sure that nobody on the other side of `side` rests at `price` or better: the market has gone there.

    Accounts' orders are filled; the market's own are out of date, and go.
    """
    core = exchange.core
    ladder = core.ladders[symbol]
    level = (price - ladder["base"]) // ladder["tick"]
    while True:
        best = ladder["best_ask"] if side == BUY else ladder["best_bid"]
        if best < 0 or best == ladder["levels"] or (best > level if side == BUY else best < level):
            return
        slot = core.levels[ladder["first"] + best]["head"]
        if core.orders[slot]["owner"] != NOBODY:
            _fill_whole(exchange, symbol, slot)
        else:
            matching.reduce(core, core.orders[slot]["handle"], ALL)


@kernel
def set_level(exchange: Exchange, symbol: int, side: int, price: int, quantity: int) -> None:
    """Set what the market has resting at a price; accounts' orders there stay and keep their places."""
    core = exchange.core
    ladder = core.ladders[symbol]
    level = (price - ladder["base"]) // ladder["tick"]
    if price < ladder["base"] or level >= ladder["levels"] or (price - ladder["base"]) % ladder["tick"] != 0:
        return
    if quantity > 0:
        _clear_way(exchange, symbol, side, price)
    row = ladder["first"] + level
    held, slot = 0, core.levels[row]["head"]
    occupied = matching.side_of(core, symbol, level) == side
    while occupied and slot >= 0:
        held += core.orders[slot]["leaves"] if core.orders[slot]["owner"] == NOBODY else 0
        slot = core.orders[slot]["next"]
    excess, slot = held - quantity, core.levels[row]["head"]
    while excess > 0 and slot >= 0:
        following = core.orders[slot]["next"]
        if core.orders[slot]["owner"] == NOBODY:
            excess -= matching.reduce(core, core.orders[slot]["handle"], excess)
        slot = following
    if excess < 0:
        added, tail = -excess, core.levels[row]["tail"]
        if occupied and core.orders[tail]["owner"] == NOBODY:
            # The last in the queue comes back larger, and is still the last.
            added += matching.reduce(core, core.orders[tail]["handle"], ALL)
        if ladder["free"] >= 0:
            matching.rest(core, symbol, side, level, added, NOBODY)


@kernel
def _through(exchange: Exchange, symbol: int, side: int, price: int) -> None:
    """Fill accounts' orders of `side` that are better than a price the market has traded at."""
    core = exchange.core
    ladder = core.ladders[symbol]
    limit = (price - ladder["base"]) // ladder["tick"]
    level = ladder["best_bid"] if side == BUY else ladder["best_ask"]
    while (level > limit) if side == BUY else (level < limit and level < ladder["levels"]):
        slot = core.levels[ladder["first"] + level]["head"]
        while slot >= 0:
            following = core.orders[slot]["next"]
            if core.orders[slot]["owner"] != NOBODY:
                _fill_whole(exchange, symbol, slot)
            slot = following if core.levels[ladder["first"] + level]["orders"] != 0 else -1
        if side == BUY:
            level = matching.occupied_below(core, symbol, level - 1)
        else:
            level = matching.occupied_above(core, symbol, level + 1)


@kernel
def trade(exchange: Exchange, symbol: int, price: int, quantity: int, taker_side: int) -> None:
    """Let the market trade at a price: through better orders of accounts, then along the queue at that price."""
    core = exchange.core
    ladder = core.ladders[symbol]
    _through(exchange, symbol, BUY, price)
    _through(exchange, symbol, SELL, price)
    level = (price - ladder["base"]) // ladder["tick"]
    reachable = ladder["base"] <= price and level < ladder["levels"] and matching.price_of(core, symbol, level) == price
    while quantity > 0 and reachable and matching.side_of(core, symbol, level) == -taker_side:
        if not has_room_to_go_on(exchange):
            break
        core.words[matching.TRADES] = 0
        taken = matching.trade(core, symbol, taker_side, level, quantity, NOBODY)
        made = core.trades[0]
        if made["maker_owner"] != NOBODY:
            _book(exchange, symbol, made["maker_owner"] - 1, price, taken, made["trade_id"], taker_side)
        else:
            report_trade(exchange, symbol, made["trade_id"], price, taken, taker_side)
        quantity -= taken
    if quantity > 0:
        # The book knew of it before the trade was told.
        ladder["trade_id"] += 1
        report_trade(exchange, symbol, ladder["trade_id"], price, quantity, taker_side)


@kernel
def leave(exchange: Exchange, symbol: int) -> None:
    """Take everything of the market's out of a book."""
    core = exchange.core
    slots = core.orders.shape[0] // core.ladders.shape[0]
    for slot in range(symbol * slots, (symbol + 1) * slots):
        if core.orders[slot]["leaves"] != 0 and core.orders[slot]["owner"] == NOBODY:
            matching.reduce(core, core.orders[slot]["handle"], ALL)


@kernel
def apply(exchange: Exchange, records: Any, count: int, price_divisor: int, quantity_divisor: int) -> None:
    """Let one decoded event (`count` TICKs) act in its instrument's book.

    The divisors bring the capture's numbers to the symbol's decimals. First what leaves the book, then what comes.
    """
    symbol, kind = records[0]["instrument"], records[0]["kind"]
    if kind == TRADE:
        side = SELL if records[0]["flags"] & SELLER_AGGRESSED != 0 else BUY
        quantity = records[0]["quantity"] // quantity_divisor
        if quantity > 0:
            trade(exchange, symbol, records[0]["price"] // price_divisor, quantity, side)
        return
    if kind == SNAPSHOT:
        leave(exchange, symbol)
    elif kind != DIFF:
        return
    for coming in range(2):
        for position in range(1, count):
            record = records[position]
            if record["kind"] != LEVEL or (record["quantity"] != 0) != (coming == 1):
                continue
            side = SELL if record["flags"] & SIDE_ASK != 0 else BUY
            price, quantity = record["price"] // price_divisor, record["quantity"] // quantity_divisor
            set_level(exchange, symbol, side, price, quantity)
