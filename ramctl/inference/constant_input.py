"""Turns an input of an ONNX graph into a constant, so that the runtime does the labels' work once.

As an input, the label rows go through the label projection again in every batch; what depends on a
constant alone is folded when the graph is loaded. The graph is edited as bytes because the package
that writes graphs is not installed for tagging.

Source: onnx.proto (ModelProto, GraphProto, TensorProto, ValueInfoProto).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# Protobuf's wire types; the messages read here have no fields of the fixed sizes.
VARINT, DELIMITED = 0, 2
MODEL_GRAPH = 7
GRAPH_INITIALIZER, GRAPH_INPUT = 5, 11
INPUT_NAME = 1
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_DATA = 1, 2, 8, 9
FLOAT = 1


def bind_input(model: bytes, name: str, values: NDArray[np.float32]) -> bytes:
    """The serialised model with the constant `values` in place of the input `name`.

    Raises ValueError when `model` has no such input.
    """
    constant = _message(GRAPH_INITIALIZER, _tensor(name, values))
    out: list[bytes | memoryview] = []
    is_bound = False
    for number, field, content in _fields(memoryview(model)):  # slices of it are no copies
        if number == MODEL_GRAPH:
            kept = [whole for n, whole, inner in _fields(content) if not _is_input(n, inner, name)]
            is_bound = sum(map(len, kept)) < len(content)
            out.append(_message(MODEL_GRAPH, b"".join([*kept, constant])))
        else:
            out.append(field)
    if not is_bound:
        raise ValueError(f"no graph with an input {name}")
    return b"".join(out)


def _is_input(number: int, content: memoryview, name: str) -> bool:
    if number != GRAPH_INPUT:
        return False
    return any(n == INPUT_NAME and inner == name.encode() for n, _, inner in _fields(content))


def _tensor(name: str, values: NDArray[np.float32]) -> bytes:
    dims = b"".join(_number(TENSOR_DIMS, size) for size in values.shape)
    data = np.ascontiguousarray(values, "<f4").tobytes()
    named = _message(TENSOR_NAME, name.encode())
    return dims + _number(TENSOR_TYPE, FLOAT) + named + _message(TENSOR_DATA, data)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | VARINT) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The number, all bytes and the content of each field; a number has no content."""
    end = 0
    while end < len(message):
        start = end
        key, end = _read_varint(message, start)
        if key & 7 not in (VARINT, DELIMITED):
            raise ValueError("not a protobuf message")
        value, content = _read_varint(message, end)
        end = content + value if key & 7 == DELIMITED else content
        if end > len(message):
            raise ValueError("a truncated protobuf message")
        yield key >> 3, message[start:end], message[content:end]


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """The number that starts at a place, and where it ends."""
    value = shift = 0
    for end, byte in enumerate(message[place : place + 10], place + 1):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, end
    raise ValueError("a truncated protobuf message")
