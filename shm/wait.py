"""What a stage does when it found nothing to do.

`SPIN` keeps the core and answers fastest; `YIELD` offers the core to whoever shares it; `PARK` sleeps 50 µs and is for
side processes only: nothing on the order path ever parks. `auto` in a configuration means `spin` for a stage with a
CPU of its own and `yield` otherwise.
"""

from __future__ import annotations

import os
import time
from typing import Any

from shrivenq.shm.atomics import pause
from shrivenq.shm.kernel import COMPILED, inlined, intrinsic

SPIN, YIELD, PARK = 0, 1, 2
NAMES = {"spin": SPIN, "yield": YIELD, "park": PARK}
PARK_NS = 50_000

if COMPILED:
    from llvmlite import ir
    from numba.core import cgutils, types

    sched_yield: Any = types.ExternalFunction("sched_yield", types.int32())

    @intrinsic
    def _sleep(typingctx: Any, duration_ns: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(64)
            timespec = cgutils.alloca_once(builder, word, size=2)
            builder.store(ir.Constant(word, 0), timespec)
            duration = context.cast(builder, args[0], signature.args[0], types.int64)
            builder.store(duration, builder.gep(timespec, [ir.Constant(word, 1)]))
            kind = ir.FunctionType(ir.IntType(32), [word.as_pointer(), word.as_pointer()])
            function = cgutils.get_or_insert_function(builder.module, kind, "nanosleep")
            builder.call(function, [timespec, ir.Constant(word.as_pointer(), None)])
            return context.get_dummy_value()

        return types.none(duration_ns), emit

else:
    sched_yield = os.sched_yield

    def _sleep(duration_ns: int) -> None:
        time.sleep(duration_ns / 1e9)


@inlined
def idle(wait: int) -> None:
    """Wait once, in the way `wait` (SPIN, YIELD or PARK) says."""
    if wait == SPIN:
        pause()
    elif wait == YIELD:
        sched_yield()
    else:
        _sleep(PARK_NS)
