"""The SBE streams send the market's events to who asked for them, and only clients with an Ed25519 key get in."""

from __future__ import annotations

import base64
import contextlib
import json
import socket as network
import ssl
import struct
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import websockets.sync.client
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shrivenq.pipeline.exchange import sbe
from shrivenq.pipeline.exchange.accounts import Keyring
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.sbe_streams import TRADES_MAX, SbeStreams, check_key
from shrivenq.pipeline.exchange.sockets import encode
from shrivenq.pipeline.exchange.streams import Listener
from shrivenq.pipeline.exchange.types import BalanceEvent, BookView, DepthEvent, TickerEvent, TradeEvent
from shrivenq.pipeline.exchange.venue import Outgoing
from shrivenq.stages import book
from shrivenq.stages import messages as m
from shrivenq.stages.venues import binance
from shrivenq.stages.venues.binance_sbe import EVENT_MAX, PADDING, decode
from shrivenq.stages.venues.binance_symbols import make_symbols
from tests.pipeline.exchange.exchange_rig import FLOWING, OTHER, TRADER, running
from tests.pipeline.exchange.test_sbe import CONTEXT, SYMBOL, TARGET, decoded, from_json, from_sbe, json_snapshot
from tests.stages.book_rig import make_rig, send

NOW_US = 1_770_000_000_123_456
BOOK = BookView(77, [(100 - i, 5) for i in range(30)], [(101 + i, 6) for i in range(30)])


class Socket:
    """What a connection was sent."""

    def __init__(self):
        self.sent = []
        self.is_behind = False

    def watch_backlog(self, caught_up):
        self.caught_up = caught_up

    def read_all(self):
        """Catch up, as a transport says it."""
        self.is_behind = False
        self.caught_up()

    def send_frame(self, frame):
        self.sent.append(frame)

    def flush(self):
        self.flushed = True


class Script(Outgoing):
    """A script of faults, which sees every message before it goes out."""

    is_open = False

    def __init__(self):
        self.seen = []

    def frame(self, socket, kind, name, payload, *, text=True):
        self.seen.append((kind, name, payload, text))
        socket.send_frame(encode(payload, text=text))


class Venue:
    """One symbol, a still clock."""

    def __init__(self):
        self.symbols = {"BTCUSDT": SYMBOL}
        self.outgoing = Outgoing()
        self.engine = SimpleNamespace(depth=lambda _symbol, limit: BOOK._replace(bids=BOOK.bids[:limit]))
        self.keyring = Keyring()
        self.listeners = []

    def listen(self, listener):
        self.listeners.append(listener)

    def now_us(self):
        return NOW_US


@pytest.fixture
def venue():
    return Venue()


@pytest.fixture
def streams(venue):
    return SbeStreams(venue)


def join(streams, *names):
    listener = Listener(Socket(), combined=False, micros=False)
    streams.join(listener)
    for name in names:
        streams.subscribe(listener, name)
    return listener


def kinds(listener):
    """Take what was sent: each message's TICK kinds, END left out."""
    found = []
    for frame in listener.socket.sent:
        payload = frame[4:] if frame[1] == 126 else frame[2:]
        assert frame == encode(payload, text=False)
        data = np.frombuffer(payload + bytes(PADDING), np.uint8)
        count = decode(data, 0, len(payload), *CONTEXT, TARGET, 0, 0)
        found.append(TARGET["kind"][: count - 1].tolist())
    listener.socket.sent.clear()
    return found


def trade(number, time_us=5, *, buyer_is_maker=True):
    return TradeEvent("BTCUSDT", number, 100, 5, buyer_is_maker, time_us)


TICKER = TickerEvent("BTCUSDT", 78, 100, 5, 101, 6, 5)
DEPTH = DepthEvent("BTCUSDT", 78, 79, ((100, 5),), (), 5)


def test_each_stream_gets_its_events_in_order(venue, streams):
    everything = join(streams, "btcusdt@trade", "btcusdt@bestBidAsk", "btcusdt@depth", "btcusdt@depth20")
    trades, nothing = join(streams, "btcusdt@trade"), join(streams, "btcusdt@nonsense", "ethusdt@trade")
    balance = BalanceEvent(1, (), 5)
    for take in venue.listeners:
        take([trade(1), balance, trade(2), DEPTH, TICKER, trade(3), TICKER, trade(4, buyer_is_maker=False)])
    expected = [[m.TRADE] * 2, [m.QUOTE] * 2, [m.TRADE], [m.QUOTE] * 2, [m.TRADE]]
    assert kinds(everything) == expected
    assert kinds(trades) == [one for one in expected if one[0] == m.TRADE]
    streams.publish_depth()
    streams.publish_depth()
    streams.publish_partial()
    assert kinds(everything) == [[m.DIFF, m.LEVEL], [m.SNAPSHOT, *[m.LEVEL] * 40]]
    assert kinds(trades) == kinds(nothing) == []


