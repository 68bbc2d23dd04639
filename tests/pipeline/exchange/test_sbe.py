"""SBE streams say what the JSON streams of the same market say, down to the book that is built from them."""

from __future__ import annotations

import gzip
import json
import random
from decimal import Decimal
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.pipeline.exchange import sbe
from shrivenq.pipeline.exchange.types import BookView, DepthEvent, Symbol, TickerEvent, TradeEvent
from shrivenq.pipeline.recorder import Recording
from shrivenq.stages import book, book_sync, market_data_state
from shrivenq.stages import messages as m
from shrivenq.stages.capture import Capture
from shrivenq.stages.frames import BINARY, TEXT
from shrivenq.stages.venues import binance, binance_sbe
from shrivenq.stages.venues.binance import EVENT_MAX, PADDING
from shrivenq.stages.venues.binance_slow import decode_slow
from shrivenq.stages.venues.binance_symbols import make_symbols
from tests.stages.book_rig import instruments_of, make_rig, send
from tests.stages.market_rig import Rig, check_stream, joined, without_stamps
from tests.stages.venues.sbe_frames import EVENT_US, TRANSACT_US, VECTORS
from tests.stages.venues.test_binance_sbe import check, mutate

SYMBOL = Symbol(name="BTCUSDT", base="BTC", quote="USDT", price_decimals=2, quantity_decimals=8, tick=1, step=1000)
COARSE = Symbol(name="BTCUSDT", base="BTC", quote="USDT", price_decimals=2, quantity_decimals=5, tick=1, step=1)
INSTRUMENTS = instruments_of("spot")
CONTEXT = (make_symbols(INSTRUMENTS), INSTRUMENTS)
TARGET = np.zeros(EVENT_MAX, m.TICK)


def decoded(decode, frame):
    data = np.frombuffer(frame + bytes(PADDING), np.uint8)
    count = decode(data, 0, len(frame), *CONTEXT, TARGET, 5, 7)
    assert count, frame
    return TARGET[:count].copy()


def from_sbe(frame):
    return decoded(binance_sbe.decode, frame)


def from_json(message):
    count = decode_slow(json.dumps(message).encode(), *CONTEXT, TARGET, 5, 7)
    return TARGET[:count].copy()


def text(value, decimals):
    return f"{Decimal(value).scaleb(-decimals):f}"


def levels(rows):
    return [[text(price, 2), text(quantity, 8)] for price, quantity in rows]


def json_trade(event, event_us):
    price, quantity = text(event.price, 2), text(event.quantity, 8)
    return {
        "e": "trade", "E": event_us // 1000, "s": event.symbol, "t": event.trade_id, "p": price, "q": quantity,
        "T": event.time_us // 1000, "m": event.buyer_is_maker, "M": True,
    }  # fmt: skip


def json_ticker(event):
    return {
        "u": event.update_id, "s": event.symbol, "b": text(event.bid, 2), "B": text(event.bid_quantity, 8),
        "a": text(event.ask, 2), "A": text(event.ask_quantity, 8),
    }  # fmt: skip


def json_depth(event, event_us):
    return {
        "e": "depthUpdate", "E": event_us // 1000, "s": event.symbol, "U": event.first_id, "u": event.last_id,
        "b": levels(event.bids), "a": levels(event.asks),
    }  # fmt: skip


def json_snapshot(view):
    return {"lastUpdateId": view.last_update_id, "bids": levels(view.bids), "asks": levels(view.asks)}


def test_the_encoder_writes_the_vectors_of_the_protocol_sheet():
    trades = [
        TradeEvent("BTCUSDT", 5_000_001, 9_500_012, 150_000, True, TRANSACT_US),
        TradeEvent("BTCUSDT", 5_000_002, 9_500_013, 2_500, False, TRANSACT_US),
    ]
    ticker = TickerEvent("BTCUSDT", 77_000_000_001, 9_500_012, 150_000, 9_500_013, 2_500, TRANSACT_US)
    view = BookView(77_000_000_001, [(9_500_012, 150_000)], [(9_500_013, 2_500)])
    diff = DepthEvent("BTCUSDT", 77_000_000_002, 77_000_000_005, ((9_500_012, 0), (9_500_011, 7_000)), (), TRANSACT_US)
    assert sbe.trades(COARSE, trades, EVENT_US) == VECTORS["trades"]
    assert sbe.best_bid_ask(COARSE, ticker, EVENT_US) == VECTORS["best"]
    assert sbe.depth20(COARSE, view, EVENT_US) == VECTORS["depth20"]
    assert sbe.depth(COARSE, diff, EVENT_US) == VECTORS["depth"]


