"""Atomic words: what makes two processes agree about shared memory.

Every function takes a contiguous one-dimensional int64 or int32 array and an index. A plain `while a[0] == 0` is
compiled into an endless loop, and plain stores may be reordered; words that another process reads or writes are
touched through these functions only. They emit LLVM atomics: on x86-64 plain `mov` and `lock cmpxchg`, on AArch64
`ldar`, `stlr` and `casal`.

Release stores do not order later stores, and acquire loads do not order earlier loads: protocols that need either
(boards, taps, hazards) use `fence_release`, `fence_acquire` or `fence`.

With `NUMBA_DISABLE_JIT=1` the same names are plain Python, atomic within one process under the interpreter lock.
"""

from __future__ import annotations

import ctypes
import platform
from typing import Any

from shrivenq.shm.kernel import COMPILED, intrinsic, kernel

if COMPILED:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.core.errors import TypingError
    from numba.np.arrayobj import make_array

    def _word(array: Any, index: Any, *, written: bool = True) -> Any:
        """Check that `array` is one of words, writable if `written`, and `index` an integer; return the word's type."""
        good = (
            isinstance(array, types.Array)
            and array.ndim == 1
            and array.layout == "C"
            and array.dtype in (types.int64, types.int32)
            and isinstance(index, types.Integer)
        )
        if not good:
            raise TypingError(f"atomic words are contiguous int64 or int32 arrays, not {array}[{index}]")
        if written and not array.mutable:
            raise TypingError("a read-only array cannot be written: it is mapped without write permission")
        return array.dtype

    def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index_type: Any, index: Any) -> Any:
        data = make_array(array_type)(context, builder, array).data
        return builder.gep(data, [context.cast(builder, index, index_type, types.intp)])

    def _bytes(word: Any) -> int:
        return int(word.bitwidth) // 8

    @intrinsic
    def load_acquire(typingctx: Any, array: Any, index: Any) -> Any:
        """Load a word; nothing after it is read or written before it."""
        word = _word(array, index, written=False)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, signature.args[0], args[0], signature.args[1], args[1])
            return builder.load_atomic(pointer, "acquire", _bytes(word))

        return word(array, index), emit

    @intrinsic
    def load_address(typingctx: Any, address: Any) -> Any:
        """Load the int64 word at a raw address with acquire order; the caller keeps its mapping alive.

        For code that watches many words of the same kind: one array of addresses instead of as many arguments.
        """

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = context.cast(builder, args[0], signature.args[0], types.int64)
            return builder.load_atomic(builder.inttoptr(word, ir.IntType(64).as_pointer()), "acquire", 8)

        return types.int64(address), emit

    @intrinsic
    def store_release(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
        """Store a word; everything before it is visible to whoever loads it with `load_acquire`."""
        word = _word(array, index)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, signature.args[0], args[0], signature.args[1], args[1])
            stored = context.cast(builder, args[2], signature.args[2], word)
            builder.store_atomic(stored, pointer, "release", _bytes(word))
            return context.get_dummy_value()

        return types.none(array, index, value), emit

    @intrinsic
    def compare_exchange(typingctx: Any, array: Any, index: Any, expected: Any, desired: Any) -> Any:
        """Replace the word if it equals `expected`, sequentially consistent; return the word found before."""
        word = _word(array, index)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, signature.args[0], args[0], signature.args[1], args[1])
            old = context.cast(builder, args[2], signature.args[2], word)
            new = context.cast(builder, args[3], signature.args[3], word)
            return builder.extract_value(builder.cmpxchg(pointer, old, new, "seq_cst", "seq_cst"), 0)

        return word(array, index, expected, desired), emit

    def _read_modify_write(operation: str) -> Any:
        def typed(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
            word = _word(array, index)

            def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                pointer = _pointer(context, builder, signature.args[0], args[0], signature.args[1], args[1])
                operand = context.cast(builder, args[2], signature.args[2], word)
                return builder.atomic_rmw(operation, pointer, operand, "seq_cst")

            return word(array, index, value), emit

        return typed

    fetch_add = intrinsic(_read_modify_write("add"))
    fetch_or = intrinsic(_read_modify_write("or"))
    fetch_and = intrinsic(_read_modify_write("and"))
    exchange = intrinsic(_read_modify_write("xchg"))

    def _fence(ordering: str) -> Any:
        def typed(typingctx: Any) -> Any:
            def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                builder.fence(ordering)
                return context.get_dummy_value()

            return types.none(), emit

        return typed

    fence_acquire = intrinsic(_fence("acquire"))
    fence_release = intrinsic(_fence("release"))
    fence = intrinsic(_fence("seq_cst"))

    @intrinsic
    def pause(typingctx: Any) -> Any:
        """Tell the core that this is a spin loop: x86 `pause`, AArch64 `yield`."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if platform.machine() in ("x86_64", "AMD64"):
                kind = ir.FunctionType(ir.VoidType(), [])
                builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
            elif platform.machine() == "aarch64":
                kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
                hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.hint")
                builder.call(hint, [ir.Constant(ir.IntType(32), 1)])
            return context.get_dummy_value()

        return types.none(), emit

else:

    def load_acquire(array: Any, index: int) -> Any:  # noqa: D103 - documented above
        return array[index]

    def load_address(address: int) -> int:  # noqa: D103 - documented above
        return ctypes.c_int64.from_address(int(address)).value

    def store_release(array: Any, index: int, value: int) -> None:  # noqa: D103 - documented above
        array[index] = value

    def compare_exchange(array: Any, index: int, expected: int, desired: int) -> Any:  # noqa: D103 - documented above
        found = array[index]
        if found == expected:
            array[index] = desired
        return found

    def fetch_add(array: Any, index: int, value: int) -> Any:  # noqa: D103 - documented above
        found = array[index]
        array[index] = found + value
        return found

    def fetch_or(array: Any, index: int, value: int) -> Any:  # noqa: D103 - documented above
        found = array[index]
        array[index] = found | value
        return found

    def fetch_and(array: Any, index: int, value: int) -> Any:  # noqa: D103 - documented above
        found = array[index]
        array[index] = found & value
        return found

    def exchange(array: Any, index: int, value: int) -> Any:  # noqa: D103 - documented above
        found = array[index]
        array[index] = value
        return found

    def fence_acquire() -> None:  # noqa: D103 - documented above
        pass

    fence_release = fence = pause = fence_acquire


@kernel
def load_word(array: Any, index: int) -> Any:
    """Call `load_acquire` from Python: control-plane code reads shared words with this."""
    return load_acquire(array, index)


@kernel
def store_word(array: Any, index: int, value: int) -> None:
    """Call `store_release` from Python."""
    store_release(array, index, value)


@kernel
def exchange_word(array: Any, index: int, expected: int, desired: int) -> Any:
    """Call `compare_exchange` from Python."""
    return compare_exchange(array, index, expected, desired)


@kernel
def or_word(array: Any, index: int, bits: int) -> Any:
    """Call `fetch_or` from Python."""
    return fetch_or(array, index, bits)


@kernel
def and_word(array: Any, index: int, bits: int) -> Any:
    """Call `fetch_and` from Python."""
    return fetch_and(array, index, bits)
