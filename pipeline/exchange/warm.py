"""Warm: every kernel of the engine compiled, or loaded from the cache, before the first client asks for anything.

The server has one loop. A kernel that is compiled when the first order comes would hold up everybody for seconds.
"""

from __future__ import annotations

import functools

from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.types import NewOrder, Symbol
from shrivenq.stages import order_flow

NOW_US = 1_700_000_000_000_000
SYMBOL = Symbol(
    name="WARMUP", base="WARM", quote="UP", price_decimals=2, quantity_decimals=8, tick=1, price_max=1_000_00, step=1
)
MONEY = 10**15


@functools.cache
def warm() -> None:
    """Run every command once, in a market that is thrown away."""
    engine = Engine([SYMBOL], seed=1, flow=order_flow.Config(price={SYMBOL.name: "600"}), orders_kept=1 << 10)
    engine.advance(NOW_US)
    engine.advance(NOW_US + 100_000)
    account = engine.open_account({"WARM": MONEY, "UP": MONEY})
    limit = NewOrder(
        symbol=SYMBOL.name, side="BUY", type="LIMIT", time_in_force="GTC", price=500_00, quantity=10**8, client_id="a"
    )
    engine.test(account, limit, NOW_US)
    engine.place(account, limit, NOW_US)
    engine.amend(account, SYMBOL.name, NOW_US, new_quantity=5 * 10**7, client_id="a", new_client_id="b")
    engine.cancel_replace(account, limit, NOW_US, mode="ALLOW_FAILURE", cancel_client_id="b")
    engine.cancel(account, SYMBOL.name, NOW_US, client_id="a")
    for side in ("BUY", "SELL"):
        engine.place(account, NewOrder(symbol=SYMBOL.name, side=side, type="MARKET", quantity=10**8), NOW_US)
    stop = NewOrder(symbol=SYMBOL.name, side="SELL", type="STOP_LOSS", quantity=10**8, stop_price=100_00)
    engine.place(account, stop, NOW_US)
    above = NewOrder(symbol=SYMBOL.name, side="SELL", type="LIMIT_MAKER", quantity=10**8, price=999_00)
    engine.place_list(account, "OCO", [above, stop], NOW_US)
    engine.place_list(account, "OTOCO", [limit, above, stop], NOW_US)
    engine.cancel_all(account, SYMBOL.name, NOW_US)
    engine.advance(NOW_US + 200_000)
    engine.take_events()
    engine.my_trades(account, SYMBOL.name)
    engine.all_orders(account, SYMBOL.name)
    engine.trades(SYMBOL.name)
    engine.depth(SYMBOL.name)
    engine.average_price(SYMBOL.name)
