"""Keep so many immediate-or-cancel orders in flight: each that has ended is followed by the next.

For the number of orders a second that risk, journal and gateway carry to the paper venue and back. They buy only: with
an order of the other side under way risk would refuse them.
"""

import numpy as np

from shrivenq.shm.kernel import kernel
from shrivenq.stages import messages as m
from shrivenq.stages.strategy import buy

QUANTITIES = 2048
"""Quantities go round, so that no order repeats another within the shortest duplicate window."""

PARAMS = np.dtype(
    [
        ("orders", "<i8"),  # in flight
        ("quantity", "<i8"),  # of the smallest order
        ("total", "<i8"),  # no more than that many, 0 for no end
    ],
    align=True,
)

STATE = np.dtype(
    [
        ("ask", "<i8"),
        ("sent", "<i8"),
        ("open", "<i8"),
    ],
    align=True,
)


@kernel
def _fill_up(params, state, instrument, orders):
    mine = state[instrument]
    left = params["total"] - mine["sent"] if params["total"] != 0 else params["orders"]
    while mine["open"] < params["orders"] and mine["ask"] != 0 and left > 0:
        quantity = params["quantity"] + mine["sent"] % QUANTITIES * orders.instruments[instrument]["step"]
        order = buy(orders, instrument, mine["ask"], quantity, m.LIMIT, m.IOC)
        if order == 0:
            return
        left -= 1
        mine["sent"] += 1
        mine["open"] += 1


def on_book(params, state, event, orders):
    """Remember the best ask; the first one starts it all."""
    mine = state[event["instrument"]]
    mine["ask"] = event["ask_price"][0] if event["flags"] & m.VALID else 0
    _fill_up(params, state, event["instrument"], orders)


def on_report(params, state, event, orders):
    """Follow an order that has ended by the next."""
    if event["flags"] & m.FINAL:
        state[event["instrument"]]["open"] -= 1
        _fill_up(params, state, event["instrument"], orders)
