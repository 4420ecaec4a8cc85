"""Graphs of other projects: a folder with `model.onnx`, `labels.txt` and `preprocess.json`.

B photos, S pixels a side, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ramctl.checkpoints.transformers_folder import fingerprint, read_config
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.log_odds import score_logits
from ramctl.inference.peers.peer import Peer, Pixels, Scores
from ramctl.model.preprocess import Preprocess, PreprocessConfig
from ramctl.model.preset import read_table
from ramctl.records.labels import Labels

GRAPH, LABELS, PREPROCESS = "model.onnx", "labels.txt", "preprocess.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings(PreprocessConfig):
    output: Literal["logits", "probabilities"]


class OnnxFolder(Peer):
    """Score: the graph's first output, (1, L), as a probability; it takes one photo at a time."""

    kind = "onnx"
    is_closed = True
    needs_torch = False

    def __init__(self, path: Path, labels: Sequence[str], runtime: None) -> None:
        import onnxruntime

        settings = read_table(_Settings, read_config(path, PREPROCESS), f"{path / PREPROCESS}")
        if labels:
            raise UsageProblem(f"model onnx:{path}: has labels of its own, and no --labels")
        self._preprocess, self._is_logits = Preprocess(settings), settings.output == "logits"
        graph, labels = path / GRAPH, Labels.read(path / LABELS).tags
        try:
            self._session = onnxruntime.InferenceSession(str(graph))
            (self._input,) = self._session.get_inputs()
            super().__init__(path, labels, runtime, batch=1)
            scores = self.score_batch([np.zeros((8, 8, 3), np.uint8)])
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise RunProblem(f"{graph}: {str(error).partition(chr(10))[0]}") from error
        fits = scores.shape == (1, len(labels))
        if not fits or not ((scores >= 0) & (scores <= 1)).all():
            expected = f"{settings.output} of {len(labels)} labels"
            raise RunProblem(f"{graph}: its output, {scores.shape}, is not {expected}")
        self.fingerprint = fingerprint(sorted(path.iterdir()), self.kind)

    def score_batch(self, photos: Sequence[Pixels]) -> Scores:
        pixels = np.stack([self._preprocess(Image.fromarray(photo)) for photo in photos])
        if self._input.shape[-1] == 3:  # (B, S, S, 3)
            pixels = np.moveaxis(pixels, 1, -1)
        output = np.asarray(self._session.run(None, {self._input.name: pixels})[0], np.float32)
        return score_logits(output) if self._is_logits else output
