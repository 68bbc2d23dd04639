"""Market streams: every payload as the venue writes it, and a book kept from them that is the engine's own."""

from __future__ import annotations

import json
import random

import httpx
import pytest
import websockets.sync.client

from shrivenq.pipeline.exchange.klines import DAY_S, Klines
from shrivenq.pipeline.exchange.rolling import Rolling
from shrivenq.pipeline.exchange.server import Simulator
from shrivenq.pipeline.exchange.sockets import encode
from shrivenq.pipeline.exchange.streams import Listener, Merged, Streams
from shrivenq.pipeline.exchange.types import BalanceEvent, DepthEvent, TickerEvent, TradeEvent
from shrivenq.pipeline.exchange.venue import Outgoing
from tests.pipeline.exchange.exchange_rig import FLOWING, make_config, running

NOW_US = 1_672_515_782_136_789


class Socket:
    """Takes what is sent."""

    def __init__(self):
        self.frames = []

    def send_frame(self, frame):
        self.frames.append(frame)

    def send_message(self, payload, *, text=True):
        self.send_frame(encode(payload, text=text))

    def flush(self):
        pass


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
    return Simulator(make_config(tmp_path_factory.mktemp("streams")))


@pytest.fixture
def venue(simulator, monkeypatch):
    monkeypatch.setattr(simulator.venue, "now_us", lambda: NOW_US)
    monkeypatch.setattr(simulator.venue, "outgoing", Outgoing())
    monkeypatch.setattr(simulator.venue, "klines", Klines())
    monkeypatch.setattr(simulator.venue, "rolling", Rolling())
    listeners = [one.take for one in (simulator.venue.tape, simulator.venue.klines, simulator.venue.rolling)]
    monkeypatch.setattr(simulator.venue, "_listeners", listeners)
    return simulator.venue


def join(streams, *names, combined=False, micros=False):
    listener = Listener(Socket(), combined=combined, micros=micros)
    streams.join(listener)
    for name in names:
        streams.subscribe(listener, name)
    return listener


def read(listener):
    """Decode the frames a connection was sent; they are unmasked text, each complete."""
    found = []
    for frame in listener.socket.frames:
        assert frame[0] == 0x81
        start = 2 if frame[1] < 126 else 4
        found.append(json.loads(frame[start:]))
    listener.socket.frames.clear()
    return found


def tell(venue, *events):
    for one in venue._listeners:
        one(list(events))


def trade(number=12345, **changed):
    own = {"price": 123, "quantity": 10_000_000_000, "buyer_is_maker": True, "time_us": NOW_US - 1_000} | changed
    return TradeEvent("BTCUSDT", number, **own)


def test_trades_and_aggregates(venue):
    listener = join(Streams(venue), "btcusdt@trade", "btcusdt@aggTrade")
    tell(venue, trade(1), trade(2, quantity=5), BalanceEvent(1, (), NOW_US))
    ms, at = NOW_US // 1000, (NOW_US - 1_000) // 1000
    one = {"e": "trade", "E": ms, "s": "BTCUSDT", "t": 1, "p": "1.23000000", "q": "100.00000000", "T": at}
    both = {"e": "aggTrade", "E": ms, "s": "BTCUSDT", "a": 1, "p": "1.23000000", "q": "100.00000005"}
    assert read(listener) == [
        {**one, "m": True, "M": True},
        {**one, "t": 2, "q": "0.00000005", "m": True, "M": True},
        {**both, "f": 1, "l": 2, "T": at, "m": True, "M": True},
    ]


def test_the_best_bid_and_ask_carry_no_time(venue):
    listener = join(Streams(venue), "btcusdt@bookTicker", micros=True)
    tell(venue, TickerEvent("BTCUSDT", 400900217, 2535, 10**8, 2536, 2 * 10**8, NOW_US))
    assert read(listener) == [
        {"u": 400900217, "s": "BTCUSDT", "b": "25.35000000", "B": "1.00000000", "a": "25.36000000", "A": "2.00000000"}
    ]


