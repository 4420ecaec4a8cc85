#!/usr/bin/env python3
"""Write a bundle's graphs as onnxruntime runs them, with the photo graph in int8.

    scripts/mini/quantise.py --model MODEL --root PHOTOS RECORDS

Ranges are measured on an even sample of the records' photos, SAMPLE of them. Weights are kept small
enough for exact sums on every processor (`exact_ranges`).
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("torch")

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import LABEL_GRAPH, PHOTO_GRAPH, WEIGHTS, Bundle, BundleWriter
from ramctl.checkpoints.load import fold_batchnorms, load_model
from ramctl.checkpoints.onnx_graph import export_graphs, require_onnx, share_weights, trace
from ramctl.model.preprocess import Preprocess
from ramctl.model.ram import RAM
from ramctl.photos.decoding import record_photo
from ramctl.records.inputs import read_inputs
from ramctl.records.parallel import chunks
from ramctl.records.record import Record

AT_ONCE = 4  # photos
SAMPLE = 128  # photos
Pixels = NDArray[np.float32]

ENCODER = "/encoder/"  # the prefix of its nodes
CONVOLUTIONAL = ("Conv", "Clip", "Relu", "Add")


def export_int8_graph(
    model: RAM, image_size: int, path: Path, batches: Iterable[Pixels], *, weights: Path
) -> None:
    """Write the photo graph with an int8 encoder.

    Ranges are measured on batches of photos (B, 3, S, S) and are static: dynamic ones would make a
    photo's scores depend on its neighbours in the batch. fp32 weights refer to `weights`.
    """
    # Batch norms are folded first, and a convolution is quantised together with the clip and the
    # addition after it, so that whole stages pass integers on. Quantised one by one they lost three
    # times as much mAP and were slower than fp32.
    onnx = require_onnx()
    photo = torch.zeros(1, 3, image_size, image_size)
    fold_batchnorms(model.encoder.eval(), photo)
    graph, _ = trace(model, image_size)
    nodes = [
        node.name
        for node in graph.graph.node
        if node.op_type in CONVOLUTIONAL and node.name.startswith(ENCODER)
    ]
    feeds = ({"photos": batch} for batch in batches)
    with tempfile.TemporaryDirectory() as folder:
        plain, quantised = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, plain)
        _quantise(plain, quantised, nodes, feeds)
        graph = onnx.load(quantised)
    share_weights(graph, weights, path.parent)
    onnx.save(graph, path)


def optimise(path: Path, weights: Path) -> None:
    """Write a graph as onnxruntime optimises it, which then opens in half the time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    # Folded casts would be copies of the shared weights.
    shared = ["ConstantFolding", "FuseFp16InitializerToFp32NodeTransformer"]
    onnxruntime.InferenceSession(path, options, disabled_optimizers=shared)
    graph = require_onnx().load(path)
    domains = {node.domain for node in graph.graph.node}
    assert "com.microsoft.nchwc" not in domains, "this processor's own layout"
    share_weights(graph, weights, path.parent)
    require_onnx().save(graph, path)


def exact_ranges(graph: Any, nodes: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """The range of each output channel's weights (O, I, h, w), for quantize_static.

    Processors without VNNI add the products of two neighbouring weights and bytes in 16 bits:
    255 x (|v| + |w|) of two weights of one sign must not exceed 32,767. Half the range (seven bits)
    would do too, with twice the rounding error of nearly all weights.
    """
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType

    tensors, ranges = {tensor.name: tensor for tensor in graph.initializer}, {}
    for node in graph.node:
        if node.op_type != "Conv" or node.name not in nodes:
            continue
        weights = numpy_helper.to_array(tensors[node.input[1]])
        if weights.shape[1] == 1:  # depthwise ones are added in 32 bits
            continue
        row = weights.transpose(0, 2, 3, 1).reshape(len(weights), -1)  # (O, h w I), as multiplied
        pairs = np.pad(row, ((0, 0), (0, row.shape[1] % 2))).reshape(len(row), -1, 2)
        sums = np.maximum(pairs.clip(0).sum(2), (-pairs).clip(0).sum(2)).max(1)
        ranges[node.input[1]] = [
            {
                "axis": 0,
                "quant_type": QuantType.QInt8,
                "symmetric": True,
                "rmin": -most,
                "rmax": most,
            }
            for most in np.maximum(sums, abs(row).max(1))
        ]
    return ranges


def _quantise(plain: Path, target: Path, nodes: list[str], feeds: Iterator[dict[str, Any]]) -> None:
    from onnxruntime import quantization

    onnx = require_onnx()

    class Photos(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(feeds, None)

    # onnxruntime advises a pre-processing that would rename the shared weights.
    logging.disable(logging.WARNING)
    try:
        quantization.quantize_static(
            plain,
            target,
            Photos(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(CONVOLUTIONAL),
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"TensorQuantOverrides": exact_ranges(onnx.load(plain).graph, nodes)},
        )
    finally:
        logging.disable(logging.NOTSET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--model", "--root"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("records")
    args = parser.parse_args()
    bundle = Bundle.open(args.model)
    model, size = load_model(bundle, captioning=False), bundle.preprocess.size
    items = read_inputs([args.records], str(args.root), "quantise")
    records = [item for item in items if isinstance(item, Record)]
    preprocess = Preprocess(bundle.preprocess)
    sample = records[:: max(1, len(records) // SAMPLE)][:SAMPLE]
    photos = (preprocess(record_photo(record, target=size)) for record in sample)
    batches = (np.stack(part) for part in chunks(photos, AT_ONCE))
    with BundleWriter(args.model) as writer:
        writer.copy_files(bundle, without={PHOTO_GRAPH, LABEL_GRAPH})
        export_graphs(model, size, writer.path)
        path, weights = writer.path / PHOTO_GRAPH, writer.path / WEIGHTS
        export_int8_graph(model, size, path, batches, weights=weights)
        optimise(path, weights)
        optimise(writer.path / LABEL_GRAPH, weights)
        writer.meta["dtype"] = "int8"


if __name__ == "__main__":
    main()