PRICE, QUANTITY = st.integers(1, 10**14), st.integers(1, 10**15)
ID = st.integers(0, 10**15)
US = st.integers(0, 2 * 10**12).map(lambda ms: ms * 1000)
LEVELS = st.lists(st.tuples(PRICE, QUANTITY | st.just(0)), max_size=30)


@settings(deadline=None)
@given(st.lists(st.tuples(ID, PRICE, QUANTITY, st.booleans()), min_size=1, max_size=9), US, US)
def test_trades_in_sbe_are_the_trades_in_json(rows, time_us, event_us):
    events = [TradeEvent("BTCUSDT", *row, time_us) for row in rows]
    found = from_sbe(sbe.trades(SYMBOL, events, event_us))
    assert len(found) == len(rows) + 1
    for event, record in zip(events, found, strict=False):
        assert record == from_json(json_trade(event, event_us))[0]
    assert (found[-1]["kind"], found[-1]["count"]) == (m.END, len(rows))


@settings(deadline=None)
@given(ID, st.tuples(PRICE, QUANTITY) | st.just((0, 0)), st.tuples(PRICE, QUANTITY) | st.just((0, 0)), US)
def test_a_best_bid_and_ask_in_sbe_is_the_one_in_json_with_a_time(update_id, bid, ask, event_us):
    event = TickerEvent("BTCUSDT", update_id, *bid, *ask, event_us)
    found, expected = from_sbe(sbe.best_bid_ask(SYMBOL, event, event_us)), from_json(json_ticker(event))
    assert found["venue_ns"].tolist() == [event_us * 1000, event_us * 1000, 0]
    found["venue_ns"] = 0
    assert found.tobytes() == expected.tobytes()


@settings(deadline=None)
@given(ID, ID, LEVELS, LEVELS, US)
def test_a_depth_update_in_sbe_is_the_one_in_json(first_id, more, bids, asks, event_us):
    event = DepthEvent("BTCUSDT", first_id, first_id + more, tuple(bids), tuple(asks), event_us)
    found = from_sbe(sbe.depth(SYMBOL, event, event_us))
    assert found.tobytes() == from_json(json_depth(event, event_us)).tobytes()


@settings(deadline=None)
@given(ID, LEVELS, LEVELS, US)
def test_partial_depth_in_sbe_is_the_one_in_json_with_a_time(last_id, bids, asks, event_us):
    found = from_sbe(sbe.depth20(SYMBOL, BookView(last_id, bids, asks), event_us))
    expected = from_json(json_snapshot(BookView(last_id, bids[:20], asks[:20])))
    assert found[0]["venue_ns"] == event_us * 1000
    found[0]["venue_ns"] = 0
    assert found.tobytes() == expected.tobytes()


def books_of(events):
    """What the book stage publishes of these events, from a fresh start."""
    rig = make_rig(INSTRUMENTS, book.Config(window_ticks=16_384, far_levels=8_192))
    found = [send(rig, event) for event in events]
    assert rig.state()["status"] == book_sync.LIVE
    return rig, [np.concatenate(outs) for outs in zip(*found, strict=True)]


def same_books(text_events, binary_events):
    """Check that both streams make the same of `book`, `touch` and `fill_feed`; return the stage's rig."""
    rig, expected = books_of(text_events)
    _, found = books_of(binary_events)
    for one, other in zip(expected, found, strict=True):
        assert len(one) == len(other)
        for name in one.dtype.names:
            if name not in ("venue_ns", "book_ns"):  # the venue's time stands in more of the binary ones
                assert np.array_equal(one[name], other[name]), name
    return rig