def test_depth_is_merged_over_each_interval(venue):
    streams = Streams(venue)
    fast, slow = join(streams, "btcusdt@depth@100ms"), join(streams, "btcusdt@depth")
    tell(venue, DepthEvent("BTCUSDT", 157, 158, ((24, 10**8), (23, 5)), ((26, 7),), NOW_US))
    tell(venue, DepthEvent("BTCUSDT", 159, 160, ((24, 0), (25, 1)), (), NOW_US))
    streams.publish_depth("@100ms")
    expected = {
        "e": "depthUpdate",
        "E": NOW_US // 1000,
        "s": "BTCUSDT",
        "U": 157,
        "u": 160,
        "b": [["0.25000000", "0.00000001"], ["0.24000000", "0.00000000"], ["0.23000000", "0.00000005"]],
        "a": [["0.26000000", "0.00000007"]],
    }
    assert read(fast) == [expected]
    assert read(slow) == []
    tell(venue, DepthEvent("BTCUSDT", 161, 161, (), ((26, 0),), NOW_US))
    streams.publish_depth("@100ms")
    streams.publish_depth("")
    assert [(one["U"], one["u"]) for one in read(fast)] == [(161, 161)]
    assert [(one["U"], one["u"], one["a"]) for one in read(slow)] == [(157, 161, [["0.26000000", "0.00000000"]])]
    streams.publish_depth("@100ms")
    assert read(fast) == [], "nothing changed"


def test_merging_against_replaying_one_by_one():
    for seed in range(50):
        dice = random.Random(seed)
        merged, last, bids, asks = Merged(), 0, {}, {}
        for _ in range(dice.randrange(1, 20)):
            sides = [tuple((dice.randrange(9), dice.randrange(3)) for _ in range(dice.randrange(4))) for _ in range(2)]
            count = dice.randrange(1, 5)
            merged.add(DepthEvent("X", last + 1, last + count, *sides, 0))
            last += count
            for kept, side in zip((bids, asks), sides, strict=True):
                for price, quantity in side:
                    kept[price] = quantity
        found = merged.first_id, merged.last_id, merged.bids, merged.asks
        assert found == (1, last, bids, asks), f"seed {seed}"


def test_partial_books_name_no_symbol(venue):
    streams = Streams(venue)
    listener = join(streams, "btcusdt@depth5@100ms", combined=True)
    streams.publish_depth("@100ms")
    data = {"lastUpdateId": 0, "bids": [], "asks": []}
    assert read(listener) == [{"stream": "btcusdt@depth5@100ms", "data": data}]
    streams.publish_depth("")
    assert read(listener) == []


