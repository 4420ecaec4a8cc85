"""The stage `cluster`: for every tag, which of its regions lose it and why.

Holds one number a region and the features of one tag's sample; features are read by memory map.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.data_engine import thresholds
from ramctl.data_engine.cluster import (
    NOT_PREDICTED,
    OUTLIER,
    ClusterSettings,
    cluster_regions,
    farthest,
    lowest,
)
from ramctl.data_engine.region_store import REGION, Shard, WorkFolder, source_bits
from ramctl.errors import RunProblem
from ramctl.records.files import replacing, write_atomic

LEAST_SCORE, ADDED_VARIANCE = 1e-6, 0.05
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes a region lose its tag."""

    clustering: ClusterSettings
    thresholds: tuple[float, ...] = ()  # by label id; not predicted: the score is not above it
    of_own: tuple[str, float] | None = None  # instead: a form that looks at a tag's own regions
    min_regions: int = 5  # a tag with fewer is left alone
    top: int | None = None  # only the tags with the most regions
    protect: tuple[str, ...] = ("human",)  # sources whose tags stay

    @property
    def key(self) -> str:
        """A name for decisions by these rules."""
        parts = [
            self.clustering.outliers, self.clustering.clusters, self.clustering.seed,
            self.thresholds if self.of_own is None else self.of_own,
            self.min_regions, self.top, self.protect,
        ]  # fmt: skip
        return hashlib.blake2b(orjson.dumps(parts), digest_size=8).hexdigest()


@dataclass(frozen=True)
class RegionIndex:
    """All regions of a work folder by label; a row counts over the shards in order."""

    shards: Sequence[Shard]

    @cached_property
    def offsets(self) -> Rows:
        """The first row of each shard, and the number of rows."""
        sizes = [shard.facts["counts"].get("regions", 0) for shard in self.shards]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    @cached_property
    def _by_label(self) -> tuple[NDArray[np.uint32], Rows]:
        labels = [np.asarray(shard.regions["label"]) for shard in self.shards]
        joined = np.concatenate([np.zeros(0, np.uint32), *labels])
        order = np.argsort(joined, kind="stable")
        return joined[order], order

    def counts(self) -> dict[int, int]:
        """The number of regions of each label that has any."""
        ids, counts = np.unique(self._by_label[0], return_counts=True)
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))

    def rows(self, label: int) -> Rows:
        """The rows of a label, ascending."""
        ordered, order = self._by_label
        start, end = np.searchsorted(ordered, [label, label + 1])
        return order[start:end]

    def regions(self, rows: Rows) -> NDArray[Any]:
        """The regions at some rows, `REGION`."""
        out = np.zeros(len(rows), REGION)
        for shard, place, local in self._located(rows):
            out[place] = shard.regions[local]
        return out

    def features(self, rows: Rows) -> NDArray[np.float32]:
        """The features at some rows, (rows, F)."""
        pieces = [
            (place, np.asarray(shard.features[local], np.float32))
            for shard, place, local in self._located(rows)
        ]
        out = np.empty((len(rows), pieces[0][1].shape[1] if pieces else 0), np.float32)
        for place, piece in pieces:
            out[place] = piece
        return out

    def locate(self, row: int) -> tuple[int, int]:
        """Shard and row in it."""
        shard = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return shard, row - int(self.offsets[shard])

    def _located(self, rows: Rows) -> Iterator[tuple[Shard, Rows, Rows]]:
        """By shard: the places in `rows` and the rows in the shard."""
        of = np.searchsorted(self.offsets, rows, side="right") - 1
        for index in np.unique(of).tolist():
            place = np.flatnonzero(of == index)
            yield self.shards[index], place, rows[place] - self.offsets[index]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for one label; arrays are parallel, `reason` 0 keeps the tag."""

    label: int
    row: Rows
    cluster: NDArray[np.uint8]
    distance: NDArray[np.float32]
    reason: NDArray[np.uint8]

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with replacing(path) as stream:
            np.savez(
                stream, label=np.int64(self.label), row=self.row, cluster=self.cluster,
                distance=self.distance, reason=self.reason,
            )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> "Decision":
        """The decision in a file."""
        try:
            with np.load(path) as arrays:
                return cls(int(arrays["label"]), *(arrays[n] for n in cls.__slots__[1:]))
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise RunProblem(f"{path}: {error}") from error


def decide_label(label: int, index: RegionIndex, rules: Rules) -> Decision:
    """Cluster a label's regions and apply both rules."""
    rows = index.rows(label)
    regions = index.regions(rows)
    clusters = cluster_regions(
        len(rows), lambda places: index.features(rows[places]), rules.clustering
    )
    outlying = farthest(clusters.distance, rules.clustering.outliers)
    unseen = _not_predicted(label, regions["score"], rules)
    reason = (outlying * OUTLIER + unseen * NOT_PREDICTED).astype(np.uint8)
    reason[(regions["sources"] & source_bits(rules.protect)) > 0] = 0
    return Decision(label, rows, clusters.cluster, clusters.distance, reason)


