"""Open orders as risk sees them: what each still binds, found by its id, and the sums of each instrument.

An order is here from its admission until the report that ends it, which may arrive after the gateway has given its
pool slot back; so rows are risk's own and never the pool's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import slab
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import id_map
from shrivenq.stages.messages import BUY
from shrivenq.stages.money import CEIL, add, mul_div
from shrivenq.stages.risk_checks import NUMBER_MAX

OPEN_FIELDS = (
    ("order_id", "<i8", 0, "epoch << 40 | number"),
    ("price", "<i8", 8, "limit price, 0 for MARKET"),
    ("quantity", "<i8", 16, "as admitted"),
    ("leaves", "<i8", 24, "still open: neither filled nor cut"),
    ("cut", "<i8", 32, "taken from `quantity` since, by amendments and self-trade prevention"),
    ("value", "<i8", 40, "worth of `quantity` when admitted (settle currency)"),
    ("generation", "<i8", 48, "of the pool slot"),
    ("instrument", "<i4", 56, "row of the instrument table"),
    ("slot", "<i4", 60, "of the order pool"),
    ("next", "<i4", 64, "older open order of the same instrument and side, -1 for none"),
    ("previous", "<i4", 68, "newer one, -1 for none"),
    ("currency", "<i4", 72, "settlement currency"),
    ("side", "i1", 76, "BUY or SELL"),
    ("spared", "i1", 77, "by a kill: CANCELLED already, or LET_IN; 0 for neither"),
    ("stop", "i1", 78, "1 for a stop order"),
)
OPEN = np.dtype(
    {
        "names": [row[0] for row in OPEN_FIELDS],
        "formats": [row[1] for row in OPEN_FIELDS],
        "offsets": [row[2] for row in OPEN_FIELDS],
        "itemsize": 80,
        "aligned": True,
    }
)
NONE = -1
CANCELLED, LET_IN = 1, 2


@by_reference
class OpenOrders(NamedTuple):
    """OPEN rows in a slab, and where each order id is."""

    slab: slab.Slab
    ids: id_map.IdMap


def make_open_orders(count: int) -> OpenOrders:
    """Allocate room for `count` orders."""
    return OpenOrders(slab.private(OPEN, count), id_map.make_map(count))


@kernel
def find(book: OpenOrders, order_id: int) -> int:
    """Find an open order's row; NONE if there is no such order."""
    return id_map.find(book.ids, order_id, 0)


@kernel
def exposure(book: OpenOrders, at: int) -> int:
    """Value what an order can still trade."""
    order = book.slab.slots
    return mul_div(order[at]["value"], order[at]["leaves"], order[at]["quantity"], CEIL)


@inlined
def enter(
    book: OpenOrders,
    rows: Any,
    totals: Any,
    i: int,
    currency: int,
    order_id: int,
    side: int,
    price: int,
    quantity: int,
    value: int,
) -> int:
    """Bind a new order's quantity and value; its row, or NONE if there is no room.

    `slot`, and that it is a stop order, are left to the caller.
    """
    at = slab.allocate(book.slab)
    if at < 0:
        return NONE
    order = book.slab.slots
    order[at]["order_id"] = order_id
    order[at]["price"] = price
    order[at]["quantity"] = quantity
    order[at]["leaves"] = quantity
    order[at]["cut"] = 0
    order[at]["value"] = value
    order[at]["instrument"] = i
    order[at]["currency"] = currency
    order[at]["side"] = side
    order[at]["spared"] = 0
    order[at]["stop"] = 0
    order[at]["previous"] = NONE
    first = rows[i]["first_buy"] if side == BUY else rows[i]["first_sell"]
    order[at]["next"] = first
    if first != NONE:
        order[first]["previous"] = at
    if side == BUY:
        rows[i]["first_buy"] = at
        rows[i]["open_buy"] += quantity
        rows[i]["best_buy"] = max(rows[i]["best_buy"], price)
    else:
        rows[i]["first_sell"] = at
        rows[i]["open_sell"] += quantity
        if price != 0:
            rows[i]["best_sell"] = min(rows[i]["best_sell"], price)
    rows[i]["open_orders"] += 1
    totals[currency]["open_value"] += value
    id_map.put(book.ids, order_id, 0, at)
    return at


@kernel
def fill(book: OpenOrders, rows: Any, totals: Any, at: int, quantity: int) -> None:
    """Release what a fill of `quantity` no longer binds; more than is left releases what is left."""
    order = book.slab.slots
    i, currency = order[at]["instrument"], order[at]["currency"]
    quantity = min(quantity, order[at]["leaves"])
    before = exposure(book, at)
    order[at]["leaves"] -= quantity
    totals[currency]["open_value"] = add(totals[currency]["open_value"], exposure(book, at) - before)
    if order[at]["side"] == BUY:
        rows[i]["open_buy"] -= quantity
    else:
        rows[i]["open_sell"] -= quantity


@kernel
def size_now(book: OpenOrders, at: int) -> int:
    """Tell an order's quantity, filled part included, as it is now."""
    order = book.slab.slots
    return order[at]["quantity"] - order[at]["cut"]


@kernel
def lower(book: OpenOrders, rows: Any, totals: Any, at: int, quantity: int) -> None:
    """Release what an order of now `quantity`, filled part included, no longer binds; it never grows."""
    order = book.slab.slots
    cut = min(size_now(book, at) - quantity, order[at]["leaves"])
    if cut > 0:
        fill(book, rows, totals, at, cut)
        order[at]["cut"] += cut


@kernel
def leave(book: OpenOrders, rows: Any, totals: Any, at: int) -> None:
    """Release all an order still binds, and forget it."""
    order = book.slab.slots
    fill(book, rows, totals, at, order[at]["leaves"])
    i, side, price = order[at]["instrument"], order[at]["side"], order[at]["price"]
    older, newer = order[at]["next"], order[at]["previous"]
    if older != NONE:
        order[older]["previous"] = newer
    if newer != NONE:
        order[newer]["next"] = older
    elif side == BUY:
        rows[i]["first_buy"] = older
    else:
        rows[i]["first_sell"] = older
    rows[i]["open_orders"] -= 1
    rows[i]["open_stops"] -= order[at]["stop"]
    id_map.remove(book.ids, order[at]["order_id"], 0)
    slab.free(book.slab, at)
    if price != 0 and price == (rows[i]["best_buy"] if side == BUY else rows[i]["best_sell"]):
        _find_best(book, rows, i, side)


@kernel
def _find_best(book: OpenOrders, rows: Any, i: int, side: int) -> None:
    """Look through the open orders of one side for the most aggressive price; MARKET has none."""
    order = book.slab.slots
    at = rows[i]["first_buy"] if side == BUY else rows[i]["first_sell"]
    best = 0 if side == BUY else NUMBER_MAX
    while at != NONE:
        price = order[at]["price"]
        if price != 0 and (price > best if side == BUY else price < best):
            best = price
        at = order[at]["next"]
    if side == BUY:
        rows[i]["best_buy"] = best
    else:
        rows[i]["best_sell"] = best
