"""Order-book-imbalance taker: when one side of the book outweighs the other, take the thin side.

The imbalance of the best five levels, (bids − asks) / (bids + asks) by quantity, leads the next price move. Above the
threshold the strategy buys at the ask with an immediate-or-cancel order, below minus the threshold it sells at the
bid, within a position limit and not more often than the cool-down allows. It holds no resting orders.
"""

import numpy as np

from shrivenq.stages import messages as m
from shrivenq.stages.strategy import buy, sell

LEVELS = 5

PARAMS = np.dtype(
    [
        ("quantity", "<i8"),  # of each order
        ("position_max", "<i8"),  # largest position either way
        ("threshold_percent", "<i8"),  # imbalance that triggers, 0 to 100
        ("cooldown_ns", "<i8"),  # between two orders of one instrument
    ],
    align=True,
)

STATE = np.dtype(
    [
        ("position", "<i8"),
        ("last_ns", "<i8"),  # time of the last order
        ("open_id", "<i8"),  # order in flight, 0 for none
    ],
    align=True,
)


def on_book(params, state, event, orders):
    """Take the thin side of a lopsided book."""
    mine = state[event["instrument"]]
    if not event["flags"] & m.VALID or mine["open_id"] != 0:
        return
    if event["time_ns"] - mine["last_ns"] < params["cooldown_ns"]:
        return
    bids = 0
    asks = 0
    for level in range(LEVELS):
        bids += event["bid_quantity"][level]
        asks += event["ask_quantity"][level]
    if bids == 0 or asks == 0:
        return
    imbalance = (bids - asks) * 100
    threshold = (bids + asks) * params["threshold_percent"]
    quantity = params["quantity"]
    if imbalance >= threshold and mine["position"] + quantity <= params["position_max"]:
        mine["open_id"] = buy(orders, event["instrument"], event["ask_price"][0], quantity, m.LIMIT, m.IOC)
        mine["last_ns"] = event["time_ns"]
    elif imbalance <= -threshold and mine["position"] - quantity >= -params["position_max"]:
        mine["open_id"] = sell(orders, event["instrument"], event["bid_price"][0], quantity, m.LIMIT, m.IOC)
        mine["last_ns"] = event["time_ns"]


def on_report(params, state, event, orders):
    """Follow the position and notice when the order is done."""
    mine = state[event["instrument"]]
    if event["kind"] == m.FILL:
        mine["position"] += event["side"] * event["last_quantity"]
    if event["flags"] & m.FINAL and event["order_id"] == mine["open_id"]:
        mine["open_id"] = 0
