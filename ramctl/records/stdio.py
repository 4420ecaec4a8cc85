"""Standard output for records only, whatever a library prints."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import BinaryIO, cast

from ramctl.errors import RunProblem


@contextmanager
def records_to_stdout() -> Iterator[BinaryIO]:
    """Standard output as bytes; meanwhile prints of Python and C libraries go to stderr."""
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # an in-memory stream, as under a test runner
        target = cast(BinaryIO, sys.stdout.buffer)
        with redirect_stdout(sys.stderr):
            yield target
        return
    private = os.dup(descriptor)
    os.dup2(sys.stderr.fileno(), descriptor)
    try:
        with redirect_stdout(sys.stderr), os.fdopen(os.dup(private), "wb") as stream:
            try:
                yield stream
                stream.flush()
            except BrokenPipeError:
                _discard(stream)
                raise
            except OSError as error:
                _discard(stream)
                if error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG):
                    raise RunProblem(f"standard output: {error.strerror}") from error
                raise
    finally:
        os.dup2(private, descriptor)
        os.close(private)


def _discard(stream: BinaryIO) -> None:
    """Point the stream at the null device, so that closing it cannot fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
