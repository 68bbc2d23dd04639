"""Inventory-skewed market maker: one bid and one ask around the middle, leaning against the position.

Both quotes are post-only. The middle is moved against the inventory by `skew_ticks` at a full position, so that a long
position makes the ask more eager and the bid less. A quote is replaced when its price is off by `requote_ticks`.
After Avellaneda and Stoikov, "High-frequency trading in a limit order book" (2008), with a linear skew.
"""

import numpy as np

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
        ("bid_price", "<i8"),
        ("bid_busy", "<i8"),  # 1 while a request for this quote has no answer
        ("ask_id", "<i8"),
        ("ask_price", "<i8"),
        ("ask_busy", "<i8"),
    ],
    align=True,
)


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
    ask = max(-((-middle - distance) // tick * tick), best_bid + tick)
    slack = params["requote_ticks"] * tick

    if mine["bid_busy"] == 0:
        wanted = mine["position"] + params["quantity"] <= params["position_max"]
        if mine["bid_id"] == 0:
            if wanted:
                mine["bid_id"] = buy(orders, instrument, bid, params["quantity"], m.LIMIT_MAKER)
                mine["bid_price"] = bid
                mine["bid_busy"] = mine["bid_id"]
        elif not wanted:
            mine["bid_busy"] = cancel(orders, instrument, mine["bid_id"])
        elif abs(bid - mine["bid_price"]) >= slack:
            mine["bid_busy"] = replace(
                orders, instrument, mine["bid_id"], m.BUY, bid, params["quantity"], m.LIMIT_MAKER
            )
            mine["bid_price"] = bid

    if mine["ask_busy"] == 0:
        wanted = mine["position"] - params["quantity"] >= -params["position_max"]
        if mine["ask_id"] == 0:
            if wanted:
                mine["ask_id"] = sell(orders, instrument, ask, params["quantity"], m.LIMIT_MAKER)
                mine["ask_price"] = ask
                mine["ask_busy"] = mine["ask_id"]
        elif not wanted:
            mine["ask_busy"] = cancel(orders, instrument, mine["ask_id"])
        elif abs(ask - mine["ask_price"]) >= slack:
            mine["ask_busy"] = replace(
                orders, instrument, mine["ask_id"], m.SELL, ask, params["quantity"], m.LIMIT_MAKER
            )
            mine["ask_price"] = ask


def on_report(params, state, event, orders):
    """Follow the position and what became of the quotes."""
    mine = state[event["instrument"]]
    kind = event["kind"]
    order_id = event["order_id"]
    if kind == m.FILL:
        mine["position"] += event["side"] * event["last_quantity"]
    # `busy` holds the id of the request: its answer, whatever it is, ends the wait.
    if kind != m.FILL and order_id == mine["bid_busy"]:
        mine["bid_busy"] = 0
    if kind != m.FILL and order_id == mine["ask_busy"]:
        mine["ask_busy"] = 0
    if kind == m.REPLACED:
        if event["target_id"] == mine["bid_id"]:
            mine["bid_id"] = order_id
        elif event["target_id"] == mine["ask_id"]:
            mine["ask_id"] = order_id
    elif event["flags"] & m.FINAL:
        gone = event["target_id"] if kind == m.CANCELLED and event["target_id"] != 0 else order_id
        if gone == mine["bid_id"]:
            mine["bid_id"] = 0
        elif gone == mine["ask_id"]:
            mine["ask_id"] = 0
