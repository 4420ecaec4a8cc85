"""Progress for people: a bar on a terminal, nothing in a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """What a running command tells: `update(n)` units done."""

    def update(self, n: int = 1) -> object:
        """Count `n` more units as done."""


class _Silent:
    def update(self, n: int = 1) -> None:
        return None


@contextmanager
def progress_bar(
    title: str, unit: str, *, shown: bool | None, total: int | None = None
) -> Iterator[Progress]:
    """A tqdm bar on stderr; `shown=None` means only when stderr is a terminal."""
    if not (sys.stderr.isatty() if shown is None else shown):
        yield _Silent()
        return
    from tqdm import tqdm

    with tqdm(
        desc=title, unit=f" {unit}", total=total, file=sys.stderr, dynamic_ncols=True, leave=False
    ) as bar:
        yield bar
