"""Teachers: a CLIP whose image feature is the target, and taggers whose scores are soft targets.

B photos, S pixels a side, E text width, N records, L labels, K labels that a tagger knows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ramctl.checkpoints.clip import PREFIX as CLIP
from ramctl.checkpoints.transformers_folder import (
    load_image_processor,
    load_pretrained,
    load_tokenizer,
)
from ramctl.errors import RunProblem
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.tagger_scores import PREFIX as SCORES
from ramctl.evaluation.tagger_scores import TaggerScores
from ramctl.model.preprocess import PreprocessConfig
from ramctl.records.labels import Labels

Floats = NDArray[np.float32]


def clip_place(teachers: Sequence[str]) -> str | None:
    """The place of the CLIP among the teachers, if there is one."""
    return next((t.removeprefix(CLIP) for t in teachers if t.startswith(CLIP)), None)


def without_scores(teachers: Sequence[str]) -> list[str]:
    """The teachers that are not files of scores."""
    return [name for name in teachers if not name.startswith(SCORES)]


class ClipTeacher(nn.Module):
    """A frozen CLIP model from a local folder in transformers' format.

    It gets the student's crop, at its own size and normalisation. Source: the authors distil from
    CLIP ViT-B/16, photo features not normalised, texts normalised (ram_official A4).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, folder: Path, preprocess: PreprocessConfig) -> None:
        super().__init__()
        from transformers import CLIPModel  # seconds

        self.clip = load_pretrained(CLIPModel, folder, torch.device("cpu"), kinds=("clip",))
        self.clip.requires_grad_(False)
        self.tokenizer, processor = load_tokenizer(folder), load_image_processor(folder)
        self.size = int(self.clip.config.vision_config.image_size)
        student_mean, student_std = _column(preprocess.mean), _column(preprocess.std)
        mean, std = _column(processor.image_mean), _column(processor.image_std)
        self.register_buffer("scale", student_std / std, persistent=False)
        self.register_buffer("shift", (student_mean - mean) / std, persistent=False)

    @torch.no_grad()
    def photo_features(self, photos: Tensor) -> Tensor:
        """The features (B, E) of photos (B, 3, S, S) as the student gets them."""
        photos = photos * self.scale + self.shift
        if photos.shape[-1] != self.size:
            photos = F.interpolate(photos, (self.size, self.size), mode="bicubic", antialias=True)
        pooled = self.clip.vision_model(pixel_values=photos).pooler_output
        return self.clip.visual_projection(pooled)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """The unit vectors (len(texts), E) of texts; long ones are truncated."""
        device = next(self.clip.parameters()).device
        pieces = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        pooled = self.clip.text_model(**pieces.to(device)).pooler_output
        return F.normalize(self.clip.text_projection(pooled), dim=-1)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values)).view(1, -1, 1, 1)


def scores_files(teachers: Sequence[str]) -> list[Path]:
    """The files of scores among the teachers; one that is named twice counts twice."""
    return [Path(name.removeprefix(SCORES)) for name in teachers if name.startswith(SCORES)]


class SoftTargets:
    """A teacher's scores as targets of the labels that it knows, `known` (K,).

    A label without a score has 0; one that it knows by several names has the greatest score.
    `rows` (N,) are the records' rows in its file, -1 for none.
    """

    def __init__(self, table: TaggerScores, rows: NDArray[np.int64], labels: Labels) -> None:
        self._scores, self._rows = table.scores, rows
        classes = Classes(labels, None, {})
        pairs = [(n, c) for name, n in table.names.items() for c in classes.matching_tag(name)]
        if not pairs:
            raise RunProblem(f"{table.path}: names none of the labels")
        name_ids, label_ids = np.array(pairs).T
        self.known, columns = np.unique(label_ids, return_inverse=True)
        # The columns of the labels that each name stands for.
        self._columns = [columns[name_ids == n] for n in range(len(table.names))]

    def of(self, index: int) -> Floats | None:
        """The targets (K,) of a record's photo; None where the teacher has not scored it."""
        row = int(self._rows[index])
        if row < 0:
            return None
        targets = np.zeros(len(self.known), np.float32)
        for name, score in zip(*self._scores[row], strict=True):
            np.maximum.at(targets, self._columns[name], score)
        return targets


def soft_targets(
    teachers: Sequence[SoftTargets], index: int, n_labels: int
) -> tuple[Floats, Floats]:
    """The teachers' targets of a record's photo (L,), and their weights: 0 where none knows it.

    The target of a label that several know is their mean.
    """
    sums, weights = np.zeros(n_labels, np.float32), np.zeros(n_labels, np.float32)
    for teacher in teachers:
        if (targets := teacher.of(index)) is not None:
            sums[teacher.known] += targets
            weights[teacher.known] += 1
    return np.divide(sums, weights, out=sums, where=weights > 0), weights
