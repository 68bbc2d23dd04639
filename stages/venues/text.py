"""Text in byte buffers, eight characters at a time.

`load` takes eight bytes as one word, in which `digits` counts leading ASCII digits and `whole` and `fraction` read
numbers with three multiplications (Lemire's parse_eight_digits); `matches` and `put` compare and write constant text
as immediate words. Buffers are contiguous uint8 arrays. Nothing here checks bounds when compiled: `load` reads
eight bytes, `matches` as many as the text has, and callers keep PADDING readable bytes behind what they read.

With `NUMBA_DISABLE_JIT=1` the same names are plain Python that refuses to leave the buffer: the twin the tests compare
with.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from shrivenq.shm.kernel import COMPILED, intrinsic

PADDING = 64
"""Bytes that must be readable behind the end of any text given to a decoder."""

POWERS = np.array([10**exponent for exponent in range(19)], np.int64)
"""10**n for n = 0 … 18."""

assert sys.byteorder == "little", "words of text are read in little-endian order"

if COMPILED:
    from llvmlite import ir
    from numba.core import types
    from numba.core.errors import TypingError
    from numba.np.arrayobj import make_array

    WORD = ir.IntType(64)
    ZEROS, SIXES, HIGHS = 0x3030303030303030, 0x7676767676767676, 0x8080808080808080

    def _constant(value: int) -> Any:
        return ir.Constant(WORD, value)

    def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
        return builder.gep(make_array(array_type)(context, builder, array).data, [index])

    def _check(array: Any, *indices: Any) -> None:
        good = isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C" and array.dtype == types.uint8
        if not good or not all(isinstance(index, types.Integer) for index in indices):
            raise TypingError(f"text is a contiguous uint8 array with an integer index, not {array}[{indices}]")

    def _literal(text: Any) -> bytes:
        if not isinstance(text, types.Literal) or not isinstance(text.literal_value, str):
            raise TypingError("the text must be a literal")
        return bytes(text.literal_value.encode())

    def _pieces(text: bytes) -> list[tuple[int, int, int]]:
        """Cut text into (offset, bits, value): whole words, the last one overlapping where there is room."""
        size = max(width for width in (8, 4, 2, 1) if width <= len(text))
        offsets = [*range(0, len(text) - size + 1, size)]
        if offsets[-1] + size < len(text):
            offsets.append(len(text) - size)
        return [(at, size * 8, int.from_bytes(text[at : at + size], "little")) for at in offsets]

    @intrinsic
    def load(typingctx: Any, data: Any, at: Any) -> Any:
        """Load eight bytes at any alignment."""
        _check(data, at)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            index = context.cast(builder, args[1], signature.args[1], types.intp)
            pointer = _pointer(context, builder, signature.args[0], args[0], index)
            return builder.load(builder.bitcast(pointer, WORD.as_pointer()), align=1)

        return types.int64(data, at), emit

    @intrinsic
    def matches(typingctx: Any, data: Any, at: Any, text: Any) -> Any:
        """Tell whether the literal `text` stands at `at`."""
        _check(data, at)
        pieces = _pieces(_literal(text))

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            index = context.cast(builder, args[1], signature.args[1], types.intp)
            base = _pointer(context, builder, signature.args[0], args[0], index)
            differences = []
            for offset, bits, value in pieces:
                kind = ir.IntType(bits)
                pointer = builder.bitcast(builder.gep(base, [_constant(offset)]), kind.as_pointer())
                found = builder.xor(builder.load(pointer, align=1), ir.Constant(kind, value))
                differences.append(builder.zext(found, WORD) if bits < 64 else found)
            different = differences[0]
            for difference in differences[1:]:
                different = builder.or_(different, difference)
            return builder.icmp_unsigned("==", different, _constant(0))

        return types.boolean(data, at, text), emit

    @intrinsic
    def put(typingctx: Any, data: Any, at: Any, text: Any) -> Any:
        """Write the literal `text` at `at`; return where it ends."""
        _check(data, at)
        literal = _literal(text)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            index = context.cast(builder, args[1], signature.args[1], types.intp)
            base = _pointer(context, builder, signature.args[0], args[0], index)
            for offset, bits, value in _pieces(literal):
                kind = ir.IntType(bits)
                pointer = builder.bitcast(builder.gep(base, [_constant(offset)]), kind.as_pointer())
                builder.store(ir.Constant(kind, value), pointer, align=1)
            return builder.add(index, _constant(len(literal)))

        return types.int64(data, at, text), emit

    @intrinsic
    def store(typingctx: Any, data: Any, at: Any, word: Any) -> Any:
        """Store eight bytes at any alignment."""
        _check(data, at)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            index = context.cast(builder, args[1], signature.args[1], types.intp)
            pointer = _pointer(context, builder, signature.args[0], args[0], index)
            value = context.cast(builder, args[2], signature.args[2], types.int64)
            builder.store(value, builder.bitcast(pointer, WORD.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.none(data, at, word), emit

    def _first_marked(builder: Any, marks: Any) -> Any:
        """Count the bytes before the first one whose high bit is set: 8 for none."""
        zeros = builder.cttz(marks, ir.Constant(ir.IntType(1), 0))
        return builder.lshr(zeros, _constant(3))

    @intrinsic
    def digits(typingctx: Any, word: Any) -> Any:
        """Count the ASCII digits at the beginning of a word: 0 to 8."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = builder.xor(args[0], _constant(ZEROS))
            # A byte above 9 gets its high bit; a carry out of one reaches only bytes behind it, which do not count.
            marks = builder.or_(builder.add(values, _constant(SIXES)), values)
            return _first_marked(builder, builder.and_(marks, _constant(HIGHS)))

        return types.int64(types.int64), emit

    @intrinsic
    def before(typingctx: Any, word: Any, character: Any) -> Any:
        """Count the bytes of a word before the first one equal to `character`: 8 if there is none."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            repeated = builder.mul(args[1], _constant(0x0101010101010101))
            values = builder.xor(args[0], repeated)
            # The lowest zero byte is marked exactly; a borrow can only mark bytes behind it.
            marks = builder.and_(builder.sub(values, _constant(0x0101010101010101)), builder.not_(values))
            return _first_marked(builder, builder.and_(marks, _constant(HIGHS)))

        return types.int64(types.int64, types.int64), emit

    def _eight(builder: Any, values: Any) -> Any:
        """Read eight digit values, the first in the lowest byte, as one number."""
        pairs = builder.add(builder.mul(values, _constant(10)), builder.lshr(values, _constant(8)))
        mask = _constant(0x000000FF000000FF)
        odd = builder.mul(builder.and_(pairs, mask), _constant(0x000F424000000064))
        even = builder.mul(builder.and_(builder.lshr(pairs, _constant(16)), mask), _constant(0x0000271000000001))
        return builder.lshr(builder.add(odd, even), _constant(32))

    def _twice(builder: Any, shift: Any, value: Any, half: Any) -> Any:
        """Shift in two halves: a shift by all 64 bits has no defined result."""
        return shift(shift(value, half), half)

    @intrinsic
    def whole(typingctx: Any, word: Any, count: Any) -> Any:
        """Read the first `count` (0 to 8) digits of a word as an integer; they must be digits."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            half = builder.sub(_constant(32), builder.mul(args[1], _constant(4)))
            values = builder.xor(args[0], _constant(ZEROS))
            return _eight(builder, _twice(builder, builder.shl, values, half))

        return types.int64(types.int64, types.int64), emit

    @intrinsic
    def fraction(typingctx: Any, word: Any, count: Any, decimals: Any) -> Any:
        """Read the first `count` (0 to 8) digits of a word as a fraction at `decimals` (0 to 8).

        -1 if a digit beyond `decimals` is not 0.
        """

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kept = builder.sub(_constant(32), builder.mul(args[1], _constant(4)))
            ones = _twice(builder, builder.lshr, _constant(-1), kept)
            values = builder.and_(builder.xor(args[0], _constant(ZEROS)), ones)
            depth = builder.mul(args[2], _constant(4))
            excess = _twice(builder, builder.lshr, values, depth)
            number = _eight(builder, _twice(builder, builder.shl, values, builder.sub(_constant(32), depth)))
            return builder.select(builder.icmp_unsigned("==", excess, _constant(0)), number, _constant(-1))

        return types.int64(types.int64, types.int64, types.int64), emit

