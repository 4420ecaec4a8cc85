"""The tagging path as an ONNX graph: photos and label rows in, logits out.

B batch, L labels, R width of a label's row.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ramctl.checkpoints.bundle import LABEL_QUERIES, LOGITS, PHOTOS
from ramctl.checkpoints.onnx_padding import join_padding, same_padding
from ramctl.checkpoints.onnx_weights import drop_unused, share_weights
from ramctl.errors import RunProblem
from ramctl.model.ram import RAM

OPSET = 17


class TaggingGraph(nn.Module):
    """What is exported: the model without captioning, the label table's rows as an input."""

    def __init__(self, model: RAM) -> None:
        super().__init__()
        self.model = model

    def forward(self, photos: Tensor, rows: Tensor) -> Tensor:
        """Logits (B, L) of photos (B, 3, H, W) and rows (L, R), or descriptions (L, M, E)."""
        encoded = self.model.encode(self.model.encoder(photos))
        return self.model.tag_logits(encoded, rows)


def export_graph(model: RAM, image_size: int, path: Path, *, weights: Path | None = None) -> None:
    """Write the graph to `path`; batch and number of labels are free.

    With `weights`, the bundle's model.safetensors in the same folder, tensors that it holds are not
    written again but referred to. Raises RunProblem when the extra `[onnx]` is not installed.
    """
    onnx = require_onnx()
    graph = traced(model, image_size)
    if weights is not None:
        share_weights(graph, weights, path.parent)
    onnx.save(graph, path)


def require_onnx() -> Any:
    """The package that writes graphs; RunProblem where the extra `[onnx]` is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise RunProblem("writing a graph needs the extra [onnx]: pip install ramctl[onnx]") from (
            error
        )
    return onnx


def traced(model: RAM, image_size: int) -> Any:
    """The model's tagging path as an onnx.ModelProto that holds its weights."""
    onnx = require_onnx()
    was_training = model.training
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        _trace(model, image_size, path)
        graph = onnx.load(path)
    photo = torch.zeros(1, 3, image_size, image_size, device=model.labels.bias.device)
    join_padding(graph.graph, same_padding(model.encoder, photo))
    drop_unused(graph.graph)
    model.train(was_training)
    return graph


def _trace(model: RAM, image_size: int, path: Path) -> None:
    rows = model.labels().detach()[: min(4, len(model.labels))]
    photos = torch.zeros(2, 3, image_size, image_size, device=rows.device)
    free = {PHOTOS: {0: "batch"}, LABEL_QUERIES: {0: "labels"}, LOGITS: {0: "batch", 1: "labels"}}
    if rows.dim() == 3:
        free[LABEL_QUERIES][1] = "descriptions"
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer warns of shape checks inside timm, which are constants for one photo size.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            TaggingGraph(model),
            (photos, rows),
            path,
            input_names=[PHOTOS, LABEL_QUERIES],
            output_names=[LOGITS],
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
            # Weights stay as stored, so that they can be shared; the runtime folds them itself.
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
