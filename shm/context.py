"""Contexts: what a kernel works on, passed as one pointer.

A context is a NamedTuple of arrays, numbers and other contexts. Numba would pass it by value, seven words an array,
copied at every call: with the fifty arrays of a stage that costs more than most kernels do, and most of the time the
compiler takes. Of a class marked `by_reference` kernels get the address of a table instead, written once per object,
and read what they use from there:

    ┌ array ──────────────────┬ array ───────────────┬ number ┬ context ───────────────┬ …
    │ data, shape, (strides)  │ data, shape          │ value  │ its own table, inline  │
    └─────────────────────────┴──────────────────────┴────────┴────────────────────────┴ …

Nothing in a context can be assigned to, so the table never changes: loads from it are marked invariant, and the
compiler keeps what it has read. For Python the class stays the NamedTuple it is.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from shrivenq.shm.kernel import COMPILED

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T", bound=type)

if COMPILED:
    from llvmlite import ir
    from numba.core import types
    from numba.core.typing.templates import AttributeTemplate
    from numba.core.typing.typeof import typeof, typeof_impl
    from numba.extending import (
        NativeValue,
        infer_getattr,
        lower_getattr_generic,
        models,
        register_model,
        unbox,
    )
    from numba.np.arrayobj import make_array, populate_array

    WORD = ir.IntType(64)

    class ContextType(types.Type):
        """Numba's type of a context: its fields' types, and where each lies in the table."""

        def __init__(self, name: str, fields: tuple[tuple[str, Any], ...]) -> None:
            self.fields = fields
            self.types = dict(fields)
            self.offsets = {}
            self.size = 0
            for field, kind in fields:
                self.offsets[field] = self.size
                self.size += _size_of(name, field, kind)
            spelled = ", ".join(f"{field}: {kind}" for field, kind in fields)
            # Short, because it becomes part of the name of every function that takes one.
            super().__init__(f"{name}.{hashlib.sha256(spelled.encode()).hexdigest()[:16]}")

    def _size_of(name: str, field: str, kind: Any) -> int:
        """Count the words a field takes."""
        if isinstance(kind, types.Array):
            return 1 + kind.ndim * (1 if kind.layout == "C" else 2)
        if isinstance(kind, ContextType):
            return int(kind.size)
        if isinstance(kind, types.Integer):
            return 1
        if kind == types.none:
            return 0
        raise TypeError(f"{name}.{field}: a context holds arrays, integers and contexts, not {kind}")

    @register_model(ContextType)
    class _ContextModel(models.PrimitiveModel):  # type: ignore[misc]
        def __init__(self, manager: Any, kind: Any) -> None:
            super().__init__(manager, kind, WORD.as_pointer())

    @infer_getattr
    class _ContextAttributes(AttributeTemplate):  # type: ignore[misc]
        key = ContextType

        def generic_resolve(self, kind: Any, field: str) -> Any:
            return kind.types.get(field)

    @lower_getattr_generic(ContextType)  # type: ignore[untyped-decorator]
    def _get(context: Any, builder: Any, kind: Any, table: Any, field: str) -> Any:
        found, at = kind.types[field], kind.offsets[field]
        if found == types.none:
            return context.get_dummy_value()
        if isinstance(found, ContextType):
            return builder.gep(table, [WORD(at)], inbounds=True)
        if isinstance(found, types.Integer):
            return context.cast(builder, _load(builder, table, at), types.int64, found)
        return _array(context, builder, found, table, at)

    def _load(builder: Any, table: Any, at: int) -> Any:
        """Load a word of the table, once for all."""
        loaded = builder.load(builder.gep(table, [WORD(at)], inbounds=True))
        loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
        return loaded

    def _array(context: Any, builder: Any, kind: Any, table: Any, at: int) -> Any:
        """Put an array together from the words of the table."""
        made = make_array(kind)(context, builder)
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        shape = [_load(builder, table, at + 1 + axis) for axis in range(kind.ndim)]
        if kind.layout == "C":
            strides = [WORD(size)]
            for length in reversed(shape[1:]):
                strides.insert(0, builder.mul(strides[0], length))
        else:
            strides = [_load(builder, table, at + 1 + kind.ndim + axis) for axis in range(kind.ndim)]
        data = builder.inttoptr(_load(builder, table, at), made.data.type)
        populate_array(made, data=data, shape=shape, strides=strides, itemsize=WORD(size), meminfo=None)
        return made._getvalue()  # noqa: SLF001 - Numba's own way

    @unbox(ContextType)  # type: ignore[untyped-decorator]
    def _unbox(kind: Any, value: Any, c: Any) -> Any:
        found = c.pyapi.object_getattr_string(value, "_address")
        address = c.pyapi.long_as_longlong(found)
        c.pyapi.decref(found)
        return NativeValue(c.builder.inttoptr(address, WORD.as_pointer()), is_error=c.pyapi.c_api_error())

    def _words(value: Any) -> list[int]:
        """List the words a value takes in a table."""
        if isinstance(value, np.ndarray):
            strides = () if typeof(value).layout == "C" else value.strides
            return [value.ctypes.data, *value.shape, *strides]
        if isinstance(value, tuple):
            return [word for one in value for word in _words(one)]
        return [] if value is None else [int(value)]

    class _Table:
        """Writes the table, and names the type, of a context when a kernel first asks."""

        def __init__(self, make: Callable[[Any], Any]) -> None:
            self.make = make

        def __set_name__(self, owner: type, name: str) -> None:
            self.name = name

        def __get__(self, value: Any, owner: type) -> Any:
            # Kept in the instance's dictionary, which is looked at first from now on.
            value.__dict__[self.name] = made = self.make(value)
            return made

    def _type_of(value: Any) -> ContextType:
        fields = tuple((name, typeof(one)) for name, one in zip(value._fields, value, strict=True))
        return ContextType(type(value).__name__, fields)

    def _type_or_none(value: Any) -> ContextType:
        """Name the type where Numba only asks if there is one: it asks again then, and is told why there is none."""
        try:
            return _type_of(value)
        except TypeError as error:
            raise AttributeError(str(error)) from None

    def by_reference(cls: T) -> T:
        """Mark a NamedTuple class: kernels get its objects by address."""
        inside = {
            "__module__": cls.__module__,
            "__doc__": cls.__doc__,
            "__qualname__": cls.__qualname__,
            "_table": _Table(lambda value: np.array(_words(value), np.int64)),
            "_address": _Table(lambda value: int(value._table.ctypes.data)),  # noqa: SLF001
            "_numba_type_": _Table(_type_or_none),
        }
        made: Any = type(cls.__name__, (cls,), inside)
        typeof_impl.register(made)(lambda value, _: _type_of(value))
        return made

else:

    def by_reference(cls: T) -> T:  # noqa: D103 - documented above
        return cls
