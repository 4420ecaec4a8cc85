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
from ramctl.checkpoints.transformers_folder import load_pretrained, load_tokenizer, read_config
from ramctl.records.extras import require
from ramctl.records.parallel import chunks

Rows = NDArray[np.float32]
NAMED_ENCODER = "encoder.json"
PREFIX = "clip:"  # before a CLIP's name in options
_TEXTS_AT_ONCE = 128
_LABELS_AT_ONCE = 32


@dataclass(frozen=True)
class ClipTextEncoder:
    """The text half of a CLIP: `place` is a folder or an `hf://` name.

    It is opened for the first text that is not in the cache, so that a converted model tags without
    a CLIP on the machine.
    """

    place: str
    prompts: str = "ram"  # the mean over 63 templates; ram-plus: one fixed sentence
    remedy: str = "; `convert --text-encoder DIR` takes the CLIP for new words from a folder"

    @classmethod
    def read(cls, folder: Path) -> "ClipTextEncoder":
        """The encoder named in the encoder.json of a bundle's `text` folder."""
        facts = read_config(folder, NAMED_ENCODER)
        return cls(facts["name"], facts["prompts"])

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

    def embed_names(self, names: Sequence[str]) -> Rows:
        """Unit vectors (L, E) of labels: for RAM the mean over 63 prompts, for RAM++ one sentence.

        Source: the authors' build_openset_label_embedding.
        """
        if self.prompts == "ram-plus":
            return self.embed_sentences([f"a photo of a {name}." for name in names])
        rows = []
        for part in chunks(names, _LABELS_AT_ONCE):
            vectors = self.embed_sentences([t for label in part for t in label_prompts(label)])
            means = vectors.reshape(len(part), len(templates()), self.width).mean(1)
            rows.append(means / np.linalg.norm(means, axis=1, keepdims=True))
        return np.concatenate(rows)

    def embed_sentences(self, texts: Sequence[str]) -> Rows:
        """Unit vectors (N, E); texts are truncated to 77 tokens, as the authors do."""
        tokenizer, model = self._loaded
        import torch

        longest = int(model.config.max_position_embeddings)  # 77, start and end included
        # Texts of similar length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        rows = np.empty((len(texts), self.width), np.float32)
        for batch in chunks(order, _TEXTS_AT_ONCE):
            tokens = tokenizer(
                [texts[index] for index in batch],
                padding=True, truncation=True, max_length=longest, return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                vectors = model(**tokens).text_embeds
            rows[batch] = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
        return rows

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Tokenizer and model."""
        require("train", f"embedding words by {self.place}")
        from transformers import CLIPTextModelWithProjection

        folder = local_path(self.place, self.remedy)
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
