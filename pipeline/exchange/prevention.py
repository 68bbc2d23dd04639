"""Prevention: two orders of one account, or of one trade group, do not trade with each other.

The mode of the order that takes decides; TRANSFER needs it on both sides and two accounts, else it is DECREMENT.
Source: the venue's page on self-trade prevention, as restated in the protocol sheet, section 13.
"""

from __future__ import annotations

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.ledger import pay_of, receive, relock, value_of
from shrivenq.pipeline.exchange.lifecycle import close
from shrivenq.pipeline.exchange.reports import report, report_position
from shrivenq.pipeline.exchange.state import Exchange, leaves_of
from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching
from shrivenq.stages.messages import BUY
from shrivenq.stages.money import FLOOR


@kernel
def mode_between(exchange: Exchange, account: int, stp: int, maker: int) -> int:
    """Tell which mode stops an order of `account` from trading with the order in row `maker`; STP_NONE if none does."""
    if stp == s.STP_NONE or maker < 0:
        return s.STP_NONE
    other = exchange.orders[maker]["account"]
    group = exchange.accounts[account]["trade_group"]
    if other != account and (group == -1 or group != exchange.accounts[other]["trade_group"]):
        return s.STP_NONE
    if stp == s.TRANSFER and (other == account or exchange.orders[maker]["stp"] != s.TRANSFER):
        return s.DECREMENT
    return stp


@kernel
def _lose(exchange: Exchange, row: int, quantity: int, paid: int) -> None:
    """Take a prevented quantity from an order; it ends when it has nothing left."""
    order = exchange.orders[row]
    if order["handle"] != 0:
        matching.reduce(exchange.core, order["handle"], quantity)
    if order["side"] == BUY:
        exchange.counts[order["account"], order["symbol"]]["buying"] -= quantity
    order["prevented"] += quantity
    order["updated_us"] = exchange.words[s.NOW_US]
    if leaves_of(exchange, row) == 0:
        close(exchange, row, s.EXPIRED_IN_MATCH, s.NOT_EXPIRED)
    relock(exchange, row, paid)


@kernel
def _tell(exchange: Exchange, row: int, other: int, quantity: int, price: int, mode: int, quote: int) -> None:
    """Report what an order lost to its match with `other`."""
    event = exchange.events[report(exchange, row, s.X_PREVENTED)]
    event["quantity"], event["counter"] = quantity, exchange.orders[other]["order_id"]
    event["price"], event["quote"], event["mode"] = price, quote, mode
    report_position(exchange, exchange.orders[row]["account"], exchange.orders[row]["symbol"])


@kernel
def prevent(exchange: Exchange, taker: int, maker: int, mode: int, price: int) -> None:
    """Prevent a match at `price`: one or both of the orders lose quantity; under TRANSFER it changes accounts."""
    own = exchange.symbols[exchange.orders[taker]["symbol"]]
    match_id = own["prevented"]
    own["prevented"] += 1
    from_taker, from_maker = leaves_of(exchange, taker), leaves_of(exchange, maker)
    if mode in (s.DECREMENT, s.TRANSFER):
        from_taker = from_maker = min(from_taker, from_maker)
    elif mode == s.EXPIRE_TAKER:
        from_maker = 0
    elif mode == s.EXPIRE_MAKER:
        from_taker = 0
    moved = mode == s.TRANSFER
    quote = value_of(exchange, exchange.orders[taker]["symbol"], price, from_taker, FLOOR) if moved else 0
    for row, other, quantity in ((maker, taker, from_maker), (taker, maker, from_taker)):
        if quantity == 0:
            continue
        exchange.orders[row]["prevented_match_id"] = match_id
        paid = 0
        if moved:
            paid = pay_of(exchange, row, quantity, quote)
            receive(exchange, row, quantity, quote, 0)
        _lose(exchange, row, quantity, paid)
        _tell(exchange, row, other, quantity, price, mode, quote)
        exchange.events[exchange.words[s.EVENTS] - 2]["maker"] = 1 if row == maker else 0
