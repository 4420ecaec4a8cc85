"""all-MiniLM-L6-v2 (Apache-2.0) from its package, from which the static table is distilled."""

import json
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from tokenizers import Tokenizer

from ramctl.errors import RunProblem
from ramctl.records.extras import needs

SENTENCE_ENCODER = "all_minilm_l6_v2"  # its package
WIDTH = 384  # of its vectors
MAX_TOKENS = 128  # the limit of the encoder's authors
FILES = ("config.json", "tokenizer.json", "model.safetensors")


class SentenceEncoder:
    """all-MiniLM-L6-v2: a mean-pooled BERT with unit vectors; RunProblem without its package."""

    def __init__(self) -> None:
        from transformers import BertConfig, BertModel  # seconds

        # The package is not imported, which would print to stdout.
        spec = find_spec(SENTENCE_ENCODER)
        if spec is None or spec.origin is None:
            raise RunProblem(needs("the sentence encoder all-MiniLM-L6-v2", "mini"))
        files = zipfile.Path(Path(spec.origin).with_name("model.zip"))
        config, tokenizer, weights = ((files / name).read_bytes() for name in FILES)
        self.model = BertModel(BertConfig(**json.loads(config)), add_pooling_layer=False)
        self.model.load_state_dict(load_tensors(weights), strict=False)
        torch.nn.Module.eval(self.model)
        self.tokenizer = Tokenizer.from_str(tokenizer.decode())
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch: int = 64) -> np.ndarray:
        """Embed N texts as unit vectors, float32 (N, WIDTH)."""
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
