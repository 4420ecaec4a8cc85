"""A hub of this process, with one repository."""

import json
from zlib import crc32

import pytest

from ramctl.records import remote
from tests.web_server import WebServer

INFO = "/api/models/owner/name"
COMMIT = "0" * 40
CONTENT = b"weights" * 1000


def put(web: WebServer, files: dict[str, bytes]) -> None:
    """Have these files in the repository, and no others."""
    about = {"id": "owner/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
    listed = [
        {"type": "file", "path": name, "size": len(content), "oid": "1" * 40}
        for name, content in files.items()
    ]
    web.files.clear()
    for path in (INFO, f"{INFO}/revision/main"):
        web.files[path] = json.dumps(about).encode()
    for revision in ("main", COMMIT):
        web.files[f"{INFO}/tree/{revision}"] = json.dumps(listed).encode()
        for name, content in files.items():
            web.files[f"/owner/name/resolve/{revision}/{name}"] = content


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A server with one file in its repository."""
    from huggingface_hub import HfFileSystem

    HfFileSystem.clear_instance_cache()
    monkeypatch.setattr(remote, "WAITS_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with WebServer() as web:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", web.url)
        template = web.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        put(web, {"w.bin": CONTENT})
        web.headers = {"ETag": lambda content: f'"{crc32(content)}"', "X-Repo-Commit": COMMIT}
        yield web