def _not_predicted(label: int, score: NDArray[np.float32], rules: Rules) -> NDArray[np.bool_]:
    """Marks the regions of a label on which the baseline does not see it."""
    if rules.of_own is None:
        return ~(score > rules.thresholds[label])
    form, number = rules.of_own
    match form:
        case thresholds.LOWEST:
            return lowest(score, number)
        case thresholds.MEAN:
            marked: NDArray[np.bool_] = ~(score > number * score.mean(dtype=np.float64))
        case _:
            marked = ~(deviations(score) > -number)
    return marked


def deviations(score: NDArray[np.float32]) -> NDArray[np.float64]:
    """By how many standard deviations each logit is above the mean of the tag's regions.

    Variances are a little larger than they are, so that regions that are all alike stay.
    """
    likely = np.clip(score.astype(np.float64), LEAST_SCORE, 1 - LEAST_SCORE)
    logits = np.log(likely) - np.log1p(-likely)
    above: NDArray[np.float64] = (logits - logits.mean()) / np.sqrt(logits.var() + ADDED_VARIANCE)
    return above


@dataclass(frozen=True)
class Decisions:
    """The decisions of a work folder by one set of rules."""

    folder: Path
    labels: tuple[int, ...]

    @classmethod
    def current(cls, work: WorkFolder) -> "Decisions":
        """Those of the last `cluster` stage; RunProblem when there are none or some are missing."""
        path = work.path / "cluster.json"
        if not path.exists():
            raise RunProblem(f"{work.path}: nothing decided yet; run --stage cluster first")
        facts = orjson.loads(path.read_bytes())
        found = cls(work.path / "clusters" / facts["rules"], tuple(facts["labels"]))
        missing = [label for label in found.labels if not found.path(label).exists()]
        if missing:
            raise RunProblem(
                f"{found.folder}: decisions on {len(missing)} of {len(found.labels)} tags are "
                "missing; run --stage cluster for them"
            )
        return found

    def path(self, label: int) -> Path:
        """The file of one label's decision."""
        return self.folder / f"{label:05d}.npz"

    def __iter__(self) -> Iterator[Decision]:
        for label in self.labels:
            yield Decision.load(self.path(label))


def chosen_labels(index: RegionIndex, rules: Rules) -> list[int]:
    """The labels that have regions enough, and are among the most frequent where asked for."""
    counts = index.counts()
    frequent = sorted(counts, key=lambda label: (-counts[label], label))[: rules.top]
    return sorted(label for label in frequent if counts[label] >= rules.min_regions)


def decide(
    work: WorkFolder,
    index: RegionIndex,
    rules: Rules,
    *,
    part: tuple[int, int] = (0, 1),
    tick: Callable[[], object] = lambda: None,
) -> int:
    """Decide on every label that is not decided yet; returns how many labels there are.

    `part` (i, n) takes every n-th label; `tick` is called after each and may raise to stop.
    """
    labels = chosen_labels(index, rules)
    decisions = Decisions(work.path / "clusters" / rules.key, tuple(labels))
    decisions.folder.mkdir(parents=True, exist_ok=True)
    facts = {"rules": rules.key, "labels": labels}
    write_atomic(work.path / "cluster.json", orjson.dumps(facts) + b"\n")
    for label in labels[part[0] :: part[1]]:
        path = decisions.path(label)
        if not path.exists():
            decide_label(label, index, rules).save(path)
        tick()
    return len(labels)
