"""Checkpoints: everything the next step depends on, hashed; the last two are kept."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

import torch

from ramctl.errors import RunProblem
from ramctl.records.files import move_into_place, replacing

KEPT = 2
PATTERN = "step-*-*.pt"
DAMAGED = "content differs from the hash in its name: not used"
State = dict[str, Any]  # plain values and tensors by name


class CheckpointWriter:
    """Writes states while training goes on: only copying them takes its time.

    The copies are in the host's memory, so that a GPU's is not needed. One state is written at a
    time. `on_written` is called in the thread that writes, with each file.
    """

    def __init__(self, folder: Path, on_written: Callable[[Path], None] | None = None) -> None:
        self.folder = folder
        self._on_written = on_written
        self._thread: Thread | None = None
        self._written: list[tuple[int, Path]] = []
        self._problem: BaseException | None = None

    def start(self, step: int, state: State) -> None:
        """Copy the state of a step and begin to write it, once an earlier one is written."""
        self.wait()
        self._thread = Thread(target=self._write, args=(step, _copied(state)))
        self._thread.start()

    def wait(self) -> None:
        """Wait until what was begun is on the disk; raises what kept it from there."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem

    def written(self) -> Iterator[tuple[int, Path]]:
        """The steps whose state came to the disk since the last call, and where it is."""
        while self._written:
            yield self._written.pop(0)

    def _write(self, step: int, state: State) -> None:
        try:
            path = save_checkpoint(self.folder, step, state)
            self._written.append((step, path))
            if self._on_written is not None:
                self._on_written(path)
        except BaseException as error:  # raised by `wait`, in the thread that trains
            self._problem = error


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
    return sorted(folder.glob(PATTERN))


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
        say(f"{path}: {DAMAGED}")
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
