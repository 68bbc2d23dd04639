"""What a strategy speaks through.

    buy, sell                 a new order: limit, market, post-only
    stop_loss, take_profit    an order that waits until the last price reaches `stop_price`
    replace                   cancel an order and, if that succeeds, place another
    amend                     make an order smaller; it keeps its place in the queue
    cancel, cancel_all        take back one order, or every order of an instrument

A strategy is a Python module with two record types and any of six functions:

    PARAMS = np.dtype([("size", "<i8")], align=True)     # its table in the configuration
    STATE = np.dtype([("position", "<i8")], align=True)  # one row per instrument, zero at the start

    def on_start(params, state, event, orders): ...      # once, with the first market message
    def on_book(params, state, event, orders): ...       # after each complete depth event
    def on_quote(params, state, event, orders): ...      # best bid and offer, a faster stream than the book
    def on_trade(params, state, event, orders): ...
    def on_report(params, state, event, orders): ...     # what became of an order
    def on_timer(params, state, event, orders): ...      # every `timer_ms`

`params` is a PARAMS record, `state` the array of STATE rows, `event` a BOOK record (a REPORT in `on_report`), `orders`
what the functions below take first. Prices and quantities are integers at the instrument's decimals; the table of
instruments is `orders.instruments`. The functions are compiled by Numba; with `--uncompiled` they are ordinary Python.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from shrivenq.shm import ring
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import kernel
from shrivenq.stages import messages as m

# Words of `Orders.words` (int64).
NEXT_ID = 0  # id of the next request
REFUSED = 1  # requests that found no room
CAUSE = 2  # sequence of the message being handled
TIME_NS = 3
VENUE_NS = 4
WIRE_NS = 5
DECODED_NS = 6
BOOK_NS = 7
STARTED = 8
WORDS = 16


@by_reference
class Orders(NamedTuple):
    """The intent ring, what is known of the message being handled, and the instrument table."""

    intents: Any
    words: Any
    instruments: Any


@kernel
def buy(
    orders: Any,
    instrument: int,
    price: int,
    quantity: int,
    order_type: int = m.LIMIT,
    time_in_force: int = m.GTC,
    self_trade: int = 0,
) -> int:
    """Ask to buy; return the order's id, or 0 when there is no room for the request.

    `self_trade` says what the venue is to do if the order would trade with one of ours: EXPIRE_TAKER, EXPIRE_MAKER,
    EXPIRE_BOTH, DECREMENT. Without one of them risk denies an order that could.
    """
    return _request(orders, m.NEW, instrument, m.BUY, price, quantity, order_type, time_in_force, 0, 0, self_trade)


@kernel
def sell(
    orders: Any,
    instrument: int,
    price: int,
    quantity: int,
    order_type: int = m.LIMIT,
    time_in_force: int = m.GTC,
    self_trade: int = 0,
) -> int:
    """Ask to sell; return the order's id, or 0 when there is no room for the request. `self_trade` is as in `buy`."""
    return _request(orders, m.NEW, instrument, m.SELL, price, quantity, order_type, time_in_force, 0, 0, self_trade)


@kernel
def stop_loss(
    orders: Any,
    instrument: int,
    side: int,
    stop_price: int,
    quantity: int,
    price: int = 0,
    time_in_force: int = m.GTC,
    self_trade: int = m.EXPIRE_MAKER,
) -> int:
    """Ask to buy once the last price has risen to `stop_price`, or to sell once it has fallen to it; return the id.

    At market, or with a `price` as a limit order at that price. The venue refuses a stop that is reached already
    (`would_trigger`). When it triggers nobody asks us again, so it must name a mode for `self_trade`; EXPIRE_MAKER lets
    it pass and cancels what it would have met. Nothing is said when it triggers: its fills, or its end, are.
    """
    order_type = m.STOP_LOSS if price == 0 else m.STOP_LOSS_LIMIT
    return _request(
        orders, m.NEW, instrument, side, price, quantity, order_type, time_in_force, 0, stop_price, self_trade
    )


