"""The compiled scanner gives the slow path's answer or none, whatever the bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import DIFF, END, LEVEL, QUOTE, SELLER_AGGRESSED, SIDE_ASK, SNAPSHOT, TICK, TRADE
from shrivenq.stages.venues.binance import EVENT_MAX, PADDING, decode
from shrivenq.stages.venues.binance_slow import Refused, decode_slow
from shrivenq.stages.venues.binance_symbols import make_symbols
from tests.hostile_json import mutations
from tests.stages.venues.captures import MARKETS, make_instruments, read_frames

TIME_NS, CAUSE = 1_723_161_253_937_085_768, 77
SPOT_DEPTH = (
    b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255308,"s":"BTCUSDT","U":50093239203,'
    b'"u":50093239207,"b":[["55653.87000000","0.00000000"]],"a":[["61838.04000000","25.42618900"],'
    b'["61844.30000000","0.40163000"]]}}'
)
SPOT_TRADE = (
    b'{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000",'
    b'"T":1723161255342,"m":true,"M":true}'
)
SPOT_TICKER = (
    b'{"stream":"btcusdt@bookTicker","data":{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000",'
    b'"a":"61837.64000000","A":"1.54698000"}}'
)
SPOT_SNAPSHOT = b'{"lastUpdateId":50093239218,"bids":[["61837.63000000","3.78826000"]],"asks":[]}'
SPOT_AGGREGATE = (
    b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1723161255343,"s":"BTCUSDT","a":3100000,'
    b'"p":"61837.63000000","q":"0.02000000","f":3735683259,"l":3735683261,"T":1723161255342,"m":false,"M":true}}'
)
SPOT_PARTIAL = (
    b'{"stream":"btcusdt@depth20@100ms","data":{"lastUpdateId":50093239218,"bids":[["61837.63000000","3.78826000"]],'
    b'"asks":[["61837.64000000","1.54698000"]]}}'
)
USDM_DEPTH = (
    b'{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1721347022557,"T":1721347022553,"s":"BTCUSDT",'
    b'"U":4984028370826,"u":4984028373334,"pu":4984028370730,"b":[["1000.00","569.567"],["63620.10","0.000"]],"a":[]}}'
)
USDM_TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1721347023756,"T":1721347023756,"s":"BTCUSDT","t":5182005740,'
    b'"p":"63943.90","q":"0.004","X":"MARKET","m":false}}'
)
USDM_TICKER = (
    b'{"e":"bookTicker","u":4984028370881,"s":"BTCUSDT","b":"63943.90","B":"46.371","a":"63944.00","A":"0.095",'
    b'"T":1721347022507,"E":1721347022508}'
)
USDM_SNAPSHOT = b'{"lastUpdateId":4984028,"E":1721347022507,"T":1721347022506,"bids":[["63943.90","46.371"]],"asks":[]}'
CM_DEPTH = (
    b'{"stream":"btcusd_perp@depth@0ms","data":{"e":"depthUpdate","E":1723161257476,"T":1723161257462,'
    b'"s":"BTCUSD_PERP","ps":"BTCUSD","U":1007198631847,"u":1007198631985,"pu":1007198631835,'
    b'"b":[["61786.5","89"]],"a":[["61801.4","0"],["61817.7","44"]]}}'
)
CM_TICKER = (
    b'{"stream":"btcusd_perp@bookTicker","data":{"u":1007198632021,"e":"bookTicker","s":"BTCUSD_PERP","ps":"BTCUSD",'
    b'"b":"61804.7","B":"35","a":"61804.8","A":"1645","T":1723161257465,"E":1723161257476}}'
)
CM_SNAPSHOT = (
    b'{"lastUpdateId":1007198632021,"E":1723161257476,"T":1723161257465,"symbol":"BTCUSD_PERP","pair":"BTCUSD",'
    b'"bids":[["61804.7","35"]],"asks":[["61804.8","1645"],["61804.9","1"]]}'
)
EXAMPLES = {
    "spot": [SPOT_DEPTH, SPOT_TRADE, SPOT_TICKER, SPOT_SNAPSHOT, SPOT_AGGREGATE, SPOT_PARTIAL],
    "usdm": [USDM_DEPTH, USDM_TRADE, USDM_TICKER, USDM_SNAPSHOT],
    "cm": [CM_DEPTH, CM_TICKER, CM_SNAPSHOT],
}
CONTEXT = {market: (make_symbols(make_instruments(market)), make_instruments(market)) for market in MARKETS}


def fast(frame, market, behind=b""):
    """Decode a frame with nothing, or `behind`, after it; the event, or None where it is not recognised."""
    data = np.frombuffer(frame + behind.ljust(PADDING, b"\0"), np.uint8)
    target = np.zeros(EVENT_MAX, TICK)
    count = decode(data, 0, len(frame), *CONTEXT[market], target, TIME_NS, CAUSE)
    return target[:count] if count else None


def slow(frame, market):
    target = np.zeros(EVENT_MAX, TICK)
    count = decode_slow(frame, *CONTEXT[market], target, TIME_NS, CAUSE)
    return target[:count]


def check(frame, market):
    """Whatever the scanner recognises, the slow path reads the same."""
    found = fast(frame, market)
    if found is None:
        return False
    try:
        expected = slow(frame, market)
    except Refused as error:
        pytest.fail(f"{market}: decoded what is refused ({error}): {frame!r}")
    assert found.tobytes() == expected.tobytes(), frame
    return True


@pytest.mark.parametrize("market", MARKETS)
def test_examples_of_every_spelling_are_recognised_combined_and_raw(market):
    for frame in EXAMPLES[market]:
        assert check(frame, market), frame
        if frame.startswith(b'{"stream"'):
            raw = frame.partition(b'"data":')[2][:-1]
            assert check(raw, market), raw


def rows(event):
    return [(int(r["kind"]), int(r["flags"]), int(r["price"]), int(r["quantity"]), int(r["id"])) for r in event]


def test_depth_becomes_these_records():
    event = fast(SPOT_DEPTH, "spot")
    assert rows(event) == [
        (DIFF, 0, 50093239203, 50093239207, -1),
        (LEVEL, 0, 5565387, 0, 0),
        (LEVEL, SIDE_ASK, 6183804, 2542618900, 0),
        (LEVEL, SIDE_ASK, 6184430, 40163000, 0),
        (END, 0, 0, 0, 4),
    ]
    assert event[0]["venue_ns"] == 1723161255308 * 10**6
    assert set(event["time_ns"]) == {TIME_NS}
    assert set(event["cause"]) == {CAUSE}
    assert fast(USDM_DEPTH, "usdm")[0]["previous_id"] == 4984028370730


def test_trade_quote_and_snapshot_become_these_records():
    trade = (TRADE, SELLER_AGGRESSED, 6183763, 2000000, 3735683259)
    assert rows(fast(SPOT_TRADE, "spot")) == [trade, (END, 0, 0, 0, 1)]
    assert rows(fast(USDM_TRADE, "usdm"))[0] == (TRADE, 0, 6394390, 4, 5182005740)
    quotes = [(QUOTE, 0, 618047, 35, 1007198632021), (QUOTE, SIDE_ASK, 618048, 1645, 1007198632021)]
    assert rows(fast(CM_TICKER, "cm")) == [*quotes, (END, 0, 0, 0, 2)]
    assert fast(CM_TICKER, "cm")[1]["venue_ns"] == 1723161257476 * 10**6
    assert rows(fast(SPOT_SNAPSHOT, "spot"))[:2] == [
        (SNAPSHOT, 0, 0, 50093239218, 0),
        (LEVEL, 0, 6183763, 378826000, 0),
    ]


def test_aggregate_trades_and_partial_books_become_these_records():
    assert rows(fast(SPOT_AGGREGATE, "spot")) == [(TRADE, 0, 6183763, 2000000, 3100000), (END, 0, 0, 0, 1)]
    book = [
        (SNAPSHOT, 0, 0, 50093239218, 0),
        (LEVEL, 0, 6183763, 378826000, 0),
        (LEVEL, SIDE_ASK, 6183764, 154698000, 0),
        (END, 0, 0, 0, 3),
    ]
    for stream in (b"btcusdt@depth20@100ms", b"btcusdt@depth5", b"btcusdt@depth10@100ms"):
        assert rows(fast(SPOT_PARTIAL.replace(b"btcusdt@depth20@100ms", stream), "spot")) == book


def test_an_empty_side_of_a_ticker_is_zero_and_nothing_else_is():
    empty = SPOT_TICKER.replace(b"61837.63000000", b"0.00000000").replace(b"3.78826000", b"0.00000000")
    assert check(empty, "spot")
    assert fast(SPOT_TICKER.replace(b"3.78826000", b"0.00000000"), "spot") is None
    assert fast(SPOT_TRADE.replace(b"0.02000000", b"0.00000000"), "spot") is None
    assert fast(SPOT_DEPTH.replace(b"55653.87000000", b"0.00000000"), "spot") is None


@pytest.mark.parametrize(
    "number", ["1", "12345678", "12345678.5", "123456789012345.25", "0.1", "00012.5", "9999999999999999", "1.10000000"]
)
def test_numbers_of_every_length_are_exact_or_left_to_the_slow_path(number):
    check(SPOT_DEPTH.replace(b"61838.04000000", number.encode()), "spot")
    check(SPOT_DEPTH.replace(b"25.42618900", number.encode()), "spot")
    check(SPOT_DEPTH.replace(b"50093239207", number.encode()), "spot")


def test_frames_of_another_market_are_not_recognised():
    for market, frames in EXAMPLES.items():
        for frame in frames:
            for other in MARKETS:
                assert other == market or fast(frame, other) is None


def test_a_truncated_frame_is_not_completed_by_what_lies_behind_it():
    for market, frames in EXAMPLES.items():
        for frame in frames:
            for cut in range(len(frame)):
                assert fast(frame[:cut], market, frame[cut:]) is None
            assert fast(frame, market, b"}" * PADDING) is not None


def test_every_single_byte_changed_gives_the_slow_answer_or_none():
    for market, frames in EXAMPLES.items():
        for frame in frames:
            for at in range(len(frame)):
                for byte in b'0159.,:"[]{}-+eEuU \\\n\0\xff':
                    check(frame[:at] + bytes([byte]) + frame[at + 1 :], market)


def mutate(frame, rng):
    """Change a frame in one to three of the ways in which frames go wrong."""
    for _ in range(rng.randint(1, 3)):
        at, end = sorted((rng.randrange(len(frame) + 1), rng.randrange(len(frame) + 1)))
        end = min(end, at + rng.randint(1, 30))
        piece = frame[at:end]
        way = rng.randrange(8)
        if way == 0:
            frame = frame[:at] + bytes([rng.randrange(256)]) + frame[at + 1 :]
        elif way == 1:
            frame = frame[:at] + rng.choice((b"0", b"9", b"1.5", b'"', b",", b"[]", b"}", b'["1","2"],')) + frame[at:]
        elif way == 2:
            frame = frame[:at] + frame[end:]
        elif way == 3:
            frame = frame[:at]
        elif way == 4:
            frame = frame[:at] + piece + frame[at:]
        elif way == 5:
            frame = bytes(rng.choice(b"0123456789") if 48 <= b <= 57 and rng.random() < 0.1 else b for b in frame)
        elif way == 6:
            parts = frame.split(b",")
            first, second = rng.randrange(len(parts)), rng.randrange(len(parts))
            parts[first], parts[second] = parts[second], parts[first]
            frame = b",".join(parts)
        else:
            frame = frame.replace(*rng.choice(((b'"b"', b'"a"'), (b'"u"', b'"U"'), (b".", b""), (b"0", b""))), 1)
    return frame


def sample(data, market, count, seed, longest=2000):
    """Frames of the captures, each spelling among them, and the snapshots cut short."""
    frames = read_frames(data, market)
    chosen = [frame for frame in random.Random(seed).sample(frames, count) if len(frame) <= longest]
    for frame in frames:
        if frame.startswith(b'{"lastUpdateId"'):
            bids, asks = frame.split(b'"asks":[')
            chosen.append(
                b"],".join(bids.split(b"],")[:3]) + b']],"asks":[' + b"],".join(asks.split(b"],")[:3]) + b"]]}"
            )
    return chosen


@pytest.mark.parametrize("market", MARKETS)
def test_mutated_frames_give_the_slow_answer_or_none(data, market):
    seed = 20240808
    rng = random.Random(seed)
    recognised = 0
    frames = sample(data, market, 2000, seed) + EXAMPLES[market] * 50
    for _ in range(10):
        recognised += sum(check(mutate(frame, rng), market) for frame in frames)
    assert recognised > 500, f"seed {seed}: too few mutations were still frames"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_hypothesis_finds_no_frame_decoded_otherwise(data):
    market = data.draw(st.sampled_from(list(MARKETS)))
    frame = data.draw(st.sampled_from(EXAMPLES[market]))
    at = data.draw(st.integers(0, len(frame)))
    end = data.draw(st.integers(at, min(len(frame), at + 12)))
    new = data.draw(st.one_of(st.binary(max_size=6), st.text('0123456789."[],', max_size=24).map(str.encode)))
    check(frame[:at] + new + frame[end:], market)


def pack(frames):
    """Frames one behind the other, with PADDING at the end, and where each lies."""
    stops = np.cumsum([len(frame) for frame in frames])
    return np.frombuffer(b"".join(frames) + bytes(PADDING), np.uint8), np.append(0, stops)


@kernel
def decode_all(data, edges, symbols, instruments, target, counts):
    for index in range(len(counts)):
        start, stop = edges[index], edges[index + 1]
        counts[index] = decode(data, start, stop, symbols, instruments, target, 0, index)


@pytest.mark.parametrize("market", MARKETS)
def test_whatever_stands_where_something_else_should_gives_the_slow_answer_or_none(market):
    for frame in EXAMPLES[market]:
        for hostile in mutations(json.loads(frame)):
            text = json.dumps(hostile, separators=(",", ":")).encode()
            if not check(text, market):
                with contextlib.suppress(Refused):
                    slow(text, market)


@pytest.mark.parametrize("market", MARKETS)
def test_no_captured_frame_takes_the_slow_path(data, market):
    frames = read_frames(data, market)
    counts = np.zeros(len(frames), np.int64)
    bytes_, edges = pack(frames)
    decode_all(bytes_, edges, *CONTEXT[market], np.zeros(EVENT_MAX, TICK), counts)
    missed = [frames[index][:300] for index in np.flatnonzero(counts == 0)]
    assert not missed, missed[:3]


@pytest.mark.parametrize("market", MARKETS)
def test_captured_frames_equal_the_slow_path(data, market):
    frames = read_frames(data, market)
    snapshots = [frame for frame in frames if frame.startswith(b'{"lastUpdateId"')]
    for frame in random.Random(1).sample(frames, 2000) + snapshots:
        assert check(frame, market)


CHILD = """
import hashlib, sys
import numpy as np
from shrivenq.shm.kernel import COMPILED
from shrivenq.stages.messages import TICK
from shrivenq.stages.venues.binance import PADDING, decode
from shrivenq.stages.venues.binance_symbols import make_symbols
from tests.stages.venues.captures import make_instruments
instruments = make_instruments(sys.argv[1])
symbols, target, digest = make_symbols(instruments), np.zeros(200, TICK), hashlib.sha256()
for line in sys.stdin.buffer.read().split(b"\\n\\n"):
    data = np.frombuffer(line + bytes(PADDING), np.uint8)
    count = decode(data, 0, len(line), symbols, instruments, target, 5, 7)
    digest.update(b"%d" % count + target[:count].tobytes())
