"""Which codes are refusals and which leave the outcome open, as the venue documents them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.stages import messages as m
from shrivenq.stages.venues import binance_reports_slow as slow
from shrivenq.stages.venues.refusals import is_definite, reason_of

DEFINITE = {-1013, -1015, -1021, -1022, -2010, -2011, -2013, -2014, -2015, *range(-1199, -1099)}
TEXTS = [beginning for beginning, _ in slow._TEXTS] + [f"Filter failure: {name}" for name, _ in slow._FILTERS]


@pytest.mark.parametrize("status", [400, 403, 409])
def test_every_code(status):
    found = {code for code in range(-10_000, 0) if is_definite(m.NEW, status, code)}
    assert found == DEFINITE
    assert {code for code in range(-10_000, 0) if is_definite(m.AMEND, status, code)} == DEFINITE | {-2038}


@pytest.mark.parametrize("code", [-1000, -2010, -1007])
def test_the_status_goes_before_the_code(code):
    for status in (401, 418, 429):
        assert is_definite(m.NEW, status, code)
    for status in (500, 502, 503, 504, 599):
        assert not is_definite(m.NEW, status, code)


changed = st.tuples(st.sampled_from(TEXTS), st.integers(0, 60), st.text("AZ_.", max_size=5))
text = st.one_of(
    st.text("abc .:", max_size=30),
    st.sampled_from(TEXTS),
    changed.map(lambda found: found[0][: found[1]] + found[2]),
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([400, 401, 418, 429]), st.sampled_from([*DEFINITE, -1003, -9]), text)
def test_reasons_agree_with_the_slow_path(status, code, words):
    data = np.frombuffer(words.encode() + b'"' * 64, np.uint8)
    assert m.REASONS[reason_of(status, code, data, 0, len(words))] == slow._reason(status, code, words)
    assert is_definite(m.NEW, status, code) == slow._is_definite(m.NEW, status, code)
