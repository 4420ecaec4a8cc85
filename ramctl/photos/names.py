"""File names that are photos', and photos beside each other that differ only in the extension."""

from functools import lru_cache
from pathlib import Path

RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".mrw", ".nef", ".nrw", ".orf",
    ".pef", ".raf", ".raw", ".rw2", ".srw", ".x3f",
})  # fmt: skip
SUFFIXES = RAW_SUFFIXES | {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff",
    ".bmp", ".ppm", ".pgm", ".ico", ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2",
}  # fmt: skip
_FOLDERS = 16  # whose listings are kept; photos usually come one folder at a time


def is_photo_name(name: str) -> bool:
    """Whether a file name has a photo's extension, in either case."""
    stem, dot, suffix = name.rpartition(".")  # a path takes ten times as long
    return bool(stem) and stem[-1] != "/" and (dot + suffix).lower() in SUFFIXES


def is_raw_name(name: str) -> bool:
    """Whether a file name has the extension of a camera's raw files."""
    return Path(name).suffix.lower() in RAW_SUFFIXES


class Neighbours:
    """The photos of the folders that it was asked about, as they were at the first question."""

    def __init__(self) -> None:
        self._listing = lru_cache(maxsize=_FOLDERS)(_names_by_stem)

    def __call__(self, photo: Path) -> list[str]:
        """The names of the other photos beside this one with its stem: `a.png` for `a.jpg`."""
        names = self._listing(photo.parent).get(photo.stem, [])
        return [name for name in names if name != photo.name]


def _names_by_stem(folder: Path) -> dict[str, list[str]]:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return {}  # nothing is written there either
    found: dict[str, list[str]] = {}
    for name in names:
        if is_photo_name(name):
            found.setdefault(Path(name).stem, []).append(name)
    return {stem: names for stem, names in found.items() if len(names) > 1}
