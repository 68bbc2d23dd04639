"""The slow path is exact, accepts any spelling of a frame that means the same, and refuses in one line."""

from __future__ import annotations

import json
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.stages.messages import END, LOST, SIDE_ASK, TICK
from shrivenq.stages.venues.binance import EVENT_MAX
from shrivenq.stages.venues.binance_slow import Refused, decode_slow
from shrivenq.stages.venues.binance_symbols import make_symbols
from tests.stages.venues.captures import MARKETS, make_instruments

CONTEXT = {market: (make_symbols(make_instruments(market)), make_instruments(market)) for market in MARKETS}
DEPTH = {"e": "depthUpdate", "E": 5, "s": "BTCUSDT", "U": 7, "u": 9, "b": [["1.5", "2"]], "a": [["2.25", "0"]]}
TRADE = {"e": "trade", "E": 5, "s": "BTCUSDT", "t": 3, "p": "1.5", "q": "2", "T": 4, "m": True, "M": True}
TICKER = {"u": 3, "s": "BTCUSDT", "b": "1.5", "B": "2", "a": "1.51", "A": "3"}
SNAPSHOT = {"lastUpdateId": 3, "bids": [["1.5", "2"]], "asks": []}


def decode(frame, market="spot", room=EVENT_MAX):
    target = np.zeros(room, TICK)
    if not isinstance(frame, bytes):
        frame = json.dumps(frame).encode()
    return target[: decode_slow(frame, *CONTEXT[market], target, 1, 2)]


def refusal(frame, market="spot", room=EVENT_MAX):
    with pytest.raises(Refused) as caught:
        decode(frame, market, room)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 250
    return text


decimals = st.decimals(min_value=0, max_value=10**7, places=2, allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(st.tuples(decimals.filter(bool), decimals)), st.lists(st.tuples(decimals.filter(bool), decimals)))
def test_levels_are_exact(bids, asks):
    sides = {"b": bids, "a": asks}
    event = decode({**DEPTH, **{key: [[f"{p:f}", f"{q:f}"] for p, q in side] for key, side in sides.items()}})
    levels = event[1:-1]
    assert list(levels["flags"]) == [0] * len(bids) + [SIDE_ASK] * len(asks)
    expected = [(int(p * 100), int(q * 10**8)) for p, q in bids + asks]
    assert [(int(level["price"]), int(level["quantity"])) for level in levels] == expected
    assert event[-1]["count"] == len(event) - 1


@pytest.mark.parametrize("message", [DEPTH, TRADE, TICKER, SNAPSHOT])
def test_key_order_white_space_escapes_and_new_keys_do_not_matter(message):
    expected = decode(message).tobytes()
    assert decode(dict(reversed(message.items()))).tobytes() == expected
    assert decode(json.dumps(message, indent=3).encode()).tobytes() == expected
    assert decode({**message, "new": {"deep": [1, None]}}).tobytes() == expected
    assert decode(json.dumps(message).replace("BTC", "\\u0042TC").encode()).tobytes() == expected


def test_extra_entries_of_a_level_are_passed_over():
    assert decode({**DEPTH, "b": [["1.5", "2", []]]}).tobytes() == decode(DEPTH).tobytes()


@pytest.mark.parametrize(
    "frame",
    [
        {"result": None, "id": 1},
        {"result": None, "id": None},
        {"e": "serverShutdown", "E": 1},
        {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}},
    ],
)
def test_what_carries_no_market_data_is_passed_over(frame):
    assert len(decode(frame)) == 0


