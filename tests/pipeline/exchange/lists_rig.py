"""Order lists in PLAIN, placed and listened to."""

from __future__ import annotations

from shrivenq.pipeline.exchange.types import ListEvent, OrderEvent
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, limit, market, order

BTC = PLAIN.name


def trade(engine, price, quantity=1, account=2):
    """Make the last price, against an order of one's own."""
    engine.place(account, limit("SELL", price, quantity), START_US)
    engine.place(account, limit("BUY", price, quantity), START_US)


def sell_pair(quantity=5, above=110, below=90, **fields):
    return [
        order("SELL", "LIMIT_MAKER", price=above, quantity=quantity),
        order("SELL", "STOP_LOSS", stop_price=below, quantity=quantity, **fields),
    ]


def opened(kind, orders, **fields):
    """Place a list in a market that has traded at 100."""
    engine = market(**fields)
    trade(engine, 100)
    outcome = engine.place_list(1, kind, orders, START_US)
    assert outcome.error is None
    engine.take_events()
    return engine, outcome


def said(engine, account=1):
    """Say what was reported: of orders (id, execution, reason), of lists (id, status)."""
    found = []
    for one in engine.take_events():
        if isinstance(one, OrderEvent) and one.account == account:
            found.append((one.order.order_id, one.execution, one.order.expiry_reason))
        elif isinstance(one, ListEvent) and one.account == account:
            found.append((one.view.list_id, one.view.status))
    return found
