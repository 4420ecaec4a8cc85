"""Checkpoints: everything the next step depends on, hashed; the last two are kept."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ramctl.checkpoints.bundle import file_sha256
from ramctl.errors import RunProblem
from ramctl.records.files import move_into_place, replacing

KEPT = 2
State = dict[str, Any]  # plain values and tensors by name


class _Hashed:
    """A stream for `torch.save` that hashes what passes through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.problem: OSError | None = None  # torch raises another error in its place

    def write(self, data: Any) -> int:
        self.digest.update(data)
        try:
            return self._stream.write(data)
        except OSError as error:
            self.problem = error
            raise

    def flush(self) -> None:
        self._stream.flush()


def save_checkpoint(folder: Path, step: int, state: State) -> Path:
    """Write the state of a step, whole or not at all, and delete all but the last two.

    The file's name holds the hash of its content, by which a damaged file is passed over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unnamed = folder / f"step-{step:08d}-unnamed"
    with replacing(unnamed) as stream:
        hashed = _Hashed(stream)
        try:
            torch.save(state, hashed)  # type: ignore[arg-type]  # writes and flushes, no more
        except RuntimeError as error:
            if hashed.problem is None:
                raise
            raise hashed.problem from error
    path = folder / f"step-{step:08d}-{hashed.digest.hexdigest()[:16]}.pt"
    move_into_place(unnamed, path)
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*-*.pt"))


def load_checkpoint(folder: Path, say: Callable[[str], None]) -> State | None:
    """The state of the newest intact checkpoint, mapped into memory; None where there is none yet.

    `say` is told of each that is damaged; RunProblem when all are.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        if path.stem.endswith(f"-{file_sha256(path)[:16]}"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        say(f"{path}: content differs from the hash in its name: not used")
    if paths:
        raise RunProblem(f"{folder}: every checkpoint is damaged; start again with --restart")
    return None