print(COMPILED, digest.hexdigest())
"""


@pytest.mark.parametrize("market", MARKETS)
def test_plain_python_gives_the_same_and_never_leaves_the_buffer(data, market):
    seed = 5
    rng = random.Random(seed)
    frames = sample(data, market, 300, seed, 600)
    frames += [mutate(frame, rng) for frame in frames + EXAMPLES[market] * 20]
    frames = [frame for frame in frames if b"\n" not in frame]
    target, digest = np.zeros(200, TICK), hashlib.sha256()
    for frame in frames:
        bytes_ = np.frombuffer(frame + bytes(PADDING), np.uint8)
        count = decode(bytes_, 0, len(frame), *CONTEXT[market], target, 5, 7)
        digest.update(b"%d" % count + target[:count].tobytes())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, market],
        check=False,
        input=b"\n\n".join(frames),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
    )
    assert done.stdout.decode().split() == ["False", digest.hexdigest()], f"seed {seed}: {done.stderr.decode()}"


def test_an_event_larger_than_the_target_is_not_recognised():
    bytes_ = np.frombuffer(SPOT_DEPTH + bytes(PADDING), np.uint8)
    for room in range(1, 5):
        target = np.zeros(6, TICK)
        assert decode(bytes_, 0, len(SPOT_DEPTH), *CONTEXT["spot"], target[:room], 0, 0) == 0
        assert not target[room:].tobytes().strip(b"\0")
    assert decode(bytes_, 0, len(SPOT_DEPTH), *CONTEXT["spot"], np.zeros(5, TICK), 0, 0) == 5
