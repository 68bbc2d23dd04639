"""The ledger against fractions: what fills, fees and movements make of an account."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.stages import messages as m
from shrivenq.stages.live import ledger
from shrivenq.stages.live.ledger import EXPECTED, KNOWN, SLACK
from shrivenq.stages.money import OVERFLOW
from tests.stages.venue_rig import instruments_of

USD, SYM, FEE = 0, 1, 2


def currencies(*decimals):
    made = np.zeros(3, m.CURRENCY)
    made["code"], made["decimals"] = [b"USD", b"SYM", b"FEE"], decimals
    return made


FILLS = st.lists(
    st.tuples(
        st.sampled_from([m.BUY, m.SELL]), st.integers(1, 10**9), st.integers(1, 10**9), st.integers(-(10**6), 10**6),
        st.sampled_from([-1, USD, SYM, FEE]),
    ),
    max_size=20,
)  # fmt: skip
DECIMALS = st.tuples(*[st.integers(0, 10)] * 3)


def rows_of(fills):
    rows = np.zeros(len(fills), m.REPORT)
    rows["kind"] = m.FILL
    for row, fill in zip(rows, fills, strict=True):
        row["side"], row["last_price"], row["last_quantity"], row["fee"], row["fee_currency"] = fill
    return rows


@settings(deadline=None)
@given(FILLS, DECIMALS, st.integers(0, 4), st.integers(0, 8))
def test_what_is_expected_is_off_by_no_more_than_is_said(fills, decimals, price_decimals, quantity_decimals):
    table = instruments_of(
        price_decimals=price_decimals, quantity_decimals=quantity_decimals, contract_size=10**quantity_decimals
    )
    made = ledger.make_ledger(3)
    ledger.tally(made, table, currencies(*decimals), rows_of(fills))
    exact, widest = [Fraction(0)] * 3, [Fraction(0)] * 3
    for side, price, quantity, fee, paid_in in fills:
        amount = Fraction(quantity, 10**quantity_decimals)
        exact[SYM] += side * amount * 10 ** decimals[SYM]
        exact[USD] -= side * amount * Fraction(price, 10**price_decimals) * 10 ** decimals[USD]
        if paid_in >= 0:
            exact[paid_in] -= fee
        value = abs(amount * Fraction(price, 10**price_decimals) * 10 ** decimals[USD])
        widest = [max(far, abs(one), value) for far, one in zip(widest, exact, strict=True)]
    for row in (USD, SYM, FEE):
        if made[row, EXPECTED] == OVERFLOW:
            assert widest[row] > 2**62
            continue
        off = abs(exact[row] - int(made[row, EXPECTED]))
        assert off <= int(made[row, SLACK])
        if not made[row, SLACK]:
            assert off == 0
    if min(decimals) >= 8 and decimals[USD] >= price_decimals + quantity_decimals:
        assert not made[:, SLACK].any()  # the venue's own decimals: to the smallest unit


def test_what_the_venue_says_counts_from_there_on_and_movements_add_up():
    rows = rows_of([(m.BUY, 1000, 200, 5, FEE)] * 3)  # 2.00 at 100.0, three times
    said = np.zeros(3, m.REPORT)
    said["kind"], said["fee_currency"], said["quantity"] = [m.BALANCE, m.MOVED, m.MOVED], [USD, USD, FEE], [7, -9, 4]
    made = ledger.make_ledger(3)
    ledger.tally(made, instruments_of(), currencies(8, 8, 8), np.concatenate([rows[:2], said, rows[2:]]))
    assert made[USD].tolist() == [7 - 9 - 200 * 10**8, 0, 1]
    assert made[SYM].tolist() == [6 * 10**8, 0, 0]
    assert made[FEE].tolist() == [4 - 15, 0, 0]


@pytest.mark.parametrize("currency", [-1, 3])
def test_of_a_currency_that_is_none_nothing_is_taken(currency):
    said = np.zeros(1, m.REPORT)
    said["kind"], said["fee_currency"], said["quantity"] = m.BALANCE, currency, 7
    made = ledger.make_ledger(3)
    ledger.tally(made, instruments_of(), currencies(8, 8, 8), said)
    assert not made.any()


def test_a_sum_that_leaves_int64_is_not_known_any_more():
    said = np.zeros(2, m.REPORT)
    said["kind"], said["fee_currency"], said["quantity"] = [m.BALANCE, m.MOVED], FEE, 2**62
    made = ledger.make_ledger(3)
    ledger.tally(made, instruments_of(), currencies(8, 8, 8), said)
    assert made[FEE, KNOWN] == 0
