"""Inventory-skewed market maker: one bid and one ask around the middle, leaning against the position.

Both quotes are post-only. The middle is moved against the inventory by `skew_ticks` at a full position, so that a long
position makes the ask more eager and the bid less. A quote is replaced when its price is off by `requote_ticks`.
After Avellaneda and Stoikov, "High-frequency trading in a limit order book" (2008), with a linear skew.
"""

import numpy as np

from shrivenq.shm.kernel import kernel
from shrivenq.stages import messages as m
from shrivenq.stages.strategy import buy, cancel, replace, sell

PARAMS = np.dtype(
    [
        ("quantity", "<i8"),  # of each quote
        ("position_max", "<i8"),  # stop quoting the side that would exceed it
        ("half_spread_ticks", "<i8"),  # distance of a quote from the skewed middle
        ("skew_ticks", "<i8"),  # shift of the middle at a full position
        ("requote_ticks", "<i8"),  # replace a quote that is off by this much
    ],
    align=True,
)

STATE = np.dtype(
    [
        ("position", "<i8"),
        ("bid_id", "<i8"),  # our quote, 0 for none
        ("bid_price", "<i8"),  # of the open order
        ("bid_busy", "<i8"),  # the request about this quote that has no answer yet, 0 for none
        ("ask_id", "<i8"),
        ("ask_price", "<i8"),
        ("ask_busy", "<i8"),
    ],
    align=True,
)


@kernel
def _follow(event, order_id, price, busy):
    """Follow one quote: its order, that order's price, and the request about it that has no answer yet."""
    kind = event["kind"]
    named = event["order_id"]
    if named == busy and (kind == m.ACCEPTED or kind == m.REPLACED or kind == m.FILL):  # noqa: PLR1714 - a kernel
        # It is open: a fill says so as well.
        order_id, price, busy = named, event["price"], 0
    elif kind == m.ACCEPTED and named == order_id:
        busy = 0  # the venue, asked about it, says that the request came to nothing
    elif kind != m.UNKNOWN and named == busy:
        busy = 0
    if event["flags"] & m.FINAL and kind != m.REPLACED:
        gone = event["target_id"] if kind == m.CANCELLED and event["target_id"] != 0 else named
        if gone == order_id:
            order_id = 0
    return order_id, price, busy


@kernel
def _quote(orders, params, instrument, side, price, wanted, order_id, open_price, busy):
    """Place, move or withdraw one quote; returns its order and the request that is now under way."""
    if busy != 0:
        return order_id, busy
    if order_id == 0:
        if wanted and side == m.BUY:
            order_id = buy(orders, instrument, price, params["quantity"], m.LIMIT_MAKER)
        elif wanted:
            order_id = sell(orders, instrument, price, params["quantity"], m.LIMIT_MAKER)
        return order_id, order_id
    if not wanted:
        return order_id, cancel(orders, instrument, order_id)
    if abs(price - open_price) >= params["requote_ticks"] * orders.instruments[instrument]["tick"]:
        return order_id, replace(orders, instrument, order_id, side, price, params["quantity"], m.LIMIT_MAKER)
    return order_id, 0


def on_book(params, state, event, orders):
    """Move the quotes to where the book and the position want them."""
    instrument = event["instrument"]
    mine = state[instrument]
    if not event["flags"] & m.VALID or event["bid_count"] == 0 or event["ask_count"] == 0:
        return
    tick = orders.instruments[instrument]["tick"]
    best_bid = event["bid_price"][0]
    best_ask = event["ask_price"][0]
    skew = mine["position"] * params["skew_ticks"] * tick // params["position_max"]
    middle = (best_bid + best_ask) // 2 - skew
    distance = params["half_spread_ticks"] * tick
    # Post-only: never at or through the other side.
    bid = min((middle - distance) // tick * tick, best_ask - tick)
    ask = max(-((-middle - distance) // tick * tick), best_bid + tick, bid + tick)
    wants_bid = mine["position"] + params["quantity"] <= params["position_max"]
    wants_ask = mine["position"] - params["quantity"] >= -params["position_max"]
    mine["bid_id"], mine["bid_busy"] = _quote(
        orders, params, instrument, m.BUY, bid, wants_bid, mine["bid_id"], mine["bid_price"], mine["bid_busy"]
    )
    mine["ask_id"], mine["ask_busy"] = _quote(
        orders, params, instrument, m.SELL, ask, wants_ask, mine["ask_id"], mine["ask_price"], mine["ask_busy"]
    )


def on_report(params, state, event, orders):
    """Follow the position and what became of the quotes."""
    mine = state[event["instrument"]]
    if event["kind"] == m.FILL:
        mine["position"] += event["side"] * event["last_quantity"]
    mine["bid_id"], mine["bid_price"], mine["bid_busy"] = _follow(
        event, mine["bid_id"], mine["bid_price"], mine["bid_busy"]
    )
    mine["ask_id"], mine["ask_price"], mine["ask_busy"] = _follow(
        event, mine["ask_id"], mine["ask_price"], mine["ask_busy"]
    )
