"""Checkpoints: everything the next step depends on, hashed; the last two are kept."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ramctl.errors import RunProblem
from ramctl.records.files import move_into_place, replacing

KEPT = 2
State = dict[str, Any]  # plain values and tensors by name


class CheckpointWriter:
    """Writes states while training goes on: only copying them takes its time.

    The copies are in the host's memory, so that a GPU's is not needed. One state is written at a
    time. As a context manager it waits for the last one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread = ThreadPoolExecutor(1)
        self._writing: tuple[int, Future[Path]] | None = None
        self._written: list[tuple[int, Path]] = []

    def start(self, step: int, state: State) -> None:
        """Copy the state of a step and begin to write it, once an earlier one is written."""
        self.wait()
        future = self._thread.submit(save_checkpoint, self.folder, step, _copied(state))
        self._writing = (step, future)

    def wait(self) -> None:
        """Wait until what was begun is on the disk; raises what kept it from there."""
        if self._writing is not None:
            (step, future), self._writing = self._writing, None
            self._written.append((step, future.result()))

    def written(self) -> Iterator[tuple[int, Path]]:
        """The steps whose state came to the disk since the last call, and where it is."""
        if self._writing is not None and self._writing[1].done():
            self.wait()
        while self._written:
            yield self._written.pop(0)

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(Exception) if kind else nullcontext():  # what ended the run says more
            self.wait()
        self._thread.shutdown()


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
            raise hashed.problem or error from error
    path = folder / f"step-{step:08d}-{hashed.digest.hexdigest()[:16]}.pt"
    move_into_place(unnamed, path)
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*-*.pt"))


def is_intact(path: Path) -> bool:
    """Whether a checkpoint's content has the hash that its name says."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return path.stem.endswith(f"-{digest[:16]}")


def load_checkpoint(folder: Path, say: Callable[[str], None]) -> State | None:
    """The state of the newest intact checkpoint, mapped into memory; None where there is none yet.

    `say` is told of each that is damaged; RunProblem when all are.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        if is_intact(path):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        say(f"{path}: content differs from the hash in its name: not used")
    if paths:
        raise RunProblem(f"{folder}: every checkpoint is damaged; start again with --restart")
    return None


def _copied(value: Any) -> Any:
    """A copy of a state in the host's memory that no later step changes."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value
