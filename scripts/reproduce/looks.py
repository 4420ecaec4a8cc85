"""Figures of systems on sets of photos, kept in files, and a log of each time that one was made.

Who looks at evaluation photos often enough finds what he wishes to: each look is a line of
looks.jsonl, written by what looks.
"""

import datetime
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import open_benchmark
from numpy.typing import NDArray

from ramctl.classes import Classes, read_map
from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.metrics import (
    Counts,
    Floats,
    interval,
    mean_over_classes,
    rank_classes,
    ranked_precisions,
    resamples,
)
from ramctl.evaluation.predictions import read_table
from ramctl.evaluation.truth import TruthTable
from ramctl.labels import LabelSystem
from ramctl.records.record import Record
from ramctl.records.report import Rejects, Report

HERE = Path(__file__).parent
LOG = HERE / "looks.jsonl"
DEVELOPMENT = ("flickr8k_dev", "judged")  # sets that may be looked at as often as one likes
SEED = 0  # of the resamples


def log(set_name: str, model: str, looked_at: str, path: Path = LOG) -> None:
    """Note that a set's truth was compared with a model's predictions."""
    if set_name in DEVELOPMENT:
        return
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True
    )
    look = {
        "date": datetime.date.today().isoformat(),
        "commit": found.stdout.strip() or "unknown",
        "set": set_name,
        "model": model,
        "looked_at": looked_at,
    }
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(look) + "\n")


@dataclass(frozen=True)
class Truth:
    """The truth of a set's photos, and the words for its classes."""

    name: str
    table: TruthTable
    system: LabelSystem
    origin: Path
    mapping: Mapping[str, list[str]]

    @classmethod
    def of_set(cls, name: str, folder: Path, mapping: Path | None) -> "Truth":
        """The truth of a shared set."""
        return cls.of_files(folder / f"{name}.jsonl", folder / f"{name}_classes.txt", mapping)

    @classmethod
    def of_files(cls, truth: Path, classes: Path, mapping: Path | None) -> "Truth":
        """The truth of a set by its files."""
        table, system = TruthTable.read(str(truth), intake()), LabelSystem.read(classes)
        return cls(truth.stem, table, system, classes, read_map(mapping) if mapping else {})

    @classmethod
    def of_benchmark(cls, name: str, data: Path) -> "Truth":
        """That of a published benchmark; RunProblem naming the file that is missing."""
        found = open_benchmark(name, data)
        table = TruthTable.from_records((Record(row, base=data) for row in found.rows), intake())
        return cls(name, table, found.classes, data, found.mapping)

    @property
    def words(self) -> list[str]:
        """All strings that the classes are asked for by."""
        named = (tag for name in self.system.tags for tag in [name, *self.mapping.get(name, [])])
        return list(dict.fromkeys(named))

    def classes(self, tags: LabelSystem | None = None) -> Classes:
        """The classes; `tags` is the predictions' label system where its synonyms count."""
        return Classes(self.system, str(self.origin), dict(self.mapping), tags)

    def compared(self, predictions: Path, tags: LabelSystem | None = None) -> Comparison:
        """Predictions against the truth."""
        classes = self.classes(tags)
        table = read_table(str(predictions), classes, None, intake())
        return Comparison.from_tables(self.table, table, classes)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file."""
    with path.open(encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def intake() -> Rejects:
    return Rejects(Report("eval", quiet=True), None)


def kept(
    path: Path, predictions: Path, make: Callable[[], dict[str, Any]], look: tuple[Any, ...]
) -> dict[str, Any]:
    """The figures in `path`, made anew, and the look noted, where predictions are newer."""
    if path.exists() and path.stat().st_mtime >= predictions.stat().st_mtime:
        figures: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return figures
    figures = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures), "utf-8")
    log(*look)
    return figures


def counted(comparison: Comparison) -> NDArray[np.bool_]:
    """The classes [C] that the paper's tables count: not those that predictions do not know."""
    if not comparison.labels_are_stated:
        return np.ones(len(comparison.classes), bool)
    return comparison.known


def of_counted(counts: Counts, comparison: Comparison) -> Counts:
    """The counts of those classes."""
    is_counted = counted(comparison)
    each = (counts.true_positives, counts.false_positives, counts.false_negatives)
    hits, false, missed = (values[..., is_counted] for values in each)
    return Counts(hits, false, missed)


def resampled_precisions(comparison: Comparison) -> Floats:
    """Average precision of every class in every resample of the photos [B, C]."""
    rankings = rank_classes(comparison.scores, comparison.truth)
    blocks = (ranked_precisions(rankings, w) for w in resamples(len(comparison.photos), SEED))
    return comparison.fill_unknown(np.concatenate(list(blocks)))


def average_precisions(comparison: Comparison) -> dict[str, Any]:
    """AP by class and mAP by resample, for later comparisons without another look."""
    resampled = resampled_precisions(comparison)
    is_counted, precisions = counted(comparison), comparison.precisions
    means = mean_over_classes(np.where(is_counted, resampled, np.nan))
    of_counted = np.where(is_counted, precisions, np.nan)
    value = float(mean_over_classes(of_counted))
    names = comparison.classes.names
    ap = (None if np.isnan(p) else float(p) for p in of_counted)
    return {
        "photos": len(comparison.photos),
        "mAP": value,
        "ci": interval(value, means),
        "left_out": int((comparison.has_positives & ~comparison.known).sum()),
        "AP": dict(zip(names, ap, strict=True)),
        # On equal terms with systems that know other classes.
        "mAP_unknown_zero": float(mean_over_classes(precisions)),
        "resampled": [None if np.isnan(m) else float(m) for m in mean_over_classes(resampled)],
    }


def mean_difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """The endpoint: the mean over the sets of the paired difference in mAP, with its interval.

    Classes that one does not know count 0 for it. Each set's photos are resampled for both systems
    alike, and apart from the other sets'.
    """
    gains = [
        a["mAP_unknown_zero"] - b["mAP_unknown_zero"] for a, b in zip(ours, theirs, strict=True)
    ]
    pairs = [
        np.array(a["resampled"], float) - np.array(b["resampled"], float)
        for a, b in zip(ours, theirs, strict=True)
    ]
    random = np.random.default_rng(0)
    mean = float(np.mean(gains))
    resampled = np.mean([random.permutation(own) for own in pairs], axis=0)
    return {"difference": mean, "ci": interval(mean, resampled, lowest=-1.0), "sets": gains}
