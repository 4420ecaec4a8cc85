"""ONNX graphs cut into parts: the package `onnx`, which writes graphs, is not needed to tag."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

# The fields of onnx.proto that are read, with their numbers and types; others are kept unread.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {"graph": (7, "Graph"), "training": (20, "Training*"), "functions": (25, "Function*")},
    "Training": {"start": (1, "Graph"), "step": (2, "Graph")},
    "Function": {"node": (7, "Node*"), "attributes": (11, "Attribute*")},
    "Graph": {
        "node": (1, "Node*"), "name": (2, "string"), "initializer": (5, "Tensor*"),
        "input": (11, "Value*"), "output": (12, "Value*"), "sparse": (15, "Sparse*"),
    },
    "Node": {
        "input": (1, "string*"), "output": (2, "string*"), "op_type": (4, "string"),
        "attributes": (5, "Attribute*"),
    },
    "Attribute": {
        "tensor": (5, "Tensor"), "graph": (6, "Graph"), "tensors": (10, "Tensor*"),
        "graphs": (11, "Graph*"), "sparse": (22, "Sparse"), "sparses": (23, "Sparse*"),
    },
    "Sparse": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Tensor": {
        "dims": (1, "int64*"), "data_type": (2, "int64"), "name": (8, "string"),
        "external": (13, "Entry*"), "location": (14, "int64"),
    },
    "Entry": {"key": (1, "string"), "value": (2, "string")},
    "Value": {"name": (1, "string"), "type": (2, "Type")},
    "Type": {"tensor": (1, "TensorType")},
    "TensorType": {"element": (1, "int64")},
}  # fmt: skip
_TYPES = {"tensor(float)": 1, "tensor(int64)": 7, "tensor(bool)": 9}  # as onnxruntime names them
_IS_EXTERNAL = 1


def _classes() -> dict[str, Any]:
    """A class of each message."""
    file = descriptor_pb2.FileDescriptorProto(name="graph_parts.proto", syntax="proto2")
    types = descriptor_pb2.FieldDescriptorProto
    scalars = {"int64": types.TYPE_INT64, "string": types.TYPE_STRING}
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = types.LABEL_REPEATED if kind.endswith("*") else types.LABEL_OPTIONAL
            kind = kind.removesuffix("*")
            added.type = scalars.get(kind, types.TYPE_MESSAGE)
            if kind not in scalars:
                added.type_name = f".{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(name)) for name in _MESSAGES}


_CLASSES = _classes()


class Graph:
    """A serialised model; ValueError for other bytes."""

    @classmethod
    def read(cls, path: Path) -> "Graph":
        """The graph in a file; ValueError where it refers to weights outside its folder."""
        graph, folder = cls(path.read_bytes()), path.parent
        for name in sorted(graph.files):
            # Versions of onnxruntime differ in what they refuse.
            is_below = not Path(name).is_absolute() and ".." not in Path(name).parts
            if not (is_below and (folder / name).resolve().is_relative_to(folder.resolve())):
                raise ValueError(f"weights outside its folder: {name!r}")
        return graph

    def __init__(self, model: bytes) -> None:
        self._model = _CLASSES["Model"]()
        try:
            self._model.ParseFromString(model)
        except DecodeError as error:
            raise ValueError(f"not a graph: {error}") from error
        if not self._model.HasField("graph"):
            raise ValueError("not a graph")
        graph = self._model.graph
        self.inputs: dict[str, Any] = {value.name: value for value in graph.input}
        self.files = {*_files(self._model)}  # with values of tensors, by the names in the graph
        # The tensor by which labels are ranked for the shortlist.
        ranked = [node.input[0] for node in graph.node if node.op_type == "TopK"]
        self.ranked = ranked[-1] if ranked else None

    def border(self, source: str) -> list[str]:
        """Tensors that depend on the input `source` alone and meet other inputs."""
        pure, mixed = {source}, self.inputs.keys() - {source}
        border: dict[str, None] = {}
        for node in self._model.graph.node:
            if not mixed.isdisjoint(node.input):
                mixed |= set(node.output)
                border |= dict.fromkeys(name for name in node.input if name in pure)
            elif not pure.isdisjoint(node.input):
                pure.update(node.output)
        return list(border)

    def cut(self, outputs: Sequence[str], given: Mapping[str, Any]) -> bytes:
        """The model that computes `outputs` from the `given` inputs and constants, by name."""
        needed, nodes = set(outputs) - given.keys(), []
        for node in reversed(self._model.graph.node):
            if not needed.isdisjoint(node.output):
                needed |= set(node.input) - given.keys()
                nodes.append(node)
        part = _CLASSES["Model"]()
        part.CopyFrom(self._model)
        part.ClearField("graph")
        graph = part.graph
        graph.name = "part"
        graph.node.extend(reversed(nodes))
        tensors = self._model.graph.initializer
        graph.initializer.extend(tensor for tensor in tensors if tensor.name in needed)
        for value in given.values():
            (graph.initializer if value.DESCRIPTOR.name == "Tensor" else graph.input).append(value)
        graph.output.extend(_CLASSES["Value"](name=name) for name in outputs)
        return bytes(part.SerializeToString())


def _files(message: Any) -> Iterator[str]:
    """The files that hold values of tensors anywhere in a message."""
    if message.DESCRIPTOR.name == "Entry":
        if message.key == "location":
            yield message.value
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) else (value,):
                yield from _files(part)


def graph_input(name: str, kind: str) -> Any:
    """An input of one of onnxruntime's types, of any shape."""
    value = _CLASSES["Value"](name=name)
    value.type.tensor.element = _TYPES[kind]
    return value


def constant(name: str, kind: str, shape: Sequence[int]) -> Any:
    """A constant whose values the runtime is given beside the graph."""
    external = [{"key": "location", "value": "memory"}]
    return _CLASSES["Tensor"](
        name=name, data_type=_TYPES[kind], dims=shape, external=external,
        location=_IS_EXTERNAL,
    )  # fmt: skip
