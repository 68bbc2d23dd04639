"""Client order ids, currencies and fresh rows."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.shm.kernel import kernel
from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a

RUN = b"a1b2c3d4"
numbers = st.one_of(st.integers(0, 2**63 - 1), st.integers(0, 20).map(lambda n: n << m.EPOCH_SHIFT | n))


def read(text, run=RUN):
    data = np.frombuffer(text + b'"' * 64, np.uint8)
    return a.read_client_id(data, 0, len(text), np.frombuffer(run, np.uint8))


@kernel
def currency_of(assets, data, length):
    return a.find_currency(assets, data, 0, length)


@settings(deadline=None)
@given(numbers, st.text("abc0189", min_size=1, max_size=14))
def test_our_own_ids_read_back(order_id, run):
    text = m.client_order_id(run.encode(), order_id)
    assert read(text, run.encode()) == (order_id if len(text) <= 36 else 0)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=40), st.from_regex(rb"\Aa1b2c3d4-[0-9]{0,9}-?[0-9]{0,15}\Z")))
def test_other_texts_are_foreign(text):
    found = re.fullmatch(rb"a1b2c3d4-(0|[1-9][0-9]*)-(0|[1-9][0-9]*)", text)
    expected = 0
    if found and int(found[1]) < 1 << 23 and int(found[2]) < 1 << 40:
        expected = int(found[1]) << 40 | int(found[2])
    assert read(text) == expected


@pytest.mark.parametrize(
    ("code", "row"), [(b"BTC", 0), (b"LONGCODE", 1), (b"BT", -1), (b"BTCX", -1), (b"", -1), (b"LONGCODEX", -1)]
)
def test_currencies_are_found_whole(code, row):
    assets = np.array([int.from_bytes(one, "little") for one in (b"BTC", b"LONGCODE")], np.int64)
    assert currency_of(assets, np.frombuffer(code + b"X" * 64, np.uint8), len(code)) == row


def test_answers_know_each_currency_s_code():
    instruments, currencies = np.zeros(1, m.INSTRUMENT), np.zeros(2, m.CURRENCY)
    instruments["symbol"], currencies["code"] = b"BTCUSDT", [b"BTC", b"USDT"]
    made = a.make_answers(instruments, currencies, np.frombuffer(RUN, np.uint8))
    assert [int(word).to_bytes(8, "little").rstrip(b"\0") for word in made.assets] == [b"BTC", b"USDT"]


def test_fresh_rows_keep_nothing():
    rng = np.random.default_rng(1)
    reports = np.frombuffer(rng.bytes(2 * m.REPORT.itemsize), m.REPORT).copy()
    a.put_row(reports, 1, m.CANCELLED, 5, 6, 2, 3)
    expected = {"kind": m.CANCELLED, "order_id": 5, "target_id": 6, "instrument": 2, "reason": 3, "slot": -1}
    expected["flags"] = m.FINAL
    assert {name: int(reports[1][name]) for name in m.REPORT.names} == {
        name: expected.get(name, 0) for name in m.REPORT.names
    }
    notes = np.frombuffer(rng.bytes(2 * a.NOTE.itemsize), a.NOTE).copy()
    a.put_note(notes, 1, a.RATE, a.ORDERS, -1)
    assert notes[1].item() == (a.RATE, -1, a.ORDERS, *[0] * (len(a.NOTE.names) - 3))
