"""The compiled SBE decoder gives the slow path's answer or none, whatever the bytes."""

from __future__ import annotations

import hashlib
import os
import random
import struct
import subprocess
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.shm.kernel import COMPILED
from shrivenq.stages.messages import DIFF, END, LEVEL, QUOTE, SELLER_AGGRESSED, SIDE_ASK, SNAPSHOT, TICK, TRADE
from shrivenq.stages.venues import binance_sbe
from shrivenq.stages.venues.binance_sbe import EVENT_MAX, PADDING, TRADES_MAX, US_MAX, decode
from shrivenq.stages.venues.binance_sbe_slow import TEMPLATES, decode_slow
from shrivenq.stages.venues.binance_slow import Refused
from shrivenq.stages.venues.binance_symbols import make_symbols
from tests.stages.venues import sbe_frames as build
from tests.stages.venues.captures import MARKETS, make_instruments
from tests.stages.venues.sbe_frames import EVENT_US, VECTORS

TIME_NS, CAUSE = 1_770_000_000_200_000_000, 77
CONTEXT = {market: (make_symbols(make_instruments(market)), make_instruments(market)) for market in MARKETS}
TARGET, EXPECTED = np.zeros(EVENT_MAX, TICK), np.zeros(EVENT_MAX, TICK)


def fast(frame, behind=b"", market="spot"):
    """Decode a frame with nothing, or `behind`, after it; the event, or None where it is not recognised."""
    data = np.frombuffer(frame + behind.ljust(PADDING, b"\0"), np.uint8)
    count = decode(data, 0, len(frame), *CONTEXT[market], TARGET, TIME_NS, CAUSE)
    return TARGET[:count].copy() if count else None


def check(frame, market="spot"):
    """The decoder recognises exactly what the slow path reads, and reads the same."""
    found = fast(frame, b"\xff" * PADDING, market)
    try:
        count = decode_slow(frame, *CONTEXT[market], EXPECTED, TIME_NS, CAUSE)
    except Refused as error:
        if found is not None:
            pytest.fail(f"decoded what is refused ({error}): {frame.hex()}")
        return False
    assert (found is None) == (count == 0), f"{count} records expected: {frame.hex()}"
    assert found is None or found.tobytes() == EXPECTED[:count].tobytes(), frame.hex()
    return found is not None


def rows(event):
    return [(int(r["kind"]), int(r["flags"]), int(r["price"]), int(r["quantity"]), int(r["id"])) for r in event]


def test_the_vectors_of_the_protocol_sheet_become_these_records():
    assert rows(fast(VECTORS["trades"])) == [
        (TRADE, SELLER_AGGRESSED, 9_500_012, 150_000_000, 5_000_001),
        (TRADE, 0, 9_500_013, 2_500_000, 5_000_002),
        (END, 0, 0, 0, 2),
    ]
    assert rows(fast(VECTORS["best"])) == [
        (QUOTE, 0, 9_500_012, 150_000_000, 77_000_000_001),
        (QUOTE, SIDE_ASK, 9_500_013, 2_500_000, 77_000_000_001),
        (END, 0, 0, 0, 2),
    ]
    assert rows(fast(VECTORS["depth20"])) == [
        (SNAPSHOT, 0, 0, 77_000_000_001, 0),
        (LEVEL, 0, 9_500_012, 150_000_000, 0),
        (LEVEL, SIDE_ASK, 9_500_013, 2_500_000, 0),
        (END, 0, 0, 0, 3),
    ]
    assert rows(fast(VECTORS["depth"])) == [
        (DIFF, 0, 77_000_000_002, 77_000_000_005, -1),
        (LEVEL, 0, 9_500_012, 0, 0),
        (LEVEL, 0, 9_500_011, 7_000_000, 0),
        (END, 0, 0, 0, 3),
    ]
    for name, frame in VECTORS.items():
        assert check(frame), name
        event = fast(frame)
        assert set(event["time_ns"]) == {TIME_NS}
        assert set(event["cause"]) == {CAUSE}
        assert event[0]["venue_ns"] == EVENT_US * 1000


