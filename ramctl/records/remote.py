"""Files at URLs (https://, s3://, gs:// ...), read as streams through fsspec."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ramctl.errors import RamctlError, RunProblem
from ramctl.records.extras import require
from ramctl.records.files import is_url

_BUFFER = 1 << 20  # bytes


def photo_base(name: str, root: str | None = None) -> Path:
    """The base of relative photo names: `root`, else the folder of an input."""
    # `<(...)` is /dev/fd/63, which is in no folder.
    return Path(root or ("." if is_url(name) or name.startswith("/dev/") else Path(name).parent))


@contextmanager
def open_url(url: str) -> Iterator[BinaryIO]:
    """Open a file at a URL to read it from its start; RunProblem where that fails."""
    require("remote", url)
    import fsspec

    try:
        with fsspec.open(url, "rb") as stream:
            yield io.BufferedReader(stream, _BUFFER)  # those of fsspec cannot limit a line
    except RamctlError:
        raise
    except Exception as error:  # each file system raises its own
        # Over HTTP fsspec raises FileNotFoundError for any failure, whose cause is the real error.
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise RunProblem(f"{url}: {reason or type(error).__name__}") from error
