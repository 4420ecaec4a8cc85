"""Checkpoints of a run: everything that the next step depends on; the last two are kept."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ramctl.errors import RunProblem
from ramctl.records.files import replacing

MAX_KEPT = 2
State = dict[str, Any]  # plain values and tensors by name


def save_checkpoint(folder: Path, step: int, state: State) -> Path:
    """Write the state of a step, whole or not at all, and delete all but the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    with replacing(path) as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:
            # torch fails to end a file that could not be written, which hides why.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
    for old in list_checkpoints(folder)[:-MAX_KEPT]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def load_checkpoint(folder: Path, notify: Callable[[str], None]) -> State | None:
    """The state of the newest intact checkpoint, mapped into memory; None where there is none yet.

    `notify` gets a message for each that is damaged; RunProblem when all are.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        if _is_intact(path):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        notify(f"{path}: damaged, not used")
    if paths:
        raise RunProblem(f"{folder}: every checkpoint is damaged; remove the folder to start again")
    return None


def _is_intact(path: Path) -> bool:
    """Whether each part of the file has the checksum that torch stored with it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError):
        return False