def test_a_futures_trade_that_never_met_the_book_is_passed_over():
    trade = {"e": "trade", "E": 5, "T": 5, "s": "BTCUSDT", "t": 3, "p": "0", "q": "0", "X": "NA", "m": True}
    assert len(decode(trade, "usdm")) == 0
    assert "X is ODD" in refusal({**trade, "X": "ODD"}, "usdm")


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "not JSON"),
        (b"\x00\xff\xfe rubbish", "byte 1: not UTF-8"),
        (b"{" * 10, "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", "an object expected"),
        (b"{}", "e is missing"),
        (b'{"a":1,"a":1}', "key 'a' stands twice"),
        (b'{"u":NaN}', "NaN is no integer"),
        (b'{"u":-Infinity}', "-Infinity is no integer"),
        (b'{"u":1e400}', "1e400 is no integer"),
        (b'{"u":' + b"9" * 5000 + b"}", "thousands of digits"),
        ({"code": 2, "msg": "Invalid request\n"}, "the venue says Invalid request"),
        ({**DEPTH, "e": "kline"}, "e is kline: depthUpdate, trade or bookTicker expected"),
        ({**DEPTH, "s": "ETHUSDT"}, "s is ETHUSDT: unknown symbol"),
        ({**DEPTH, "s": "btcusdt"}, "s is btcusdt: unknown symbol"),
        ({**DEPTH, "s": 3}, "s is 3: a string expected"),
        ({**DEPTH, "E": True}, "E is True: an integer expected"),
        ({**DEPTH, "E": -1}, "E is -1: 0 to"),
        ({**DEPTH, "E": 10**15}, "E is 1000000000000000: 0 to"),
        ({**DEPTH, "u": 2**63}, "u is 9223372036854775808: 0 to"),
        ({**DEPTH, "U": 10}, "U is 10: more than u, 9"),
        ({**DEPTH, "pu": 6}, "pu says futures, instrument 0 is not"),
        ({**DEPTH, "b": None}, "b is None: a list expected"),
        ({**DEPTH, "b": [["1"]]}, "b[0] is ['1']: [price, quantity] expected"),
        ({**DEPTH, "b": [["1", "1"], [1, "1"]]}, "b[1][0] is 1: a decimal in a string expected"),
        ({**DEPTH, "b": [["-1", "1"]]}, "b[0][0] is '-1': a plain positive decimal expected"),
        ({**DEPTH, "b": [["NaN", "1"]]}, "b[0][0] is 'NaN': a plain positive decimal expected"),
        ({**DEPTH, "b": [["1e5", "1"]]}, "b[0][0] is '1e5': a plain positive decimal expected"),
        ({**DEPTH, "b": [["1.", "1"]]}, "b[0][0] is '1.': a plain positive decimal expected"),
        ({**DEPTH, "b": [["\u0661", "1"]]}, "a plain positive decimal expected"),
        ({**DEPTH, "b": [["1\n", "1"]]}, "a plain positive decimal expected"),
        ({**DEPTH, "b": [["0.00", "1"]]}, "b[0][0] is 0.00: out of range"),
        ({**DEPTH, "b": [["1.001", "1"]]}, "b[0][0] is 1.001: the instrument has 2 decimals"),
        ({**DEPTH, "a": [["1", "0.000000001"]]}, "a[0][1] is 0.000000001: the instrument has 8 decimals"),
        ({**DEPTH, "a": [["1", "10000000000"]]}, "a[0][1] is 10000000000: out of range"),
        ({**DEPTH, "a": [["9" * 900, "1"]]}, "a plain positive decimal expected"),
        ({**TRADE, "q": "0"}, "q is 0: out of range"),
        ({**TRADE, "m": 1}, "m is 1: true or false expected"),
        ({key: value for key, value in TRADE.items() if key != "p"}, "p is None: a decimal in a string expected"),
        ({**TICKER, "b": "0"}, "b and B: only an empty side is 0, and then both are"),
        ({**TICKER, "A": "0"}, "a and A: only an empty side is 0, and then both are"),
        ({**SNAPSHOT, "E": 1}, "E says futures, instrument 0 is not"),
        ({"stream": "btcusdt@trade", "data": 1}, "data is 1: an object expected"),
        ({"stream": "btcusdt@trade"}, "data is missing"),
        ({"stream": "btcusdt@trade", "data": DEPTH}, "stream: trade expected, the data is depthUpdate"),
        ({"stream": "ethusdt@trade", "data": TRADE}, "unknown symbol"),
        ({"stream": "btcusdt@depth21@100ms", "data": SNAPSHOT}, "SYMBOL@depth"),
        ({"stream": "btcusdt@trade@100ms", "data": TRADE}, "SYMBOL@depth"),
        ({"stream": "btcusdt@trade", "data": {**TRADE, "p": 1}}, "data.p is 1: a decimal in a string expected"),
    ],
)
def test_refusals_say_where_and_why(frame, reason):
    assert reason in refusal(frame)


def test_a_futures_event_without_pu_is_refused():
    assert "pu says spot" in refusal(DEPTH, "usdm")


def test_more_levels_than_fit_are_refused():
    assert refusal(DEPTH, room=3) == "depthUpdate: 2 levels, room for 1"
    assert len(decode(DEPTH, room=4)) == 4


def test_numbers_as_large_as_they_may_be():
    event = decode({**TRADE, "p": "9999999999999999.99", "q": "0.00000001", "t": 2**63 - 1, "E": 9_223_372_036_854})
    assert event[0]["price"] == int(Decimal("9999999999999999.99") * 100)
    assert (event[0]["quantity"], event[0]["id"]) == (1, 2**63 - 1)
    assert event[0]["venue_ns"] == 9_223_372_036_854_000_000


def test_our_own_frame_says_of_one_instrument_that_something_is_lost():
    event = decode({"stream": "btcusdt@lost", "data": {}})
    assert event["kind"].tolist() == [LOST, END]
    assert event["instrument"].tolist() == [0, 0]
    assert event["count"][1] == 1
    assert "unknown symbol" in refusal({"stream": "nosuch@lost", "data": {}})
    assert "data is missing" in refusal({"stream": "btcusdt@lost"})
