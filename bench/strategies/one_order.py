"""One immediate-or-cancel order an event: what the pipeline's latency is measured with.

`events` is what it answers: depth events, trades, or every market event (quotes too). The touch is the last known one.
Sides alternate, but not while an order is under way: the other side would trade with it, which risk refuses. With
`buys_only` no order reduces a position: those pass a halt.
Quantities go round, so that no order repeats another within the shortest duplicate window.
"""

import numpy as np

from shrivenq.shm.kernel import kernel
from shrivenq.stages import messages as m
from shrivenq.stages.strategy import buy, sell

DEPTH, TRADES, ALL = 0, 1, 2
QUANTITIES = 128

PARAMS = np.dtype(
    [
        ("events", "<i8"),  # DEPTH, TRADES, ALL
        ("quantity", "<i8"),  # of the smallest order
        ("buys_only", "<i8"),  # 1: never sell
    ],
    align=True,
)

STATE = np.dtype(
    [
        ("bid", "<i8"),
        ("ask", "<i8"),
        ("sent", "<i8"),
        ("open", "<i8"),
        ("side", "<i8"),
    ],
    align=True,
)


@kernel
def _send(params, state, instrument, orders):
    mine = state[instrument]
    if mine["bid"] == 0 or mine["ask"] == 0:
        return
    if mine["open"] == 0:
        mine["side"] = m.SELL if mine["side"] == m.BUY and params["buys_only"] == 0 else m.BUY
    quantity = params["quantity"] + mine["sent"] % QUANTITIES * orders.instruments[instrument]["step"]
    if mine["side"] == m.BUY:
        order = buy(orders, instrument, mine["ask"], quantity, m.LIMIT, m.IOC)
    else:
        order = sell(orders, instrument, mine["bid"], quantity, m.LIMIT, m.IOC)
    if order != 0:
        mine["sent"] += 1
        mine["open"] += 1


def on_book(params, state, event, orders):
    """Remember the touch, and answer if depth events are what is answered."""
    mine = state[event["instrument"]]
    mine["bid"] = event["bid_price"][0] if event["flags"] & m.VALID else 0
    mine["ask"] = event["ask_price"][0] if event["flags"] & m.VALID else 0
    if params["events"] != TRADES:
        _send(params, state, event["instrument"], orders)


def on_trade(params, state, event, orders):
    """Answer if trades are what is answered."""
    if params["events"] != DEPTH:
        _send(params, state, event["instrument"], orders)


def on_quote(params, state, event, orders):
    """Answer if everything is answered."""
    if params["events"] == ALL:
        _send(params, state, event["instrument"], orders)


def on_report(params, state, event, orders):
    """Count an order that has ended."""
    if event["flags"] & m.FINAL:
        state[event["instrument"]]["open"] -= 1
