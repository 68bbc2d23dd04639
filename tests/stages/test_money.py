"""Money kernels against Python's own integers and fractions."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shrivenq.stages import money
from shrivenq.stages.messages import CURRENCY, INSTRUMENT
from shrivenq.stages.money import CEIL, FLOOR, OVERFLOW

words = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-1000, 1000),
    st.builds(
        lambda shift, step: max(-(2**63), min(2**63 - 1, (1 << shift) + step)), st.integers(0, 63), st.integers(-2, 2)
    ),
)
natural = st.one_of(st.integers(0, 2**63 - 1), st.integers(0, 1000))


def rounded(value: Fraction, rounding: int) -> int:
    whole = ceil(value) if rounding == CEIL else floor(value)
    return whole if abs(whole) < 2**63 else OVERFLOW


@settings(deadline=None)
@given(words, words, words, words, st.sampled_from((FLOOR, CEIL)))
@example(2**63 - 1, 2**63 - 1, 1, 2**63 - 1, FLOOR)
@example(2**63 - 1, 2**63 - 1, 2**63 - 1, 2**63 - 1, FLOOR)
@example(2**32, 2**32, 2**32, 2**33, CEIL)
@example(-1, 1, 1, 2, FLOOR)
@example(-1, 1, 1, 2, CEIL)
def test_product_over_divisor(a, b, c, d, rounding):
    found = money.mul_mul_div(a, b, c, d, rounding)
    if d == 0 or OVERFLOW in (a, b, c, d):
        assert found == OVERFLOW
    else:
        assert found == rounded(Fraction(a * b * c, d), rounding)


@settings(deadline=None)
@given(words, words, words, st.sampled_from((FLOOR, CEIL)))
def test_two_factors(a, b, c, rounding):
    assert money.mul_div(a, b, c, rounding) == money.mul_mul_div(a, b, 1, c, rounding)


def test_random_products():
    seed = 20240611
    random = np.random.default_rng(seed)
    for _ in range(20_000):
        a, b, c, d = (int(random.integers(1, 2**63 - 1)) >> int(random.integers(0, 63)) for _ in range(4))
        expected = rounded(Fraction(a * b * c, d), FLOOR) if d else OVERFLOW
        assert money.mul_mul_div(a, b, c, d, FLOOR) == expected, (seed, a, b, c, d)


@settings(deadline=None)
@given(natural, natural, natural, st.integers(1, 2**63 - 1))
def test_remainder(a, b, c, d):
    quotient = a * b * c // d
    if quotient < 2**63:
        assert money.remainder(a, b, c, d, quotient) == a * b * c % d


@settings(deadline=None)
@given(natural, natural, natural, natural)
@example(2**40, 2**40, 2**41, 2**39)
@example(2**40, 2**40, 2**41, 2**38)
def test_product_comparison(a, b, c, d):
    assert money.product_at_most(a, b, c, d) == (a * b <= c * d)


@settings(deadline=None)
@given(words, words)
@example(2**63 - 1, 1)
@example(-(2**63) + 1, -1)
def test_addition(a, b):
    total = a + b
    expected = OVERFLOW if OVERFLOW in (a, b) or abs(total) >= 2**63 else total
    assert money.add(a, b) == expected


def test_powers():
    assert [money.power_of_ten(exponent) for exponent in range(19)] == [10**exponent for exponent in range(19)]
    assert money.power_of_ten(-1) == OVERFLOW
    assert money.power_of_ten(19) == OVERFLOW


def tables(inverse, size, price_decimals, quantity_decimals, quote_decimals, settle_decimals):
    instruments = np.zeros(1, INSTRUMENT)
    currencies = np.zeros(2, CURRENCY)
    currencies["decimals"] = quote_decimals, settle_decimals
    instruments[0]["inverse"] = inverse
    instruments[0]["contract_size"] = size
    instruments[0]["price_decimals"] = price_decimals
    instruments[0]["quantity_decimals"] = quantity_decimals
    instruments[0]["quote_currency"] = 0
    instruments[0]["settle_currency"] = 1 if inverse else 0
    return instruments, currencies


def exact(instruments, currencies, price, quantity):
    """Value in the settle currency, a fraction of its smallest unit."""
    row = instruments[0]
    quantity = Fraction(quantity, 10 ** int(row["quantity_decimals"]))
    price = Fraction(price, 10 ** int(row["price_decimals"]))
    unit = 10 ** int(currencies[row["settle_currency"]]["decimals"])
    if row["inverse"]:
        size = Fraction(int(row["contract_size"]), 10 ** int(currencies[row["quote_currency"]]["decimals"]))
        return size * quantity / price * unit
    size = Fraction(int(row["contract_size"]), 10 ** int(row["quantity_decimals"]))
    return price * quantity * size * unit


@settings(deadline=None)
@given(
    st.booleans(),
    st.integers(1, 10**12),
    st.booleans(),
    st.integers(0, 4),
    st.integers(0, 5),
    st.integers(0, 8),
    st.integers(1, 10**12),
    st.integers(-(10**12), 10**12),
    st.sampled_from((FLOOR, CEIL)),
)
@example(False, 10**8, True, 2, 8, 8, 6_500_000, 10**8, FLOOR)
def test_notional(inverse, size, spot, price_decimals, quantity_decimals, decimals, price, quantity, rounding):
    if spot and not inverse:
        size = 10**quantity_decimals
    instruments, currencies = tables(inverse, size, price_decimals, quantity_decimals, decimals, decimals)
    value = exact(instruments, currencies, price, quantity)
    found = money.notional(instruments, 0, price, quantity, currencies, rounding)
    assert found == rounded(value, rounding)
    a, b, c, d = money.terms(instruments, 0, price, quantity, currencies)
    assert Fraction(int(a) * int(b) * int(c), int(d)) == value


def test_notional_of_real_contracts():
    spot = tables(0, 10**8, 2, 8, 8, 8)
    assert money.notional(spot[0], 0, 6_500_000, 150_000_000, spot[1], CEIL) == 97_500 * 10**8
    perpetual = tables(1, 100 * 10**8, 1, 0, 8, 8)  # 100 USD a contract, settled in BTC
    assert money.notional(perpetual[0], 0, 500_000, 10, perpetual[1], CEIL) == 2_000_000  # 0.02 BTC
    assert money.quote_notional(perpetual[0], 0, 500_000, 10, perpetual[1], CEIL) == 1_000 * 10**8


def test_impossible_scales_overflow():
    instruments, currencies = tables(0, 10**4, 18, 4, 0, 0)
    assert money.notional(instruments, 0, 1, 1, currencies, CEIL) == OVERFLOW
    instruments, currencies = tables(1, 1, 0, 0, 0, 0)
    assert money.notional(instruments, 0, 0, 1, currencies, CEIL) == OVERFLOW


@settings(deadline=None)
@given(st.integers(0, 2**62), st.integers(-(10**8), 10**8))
def test_fee_is_rounded_against_us(value, rate):
    exactly = Fraction(value * rate, 10**8)
    found = money.fee(value, rate)
    assert found >= exactly
    assert found - exactly < 1
