"""Answer every move of the best bid with an immediate-or-cancel order to buy at the new one.

The decision every client of the wire benchmark makes. Quantities go round, so that no order repeats another within the
shortest duplicate window.
"""

import numpy as np

from shrivenq.stages import messages as m
from shrivenq.stages.strategy import buy

QUANTITIES = 128

PARAMS = np.dtype([("quantity", "<i8")], align=True)  # of the smallest order

STATE = np.dtype(
    [
        ("bid", "<i8"),
        ("sent", "<i8"),
    ],
    align=True,
)


def on_book(params, state, event, orders):
    """Compare the best bid with the last one."""
    mine = state[event["instrument"]]
    bid = event["bid_price"][0] if event["flags"] & m.VALID else 0
    if mine["bid"] != 0 and bid != 0 and bid != mine["bid"]:
        step = orders.instruments[event["instrument"]]["step"]
        quantity = params["quantity"] + mine["sent"] % QUANTITIES * step
        buy(orders, event["instrument"], bid, quantity, m.LIMIT, m.IOC)
        mine["sent"] += 1
    mine["bid"] = bid
