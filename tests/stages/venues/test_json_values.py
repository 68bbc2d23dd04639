"""Values of JSON are read exactly as a strict parser does, or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.shm.kernel import kernel
from shrivenq.stages.venues import json_values as j

PADDING = 64


@kernel
def read_integer(data, at, stop):
    return j.integer(data, at, stop)


@kernel
def read_string(data, at, stop):
    return j.string_end(data, at, stop)


@kernel
def read_time(value):
    return j.time_ns(value)


@kernel
def count_plain(data):
    return j.plain(j.load(data, 0))


def padded(text):
    return np.frombuffer(text + b'"' * PADDING, np.uint8)


@settings(deadline=None)
@given(st.integers(-(10**19), 10**19), st.sampled_from([b",", b"}", b".5", b"e1", b" "]))
def test_integers(value, behind):
    text = str(value).encode()
    expected = (value, len(text)) if abs(value) < 10**18 else (0, -1)
    assert read_integer(padded(text + behind), 0, len(text) + len(behind)) == expected


@pytest.mark.parametrize("text", [b"", b"-", b"01", b"-0", b"-01", b"+1", b"x", b'"1"'])
def test_what_is_no_integer(text):
    assert read_integer(padded(text), 0, len(text)) == (0, -1)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=40), st.text(max_size=30).map(lambda text: json.dumps(text)[1:-1].encode())))
def test_strings_are_plain_or_refused(text):
    bad = [at for at, byte in enumerate(text) if byte in b'"\\' or not 0x20 <= byte < 0x80]
    first = bad[0] if bad else len(text)
    expected = first if first == len(text) or text[first] == 34 else -1
    assert read_string(padded(text + b'"'), 0, len(text) + 1) == expected


def test_a_string_without_end_is_refused():
    for length in range(20):
        assert read_string(padded(b"a" * length), 0, length) == -1


@settings(deadline=None)
@given(st.binary(min_size=8, max_size=8))
def test_plain_bytes_are_counted(word):
    expected = next((at for at, byte in enumerate(word) if byte in b'"\\' or not 0x20 <= byte < 0x80), 8)
    assert count_plain(np.frombuffer(word, np.uint8)) == expected


@pytest.mark.parametrize("value", ["", "text", "a, b: {}", 0, -5, 10**17, True, False, None])
def test_values_are_passed_over(value):
    text = json.dumps(value).encode()
    assert j.skip(padded(text + b","), 0, len(text) + 1) == len(text)


@pytest.mark.parametrize("text", [b"[1]", b"{}", b"tru", b"nul", b"", b"'a'", b'"\\n"', b'"\xc3\xa9"'])
def test_others_are_not(text):
    assert j.skip(padded(text + b" "), 0, len(text)) == -1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (1499405658657, 1499405658657 * 10**6),
        (1499405658657123, 1499405658657123 * 10**3),
        (9_223_372_036_854, 9_223_372_036_854 * 10**6),
        (9_223_372_036_854_775, 9_223_372_036_854_775 * 10**3),
        (9_223_372_036_855, -1),
        (9_223_372_036_854_776, -1),
        (10**14 - 1, -1),
        (-1, -1),
    ],
)
def test_times_in_either_unit(value, expected):
    assert read_time(value) == expected


def test_plain_python_gives_the_same():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "not gives"]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
