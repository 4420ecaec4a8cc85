"""Fixtures: a server of recorded captions, and clients that do not wait long for it."""

import openai
import pytest

from tests.captioning.recorded_server import KEY, of_test_photos, serving


@pytest.fixture
def chat(monkeypatch):
    """The server, as the environment names it to commands."""
    for server in serving(of_test_photos()):
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server


@pytest.fixture
def hasty(monkeypatch):
    """The client tries again after short pauses."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.01)
