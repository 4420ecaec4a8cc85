"""A photo as a vector: its log-odds of all labels along axes that its model keeps, for `search`.

N photos, L labels, D axes.
"""

import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import AXES, Bundle
from ramctl.errors import RecordProblem, RunProblem
from ramctl.inference.log_odds import log_odds_of

N_AXES = 256
SAMPLE = 1500  # photos that axes are made of
Floats = NDArray[np.float32]


class PhotoAxes(NamedTuple):
    """The axes of a model, and the stamp that its embeddings carry."""

    axes: Floats  # (L, D), orthonormal columns
    stamp: str  # eight characters

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> "PhotoAxes":
        """The axes of a bundle; RunProblem where it has none."""
        from safetensors.numpy import load_file

        if not bundle.has(AXES):
            raise RunProblem(f"{bundle.path}: embeddings need {AXES}, which train writes")
        axes = load_file(bundle.path / AXES)["axes"].astype(np.float32)
        if len(axes) != len(bundle.labels):
            raise RunProblem(f"{bundle.path / AXES}: does not fit the bundle's labels")
        return cls(axes, bundle.meta["files"][AXES]["sha256"][:8])

    def vector(self, scores: NDArray[Any]) -> Floats:
        """The vectors (..., D) of probabilities (..., L)."""
        return np.asarray(log_odds_of(scores.astype(np.float64)).astype(np.float32) @ self.axes)

    def encode(self, scores: NDArray[np.float32]) -> str:
        """The `embedding` of probabilities (L,): the stamp, `:`, and base64 of D float16."""
        packed = self.vector(scores).astype("<f2").tobytes()
        return f"{self.stamp}:{binascii.b2a_base64(packed, newline=False).decode()}"

    def decode(self, embedding: object) -> bytes:
        """The D float16 of an `embedding`; RecordProblem for anything else, and another model's."""
        if embedding is None:
            lack = "no embedding field (ramctl tag --embedding writes it)"
            raise RecordProblem(lack, code="missing_field")
        stamp, _, text = embedding.partition(":") if isinstance(embedding, str) else ("", "", "")
        if text and stamp != self.stamp:
            raise RecordProblem("the embedding is another model's (--model)", code="bad_field")
        try:
            packed = binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            packed = b""
        if len(packed) != 2 * self.axes.shape[1]:
            raise RecordProblem("not an embedding of tag", code="bad_field")
        return packed


def write_axes(path: Path, scores: Sequence[Any] | NDArray[Any]) -> None:
    """Write the principal axes of photos' probabilities (N, L): N_AXES, or as many as they have."""
    from safetensors.numpy import save_file

    log_odds = log_odds_of(np.asarray(scores, np.float64))
    log_odds -= log_odds.mean(0)
    values, rotation = np.linalg.eigh(log_odds @ log_odds.T)
    kept = np.flatnonzero(values > 1e-9 * values.max(initial=0))[::-1][:N_AXES]
    axes = log_odds.T @ rotation[:, kept] / np.sqrt(values[kept])
    save_file({"axes": axes.astype(np.float16)}, path)
