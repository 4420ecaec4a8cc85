"""Photos beside each other whose names differ only in the extension."""

from functools import lru_cache
from pathlib import Path

from ramctl.photos.names import is_photo_name

_FOLDERS = 16  # whose listings are kept; photos usually come one folder at a time


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