def test_the_reference_price_may_be_null(venue):
    streams = Streams(venue)
    listener = join(streams, "btcusdt@referencePrice", "ethusdt@referencePrice")
    streams.publish_reference()
    assert read(listener) == [{"e": "referencePrice", "s": "BTCUSDT", "r": None, "t": NOW_US // 1000}]


def test_one_event_is_written_once_for_each_way_of_writing_it(venue, monkeypatch):
    streams = Streams(venue)
    ways = [(combined, micros) for combined in (False, True) for micros in (False, True)]
    listeners = [join(streams, "btcusdt@trade", combined=c, micros=m) for c, m in ways for _ in range(5)]
    written = []
    make = Streams._trade
    monkeypatch.setattr(Streams, "_trade", lambda self, event, unit: written.append(1) or make(self, event, unit))
    tell(venue, trade())
    assert len(written) == 4
    frames = [listener.socket.frames[0] for listener in listeners]
    assert len({id(frame) for frame in frames}) == 4
    raw, combined = read(listeners[0])[0], read(listeners[10])[0]
    assert combined == {"stream": "btcusdt@trade", "data": raw}
    assert read(listeners[5])[0]["T"] == NOW_US - 1_000


def test_who_left_or_unsubscribed_gets_nothing(venue):
    streams = Streams(venue)
    stays, leaves, stops = (join(streams, "btcusdt@trade", "btcusdt@bookTicker") for _ in range(3))
    streams.leave(leaves)
    streams.unsubscribe(stops, "btcusdt@trade")
    streams.unsubscribe(stops, "never@subscribed")
    tell(venue, trade())
    assert [len(read(one)) for one in (stays, leaves, stops)] == [1, 0, 0]
    streams.leave(stays)
    streams.leave(stays)
    streams.leave(stops)
    assert streams._listeners == {}


def test_everybody_is_told_that_the_venue_stops(venue):
    streams = Streams(venue)
    raw, combined = join(streams), join(streams, combined=True, micros=True)
    streams.shut_down()
    assert read(raw) == [{"e": "serverShutdown", "E": NOW_US // 1000}]
    assert read(combined) == [{"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": NOW_US}}]


def test_faults_are_asked_about_every_frame(venue, monkeypatch):
    seen = []

    class Door(Outgoing):
        is_open = False

        def frame(self, _socket, kind, name, payload, *, text=True):
            seen.append((kind, name, json.loads(payload)["t"], text))

    monkeypatch.setattr(venue, "outgoing", Door())
    listener = join(Streams(venue), "btcusdt@trade")
    tell(venue, trade(7))
    assert seen == [("market", "btcusdt@trade", 7, True)]
    assert listener.socket.frames == []


class Book:
    """A book kept as the protocol sheet's section 5 says."""

    def __init__(self):
        self.sides = {"b": {}, "a": {}}
        self.id = 0

    def begin(self, snapshot):
        self.id = snapshot["lastUpdateId"]
        self.sides = {"b": dict(snapshot["bids"]), "a": dict(snapshot["asks"])}

    def apply(self, event):
        if event["u"] < self.id + 1:
            return
        assert event["U"] <= self.id + 1, "a gap"
        for name, side in self.sides.items():
            for price, quantity in event[name]:
                if float(quantity) == 0:
                    side.pop(price, None)
                else:
                    side[price] = quantity
        self.id = event["u"]

    def levels(self):
        bids = sorted(self.sides["b"].items(), key=lambda one: -float(one[0]))
        asks = sorted(self.sides["a"].items(), key=lambda one: float(one[0]))
        return [list(one) for one in bids], [list(one) for one in asks]


@pytest.mark.parametrize("unit", ["", "&timeUnit=MICROSECOND"])
def test_a_book_kept_under_load_is_the_engine_s_own(tmp_path, unit):
    """Snapshots and differences of both symbols while orders pour in; then the market stands still and all agree."""
    market = FLOWING | {"events_per_s": 5_000}
    with running(tmp_path, market=market, streams={"depth_ms": 20, "step_ms": 1}) as rig:
        url = f"{rig.ws}/stream?streams=btcusdt@depth@100ms/ethusdt@depth@100ms/btcusdt@bookTicker{unit}"
        with websockets.sync.client.connect(url, max_size=None) as connection:
            books, waiting = {"BTCUSDT": Book(), "ETHUSDT": Book()}, {"BTCUSDT": [], "ETHUSDT": []}
            tickers, matched, applied = {}, 0, 0

            def take():
                data = json.loads(connection.recv(60))["data"]
                if "e" not in data:
                    tickers[data["u"]] = data
                return data

            def wait_for_more():
                while not all(waiting.values()):
                    data = take()
                    if "e" in data:
                        waiting[data["s"]].append(data)

            wait_for_more()
            for symbol, book in books.items():
                snapshot = httpx.get(f"{rig.rest}/api/v3/depth?symbol={symbol}&limit=5000").json()
                assert snapshot["lastUpdateId"] >= waiting[symbol][0]["U"] - 1
                book.begin(snapshot)
                for event in waiting[symbol]:
                    book.apply(event)
            while applied < 150:
                data = take()
                if "e" not in data:
                    continue
                book = books[data["s"]]
                book.apply(data)
                applied += 1
                if data["s"] == "BTCUSDT" and book.id in tickers:
                    bids, asks = book.levels()
                    quote = tickers[book.id]
                    assert [quote["b"], quote["B"], quote["a"], quote["A"]] == bids[0] + asks[0]
                    matched += 1
            assert matched > 0
            rig.call(lambda: setattr(rig.venue.engine, "advance", lambda _now_us: None))
            ends = rig.call(lambda: {name: rig.venue.engine.depth(name, 1 << 20) for name in books})
            while any(book.id < ends[symbol].last_update_id for symbol, book in books.items()):
                data = take()
                if "e" in data:
                    books[data["s"]].apply(data)
            for symbol, book in books.items():
                form = rig.venue.formats[symbol]
                assert book.id == ends[symbol].last_update_id
                expected = form.levels(ends[symbol].bids), form.levels(ends[symbol].asks)
                assert book.levels() == expected, symbol


def test_tickers_are_sent_as_the_venue_writes_them(venue, monkeypatch):
    monkeypatch.setattr(venue, "market_us", lambda: NOW_US)
    streams = Streams(venue)
    listener = join(streams, "btcusdt@miniTicker", "btcusdt@ticker", "btcusdt@avgPrice", "btcusdt@blockTrade")
    day_us = DAY_S * 1_000_000
    tell(venue, trade(1, price=90, time_us=NOW_US - 2 * day_us), trade(2, price=100, time_us=NOW_US - day_us // 2))
    tell(venue, trade(3, price=250, quantity=10**9), trade(4, price=150, quantity=2 * 10**9))
    streams.publish_tickers()
    ms = NOW_US // 1000
    mini, full, average = read(listener)
    figures = {"c": "1.50000000", "o": "1.00000000", "h": "2.50000000", "l": "1.00000000"}
    figures |= {"v": "130.00000000", "q": "155.00000000"}
    assert mini == {"e": "24hrMiniTicker", "E": ms, "s": "BTCUSDT", **figures}
    assert full == {
        "e": "24hrTicker", "E": ms, "s": "BTCUSDT", "p": "0.50000000", "P": "50.000", "w": "1.19230769",
        "x": "0.90000000", "Q": "20.00000000", "b": "0.00000000", "B": "0.00000000", "a": "0.00000000",
        "A": "0.00000000", **figures, "O": ms - 86_400_000, "C": ms, "F": 2, "L": 4, "n": 3,
    }  # fmt: skip
    # The average is the engine's, which did not see these trades; the time is that of the last one.
    assert average == {
        "e": "avgPrice", "E": ms, "s": "BTCUSDT", "i": "5m", "w": "0.00000000", "T": (NOW_US - 1_000) // 1000,
    }  # fmt: skip


def test_a_ticker_without_a_trade_says_so(venue, monkeypatch):
    monkeypatch.setattr(venue, "market_us", lambda: NOW_US)
    streams = Streams(venue)
    listener = join(streams, "ethusdt@ticker", "ethusdt@avgPrice", micros=True)
    streams.publish_tickers()
    full, average = read(listener)
    assert (full["c"], full["P"], full["F"], full["L"], full["n"]) == ("0.00000000", "0.000", -1, -1, 0)
    assert full["C"] - full["O"] == DAY_S * 1_000_000
    assert average["T"] == 0


def test_all_tickers_are_those_that_changed(venue, monkeypatch):
    moment = [NOW_US]
    monkeypatch.setattr(venue, "market_us", lambda: moment[0])
    streams = Streams(venue)
    listener, one = join(streams, "!miniTicker@arr", combined=True), join(streams, "btcusdt@miniTicker")

    def sent():
        streams.publish_tickers()
        frames = read(listener)
        assert len(frames) <= 1
        assert len(read(one)) == 1, "one symbol's own stream goes on"
        assert all(frame["stream"] == "!miniTicker@arr" for frame in frames)
        return [(ticker["s"], ticker["c"]) for frame in frames for ticker in frame["data"]]

    tell(venue, trade(1, price=100, time_us=NOW_US))
    assert sent() == [("BTCUSDT", "1.00000000"), ("ETHUSDT", "0.00000000")]
    moment[0] += 1_000_000
    assert sent() == [], "no empty list"
    tell(venue, trade(2, price=300, time_us=moment[0]))
    assert sent() == [("BTCUSDT", "3.00000000")]
    moment[0] += (DAY_S - 1) * 1_000_000
    assert sent() == [], "the first trade is 24 hours old"
    moment[0] += 1_000_000
    assert sent() == [("BTCUSDT", "3.00000000")], "a trade left the window"
    late = join(streams, "!miniTicker@arr")
    assert sent() == []
    assert read(late) == []


def test_klines_of_days_and_months_in_two_time_zones(venue, monkeypatch):
    """22:00 on 31 December in UTC is the first of January in UTC+8."""
    now_us = 1_672_524_000_000_000
    monkeypatch.setattr(venue, "market_us", lambda: now_us)
    streams = Streams(venue)
    names = ("1d", "3d", "1M")
    listener = join(streams, *(f"btcusdt@kline_{name}{zone}" for name in names for zone in ("", "@+08:00")))
    tell(venue, trade(1, time_us=now_us - 7 * 3_600_000_000), trade(2, time_us=now_us - 5 * 3_600_000_000))
    streams.publish_klines(["1M", "1d", "3d"])
    found = [(one["k"]["i"], one["k"]["t"], one["k"]["T"], one["k"]["n"]) for one in read(listener)]
    day_ms, eight_ms, midnight_ms = 86_400_000, 8 * 3_600_000, 1_672_531_200_000
    assert found == [
        ("1M", midnight_ms - 31 * day_ms, midnight_ms - 1, 2),
        ("1M", midnight_ms - eight_ms, midnight_ms + 31 * day_ms - eight_ms - 1, 1),
        ("1d", midnight_ms - day_ms, midnight_ms - 1, 2),
        ("1d", midnight_ms - eight_ms, midnight_ms + day_ms - eight_ms - 1, 1),
        ("3d", midnight_ms - 2 * day_ms, midnight_ms + day_ms - 1, 2),
        ("3d", midnight_ms - 2 * day_ms - eight_ms, midnight_ms + day_ms - eight_ms - 1, 2),
    ]
    assert all(one % (3 * day_ms) == 0 for one in (found[4][1], found[5][1] + eight_ms))


def test_klines_go_on_and_are_closed_once(simulator, venue, monkeypatch):
    streams = Streams(venue)
    listener = join(streams, "btcusdt@kline_1m")
    minute_us, seen = 60_000_000, []
    for at_us, trade_id in ((5, 1), (minute_us + 5, 2), (3 * minute_us + 5, 0), (3 * minute_us + 9, 0)):
        now_us = NOW_US // minute_us * minute_us + at_us
        monkeypatch.setattr(venue, "market_us", lambda now_us=now_us: now_us)
        if trade_id:
            venue.klines.take([TradeEvent("BTCUSDT", trade_id, 60_000 + trade_id, 10**8, False, now_us)])
        streams.publish_klines(["1s", "1m"])
        events = [one["k"] for one in read(listener)]
        listener.socket.frames.clear()
        seen.append(
            [((one["t"] - NOW_US // minute_us * 60_000) // 60_000, one["x"], one["n"], one["c"]) for one in events]
        )
    assert seen == [
        [(0, False, 1, "600.01000000")],
        [(0, True, 1, "600.01000000"), (1, False, 1, "600.02000000")],
        [(1, True, 1, "600.02000000"), (2, True, 0, "600.02000000"), (3, False, 0, "600.02000000")],
        [(3, False, 0, "600.02000000")],
    ]
    assert events[0] | {"t": 0, "T": 59_999} == {
        "t": 0, "T": 59_999, "s": "BTCUSDT", "i": "1m", "f": -1, "L": -1, "o": "600.02000000", "c": "600.02000000",
        "h": "600.02000000", "l": "600.02000000", "v": "0.00000000", "n": 0, "x": False, "q": "0.00000000",
        "V": "0.00000000", "Q": "0.00000000", "B": "0",
    }  # fmt: skip
