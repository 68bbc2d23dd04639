"""A request's id says all that its answer does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.shm.kernel import kernel
from shrivenq.stages import messages as m
from shrivenq.stages.venues import request_ids as ids

SENT = (m.NEW, m.CANCEL, m.REPLACE, m.QUERY, m.AMEND, m.CANCEL_ALL, m.TRADES)
number = st.one_of(st.integers(0, 2**63 - 1), st.integers(0, 100))


@kernel
def write(buffer, at, kind, instrument, order_id, target_id):
    return ids.put_id(buffer, at, kind, instrument, order_id, target_id)


@kernel
def read(data, at):
    return ids.read_id(data, at)


def spelled(kind, instrument, order_id, target_id):
    return f"{ids.KINDS[kind]}{instrument:03x}{order_id:016x}{target_id:016x}".encode()


@settings(deadline=None)
@given(st.sampled_from(SENT), st.integers(0, ids.INSTRUMENTS_MAX - 1), number, number)
def test_an_id_reads_back_and_is_what_it_says(kind, instrument, order_id, target_id):
    buffer = np.full(ids.LENGTH + 2, 46, np.uint8)
    assert write(buffer, 1, kind, instrument, order_id, target_id) == ids.LENGTH + 1
    assert buffer.tobytes() == b"." + spelled(kind, instrument, order_id, target_id) + b"."
    assert read(buffer, 1) == (kind, instrument, order_id, target_id)
    assert ids.read_id_slow(buffer[1:-1].tobytes().decode()) == (kind, instrument, order_id, target_id)


@settings(deadline=None)
@given(st.sampled_from(SENT), number, number, st.integers(0, ids.LENGTH - 1), st.integers(0, 255))
def test_a_changed_character_is_another_id_or_none(kind, order_id, target_id, at, byte):
    text = bytearray(spelled(kind, 7, order_id, target_id))
    text[at] = byte
    found = read(np.frombuffer(bytes(text), np.uint8), 0)
    assert ids.read_id_slow(text.decode("latin-1")) == found
    if found[0] == 0:
        assert found == (0, -1, 0, 0)
    else:
        assert spelled(*found) == bytes(text)


@pytest.mark.parametrize("text", [b"0" * 36, b"E" * 36, b"\0" * 36, b"N000" + b"f" * 32, b"N000" + b"8" + b"0" * 31])
def test_what_is_no_id(text):
    assert read(np.frombuffer(text, np.uint8), 0)[0] == 0


@pytest.mark.parametrize("name", [None, 7, "", "l", "N" * 35, "N" + "0" * 36])
def test_ids_that_others_gave(name):
    assert ids.read_id_slow(name) == (0, -1, 0, 0)
