"""The cleaning rules on regions whose truth is known: what they remove, right or wrong."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from planted_damage import CLEANED_KINDS

from ramctl.data_engine.clean import CleanOptions
from ramctl.data_engine.cluster import cluster_distances
from ramctl.data_engine.region_store import RegionIndex, WorkFolder
from ramctl.records.record import Record

MOST_LOST = 0.10  # of right tags
PLANTED, RIGHT, ONCE = 1, 0, -1
SHARES = ("planted", "right")
SIGNS = {
    "distance": 1, "distance_rank": -1, "score": -1, "score_rank": -1, "score_share": -1,
    "deviations": -1,
}  # fmt: skip
ROUNDING = 1e-12  # of shares
LEAST_SCORE, ADDED_VARIANCE = 1e-6, 0.05


@dataclass
class Scored:
    """The tags of a fold that could be removed, and what the rules look at.

    Where there is no region, or too few of the tag, `distance_rank` and `score` say "keep".
    """

    truth: np.ndarray  # PLANTED, RIGHT, ONCE
    distance: np.ndarray
    distance_rank: np.ndarray  # the share of its tag that is as far
    score: np.ndarray
    score_rank: np.ndarray  # the share of its tag that scores as low
    score_share: np.ndarray  # of the mean over its tag
    deviations: np.ndarray  # above the mean logit of its tag

    def removed(self, rule: "Rule") -> tuple[float, float]:
        """The shares of planted and of right tags that a rule removes."""
        gone = rule.marks(self)
        return float(gone[self.truth == PLANTED].mean()), float(gone[self.truth == RIGHT].mean())


@dataclass(frozen=True)
class Rule:
    """Removes the farthest share, and what a threshold removes.

    Its form: a number for all, as `clean --threshold`, the lowest share of the regions, a share
    of their mean, or deviations below the mean of their logits.
    """

    outliers: float = 0.0
    form: str = ""
    number: float | None = None

    def marks(self, scored: Scored) -> np.ndarray:
        """True where the tag is removed."""
        far = scored.distance_rank <= self.outliers + ROUNDING
        number = self.number
        if number is None:
            return far
        match self.form:
            case "lowest":
                return far | (scored.score_rank <= number + ROUNDING)
            case "mean":
                return far | (scored.score_share <= number)
            case "deviations":
                return far | (scored.deviations <= -number)
        return far | (scored.score <= number)

    def __str__(self) -> str:
        threshold = f"{self.form}:" * bool(self.form) + f"{self.number or 0:.4f}"
        return f"--outliers {self.outliers:.3f} --threshold {threshold}"


def _rows_of(index: RegionIndex, rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Reads features of the tag whose regions lie in these rows."""
    return lambda some: index.features(rows[some])


def read_scored(path: Path, fewest: int | None = None) -> Scored:
    """The regions of a finished `detect`, with the distances of `cluster`."""
    index = RegionIndex(WorkFolder(path).shards())
    fewest = fewest or CleanOptions().min_regions
    truth, places = _truths(index)
    n = len(truth)
    scored = Scored(truth, np.full(n, np.nan), *np.ones((5, n)))
    for label, count in index.counts().items():
        if count < fewest:
            continue
        rows = index.rows(label)
        at = places[rows]
        scored.distance[at] = cluster_distances(count, _rows_of(index, rows))
        scored.distance_rank[at] = ranks(-scored.distance[at])
        scored.score[at] = index.regions(rows)["score"]
        scored.score_rank[at] = ranks(scored.score[at])
        scored.score_share[at] = scored.score[at] / max(scored.score[at].mean(), 1e-9)
        scored.deviations[at] = deviations(index.regions(rows)["score"])
    return scored


def _truths(index: RegionIndex) -> tuple[np.ndarray, np.ndarray]:
    """The truth of every tag of the cleaned kinds, and each region's place in it."""
    truth: list[int] = []
    places = np.zeros(int(index.offsets[-1]), np.int64)
    for shard, offset in zip(index.shards, index.offsets[:-1], strict=True):
        regions = {(int(r["input"]), int(r["place"])): i for i, r in enumerate(shard.regions)}
        for position, item in enumerate(shard.inputs()):
            assert isinstance(item, Record)
            for place, tag in enumerate(item.fields["tags"]):
                if item.fields["kinds"][tag] not in CLEANED_KINDS:
                    continue
                row = regions.get((position, place))
                if row is not None:
                    places[offset + row] = len(truth)
                truth.append(truth_of(tag, item.fields["truth"]))
    return np.array(truth), places


