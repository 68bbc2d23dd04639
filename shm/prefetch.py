"""Fetch memory into the cache before it is needed: a hint to the core, without any visible effect.

A ring is written round and round, so its next slot is the one used longest ago, and far away. A stage that has
published has time until the next message: it then asks for what that one will be written to (`ring.prepare`,
`byte_ring.prepare`). A hint never faults, whatever the address.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import COMPILED, intrinsic

LINE = 64
"""Bytes of a cache line."""

if COMPILED:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.core.errors import TypingError
    from numba.np.arrayobj import make_array

    def _prefetch(write: int) -> Any:
        def typed(typingctx: Any, array: Any, index: Any, line: Any) -> Any:
            if not (isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"):
                raise TypingError(f"only contiguous one-dimensional arrays can be prefetched, not {array}")

            def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
                data = make_array(signature.args[0])(context, builder, args[0]).data
                at = builder.gep(data, [context.cast(builder, args[1], signature.args[1], types.intp)])
                lines = context.cast(builder, args[2], signature.args[2], types.intp)
                place = builder.gep(builder.bitcast(at, byte), [builder.mul(lines, ir.IntType(64)(LINE))])
                kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
                hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
                builder.call(hint, [place, word(write), word(3), word(1)])
                return context.get_dummy_value()

            return types.none(array, index, line), emit

        return typed

    prefetch_read = intrinsic(_prefetch(0))
    """Fetch the cache line `line` lines behind `array[index]`, to be read."""
    prefetch_write = intrinsic(_prefetch(1))
    """Fetch it to be written: no other core has it any more."""

else:

    def prefetch_read(array: Any, index: int, line: int) -> None:
        """Do nothing: there is no cache to speak of."""

    def prefetch_write(array: Any, index: int, line: int) -> None:
        """Do nothing: there is no cache to speak of."""
