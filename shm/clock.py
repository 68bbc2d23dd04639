"""Clocks, callable from kernels: int64 nanoseconds.

`monotonic_ns` is CLOCK_MONOTONIC, the same in every process of a machine: durations, stamps and timeouts use it.
`realtime_ns` is the wall clock, for receive times that outlive the machine. Both go through the vDSO: about 20 ns.
"""

from __future__ import annotations

import time
from typing import Any

from shrivenq.shm.kernel import COMPILED, intrinsic

if COMPILED:
    from llvmlite import ir
    from numba.core import cgutils, types

    def _clock(identity: int) -> Any:
        def typed(typingctx: Any) -> Any:
            def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                word = ir.IntType(64)
                timespec = cgutils.alloca_once(builder, word, size=2)
                kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), word.as_pointer()])
                function = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
                builder.call(function, [ir.Constant(ir.IntType(32), identity), timespec])
                seconds = builder.load(timespec)
                nanoseconds = builder.load(builder.gep(timespec, [ir.Constant(word, 1)]))
                return builder.add(builder.mul(seconds, ir.Constant(word, 1_000_000_000)), nanoseconds)

            return types.int64(), emit

        return typed

    realtime_ns = intrinsic(_clock(time.CLOCK_REALTIME))
    monotonic_ns = intrinsic(_clock(time.CLOCK_MONOTONIC))
else:
    realtime_ns = time.time_ns
    monotonic_ns = time.monotonic_ns
