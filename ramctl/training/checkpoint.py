"""Checkpoints: everything the next step depends on, hashed; the last two are kept."""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import torch

from ramctl.errors import RunProblem
from ramctl.records.files import write_atomic

KEPT = 2
State = dict[str, Any]  # plain values and tensors by name
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.pt")


def save_checkpoint(folder: Path, step: int, state: State) -> Path:
    """Write the state of a step, whole or not at all, and delete all but the last two.

    The file's name holds the hash of its content, by which a damaged file is passed over.
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


def load_checkpoint(folder: Path) -> State | None:
    """The state of the newest intact checkpoint; None where a run has saved none yet.

    Raises RunProblem when every checkpoint is damaged.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        content = path.read_bytes()
        match = _NAME.fullmatch(path.name)
        if match and match[2] == _hash(content):
            state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            return state
    if paths:
        raise RunProblem(f"{folder}: every checkpoint is damaged; start again with --restart")
    return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
