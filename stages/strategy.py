"""What a strategy speaks through: `buy`, `sell`, `cancel`, `replace`.

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
    orders: Any, instrument: int, price: int, quantity: int, order_type: int = m.LIMIT, time_in_force: int = m.GTC
) -> int:
    """Ask to buy; return the order's id, or 0 when there is no room for the request."""
    return _request(orders, m.NEW, instrument, m.BUY, price, quantity, order_type, time_in_force, 0)


@kernel
def sell(
    orders: Any, instrument: int, price: int, quantity: int, order_type: int = m.LIMIT, time_in_force: int = m.GTC
) -> int:
    """Ask to sell; return the order's id, or 0 when there is no room for the request."""
    return _request(orders, m.NEW, instrument, m.SELL, price, quantity, order_type, time_in_force, 0)


@kernel
def cancel(orders: Any, instrument: int, order_id: int) -> int:
    """Ask to cancel an order; return the request's id, or 0 when there is no room for it."""
    return _request(orders, m.CANCEL, instrument, 0, 0, 0, 0, 0, order_id)


@kernel
def replace(
    orders: Any, instrument: int, order_id: int, side: int, price: int, quantity: int, order_type: int = m.LIMIT
) -> int:
    """Ask to cancel `order_id` and, if that succeeds, to place a new order; return the new id, or 0 for no room."""
    return _request(orders, m.REPLACE, instrument, side, price, quantity, order_type, m.GTC, order_id)


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
    intents[slot]["stop_price"] = 0
    intents[slot]["self_trade"] = 0
    return order_id