def truth_of(tag: str, truth: dict[str, Any]) -> int:
    if tag in truth["planted"]:
        return PLANTED
    return RIGHT if tag in truth["right"] else ONCE


def ranks(values: np.ndarray) -> np.ndarray:
    """The share removed when a value is just removed: lowest first, among equals the last."""
    order = np.lexsort((-np.arange(len(values)), values))
    out = np.empty(len(values))
    out[order] = np.arange(1, len(values) + 1) / len(values)
    return out


def deviations(score: np.ndarray) -> np.ndarray:
    """By how many standard deviations each logit is above the mean of the tag's regions.

    The variance is enlarged a little, so that regions that are all alike stay.
    """
    likely = np.clip(score.astype(np.float64), LEAST_SCORE, 1 - LEAST_SCORE)
    logits = np.log(likely) - np.log1p(-likely)
    above: np.ndarray = (logits - logits.mean()) / np.sqrt(logits.var() + ADDED_VARIANCE)
    return above


def rules(kind: str, scores: np.ndarray) -> Iterator[Rule]:
    """The rules to try: outliers alone, the prediction alone, or both."""
    shares = [0.0, 0.01, 0.02, 0.03, 0.04, *np.arange(0.05, 0.61, 0.025)]
    numbers = np.unique(np.quantile(scores, np.linspace(0, 0.6, 61)))
    outliers = [0.0] if kind == "not-predicted" else shares
    if kind == "outlier":
        yield from (Rule(share) for share in shares)
        return
    tried: dict[str, Sequence[float] | np.ndarray] = {
        "": numbers,
        "lowest": shares,
        "mean": np.arange(0.1, 1.0, 0.0125),
        "deviations": np.arange(0.2, 2.5, 0.05),
    }
    for share in outliers:
        for form, values in tried.items():
            yield from (Rule(share, form, float(value)) for value in values)


def count_removed(works: Sequence[Path], fewest: int | None = None) -> dict[str, Any]:
    """The three rules chosen on one fold and measured on the other, both ways."""
    return measured(
        [read_scored(path, fewest) for path in works], ("outlier", "not-predicted", "both")
    )


def measured(folds: Sequence[Scored], kinds: Sequence[str]) -> dict[str, Any]:
    """What each kind of rule removes of two folds, and how well it ranks."""
    out: dict[str, Any] = {"auc": _auc(folds)}
    for kind in kinds:
        ways = [_chosen(kind, a, b) for a, b in (folds, folds[::-1])]
        means = {name: round(np.mean([way[name] for way in ways]), 4) for name in SHARES}
        out[kind] = {"ways": ways, **means}
    return out


def count_cleaned(paths: Sequence[Path]) -> dict[str, Any]:
    """What a real run of `ramctl clean` removed, from its output."""
    gone: dict[int, list[bool]] = {PLANTED: [], RIGHT: []}
    for path in paths:
        for row in map(json.loads, path.open(encoding="utf-8")):
            removed = {entry["tag"] for entry in row.get("removed", [])}
            kept = {tag for tag, kind in row["kinds"].items() if kind in CLEANED_KINDS}
            for tag in kept | removed:
                truth = truth_of(tag, row["truth"])
                if truth in gone:
                    gone[truth].append(tag in removed)
    return {
        "planted": round(float(np.mean(gone[PLANTED])), 4),
        "right": round(float(np.mean(gone[RIGHT])), 4),
    }


def _chosen(kind: str, chosen_on: Scored, measured_on: Scored) -> dict[str, Any]:
    best, best_gone = Rule(), 0.0
    for rule in rules(kind, chosen_on.score):
        gone, lost = chosen_on.removed(rule)
        if lost <= MOST_LOST and gone > best_gone:
            best, best_gone = rule, gone
    gone, lost = measured_on.removed(best)
    return {"rule": str(best), "planted": round(gone, 4), "right": round(lost, 4)}


def _auc(folds: Sequence[Scored]) -> dict[str, Any]:
    """How well planted tags rank before right ones."""
    from sklearn.metrics import roc_auc_score

    out = {}
    for name, sign in SIGNS.items():
        values = []
        for fold in folds:
            seen = (fold.truth != ONCE) & ~np.isnan(fold.distance)
            wrong = fold.truth[seen] == PLANTED
            values.append(roc_auc_score(wrong, sign * getattr(fold, name)[seen]))
        out[name] = round(float(np.mean(values)), 4)
    return out
