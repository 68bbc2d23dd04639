"""Money: products and quotients of int64 in 128 and 192 bits, rounded on purpose, never wrapped.

A value that does not fit is OVERFLOW, −2⁶³, which no amount of money can be; OVERFLOW that goes into any function here
comes out again, so that a chain is checked once, at its end.

    linear    value = price × quantity × contract_size                  in the quote currency, which is the settle one
    inverse   value = contract_size × quantity ÷ price                  in the base currency, which is the settle one

`quantity` counts contracts at `quantity_decimals`. `contract_size` of a linear instrument is in base units at
`quantity_decimals` (spot: 10 ** quantity_decimals, one contract is one base unit), of an inverse one in quote units at
the quote currency's own exponent (100 USD at 8 decimals: 10_000_000_000).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shrivenq.shm.kernel import COMPILED, intrinsic, kernel

FLOOR, CEIL = 0, 1
OVERFLOW = -(2**63)
RATE = 100_000_000
"""Fee rates are in 1e-8 of the notional."""

_POWERS = np.array([10**exponent for exponent in range(19)], np.int64)

if COMPILED:
    from llvmlite import ir
    from numba.core import types

    @intrinsic
    def _high(typingctx: Any, left: Any, right: Any) -> Any:
        """Upper 64 bits of the 128-bit product of two uint64."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            wide = ir.IntType(128)
            product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
            return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

        return types.uint64(types.uint64, types.uint64), emit

    @intrinsic
    def _leading_zeros(typingctx: Any, value: Any) -> Any:
        """Zero bits above the highest one of a uint64."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

        return types.uint64(types.uint64), emit

    # Numba makes a float of uint64 and a plain integer together: every constant beside a uint64 is one.
    _ZERO, _ONE, _HALF, _WORD = np.uint64(0), np.uint64(1), np.uint64(32), np.uint64(64)
    _LOW_MASK = np.uint64(2**32 - 1)
    _TOP = np.uint64(2**63)

    @kernel
    def _digit(rest: Any, below: Any, divisor: Any) -> Any:
        """Next 32-bit digit of a quotient; `divisor` is normalised, `rest` less than it (Knuth 4.3.1, D3)."""
        upper, lower = divisor >> _HALF, divisor & _LOW_MASK
        digit = rest // upper
        left = rest - digit * upper
        while digit > _LOW_MASK or digit * lower > ((left << _HALF) | below):
            digit -= _ONE
            left += upper
            if left > _LOW_MASK:
                break
        return digit

    @kernel
    def _divide(high: Any, low: Any, divisor: Any) -> Any:
        """Divide 128 bits by 64; high < divisor. Hacker's Delight, section 9-4 (divlu)."""
        if high == _ZERO:
            return low // divisor
        shift = _leading_zeros(divisor)
        divisor <<= shift
        if shift != _ZERO:
            high = (high << shift) | (low >> (_WORD - shift))
            low <<= shift
        first = _digit(high, low >> _HALF, divisor)
        rest = (high << _HALF) + (low >> _HALF) - first * divisor
        second = _digit(rest, low & _LOW_MASK, divisor)
        return (first << _HALF) + second

    @kernel
    def _magnitude(value: int) -> Any:
        return np.uint64(-value) if value < 0 else np.uint64(value)

    @kernel
    def mul_mul_div(a: int, b: int, c: int, d: int, rounding: int) -> int:
        """Compute a × b × c ÷ d in 192 bits, signed, rounded down (FLOOR) or up (CEIL); OVERFLOW also for d = 0."""
        if d == 0 or a == OVERFLOW or b == OVERFLOW or c == OVERFLOW or d == OVERFLOW:  # noqa: PLR1714 - a kernel: no set
            return OVERFLOW
        negative = ((a < 0) != (b < 0)) != ((c < 0) != (d < 0))
        left, right, divisor = _magnitude(a), _magnitude(b), _magnitude(d)
        low = left * right
        high = _high(left, right)
        if c != 1:
            third = _magnitude(c)
            middle = high * third
            if _high(high, third) != _ZERO:
                return OVERFLOW
            high = _high(low, third) + middle
            if high < middle:
                return OVERFLOW
            low = low * third
        if high >= divisor:
            return OVERFLOW
        quotient = _divide(high, low, divisor)
        if quotient >= _TOP:
            return OVERFLOW
        if (rounding == CEIL) != negative and low != quotient * divisor:
            quotient += _ONE
            if quotient >= _TOP:
                return OVERFLOW
        value: int = np.int64(quotient)  # type: ignore[assignment]
        return -value if negative else value

    @kernel
    def remainder(a: int, b: int, c: int, d: int, quotient: int) -> int:
        """Compute a × b × c − quotient × d where it is known to be in 0 … d − 1: arithmetic modulo 2⁶⁴ is exact."""
        return a * b * c - quotient * d

    @kernel
    def product_at_most(a: int, b: int, c: int, d: int) -> bool:
        """Tell whether a × b ≤ c × d, all of them 0 or more, in 128 bits."""
        left, right = np.uint64(a), np.uint64(b)
        other_left, other_right = np.uint64(c), np.uint64(d)
        high, other_high = _high(left, right), _high(other_left, other_right)
        if high != other_high:
            return bool(high < other_high)
        return bool(left * right <= other_left * other_right)

