"""Records of taggers' scores, and which photo each of them is about.

A file of records with `image` and `scores` teaches (`train --distill scores:FILE`) and is evaluated
(`eval`).
"""

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
from ramctl.records.record import Item, JsonObject, Record, image_name, listed, numbers_in
from ramctl.records.report import Rejects, Report
from ramctl.records.stream import accepted

PREFIX = "scores:"
Taken = TypeVar("Taken")


def base_name(photo: str) -> str:
    """The name after the last `#` and `/`."""
    return photo.rsplit("#", 1)[-1].rstrip("/").rsplit("/", 1)[-1]


def scores_file(option: str, text: str, form: str, *names: str) -> tuple[Path, dict[str, str]]:
    """The file in an option's `FILE,name=value`, and the values of these `names`.

    UsageProblem, which shows the `form`, for another text.
    """
    path, *settings = text.split(",")
    values = dict(setting.partition("=")[::2] for setting in settings)
    if not path or "" in values.values() or values.keys() - set(names):
        raise UsageProblem(f"{option} {text}: expected {form}")
    return Path(path), values


def match(
    truth: Sequence[str], predictions: Sequence[str]
) -> tuple[NDArray[np.int64], Counter[str]]:
    """Pairs of (truth index, prediction index) [n, 2] in truth order; how many met by which key.

    Photos meet by the name as written, else by base name without extension, as the RAM authors'
    lists have it. A key counts where it is unique on each side, so that no photo is guessed.
    """
    partner = np.full(len(truth), -1)
    by_key: Counter[str] = Counter()
    known = {name: number for number, name in enumerate(predictions)}
    for number, name in enumerate(truth):
        partner[number] = known.get(name, -1)
    by_key["name"] = int((partner >= 0).sum())
    if by_key["name"] < len(truth):
        taken = set(partner.tolist())
        stems = _unique(predictions)
        for stem, number in _unique(truth).items():
            found = stems.get(stem, -1)
            if partner[number] < 0 and found not in taken:
                partner[number] = found
                by_key["base name"] += found >= 0
    matched = np.flatnonzero(partner >= 0)
    return np.stack([matched, partner[matched]], axis=1), +by_key


def _unique(photos: Sequence[str]) -> dict[str, int]:
    stems = [PurePosixPath(base_name(name)).stem for name in photos]
    times = Counter(stems)
    return {stem: number for number, stem in enumerate(stems) if times[stem] == 1}


class PhotoList(list[str]):
    """The names of photos in order, each once."""

    def fill(
        self, items: Iterable[Item], rejects: Rejects,
        take: Callable[[JsonObject], Taken], keep: Callable[[Taken], object],
    ) -> None:  # fmt: skip
        """Add the photos of records; `keep` gets what `take` makes of each.

        Rejected are lines without a record, records for which `take` raises RecordProblem, and
        photos that were there already. RunProblem at the first of them with `--strict`.
        """
        lines: dict[str, int | None] = {}

        def use(record: Record) -> Taken:
            taken = take(record.fields)  # first of all: it may name the labels of those after it
            name = image_name(record.fields)
            if name in lines:
                place = f"{record.source}:{lines[name]}"
                raise RecordProblem(f"image {name!r} is there already ({place})", code="bad_field")
            lines[name] = record.line
            self.append(name)
            return taken

        for _, taken in accepted(items, use, rejects):
            keep(taken)


def tag_scores(fields: JsonObject) -> dict[str, float]:
    """The scores by tag of a prediction; 1 for each tag where there are no scores.

    Raises RecordProblem when there is neither.
    """
    if fields.get("scores") is not None:
        return numbers_in(fields, "scores")
    if fields.get("tags") is None:
        raise RecordProblem("no dense, scores or tags field", code="missing_field")
    return dict.fromkeys(listed(fields, "tags"), 1.0)


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

    def rows_of(self, photos: Sequence[str]) -> NDArray[np.int64]:
        """The row of each photo (N,), -1 where it is not in the file; photos meet as in `eval`."""
        rows = np.full(len(photos), -1)
        pairs, _ = match(photos, self.photos)
        rows[pairs[:, 0]] = pairs[:, 1]
        return rows
