"""Tables of TOML and JSON as dataclasses, and back."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import msgspec

from ramctl.errors import UsageProblem
from ramctl.records.record import JsonObject

T = TypeVar("T")


def read_table(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """`table` as an instance of the dataclass `cls`, nested dataclasses as nested tables.

    `where` is the dotted name of the table, for UsageProblem of unknown keys, missing keys and
    values of the wrong kind.
    """
    try:
        value = msgspec.convert(table, cls)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise UsageProblem(f"{where}{place.rstrip('`')}: {message}") from error
    if unknown := ", ".join(_unknown(table, write_table(value), where)):
        raise UsageProblem(f"unknown setting {unknown}")
    return value


def _unknown(table: Mapping[str, Any], known: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, value in table.items():
        if key not in known:
            yield f"{where}.{key}"
        elif isinstance(value, Mapping):
            yield from _unknown(value, known[key], f"{where}.{key}")


def write_table(value: Any) -> JsonObject:
    """The dataclass `value` as nested tables of plain JSON values; None fields are left out."""

    def plain(pairs: list[tuple[str, Any]]) -> JsonObject:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in pairs if v is not None}

    return asdict(value, dict_factory=plain)
