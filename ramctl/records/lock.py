"""One run at a time: a lock file that the system itself gives back when its owner ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramctl.errors import RunProblem


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock while the block runs; RunProblem at once when another process holds it.

    The file stays, and is only a name: a killed process leaves no lock behind.
    """
    import fcntl

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
            raise RunProblem(f"{path}: locked{by}; another run is under way") from error
        except OSError as error:
            raise RunProblem(f"{path}: cannot be locked: {error.strerror}") from error
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield
