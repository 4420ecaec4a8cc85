#!/usr/bin/env python3
"""Write a bundle's graphs, with the photo graph in int8.

    scripts/mini/quantise.py --model MODEL --root PHOTOS RECORDS

Ranges are measured on an even sample of the records' photos, SAMPLE of them.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator
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


def _quantise(plain: Path, target: Path, nodes: list[str], feeds: Iterator[dict[str, Any]]) -> None:
    from onnxruntime import quantization

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
        writer.meta["dtype"] = "int8"


if __name__ == "__main__":
    main()
