"""A capture as the background of the market."""

from __future__ import annotations

import contextlib
import json
import random
import re

import pytest

from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.types import OrderEvent, TradeEvent
from shrivenq.stages.capture import CaptureError
from shrivenq.stages.order_flow import Config
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, Mirror, changed, limit

SYMBOL = changed(PLAIN, price_max=16_000_000, quantity_decimals=8)
BEGIN_NS = 1_723_161_000_000_000_000


def line(seconds, payload):
    return f"{BEGIN_NS + int(seconds * 1e9)} {json.dumps(payload, separators=(',', ':'))}\n"


def depth(seconds, first, last, bids=(), asks=()):
    data = {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", "U": first, "u": last}
    data |= {"b": [list(one) for one in bids], "a": [list(one) for one in asks]}
    return line(seconds, {"stream": "btcusdt@depth@100ms", "data": data})


def trade(seconds, number, price, quantity, *, buyer_is_maker):
    data = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": number, "p": price, "q": quantity, "T": 1}
    data |= {"m": buyer_is_maker, "M": True}
    return line(seconds, {"stream": "btcusdt@trade", "data": data})


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "capture.txt"
    path.write_text(
        depth(0, 90, 99, bids=[("99.00", "7.0")])
        + depth(0.1, 100, 105, bids=[("98.00", "1.00000001")])
        + line(0.2, {"lastUpdateId": 100, "bids": [["100.00", "2.0"]], "asks": [["101.00", "3.0"]]})
        + depth(1, 106, 107, bids=[("99.50", "4.0")])
        + "1723161001500000000 what is this\n"
        + trade(2, 1, "100.00", "2.5", buyer_is_maker=True)
        + depth(2.1, 108, 109, bids=[("100.00", "0.0")], asks=[("101.00", "1.0")])
    )
    made = Engine([SYMBOL], seed=1, capture=path)
    made.open_account({"BTC": 10**12, "USDT": 10**15})
    return made


def test_it_begins_with_the_snapshot_and_what_came_before_it(engine):
    view = engine.depth("BTCUSDT")
    assert view.bids == [(10_000, 2 * 10**8), (9_800, 10**8 + 1)]
    assert view.asks == [(10_100, 3 * 10**8)]


def test_it_goes_on_at_its_own_pace_and_our_order_waits_its_turn(engine):
    engine.advance(START_US)
    mirror = Mirror(engine, "BTCUSDT")
    engine.take_events()
    number = engine.place(1, limit("BUY", 10_000, 10**8), START_US).order.order_id
    engine.advance(START_US + 999_999)
    assert engine.order(1, "BTCUSDT", order_id=number).executed == 0
    engine.advance(START_US + 1_000_000)
    events = engine.take_events()
    assert [one.quantity for one in events if isinstance(one, TradeEvent)] == [2 * 10**8, 10**8 // 2]
    assert engine.order(1, "BTCUSDT", order_id=number).executed == 10**8 // 2
    (fill,) = [one for one in events if isinstance(one, OrderEvent) and one.fill]
    assert fill.time_us == START_US + 1_000_000
    engine.advance(START_US + 60_000_000)
    events += engine.take_events()
    mirror.apply(events)
    mirror.check()
    assert engine.depth("BTCUSDT").bids[0] == (10_000, 10**8 // 2), "ours alone"
    assert engine.depth("BTCUSDT").asks == [(10_100, 10**8)]
    assert engine.capture.skipped == 1


def made(tmp_path, *events):
    """Open a market of a capture whose first snapshot has bids from 100 down and the id 110."""
    path = tmp_path / "capture.txt"
    bids = [["100.00", "2.0"], ["99.00", "2.0"]]
    snapshot = {"lastUpdateId": 110, "bids": bids, "asks": [["101.00", "3.0"]]}
    path.write_text(line(0, snapshot) + "".join(events))
    engine = Engine([SYMBOL], seed=1, capture=path)
    engine.open_account({"BTC": 10**12, "USDT": 10**15})
    engine.advance(START_US)
    engine.advance(START_US + 60_000_000)
    return engine


def test_what_is_older_than_the_book_is_left_out(tmp_path):
    old = line(3, {"lastUpdateId": 111, "bids": [["42.00", "1.0"]], "asks": []})
    engine = made(
        tmp_path,
        depth(1, 100, 105, bids=[("100.00", "0.0")]),
        depth(2, 109, 112, bids=[("99.00", "1.0")]),
        old,
        depth(4, 113, 113, bids=[("98.00", "5.0")]),
    )
    assert engine.depth("BTCUSDT").bids == [(10_000, 2 * 10**8), (9_900, 10**8), (9_800, 5 * 10**8)]
    assert engine.capture.gaps == 0


def test_where_events_are_missing_the_market_leaves_until_the_next_snapshot(tmp_path):
    missing = depth(1, 112, 115, bids=[("100.00", "9.0")]), depth(2, 116, 117, bids=[("98.00", "1.0")])
    engine = made(tmp_path, *missing)
    assert (engine.depth("BTCUSDT").bids, engine.depth("BTCUSDT").asks) == ([], [])
    again = line(3, {"lastUpdateId": 115, "bids": [["97.00", "4.0"]], "asks": []})
    engine = made(tmp_path, *missing, again)
    assert engine.depth("BTCUSDT").bids == [(9_800, 10**8), (9_700, 4 * 10**8)]
    assert engine.capture.gaps == 1


def test_a_halted_symbol_stands_still(engine):
    engine.advance(START_US)
    engine.set_status("BTCUSDT", "HALT")
    before = engine.depth("BTCUSDT")
    engine.advance(START_US + 60_000_000)
    assert engine.depth("BTCUSDT") == before


def test_a_symbol_that_was_halted_goes_on_where_the_capture_is(tmp_path):
    path = tmp_path / "capture.txt"
    path.write_text(
        line(0, {"lastUpdateId": 110, "bids": [["100.00", "2.0"]], "asks": []})
        + depth(1, 111, 111, bids=[("99.00", "1.0")])
        + depth(2, 112, 112, bids=[("98.00", "1.0")])
        + trade(3, 1, "100.00", "1.0", buyer_is_maker=True)
        + depth(4, 113, 113, bids=[("97.00", "1.0")])
    )
    engine = Engine([SYMBOL], seed=1, capture=path)
    engine.advance(START_US)
    engine.set_status("BTCUSDT", "HALT")
    engine.advance(START_US + 2_500_000)
    engine.set_status("BTCUSDT", "TRADING")
    engine.take_events()
    engine.advance(START_US + 60_000_000)
    assert [price for price, _ in engine.depth("BTCUSDT").bids] == [10_000, 9_900, 9_800, 9_700]
    assert not [one for one in engine.take_events() if isinstance(one, TradeEvent)]


def test_what_cannot_be(tmp_path):
    with pytest.raises(CaptureError, match="no such file"):
        Engine([SYMBOL], seed=1, capture=tmp_path / "none")
    path = tmp_path / "capture.txt"
    path.write_text(depth(0, 1, 2))
    with pytest.raises(ValueError, match="expected one or the other"):
        Engine([SYMBOL], seed=1, capture=path, flow=Config())
    with pytest.raises(ValueError, match="more than 8 decimals"):
        Engine([changed(SYMBOL, price_decimals=9)], seed=1, capture=path)


PIECES = ("9" * 17, "0", "-1", "1e9", "\n", '"', "]", "{}", "0.00000001", "9999999999.99999999", "101.00", "\xff")


def mutate(rng, text):
    """Change a capture in one to six places: bytes gone, other numbers, lines out of order."""
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(text))
        numbers = list(re.finditer(r'"[0-9.]+"', text))
        what = rng.randrange(4)
        if what == 0:
            text = text[:at] + text[at + rng.randint(1, 30) :]
        elif what == 1:
            text = text[:at] + rng.choice(PIECES) + text[at + rng.choice((0, 4)) :]
        elif what == 2:
            text = "".join(rng.sample(lines := text.splitlines(keepends=True), len(lines)))
        elif numbers:
            one = rng.choice(numbers)
            text = f'{text[: one.start()]}"{rng.choice(PIECES)}"{text[one.end() :]}'
    return text


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_a_damaged_capture_is_a_market_all_the_same_or_refused(tmp_path, first):
    text = line(0, {"lastUpdateId": 100, "bids": [["100.00", "2.0"]], "asks": [["101.00", "3.0"]]})
    for number in range(1, 10):
        price, other = f"{95 + number % 5}.00", f"{101 + number % 4}.00"
        text += depth(number / 5, 100 + number, 100 + number, [(price, f"{number}.5")], [(other, f"{10 - number}.25")])
        text += trade(number / 5 + 0.1, number, "100.00", "0.5", buyer_is_maker=bool(number % 2))
    path, symbol = tmp_path / "capture.txt", changed(SYMBOL, price_max=20_000)
    for seed in range(first, first + 20):
        path.write_bytes(mutate(random.Random(seed), text).encode("latin-1"))
        with contextlib.suppress(CaptureError):
            engine = Engine([symbol], seed=1, capture=path)
            accounts = [engine.open_account({"BTC": 10**12, "USDT": 10**15}) for _ in range(2)]
            for step in range(6):
                engine.advance(START_US + step * 400_000)
                for account, side, price in zip(accounts, ("BUY", "SELL"), (10_000, 10_100), strict=True):
                    assert engine.place(account, limit(side, price, 10**7), START_US + step * 400_000).error is None
                engine.take_events()
            amounts = [one for account in accounts for pair in engine.balances(account).values() for one in pair]
            assert min(amounts) >= 0, f"seed {seed}"


@pytest.mark.slow
def test_without_accounts_the_book_at_the_end_is_the_captures_own(data):
    engine = Engine([SYMBOL], seed=1, capture=data / "binance" / "spot")
    engine.advance(START_US)
    mirror = Mirror(engine, "BTCUSDT")
    engine.take_events()
    for minute in range(1, 60):
        engine.advance(START_US + minute * 60_000_000)
        mirror.apply(engine.take_events())
        mirror.check()
    view = engine.depth("BTCUSDT", 5_000)
    # The data folder's own account of the book at the end; one of 2,962 asks, at 200,000, is beyond price_max.
    assert (view.bids[0][0], view.asks[0][0]) == (6_160_201, 6_160_202)
    assert (len(view.bids), len(view.asks)) == (1_971, 2_961)
    assert engine.capture.skipped == 0
