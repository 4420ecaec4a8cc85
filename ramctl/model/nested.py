"""Tensors inside of dataclasses, named tuples and lists."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

Nested = TypeVar("Nested")


def map_tensors(do: Callable[..., Tensor], *values: Nested) -> Nested:
    """A value like the given ones, with `do` of the tensors that stand in the same place of each.

    What is neither a tensor nor holds any stays as the first value has it.
    """
    first: Any = values[0]
    if isinstance(first, Tensor):
        return do(*values)  # type: ignore[return-value]
    kind: Any = type(first)
    if dataclasses.is_dataclass(first):
        parts = ([getattr(v, f.name) for v in values] for f in dataclasses.fields(first))
        made: Nested = kind(*(map_tensors(do, *part) for part in parts))
        return made
    if isinstance(first, list | tuple):
        items: Any = values
        inner = [map_tensors(do, *part) for part in zip(*items, strict=True)]
        first = kind(*inner) if hasattr(kind, "_fields") else kind(inner)
    return first
