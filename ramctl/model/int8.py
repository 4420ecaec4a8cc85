"""The tagging graph with the tag decoder's linear maps in 8-bit integers.

With 2,500 labels those maps take most of the time, and rounding them moves scores little; the image
encoder stays in fp32 (rounded too it lost 0.02 mAP on flickr8k-dev and won 3 % of the time). Ranges
are static: a photo's scores do not depend on its neighbours, as they would with dynamic ones.
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.model.export import LABELS, PHOTOS, require_onnx, traced
from ramctl.model.onnx_weights import drop_unused, share_weights
from ramctl.model.ram import RAM

DECODER = "/tag_decoder/"
CALIBRATION_LABELS = 256
Pixels = NDArray[np.float32]


def export_int8_graph(
    model: RAM, image_size: int, path: Path, batches: Iterable[Pixels], *, weights: Path
) -> None:
    """Write the graph to `path`, its ranges taken from batches of photos (B, 3, S, S).

    What stays in fp32 refers to `weights`, the bundle's model.safetensors in the same folder.
    Raises RunProblem when the extra `[onnx]` is not installed.
    """
    onnx = require_onnx()
    graph = traced(model, image_size)
    linear = _fold_transposed_weights(graph.graph)
    rows = model.labels().detach().cpu().numpy()
    some = rows[:: max(1, len(rows) // CALIBRATION_LABELS)]
    feeds = ({PHOTOS: batch, LABELS: some} for batch in batches)
    with tempfile.TemporaryDirectory() as folder:
        plain, quantised = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, plain)
        _quantise(plain, quantised, linear, feeds)
        graph = onnx.load(quantised)
    share_weights(graph, weights, path.parent)
    onnx.save(graph, path)


def _fold_transposed_weights(graph: Any) -> list[str]:
    """Names of the tag decoder's products with weights; their weights are stored transposed."""
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

    with _without_advice():
        quantize_static(
            plain,
            quantised,
            Photos(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=nodes,
            per_channel=True,
            # Seven bits: processors without VNNI add two products in 16 bits, which must not
            # overflow, or scores would depend on the machine.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # The next layer norm or GELU takes fp32.
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )


@contextmanager
def _without_advice() -> Iterator[None]:
    """onnxruntime recommends a preparation that would rename the weights that are shared."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
