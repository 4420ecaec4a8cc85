"""Weights stored once: a graph's initialisers as references into model.safetensors."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

# safetensors' names of number types, and onnx's numbers of them
_TYPES = {"F32": 1, "I64": 7, "F16": 10, "BF16": 16}
_FLOAT = 1


def share_weights(graph: Any, weights: Path, folder: Path) -> int:
    """Let the graph's initialisers refer to the tensors of the same name; the number shared.

    A tensor stored as fp16 is cast when the graph is loaded. `folder` is where the graph will be.
    """
    header, start = _read_header(weights)
    location = weights.relative_to(folder).as_posix()
    casts, shared = [], 0
    for initialiser in graph.graph.initializer:
        entry = header.get(initialiser.name.removeprefix("model."))
        if entry is None or list(initialiser.dims) != entry["shape"]:
            continue
        kind = _TYPES.get(entry["dtype"])
        if kind is None or not _same_values(initialiser, entry, weights, start):
            continue
        if kind != initialiser.data_type:
            casts.append(_cast(initialiser))
        first, end = entry["data_offsets"]
        _refer(initialiser, kind, location, start + first, end - first)
        shared += 1
    for cast in reversed(casts):
        graph.graph.node.insert(0, cast)
    return shared


def drop_unused(graph: Any) -> None:
    """Remove the nodes and weights of a graph that nothing leads on from."""
    outputs = {output.name for output in graph.output}
    found = True
    while found:
        read = outputs.union(*(node.input for node in graph.node))
        unused = [node for node in graph.node if not read.intersection(node.output)]
        for node in unused:
            graph.node.remove(node)
        found = bool(unused)
    for initialiser in [i for i in graph.initializer if i.name not in read]:
        graph.initializer.remove(initialiser)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The tensor table of a safetensors file, and where its data start."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), 8 + length


def _same_values(initialiser: Any, entry: dict[str, Any], weights: Path, start: int) -> bool:
    """Whether the stored tensor is the graph's: an exporter may have changed it on the way."""
    from onnx import numpy_helper

    if entry["dtype"] == "BF16":
        return False  # numpy has no such type; these graphs carry their own copy
    kind = {"F32": np.float32, "F16": np.float16, "I64": np.int64}[entry["dtype"]]
    values = numpy_helper.to_array(initialiser)
    stored = np.memmap(weights, kind, "r", start + entry["data_offsets"][0], tuple(values.shape))
    return bool(np.array_equal(stored.astype(values.dtype), values))


def _cast(initialiser: Any) -> Any:
    from onnx import helper

    name = initialiser.name
    initialiser.name = f"{name}_stored"
    return helper.make_node("Cast", [initialiser.name], [name], to=_FLOAT)


def _refer(initialiser: Any, kind: int, location: str, offset: int, length: int) -> None:
    initialiser.ClearField("raw_data")
    initialiser.ClearField("float_data")
    initialiser.data_type = kind
    initialiser.data_location = 1  # external
    del initialiser.external_data[:]
    values = {"location": location, "offset": offset, "length": length}
    for key, value in values.items():
        entry = initialiser.external_data.add()
        entry.key, entry.value = key, str(value)
