"""Which prediction belongs to which photo of the truth."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

KEYS = ("image", "path", "name")


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo as a record names it; a relative name is relative to `base`."""

    name: str
    base: Path

    def folder(self) -> str:
        """The absolute folder that a relative name is relative to."""
        return os.path.abspath(self.base)  # noqa: PTH100 - resolve() follows links

    def located(self, folder: str | None = None) -> str:
        """The absolute path, whatever the working directory was; `folder` is `folder()`."""
        is_absolute = self.name.startswith("/")
        path = self.name if is_absolute else f"{folder or self.folder()}/{self.name}"
        return os.path.normpath(path)

    def normal(self) -> str:
        """The name without `./`, doubled slashes and `x/..`."""
        return os.path.normpath(self.name)

    def base_name(self) -> str:
        """The name after the last `#` and `/`."""
        return self.name.rsplit("#", 1)[-1].rstrip("/").rsplit("/", 1)[-1]

    def stem(self) -> str:
        """The base name without its extension, as the RAM authors' lists have it."""
        return PurePosixPath(self.base_name()).stem


@dataclass(slots=True)
class Matches:
    """Pairs of (truth index, prediction index) [n, 2] in truth order, how many met by which key."""

    pairs: NDArray[np.int64]
    by_key: Counter[str] = field(default_factory=Counter)


_ROUNDS: tuple[tuple[str, Callable[[Photo], str]], ...] = (
    ("image", lambda photo: photo.name),
    ("path", Photo.located),
    ("path", Photo.normal),
    ("name", Photo.base_name),
    ("name", Photo.stem),
)


def match(truth: Sequence[Photo], predictions: Sequence[Photo], key: str | None = None) -> Matches:
    """The photos that are on both sides.

    By the name as written, else by path, else by base name; `key` allows one of these only. A
    key counts where it is unique on each side, so that no photo is guessed.
    """
    partner = np.full(len(truth), -1)
    taken = np.zeros(len(predictions), bool)
    by_key: Counter[str] = Counter()
    for name, key_of in _ROUNDS:
        if key not in (None, name) or (partner >= 0).all():
            continue
        left, right = _unique(truth, key_of), _unique(predictions, key_of)
        for text, t in left.items():
            p = right.get(text)
            if p is not None and partner[t] < 0 and not taken[p]:
                partner[t], taken[p] = p, True
                by_key[name] += 1
    found = np.flatnonzero(partner >= 0)
    return Matches(np.stack([found, partner[found]], axis=1), by_key)


def _unique(photos: Sequence[Photo], key_of: Callable[[Photo], str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for index, photo in enumerate(photos):
        key = key_of(photo)
        found[key] = -1 if key in found else index
    return {key: index for key, index in found.items() if index >= 0}
