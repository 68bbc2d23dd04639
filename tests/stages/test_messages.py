"""The schema: sizes, offsets and meanings, so that no edit moves a field unseen."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from shrivenq.stages import messages as m

SIZES = {
    "TICK": 64, "BOOK": 448, "TOUCH": 64, "INTENT": 128, "ORDER": 192, "REPORT": 192, "INSTRUMENT": 192, "CURRENCY": 16,
}  # fmt: skip
TABLES = ("INSTRUMENT", "CURRENCY")
"""Tables, not messages: they are never on a ring."""
LINE = 64

every = pytest.mark.parametrize("name", SIZES)
every_message = pytest.mark.parametrize("name", [name for name in SIZES if name not in TABLES])


def test_the_table_of_messages_is_whole():
    assert {name: dtype.itemsize for name, (dtype, _) in m.MESSAGES.items()} == SIZES
    found = {name for name, value in vars(m).items() if isinstance(value, np.dtype)}
    assert found == set(SIZES)


@every
def test_a_dtype_is_what_its_rows_say(name):
    dtype, rows = m.MESSAGES[name]
    assert dtype.isalignedstruct
    assert dtype.names == tuple(row[0] for row in rows)
    for field, form, offset, _ in rows:
        assert dtype.fields[field][:2] == (np.dtype(form), offset)
        base = np.dtype(form).base
        assert base.kind == "S" or offset % base.itemsize == 0, f"{name}.{field} is not aligned"
        assert offset + np.dtype(form).itemsize <= dtype.itemsize


@every_message
def test_messages_are_whole_cache_lines_with_one_header(name):
    dtype, rows = m.MESSAGES[name]
    assert dtype.itemsize % LINE == 0
    assert rows[: len(m.HEADER_FIELDS)] == m.HEADER_FIELDS
    assert min(offset for _, _, offset, _ in rows[len(m.HEADER_FIELDS) :]) == 32


def test_the_header_is_32_bytes_without_a_hole():
    at = 0
    for _, form, offset, _ in m.HEADER_FIELDS:
        assert offset == at
        at += np.dtype(form).itemsize
    assert at == 32


def kinds_in(meaning):
    """Record kinds a field's meaning begins with, `LEVEL, TRADE: price`; none if it holds for every kind."""
    head, colon, _ = meaning.partition(": ")
    found = head.split(", ")
    return set(found) if colon and all(re.fullmatch(r"[A-Z_]+", one) for one in found) else set()


@every
def test_fields_that_share_bytes_are_alternatives_told_apart_by_kind(name):
    _, rows = m.MESSAGES[name]
    spans = [(field, offset, offset + np.dtype(form).itemsize, kinds_in(text)) for field, form, offset, text in rows]
    for (one, begin, end, kinds), (other, start, stop, others) in combinations(spans, 2):
        if begin < stop and start < end:
            if name == "BOOK" and {"TRADE"} in (kinds, others):
                # A TRADE has no levels: its price and quantity stand where the best bid's do.
                assert begin == start, f"{name}: {one} and {other} overlap in part"
                continue
            assert kinds, f"{name}: {one} and {other} overlap, and {one} does not say for which kinds it is"
            assert others, f"{name}: {one} and {other} overlap, and {other} does not say for which kinds it is"
            assert not kinds & others, f"{name}: {one} and {other} overlap for {kinds & others}"
            assert (begin, end) == (start, stop), f"{name}: {one} and {other} overlap in part"


@every
def test_every_field_has_a_meaning(name):
    for field, _, _, meaning in m.MESSAGES[name][1]:
        assert meaning.strip(), f"{name}.{field} has no meaning"
        if field.endswith("_ns"):
            assert "stamp" in meaning or "ns since 1970" in meaning, f"{name}.{field} does not say which clock it is of"


@pytest.mark.parametrize(
    "family",
    [
        ("SNAPSHOT", "DIFF", "LEVEL", "TRADE", "QUOTE", "TIMER", "END", "LOST", "DEPTH_BOOK"),
        ("NEW", "CANCEL", "REPLACE", "QUERY", "ECHO", "AMEND", "CANCEL_ALL", "TRADES"),
        (
            "ACCEPTED", "FILL", "CANCELLED", "REPLACED", "REJECTED", "EXPIRED", "CANCEL_REJECTED", "UNKNOWN", "DENIED",
            "ABSENT", "AMENDED", "AMEND_REJECTED",
        ),
        ("LIMIT", "MARKET", "LIMIT_MAKER", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"),
        ("STP_NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER"),
        ("GTC", "IOC", "FOK"),
        ("BUY", "SELL"),
    ],
)  # fmt: skip
def test_no_two_kinds_share_a_number(family):
    values = [getattr(m, name) for name in family]
    assert len(set(values)) == len(values)
    assert 0 not in values, "a zeroed record is of no kind"


def test_flags_are_single_bits_that_fit():
    flags = [
        m.SIDE_ASK, m.SELLER_AGGRESSED, m.VALID, m.BLIND, m.GAP, m.BUILDING, m.REDUCING, m.FORCED, m.MAKER, m.FINAL,
    ]  # fmt: skip
    assert flags == [1 << bit for bit in range(len(flags))]
    assert max(flags) <= np.iinfo("<i2").max


def test_reasons_are_named_once_and_fit():
    assert m.REASONS[0] == "none"
    assert len(set(m.REASONS)) == len(m.REASONS) <= np.iinfo("<i2").max
    assert [m.REASONS[code] for code in m.REASON.values()] == list(m.REASON)


@pytest.mark.parametrize("epoch", [1, 77, (1 << 23) - 1])
@pytest.mark.parametrize("number", [1, 123_456, (1 << m.EPOCH_SHIFT) - 1])
def test_client_order_ids_are_what_binance_allows_and_differ(epoch, number):
    order_id = epoch << m.EPOCH_SHIFT | number
    assert 0 < order_id < 1 << 63
    spelled = m.client_order_id(b"0123abcd", order_id)
    assert re.fullmatch(rb"[a-zA-Z0-9-_]{1,36}", spelled)
    assert spelled == f"0123abcd-{epoch}-{number}".encode()
