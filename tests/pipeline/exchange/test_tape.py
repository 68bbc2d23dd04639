"""Aggregates: what one taker took at one price."""

import random

from shrivenq.pipeline.exchange import tape
from shrivenq.pipeline.exchange.tape import Aggregate, Tape, aggregate
from shrivenq.pipeline.exchange.types import BalanceEvent, TradeEvent


def trade(number, price=100, quantity=1, *, symbol="BTCUSDT", maker=True, time_us=1_000):
    return TradeEvent(symbol, number, price, quantity, maker, time_us)


def test_trades_of_one_taker_at_one_price_are_one():
    trades = [
        trade(1),
        trade(2, quantity=5),
        trade(3, price=101),
        trade(4, price=101, maker=False),
        trade(5, time_us=2),
    ]
    assert list(aggregate(trades, 7)) == [
        Aggregate(7, "BTCUSDT", 100, 6, 1, 2, 1_000, True),
        Aggregate(8, "BTCUSDT", 101, 1, 3, 3, 1_000, True),
        Aggregate(9, "BTCUSDT", 101, 1, 4, 4, 1_000, False),
        Aggregate(10, "BTCUSDT", 100, 1, 5, 5, 2, True),
    ]
    assert list(aggregate([], 1)) == []


def test_nothing_is_lost_and_ids_follow_one_another():
    for seed in range(30):
        dice = random.Random(seed)
        kept, number, everything = Tape(), {"A": 0, "B": 0}, []
        for _ in range(20):
            events = [BalanceEvent(1, (), 0)]
            for _ in range(dice.randrange(6)):
                symbol = dice.choice("AB")
                number[symbol] += 1
                events.append(
                    trade(
                        number[symbol], dice.randrange(3), dice.randrange(9), symbol=symbol, maker=dice.random() < 0.5
                    )
                )
            everything += events[1:]
            kept.take(events)
            assert sum(one.quantity for one in kept.fresh) == sum(one.quantity for one in events[1:]), f"seed {seed}"
        for symbol in "AB":
            found = kept.aggregates(symbol, 1_000)
            assert [one.aggregate_id for one in found] == list(range(1, len(found) + 1)), f"seed {seed}"
            covered = [number for one in found for number in range(one.first_id, one.last_id + 1)]
            assert covered == list(range(1, number[symbol] + 1)), f"seed {seed}"
            for one in found:
                trades = [t for t in everything if t.symbol == symbol and one.first_id <= t.trade_id <= one.last_id]
                assert {t.price for t in trades} == {one.price}, f"seed {seed}"
                assert sum(t.quantity for t in trades) == one.quantity, f"seed {seed}"


def test_aggregates_are_chosen_by_id_by_time_or_as_the_latest():
    kept = Tape()
    kept.take([trade(number, price=number, time_us=number * 10) for number in range(1, 11)])

    def ids(*args, **chosen):
        return [one.aggregate_id for one in kept.aggregates("BTCUSDT", *args, **chosen)]

    assert ids(3) == [8, 9, 10]
    assert ids(3, from_id=2) == [2, 3, 4]
    assert ids(9, start_us=70, end_us=90) == [7, 8, 9]
    assert ids(2, start_us=20) == [2, 3]
    assert kept.aggregates("NOSUCH", 5) == []


def test_old_ones_are_forgotten(monkeypatch):
    monkeypatch.setattr(tape, "AGGREGATES_KEPT", 5)
    kept = Tape()
    kept.take([trade(number, price=number) for number in range(1, 11)])
    kept.take([trade(11, price=11)])
    assert [one.aggregate_id for one in kept.aggregates("BTCUSDT", 100)] == [7, 8, 9, 10, 11]
