"""CLIP's text encoder, which computes the label queries of RAM and RAM++.

N texts, L labels, E width of the shared space (512 for the authors' ViT-B/16).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.checkpoints.hub import local_path
from ramctl.checkpoints.transformers_folder import fingerprint, load_pretrained, load_tokenizer
from ramctl.errors import RamctlError, RunProblem, UsageProblem
from ramctl.records.extras import require
from ramctl.records.parallel import chunks

Rows = NDArray[np.float32]
NAMED_ENCODER = "encoder.json"
PREFIX = "clip:"  # before a CLIP's name in options
PROMPTS = ("ram", "ram-plus")  # the mean over 63 templates, or one fixed sentence
_TEXTS_AT_ONCE = 128
_LABELS_AT_ONCE = 32


@dataclass(frozen=True)
class ClipTextEncoder:
    """The text half of a CLIP: `place` is a folder or an `hf://` name.

    It is opened for the first text that is not in the cache, so that a converted model tags without
    a CLIP on the machine.
    """

    place: str
    prompts: str = "ram"

    @classmethod
    def read(cls, folder: Path) -> "ClipTextEncoder":
        """The encoder named in the encoder.json of a bundle's `text` folder."""
        path = folder / NAMED_ENCODER
        try:
            facts = orjson.loads(path.read_bytes())
            name, prompts = facts["name"], facts["prompts"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunProblem(f"{path}: names no text encoder: {error}") from error
        if prompts not in PROMPTS:
            known = ", ".join(PROMPTS)
            raise RunProblem(f"{path}: prompts must be one of {known}, not {prompts!r}")
        return cls(name, prompts)

    def save(self, folder: Path) -> None:
        """Write encoder.json: the name only, the weights are 250 MB."""
        facts = {"kind": "clip", "name": self.place, "prompts": self.prompts}
        folder.mkdir(parents=True, exist_ok=True)
        content = orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n"
        (folder / NAMED_ENCODER).write_bytes(content)

    @property
    def name(self) -> str:
        """The name of the encoder in messages."""
        return f"the CLIP text encoder {self.place}"

    @property
    def width(self) -> int:
        """The width E of the vectors."""
        return int(self._loaded[1].config.projection_dim)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the folder's weights and vocabulary."""
        return fingerprint([self._folder])[:16]

    def embed_names(self, names: Sequence[str]) -> Rows:
        """Unit vectors (L, E) of labels: for RAM the mean over 63 prompts, for RAM++ one sentence.

        Raises UsageProblem for a label of more than 77 tokens. Source: the authors'
        build_openset_label_embedding.
        """
        if self.prompts == "ram-plus":
            return self.embed_sentences([f"a photo of a {name}." for name in names])
        rows = []
        for part in chunks(names, _LABELS_AT_ONCE):
            texts = [text for label in part for text in label_prompts(label)]
            vectors = self._embed(texts, truncate=False)
            means = vectors.reshape(len(part), len(templates()), self.width).mean(1)
            rows.append(means / np.linalg.norm(means, axis=1, keepdims=True))
        return np.concatenate(rows)

    def embed_sentences(self, texts: Sequence[str]) -> Rows:
        """Unit vectors (N, E); texts are truncated to 77 tokens, as the authors do."""
        return self._embed(texts, truncate=True)

    def _embed(self, texts: Sequence[str], *, truncate: bool) -> Rows:
        # Texts of similar length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        rows = np.empty((len(texts), self.width), np.float32)
        for batch in chunks(order, _TEXTS_AT_ONCE):
            rows[batch] = self._embed_batch([texts[index] for index in batch], truncate)
        return rows

    def _embed_batch(self, texts: list[str], truncate: bool) -> Rows:
        tokenizer, model = self._loaded
        import torch

        longest = int(model.config.max_position_embeddings)  # 77, start and end included
        cut = {"truncation": truncate, "max_length": longest if truncate else None}
        tokens = tokenizer(texts, padding=True, return_tensors="pt", **cut)
        lengths = tokens["attention_mask"].sum(1)
        if int(lengths.max()) > longest:
            text = texts[int(lengths.argmax())]
            raise UsageProblem(f"{text!r}: more than the {longest} tokens that CLIP reads")
        with torch.inference_mode():
            vectors = model(**tokens).text_embeds
        unit: Rows = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
        if not np.isfinite(unit).all():
            raise RunProblem(f"{self.place}: the text encoder gives numbers that are not finite")
        return unit

    @cached_property
    def _folder(self) -> Path:
        try:
            return local_path(self.place)
        except RamctlError as error:
            hint = "`convert --text-encoder DIR` takes the CLIP for new words from a folder"
            raise type(error)(f"{error.message}; {hint}") from error

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Tokenizer and model; RunProblem when the folder lacks one of them."""
        require("train", f"embedding words by {self.place}")
        from transformers import CLIPTextModelWithProjection

        folder = self._folder
        kinds = ("clip", "clip_text_model")
        model = load_pretrained(CLIPTextModelWithProjection, folder, "cpu", kinds=kinds)
        return load_tokenizer(folder), model


@cache
def templates() -> tuple[str, ...]:
    """The templates of the authors' openset_utils.py, in their order; `{a}` is the article."""
    return tuple((files("ramctl.checkpoints") / "templates.txt").read_text("utf-8").splitlines())


def label_prompts(label: str) -> list[str]:
    """The prompts whose mean embedding represents a label.

    Source: the authors' build_openset_label_embedding, quirks included: the article depends on the
    first letter of the unprocessed name, where only lower-case vowels count, and "This is" precedes
    every text that begins with "a" or "the" (so also "an embroidered ...").
    """
    name = label.replace("_", " ").replace("/", " or ").lower().rstrip(".")
    article = "an" if label[:1] in tuple("aeiou") else "a"
    texts = [template.format(a=article, name=name) for template in templates()]
    return [f"This is {text}" if text.startswith(("a", "the")) else text for text in texts]
