"""Fixtures of the tests of other taggers."""

import numpy as np
import pytest

from tests.inference.peers.support import bert_base_tokenizer, clip_tokenizer, offline, own_cache
from tests.support import one_thread

__all__ = ["clip_tokenizer", "offline", "one_thread", "own_cache"]


@pytest.fixture(scope="session")
def photos() -> list[np.ndarray]:
    """Three photos of different shapes, one of them 3 pixels high."""
    draw = np.random.default_rng(0)
    sizes = [(48, 64), (80, 40), (3, 90)]
    return [draw.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


@pytest.fixture(scope="session")
def bert_tokenizer():
    return bert_base_tokenizer()
