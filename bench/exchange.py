"""The exchange simulator's matching engine: commands a second, without a network.

A compiled client gives random commands of eight accounts in two symbols to the engine's kernels: of a hundred 50 are
limit orders around the middle, 8 market orders, 2 stop orders, 36 cancel and 4 amend an order given before. Each goes
through what a client's command goes through: filters, balances, self-trade prevention, matching, fees, reports, the
stop orders it triggers, and the list of levels it changed. Not in it: Python's names and views of what happened.
The figure is the median of several rounds.
"""

from __future__ import annotations

import time

import numpy as np
from report import Report, interleaved

from shrivenq.pipeline.exchange import commands, reports
from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.types import Symbol
from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import BUY, GTC, LIMIT, MARKET, SELL
from shrivenq.stages.order_flow import random_bits

ROUNDS = 7
COMMANDS = 1_000_000
ACCOUNTS = 8
MIDDLE = 50_000  # ticks


@kernel
def fill_request(exchange, random, roll):
    order = exchange.requests[0]
    order["account"] = 1 + random_bits(random) % ACCOUNTS
    order["symbol"] = random_bits(random) & 1
    order["side"] = BUY if random_bits(random) & 1 else SELL
    order["type"] = LIMIT if roll < 50 else MARKET if roll < 58 else s.STOP_LOSS_LIMIT
    order["time_in_force"] = GTC
    order["stp"] = s.EXPIRE_MAKER
    order["quantity"] = 1 + random_bits(random) % 100_000
    order["price"] = order["stop_price"] = order["quote_quantity"] = 0
    # Buyers mostly below the middle, sellers above it: one in eight crosses.
    away = random_bits(random) % 200 - 25
    price = MIDDLE - away if order["side"] == BUY else MIDDLE + away
    if order["type"] != MARKET:
        order["price"] = price
    if order["type"] == s.STOP_LOSS_LIMIT:
        order["stop_price"] = MIDDLE + 20 if order["side"] == BUY else MIDDLE - 20
    order["strategy_id"] = order["strategy_type"] = s.MISSING


@kernel
def drive(exchange, random, count):
    """Give `count` commands; return how many were done."""
    words = exchange.words
    done = 0
    for _ in range(count):
        words[s.NOW_US] += 1
        roll = random_bits(random) % 100
        if roll < 60:
            fill_request(exchange, random, roll)
            symbol = exchange.requests[0]["symbol"]
            code = commands.place(exchange)
        else:
            given = min(words[s.QUEUE_HEAD] + 1, exchange.orders.shape[0])
            order = exchange.orders[random_bits(random) % given]
            symbol = order["symbol"]
            if roll < 96:
                code = commands.cancel(exchange, order["account"], symbol, order["order_id"], commands.ANY)
            else:
                half = order["quantity"] // 2
                code = commands.amend(exchange, order["account"], symbol, order["order_id"], half)
        commands.settle_down(exchange, symbol)
        reports.collect(exchange, symbol)
        words[s.EVENTS] = 0
        done += 1 if code == 0 else 0
    return done


def market():
    """Open two symbols with every kind of filter on, and accounts with plenty."""
    both = [
        Symbol(
            name=base + "USDT", base=base, quote="USDT", price_decimals=2, quantity_decimals=5, tick=1, step=1,
            price_max=1_000_000, quantity_max=10**9, notional_min=1, orders_max=1_000, algo_orders_max=50,
            bid_percent_up=500_000_000, bid_percent_down=20_000_000, ask_percent_up=500_000_000,
            ask_percent_down=20_000_000, range_bid_up=200_000_000, range_ask_down=50_000_000, has_reference=True,
            maker_fee=100_000, taker_fee=100_000,
        )
        for base in ("BTC", "ETH")
    ]  # fmt: skip
    engine = Engine(both, seed=1, orders_kept=1 << 13)
    for _ in range(ACCOUNTS):
        engine.open_account(dict.fromkeys(engine.assets, 10**17))
    return engine.exchange


def timed(exchange, random):
    begun = time.perf_counter_ns()
    done = drive(exchange, random, COMMANDS)
    spent = time.perf_counter_ns() - begun
    assert done > COMMANDS // 2
    return {"commands": COMMANDS * 1e9 / spent}


def main():
    report = Report("exchange")
    exchange, random = market(), np.array([1, 2, 3, 4], np.int64)
    drive(exchange, random, 20_000)
    found = interleaved(ROUNDS, {"engine": lambda: timed(exchange, random)})
    report.row("engine", "commands", "1/s", found["engine"]["commands"])


if __name__ == "__main__":
    main()
