"""Words of text: compiled, plain and obvious answers agree."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.shm.kernel import kernel
from shrivenq.stages.venues.text import before, digits, fraction, load, matches, put, store, whole

eight = st.one_of(st.binary(min_size=8, max_size=8), st.text("0123456789.", min_size=8, max_size=8).map(str.encode))


@kernel
def read(data, at, count, decimals):
    word = load(data, at)
    return digits(word), before(word, 46), whole(word, count), fraction(word, count, decimals)


@kernel
def is_hello(data, at):
    return matches(data, at, "hello"), matches(data, at, "hello, world"), matches(data, at, "h")


@kernel
def greet(data, at):
    at = put(data, at, "hello")
    at = put(data, at, ", wonderful world")
    store(data, at, load(data, 0))
    return at


@settings(deadline=None)
@given(eight, st.integers(0, 8), st.integers(0, 8))
def test_word_functions_agree_with_python(text, count, decimals):
    data = np.frombuffer(b"x" + text + b"0", np.uint8)
    leading = len(text) - len(text.lstrip(b"0123456789"))
    count = min(count, leading)
    number = text[:count].ljust(8, b"0")
    kept = int(number[:decimals] or b"0") if not number[decimals:].strip(b"0") else -1
    dot = text.find(b".")
    assert read(data, 1, count, decimals) == (leading, 8 if dot < 0 else dot, int(text[:count] or b"0"), kept)


def test_matches_compares_every_byte():
    text = b"hello, world"
    assert is_hello(np.frombuffer(b"_" + text, np.uint8), 1) == (True, True, True)
    for at in range(len(text)):
        for bit in range(8):
            other = bytearray(text)
            other[at] ^= 1 << bit
            assert is_hello(np.frombuffer(bytes(other), np.uint8), 0) == (at >= 5, False, at >= 1)


def test_put_and_store_write_exactly_their_bytes():
    data = np.full(60, ord("."), np.uint8)
    data[:8] = np.frombuffer(b"12345678", np.uint8)
    assert greet(data, 10) == 32
    assert data.tobytes() == b"12345678..hello, wonderful world12345678" + b"." * 20


def test_plain_python_gives_the_same():
    # The child runs this very file's other tests without compilation.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "not plain"]
    done = subprocess.run(
        command, check=False, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
