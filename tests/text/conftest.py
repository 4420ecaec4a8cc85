"""A small CLIP tokenizer, no network and a cache of their own for the tests of text encoders."""

from tests.peers.conftest import clip_tokenizer, offline, one_thread, own_cache

__all__ = ["clip_tokenizer", "offline", "one_thread", "own_cache"]
