"""Truths of sets of photos, and the figures of systems on them, kept in files."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import open_benchmark
from numpy.typing import NDArray

from ramctl.captions.caption_formats import read_predictions
from ramctl.errors import RunProblem
from ramctl.evaluation.classes import Classes, read_map
from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.metrics import Counts, interval, mean_over_classes, resamples
from ramctl.evaluation.predictions import PredictionTable, Statement, read_truth
from ramctl.records.labels import Labels
from ramctl.records.record import Record
from ramctl.records.report import Rejects, Report

HERE = Path(__file__).parent
SEED = 0  # of the resamples
CANDIDATES = 500  # thresholds that are tried


@dataclass(frozen=True)
class Truth:
    """The truth of a set's photos, and the words for its classes."""

    name: str
    statements: dict[str, Statement]  # by photo
    system: Labels
    origin: Path
    mapping: Mapping[str, list[str]]

    @classmethod
    def of_set(cls, name: str, folder: Path, mapping: Path | None) -> "Truth":
        """The truth of a shared set."""
        return cls.of_files(folder / f"{name}.jsonl", folder / f"{name}_classes.txt", mapping)

    @classmethod
    def of_files(cls, truth: Path, classes: Path, mapping: Path | None) -> "Truth":
        """The truth of a set by its files."""
        statements = read_truth(read_predictions(str(truth), "eval"), intake())
        return cls(truth.stem, statements, Labels.read(classes), classes, read_map(mapping))

    @classmethod
    def of_benchmark(cls, name: str, data: Path) -> "Truth":
        """That of a published benchmark; RunProblem naming the file that is missing."""
        found = open_benchmark(name, data)
        statements = read_truth((Record(row, base=data) for row in found.rows), intake())
        return cls(name, statements, found.classes, data, found.mapping)

    @property
    def words(self) -> list[str]:
        """All strings that the classes are asked for by."""
        named = (tag for name in self.system.tags for tag in [name, *self.mapping.get(name, [])])
        return list(dict.fromkeys(named))

    def compared(self, predictions: Path, tags: Labels | None = None) -> Comparison:
        """Predictions against the truth; `tags` is their label system where its synonyms count."""
        classes = Classes(self.system, str(self.origin), dict(self.mapping), tags)
        items = read_predictions(str(predictions), "eval")
        table = PredictionTable.read(items, classes, intake())
        return Comparison.from_tables(self.statements, table, classes)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file."""
    with path.open(encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def intake() -> Rejects:
    return Rejects(Report("eval", quiet=True), None)


def kept(path: Path, predictions: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The figures in `path`, made anew where predictions are newer."""
    if path.exists() and path.stat().st_mtime >= predictions.stat().st_mtime:
        figures: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return figures
    figures = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures), "utf-8")
    return figures


def counted(comparison: Comparison) -> NDArray[np.bool_]:
    """The classes [C] that the paper's tables count: not those that predictions do not know."""
    if not comparison.labels_are_stated:
        return np.ones(len(comparison.classes), bool)
    return comparison.known


def precision_recall(comparison: Comparison) -> dict[str, float]:
    """CP, CR, OF1 and the like of the decisions about those classes."""
    return Counts(*(values[counted(comparison)] for values in comparison.counts)).figures


def from_score(comparison: Comparison, score: float) -> Comparison:
    """The same comparison, with every tag given that has this score or more."""
    return replace(comparison, decided=comparison.scores >= score)


def decide(comparison: Comparison, precision: float | None = None) -> Comparison:
    """The comparison with the tags that one threshold for all classes gives.

    It is that of the highest OF1; with a `precision`, the lowest at which CP reaches it. RunProblem
    where none does. The paper's table 3 compares systems at the same precision so.
    """
    lowest = min(0, comparison.scores.min())  # that of a missing score
    scores = comparison.scores[comparison.scores > lowest]
    if not scores.size:
        raise RunProblem("no score to choose a threshold from")
    # Closer to each other where scores are high: most pairs of photo and class have low ones.
    places = len(scores) - np.unique(np.geomspace(1, len(scores), CANDIDATES).astype(np.intp))
    candidates = np.partition(scores, places)[places][::-1]  # ascending
    best = None
    for score in candidates.tolist():
        decided = from_score(comparison, score)
        found = precision_recall(decided)
        if precision is not None and found["CP"] >= precision:
            return decided
        if precision is None and (best is None or found["OF1"] > best[0]):
            best = found["OF1"], decided
    if best is None:
        raise RunProblem(f"no threshold reaches precision {precision:g}")
    return best[1]


def average_precisions(comparison: Comparison) -> dict[str, Any]:
    """mAP with its interval over photos, and the number of classes that are left out."""
    is_counted = counted(comparison)
    resampled = comparison.average_precisions(resamples(len(comparison.photos), SEED))
    means = mean_over_classes(np.where(is_counted, resampled, np.nan))
    value = float(mean_over_classes(np.where(is_counted, comparison.precisions, np.nan)))
    return {
        "photos": len(comparison.photos),
        "mAP": value,
        "ci": interval(value, means),
        "left_out": int((comparison.has_positives & ~comparison.known).sum()),
    }
