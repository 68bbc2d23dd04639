"""Crossing: an order meets the other side of the book, by price and then by time.

`survey` walks the book without touching it, to know what a market order will cost and whether a FOK order can be
filled; `take` trades. Both stop at the same places: at the limit, at the bounds of the price-range rule, and where
self-trade prevention ends the order that takes.
"""

from __future__ import annotations

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.filters import is_within, reference_price
from shrivenq.pipeline.exchange.ledger import AMOUNT_MAX, affordable, settle_flow, value_of
from shrivenq.pipeline.exchange.lifecycle import claim, fill
from shrivenq.pipeline.exchange.prevention import mode_between, prevent
from shrivenq.pipeline.exchange.reports import has_room_to_go_on, report_trade
from shrivenq.pipeline.exchange.state import Exchange, leaves_of
from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching
from shrivenq.stages.messages import BUY
from shrivenq.stages.money import FLOOR

# Why `take` stopped.
DRY = 0  # nothing is left within the limit
DONE = 1  # the order is closed, or has nothing left
OUT_OF_RANGE = 2  # the price-range rule forbids the next price
TOO_LONG = 3  # it met so many hidden parts that no more can be told of at once


@kernel
def best_level(exchange: Exchange, symbol: int, side: int) -> int:
    """Find the level an order of `side` meets first, -1 for none."""
    ladder = exchange.core.ladders[symbol]
    if side != BUY:
        return ladder["best_bid"]
    return ladder["best_ask"] if ladder["best_ask"] < ladder["levels"] else -1


@kernel
def next_level(exchange: Exchange, symbol: int, side: int, level: int) -> int:
    """Find the level an order of `side` meets after `level`, -1 for none."""
    if side != BUY:
        return matching.occupied_below(exchange.core, symbol, level - 1)
    found = matching.occupied_above(exchange.core, symbol, level + 1)
    return found if found < exchange.core.ladders[symbol]["levels"] else -1


@kernel
def crosses(side: int, limit: int, price: int) -> bool:
    """Tell whether an order with a limit price may trade at `price`; a limit of 0 is none."""
    if limit == 0:
        return True
    return price <= limit if side == BUY else price >= limit


@kernel
def would_take(exchange: Exchange, symbol: int, side: int, limit: int) -> bool:
    """Tell whether an order would meet anything at once."""
    level = best_level(exchange, symbol, side)
    return level >= 0 and crosses(side, limit, matching.price_of(exchange.core, symbol, level))


@kernel
def range_reference(exchange: Exchange, symbol: int) -> int:
    """Find the price that the price-range rule refers to; 0 where it is not enforced."""
    return reference_price(exchange, symbol) if exchange.symbols[symbol]["has_reference"] != 0 else 0


@kernel
def in_range(exchange: Exchange, symbol: int, side: int, price: int, reference: int) -> bool:
    """Tell whether the price-range rule lets an order of `side` take at `price`."""
    if reference == 0:
        return True
    own = exchange.symbols[symbol]
    if side == BUY:
        return is_within(price, reference, own["range_bid_down"], own["range_bid_up"])
    return is_within(price, reference, own["range_ask_down"], own["range_ask_up"])


@kernel
def market_step(exchange: Exchange, symbol: int) -> int:
    """Tell what the quantity that a quote quantity stands for is a multiple of."""
    return max(exchange.symbols[symbol]["step"], exchange.symbols[symbol]["market_step"])


@kernel
def _offered(exchange: Exchange, slot: int, mode: int, turn: int) -> int:
    """Tell what an order in the book offers to one that meets it: first what shows, in a second turn what is hidden.

    What prevention takes, it takes at once.
    """
    order = exchange.core.orders[slot]
    if mode == s.EXPIRE_MAKER:
        return 0
    if mode != s.STP_NONE:
        return order["leaves"] + order["hidden"] if turn == 0 else 0
    return order["leaves"] if turn == 0 else order["hidden"]


