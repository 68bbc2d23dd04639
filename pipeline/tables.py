"""Tables of a TOML document → msgspec structs, every mistake found at once.

msgspec stops at the first thing it does not like. Here each key is converted on its own, so that one run of
`config check` says everything that is wrong, one line a mistake: key, what was found, what is allowed.
"""

from __future__ import annotations

import math
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect

S = TypeVar("S", bound=msgspec.Struct)


def read_table(table: Any, kind: type[S], key: str) -> tuple[S | None, list[str]]:
    """Convert a table to the struct `kind`; `key` is its dotted name. Returns the struct, or None and what is wrong."""
    if not isinstance(table, dict):
        return None, [f"{key}: found {_said(table)}, allowed: a table"]
    types = get_type_hints(kind, include_extras=True)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    errors = [f"{_dotted(key, name)}: unknown, allowed: {', '.join(fields)}" for name in table if name not in fields]
    values = {}
    for name, field in fields.items():
        if name in table:
            value, problems = _convert(table[name], types[field.name], _dotted(key, name))
            errors += problems
            if not problems:
                values[field.name] = value
        elif field.required:
            errors.append(f"{_dotted(key, name)}: missing, allowed: {allowed(types[field.name])}")
    errors += _checked(kind, values, types, key, complete=not errors)
    return (None, errors) if errors else (kind(**values), [])


def _dotted(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _convert(value: Any, wanted: Any, key: str) -> tuple[Any, list[str]]:
    """Convert one value, tables within it too."""
    if get_origin(wanted) is UnionType:  # a table that may be left out
        if value is None:
            return None, []
        wanted = next((one for one in get_args(wanted) if hasattr(one, "__struct_fields__")), wanted)
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return read_table(value, wanted, key)
    arguments = get_args(wanted)
    if get_origin(wanted) is dict and isinstance(arguments[1], type) and issubclass(arguments[1], msgspec.Struct):
        if not isinstance(value, dict):
            return None, [f"{key}: found {_said(value)}, allowed: tables [{key}.NAME]"]
        found, errors = {}, []
        for name, table in value.items():
            found[name], problems = read_table(table, arguments[1], _dotted(key, name))
            errors += problems
        return found, errors
    odd = _not_finite(value, key)
    if odd:
        return None, odd
    try:
        return msgspec.convert(value, wanted), []
    except msgspec.ValidationError:
        return None, [f"{key}: found {_said(value)}, allowed: {allowed(wanted)}"]


def _not_finite(value: Any, key: str) -> list[str]:
    """Refuse nan and inf, which TOML has, wherever they hide."""
    if isinstance(value, dict):
        return [one for name, inner in value.items() for one in _not_finite(inner, _dotted(key, name))]
    if isinstance(value, list):
        return [one for position, inner in enumerate(value) for one in _not_finite(inner, f"{key}[{position}]")]
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{key}: found {value}, allowed: a finite number"]
    return []


def _checked(kind: type[Any], values: dict[str, Any], types: dict[str, Any], key: str, *, complete: bool) -> list[str]:
    """Let the struct's own `__post_init__` check its values, and go on behind its first complaint.

    It names one key at a time. A key that was complained about gets a harmless stand-in, 1, and the check is repeated;
    a complaint that names a stand-in is a consequence, not a mistake.
    """
    if not hasattr(kind, "__post_init__"):
        return []
    errors: list[str] = []
    stand_in: set[str] = set()
    values = dict(values)
    for field in msgspec.structs.fields(kind):
        # What is missing or wrong was said already; the others are checked around it.
        if field.name not in values and field.required and not complete:
            values[field.name] = _stand_in(types[field.name])
            stand_in.add(field.name)
    for _ in range(len(types)):
        try:
            kind(**values)
        except (ValueError, TypeError) as error:
            message = str(error)
            words = {word.strip(",.:;'\"") for word in message.split()}
            if words & stand_in:
                return errors
            errors.append(_dotted(key, message) if key else message)
            culprit = next((word for word in types if message.startswith(word)), None)
            if culprit is None:
                return errors
            values[culprit] = _stand_in(types[culprit])
            stand_in.add(culprit)
        else:
            return errors
    return errors


def _stand_in(wanted: Any) -> Any:
    candidates: tuple[Any, ...] = (1, "1", {}, [], True)
    for candidate in candidates:
        try:
            return msgspec.convert(candidate, wanted)
        except msgspec.ValidationError:
            continue
    return None


def _said(value: Any) -> str:
    """Show what was found, as TOML, on one line and not too long."""
    if isinstance(value, dict):
        return "a table"
    text = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"


def allowed(wanted: Any) -> str:
    """Say in words what a type allows."""
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return "a table"
    return _describe(inspect.type_info(wanted))


def _describe(info: Any) -> str:
    match info:
        case inspect.LiteralType():
            return " or ".join(f'"{value}"' for value in info.values)
        case inspect.UnionType():
            return " or ".join(_describe(one) for one in info.types if not isinstance(one, inspect.NoneType))
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            return _describe_number(info)
        case inspect.StrType():
            return f"a string that matches {info.pattern}" if info.pattern else "a string"
        case inspect.ListType():
            return f"a list: each {_describe(info.item_type)}"
        case inspect.DictType():
            return f"a table: each {_describe(info.value_type)}"
    return "a table"


def _describe_number(info: Any) -> str:
    words = ["a whole number" if isinstance(info, inspect.IntType) else "a number"]
    for attribute, word in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below")):
        bound = getattr(info, attribute)
        if bound is not None:
            words.append(f"{word} {bound:,}" if isinstance(bound, int) else f"{word} {bound:g}")
    return " ".join(words)
