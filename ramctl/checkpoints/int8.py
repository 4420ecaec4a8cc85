"""The tagging graph in int8: a convolutional encoder, and the tag decoder's products with weights.

Ranges are static. Dynamic ones would make a photo's scores depend on its neighbours in the batch.
Batch norms are folded first, and a convolution is quantised together with the clip and the addition
after it, so that whole stages pass integers on: quantised one by one they lost three times as much
mAP on flickr8k-dev and were slower than fp32. Other encoders stay in fp32.
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import LABEL_QUERIES, PHOTOS
from ramctl.checkpoints.load import fold_batchnorms
from ramctl.checkpoints.onnx_graph import drop_unused, require_onnx, share_weights, trace
from ramctl.model.ram import RAM

DECODER, ENCODER = "/tag_decoder/", "/encoder/"
CONVOLUTIONAL = ("Conv", "Clip", "Relu", "Add")
CALIBRATION_LABELS = 256
Pixels = NDArray[np.float32]


def export_int8_graph(
    model: RAM, image_size: int, path: Path, batches: Iterable[Pixels], *, weights: Path
) -> None:
    """Write the graph to `path`, with ranges taken from batches of photos (B, 3, S, S).

    What stays in fp32 refers to `weights`, the bundle's model.safetensors in the same folder. Folds
    the model's batch norms. Raises RunProblem when the extra `[onnx]` is not installed.
    """
    onnx = require_onnx()
    photo = torch.zeros(1, 3, image_size, image_size)
    is_convolutional = fold_batchnorms(model.encoder.eval(), photo) > 0
    graph = trace(model, image_size)
    nodes = _fold_transposed_weights(graph.graph)
    if is_convolutional:
        nodes += [
            node.name
            for node in graph.graph.node
            if node.op_type in CONVOLUTIONAL and node.name.startswith(ENCODER)
        ]
    rows = model.labels().detach().cpu().numpy()
    some = rows[:: max(1, len(rows) // CALIBRATION_LABELS)]
    feeds = ({PHOTOS: batch, LABEL_QUERIES: some} for batch in batches)
    with tempfile.TemporaryDirectory() as folder:
        plain, quantised = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, plain)
        _quantise(plain, quantised, nodes, feeds)
        graph = onnx.load(quantised)
    share_weights(graph, weights, path.parent)
    onnx.save(graph, path)


def _fold_transposed_weights(graph: Any) -> list[str]:
    """The names of the tag decoder's products with weights, which it stores transposed.

    The quantiser only takes a weight that goes into the product directly.
    """
    from onnx import numpy_helper

    stored = {initialiser.name: initialiser for initialiser in graph.initializer}
    turned = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] in stored
    }
    names = []
    for node in graph.node:
        source = turned.get(node.input[1]) if node.op_type == "MatMul" else None
        if source is None or DECODER not in node.name:
            continue
        weight = numpy_helper.to_array(stored[source]).T.copy()
        node.input[1] = f"{source}.transposed"
        graph.initializer.append(numpy_helper.from_array(weight, node.input[1]))
        names.append(node.name)
    drop_unused(graph)
    return names


def _quantise(
    plain: Path, quantised: Path, nodes: list[str], feeds: Iterator[dict[str, Any]]
) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Photos(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(feeds, None)

    # onnxruntime advises a pre-processing that would rename the shared weights.
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            plain,
            quantised,
            Photos(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", *CONVOLUTIONAL],
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # What follows, a layer norm or GELU, needs fp32 anyway.
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
    finally:
        logging.disable(logging.NOTSET)
