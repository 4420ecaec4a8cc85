"""Export the tagging path of a model to two ONNX graphs: photos to tokens, and these to logits.

The weights of a graph are references into the bundle's model.safetensors, where they are stored
once. B photos, H and W pixels, T tokens, D width, L labels, R width of a label's row,
M descriptions, E text width.
"""

import json
import struct
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from ramctl.checkpoints.bundle import LABEL_GRAPH, PHOTO_GRAPH, WEIGHTS
from ramctl.model.global_branch import GlobalFeatures
from ramctl.model.ram import RAM, Encoded
from ramctl.records.extras import require

OPSET = 17
# Number types by their safetensors names, for numpy and for onnx. numpy has no bf16: tensors of
# that type are copied into the graph.
_TYPES: dict[str, Any] = {"F32": (np.float32, 1), "I64": (np.int64, 7), "F16": (np.float16, 10)}
STORED = "_stored"  # the end of the name of a weight that is cast when the graph is loaded


class PhotoGraph(nn.Module):
    """Photos (B, 3, H, W) to the tokens (B, T, D) that the tag decoder attends to.

    A model with a global branch also gives the mean of its features, and what the branch makes of
    it.
    """

    def __init__(self, model: RAM) -> None:
        super().__init__()
        self.model = model
        self.names = ["tokens"]
        if model.prior is not None:
            self.names += ["pooled", "feature"]
            self.names += ["own"] if model.prior.own_projection is not None else []
            self.names += ["classes"] if model.prior.classifier is not None else []

    def forward(self, photos: Tensor) -> list[Tensor]:
        """The outputs in the order of `names`."""
        encoded = self.model.encode(self.model.encoder(photos))
        return [encoded.tokens, *(getattr(encoded.photo, name) for name in self.names[1:])]


class LabelGraph(nn.Module):
    """Rows of labels, and the outputs of a photo graph, to logits (B, L)."""

    def __init__(self, model: RAM) -> None:
        super().__init__()
        self.model = model
        self.names = [name for name in PhotoGraph(model).names if name != "pooled"]

    def forward(self, rows: Tensor, *outputs: Tensor) -> Tensor:
        """Logits of rows (L, R) or descriptions (L, M, E)."""
        parts = dict(zip(self.names, outputs, strict=True))
        photo = None
        if self.model.prior is not None:
            photo = GlobalFeatures(
                parts["feature"], own=parts.get("own"), classes=parts.get("classes")
            )
        elif self.model.encoder.mean_token:
            photo = GlobalFeatures(parts["tokens"][:, 0])
        # Not a call of the module: the tracer would put its name into every node's.
        return self.model.tag_logits(Encoded(parts["tokens"], photo), rows).total


def export_graphs(model: RAM, image_size: int, folder: Path) -> None:
    """Write both graphs, for any number of photos and of labels, into a bundle's folder.

    Tensors in its model.safetensors are referred to, not copied. RunProblem when the extra
    `[onnx]` is not installed.
    """
    photo, labels = trace(model, image_size)
    for graph, name in ((photo, PHOTO_GRAPH), (labels, LABEL_GRAPH)):
        share_weights(graph, folder / WEIGHTS, folder)
        require_onnx().save(graph, folder / name)


def require_onnx() -> Any:
    """Import the package onnx; RunProblem when the extra `[onnx]` is not installed."""
    require("onnx", "writing a graph")
    import onnx

    return onnx


def trace(model: RAM, image_size: int) -> tuple[Any, Any]:
    """Trace the photo graph and the label graph to onnx.ModelProtos with their weights."""
    model.eval()
    rows = model.labels().detach()[torch.arange(min(4, len(model.labels)))]
    photos = torch.zeros(2, 3, image_size, image_size, device=rows.device)
    photo, labels = PhotoGraph(model), LabelGraph(model)
    batch = {0: "batch"}
    free = {"photos": batch} | dict.fromkeys(photo.names, batch)
    first = _traced(photo, (photos,), ["photos"], photo.names, free)
    if any(isinstance(module, Conv2dSame) for module in model.encoder.modules()):
        first = _join_padding(first)
    with torch.no_grad():
        given = dict(zip(photo.names, photo(photos), strict=True))
    inputs = ["rows", *labels.names]
    free |= {"rows": {0: "labels"}, "logits": {0: "batch", 1: "labels"}}
    if rows.dim() == 3:
        free["rows"][1] = "descriptions"
    inputs_of_labels = (rows, *(given[name] for name in labels.names))
    second = _traced(labels, inputs_of_labels, inputs, ["logits"], free)
    return first, second


def _traced(
    module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str],
    free: dict[str, dict[int, str]],
) -> Any:  # fmt: skip
    """The module as an onnx.ModelProto; `free` are the dimensions of any size."""
    onnx = require_onnx()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        # The tracer warns of shape checks in timm, which are constant for one photo size.
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            torch.onnx.export(
                module,
                inputs,
                path,
                input_names=names,
                output_names=outputs,
                dynamic_axes={name: free[name] for name in [*names, *outputs] if name in free},
                opset_version=OPSET,
                dynamo=False,
                # Folded weights could not be shared; the runtime folds them itself.
                do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,
            )
        return onnx.load(path)


def _join_padding(model: Any) -> Any:
    """The model with the padding before convolutions, TensorFlow's "same", as an attribute of them.

    It may be wider right than left, so that torch (timm's Conv2dSame) pads a copy. As an attribute
    of ONNX's convolution it needs no copy, and mini is 30 % faster on a CPU.
    """
    from onnx import helper, utils

    padded = {node.output[0]: node for node in model.graph.node if node.op_type == "Pad"}
    for convolution in model.graph.node:
        if convolution.op_type == "Conv" and convolution.input[0] in padded:
            convolution.input[0] = padded[convolution.input[0]].input[0]
            others = [a for a in convolution.attribute if a.name not in ("pads", "auto_pad")]
            del convolution.attribute[:]
            convolution.attribute.extend([*others, helper.make_attribute("auto_pad", "SAME_UPPER")])
    # Without the sums of its width, which nothing reads now.
    ends = ([value.name for value in ends] for ends in (model.graph.input, model.graph.output))
    return utils.Extractor(model).extract_model(*ends)


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
