"""Positions against fractions, and the sums that must be exact."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shrivenq.stages import positions as p
from shrivenq.stages.messages import BUY, CURRENCY, INSTRUMENT, SELL
from shrivenq.stages.money import OVERFLOW

LINEAR, INVERSE, FRACTION = 0, 1, 2
BTC, USD, BNB = 0, 1, 2


def tables():
    """Spot BTC in USD; BTC in contracts of 100 USD; linear in contracts of 0.01."""
    currencies = np.zeros(3, CURRENCY)
    currencies["decimals"] = 8
    instruments = np.zeros(3, INSTRUMENT)
    instruments["base_currency"], instruments["quote_currency"] = BTC, USD
    instruments["settle_currency"] = USD, BTC, USD
    instruments["inverse"] = 0, 1, 0
    instruments["price_decimals"] = 4
    instruments["quantity_decimals"] = 8, 0, 2
    instruments["contract_size"] = 10**8, 100 * 10**8, 1
    return instruments, currencies


INSTRUMENTS, CURRENCIES = tables()
UNIT = Fraction(10**8)


def exact_value(i, price, quantity):
    row = INSTRUMENTS[i]
    price = Fraction(price, 10**4)
    quantity = Fraction(quantity, 10 ** int(row["quantity_decimals"]))
    if row["inverse"]:
        return 100 * quantity / price * UNIT
    return price * quantity * Fraction(int(row["contract_size"]), 10 ** int(row["quantity_decimals"])) * UNIT


class Twin:
    """Positions of one instrument, the slow way: integers that round explicitly, and exact fractions beside them."""

    def __init__(self, i):
        self.i = i
        self.inverse = bool(INSTRUMENTS[i]["inverse"])
        self.position = self.cost = self.realised = self.cash = self.fees = 0
        self.exact = Fraction(0)

    def fill(self, side, price, quantity, fee):
        sign = 1 if self.inverse == (side == BUY) else -1
        value = sign * exact_value(self.i, price, quantity)
        flow = floor(value)
        self.exact += value
        self.cash += flow
        self.fees += fee
        for part, flow_part in self.split(side, quantity, flow):
            opens = self.position == 0 or (self.position > 0) == (side == BUY)
            if opens:
                self.cost -= flow_part
            else:
                released = ceil(Fraction(self.cost * part, abs(self.position)))
                self.cost -= released
                self.realised += flow_part - released
            self.position += part if side == BUY else -part

    def split(self, side, quantity, flow):
        """Cut a fill that goes through zero in two."""
        closes = self.position != 0 and (self.position > 0) != (side == BUY)
        if closes and quantity > abs(self.position):
            part = floor(Fraction(flow * abs(self.position), quantity))
            return [(abs(self.position), part), (quantity - abs(self.position), flow - part)]
        return [(quantity, flow)]

    def unrealised(self, mark):
        sign = -1 if self.inverse else 1
        return floor(sign * exact_value(self.i, mark, self.position)) - self.cost if self.position else 0


prices = st.integers(1000, 10**9)
fills = st.lists(
    st.tuples(st.sampled_from((BUY, SELL)), prices, st.integers(1, 10**6), st.integers(-(10**6), 10**6)),
    min_size=1,
    max_size=30,
)


@settings(deadline=None)
@given(st.sampled_from((LINEAR, INVERSE, FRACTION)), fills, prices, st.integers(0, 10**6))
@example(FRACTION, [(BUY, 1003, 1, 0), (SELL, 1007, 5, 0), (BUY, 1003, 4, 0)], 1005, 1)
@example(INVERSE, [(SELL, 1003, 5, 0), (BUY, 1007, 9, 0), (SELL, 1003, 4, 0)], 1005, 1)
def test_conservation(i, trades, bid, spread):
    book = p.make_positions(3, 3)
    twin = Twin(i)
    settle = int(INSTRUMENTS[i]["settle_currency"])
    for side, price, quantity, fee in trades:
        p.apply_fill(book, INSTRUMENTS, CURRENCIES, i, side, price, quantity, fee, settle)
        twin.fill(side, price, quantity, fee)
        row, account = book.rows[i], book.accounts[settle]
        assert (row["position"], row["cost"], row["realised"]) == (twin.position, twin.cost, twin.realised)
        assert account["cash"] == twin.cash == row["realised"] - row["cost"]
        assert row["bought"] - row["sold"] == twin.position
        assert row["fees"] == account["fees"] == account["charges"] == twin.fees
        taken = int(row["residue"]) + Fraction(int(row["residue_part"]), p.RESIDUE_UNIT)
        missing = twin.exact - twin.cash - taken
        if twin.inverse:
            assert 0 <= missing < Fraction(len(trades), p.RESIDUE_UNIT)
        else:
            assert missing == 0
    ask = bid + spread
    assert p.mark_to_touch(book, INSTRUMENTS, CURRENCIES, i, bid, ask)
    mark = bid if twin.position > 0 else ask
    row, account = book.rows[i], book.accounts[settle]
    assert row["unrealised"] == account["unrealised"] == twin.unrealised(mark)
    assert row["value"] == account["value"]
    assert abs(row["value"] - abs(exact_value(i, mark, twin.position))) < 1
    assert p.profit(book, settle) == twin.realised + twin.unrealised(mark) - twin.fees


def test_a_closed_position_has_no_cost():
    book = p.make_positions(3, 3)
    for side, price in ((BUY, 650_000_000), (SELL, 651_000_000)):
        p.apply_fill(book, INSTRUMENTS, CURRENCIES, LINEAR, side, price, 10**7, 100, USD)
    row = book.rows[LINEAR]
    assert (row["position"], row["cost"], row["unrealised"], row["value"]) == (0, 0, 0, 0)
    assert row["realised"] == 10 * 10**8  # 0.1 BTC, 100 USD dearer
    assert p.profit(book, USD) == 10 * 10**8 - 200


def test_inverse_profit():
    book = p.make_positions(3, 3)
    p.apply_fill(book, INSTRUMENTS, CURRENCIES, INVERSE, BUY, 500_000_000, 10, 0, BTC)  # 50,000
    p.apply_fill(book, INSTRUMENTS, CURRENCIES, INVERSE, SELL, 625_000_000, 10, 0, BTC)  # 62,500
    assert book.rows[INVERSE]["realised"] == 400_000  # 1,000 USD × (1/50,000 − 1/62,500) = 0.004 BTC


def test_totals_of_a_currency_sum_over_its_instruments():
    book = p.make_positions(3, 3)
    p.apply_fill(book, INSTRUMENTS, CURRENCIES, LINEAR, BUY, 10**6, 10**8, 0, USD)
    p.apply_fill(book, INSTRUMENTS, CURRENCIES, FRACTION, SELL, 10**6, 10**4, 0, USD)
    assert p.mark_to_touch(book, INSTRUMENTS, CURRENCIES, LINEAR, 2 * 10**6, 3 * 10**6)
    rows = book.rows
    for total in ("unrealised", "value", "realised"):
        assert book.accounts[USD][total] == rows[LINEAR][total] + rows[FRACTION][total]


def test_a_fee_in_the_base_currency_is_valued_when_paid():
    book = p.make_positions(3, 3)
    p.apply_fill(book, INSTRUMENTS, CURRENCIES, LINEAR, BUY, 333_333, 10**8, 7, BTC)
    row = book.rows[LINEAR]
    worth = ceil(Fraction(7 * 333_333, 10**4))
    assert (row["fees"], row["foreign_fees"], row["unconverted"]) == (0, worth, 0)
    assert book.accounts[BTC]["fees"] == 7
    assert book.accounts[USD]["charges"] == worth


@pytest.mark.parametrize("currency", [BNB, -1, 3, 2**31 - 1])
def test_a_fee_of_unknown_worth_is_counted(currency):
    book = p.make_positions(3, 3)
    p.apply_fill(book, INSTRUMENTS, CURRENCIES, LINEAR, BUY, 10**6, 10**8, 7, currency)
    assert book.rows[LINEAR]["unconverted"] == 1
    assert book.accounts["fees"].sum() == (7 if currency == BNB else 0)


def test_overflow_sticks():
    book = p.make_positions(3, 3)
    p.apply_fill(book, INSTRUMENTS, CURRENCIES, LINEAR, BUY, 2**62, 2**62, 0, USD)
    p.apply_fill(book, INSTRUMENTS, CURRENCIES, LINEAR, SELL, 10**6, 10**6, 0, USD)
    assert book.accounts[USD]["cash"] == OVERFLOW
    assert book.accounts[USD]["value"] == OVERFLOW
    assert p.profit(book, USD) == OVERFLOW


def test_an_absurd_mark_changes_nothing():
    book = p.make_positions(3, 3)
    p.apply_fill(book, INSTRUMENTS, CURRENCIES, LINEAR, BUY, 10**6, 10**12, 0, USD)
    before = book.rows.copy(), book.accounts.copy()
    assert not p.mark_to_touch(book, INSTRUMENTS, CURRENCIES, LINEAR, 2**62, 2**62 + 1)
    assert (book.rows == before[0]).all()
    assert (book.accounts == before[1]).all()
