"""Records of taggers' scores, which teach (`train --distill scores:FILE`) and are evaluated."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ramctl.captions.caption_formats import read_predictions
from ramctl.errors import RecordProblem
from ramctl.records.labels import DEFAULT_THRESHOLD
from ramctl.records.record import Item, JsonObject, Record, image_name, listed, numbers_in
from ramctl.records.report import Rejects, Report
from ramctl.records.stream import accepted

PREFIX = "scores:"
Taken = TypeVar("Taken")


def match(
    truth: Sequence[str], predictions: Sequence[str]
) -> tuple[NDArray[np.int64], Counter[str]]:
    """Pairs of (truth index, prediction index) [n, 2] in truth order; how many met by which key.

    Photos meet by the name as written, else by base name without extension, as the RAM authors'
    lists have it, where that is unique on each side, so that no photo is guessed.
    """
    numbers = {name: number for number, name in enumerate(predictions)}
    partner = {t: numbers[name] for t, name in enumerate(truth) if name in numbers}
    by_name, taken = len(partner), set(partner.values())
    stems = _unique_stems(predictions) if by_name < len(truth) else {}
    for stem, t in _unique_stems(truth).items() if stems else ():
        if t not in partner and stem in stems and stems[stem] not in taken:
            partner[t] = stems[stem]
    by_key = +Counter({"name": by_name, "base name": len(partner) - by_name})
    return np.array(sorted(partner.items()), np.int64).reshape(-1, 2), by_key


def _unique_stems(photos: Sequence[str]) -> dict[str, int]:
    stems = [PurePosixPath(name.rsplit("#", 1)[-1]).stem for name in photos]
    times = Counter(stems)
    return {stem: number for number, stem in enumerate(stems) if times[stem] == 1}


def each_photo(
    items: Iterable[Item], take: Callable[[JsonObject], Taken], rejects: Rejects
) -> Iterator[tuple[str, Taken]]:
    """The name of each record's photo, once, and what `take` makes of its fields.

    Rejected are lines without a record, records for which `take` raises RecordProblem, and photos
    that were there already. RunProblem at the first of them with `--strict`.
    """
    lines: dict[str, int | None] = {}

    def use(record: Record) -> tuple[str, Taken]:
        taken = take(record.fields)  # first of all: it may name the labels of those after it
        name = image_name(record.fields)
        if name in lines:
            place = f"{record.source}:{lines[name]}"
            raise RecordProblem(f"image {name!r} is there already ({place})", code="bad_field")
        lines[name] = record.line
        return name, taken

    return (found for _, found in accepted(items, use, rejects))


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
    photos: list[str]
    scores: list[tuple[NDArray[np.int32], NDArray[np.float32]]]
    names: dict[str, int]
    given: Counter[str]  # photos on which a name has more than 0.5

    @classmethod
    def read(cls, path: Path, command: str) -> "TaggerScores":
        """The scores in the file; RunProblem naming its first bad line."""
        table = cls(path, [], [], {}, Counter())
        with Rejects(Report(command, quiet=True), None, strict=True) as rejects:
            items = read_predictions(str(path), command)
            for photo, scores in each_photo(items, tag_scores, rejects):
                table.given.update(n for n, score in scores.items() if score > DEFAULT_THRESHOLD)
                ids = [table.names.setdefault(name, len(table.names)) for name in scores]
                values = np.array(list(scores.values()), np.float32)
                table.photos.append(photo)
                table.scores.append((np.array(ids, np.int32), values))
        return table

    def rows_of(self, photos: Sequence[str]) -> NDArray[np.int64]:
        """The row of each photo (N,), -1 where it is not in the file; photos meet as in `eval`."""
        rows = np.full(len(photos), -1)
        pairs, _ = match(photos, self.photos)
        rows[pairs[:, 0]] = pairs[:, 1]
        return rows
