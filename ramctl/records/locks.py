"""Locks: one run at a time writes an output, or does what the user has named a lock file for.

They are the kernel's (flock; byte-range locks on NFS), so that a killed process leaves none behind.
"""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ramctl.errors import RunProblem

# What file systems without locks answer: some mounts of NFS and Lustre, and FUSE.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
WAIT_S = 0.1  # between two looks at a lock that is waited for
Say = Callable[[str], None]


@dataclass(slots=True)
class _Lock:
    """A locked file, which names its holder: process and machine."""

    path: Path
    descriptor: int
    process: int = field(default_factory=os.getpid)
    thread: int = field(default_factory=threading.get_ident)
    depth: int = 1  # how often its thread has taken it

    def release(self, *, remove: bool) -> None:
        if self.process == os.getpid():  # a forked process has none of its parent's locks
            if remove:
                self.path.unlink(missing_ok=True)
            os.close(self.descriptor)


_held: dict[Path, _Lock] = {}


def _leave_to_parent() -> None:
    """In a forked process: let go of the descriptors, or it would hold the locks of a dead one."""
    for lock in _held.values():
        os.close(lock.descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def locked(path: Path, wait: Say | None = None) -> Iterator[None]:
    """Hold the lock of a file while the block runs; the file itself stays.

    When another process holds it: RunProblem at once, or, where `wait` is given, it is told, and
    the lock is waited for.
    """
    lock = _acquire(path, path, wait)
    if lock is None:
        raise RunProblem(f"{path}: cannot be locked: the file system has no locks")
    _held[path] = lock
    try:
        yield
    finally:
        _held.pop(path, None)
        lock.release(remove=False)


@contextmanager
def held(path: Path, output: Path, say: Say) -> Iterator[None]:
    """Hold the lock file of an output while the block runs; it is there for so long only.

    RunProblem, about `output`, when another run holds it. A thread may lock again what it has
    locked. `say` is told where the file system has no locks.
    """
    own = _held.get(path)
    if own is not None and own.thread == threading.get_ident():
        own.depth += 1
    else:
        own = _acquire(path, output)
        if own is None:
            say(f"{output}: no locks on this file system; a second run on it would go unnoticed")
            yield
            return
        _held[path] = own
    try:
        yield
    finally:
        own.depth -= 1
        if own.depth == 0:
            _held.pop(path, None)
            own.release(remove=True)


def open_alone(path: Path) -> BinaryIO:
    """An empty file to write, which no other process has open so; waits until that is so.

    On a file system without locks it is only opened.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _flock(descriptor, path, wait=lambda message: None)
            if is_current := _is_current(descriptor, path):
                os.ftruncate(descriptor, 0)
        except BaseException:
            os.close(descriptor)
            raise
        if is_current:
            return os.fdopen(descriptor, "wb")
        os.close(descriptor)


def is_open_alone(path: Path) -> bool:
    """Whether somebody has a file open by `open_alone`; True also where that cannot be known."""
    try:
        import fcntl  # not on Windows

        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (ImportError, OSError):
        return True
    return False


def _acquire(path: Path, output: Path, wait: Say | None = None) -> _Lock | None:
    """The lock of a file, which is made if it is not there; None where there are no locks.

    RunProblem, about `output`, when another process holds it, unless it is waited for.
    """
    while True:
        is_new = not path.exists()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunProblem(f"{output}: {error.strerror or error}") from error
        try:
            if not _flock(descriptor, output, wait):
                os.close(descriptor)
                if is_new:
                    path.unlink(missing_ok=True)
                return None
            if _is_current(descriptor, path):
                os.ftruncate(descriptor, 0)
                with suppress(OSError):  # the lock holds on a full disk too, without the name
                    os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
                return _Lock(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the holder before has removed the file: lock the new one


def _flock(descriptor: int, output: Path, wait: Say | None) -> bool:
    """Lock a file; False where that is not possible at all."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            if wait is None:
                message = f"{output}: locked{holder}; another run is in progress"
                raise RunProblem(message) from error
            wait(f"{output}: locked{holder}; waiting for that run to end")
            _wait_for(descriptor)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise RunProblem(f"{output}: cannot be locked: {error.strerror}") from error
    return True


def _wait_for(descriptor: int) -> None:
    """Lock a file when its holder lets go of it.

    Not by one blocking call: a signal just before that would only be noticed after it.
    """
    import fcntl

    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(WAIT_S)


def _is_current(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    """Who holds a locked file, for messages."""
    for _ in range(10):  # it may not have written its name yet
        words = os.pread(descriptor, 300, 0).decode("utf-8", "replace").split()
        if words and words[0].isdigit():
            elsewhere = len(words) > 1 and words[1] != socket.gethostname()
            return f" by process {words[0]}" + (f" on {words[1]}" if elsewhere else "")
        time.sleep(0.02)
    return ""
