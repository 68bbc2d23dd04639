"""Questions about orders, fills, trades and the book."""

from __future__ import annotations

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.engine import Engine
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, changed, limit, market, order

SECOND = 1_000_000


def busy():
    """Fill ten orders of account 1, a second apart."""
    engine = market()
    for number in range(10):
        now_us = START_US + number * SECOND
        engine.place(2, limit("SELL", 100 + number, 5), now_us)
        engine.place(1, limit("BUY", 100 + number, 5, client_id=f"c{number}"), now_us)
    return engine


def test_an_order_by_either_id_and_by_both():
    engine = busy()
    assert engine.order(1, PLAIN.name, order_id=4) == engine.order(1, PLAIN.name, client_id="c1")
    assert engine.order(1, PLAIN.name, order_id=4, client_id="c1").order_id == 4
    assert engine.order(1, PLAIN.name, order_id=6, client_id="c1") == (
        -2039,
        "Client order id does not match the order id.",
    )
    assert engine.order(1, PLAIN.name, order_id=6, client_id="none").code == -2013
    assert engine.order(1, PLAIN.name, order_id=99) == (-2013, "Order does not exist.")
    assert engine.order(1, PLAIN.name, order_id=1).code == -2013, "somebody else's"
    assert engine.order(1, PLAIN.name).code == -1102
    assert engine.order(1, "NOTHING", order_id=1).code == -1121


def test_all_orders_from_an_id_in_a_time_or_the_last():
    engine = busy()

    def ids(**chosen):
        return [one.order_id for one in engine.all_orders(1, PLAIN.name, **chosen)]

    assert ids() == list(range(2, 21, 2))
    assert ids(limit=3) == [16, 18, 20]
    assert ids(order_id=7, limit=3) == [8, 10, 12]
    times = {"start_us": START_US + 2 * SECOND, "end_us": START_US + 4 * SECOND}
    assert ids(**times) == [6, 8, 10]
    assert ids(**times, limit=2) == [6, 8]


def test_my_trades_and_the_markets():
    engine = busy()

    def ids(account=1, **chosen):
        return [one.trade_id for one in engine.my_trades(account, PLAIN.name, **chosen)]

    assert ids() == ids(2) == list(range(1, 11))
    assert ids(limit=2) == [9, 10]
    assert ids(from_id=3, limit=2) == [3, 4]
    assert ids(order_id=8) == [4]
    assert ids(start_us=START_US + 8 * SECOND) == [9, 10]
    assert ids(end_us=START_US) == [1]
    assert [one.trade_id for one in engine.trades(PLAIN.name, limit=3)] == [8, 9, 10]
    assert [one.price for one in engine.trades(PLAIN.name, from_id=2, limit=2)] == [101, 102]
    assert engine.last_price(PLAIN.name) == 109


def test_rings_keep_the_last():
    engine = Engine([PLAIN], seed=1, orders_kept=8)
    for _ in range(2):
        engine.open_account({"BTC": 10**14, "USDT": 10**14})
    for _ in range(10):
        engine.place(1, limit("SELL", 100, 1), START_US)
        engine.place(2, order("BUY", "MARKET", quantity=1), START_US)
    assert [one.trade_id for one in engine.my_trades(1, PLAIN.name)] == [7, 8, 9, 10]
    assert engine.exchange.words[s.FILLS] == 20


def test_the_book_best_first_and_no_more_than_asked():
    engine = market()
    for price in (100, 102, 101):
        engine.place(1, limit("BUY", price, price), START_US)
        engine.place(2, limit("SELL", price + 10, price), START_US)
    view = engine.depth(PLAIN.name, 2)
    assert view.bids == [(102, 102), (101, 101)]
    assert view.asks == [(110, 100), (111, 101)]
    assert len(engine.depth(PLAIN.name, 10**9).bids) == 3


def test_open_orders_of_one_symbol_or_of_all():
    engine = Engine([PLAIN, changed(PLAIN, name="ETHUSDT", base="ETH")], seed=1)
    engine.open_account(dict.fromkeys(engine.assets, 10**12))
    for symbol in ("ETHUSDT", "BTCUSDT"):
        engine.place(1, limit("BUY", 100, 1, symbol=symbol), START_US)
    assert [one.symbol for one in engine.open_orders(1)] == ["ETHUSDT", "BTCUSDT"]
    assert [one.symbol for one in engine.open_orders(1, "BTCUSDT")] == ["BTCUSDT"]