def random_market(seed, count):
    """A market's events: a full book, then diffs, tickers and trades of it."""
    rng = random.Random(seed)
    sides = [{1000 - i: rng.randrange(1, 99) for i in range(60)}, {1001 + i: rng.randrange(1, 99) for i in range(60)}]
    last_id = 100

    def best():
        bid, ask = max(sides[0], default=0), min(sides[1], default=0)
        return bid, sides[0].get(bid, 0), ask, sides[1].get(ask, 0)

    def view():
        bids, asks = sorted(sides[0].items(), reverse=True), sorted(sides[1].items())
        return BookView(last_id, bids, asks)

    yield view()
    for number in range(count):
        time_us = 1_770_000_000_000_000 + 20_000 * number
        bid, _, ask, _ = best()
        way = rng.randrange(4)
        if way == 0:
            yield [TradeEvent("BTCUSDT", number * 10 + i, bid, 5, True, time_us) for i in range(rng.randrange(1, 4))]
        elif way == 1:
            yield TickerEvent("BTCUSDT", last_id, *best(), time_us)
        else:
            changed = ([], [])
            for side in range(2):
                # Around the other side's best, but never through it.
                low, high = (bid - 20, ask - 1) if side == 0 else (bid + 1, ask + 20)
                for price in rng.sample(range(max(low, 1), high + 1), rng.randrange(4)):
                    quantity = rng.choice((0, rng.randrange(1, 99)))
                    changed[side].append((price, quantity))
            first_id, last_id = last_id + 1, last_id + rng.randrange(1, 9)
            for levels_of, rows in zip(sides, changed, strict=True):
                levels_of.update(rows)
                for price in [price for price, quantity in levels_of.items() if not quantity]:
                    del levels_of[price]
            if not all(sides) or max(sides[0]) >= min(sides[1]):
                return
            yield DepthEvent("BTCUSDT", first_id, last_id, tuple(changed[0]), tuple(changed[1]), time_us)


def in_both(event):
    """One event as TICKs, from JSON and from SBE: as many events where JSON says one by one what SBE says at once."""
    if isinstance(event, BookView):  # the snapshot comes over REST, JSON for both
        return [from_json(json_snapshot(event))], [from_json(json_snapshot(event))]
    if isinstance(event, TickerEvent):
        return [from_json(json_ticker(event))], [from_sbe(sbe.best_bid_ask(SYMBOL, event, event.time_us))]
    if isinstance(event, DepthEvent):
        time_us = event.time_us
        return [from_json(json_depth(event, time_us))], [from_sbe(sbe.depth(SYMBOL, event, time_us))]
    time_us = event[0].time_us
    return [from_json(json_trade(one, time_us)) for one in event], [from_sbe(sbe.trades(SYMBOL, event, time_us))]


@pytest.mark.parametrize("seed", range(6))
def test_sbe_and_json_of_one_market_build_the_same_book(seed):
    text_events, binary_events = [], []
    diffs = 0
    for event in random_market(seed, 400):
        in_text, in_binary = in_both(event)
        diffs += isinstance(event, DepthEvent)
        if isinstance(event, list) and len(event) > 1:
            records = [np.concatenate([one[:-1] for one in events]) for events in (in_text, in_binary)]
            assert records[0].tobytes() == records[1].tobytes()
            in_text = in_binary  # that several trades are one event is all the difference there is
        text_events += in_text
        binary_events += in_binary
    rig = same_books(text_events, binary_events)
    assert rig.state()["gaps"] == rig.state()["crossed"] == 0, f"seed {seed}"
    assert rig.state()["events"] == diffs, f"seed {seed}"


def test_trades_of_one_message_reach_the_strategy_one_by_one():
    events = [TradeEvent("BTCUSDT", 7 + i, 100 + i, 5, i % 2 == 0, EVENT_US) for i in range(5)]
    rig = make_rig(INSTRUMENTS)
    found, touches, feed = send(rig, from_sbe(sbe.trades(SYMBOL, events, EVENT_US)))
    assert found["kind"].tolist() == [m.TRADE] * 5
    assert found["trade_id"].tolist() == [7, 8, 9, 10, 11]
    assert found["price"].tolist() == [100, 101, 102, 103, 104]
    assert (found["flags"] != 0).tolist() == [True, False, True, False, True]
    assert len(touches) == 0
    assert feed["kind"].tolist() == [*[m.TRADE] * 5, m.END]


