"""From photos to scores: the bundle's graph in onnxruntime, or the model in torch.

B photos a batch, S pixels a side, L labels, W width of a label's row.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ramctl.bundle import GRAPH, INT8_GRAPH, Bundle
from ramctl.errors import RunProblem, UsageProblem

TORCH = "torch"
Pixels = NDArray[np.float32]
Scores = NDArray[np.float32]


class Predictor(Protocol):
    """Scores photos against a fixed set of labels."""

    def scores(self, photos: Pixels) -> Scores:
        """Probabilities (B, L) of photos (B, 3, S, S)."""


class OnnxPredictor:
    """The bundle's graph in onnxruntime on the CPU; imports no torch."""

    def __init__(self, bundle: Bundle, graph: str, rows: NDArray[np.float32], threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Waiting threads that spin would take the cores from the workers that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = bundle.path / graph
        try:
            self._session = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=["CPUExecutionProvider"],
                # Its kernel takes four times as long as the addition and the norm that it joins.
                disabled_optimizers=["SkipLayerNormFusion"],
            )
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise RunProblem(f"{path}: onnxruntime cannot load it: {error}") from error
        self._photos, self._labels = (given.name for given in self._session.get_inputs())
        self._rows = onnxruntime.OrtValue.ortvalue_from_numpy(rows)

    def scores(self, photos: Pixels) -> Scores:
        """Probabilities (B, L) of photos (B, 3, S, S)."""
        import onnxruntime

        feeds = {
            self._photos: onnxruntime.OrtValue.ortvalue_from_numpy(photos),
            self._labels: self._rows,
        }
        (logits,) = self._session.run_with_ort_values(None, feeds)
        return sigmoid(logits.numpy())


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits without overflow; tiny ones keep their digits."""
    against = np.exp(-np.maximum(logits, np.float32(-80)))
    return np.asarray(1 / (1 + against), np.float32)


def choose_runtime(bundle: Bundle, runtime: str, device: str, dtype: str) -> str:
    """The graph's file name, or `torch`: what `--runtime`, `--device` and `--dtype` come to.

    Raises UsageProblem when they contradict each other, RunProblem when the bundle has no such
    graph.
    """
    wanted = bundle.dtype if dtype == "auto" else dtype
    graph = INT8_GRAPH if wanted == "int8" else GRAPH
    fits_graph = device in ("auto", "cpu") and dtype != "bf16"
    if runtime == TORCH or (runtime == "auto" and not (fits_graph and bundle.has(graph))):
        if dtype == "int8":
            raise RunProblem(f"{bundle.path}: has no {INT8_GRAPH}, and torch does not run int8")
        return TORCH
    if not fits_graph:
        raise UsageProblem("--runtime onnx runs on the CPU in fp32 or int8")
    if not bundle.has(graph):
        raise RunProblem(
            f"{bundle.path}: has no {graph}; `ramctl convert {bundle.path} --to onnx` adds it"
        )
    return graph


def number_format(graph: str) -> str:
    """The number format in which a graph computes."""
    return "int8" if graph == INT8_GRAPH else "fp32"
