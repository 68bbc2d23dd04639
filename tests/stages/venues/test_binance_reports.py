"""The scanner reads the venue's spelling of every answer, and nothing it does not understand whole."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.shm.kernel import COMPILED
from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a
from tests.stages.venues import binance_answers as frames
from tests.stages.venues.binance_answers import FRAMES, OWN, REQUEST, agree, answer, fast, slow

MUTATIONS = 2_500 if COMPILED else 200
PIECES = (
    b'"',
    b"}",
    b"]",
    b",",
    b"0",
    b"-",
    b"1e9",
    b"\\",
    b"\xff",
    b"null",
    b"{}",
    b" ",
    b"99999999999999999999",
    b"\0",
)


@pytest.mark.parametrize("name", FRAMES)
def test_what_comes_often_is_recognised_and_the_slow_path_agrees(name):
    assert agree(FRAMES[name]) is not None


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_cut_anywhere_is_not_recognised(name):
    frame = FRAMES[name]
    for stop in range(len(frame)):
        assert fast(frame[:stop]) is None


def mutate(rng, frame):
    """Change a frame in one to three places."""
    text = bytearray(frame)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text))
        what = rng.randrange(5)
        if what == 0:
            text[at] = rng.randrange(256)
        elif what == 1:
            text[at : at + rng.randint(1, 12)] = b""
        elif what == 2:
            text[at:at] = rng.choice(PIECES)
        elif what == 3:
            text[at] ^= 1 << rng.randrange(8)
        else:
            other = rng.choice(list(FRAMES.values()))
            begin = rng.randrange(len(other))
            text[at : at + rng.randint(0, 20)] = other[begin : begin + rng.randint(1, 40)]
        if not text:
            return b"{"
    return bytes(text)


@pytest.mark.parametrize("seed", range(4))
def test_a_mutated_frame_is_the_slow_path_s_or_nothing(seed):
    rng = random.Random(seed)
    recognised = 0
    for _ in range(MUTATIONS):
        frame = mutate(rng, FRAMES[rng.choice(list(FRAMES))])
        try:
            recognised += agree(frame) is not None
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {frame!r}") from error
    assert recognised > MUTATIONS // 100, f"seed {seed}"


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_not_recognised(garbage):
    assert agree(garbage) is None
    agree(b'{"id":"' + garbage)
    agree(b'{"subscriptionId":0,"event":{"e":"executionReport",' + garbage)


numbers = st.integers(0, 10**17).map(lambda scaled: f"{scaled // 10**8}.{scaled % 10**8:08d}")


@settings(deadline=None)
@given(numbers, numbers, st.integers(1, 10**18 - 1), st.integers(0, 2**42), st.integers(0, 2**62))
def test_any_numbers(quantity, filled, venue_id, time_ms, order_id):
    gone = {**frames.gone(order_id), "origQty": quantity, "executedQty": filled, "orderId": venue_id}
    frame = answer(m.CANCEL, result={**gone, "transactTime": time_ms}, target_id=order_id)
    found = agree(frame)
    good = int(filled.replace(".", "")) <= int(quantity.replace(".", "")) and order_id != 0
    assert (found is not None) == good
    if good:
        assert found[0][0]["filled"] == int(filled.replace(".", ""))
        assert found[0][0]["venue_ns"] == time_ms * 10**6


def test_microseconds_are_recognised():
    for placed in ({"transactTime": 1660801715639000}, {"transactTime": 1660801715639}):
        rows, _ = agree(answer(m.NEW, result={**frames.placed(), **placed}))
        assert rows[0]["venue_ns"] == 1660801715639 * 10**6
    for time in (10**14 - 1, 9_223_372_036_855, 9_223_372_036_854_776, -1):
        assert agree(answer(m.NEW, result={**frames.placed(), "transactTime": time})) is None


def test_a_replacement_tells_what_is_filled_of_the_order_that_is_gone():
    (row,), _ = agree(FRAMES["replaced"])
    assert (row["kind"], row["filled"]) == (m.REPLACED, 100_000)


def test_limits_are_noted():
    _, notes = fast(FRAMES["placed"])
    assert list(notes["kind"]) == [a.ANSWER, a.RATE, a.RATE, a.RATE]
    assert (notes[0]["what"], notes[0]["status"], notes[0]["order_id"]) == (m.NEW, 200, REQUEST)
    assert list(notes[1:]["what"]) == [a.ORDERS, a.ORDERS, a.WEIGHT]
    assert list(notes[1:]["interval_ns"]) == [10 * 10**9, 86_400 * 10**9, 60 * 10**9]
    assert list(notes[1:]["limit"]) == [50, 160000, 6000]
    assert list(notes[1:]["count"]) == [12, 4043, 321]


def test_an_answer_that_is_not_the_request_s_is_not_recognised():
    assert agree(answer(m.NEW, result=frames.placed(OWN))) is None
    assert agree(answer(m.CANCEL, result=frames.gone(REQUEST))) is None
    assert agree(answer(m.NEW, result=frames.placed(), instrument=2)) is None
    assert agree(answer(m.NEW, result=frames.placed(), instrument=3)) is None
    assert agree(answer(m.CANCEL, result={**frames.gone(), "status": "NEW"})) is None
    assert agree(answer(m.REPLACE, result={**frames.replaced(), "cancelResult": "FAILURE"})) is None


def test_an_instrument_of_another_venue_is_not_recognised():
    instruments = frames.make_instruments()
    only = a.make_answers(instruments, frames.make_currencies(), frames.ANSWERS.run, rows=[1])
    assert fast(FRAMES["placed"], only) is None
    assert fast(FRAMES["new"], only) is not None
    assert slow(FRAMES["placed"], only)[1][0]["kind"] == a.OTHER


@pytest.mark.parametrize(
    ("kind", "status", "code", "expected"),
    [
        (m.NEW, 400, -1013, m.REJECTED),
        (m.NEW, 400, -1121, m.REJECTED),
        (m.NEW, 400, -2010, m.REJECTED),
        (m.NEW, 400, -1007, m.UNKNOWN),
        (m.NEW, 500, -2010, m.UNKNOWN),
        (m.NEW, 503, -1008, m.UNKNOWN),
        (m.NEW, 403, -1, m.UNKNOWN),
        (m.NEW, 400, -9999, m.UNKNOWN),
        (m.CANCEL, 400, -2011, m.CANCEL_REJECTED),
        (m.CANCEL, 504, -1007, m.UNKNOWN),
        (m.CANCEL, 400, -2038, m.UNKNOWN),
    ],
)
def test_errors_are_refusals_or_unknown(kind, status, code, expected):
    rows, notes = agree(answer(kind, status=status, code=code, text="Text."))
    assert (rows[0]["kind"], rows[0]["order_id"], rows[0]["target_id"]) == (expected, REQUEST, OWN)
    assert notes[0]["code"] == code


@pytest.mark.parametrize("kind", [m.QUERY, m.REPLACE, m.AMEND, m.CANCEL_ALL, m.TRADES])
def test_what_has_more_to_it_is_the_slow_path_s(kind):
    assert agree(answer(kind, status=400, code=-2013, text="Order does not exist.")) is None
    assert fast(answer(m.NEW, status=429, code=-1015, data={"retryAfter": 1})) is None


def test_what_other_arrays_hold_does_not_matter():
    """Rows of a frame before it, and memory behind the frame, leave no trace."""
    rng = np.random.default_rng(5)
    for frame in FRAMES.values():
        data = np.concatenate([np.frombuffer(frame, np.uint8), rng.integers(0, 256, frames.PADDING, np.uint8)])
        reports = np.frombuffer(rng.bytes(m.REPORT.itemsize), m.REPORT).copy()
        notes = np.frombuffer(rng.bytes(16 * a.NOTE.itemsize), a.NOTE).copy()
        rows, count = frames.scan(data, 0, len(frame), frames.ANSWERS, reports, notes)
        expected = fast(frame)
        assert list(reports[:rows]) == list(expected[0])
        assert list(notes[:count]) == list(expected[1])


def test_plain_python_agrees_and_stays_in_its_buffer():
    # Not compiled, every read outside the frame and its padding fails.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "often or cut or mutated",
    ]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
