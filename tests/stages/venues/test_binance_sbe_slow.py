"""The slow path of SBE refuses in one line that says where and why; what it reads is compared in test_binance_sbe."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrivenq.stages.messages import TICK
from shrivenq.stages.venues.binance_sbe import EVENT_MAX, TRADES_MAX
from shrivenq.stages.venues.binance_sbe_slow import decode_slow, read_ids
from shrivenq.stages.venues.binance_slow import Refused
from shrivenq.stages.venues.binance_symbols import make_symbols
from tests.stages.venues import sbe_frames as build
from tests.stages.venues.captures import make_instruments
from tests.stages.venues.sbe_frames import VECTORS

TARGET = np.zeros(EVENT_MAX, TICK)


def slow(frame, market="spot"):
    instruments = make_instruments(market)
    return decode_slow(frame, make_symbols(instruments), instruments, TARGET, 5, 7)


def reason(frame, market="spot"):
    with pytest.raises(Refused) as caught:
        slow(frame, market)
    text = str(caught.value)
    assert text.isprintable()
    return text


BIG = 10**18
LIES = [
    (b"", "byte 0: the message header needs 8 bytes, 0 are left"),
    (VECTORS["depth"][:20], "byte 8: DepthDiffStreamEvent needs 26 bytes, 12 are left"),
    (VECTORS["depth"][:36], "byte 34: the dimension of bids needs 4 bytes, 2 are left"),
    (VECTORS["depth"][:60], "byte 54: bids[1] needs 16 bytes, 6 are left"),
    (VECTORS["depth"][:74], "byte 74: the length of symbol needs 1 bytes, 0 are left"),
    (VECTORS["depth"][:-1], "byte 75: symbol needs 7 bytes, 6 are left"),
    (b"\x19" + VECTORS["depth"][1:], "byte 8: DepthDiffStreamEvent is said to be 25 bytes long, at least 26 expected"),
    (build.message(10_003, b"", b"", schema=3), "schema 3: 1 expected"),
    (build.message(10_004, b"", b""), "template 10004: 10000, 10001, 10002, 10003 expected"),
    (build.depth(5, 7, [(1, 1)], [], size=8), "byte 38: bids[0] is said to be 8 bytes long, at least 16 expected"),
    (build.depth(5, 7, [(1, 1)], [], count=9), "byte 54: bids[1] needs 16 bytes, 12 are left"),
    (build.trades([(1, 1, 1, 0)], count=2**31), f"trades: 2147483648 entries, at most {TRADES_MAX} expected"),
    (build.depth(5, 7, [], [], symbol=b"ETHUSDT"), "symbol b'ETHUSDT': unknown symbol"),
    (build.depth(5, 7, [], [], symbol=b"\n" * 200), "symbol b'" + "\\n" * 16 + "': unknown symbol"),
    (build.depth(5, 7, [(1, 1), (0, 1)], []), "bids[1].price is 0e-2: out of range"),
    (build.depth(5, 7, [], [(1, -1)]), "asks[0].qty is -1e-5: out of range"),
    (build.depth(5, 7, [(15, 1)], [], exponents=(-3, -5)), "bids[0].price is 15e-3: the instrument has 2 decimals"),
    (build.depth(5, 7, [(BIG, 1)], []), f"bids[0].price is {BIG}e-2: out of range"),
    (build.depth(5, 7, [(1, 1)], [], exponents=(127, -5)), "bids[0].price is 1e127: out of range"),
    (build.depth(8, 7, [], []), "firstBookUpdateId is 8: 0 to 7 expected"),
    (build.depth(5, -7, [], []), "lastBookUpdateId is -7: 0 to 9223372036854775807 expected"),
    (build.depth20(-7, [], []), "bookUpdateId is -7: 0 to 9223372036854775807 expected"),
    (build.depth(5, 7, [], [], event_us=-1), "eventTime is -1: 0 to 9223372036854775 expected"),
    (build.best(5, (1, 1), (0, 1)), "askPrice and askQty: only an empty side is 0, and then both are"),
    (build.best(5, (-1, 1), (1, 1)), "bidPrice is -1e-2: out of range"),
    (build.trades([(1, 1, 1, 0), (2, 1, 0, 0)]), "trades[1].qty is 0e-5: out of range"),
    (build.trades([(1, 1, 1, 255)]), "trades[0].isBuyerMaker is 255: 0 to 1 expected"),
    (build.trades([(-1, 1, 1, 1)]), "trades[0].id is -1: 0 to 9223372036854775807 expected"),
]


@pytest.mark.parametrize(("frame", "expected"), LIES, ids=range(len(LIES)))
def test_a_refusal_says_where_and_why(frame, expected):
    assert reason(frame) == expected


def test_sbe_speaks_of_spot_alone():
    assert reason(VECTORS["best"], "usdm") == "symbol b'BTCUSDT': SBE says spot, instrument 0 is not"


def test_more_levels_than_an_event_holds_are_refused():
    half = [(1, 1)] * (EVENT_MAX // 2)
    assert reason(build.depth(5, 7, half, half)) == (
        f"DepthDiffStreamEvent: {EVENT_MAX + 1} records, room for {EVENT_MAX - 1}"
    )


def test_no_trades_carry_no_market_data():
    assert slow(build.trades([])) == 0


@given(st.binary(max_size=120), st.sampled_from([0, 1, 3]), st.integers(9_999, 10_004), st.integers(0, 60))
def test_it_answers_or_refuses_whatever_comes(rest, schema, template, block):
    try:
        slow(struct.pack("<HHHH", block, template, schema, 0) + rest)
    except Refused as error:
        assert str(error).isprintable()  # noqa: PT017 - a refusal is one of the two answers


def test_ids_say_which_part_of_which_stream_a_frame_is():
    found = [read_ids(VECTORS[name]) for name in ("trades", "best", "depth20", "depth")]
    assert found == [
        (10_000, b"BTCUSDT", 5_000_001, 5_000_002, False),
        (10_001, b"BTCUSDT", 77_000_000_001, 77_000_000_001, True),
        (10_002, b"BTCUSDT", 77_000_000_001, 77_000_000_001, True),
        (10_003, b"BTCUSDT", 77_000_000_002, 77_000_000_005, False),
    ]
    for frame in VECTORS.values():
        for size in range(len(frame)):
            with pytest.raises(Refused):
                read_ids(frame[:size])
        assert read_ids(frame + b"more") == read_ids(frame)
