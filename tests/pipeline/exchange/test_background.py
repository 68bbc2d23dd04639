"""The synthetic flow in the books of the accounts."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.types import OrderEvent, TradeEvent
from shrivenq.stages.order_flow import Config
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, Mirror, changed, limit, order

SECOND = 1_000_000
CONFIG = Config(resting_orders=400, events_per_s=1_000)
TWO = [
    changed(PLAIN, price_max=20_000_000, taker_fee=100_000, iceberg_parts_max=100),
    changed(PLAIN, name="ETHUSDT", base="ETH"),
]


def flowing(seed=3, symbols=TWO):
    engine = Engine(symbols, seed=seed, flow=CONFIG)
    engine.open_account(dict.fromkeys(engine.assets, 10**15))
    engine.advance(START_US)
    return engine


def totals(engine):
    balances = engine.exchange.balances
    return (balances["free"].sum(0) + balances["locked"].sum(0) + engine.exchange.fees).tolist()


@pytest.mark.parametrize("name", [one.name for one in TWO])
def test_the_book_is_full_from_the_start_and_depth_events_follow_it(name):
    engine = flowing()
    mirror = Mirror(engine, name)
    assert min(len(mirror.bids), len(mirror.asks)) > 20
    engine.take_events()
    for step in range(1, 40):
        engine.advance(START_US + step * SECOND // 20)
        mirror.apply(engine.take_events())
        mirror.check()
    assert mirror.last_id > 1_000


def test_accounts_trade_with_the_flow_both_ways():
    engine = flowing()
    before = totals(engine)
    ticker = engine.book_ticker("BTCUSDT")
    taken = engine.place(1, order("BUY", "MARKET", quantity=ticker.ask_quantity + 1), START_US).order
    assert taken.status == "FILLED"
    hidden = limit("BUY", engine.book_ticker("BTCUSDT").bid + 1, 1_000, iceberg_quantity=10)
    engine.place(1, hidden, START_US)
    assert engine.depth("BTCUSDT").bids[0][1] == 10
    engine.take_events()
    for step in range(1, 200):
        engine.advance(START_US + step * SECOND // 10)
        if not engine.open_orders(1):
            break
    fills = [one.fill for one in engine.take_events() if isinstance(one, OrderEvent) and one.fill]
    assert sum(one.quantity for one in fills) == 1_000
    assert {one.is_maker for one in fills} == {True}
    assert max(one.quantity for one in fills) <= 10
    assert engine.balances(1)["BTC"][0] > 10**15
    assert totals(engine) == before
    assert engine.fees()["BTC"] > 0


def test_our_order_waits_its_turn_behind_the_flow():
    engine = flowing()
    ticker = engine.book_ticker("BTCUSDT")
    engine.place(1, limit("SELL", ticker.ask, 1_000), START_US)
    core = engine.exchange.core
    row = int(core.ladders[0]["best_ask"])
    assert core.orders[core.levels[row]["head"]]["owner"] == 0
    assert core.orders[core.levels[row]["tail"]]["owner"] == engine.exchange.orders[0]["order_id"]


def test_the_flow_leaves_the_orders_of_accounts_alone():
    engine = flowing()
    far = engine.place(1, limit("BUY", 100, 1), START_US).order.order_id
    engine.advance(START_US + 5 * SECOND)
    assert engine.order(1, "BTCUSDT", order_id=far).status == "NEW"


def test_stops_trigger_by_the_flows_trades():
    engine = flowing()
    last = next(one.price for one in trades_of(engine))
    engine.place(1, order("SELL", "STOP_LOSS", stop_price=last - 30, quantity=10), START_US + SECOND)
    engine.place(1, order("BUY", "STOP_LOSS", stop_price=last + 30, quantity=10), START_US + SECOND)
    for step in range(2, 200):
        engine.advance(START_US + step * SECOND)
        if len(engine.open_orders(1)) < 2:
            return
    raise AssertionError("the price never moved by 30 ticks")


def trades_of(engine):
    engine.advance(START_US + SECOND)
    return [one for one in engine.take_events() if isinstance(one, TradeEvent) and one.symbol == "BTCUSDT"]


def test_the_same_seed_is_the_same_market_however_time_is_cut():
    coarse, fine = flowing(), flowing()
    coarse.advance(START_US + SECOND)
    for step in range(1, 101):
        fine.advance(START_US + step * SECOND // 100)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert coarse.depth(symbol) == fine.depth(symbol)
        assert coarse.trades(symbol) == fine.trades(symbol)
    assert flowing(seed=4).depth("BTCUSDT") != flowing().depth("BTCUSDT")


def test_a_halted_symbol_stands_still_and_goes_on():
    engine = flowing()
    engine.set_status("BTCUSDT", "HALT")
    before = engine.depth("BTCUSDT"), engine.depth("ETHUSDT")
    engine.advance(START_US + SECOND)
    assert engine.depth("BTCUSDT") == before[0]
    assert engine.depth("ETHUSDT") != before[1]
    engine.set_status("BTCUSDT", "TRADING")
    engine.advance(START_US + 2 * SECOND)
    assert engine.depth("BTCUSDT") != before[0]
    assert engine.trades("BTCUSDT")[0].time_us >= START_US + SECOND


def test_a_market_without_flow_only_passes_time():
    engine = Engine([PLAIN], seed=1)
    engine.advance(START_US)
    assert engine.take_events() == []


def test_a_long_absence_is_made_up_for_in_order():
    engine = flowing(symbols=[TWO[0]])
    mirror = Mirror(engine, "BTCUSDT")
    engine.take_events()
    engine.advance(START_US + 60 * SECOND)
    events = engine.take_events()
    times = [one.time_us for one in events if isinstance(one, TradeEvent)]
    assert times == sorted(times)
    mirror.apply(events)
    mirror.check()


def test_the_flow_meets_one_of_a_pair_and_the_other_expires():
    engine = flowing()
    before = totals(engine)
    bid, ask = engine.book_ticker("BTCUSDT").bid, engine.book_ticker("BTCUSDT").ask
    pair = [
        order("SELL", "LIMIT_MAKER", price=ask, quantity=10),
        order("SELL", "STOP_LOSS", stop_price=bid // 2, quantity=10),
    ]
    numbers = [one.order.order_id for one in engine.place_list(1, "OCO", pair, START_US).orders]
    for step in range(1, 2_000):
        engine.advance(START_US + step * SECOND // 10)
        if not engine.open_lists(1):
            break
    found = [engine.order(1, "BTCUSDT", order_id=one) for one in numbers]
    assert [(one.status, one.expiry_reason) for one in found] == [("FILLED", None), ("EXPIRED", "OCO_TRIGGER")]
    assert engine.balances(1)["BTC"][1] == 0
    assert totals(engine) == before
