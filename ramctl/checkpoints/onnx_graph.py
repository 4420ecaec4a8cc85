"""Export the tagging path of a model to ONNX: photos and label rows to logits.

The weights of a graph are references into the bundle's model.safetensors, where they are stored
once. B photos, H and W pixels, L labels, R width of a label's row, M descriptions, E text width.
"""

import json
import struct
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn

from ramctl.checkpoints.bundle import LABEL_QUERIES, LOGITS, OFFSETS, PHOTOS, SHORTLIST
from ramctl.model.ram import RAM, Shortlist
from ramctl.parts import require

OPSET = 17
# Number types by their safetensors names, for numpy and for onnx. numpy has no bf16: tensors of
# that type are copied into the graph.
_TYPES: dict[str, Any] = {"F32": (np.float32, 1), "I64": (np.int64, 7), "F16": (np.float16, 10)}
Pads = list[int]  # top, left, bottom, right
STORED = "_stored"  # the end of the name of a weight that is cast when the graph is loaded
TRACED = 2  # labels on the shortlist during the export; its size becomes an input


class TaggingGraph(nn.Module):
    """The exported module: the model without captioning, with the labels' rows as an input."""

    def __init__(self, model: RAM) -> None:
        super().__init__()
        self.model = model

    def forward(self, photos: Tensor, rows: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Compute logits (B, L) of photos (B, 3, H, W) and rows (L, R) or descriptions (L, M, E).

        With `offsets` (L), of a shortlist of TRACED labels.
        """
        shortlist = None if offsets is None else Shortlist(offsets, TRACED)
        # Not a call of the module: the tracer would put its name into every node's.
        return self.model.forward(photos, rows, shortlist=shortlist).logits.total


def export_graph(model: RAM, image_size: int, path: Path, *, weights: Path | None = None) -> None:
    """Write the graph to `path`, for any number of photos and of labels.

    `weights` is the bundle's model.safetensors in the same folder: tensors in it are referred to,
    not copied. RunProblem when the extra `[onnx]` is not installed.
    """
    graph = trace(model, image_size)
    if weights is not None:
        share_weights(graph, weights, path.parent)
    require_onnx().save(graph, path)


def require_onnx() -> Any:
    """Import the package onnx; RunProblem when the extra `[onnx]` is not installed."""
    require("onnx", "writing a graph")
    import onnx

    return onnx


def trace(model: RAM, image_size: int) -> Any:
    """Trace the model's tagging path to an onnx.ModelProto with its weights."""
    onnx = require_onnx()
    model.eval()
    n_labels = len(model.labels)  # a single one would be too few for a shortlist: it is repeated
    rows = model.labels().detach()[torch.arange(max(TRACED, min(4, n_labels))) % n_labels]
    photos = torch.zeros(2, 3, image_size, image_size, device=rows.device)
    free = {PHOTOS: {0: "batch"}, LABEL_QUERIES: {0: "labels"}, LOGITS: {0: "batch", 1: "labels"}}
    if rows.dim() == 3:
        free[LABEL_QUERIES][1] = "descriptions"
    inputs = {PHOTOS: photos, LABEL_QUERIES: rows}
    if model.scores_cells:
        inputs[OFFSETS], free[OFFSETS] = torch.zeros(len(rows)), {0: "labels"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        # The tracer warns of shape checks in timm, which are constant for one photo size.
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            torch.onnx.export(
                TaggingGraph(model),
                tuple(inputs.values()),
                path,
                input_names=list(inputs),
                output_names=[LOGITS],
                dynamic_axes=free,
                opset_version=OPSET,
                dynamo=False,
                # Folded weights could not be shared; the runtime folds them itself.
                do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,
            )
        graph = onnx.load(path)
    _join_padding(graph.graph, _same_padding(model.encoder, photos[:1]))
    if model.scores_cells:
        (choice,) = (node for node in graph.graph.node if node.op_type == "TopK")
        choice.input[1] = SHORTLIST
        size = onnx.helper.make_tensor_value_info(SHORTLIST, onnx.TensorProto.INT64, [1])
        graph.graph.input.append(size)
    drop_unused(graph.graph)
    return graph


def _same_padding(encoder: nn.Module, photos: Tensor) -> list[Pads]:
    """The paddings of the encoder's "same" convolutions for photos (B, 3, H, W), in their order.

    TensorFlow's "same" padding (timm's Conv2dSame) may be wider right than left: torch pads a copy.
    As an attribute of ONNX's convolution it needs no copy, and mini is 30 % faster on a CPU.
    """
    pads: list[Pads] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        facts: Any = module
        sizes = inputs[0].shape[-2:]
        sides = zip(sizes, facts.kernel_size, facts.stride, facts.dilation, strict=True)
        total = [int(get_same_padding(*side)) for side in sides]
        pads.append([*(n // 2 for n in total), *(n - n // 2 for n in total)])

    convolutions = [module for module in encoder.modules() if isinstance(module, Conv2dSame)]
    hooks = [module.register_forward_pre_hook(note) for module in convolutions]
    with torch.no_grad():
        encoder(photos)
    for hook in hooks:
        hook.remove()
    return pads


def _join_padding(graph: Any, pads: Sequence[Pads]) -> None:
    """Move the padding before convolutions of a graph into their attributes.

    `pads` are in the order of the graph's Pad nodes; if their number differs, nothing changes.
    """
    readers = Counter(name for node in graph.node for name in node.input)
    padded = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Pad" and readers[node.output[0]] == 1
    }
    pairs = [
        (padded[node.input[0]], node)
        for node in graph.node
        if node.op_type == "Conv" and node.input[0] in padded
    ]
    if len(pairs) != len(pads):
        return
    for (before, convolution), widths in zip(pairs, pads, strict=True):
        convolution.input[0] = before.input[0]
        for attribute in convolution.attribute:
            if attribute.name == "pads":
                attribute.ints[:] = list(map(sum, zip(attribute.ints, widths, strict=True)))
        graph.node.remove(before)


def drop_unused(graph: Any) -> None:
    """Remove unused nodes and weights of a graph."""
    read = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):  # nodes come after those whose results they use
        if read.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            read.update(node.input)
    for initialiser in [i for i in graph.initializer if i.name not in read]:
        graph.initializer.remove(initialiser)


def share_weights(graph: Any, weights: Path, folder: Path) -> None:
    """Replace initialisers of a graph in `folder` by references to equal tensors in `weights`.

    A tensor stored as fp16 is cast when the graph is loaded.
    """
    from onnx import helper
    from onnx.external_data_helper import set_external_data

    with weights.open("rb") as file:  # safetensors: the header's length, the header, the data
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        start = file.tell()
    location = weights.relative_to(folder).as_posix()
    casts = []
    for initialiser in graph.graph.initializer:
        entry = header.get(initialiser.name.removeprefix("model.").removesuffix(STORED))
        if entry is None or not _same_values(initialiser, entry, weights, start):
            continue
        stored_type = _TYPES[entry["dtype"]][1]
        if stored_type != initialiser.data_type:
            name, graph_type = initialiser.name, initialiser.data_type
            initialiser.name = name + STORED
            casts.append(helper.make_node("Cast", [initialiser.name], [name], to=graph_type))
        initialiser.data_type = stored_type
        initialiser.ClearField("float_data")
        initialiser.raw_data = b""  # onnx refuses a reference for a tensor without this field
        first, end = entry["data_offsets"]
        set_external_data(initialiser, location, start + first, end - first)
        initialiser.ClearField("raw_data")
    for cast in reversed(casts):
        graph.graph.node.insert(0, cast)


def _same_values(initialiser: Any, entry: dict[str, Any], weights: Path, start: int) -> bool:
    """Whether a stored tensor equals that of the graph, which the exporter may have changed."""
    from onnx import numpy_helper

    if entry["dtype"] not in _TYPES or list(initialiser.dims) != entry["shape"]:
        return False
    values, kind = numpy_helper.to_array(initialiser), _TYPES[entry["dtype"]][0]
    stored = np.memmap(weights, kind, "r", start + entry["data_offsets"][0], tuple(values.shape))
    return bool(np.array_equal(stored.astype(values.dtype), values))
