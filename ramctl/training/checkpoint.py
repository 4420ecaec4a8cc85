"""Checkpoints: everything the next step depends on, hashed, the last two kept."""

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ramctl.errors import RunProblem
from ramctl.records.files import write_atomic

KEPT = 2
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.pt")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved state and the file it came from."""

    path: Path
    state: dict[str, Any]


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state of a step, whole or not at all, and drop all but the last two.

    The file's name carries the hash of its content.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    path = folder / f"step-{step:08d}-{_hash(content)}.pt"
    write_atomic(path, content)
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name))


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose content is intact; None where a run has saved none yet.

    Raises RunProblem when all that are there are damaged.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        content = path.read_bytes()
        match = _NAME.fullmatch(path.name)
        if match and match[2] == _hash(content):
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            return Checkpoint(path, state)
    if paths:
        raise RunProblem(f"{folder}: every checkpoint is damaged; start again with --restart")
    return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
