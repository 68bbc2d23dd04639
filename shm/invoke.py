"""Call a function known only at run time, such as a user's strategy, from a compiled kernel.

The kernel holds addresses (plain int64 words) and not the functions themselves, so its machine code depends only on
the argument types and is found in the disk cache whatever the function does. A call costs about 2 ns more than a
direct one; an exception raised by the function propagates through the kernel to Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.shm.kernel import COMPILED, intrinsic, kernel_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

if COMPILED:
    import numba
    from numba.core import types

    def compiled_for(function: Callable[..., None], arguments: Sequence[Any]) -> Any:
        """Compile `function` for the types of `arguments` (values, or Numba types); it returns nothing.

        Raises whatever Numba raises where the function does not compile.
        """
        signature = types.none(*[one if isinstance(one, types.Type) else numba.typeof(one) for one in arguments])
        return kernel_of(signature)(function)

    def addresses(functions: Sequence[Any]) -> Any:
        """Collect the entry addresses of functions from `compiled_for`, which the caller must keep alive."""
        found = []
        for function in functions:
            (result,) = function.overloads.values()
            found.append(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))
        return np.array(found, dtype=np.int64)

    @intrinsic
    def invoke(typingctx: Any, table: Any, index: Any, first: Any, second: Any, third: Any, fourth: Any) -> Any:
        """Call entry `index` of an `addresses` table with four arguments of exactly the types it was compiled for."""
        argument_types = (first, second, third, fourth)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            from numba.np.arrayobj import make_array  # noqa: PLC0415 - needed only while compiling

            data = make_array(signature.args[0])(context, builder, args[0]).data
            word = builder.load(builder.gep(data, [context.cast(builder, args[1], signature.args[1], types.intp)]))
            convention = context.call_conv
            pointer = builder.inttoptr(
                word, convention.get_function_type(types.none, argument_types).as_pointer(), name="user_function"
            )
            status, _ = convention.call_function(builder, pointer, types.none, argument_types, args[2:])
            with builder.if_then(status.is_error, likely=False):
                convention.return_status_propagate(builder, status)
            return context.get_dummy_value()

        return types.none(table, index, *argument_types), emit

else:

    def compiled_for(function: Callable[..., None], arguments: Sequence[Any]) -> Any:  # noqa: D103 - documented above
        return function

    def addresses(functions: Sequence[Any]) -> Any:  # noqa: D103 - documented above
        return tuple(functions)

    def invoke(table: Any, index: int, *arguments: Any) -> None:  # noqa: D103 - documented above
        table[index](*arguments)
