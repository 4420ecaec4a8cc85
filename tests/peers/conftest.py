"""Small models with random weights of the real architectures, saved as their authors save them."""

import json

import numpy as np
import pytest

from tests.peers.small_dino import bert_base_tokenizer
from tests.peers.support import LABELS
from tests.support import one_thread

__all__ = ["one_thread"]

SIGNS = list("abcdefghijklmnopqrstuvwxyz.,-")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """A name that is not here must fail, not be looked for elsewhere."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def photos() -> list[np.ndarray]:
    """Three photos of different shapes, one of them 3 pixels high."""
    draw = np.random.default_rng(0)
    sizes = [(48, 64), (80, 40), (3, 90)]
    return [draw.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


@pytest.fixture(scope="session")
def clip_tokenizer():
    """CLIP's tokenizer with a byte-pair vocabulary learnt from a few of its prompts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    from ramctl.checkpoints.clip import label_prompts

    pieces = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=300, end_of_word_suffix="</w>", initial_alphabet=SIGNS, show_progress=False
    )
    texts = [text for label in LABELS for text in label_prompts(label)]
    pieces.train_from_iterator([*texts, *(f"{sign} {sign}{sign}" for sign in SIGNS)], trainer)
    learnt = json.loads(pieces.to_str())["model"]
    vocabulary = dict(learnt["vocab"])
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in learnt["merges"]])


@pytest.fixture(scope="session")
def bert_tokenizer():
    """bert-base-uncased's tokenizer: Grounding DINO tells phrases apart by its token ids."""
    return bert_base_tokenizer()
