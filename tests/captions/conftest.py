"""A server of recorded captions, and clients that do not wait long for it."""

import openai
import pytest

from tests.captions.recorded_server import KEY, RecordedServer, of_test_photos


@pytest.fixture
def chat(monkeypatch):
    """The server, as the environment names it to commands, whose clients try again soon."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.01)
    server = RecordedServer(of_test_photos())
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield server
    server.stop()
