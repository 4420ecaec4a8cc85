"""What other taggers said of the photos: files of records with `image` and `scores`.

They teach (`train --distill scores:FILE`) and bear witness (`clean --evidence scores:FILE`).
N photos asked for.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.evaluation.matching import Photo, match
from ramctl.evaluation.predictions import tag_scores
from ramctl.evaluation.reading import Intake, PhotoList
from ramctl.labels import DEFAULT_THRESHOLD
from ramctl.readers.predictions import read_predictions
from ramctl.records.record import JsonObject
from ramctl.records.report import Rejects, Report

PREFIX = "scores:"


@dataclass(frozen=True, slots=True)
class TaggerScores:
    """The scores in a tagger's file: of each photo, the numbers of its names and their scores."""

    path: Path
    photos: list[Photo]
    scores: list[tuple[NDArray[np.int32], NDArray[np.float32]]]
    names: dict[str, int]
    given: Counter[str]  # photos on which a name has more than 0.5

    @classmethod
    def read(cls, path: Path, command: str) -> "TaggerScores":
        """The scores in the file; RunProblem naming its first bad line."""
        names: dict[str, int] = {}
        given: Counter[str] = Counter()

        def take(fields: JsonObject) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
            scores = tag_scores(fields)
            given.update(name for name, score in scores.items() if score > DEFAULT_THRESHOLD)
            ids = [names.setdefault(name, len(names)) for name in scores]
            return np.array(ids, np.int32), np.array(list(scores.values()), np.float32)

        report = Report(command, quiet=True)
        with Rejects(report, None, strict=True) as rejects:
            scores: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []
            items = read_predictions(str(path), command)
            photos = PhotoList()
            Intake(report, rejects).fill(photos, items, take, scores.append)
        return cls(path, photos, scores, names, given)

    def rows_of(self, photos: Sequence[Photo]) -> NDArray[np.int64]:
        """The row of each photo (N,), -1 where it is not in the file; photos meet as in `eval`."""
        rows = np.full(len(photos), -1)
        for index, row in match(photos, self.photos).pairs:
            rows[index] = row
        return rows
