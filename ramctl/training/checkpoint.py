"""Checkpoints: everything the next step depends on, hashed; the last two are kept."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ramctl.errors import RunProblem
from ramctl.records.files import write_atomic

KEPT = 2
State = dict[str, Any]  # plain values and tensors by name


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
    return sorted(folder.glob("step-*-*.pt"))


def load_checkpoint(folder: Path, say: Callable[[str], None]) -> State | None:
    """The state of the newest intact checkpoint; None where a run has saved none yet.

    `say` is told of each that is damaged; RunProblem when all are.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        content = path.read_bytes()
        if path.stem.endswith(f"-{_hash(content)}"):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        say(f"{path}: content differs from the hash in its name: not used")
    if paths:
        raise RunProblem(f"{folder}: every checkpoint is damaged; start again with --restart")
    return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