def captured(data):
    """The spot captures, each frame as JSON text and what it says as an event of the simulator."""

    def scaled(rows):
        return tuple((int(Decimal(row[0]).scaleb(2)), int(Decimal(row[1]).scaleb(8))) for row in rows)

    for path in sorted((data / "binance" / "spot").glob("*.gz")):
        with gzip.open(path) as lines:
            for line in lines:
                frame = line.rstrip(b"\n").partition(b" ")[2]
                said = json.loads(frame)
                stream, said = said.get("stream", ""), said.get("data", said)
                if "lastUpdateId" in said:
                    yield frame, None
                elif stream.endswith("@trade"):
                    ((price, quantity),) = scaled([(said["p"], said["q"])])
                    yield frame, TradeEvent("BTCUSDT", said["t"], price, quantity, said["m"], said["E"] * 1000)
                elif stream.endswith("@bookTicker"):
                    (bid, ask) = scaled([(said["b"], said["B"]), (said["a"], said["A"])])
                    yield frame, TickerEvent("BTCUSDT", said["u"], *bid, *ask, 0)
                else:
                    bids, asks = scaled(said["b"]), scaled(said["a"])
                    yield frame, DepthEvent("BTCUSDT", said["U"], said["u"], bids, asks, said["E"] * 1000)


def to_sbe(event):
    if isinstance(event, TradeEvent):
        return sbe.trades(SYMBOL, [event], event.time_us)
    if isinstance(event, TickerEvent):
        return sbe.best_bid_ask(SYMBOL, event, event.time_us)
    return sbe.depth(SYMBOL, event, event.time_us)


def test_mutated_frames_of_a_captured_market_give_the_slow_answer_or_none(data):
    seed = 6
    rng = random.Random(seed)
    frames = [to_sbe(event) for _, event in islice(captured(data), 4_000) if event is not None]
    recognised = sum(check(mutate(frame, rng)) for frame in frames for _ in range(3))
    assert recognised > 500, f"seed {seed}: too few mutations were still frames"


def test_a_captured_market_builds_the_same_book(data):
    text_events, binary_events = [], []
    kinds = dict.fromkeys((TradeEvent, TickerEvent, DepthEvent, type(None)), 0)
    for number, (frame, event) in enumerate(islice(captured(data), 8_000)):
        kinds[type(event)] += 1
        text_events.append(decoded(binance.decode, frame))
        binary_events.append(from_sbe(to_sbe(event)) if event else text_events[-1])
        assert text_events[-1].tobytes() == binary_events[-1].tobytes(), number
    assert min(kinds.values()) == 1 < min(count for kind, count in kinds.items() if kind is not type(None))
    rig = same_books(text_events, binary_events)
    assert rig.state()["gaps"] == 0


def ticks_of(folder):
    """What market_data makes of a capture."""
    rig = Rig(Capture(folder), virtual=1, count=1 << 14)
    try:
        rows = []
        while not rig.words[market_data_state.ENDED]:
            rig.step()
            rows.append(rig.take())
        assert rig.words[market_data_state.SLOW] == rig.words[market_data_state.REFUSED] == 0
        assert rig.log.lines == []
    finally:
        rig.close()
    rows = joined(rows)
    check_stream(rows)
    return without_stamps(rows)


def test_a_binary_recording_replays_as_its_text_does(data, tmp_path):
    text, binary = (Recording(tmp_path / kind, "a", None) for kind in ("text", "binary"))
    times = zip(range(10**18, 10**19, 10**6), islice(captured(data), 3_000), strict=False)
    for time_ns, (frame, event) in times:
        text.add([(TEXT, time_ns, frame)])
        binary.add([(TEXT, time_ns, frame) if event is None else (BINARY, time_ns, to_sbe(event))])
    for recording in (text, binary):
        recording.close()
    expected = ticks_of(tmp_path / "text")
    assert len(expected) > 10_000
    assert ticks_of(tmp_path / "binary").tobytes() == expected.tobytes()