def test_taker_orders_are_told_apart_and_a_message_is_not_too_long(streams):
    listener = join(streams, "btcusdt@trade")
    streams.take([trade(1), trade(2), trade(3, 6), trade(4, 6, buyer_is_maker=False)])
    assert [len(one) for one in kinds(listener)] == [2, 1, 1]
    streams.take([trade(number) for number in range(2 * TRADES_MAX + 1)])
    assert [len(one) for one in kinds(listener)] == [TRADES_MAX, TRADES_MAX, 1]


def test_depth_is_merged_and_sequenced(streams):
    listener = join(streams, "btcusdt@depth")
    streams.take([DEPTH, DepthEvent("BTCUSDT", 80, 80, ((100, 0), (99, 4)), ((101, 1),), 6)])
    streams.publish_depth()
    event = DepthEvent("BTCUSDT", 78, 80, ((100, 0), (99, 4)), ((101, 1),), NOW_US)
    assert listener.socket.sent == [encode(sbe.depth(SYMBOL, event, NOW_US), text=False)]


def test_who_left_gets_nothing(streams):
    listener = join(streams, "btcusdt@trade", "btcusdt@depth")
    streams.unsubscribe(listener, "btcusdt@trade")
    streams.take([trade(1), DEPTH])
    assert kinds(listener) == []
    streams.leave(listener)
    streams.publish_depth()
    assert kinds(listener) == []


def best(number, symbol="BTCUSDT"):
    return TickerEvent(symbol, number, 100, 5, 101, number, 5)


def test_who_is_behind_gets_the_newest_best_bid_and_ask_and_all_else(streams):
    quick, slow = (join(streams, "btcusdt@bestBidAsk", "btcusdt@trade") for _ in range(2))
    slow.socket.is_behind = True
    for number in range(1, 100):
        streams.take([best(number), trade(number, number)])
    assert len(quick.socket.sent) == 198
    assert slow.socket.sent == [one for one in quick.socket.sent if one[4:6] == b"\x10\x27"], "trades"
    slow.socket.sent.clear()
    slow.socket.read_all()
    assert slow.socket.sent == [encode(sbe.best_bid_ask(SYMBOL, best(99), NOW_US), text=False)]
    streams.take([best(100)])
    slow.socket.read_all()
    assert slow.socket.sent[1:] == [encode(sbe.best_bid_ask(SYMBOL, best(100), NOW_US), text=False)]


def test_each_symbol_is_culled_by_itself(venue):
    venue.symbols["ETHUSDT"] = other = msgspec.structs.replace(SYMBOL, name="ETHUSDT")
    streams = SbeStreams(venue)
    slow = join(streams, "btcusdt@bestBidAsk", "ethusdt@bestBidAsk")
    slow.socket.is_behind = True
    streams.take([best(1), best(2, "ETHUSDT"), best(3)])
    slow.socket.read_all()
    assert slow.socket.sent == [
        encode(sbe.best_bid_ask(SYMBOL, best(3), NOW_US), text=False),
        encode(sbe.best_bid_ask(other, best(2, "ETHUSDT"), NOW_US), text=False),
    ]


def test_what_waits_for_who_has_left_or_unsubscribed_is_not_sent(streams):
    stops, leaves = (join(streams, "btcusdt@bestBidAsk") for _ in range(2))
    for one in (stops, leaves):
        one.socket.is_behind = True
    streams.take([best(1)])
    streams.unsubscribe(stops, "btcusdt@bestBidAsk")
    streams.leave(leaves)
    for one in (stops, leaves):
        one.socket.read_all()
        assert one.socket.sent == []


def test_faults_see_what_waited_too(venue, streams):
    venue.outgoing = Script()
    slow = join(streams, "btcusdt@bestBidAsk")
    slow.socket.is_behind = True
    streams.take([best(1), best(2)])
    slow.socket.read_all()
    assert venue.outgoing.seen == [("market", "btcusdt@bestBidAsk", sbe.best_bid_ask(SYMBOL, best(2), NOW_US), False)]