else:

    def mul_mul_div(a: int, b: int, c: int, d: int, rounding: int) -> int:  # noqa: D103 - documented above
        a, b, c, d = int(a), int(b), int(c), int(d)
        if d == 0 or OVERFLOW in {a, b, c, d}:
            return OVERFLOW
        quotient = -(-a * b * c // d) if rounding == CEIL else a * b * c // d
        return quotient if abs(quotient) < 2**63 else OVERFLOW

    def remainder(a: int, b: int, c: int, d: int, quotient: int) -> int:  # noqa: D103 - documented above
        return int(a) * int(b) * int(c) - int(quotient) * int(d)

    def product_at_most(a: int, b: int, c: int, d: int) -> bool:  # noqa: D103 - documented above
        return int(a) * int(b) <= int(c) * int(d)


@kernel
def mul_div(a: int, b: int, c: int, rounding: int) -> int:
    """Compute a × b ÷ c in 128 bits, signed, rounded down (FLOOR) or up (CEIL); OVERFLOW also for c = 0."""
    return mul_mul_div(a, b, 1, c, rounding)


@kernel
def add(a: int, b: int) -> int:
    """Add; OVERFLOW if either is or the sum leaves int64."""
    if a == OVERFLOW or b == OVERFLOW:  # noqa: PLR1714 - a kernel: no set
        return OVERFLOW
    if b > 0:
        return OVERFLOW if a > 9223372036854775807 - b else a + b
    return OVERFLOW if a <= OVERFLOW - b else a + b


@kernel
def power_of_ten(exponent: int) -> int:
    """Look up 10 ** exponent for 0 … 18; OVERFLOW otherwise."""
    if exponent < 0 or exponent > 18:
        return OVERFLOW
    return _POWERS[exponent]


@kernel
def terms(instruments: Any, i: int, price: int, quantity: int, currencies: Any) -> tuple[int, int, int, int]:
    """Write the value of `quantity` at `price` as a × b × c ÷ d in the settle currency's smallest unit.

    Contracts and prices as in the module's docstring. One of the four is OVERFLOW, or d is 0, where a scale or the
    price makes that impossible: `mul_mul_div` then answers OVERFLOW.
    """
    size = instruments[i]["contract_size"]
    price_decimals = instruments[i]["price_decimals"]
    quantity_decimals = instruments[i]["quantity_decimals"]
    settle_decimals = currencies[instruments[i]["settle_currency"]]["decimals"]
    if instruments[i]["inverse"] != 0:
        quote_decimals = currencies[instruments[i]["quote_currency"]]["decimals"]
        shift = price_decimals + settle_decimals - quote_decimals - quantity_decimals
        if shift >= 0:
            return size, quantity, power_of_ten(shift), price
        return size, quantity, 1, mul_div(price, power_of_ten(-shift), 1, FLOOR)
    if size == power_of_ten(quantity_decimals):
        size = 1
        shift = settle_decimals - price_decimals - quantity_decimals
    else:
        shift = settle_decimals - price_decimals - 2 * quantity_decimals
    if shift <= 0:
        return price, quantity, size, power_of_ten(-shift)
    return price, quantity, mul_div(size, power_of_ten(shift), 1, FLOOR), 1


@kernel
def notional(instruments: Any, i: int, price: int, quantity: int, currencies: Any, rounding: int) -> int:
    """Value `quantity` contracts at `price` in the settle currency at its exponent; OVERFLOW if it does not fit.

    `instruments` is INSTRUMENT, `currencies` CURRENCY, `i` a row; a negative quantity gives a negative value.
    """
    a, b, c, d = terms(instruments, i, price, quantity, currencies)
    return mul_mul_div(a, b, c, d, rounding)


@kernel
def quote_notional(instruments: Any, i: int, price: int, quantity: int, currencies: Any, rounding: int) -> int:
    """Value as venues filter orders: in the quote currency at its exponent, whatever the instrument settles in."""
    if instruments[i]["inverse"] != 0:
        unit = power_of_ten(instruments[i]["quantity_decimals"])
        return mul_div(instruments[i]["contract_size"], quantity, unit, rounding)
    return notional(instruments, i, price, quantity, currencies, rounding)


@kernel
def fee(value: int, rate: int) -> int:
    """Charge `rate` (1e-8) on a notional of 0 or more: rounded against us, a fee paid up, a rebate (negative) down."""
    return mul_div(value, rate, RATE, CEIL)
