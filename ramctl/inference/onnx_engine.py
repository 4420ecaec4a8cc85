"""The inference engine without torch: the bundle's graph in onnxruntime, for tags alone.

B photos a batch, S pixels a side, L labels, W width of a label's row.
"""

import platform
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import (
    GRAPH,
    INT8_GRAPH,
    LABEL_QUERIES,
    OFFSETS,
    PHOTOS,
    SHORTLIST,
    WEIGHTS,
    Bundle,
)
from ramctl.errors import RunProblem, UsageProblem

TORCH = "torch"
LARGE = 200_000_000  # bytes of weights, from which on decoding is no longer what takes the time
# Constants made of a label's row take 4 to 8 KB, and four times as much while the graph is loaded.
# Of longer lists nothing is kept but the rows, and the graph runs for one part after the other: by
# half more work for a batch of four photos.
LABELS_AT_ONCE = 8192
# Protobuf's wire types, and the numbers of the fields that `bind_input` reads or writes. Source:
# onnx.proto (ModelProto, GraphProto, TensorProto, ValueInfoProto).
VARINT, DELIMITED = 0, 2
MODEL_GRAPH = 7
GRAPH_INITIALIZER, GRAPH_INPUT = 5, 11
INPUT_NAME = 1
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_DATA = 1, 2, 8, 9
FLOAT = 1
Floats = NDArray[np.float32]


class OnnxEngine:
    """A graph of the bundle with a fixed set of labels, on the CPU.

    Of labels that are not on a photo's shortlist, as `LabelSet.shortlist` gives it, scores are 0.
    """

    def __init__(
        self, bundle: Bundle, graph: str, rows: Floats, threads: int,
        shortlist: tuple[Floats, int] | None = None,
    ) -> None:  # fmt: skip
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if _adds_in_16_bits():
            options.add_session_config_entry("session.x64quantprecision", "1")
        # Waiting threads that spin would take the cores from the workers that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = bundle.path / graph
        # Weights are references into the bundle; bytes have no folder of their own.
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(bundle.path)
        )
        try:
            content = path.read_bytes()
            if rows.ndim == 2 and len(rows) <= LABELS_AT_ONCE:
                content = bind_input(content, LABEL_QUERIES, rows)
            # Its kernel takes four times as long as the addition and the norm that it joins.
            slow = ["SkipLayerNormFusion"]
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"], disabled_optimizers=slow
            )
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise RunProblem(f"{path}: onnxruntime cannot load it: {error}") from error
        takes = {given.name for given in self._session.get_inputs()}
        offsets, most = shortlist or (np.zeros(len(rows), np.float32), len(rows))
        self._feeds: list[dict[str, NDArray[Any]]] = []  # besides the photos, of one run each
        for start in range(0, len(rows), LABELS_AT_ONCE):
            # Descriptions are weighed by each photo: nothing of them can be done once.
            part = slice(start, start + LABELS_AT_ONCE)
            size = np.array([min(most, len(rows[part]))])
            feed = {LABEL_QUERIES: rows[part], OFFSETS: offsets[part], SHORTLIST: size}
            self._feeds.append({name: value for name, value in feed.items() if name in takes})

    def scores(self, photos: Floats) -> Floats:
        """Probabilities (B, L) of photos (B, 3, S, S)."""
        from onnxruntime import OrtValue

        parts = []
        for feed in self._feeds:
            inputs = {PHOTOS: photos, **feed}
            values = {name: OrtValue.ortvalue_from_numpy(given) for name, given in inputs.items()}
            (logits,) = self._session.run_with_ort_values(None, values)
            parts.append(sigmoid(np.asarray(logits.numpy())))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)


def _adds_in_16_bits() -> bool:
    """Whether this processor's sums of two products of 8-bit integers may overflow.

    x86 without VNNI; int8 scores would depend on the machine. Where the flags cannot be read it is
    taken for one: the detour is slow on the newest servers only (those with AMX).
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return True


def sigmoid(logits: Floats) -> Floats:
    """Probabilities of logits without overflow; tiny ones keep their digits."""
    return np.asarray(1 / (1 + np.exp(-np.maximum(logits, np.float32(-80)))), np.float32)


def choose_runtime(bundle: Bundle, runtime: str, device: str, dtype: str) -> str:
    """The graph's file name, or `torch`: what `--runtime`, `--device` and `--dtype` come to.

    What is asked for; else torch on the GPU, where both are there and the model is large enough to
    gain by it; else the graph on the CPU, or torch where there is none. UsageProblem when they
    contradict each other, RunProblem when the bundle has no such graph.
    """
    wanted = bundle.dtype if dtype == "auto" else dtype
    graph = INT8_GRAPH if wanted == "int8" else GRAPH
    fits_graph = device in ("auto", "cpu") and dtype not in ("bf16", "fp16")
    if fits_graph and (runtime, device) == ("auto", "auto") and dtype != "int8":
        fits_graph = not (bundle.file_sizes.get(WEIGHTS, 0) >= LARGE and has_gpu())
    if runtime == TORCH or (runtime == "auto" and not (fits_graph and bundle.has(graph))):
        if dtype == "int8":
            raise RunProblem(f"{bundle.path}: has no {INT8_GRAPH}, and torch does not run int8")
        return TORCH
    if not fits_graph:
        raise UsageProblem("--runtime onnx runs on the CPU in fp32 or int8")
    if not bundle.has(graph):
        remedy = f"`ramctl convert {bundle.path} --to onnx` adds it"
        raise RunProblem(f"{bundle.path}: has no {graph}; {remedy}")
    return graph


def has_gpu() -> bool:
    """Whether torch is there with a GPU that it can use."""
    if find_spec("torch") is None:
        return False
    import torch  # seconds, which only those who ask pay

    return bool(torch.cuda.is_available())


def number_format(graph: str) -> str:
    """The number format in which a graph computes."""
    return "int8" if graph == INT8_GRAPH else "fp32"


def bind_input(model: bytes, name: str, values: Floats) -> bytes:
    """The serialised model with the constant `values` in place of the input `name`.

    As an input, the label rows go through the label projection again in every batch; what depends
    on a constant alone is folded when the graph is loaded. The graph is edited as bytes because the
    package that writes graphs is not installed for tagging. ValueError without such an input.
    """
    dims = b"".join(_number(TENSOR_DIMS, size) for size in values.shape)
    data = _message(TENSOR_DATA, np.ascontiguousarray(values, "<f4").tobytes())
    named = _number(TENSOR_TYPE, FLOAT) + _message(TENSOR_NAME, name.encode())
    constant = _message(GRAPH_INITIALIZER, dims + named + data)
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
