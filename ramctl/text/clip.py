"""CLIP's text encoder, which gives RAM and RAM++ the embeddings of labels they did not learn.

N texts, L labels, E width of the shared space (512 for the authors' ViT-B/16).
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.device import Runtime
from ramctl.errors import RunProblem, UsageProblem
from ramctl.pretrained.transformers_folder import fingerprint, load_pretrained, load_tokenizer
from ramctl.text.cache import cached_rows
from ramctl.text.prompts import TEMPLATES, label_prompts

Rows = NDArray[np.float32]
_TEXTS_AT_ONCE = 128
_LABELS_AT_ONCE = 32
_CPU = torch.device("cpu")


class ClipTextEncoder:
    """CLIP's text encoder out of a local folder of a whole CLIP model or of its text half."""

    def __init__(self, folder: Path, *, runtime: Runtime | None = None) -> None:
        """Raises RunProblem when the folder has no tokenizer, and at the first text when it is
        not a complete CLIP.
        """
        self._runtime = runtime or Runtime(_CPU)
        self._folder = folder
        self._tokenizer = load_tokenizer(folder)

    @cached_property
    def _model(self) -> Any:
        """Loaded at the first text that is not in the cache."""
        from transformers import CLIPTextModelWithProjection

        return load_pretrained(
            CLIPTextModelWithProjection,
            self._folder,
            self._runtime.device,
            kinds=("clip", "clip_text_model"),
        )

    @property
    def dim(self) -> int:
        """E."""
        return int(self._model.config.projection_dim)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the folder's weights and vocabulary."""
        return fingerprint([self._folder])

    @property
    def longest(self) -> int:
        """The most tokens that a text may have, start and end included (77)."""
        return int(self._model.config.max_position_embeddings)

    def encode(self, texts: Sequence[str], *, truncate: bool = False) -> Rows:
        """Unit vectors (N, E).

        Raises UsageProblem for a text of more than 77 tokens unless it may be truncated.
        """
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        rows = np.empty((len(texts), self.dim), np.float32)
        for start in range(0, len(order), _TEXTS_AT_ONCE):
            some = order[start : start + _TEXTS_AT_ONCE]
            rows[some] = self._encode([texts[index] for index in some], truncate)
        return rows

    def embed_labels(self, labels: Sequence[str], *, templates: Sequence[str] = TEMPLATES) -> Rows:
        """Unit vectors (L, E): the mean of the unit vectors of a label's prompts.

        Computed once a label and kept in the user's cache folder.
        Source: the authors' build_openset_label_embedding.
        """
        facts = [self.fingerprint, self._runtime.dtype, list(templates)]
        source = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return cached_rows(source, labels, lambda new: self._mean_prompts(new, templates))

    def embed_descriptions(self, descriptions: Sequence[Sequence[str]]) -> Rows:
        """Unit vectors of every description, label after label, none averaged.

        Source: the authors' build_openset_llm_label_embedding, which truncates long ones.
        """
        return self.encode([text for texts in descriptions for text in texts], truncate=True)

    def _mean_prompts(self, labels: Sequence[str], templates: Sequence[str]) -> Rows:
        rows = np.empty((len(labels), self.dim), np.float32)
        for start in range(0, len(labels), _LABELS_AT_ONCE):
            some = labels[start : start + _LABELS_AT_ONCE]
            texts = [text for label in some for text in label_prompts(label, templates)]
            vectors = self.encode(texts).reshape(len(some), len(templates), self.dim)
            means = vectors.mean(1)
            rows[start : start + len(some)] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return rows

    def _encode(self, texts: Sequence[str], truncate: bool) -> Rows:
        tokens = self._tokenizer(
            list(texts),
            padding=True,
            truncation=truncate,
            max_length=self.longest if truncate else None,
            return_tensors="pt",
        )
        lengths = tokens["attention_mask"].sum(1)
        if int(lengths.max()) > self.longest:
            text = texts[int(lengths.argmax())]
            raise UsageProblem(f"{text!r}: more than the {self.longest} tokens that CLIP reads")
        with torch.inference_mode(), self._runtime.precision():
            moved = {name: tensor.to(self._runtime.device) for name, tensor in tokens.items()}
            vectors = self._model(**moved).text_embeds.float()
        unit: Rows = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
        if not np.isfinite(unit).all():
            raise RunProblem(f"{self._folder}: the text encoder gives numbers that are not finite")
        return unit
