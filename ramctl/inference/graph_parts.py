"""An ONNX graph cut into parts, as bytes: the package that writes graphs is not needed to tag.

Fields of its messages are named by their numbers in onnx.proto.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

VARINT, DELIMITED = 0, 2  # protobuf's wire types
_FIXED = {1: 8, 5: 4}  # bytes of a number of another type
MODEL_GRAPH = 7
NODE, NAME, WEIGHT, INPUT, OUTPUT = 1, 2, 5, 11, 12  # of a graph
_OP_TYPE = 4  # of a node
NAME_OF = {WEIGHT: 8, INPUT: 1}  # the field of its name
TYPES = {"tensor(float)": 1, "tensor(int64)": 7, "tensor(bool)": 9}  # as onnxruntime names them
# The messages in a message that lead to tensors, by the numbers of their fields.
_INNER = {
    "model": {MODEL_GRAPH: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {NODE: "node", WEIGHT: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_LOCATION = b"location"  # the key of the entry with the file of a tensor's values
Field = bytes | memoryview


class Graph:
    """A serialised model; ValueError for what is none."""

    def __init__(self, model: bytes) -> None:
        self.inputs: dict[str, Field] = {}
        self._weights: dict[str, Field] = {}
        self._nodes: list[tuple[Field, list[str], list[str]]] = []  # each, what it takes, and gives
        self.files = {*_files(memoryview(model))}  # with values of tensors, as they are named
        fields = list(_fields(memoryview(model)))  # slices of it are no copies
        self.ranked: str | None = None  # what decides which labels are on the shortlist
        self._rest = [whole for number, whole, _ in fields if number != MODEL_GRAPH]
        (graph,) = (content for number, _, content in fields if number == MODEL_GRAPH)
        for number, whole, content in _fields(graph):
            if number == NODE:
                # They are written by their numbers: what else a node has is not looked at.
                first = takewhile(lambda field: field[0] <= 2, _fields(content))
                names = [(n, str(x, "utf-8")) for n, _, x in first]
                takes, gives = ([name for n, name in names if n == kind] for kind in (1, 2))
                self._nodes.append((whole, takes, gives))
                if b"TopK" in bytes(content) and (_OP_TYPE, b"TopK") in (
                    (n, bytes(x)) for n, _, x in _fields(content)
                ):
                    self.ranked = takes[0]
            elif number in NAME_OF:
                name = next(inner for n, _, inner in _fields(content) if n == NAME_OF[number])
                (self.inputs if number == INPUT else self._weights)[str(name, "utf-8")] = whole

    def border(self, source: str) -> list[str]:
        """What depends on the input `source` alone, and meets other inputs."""
        own, mixed = {source}, self.inputs.keys() - {source}
        border: dict[str, None] = {}
        for _, takes, gives in self._nodes:
            if not mixed.isdisjoint(takes):
                mixed |= set(gives)
                border |= dict.fromkeys(name for name in takes if name in own)
            elif not own.isdisjoint(takes):
                own.update(gives)
        return list(border)

    def cut(self, outputs: Sequence[str], given: Mapping[str, Field]) -> bytes:
        """The model that computes `outputs` of what is `given`: names with their fields."""
        needed, nodes = set(outputs) - given.keys(), []
        for whole, takes, gives in reversed(self._nodes):
            if not needed.isdisjoint(gives):
                needed |= set(takes) - given.keys()
                nodes.append(whole)
        weights = [whole for name, whole in self._weights.items() if name in needed]
        ends = [_message(OUTPUT, _message(NAME_OF[INPUT], name.encode())) for name in outputs]
        fields = [*reversed(nodes), _message(NAME, b"part"), *weights, *given.values(), *ends]
        return b"".join([*self._rest, _message(MODEL_GRAPH, b"".join(fields))])


def _files(message: memoryview, kind: str = "model") -> Iterator[str]:
    """The files that hold values of tensors anywhere in a message of a kind."""
    if kind == "entry":
        named = {number: bytes(content) for number, _, content in _fields(message)}
        if named.get(1) == _LOCATION:
            yield str(named.get(2, b""), "utf-8")
    elif _LOCATION in bytes(message):  # most nodes end here
        for number, _, content in _fields(message):
            if inner := _INNER[kind].get(number):
                yield from _files(content, inner)


def input_field(name: str, kind: str) -> bytes:
    """The field of an input of one of TYPES, of any shape."""
    of_values = _message(2, _message(1, _number(1, TYPES[kind])))
    return _message(INPUT, _message(NAME_OF[INPUT], name.encode()) + of_values)


def constant_field(name: str, kind: str, shape: Sequence[int]) -> bytes:
    """The field of a constant whose values the runtime is given beside the graph."""
    dims = b"".join(_number(1, size) for size in shape)
    elsewhere = _message(13, _message(1, b"location") + _message(2, b"memory")) + _number(14, 1)
    named = _number(2, TYPES[kind]) + _message(NAME_OF[WEIGHT], name.encode())
    return _message(WEIGHT, dims + named + elsewhere)


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
        if key & 7 in _FIXED:
            content = end = end + _FIXED[key & 7]
        elif key & 7 in (VARINT, DELIMITED):
            value, content = _read_varint(message, end)
            end = content + value if key & 7 == DELIMITED else content
        else:
            raise ValueError("not a protobuf message")
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