def test_faults_see_every_message(venue, streams):
    venue.outgoing = Script()
    listener = join(streams, "btcusdt@trade")
    streams.take([trade(1)])
    streams.shut_down()
    (kind, name, payload, text), notice = venue.outgoing.seen
    assert (kind, name, text) == ("market", "btcusdt@trade", False)
    assert payload == sbe.trades(SYMBOL, [trade(1)], NOW_US)
    assert json.loads(notice[2]) == {"e": "serverShutdown", "E": NOW_US // 1000}
    assert notice[3] is True
    assert len(listener.socket.sent) == 2


def test_a_symbol_of_any_name_is_spelled_out(venue):
    venue.symbols["ÉTÉUSDT"] = other = SYMBOL.__class__(
        name="ÉTÉUSDT", base="ÉTÉ", quote="USDT", price_decimals=2, quantity_decimals=8, tick=1, step=1
    )
    streams = SbeStreams(venue)
    listener = join(streams, "étéusdt@trade")
    streams.take([TradeEvent(other.name, 1, 100, 5, True, 5)])
    instruments = CONTEXT[1].copy()
    instruments["symbol"] = other.name.encode()
    payload = listener.socket.sent[0][2:]
    data, target = np.frombuffer(payload + bytes(PADDING), np.uint8), np.zeros(EVENT_MAX, m.TICK)
    assert decode(data, 0, len(payload), make_symbols(instruments), instruments, target, 0, 0) == 2


def test_only_an_ed25519_key_opens_the_door(venue):
    public = Ed25519PrivateKey.generate().public_key()
    text = base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    venue.keyring.add("good", 1, public_key=text)
    venue.keyring.add("hmac", 1, secret="s" * 32)
    check_key(venue, "good")
    for api_key, code in (("", -2014), ("unknown", -2015), ("hmac", -2015)):
        with pytest.raises(ApiError) as caught:
            check_key(venue, api_key)
        assert (caught.value.status, caught.value.code) == (401, code)


# ── over the network ─────────────────────────────────────────────────────────────────────────────────────────────────


def connect(rig, path, api_key=TRADER):
    return websockets.sync.client.connect(rig.ws + path, additional_headers={"X-MBX-APIKEY": api_key}, close_timeout=1)


def follow(socket, update_id):
    """Receive until a depth event ends with this update id; TICKs of all that came, in order."""
    found = []
    while True:
        message = socket.recv(timeout=30)
        event = from_sbe(message) if isinstance(message, bytes) else decoded(binance.decode, message.encode())
        found.append(event)
        if event[0]["kind"] == m.DIFF and event[0]["last_id"] >= update_id:
            return found


def books_by_id(snapshot, events):
    """The BOOK after each depth event, by its update id."""
    rig = make_rig(CONTEXT[1], book.Config(window_ticks=16_384, far_levels=8_192))
    send(rig, snapshot)
    found = {}
    for event in events:
        for one in send(rig, event)[0]:
            if one["kind"] == m.DEPTH_BOOK:
                found[int(one["update_id"])] = [one[name].tolist() for name in ("flags", "bid_price", "bid_quantity")]
                found[int(one["update_id"])] += [one[name].tolist() for name in ("ask_price", "ask_quantity")]
    assert rig.state()["gaps"] == rig.state()["crossed"] == 0
    return found


def test_both_kinds_of_streams_of_one_market_build_the_same_book(tmp_path):
    with (
        running(tmp_path, market=FLOWING) as rig,
        connect(rig, "/stream?streams=btcusdt@depth@100ms/btcusdt@trade/btcusdt@bookTicker") as text,
        connect(rig, "/sbe/stream?streams=btcusdt@depth/btcusdt@trade/btcusdt@bestBidAsk") as binary,
    ):

        def publish():
            """Send both depth streams now, so that they meet at one update id; nothing is sent if nothing changed."""
            rig.simulator.streams.publish_depth("@100ms")
            rig.simulator.sbe_streams.publish_depth()
            return rig.venue.engine.depth("BTCUSDT", 5000)

        view = rig.call(publish)
        last_id = view.last_update_id
        while last_id < view.last_update_id + 500:
            last_id = rig.call(publish).last_update_id
        found, expected = follow(binary, last_id), follow(text, last_id)
    snapshot = from_json(json_snapshot(view))
    ours, theirs = books_by_id(snapshot, found), books_by_id(snapshot, expected)
    common = sorted(ours.keys() & theirs.keys())
    assert last_id in common
    assert len(common) > 5
    for update_id in common:
        assert ours[update_id] == theirs[update_id], update_id
    trades, others = (
        np.concatenate([event[:-1] for event in events if event[0]["kind"] == m.TRADE]) for events in (found, expected)
    )
    common = np.intersect1d(trades["id"], others["id"])
    assert len(common) > 5
    for name in ("price", "quantity", "flags"):
        assert (
            trades[name][np.isin(trades["id"], common)].tolist() == others[name][np.isin(others["id"], common)].tolist()
        )


def test_subscriptions_are_json_and_events_binary_on_one_connection(tmp_path):
    with running(tmp_path, market=FLOWING) as rig, connect(rig, "/sbe/ws") as socket:
        socket.send(json.dumps({"method": "SUBSCRIBE", "params": ["btcusdt@depth20"], "id": 7}))
        assert json.loads(socket.recv(timeout=30)) == {"result": None, "id": 7}
        event = from_sbe(socket.recv(timeout=30))
        assert event[0]["kind"] == m.SNAPSHOT
        rig.stop()
        messages = []
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            while True:
                messages.append(socket.recv(timeout=30))
        assert json.loads(messages[-1])["e"] == "serverShutdown"
        assert all(isinstance(message, bytes) for message in messages[:-1])


@pytest.mark.parametrize(("api_key", "code"), [("", -2014), ("unknown", -2015), (OTHER, -2015)])
def test_a_client_without_an_ed25519_key_is_turned_away(tmp_path, api_key, code):
    with (
        running(tmp_path) as rig,
        pytest.raises(websockets.exceptions.InvalidStatus) as caught,
        connect(rig, "/sbe/ws/btcusdt@trade", api_key),
    ):
        pass
    assert caught.value.response.status_code == 401
    assert json.loads(caught.value.response.body)["code"] == code


@pytest.mark.parametrize("secure", [False, True])
def test_a_slow_reader_is_not_sent_what_is_out_of_date(tmp_path, secure):
    """A client that reads nothing, and then all: the best bid and ask of each symbol come once or a few times."""
    updates, context = 2_000, None
    with running(tmp_path, tls={"generate": "tls", "names": ["127.0.0.1"]} if secure else {}) as rig:
        if secure:
            context = ssl.create_default_context(cafile=tmp_path / "tls" / "authority.pem")
        wire = network.socket()
        wire.setsockopt(network.SOL_SOCKET, network.SO_RCVBUF, 4_096)
        wire.connect(("127.0.0.1", rig.port))
        names = "btcusdt@bestBidAsk/ethusdt@bestBidAsk/btcusdt@trade"
        with websockets.sync.client.connect(
            f"{'wss' if secure else 'ws'}://127.0.0.1:{rig.port}/sbe/stream?streams={names}",
            additional_headers={"X-MBX-APIKEY": TRADER}, sock=wire,
            ssl=context, max_queue=1, close_timeout=1,
        ) as client:  # fmt: skip
            streams, traded = rig.simulator.sbe_streams, 0
            own = rig.call(lambda: next(iter(streams._all)).socket)

            def trade_more():
                nonlocal traded
                streams.take([trade(traded + number, traded) for number in range(1, TRADES_MAX + 1)])
                traded += TRADES_MAX

            while not rig.call(lambda: own.is_behind):
                rig.call(trade_more)
            for number in range(1, updates + 1):
                rig.call(lambda number=number: streams.take([best(number), best(number, "ETHUSDT")]))
            rig.call(trade_more)
            found, trades = {b"BTCUSDT": [], b"ETHUSDT": []}, []
            while len(trades) < traded or any(updates not in one for one in found.values()):
                message = client.recv(timeout=30)
                if struct.unpack_from("<H", message, 2) == (sbe.BEST,):
                    found[message[-7:]] += struct.unpack_from("<q", message, 16)
                else:
                    (count,) = struct.unpack_from("<I", message, 28)
                    trades += [struct.unpack_from("<q", message, 32 + 25 * row)[0] for row in range(count)]
    assert trades == list(range(1, traded + 1)), "nothing else is culled"
    for numbers in found.values():
        assert numbers == sorted(numbers)
        assert len(numbers) < updates // 10, len(numbers)