@kernel
def survey(
    exchange: Exchange, account: int, stp: int, symbol: int, side: int, limit: int, quantity: int, budget: int
) -> None:
    """Walk the book as an order would, without trading.

    Up to `quantity`, or, if `budget` is above 0, as far as that many quote units go. Leaves in `words` how much would
    trade (SURVEYED), what it is worth at most (COST), and whether the book held less than was asked (SHORT). What
    prevention would take from the order is part of a budget's quantity: it must be there to be taken.
    """
    core, words = exchange.core, exchange.words
    words[s.SURVEYED] = words[s.COST] = 0
    words[s.SHORT] = 1
    left = AMOUNT_MAX if budget > 0 else quantity
    step = market_step(exchange, symbol)
    reference = range_reference(exchange, symbol)
    level = best_level(exchange, symbol, side)
    while level >= 0:
        price = matching.price_of(core, symbol, level)
        if not crosses(side, limit, price) or not in_range(exchange, symbol, side, price, reference):
            return
        for turn in range(2):
            slot = core.levels[core.ladders[symbol]["first"] + level]["head"]
            while slot >= 0:
                mode = mode_between(exchange, account, stp, core.orders[slot]["owner"] - 1)
                if mode in (s.EXPIRE_TAKER, s.EXPIRE_BOTH):
                    return
                offered = _offered(exchange, slot, mode, turn)
                taken = min(left, offered)
                if budget > 0:
                    taken = min(taken, affordable(exchange, symbol, price, budget - words[s.COST]))
                words[s.COST] += value_of(exchange, symbol, price, taken, FLOOR)
                left -= taken
                if mode == s.STP_NONE or budget > 0:
                    words[s.SURVEYED] += taken
                if left == 0 or taken < offered:
                    words[s.SHORT] = 0
                    return
                if budget > 0 and offered > 0:
                    # What is left may buy nothing more, whatever else the book holds.
                    spare = affordable(exchange, symbol, price, budget - words[s.COST])
                    words[s.SHORT] = 1 if spare >= step else 0
                slot = core.orders[slot]["next"]
        level = next_level(exchange, symbol, side, level)


@kernel
def _trade(exchange: Exchange, row: int, level: int, quantity: int) -> None:
    """Trade with the first order of a level, and book both sides."""
    core = exchange.core
    symbol, side = exchange.orders[row]["symbol"], exchange.orders[row]["side"]
    core.words[matching.TRADES] = 0
    matching.trade(core, symbol, side, level, quantity, row + 1)
    made = core.trades[0]
    price, traded, trade_id = made["price"], made["quantity"], made["trade_id"]
    quote = value_of(exchange, symbol, price, traded, FLOOR)
    report_trade(exchange, symbol, trade_id, price, traded, side)
    if made["maker_owner"] != 0:
        fill(exchange, made["maker_owner"] - 1, price, traded, quote, trade_id, 1)
    else:
        settle_flow(exchange, symbol, -side, traded, quote)
    fill(exchange, row, price, traded, quote, trade_id, 0)


@kernel
def take(exchange: Exchange, row: int) -> int:
    """Let an order trade with whatever its limit meets; return why it stopped: DRY, DONE, OUT_OF_RANGE or TOO_LONG."""
    core, order = exchange.core, exchange.orders[row]
    symbol, side, limit = order["symbol"], order["side"], order["price"]
    reference = range_reference(exchange, symbol)
    while True:
        leaves = leaves_of(exchange, row)
        if leaves == 0:
            return DONE
        if not has_room_to_go_on(exchange):
            return TOO_LONG
        level = best_level(exchange, symbol, side)
        if level < 0:
            return DRY
        price = matching.price_of(core, symbol, level)
        if not crosses(side, limit, price):
            return DRY
        if not in_range(exchange, symbol, side, price, reference):
            return OUT_OF_RANGE
        slot = core.levels[core.ladders[symbol]["first"] + level]["head"]
        maker = core.orders[slot]["owner"] - 1
        mode = mode_between(exchange, order["account"], order["stp"], maker)
        if maker >= 0 and exchange.orders[maker]["list"] != 0 and mode != s.EXPIRE_TAKER:
            claim(exchange, maker)
        if mode != s.STP_NONE:
            prevent(exchange, row, maker, mode, price)
        else:
            _trade(exchange, row, level, leaves)
