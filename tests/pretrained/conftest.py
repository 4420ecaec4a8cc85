"""A hub of this process, with one repository."""

from pathlib import Path
from shutil import copytree

import pytest


class Hub:
    """What stands for the hub's client: the files of `owner/name` are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []

    def hf_hub_download(self, repository: str, file: str) -> str:
        self.asked.append(file)
        if repository != "owner/name" or not (self.folder / file).is_file():
            raise FileNotFoundError(f"404: no {file}\nin {repository}")
        return str(self.folder / file)

    def snapshot_download(self, repository: str, ignore_patterns: list[str]) -> str:
        self.asked.append(repository)
        return copytree(self.folder, self.folder.with_name("snapshot"))


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Hub:
    """A hub with one file in its repository."""
    made = Hub(tmp_path / "hub")
    made.folder.mkdir()
    (made.folder / "w.bin").write_bytes(b"weights")
    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(f"huggingface_hub.{name}", getattr(made, name))
    return made
