"""Locks: one run at a time writes an output, or does what the user has named a lock file for.

They are the kernel's (flock; byte-range locks on NFS), so that a killed process leaves none behind.
The package filelock leaves its files beside the outputs, and where there is no flock it makes
files that a killed process leaves locked.
"""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ramctl.errors import RunProblem

# What file systems without locks answer: some mounts of NFS and Lustre, and FUSE.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_WAIT_S = 0.1  # between two looks at a lock that is waited for
Say = Callable[[str], None]
_held: dict[Path, tuple[int, int]] = {}  # the descriptor of each, and the thread that holds it


def _leave_to_parent() -> None:
    """In a forked process: let go of the descriptors, or it would hold the locks of a dead one."""
    for descriptor, _ in _held.values():
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def locked(path: Path, say: Say) -> Iterator[None]:
    """Hold the lock of a file while the block runs; the file itself stays.

    When another run holds it, `say` is told, and the lock is waited for. RunProblem where there
    are no locks.
    """
    try:
        try:
            descriptor = _open_locked(path, waits=False)
        except BlockingIOError:
            say(f"{path}: locked; waiting for that run to end")
            descriptor = _open_locked(path, waits=True)
    except OSError as error:
        what = "cannot be locked: " if error.errno in _NO_LOCKS else ""
        raise RunProblem(f"{path}: {what}{error.strerror or error}") from error
    with _held_until_end(path, descriptor, remove=False):
        yield


@contextmanager
def held(path: Path, output: Path, say: Say) -> Iterator[None]:
    """Hold the lock file of an output while the block runs; it is there for so long only.

    RunProblem, about `output`, when another run holds it. A thread may lock again what it has
    locked. `say` is told where the file system has no locks.
    """
    if path in _held and _held[path][1] == threading.get_ident():
        yield
        return
    descriptor = None
    try:
        descriptor = _open_locked(path, waits=False)
    except BlockingIOError as error:
        raise RunProblem(f"{output}: locked; another run is in progress") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise RunProblem(f"{output}: {error.strerror or error}") from error
    if descriptor is None:
        path.unlink(missing_ok=True)
        say(f"{output}: no locks on this file system; a second run on it would go unnoticed")
        yield
        return
    with _held_until_end(path, descriptor, remove=True):
        yield


@contextmanager
def _held_until_end(path: Path, descriptor: int, *, remove: bool) -> Iterator[None]:
    _held[path] = descriptor, threading.get_ident()
    try:
        yield
    finally:
        if _held.pop(path, None):  # else this process was forked meanwhile
            if remove:
                path.unlink(missing_ok=True)
            os.close(descriptor)


def open_alone(path: Path) -> BinaryIO:
    """An empty file to write, which no other process has open so; waits until that is so.

    On a file system without locks it is only opened.
    """
    try:
        descriptor = _open_locked(path, waits=True)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        descriptor = os.open(path, os.O_RDWR)
    os.ftruncate(descriptor, 0)
    return os.fdopen(descriptor, "wb")


def is_open_alone(path: Path) -> bool:
    """Whether somebody has a file open by `open_alone`; True also where that cannot be known."""
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _open_locked(path: Path, *, waits: bool) -> int:
    """Open and lock a file, which is made if it is not there.

    BlockingIOError when another process holds it, unless it is waited for.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waits:
                        raise
                # One blocking call would not notice a signal that comes just before it.
                time.sleep(_WAIT_S)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the holder before has removed the file: lock the new one