def test_the_frames_the_tests_build_are_the_vectors():
    trades = [(5_000_001, 9_500_012, 150_000, 1), (5_000_002, 9_500_013, 2_500, 0)]
    assert build.trades(trades) == VECTORS["trades"]
    bid, ask = (9_500_012, 150_000), (9_500_013, 2_500)
    assert build.best(77_000_000_001, bid, ask) == VECTORS["best"]
    assert build.depth20(77_000_000_001, [bid], [ask]) == VECTORS["depth20"]
    deleted = [(9_500_012, 0), (9_500_011, 7_000)]
    frame = build.depth(77_000_000_002, 77_000_000_005, deleted, [])
    # An empty group may say any block length: the sheet's says 16, ours 0.
    assert frame[:-12] + struct.pack("<HH", 16, 0) + frame[-8:] == VECTORS["depth"]
    assert fast(frame).tobytes() == fast(VECTORS["depth"]).tobytes()


def test_the_blocks_are_those_of_the_venues_schema(data):
    codes = {
        "utcTimestampUs": "q",
        "updateId": "q",
        "tradeId": "q",
        "mantissa64": "q",
        "exponent8": "b",
        "boolEnum": "B",
    }
    root = ET.parse(data / "binance_schemas" / "sbe" / "stream_1_0.xml").getroot()  # noqa: S314 - our own file
    assert (root.get("id"), root.get("version"), root.get("byteOrder")) == ("1", "0", "littleEndian")

    def form(node):
        return "<" + "".join(codes[f.get("type")] for f in node.findall("field") if f.get("presence") != "constant")

    found = {}
    for node in root:
        if node.tag.endswith("message"):
            found[int(node.get("id"))] = (node.get("name"), form(node))
            for group in node.findall("group"):
                trades = group.get("name") == "trades"
                assert form(group) == ("<qqqB" if trades else "<qq")
                assert group.get("dimensionType", "groupSizeEncoding") == (
                    "groupSizeEncoding" if trades else "groupSize16Encoding"
                )
            assert [one.get("type") for one in node.findall("data")] == ["varString8"]
    assert found == TEMPLATES
    for name, template in (("TRADES", 10_000), ("BEST", 10_001), ("DEPTH20", 10_002), ("DEPTH", 10_003)):
        assert getattr(binance_sbe, name) == template
        assert getattr(binance_sbe, f"{name}_BLOCK") == struct.calcsize(found[template][1])


def test_a_short_frame_is_not_completed_by_what_lies_behind_it():
    for name, frame in VECTORS.items():
        for cut in range(len(frame)):
            assert fast(frame[:cut], frame[cut:]) is None, f"{name} cut at {cut}"
            assert not check(frame[:cut])


def test_what_a_newer_schema_appends_is_passed_over():
    trades = [(5_000_001, 9_500_012, 150_000, 1), (5_000_002, 9_500_013, 2_500, 0)]
    bid, ask = (9_500_012, 150_000), (9_500_013, 2_500)
    for longer in (1, 7, 300):
        assert rows(fast(build.trades(trades, longer=longer))) == rows(fast(VECTORS["trades"]))
        assert rows(fast(build.best(77_000_000_001, bid, ask, longer=longer))) == rows(fast(VECTORS["best"]))
        assert rows(fast(build.depth20(77_000_000_001, [bid], [ask], longer=longer))) == rows(fast(VECTORS["depth20"]))
        check(build.depth(5, 7, [bid, bid], [ask], longer=longer))
    for frame in VECTORS.values():
        for behind in (b"\0", b"BTCUSDT" * 40):
            assert fast(frame + behind).tobytes() == fast(frame).tobytes()
            assert check(frame + behind)
        newer = frame[:6] + struct.pack("<H", 9) + frame[8:]
        assert fast(newer).tobytes() == fast(frame).tobytes()


def test_another_schema_or_template_is_not_recognised(data):
    for frame in VECTORS.values():
        for schema in (0, 2, 3, 0xFFFF):
            assert not check(frame[:4] + struct.pack("<H", schema) + frame[6:])
        for template in (0, 9_999, 10_004, 0xFFFF):
            assert not check(frame[:2] + struct.pack("<H", template) + frame[4:])
    for path in (data / "binance_sbe_frames").glob("*.sbe"):  # user data: schema 3
        assert not check(path.read_bytes())