@kernel
def take_profit(
    orders: Any,
    instrument: int,
    side: int,
    stop_price: int,
    quantity: int,
    price: int = 0,
    time_in_force: int = m.GTC,
    self_trade: int = m.EXPIRE_MAKER,
) -> int:
    """Ask to buy once the last price has fallen to `stop_price`, or to sell once it has risen to it; return the id.

    Everything else is as in `stop_loss`.
    """
    order_type = m.TAKE_PROFIT if price == 0 else m.TAKE_PROFIT_LIMIT
    return _request(
        orders, m.NEW, instrument, side, price, quantity, order_type, time_in_force, 0, stop_price, self_trade
    )


@kernel
def cancel(orders: Any, instrument: int, order_id: int) -> int:
    """Ask to cancel an order; return the request's id, or 0 when there is no room for it."""
    return _request(orders, m.CANCEL, instrument, 0, 0, 0, 0, 0, order_id, 0, 0)


@kernel
def cancel_all(orders: Any, instrument: int) -> int:
    """Ask to cancel every open order of an instrument; return the request's id, or 0 when there is no room for it.

    Each order that goes is reported CANCELLED by its own id; CANCEL_REJECTED names the request: there was none.
    """
    return _request(orders, m.CANCEL_ALL, instrument, 0, 0, 0, 0, 0, 0, 0, 0)


@kernel
def replace(
    orders: Any,
    instrument: int,
    order_id: int,
    side: int,
    price: int,
    quantity: int,
    order_type: int = m.LIMIT,
    stop_price: int = 0,
    self_trade: int = 0,
) -> int:
    """Ask to cancel `order_id` and, if that succeeds, to place a new order; return the new id, or 0 for no room.

    `order_type` may be any, `stop_price` goes with those that wait for one.
    """
    return _request(
        orders, m.REPLACE, instrument, side, price, quantity, order_type, m.GTC, order_id, stop_price, self_trade
    )


@kernel
def amend(orders: Any, instrument: int, order_id: int, quantity: int) -> int:
    """Ask to lower an order to `quantity`, its filled part included; return the request's id, or 0 for no room.

    The order keeps its id, its price and its place in the queue. AMENDED or AMEND_REJECTED names the request as
    `order_id` and the order as `target_id`; an order left with nothing to fill is over.
    """
    return _request(orders, m.AMEND, instrument, 0, 0, quantity, 0, 0, order_id, 0, 0)


@kernel
def _request(
    orders: Any,
    kind: int,
    instrument: int,
    side: int,
    price: int,
    quantity: int,
    order_type: int,
    time_in_force: int,
    target_id: int,
    stop_price: int,
    self_trade: int,
) -> int:
    words = orders.words
    if not ring.claim(orders.intents, 1):
        words[REFUSED] += 1
        return 0
    sequence = orders.intents.own[ring.NEXT]
    slot = ring.next_slot(orders.intents)
    intents = orders.intents.slots
    order_id = words[NEXT_ID]
    words[NEXT_ID] = order_id + 1
    intents[slot]["sequence"] = sequence
    intents[slot]["cause"] = words[CAUSE]
    intents[slot]["time_ns"] = words[TIME_NS]
    intents[slot]["instrument"] = instrument
    intents[slot]["kind"] = kind
    intents[slot]["flags"] = 0
    intents[slot]["venue_ns"] = words[VENUE_NS]
    intents[slot]["wire_ns"] = words[WIRE_NS]
    intents[slot]["decoded_ns"] = words[DECODED_NS]
    intents[slot]["book_ns"] = words[BOOK_NS]
    intents[slot]["order_id"] = order_id
    intents[slot]["target_id"] = target_id
    intents[slot]["price"] = price
    intents[slot]["quantity"] = quantity
    intents[slot]["side"] = side
    intents[slot]["order_type"] = order_type
    intents[slot]["time_in_force"] = time_in_force
    intents[slot]["stop_price"] = stop_price
    intents[slot]["self_trade"] = self_trade
    return order_id
