"""Markets and shorthands for tests of the engine."""

from __future__ import annotations

import msgspec

from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.types import DepthEvent, NewOrder, Symbol

START_US = 1_700_000_000_000_000

PLAIN = Symbol(
    name="BTCUSDT", base="BTC", quote="USDT", price_decimals=2, quantity_decimals=5, tick=1, step=1,
    quantity_max=10**12, stp_default="NONE",
)  # fmt: skip

# Two symbols that share a quote asset: in one values are exact, in the other they are rounded.
STRICT = Symbol(
    name="ABCUSD", base="ABC", quote="USD", price_decimals=1, quantity_decimals=1, base_decimals=3, quote_decimals=4,
    tick=2, price_min=20, price_max=1_000, step=5, quantity_min=5, quantity_max=900,
    market_step=10, market_quantity_min=10, market_quantity_max=400,
    notional_min=20_000, notional_max=90_000_000, apply_max_to_market=True,
    percent_up=250_000_000, percent_down=30_000_000, bid_percent_up=200_000_000, bid_percent_down=40_000_000,
    ask_percent_up=220_000_000, ask_percent_down=35_000_000, orders_max=9, algo_orders_max=3, position_max=30_000,
    amends_max=2, range_bid_up=115_000_000, range_bid_down=50_000_000, range_ask_up=0, range_ask_down=85_000_000,
    has_reference=True, maker_fee=100_000, taker_fee=250_000, average_minutes=2,
)  # fmt: skip
ROUND = Symbol(
    name="XYZUSD", base="XYZ", quote="USD", price_decimals=5, quantity_decimals=3, base_decimals=3, quote_decimals=4,
    tick=7, price_max=70_000, step=1, quantity_min=1, quantity_max=100_000, notional_filter="MIN_NOTIONAL",
    notional_min=3, apply_min_to_market=False, average_minutes=0, maker_fee=333_333, taker_fee=777_777,
    stp_default="DECREMENT",
)  # fmt: skip


def changed(symbol, **fields):
    """Copy a symbol with other fields."""
    return msgspec.structs.replace(symbol, **fields)


def market(symbol=PLAIN, accounts=2, *, groups=(), **fields):
    """Open a market without background, and accounts that have plenty."""
    engine = Engine([changed(symbol, **fields)], seed=1, orders_kept=4096, book_slots=1024)
    plenty = {symbol.base: 10**15, symbol.quote: 10**15}
    for number in range(accounts):
        engine.open_account(plenty, trade_group=groups[number] if groups else -1)
    return engine


def order(side, order_type, **fields):
    """Make an order in PLAIN."""
    return NewOrder(symbol=fields.pop("symbol", PLAIN.name), side=side, type=order_type, **fields)


def limit(side, price, quantity, **fields):
    """Make a LIMIT order, GTC if nothing else is said."""
    force = fields.pop("time_in_force", "GTC")
    return order(side, "LIMIT", time_in_force=force, price=price, quantity=quantity, **fields)


class Mirror:
    """A book rebuilt from depth events alone."""

    def __init__(self, engine, symbol):
        self.engine, self.symbol = engine, symbol
        view = engine.depth(symbol, 5000)
        self.last_id, self.bids, self.asks = view.last_update_id, dict(view.bids), dict(view.asks)

    def apply(self, events):
        """Apply what happened; every event must follow the one before it without a gap."""
        for event in events:
            if not isinstance(event, DepthEvent) or event.symbol != self.symbol:
                continue
            assert event.first_id == self.last_id + 1, (event, self.last_id)
            assert event.last_id >= event.first_id
            self.last_id = event.last_id
            for side, changes in ((self.bids, event.bids), (self.asks, event.asks)):
                for price, quantity in changes:
                    if quantity:
                        side[price] = quantity
                    else:
                        side.pop(price, None)

    def check(self):
        """Compare with the engine's own book."""
        view = self.engine.depth(self.symbol, 5000)
        assert view.last_update_id == self.last_id
        assert view.bids == sorted(self.bids.items(), reverse=True)
        assert view.asks == sorted(self.asks.items())