def test_a_block_shorter_than_its_fields_is_not_recognised():
    for name, frame in VECTORS.items():
        for block in range(struct.unpack_from("<H", frame)[0]):
            assert not check(struct.pack("<H", block) + frame[2:]), (name, block)
    for size in range(16):
        assert not check(build.depth(5, 7, [(1, 1)], [], size=size))
    for size in range(25):
        assert not check(build.trades([(1, 1, 1, 0)], size=size))


def test_a_group_that_claims_more_than_there_is_is_not_recognised():
    for count in (2, 3, 0xFFFF):
        assert not check(build.depth(5, 7, [(1, 1)], [], count=count))
        assert not check(build.depth(5, 7, [(1, 1)], [], count=count, size=0xFFFF))
    for count in (2, TRADES_MAX + 1, 0x7FFF_FFFF, 0xFFFF_FFFF):
        assert not check(build.trades([(1, 1, 1, 0)], count=count))
        assert not check(build.trades([(1, 1, 1, 0)], count=count, size=0xFFFF))
        assert not check(build.trades([(1, 1, 1, 0)], count=count, size=0))
    assert check(build.trades([(1, 1, 1, 0)] * TRADES_MAX))
    assert not check(build.trades([(1, 1, 1, 0)] * (TRADES_MAX + 1)))
    assert not check(build.trades([]))
    half = [(1, 1)] * (EVENT_MAX // 2 - 1)
    assert check(build.depth(5, 7, half, half))
    assert not check(build.depth(5, 7, [*half, (1, 1)], half))


@pytest.mark.parametrize("exponent", [-128, -21, -20, -18, -9, -8, -3, -2, -1, 0, 8, 9, 10, 15, 16, 17, 18, 127])
def test_numbers_at_every_exponent_are_exact_or_refused(exponent):
    numbers = {0, 1, 5, 10, 10**6, 123_456_700, 10**17, 10**18 - 1, 10**18, 2**63 - 1, -1, -(2**63)}
    numbers |= {10**power + delta for power in range(1, 19) for delta in (-1, 0, 1)}
    for number in numbers:
        for price, quantity in ((number, 0), (1, number), (number, number)):
            check(build.depth(5, 7, [(price, quantity)], [], exponents=(exponent, -8)))
            check(build.depth(5, 7, [], [(price, quantity)], exponents=(-2, exponent)))
            check(build.trades([(9, price, quantity, 1)], exponents=(exponent, exponent)))
            check(build.best(3, (price, quantity), (1, 1), exponents=(exponent, exponent)))


def test_a_digit_the_instrument_cannot_hold_is_refused():
    assert rows(fast(build.depth(5, 7, [(9_500_012_000_000, 7)], [], exponents=(-8, -8))))[1][2:4] == (9_500_012, 7)
    assert not check(build.depth(5, 7, [(9_500_012_000_001, 7)], [], exponents=(-8, -8)))
    assert not check(build.depth(5, 7, [(1, 1)], [], exponents=(-2, -9)))
    assert rows(fast(build.depth(5, 7, [(95, 3)], [], exponents=(3, 0))))[1][2:4] == (9_500_000, 300_000_000)


def test_ids_and_times_out_of_range_are_refused():
    for number in (0, 1, 10**16, 2**63 - 1, -1, -(2**63)):
        check(build.depth(number, number, [], []))
        check(build.depth(0, number, [], []))
        check(build.depth20(number, [], []))
        check(build.best(number, (1, 1), (2, 1)))
        check(build.trades([(number, 1, 1, 0)]))
    assert not check(build.depth(8, 7, [], []))
    for event_us in (US_MAX, US_MAX + 1, 0, -1):
        good = 0 <= event_us <= US_MAX
        assert check(build.depth(5, 7, [], [], event_us=event_us)) == good
        assert check(build.depth20(5, [], [], event_us=event_us)) == good
        assert check(build.best(5, (1, 1), (2, 1), event_us=event_us)) == good
        assert check(build.trades([(1, 1, 1, 0)], event_us=event_us)) == good


def test_an_empty_side_is_zero_and_nothing_else_is():
    assert check(build.best(5, (0, 0), (2, 1)))
    assert check(build.best(5, (0, 0), (0, 0)))
    assert not check(build.best(5, (0, 1), (2, 1)))
    assert not check(build.best(5, (1, 1), (2, 0)))
    assert not check(build.trades([(1, 1, 0, 0)]))
    assert not check(build.trades([(1, 0, 1, 0)]))
    for is_buyer_maker in (2, 254, 255):
        assert not check(build.trades([(1, 1, 1, is_buyer_maker)]))
    assert not check(build.depth(5, 7, [(0, 1)], []))


def test_symbols_of_every_length_are_told_apart():
    names = [b"B", b"BTC", b"BTCUSD", b"BTCUSDT", b"BTCUSDTX", b"1000SATSUSDT", b"ABCDEFGHIJKLMNO", b"ABCDEFGHIJKLMNOP"]
    instruments = np.repeat(make_instruments("spot"), len(names))
    instruments["symbol"] = names
    symbols = make_symbols(instruments)
    others = [
        b"",
        b"BT",
        b"BTCUSDT\0",
        b"BTCUSD\0",
        b"btcusdt",
        b"ABCDEFGHIJKLMNOPQ",
        b"\xc3\xa9\xe4\xbd\xa0",
        b"X" * 255,
    ]
    for row, name in [*enumerate(names), *((-1, name) for name in others)]:
        for frame in (build.best(5, (1, 1), (2, 1), symbol=name), build.trades([(1, 1, 1, 0)], symbol=name)):
            for behind in (b"\0", b"T", b"\xff"):
                data = np.frombuffer(frame + behind * PADDING, np.uint8)
                count = decode(data, 0, len(frame), symbols, instruments, TARGET, 0, 0)
                assert (count > 0) == (row >= 0), name
                if row < 0:
                    with pytest.raises(Refused, match="unknown symbol"):
                        decode_slow(frame, symbols, instruments, EXPECTED, 0, 0)
                else:
                    assert decode_slow(frame, symbols, instruments, EXPECTED, 0, 0) == count
                    assert TARGET[0]["instrument"] == EXPECTED[0]["instrument"] == row


def test_a_futures_instrument_has_no_sbe():
    for frame in VECTORS.values():
        assert not check(frame, "usdm")


def test_a_frame_is_decoded_wherever_it_lies():
    frames = list(VECTORS.values())
    for shift in range(9):
        data = np.frombuffer(b"\x01" * shift + b"".join(frames) + bytes(PADDING), np.uint8)
        at = shift
        for frame in frames:
            count = decode(data, at, at + len(frame), *CONTEXT["spot"], TARGET, TIME_NS, CAUSE)
            assert TARGET[:count].tobytes() == fast(frame).tobytes()
            at += len(frame)


def test_an_event_larger_than_the_target_is_not_recognised():
    for frame in VECTORS.values():
        need = len(fast(frame))
        data = np.frombuffer(frame + bytes(PADDING), np.uint8)
        for room in range(1, need):
            target = np.zeros(need + 1, TICK)
            assert decode(data, 0, len(frame), *CONTEXT["spot"], target[:room], 0, 0) == 0
            assert not target[room:].tobytes().strip(b"\0")
            with pytest.raises(Refused, match="room for"):
                decode_slow(frame, *CONTEXT["spot"], target[:room], 0, 0)
        assert decode(data, 0, len(frame), *CONTEXT["spot"], np.zeros(need, TICK), 0, 0) == need


def random_frame(rng):
    """A frame of any template, mostly sensible."""
    exponents = rng.choice(((-2, -5), (-2, -8), (-8, -8), (0, 0)))
    longer = rng.choice((0, 0, 0, 1, 5))

    def pair(zero):
        scale = 10**6 if exponents[0] == -8 else 1
        return rng.randrange(1, 10**7) * scale, zero * rng.randrange(1, 10**6)

    way = rng.randrange(4)
    if way == 0:
        some = [(rng.randrange(10**9), *pair(1), rng.randrange(2)) for _ in range(rng.randrange(1, 6))]
        return build.trades(some, exponents=exponents, longer=longer)
    if way == 1:
        return build.best(rng.randrange(10**12), pair(1), pair(1), exponents=exponents, longer=longer)
    bids, asks = ([pair(rng.randrange(2)) for _ in range(rng.randrange(6))] for _ in range(2))
    if way == 2:
        return build.depth20(rng.randrange(10**12), bids, asks, exponents=exponents, longer=longer)
    first = rng.randrange(10**12)
    return build.depth(first, first + rng.randrange(9), bids, asks, exponents=exponents, longer=longer)


def mutate(frame, rng):
    """Change a frame in one to three of the ways in which frames go wrong."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(frame) + 1)
        end = min(len(frame), at + rng.randint(1, 20))
        way = rng.randrange(6)
        if way == 0:
            frame = frame[:at] + bytes([rng.choice((0, 1, 2, 16, 127, 128, 255, rng.randrange(256)))]) + frame[at + 1 :]
        elif way == 1:
            frame = frame[:at] + rng.randbytes(rng.randint(1, 20)) + frame[at:]
        elif way == 2:
            frame = frame[:at] + frame[end:]
        elif way == 3:
            frame = frame[:at]
        elif way == 4:
            frame = frame[:at] + frame[at:end] + frame[at:]
        elif len(frame) > 8:
            at = rng.randrange(len(frame) - 7)
            number = rng.choice((0, 1, 10**6, 2**63 - 1, -1, -(2**63), rng.randrange(-(2**63), 2**63)))
            frame = frame[:at] + struct.pack("<q", number) + frame[at + 8 :]
    return frame


def test_random_frames_are_recognised_and_mutated_ones_give_the_slow_answer_or_none():
    seed = 10_003
    rng = random.Random(seed)
    recognised = 0
    for _ in range(4000):
        frame = random_frame(rng)
        assert check(frame), f"seed {seed}: {frame.hex()}"
        recognised += sum(check(mutate(frame, rng)) for _ in range(5))
    assert recognised > 1000, f"seed {seed}: too few mutations were still frames"


def test_every_single_byte_changed_gives_the_slow_answer_or_none():
    for frame in VECTORS.values():
        for at in range(len(frame)):
            for byte in range(256):
                check(frame[:at] + bytes([byte]) + frame[at + 1 :])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_hypothesis_finds_no_frame_decoded_otherwise(data):
    frame = data.draw(st.sampled_from(list(VECTORS.values())))
    at = data.draw(st.integers(0, len(frame)))
    end = data.draw(st.integers(at, min(len(frame), at + 12)))
    check(frame[:at] + data.draw(st.binary(max_size=24)) + frame[end:])


@settings(max_examples=300, deadline=None)
@given(st.integers(9_998, 10_005), st.integers(0, 60), st.binary(max_size=200))
def test_hypothesis_finds_no_bytes_behind_a_header_decoded_otherwise(template, block, rest):
    check(struct.pack("<HHHH", block, template, 1, 0) + rest)


CHILD = """
import hashlib, sys
import numpy as np
from shrivenq.shm.kernel import COMPILED
from shrivenq.stages.messages import TICK
from shrivenq.stages.venues.binance_sbe import PADDING, decode
from shrivenq.stages.venues.binance_symbols import make_symbols
from tests.stages.venues.captures import make_instruments
instruments = make_instruments("spot")
symbols, target, digest = make_symbols(instruments), np.zeros(50, TICK), hashlib.sha256()
for line in sys.stdin.read().split():
    frame = bytes.fromhex(line)
    data = np.frombuffer(frame + bytes(PADDING), np.uint8)
    count = decode(data, 0, len(frame), symbols, instruments, target, 5, 7)
    digest.update(b"%d" % count + target[:count].tobytes())
print(COMPILED, digest.hexdigest())
"""


def test_plain_python_gives_the_same_and_never_leaves_the_buffer():
    seed = 5
    rng = random.Random(seed)
    frames = [random_frame(rng) for _ in range(300)] + list(VECTORS.values())
    frames = [frame for frame in frames + [mutate(frame, rng) for frame in frames * 4] if frame]
    target, digest = np.zeros(50, TICK), hashlib.sha256()
    for frame in frames:
        bytes_ = np.frombuffer(frame + bytes(PADDING), np.uint8)
        count = decode(bytes_, 0, len(frame), *CONTEXT["spot"], target, 5, 7)
        digest.update(b"%d" % count + target[:count].tobytes())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD],
        check=False,
        input="\n".join(frame.hex() for frame in frames).encode(),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1" if COMPILED else "0"},
        capture_output=True,
    )
    assert done.stdout.decode().split() == [str(not COMPILED), digest.hexdigest()], (
        f"seed {seed}: {done.stderr.decode()}"
    )
