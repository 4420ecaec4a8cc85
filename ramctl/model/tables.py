"""TOML tables to frozen dataclasses and back: unknown, missing or ill-typed keys are errors."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ramctl.errors import UsageProblem
from ramctl.records.record import JsonObject

T = TypeVar("T")
# Metadata of a dataclass field whose own fields are keys of the table around it: it groups settings
# in Python, while their names in files and on the command line stay short.
FLAT = {"flat": True}


def read_table(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """`table` as an instance of the dataclass `cls`.

    Nested dataclasses are nested tables, unless their field is FLAT. A field typed `X | None`
    may be missing or `false`; one with a default may be missing, because bundles of earlier
    versions do not have it. `where` is the dotted name of the table, used in messages. Raises
    UsageProblem that names unknown keys, missing keys and values of the wrong kind.
    """
    known = _keys(cls)
    unknown = sorted(set(table) - set(known))
    if unknown:
        shown = (key if key.isprintable() else repr(key) for key in unknown)
        names = ", ".join(f"{where}.{key}" for key in shown)
        raise UsageProblem(f"unknown setting {names}; known here: {', '.join(known)}")
    return _read_fields(cls, table, where)


def _keys(cls: Any) -> list[str]:
    hints, keys = get_type_hints(cls), []
    for field in dataclasses.fields(cls):
        keys += _keys(hints[field.name]) if field.metadata == FLAT else [field.name]
    return keys


def _read_fields(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    hints, values = get_type_hints(cls), {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name, kind = field.name, hints[field.name]
        if field.metadata == FLAT:
            values[name] = _read_fields(kind, table, where)
        elif name in table:
            values[name] = _convert(kind, table[name], f"{where}.{name}")
        elif field.default is not dataclasses.MISSING:
            values[name] = field.default
        elif type(None) in get_args(kind):
            values[name] = None
        else:
            raise UsageProblem(f"missing setting {where}.{name}")
    return cls(**values)


def write_table(value: Any) -> JsonObject:
    """The dataclass `value` as nested tables of plain JSON values; None fields are left out."""
    table: JsonObject = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if field.metadata == FLAT:
            table |= write_table(item)
        elif dataclasses.is_dataclass(item):
            table[field.name] = write_table(item)
        elif item is not None:
            table[field.name] = list(item) if isinstance(item, tuple) else item
    return table


def merge_tables(base: Mapping[str, Any], top: Mapping[str, Any]) -> JsonObject:
    """`base` with the keys of `top` replaced; tables in both are merged, not replaced."""
    merged = {**base, **top}
    for key in base.keys() & top.keys():
        if isinstance(base[key], Mapping) and isinstance(top[key], Mapping):
            merged[key] = merge_tables(base[key], top[key])
    return merged


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is False:
            return None
        kind = next(arg for arg in get_args(kind) if arg is not type(None))
        return _convert(kind, value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise UsageProblem(f"{where} must be a table, not {value!r}")
        return read_table(kind, value, where)
    if origin is Literal:
        if value not in get_args(kind):
            choices = ", ".join(map(str, get_args(kind)))
            raise UsageProblem(f"{where} must be one of {choices}, not {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageProblem(f"{where} must be a list, not {value!r}")
        items = get_args(kind)
        if items[-1] is not Ellipsis and len(items) != len(value):
            raise UsageProblem(f"{where} must have {len(items)} values, not {len(value)}")
        return tuple(_convert(items[0], item, where) for item in value)
    return _convert_plain(kind, value, where)


def _convert_plain(kind: Any, value: Any, where: str) -> Any:
    if get_origin(kind) is dict:
        if isinstance(value, Mapping):
            return dict(value)
        raise UsageProblem(f"{where} must be a table, not {value!r}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageProblem(f"{where} must be of type {kind.__name__}, not {value!r}")
    return value
