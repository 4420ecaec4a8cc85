"""An ONNX graph as other projects have them: three labels, the channels of a photo."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ramctl.inference.peers.onnx_folder import GRAPH, LABELS, PREPROCESS

SETTINGS = {
    "size": 4, "interpolation": "bilinear", "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 0.25],
    "output": "logits",
}  # fmt: skip


def graph(axes=(2, 3), shape=("batch", 3, 4, 4), inputs=1, weights=None) -> onnx.ModelProto:
    """Logits: the mean of each channel, times one."""
    one = numpy_helper.from_array(np.ones(3, np.float32), "one")
    if weights:
        one.ClearField("raw_data")
        one.data_location = TensorProto.EXTERNAL
        one.external_data.add(key="location", value=weights)
    nodes = [
        helper.make_node("ReduceMean", ["pixels0"], ["mean"], axes=list(axes), keepdims=0),
        helper.make_node("Mul", ["mean", "one"], ["logits"]),
    ]
    given = [
        helper.make_tensor_value_info(f"pixels{n}", TensorProto.FLOAT, shape) for n in range(inputs)
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], 3])
    made = helper.make_graph(nodes, "means", given, [output], [one])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_folder(path: Path) -> Path:
    """A folder for `--model onnx:FOLDER`."""
    path.mkdir()
    onnx.save(graph(), path / GRAPH)
    (path / LABELS).write_text("red\ngreen\nblue\n")
    (path / PREPROCESS).write_text(json.dumps(SETTINGS))
    return path
