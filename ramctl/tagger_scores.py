"""Records of taggers' scores, and which photo each of them is about.

A file of records with `image` and `scores` teaches (`train --distill scores:FILE`), is evidence
(`generate` and `clean --evidence FILE`) and is evaluated (`eval`).
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RecordProblem, UsageProblem
from ramctl.labels import DEFAULT_THRESHOLD
from ramctl.readers.caption_formats import read_predictions
from ramctl.records.record import Item, JsonObject, Record, image_name
from ramctl.records.report import Rejects, Report
from ramctl.records.stream import accepted

PREFIX = "scores:"
Taken = TypeVar("Taken")


@dataclass(frozen=True, slots=True)
class PhotoName:
    """A photo as a record names it; a relative name is relative to `base`."""

    name: str
    base: Path

    @classmethod
    def of(cls, record: Record) -> "PhotoName":
        """The photo of a record; RecordProblem where it names none."""
        return cls(image_name(record.fields), record.base)

    def located(self, folder: str | None = None) -> str:
        """The absolute path, whatever the working directory was; `folder` is that of `base`."""
        is_absolute = self.name.startswith("/")
        path = self.name if is_absolute else f"{folder or absolute(self.base)}/{self.name}"
        return os.path.normpath(path)

    def base_name(self) -> str:
        """The name after the last `#` and `/`."""
        return self.name.rsplit("#", 1)[-1].rstrip("/").rsplit("/", 1)[-1]


def absolute(folder: Path) -> str:
    """The absolute path of a folder, links not followed."""
    return os.path.abspath(folder)  # noqa: PTH100 - resolve() follows links


def scores_file(option: str, text: str, form: str, *names: str) -> tuple[Path, dict[str, str]]:
    """The file in an option's `FILE,name=value`, and the values of these `names`.

    UsageProblem, which shows the `form`, for another text.
    """
    path, *settings = text.split(",")
    values = dict(setting.partition("=")[::2] for setting in settings)
    if not path or "" in values.values() or values.keys() - set(names):
        raise UsageProblem(f"{option} {text}: expected {form}")
    return Path(path), values


_ROUNDS: tuple[tuple[str, Callable[[PhotoName], str]], ...] = (
    ("image", lambda photo: photo.name),
    ("path", PhotoName.located),
    ("path", lambda photo: os.path.normpath(photo.name)),
    ("name", PhotoName.base_name),
    # Without its extension, as the RAM authors' lists have it.
    ("name", lambda photo: PurePosixPath(photo.base_name()).stem),
)


def match(
    truth: Sequence[PhotoName], predictions: Sequence[PhotoName]
) -> tuple[NDArray[np.int64], Counter[str]]:
    """Pairs of (truth index, prediction index) [n, 2] in truth order; how many met by which key.

    Photos meet by the name as written, else by path, else by base name. A key counts where it is
    unique on each side, so that no photo is guessed.
    """
    partner = np.full(len(truth), -1)
    taken = np.zeros(len(predictions), bool)
    by_key: Counter[str] = Counter()
    for name, key_of in _ROUNDS:
        if (partner >= 0).all():
            break
        truth_keys, keys = _unique(truth, key_of), _unique(predictions, key_of)
        for text, t in truth_keys.items():
            p = keys.get(text)
            if p is not None and partner[t] < 0 and not taken[p]:
                partner[t], taken[p] = p, True
                by_key[name] += 1
    matched = np.flatnonzero(partner >= 0)
    return np.stack([matched, partner[matched]], axis=1), by_key


def _unique(photos: Sequence[PhotoName], key_of: Callable[[PhotoName], str]) -> dict[str, int]:
    keys = list(map(key_of, photos))
    times = Counter(keys)
    return {key: index for index, key in enumerate(keys) if times[key] == 1}


class PhotoList(list[PhotoName]):
    """Photos in order, each once."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: dict[str, int | None] = {}
        self._base: Path | None = None
        self._folder = ""

    def add(self, record: Record) -> None:
        """Add the photo of a record; RecordProblem where it is there already."""
        photo = PhotoName.of(record)
        if photo.base is not self._base:
            self._base, self._folder = photo.base, absolute(photo.base)
        path = photo.located(self._folder)
        if path in self._lines:
            place = f"{record.source}:{self._lines[path]}"
            raise RecordProblem(
                f"image {photo.name!r} is there already ({place})", code="bad_field"
            )
        self._lines[path] = record.line
        self.append(photo)

    def fill(
        self, items: Iterable[Item], rejects: Rejects,
        take: Callable[[JsonObject], Taken], keep: Callable[[Taken], object],
    ) -> None:  # fmt: skip
        """Add the photos of records, and no others later; `keep` gets what `take` makes of each.

        Rejected are lines without a record, records for which `take` raises RecordProblem, and
        photos that were there already. RunProblem at the first of them with `--strict`.
        """

        def use(record: Record) -> Taken:
            taken = take(record.fields)  # first of all: it may name the labels of those after it
            self.add(record)
            return taken

        for _, taken in accepted(items, use, rejects):
            keep(taken)
        self._lines.clear()


def tag_scores(fields: JsonObject) -> dict[str, float]:
    """The scores by tag of a prediction; 1 for each tag where there are no scores.

    Raises RecordProblem when there is neither.
    """
    scores: dict[str, float] | None = fields.get("scores")
    if scores is None and fields.get("tags") is None:
        raise RecordProblem("no dense, scores or tags field", code="missing_field")
    return dict.fromkeys(fields["tags"], 1.0) if scores is None else scores


@dataclass(frozen=True, slots=True)
class TaggerScores:
    """The scores in a tagger's file: of each photo, the numbers of its names and their scores."""

    path: Path
    photos: PhotoList
    scores: list[tuple[NDArray[np.int32], NDArray[np.float32]]]
    names: dict[str, int]
    given: Counter[str]  # photos on which a name has more than 0.5

    @classmethod
    def read(cls, path: Path, command: str) -> "TaggerScores":
        """The scores in the file; RunProblem naming its first bad line."""
        table = cls(path, PhotoList(), [], {}, Counter())

        def take(fields: JsonObject) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
            scores, names = tag_scores(fields), table.names
            table.given.update(name for name, score in scores.items() if score > DEFAULT_THRESHOLD)
            ids = [names.setdefault(name, len(names)) for name in scores]
            return np.array(ids, np.int32), np.array(list(scores.values()), np.float32)

        report = Report(command, quiet=True)
        with Rejects(report, None, strict=True) as rejects:
            items = read_predictions(str(path), command)
            table.photos.fill(items, rejects, take, table.scores.append)
        return table

    def rows_of(self, photos: Sequence[PhotoName]) -> NDArray[np.int64]:
        """The row of each photo (N,), -1 where it is not in the file; photos meet as in `eval`."""
        rows = np.full(len(photos), -1)
        pairs, _ = match(photos, self.photos)
        rows[pairs[:, 0]] = pairs[:, 1]
        return rows
