"""Values of JSON text, compiled: whole numbers, plain strings, and what is passed over.

They read the spelling venues use and refuse the rest, which a strict parser decides: strings with escapes or with
bytes that are not printable ASCII, fractions, exponents, nesting. `data` has PADDING readable bytes behind `stop`.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import COMPILED, inlined, intrinsic, kernel
from shrivenq.stages.venues.text import POWERS, digits, load, matches, whole

QUOTE, MINUS = 34, 45

if COMPILED:
    from llvmlite import ir
    from numba.core import types

    _WORD = ir.IntType(64)

    @intrinsic
    def plain(typingctx: Any, word: Any) -> Any:
        """Count the bytes of a word before the first that is a quote, a backslash, a control or no ASCII: 0 to 8."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def every(byte: int) -> Any:
                return ir.Constant(_WORD, byte * 0x0101010101010101)

            def zeros(values: Any) -> Any:
                # Exact up to the first zero byte; a borrow marks only bytes behind it.
                return builder.and_(builder.sub(values, every(1)), builder.not_(values))

            marks = builder.or_(args[0], builder.and_(builder.sub(args[0], every(0x20)), builder.not_(args[0])))
            for byte in (0x22, 0x5C):
                marks = builder.or_(marks, zeros(builder.xor(args[0], every(byte))))
            first = builder.cttz(builder.and_(marks, every(0x80)), ir.Constant(ir.IntType(1), 0))
            return builder.lshr(first, ir.Constant(_WORD, 3))

        return types.int64(types.int64), emit

else:

    def plain(word: int) -> int:  # noqa: D103 - documented above
        text = int(word).to_bytes(8, "little", signed=True)
        return next((at for at, byte in enumerate(text) if byte in (0x22, 0x5C) or not 0x20 <= byte < 0x80), 8)


@inlined
def string_end(data: Any, at: int, stop: int) -> int:
    """Find the quote that ends the string which begins at `at`, behind its opening quote; -1 if it is not plain."""
    count = 8
    while count == 8 and at <= stop:
        count = plain(load(data, at))
        at += count
    return at if count < 8 and at < stop and data[at] == QUOTE else -1


@inlined
def integer(data: Any, at: int, stop: int) -> tuple[int, int]:
    """Read an integer of 1 to 18 digits, negative ones too; return it and where it ends, (0, -1) for anything else."""
    if at > stop:
        return 0, -1
    negative = data[at] == MINUS
    if negative:
        at += 1
    first = data[at]
    word = load(data, at)
    count = digits(word)
    if count == 0 or (first == 48 and (count > 1 or negative)):
        return 0, -1
    value = whole(word, count)
    at += count
    if count == 8:
        word = load(data, at)
        count = digits(word)
        value = value * POWERS[count] + whole(word, count)
        at += count
        if count == 8:
            count = digits(load(data, at))
            if count > 2:
                return 0, -1
            value = value * POWERS[count] + whole(load(data, at), count)
            at += count
    return (-value if negative else value), at


@kernel
def skip(data: Any, at: int, stop: int) -> int:
    """Pass over a string, an integer, true, false or null; return where it ends, -1 for anything else."""
    first = data[at]
    if first == QUOTE:
        end = string_end(data, at + 1, stop)
        return end + 1 if end >= 0 else -1
    if matches(data, at, "true") or matches(data, at, "null"):
        return at + 4
    if matches(data, at, "false"):
        return at + 5
    _, at = integer(data, at, stop)
    return at


@inlined
def time_ns(value: int) -> int:
    """Turn a venue's time, ms or µs since 1970, into ns; -1 for one that can be neither."""
    # As milliseconds 10¹⁴ is the year 5138, as microseconds 1973.
    if value >= 100_000_000_000_000:
        return value * 1_000 if value <= 9_223_372_036_854_775 else -1
    return value * 1_000_000 if 0 <= value <= 9_223_372_036_854 else -1