else:

    def _bytes(word: int) -> bytes:
        return int(word).to_bytes(8, "little", signed=True)

    def load(data: Any, at: int) -> int:  # noqa: D103 - documented above
        assert 0 <= at <= len(data) - 8, "read outside the buffer"
        return int.from_bytes(data[at : at + 8].tobytes(), "little", signed=True)

    def matches(data: Any, at: int, text: str) -> bool:  # noqa: D103 - documented above
        assert 0 <= at <= len(data) - len(text), "read outside the buffer"
        return bool(data[at : at + len(text)].tobytes() == text.encode())

    def put(data: Any, at: int, text: str) -> int:  # noqa: D103 - documented above
        assert 0 <= at <= len(data) - len(text), "write outside the buffer"
        data[at : at + len(text)] = np.frombuffer(text.encode(), np.uint8)
        return at + len(text)

    def store(data: Any, at: int, word: int) -> None:  # noqa: D103 - documented above
        assert 0 <= at <= len(data) - 8, "write outside the buffer"
        data[at : at + 8] = np.frombuffer(_bytes(word), np.uint8)

    def digits(word: int) -> int:  # noqa: D103 - documented above
        text = _bytes(word)
        return next((at for at, byte in enumerate(text) if not 48 <= byte <= 57), 8)

    def before(word: int, character: int) -> int:  # noqa: D103 - documented above
        found = _bytes(word).find(character)
        return 8 if found < 0 else found

    def whole(word: int, count: int) -> int:  # noqa: D103 - documented above
        return int(_bytes(word)[:count] or b"0")

    def fraction(word: int, count: int, decimals: int) -> int:  # noqa: D103 - documented above
        text = _bytes(word)[:count].ljust(8, b"0")
        return -1 if text[decimals:].strip(b"0") else int(text[:decimals] or b"0")
