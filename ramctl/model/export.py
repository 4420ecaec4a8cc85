"""The tagging path as an ONNX graph: photos and label rows in, logits out.

B batch, L labels, R width of a label's row.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ramctl.errors import RunProblem
from ramctl.model.onnx_weights import share_weights
from ramctl.model.ram import RAM

PHOTOS, LABELS, LOGITS = "photos", "label_queries", "logits"
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
    try:
        import onnx
    except ImportError as error:
        raise RunProblem("writing a graph needs the extra [onnx]: pip install ramctl[onnx]") from (
            error
        )
    _trace(model, image_size, path)
    if weights is not None:
        graph = onnx.load(path)
        share_weights(graph, weights, path.parent)
        onnx.save(graph, path)


def _trace(model: RAM, image_size: int, path: Path) -> None:
    rows = model.labels().detach()[: min(4, len(model.labels))]
    photos = torch.zeros(2, 3, image_size, image_size, device=rows.device)
    free = {PHOTOS: {0: "batch"}, LABELS: {0: "labels"}, LOGITS: {0: "batch", 1: "labels"}}
    if rows.dim() == 3:
        free[LABELS][1] = "descriptions"
    was_training = model.training
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer warns of shape checks inside timm, which are constants for one photo size.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            TaggingGraph(model.eval()),
            (photos, rows),
            path,
            input_names=[PHOTOS, LABELS],
            output_names=[LOGITS],
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
            # Weights stay as stored, so that they can be shared; the runtime folds them itself.
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    model.train(was_training)
