"""A small CLIP, no network and a cache of their own."""

import pytest

from tests.inference.peers.support import clip_tokenizer, offline, own_cache, save_clip_text
from tests.support import command, one_thread

__all__ = ["clip_tokenizer", "command", "offline", "one_thread", "own_cache"]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory, clip_tokenizer):
    """Only the text half of a CLIP."""
    return save_clip_text(tmp_path_factory.mktemp("clip-text"), clip_tokenizer)
