"""Near-duplicates: vectors that are close find candidates, and the photos' looks decide.

N photos, D axes, L labels, W windows of a photo, G rows and columns of a window.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RecordProblem, attempt
from ramctl.tagging.embedding import Floats
from ramctl.text.static_table import unit

# The root mean square of the differences between log-odds: of candidates, and of copies where the
# photos cannot be read. `scripts/bench/search.py copies` measures both and the following limits.
MAX_DIFFERENCE, MAX_UNREAD = 0.5, 0.25
BLOCK = 4096  # photos compared with as many others at a time
THRESHOLD = 0.7  # correlation of the details of copies
MAX_COLOUR = 8.0  # standard deviation of the differences of blurred colours, of 255
EDGE = 5  # a window's first and last fifth: there a crop is blurred otherwise
STRICTNESS = 0.6  # with fewer windows, which fit less well but save time
SIDE, DETAIL = 64, 32  # pixels: of looks, and of what is in them
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)  # of the sides of a photo that a crop has


class CopyFinder:
    """Finds near-duplicates among photos with points (N, D) and names relative to `base`."""

    def __init__(
        self, points: Floats, n_labels: int, names: Sequence[str], base: Path, threshold: float
    ) -> None:
        self._points, self._scale = points, n_labels**0.5
        self._threshold = threshold
        self._looks = lru_cache(BLOCK)(lambda place: attempt(_looks_of, names[place], base))

    def groups(self) -> list[list[int]]:
        """The places of photos in groups in which all are copies of one: chains are no groups.

        The time grows with the square of N.
        """
        copies = defaultdict[int, list[int]](list)
        for row, column, apart in self._candidates():
            if self._are_copies(row, column, apart):
                copies[row].append(column)
                copies[column].append(row)
        found, taken = [], set[int]()
        for place in sorted(copies, key=lambda place: (-len(copies[place]), place)):
            group = [x for x in (place, *copies[place]) if x not in taken]
            if place not in taken and len(group) > 1:
                found.append(sorted(group))
                taken.update(group)
        return sorted(found)

    def _candidates(self) -> Iterator[tuple[int, int, float]]:
        points = np.asarray(self._points / self._scale, np.float32)
        squares = (points**2).sum(1)
        starts = [slice(start, start + BLOCK) for start in range(0, len(points), BLOCK)]
        for rows, columns in combinations_with_replacement(starts, 2):
            apart = squares[rows, None] + squares[columns] - 2 * points[rows] @ points[columns].T
            for row, column in np.argwhere(apart < MAX_DIFFERENCE**2).tolist():
                if rows.start + row < columns.start + column:
                    distance = max(0.0, float(apart[row, column])) ** 0.5
                    yield rows.start + row, columns.start + column, distance

    def first_of_each(self, places: Iterable[int], n: int) -> list[list[int]]:
        """The first n of these photos without copies of earlier ones, each with its copies."""
        found: list[list[int]] = []
        for place in places:
            firsts = [group[0] for group in found]
            apart = np.linalg.norm(self._points[firsts] - self._points[place], axis=1) / self._scale
            near = (i for i in np.flatnonzero(apart < MAX_DIFFERENCE).tolist())
            copied = (i for i in near if self._are_copies(firsts[i], place, float(apart[i])))
            if (index := next(copied, None)) is not None:
                found[index].append(place)
            elif len(found) == n:
                break
            else:
                found.append([place])
        return found

    def _are_copies(self, first: int, second: int, apart: float) -> bool:
        """Whether one photo is the other, or a crop of it; by their distance if not readable."""
        a, b = self._looks(first), self._looks(second)
        if isinstance(a, RecordProblem) or isinstance(b, RecordProblem):
            return apart < MAX_UNREAD
        return _shows(a, b, self._threshold) or _shows(b, a, self._threshold)


def best_first(names: Iterable[str], base: Path) -> list[str]:
    """Copies of a photo with the one to keep first: the largest, of several the oldest."""
    from ramctl.photos.decoding import photo_size

    def rank(name: str) -> tuple[int, float]:
        size, changed = attempt(photo_size, name, base), 0.0
        with suppress(OSError, ValueError):
            changed = (base / name).stat().st_mtime
        return 0 if isinstance(size, RecordProblem) else -size[0] * size[1], changed

    return sorted(names, key=rank)


def _looks_of(name: str, base: Path) -> NDArray[np.float16]:
    """The blurred colours of a small photo, and the details of its brightness (SIDE, SIDE, 4)."""
    from PIL import Image, ImageFilter  # most answers need no photo

    from ramctl.photos.decoding import load_photo

    small = load_photo(name, base, target=SIDE).resize((DETAIL, DETAIL), Image.Resampling.BOX)
    photo = small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    blurred = photo.filter(ImageFilter.GaussianBlur(SIDE // 10))
    grey = [np.asarray(x.convert("L"), np.float16) for x in (photo, blurred)]
    return np.concatenate([np.asarray(blurred, np.float16), (grey[0] - grey[1])[..., None]], 2)


def _shows(whole: NDArray[np.float16], part: NDArray[np.float16], threshold: float) -> bool:
    """Whether a window of the whole photo looks like the part."""
    coarse, fine = _windows(0.05, 10), _windows(0.025, 20)
    for (rows, columns), strictness in ((coarse, STRICTNESS), (fine, 1.0)):
        target = part[rows[0][:, None], columns[0]].astype(np.float32)
        details = whole[..., 3][rows[:, :, None], columns[:, None]].astype(np.float32)
        correlations = _centred(details) @ _centred(target[None, ..., 3])[0]
        best = int(correlations.argmax())
        colours = whole[rows[best][:, None], columns[best], :3] - target[..., :3]
        inner = slice(len(target) // EDGE, -(len(target) // EDGE))
        # Details of a plain surface are noise: there the colours decide.
        max_colour = min(MAX_COLOUR, 2 * target[..., 3].std()) / strictness
        if correlations[best] < strictness * threshold or colours[inner, inner].std() > max_colour:
            return False
    return True


def _centred(details: Floats) -> Floats:
    """Details (W, G, G) as rows (W, G * G) with a mean of 0 and length 1."""
    rows = details.reshape(len(details), -1)
    return unit(rows - rows.mean(1, keepdims=True))


@cache
def _windows(step: float, grid: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows and the columns (W, G) of windows; the first is the whole photo."""
    at = (np.arange(grid) + 0.5) / grid
    places = [
        ((y + share * at) * SIDE, (x + share * at) * SIDE)
        for share in SHARES
        for y in np.arange(0, 1.001 - share, step)
        for x in np.arange(0, 1.001 - share, step)
    ]
    rows, columns = np.array(places).astype(int).clip(0, SIDE - 1).transpose(1, 0, 2)
    return rows, columns
