"""Files that appear whole or not at all, the names of what stands beside an output, and locks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ramctl.errors import RunProblem


def part_path(output: Path) -> Path:
    """`FILE.part`, which becomes FILE when it is complete."""
    return output.with_name(output.name + ".part")


def state_path(output: Path) -> Path:
    """`FILE.state.jsonl`, which tells `--resume` what FILE holds."""
    return output.with_name(output.name + ".state.jsonl")


def work_path(output: Path) -> Path:
    """`OUT.work`, the folder of what a run makes on its way to OUT."""
    return output.with_name(output.name + ".work")


def is_device(path: Path) -> bool:
    """Whether a path is a pipe or a device, which is written to directly, never renamed over."""
    return path.exists() and not path.is_file() and not path.is_dir()


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without a byte-order mark; RunProblem when it cannot be read."""
    try:
        return path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise RunProblem(f"{path}: not UTF-8 text at byte {error.start}") from error
    except OSError as error:
        raise RunProblem(f"{path}: {error.strerror or error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends without an error."""
    part = part_path(path)
    try:
        with part.open("wb") as stream:
            yield stream
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise RunProblem(f"{path}: {error.strerror or error}") from error
        raise


def write_atomic(path: Path, content: bytes) -> None:
    """Write a whole file so that no reader sees half of it; a pipe or device directly."""
    if is_device(path):
        path.write_bytes(content)
        return
    with replacing(path) as stream:
        stream.write(content)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock while the block runs; RunProblem at once when another process holds it.

    The lock is the kernel's, the file only its name: a killed process leaves no lock behind.
    """
    import fcntl  # not on Windows

    try:
        stream = path.open("a+")
    except OSError as error:
        raise RunProblem(f"{path}: {error.strerror or error}") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            owner = stream.read(20).strip()
            by = f" by process {owner}" if owner.isdigit() else ""
            raise RunProblem(f"{path}: locked{by}; another run is in progress") from error
        except OSError as error:
            raise RunProblem(f"{path}: cannot be locked: {error.strerror}") from error
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield
