"""Fixtures: a server of recorded captions, and clients that do not wait long for it."""

import openai
import pytest

from ramctl.captions import endpoint
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
    """An outage is given up after two seconds, with short pauses before."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(endpoint, "PAUSE_S", 0.05)
    monkeypatch.setattr(endpoint, "PATIENCE_S", 2.0)
