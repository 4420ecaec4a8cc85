"""Turns an input of an ONNX graph into a constant, so that the runtime does the labels' work once.

As an input, the label rows go through the label projection again in every batch; what depends on a
constant alone is folded when the graph is loaded. The graph is edited as bytes because the package
that writes graphs is not installed for tagging.

Source: onnx.proto (ModelProto, GraphProto, TensorProto, ValueInfoProto).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5  # protobuf's wire types
MODEL_GRAPH = 7
GRAPH_INITIALIZER, GRAPH_INPUT = 5, 11
INPUT_NAME = 1
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_DATA = 1, 2, 8, 9
FLOAT = 1


def bind_input(model: bytes, name: str, values: NDArray[np.float32]) -> bytes:
    """The serialised model with the constant `values` in place of the input `name`.

    Raises ValueError when `model` has no such input.
    """
    out, is_bound = bytearray(), False
    for number, kind, start, content, end in _fields(model):
        if number != MODEL_GRAPH or kind != DELIMITED:
            out += model[start:end]
            continue
        graph = bytes(model[content:end])
        kept = [
            graph[s:e] for n, k, s, c, e in _fields(graph) if not _is_input(graph[c:e], n, name)
        ]
        is_bound = sum(map(len, kept)) < len(graph)
        kept.append(_message(GRAPH_INITIALIZER, _tensor(name, values)))
        out += _message(MODEL_GRAPH, b"".join(kept))
    if not is_bound:
        raise ValueError(f"no graph with an input {name}")
    return bytes(out)


def _is_input(content: bytes, number: int, name: str) -> bool:
    if number != GRAPH_INPUT:
        return False
    return any(
        n == INPUT_NAME and content[c:e] == name.encode() for n, _, _, c, e in _fields(content)
    )


def _tensor(name: str, values: NDArray[np.float32]) -> bytes:
    dims = b"".join(_key(TENSOR_DIMS, VARINT) + _varint(size) for size in values.shape)
    kind = _key(TENSOR_TYPE, VARINT) + _varint(FLOAT)
    data = np.ascontiguousarray(values, "<f4").tobytes()
    return dims + kind + _message(TENSOR_NAME, name.encode()) + _message(TENSOR_DATA, data)


def _message(number: int, content: bytes) -> bytes:
    return _key(number, DELIMITED) + _varint(len(content)) + content


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(message: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, start of the field, start of its content, end) of each field."""
    place = 0
    while place < len(message):
        start = place
        key, place = _read_varint(message, place)
        kind = key & 7
        content = place
        if kind == DELIMITED:
            size, content = _read_varint(message, place)
            place = content + size
        elif kind == VARINT:
            _, place = _read_varint(message, place)
        elif kind in (FIXED32, FIXED64):
            place += 4 if kind == FIXED32 else 8
        else:
            raise ValueError("not a protobuf message")
        if place > len(message):
            raise ValueError("a truncated protobuf message")
        yield key >> 3, kind, start, content, place


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(message):
            raise ValueError("a truncated protobuf message")
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
