"""The stage `cluster`: for every tag, which of its regions lose it and why.

By default those whose tag is estimated to be wrong (chances.py). Source of the rules that can be
asked for instead: RAM sec. 3.3: the regions of a category are clustered (K-Means++) and the tags of
the outlying 10 % are dropped; tags that the baseline does not predict on their region are too.

Holds one number per region and the features of one tag's sample; features are memory-mapped.
"""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.data_engine.chances import NOT_PREDICTED, OUTLIER, Chances, independent
from ramctl.data_engine.region_store import RegionIndex, Rows, WorkFolder, source_bits
from ramctl.errors import RunProblem
from ramctl.records.files import replacing, write_atomic
from ramctl.records.jsonl import content_stamp

# Centres are fitted to a sample of this size, so that memory does not grow with the tag.
FIT_REGIONS = 20_000
CHUNK = 8192
LEAST_SCORE, ADDED_VARIANCE = 1e-6, 0.05
PROTECT = ("human", "parsed:2")

ReadRows = Callable[[Rows], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """How the regions of a tag are clustered and which of them are outliers."""

    outliers: float | None = None  # the share that is dropped; None: none
    clusters: int | None = None  # None: by the number of regions
    seed: int = 0

    def n_clusters(self, n_regions: int) -> int:
        """Clusters for a tag with `n_regions` regions: one per 50, at most 8."""
        wanted = self.clusters or max(1, min(8, n_regions // 50))
        return min(wanted, n_regions)


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes a region lose its tag."""

    clustering: ClusterSettings
    thresholds: tuple[float, ...] = ()  # by label id; not predicted: the score is not above it
    deviations: float | None = None  # instead: so far below the mean of the tag's own regions
    min_regions: int = 5  # the most probable photos that a tag keeps; one with fewer is left alone
    top: int | None = None  # only the tags with the most regions
    # Sources whose tags stay; SOURCE:N: unless N independent kinds of evidence are against them.
    protect: tuple[str, ...] = PROTECT
    least_chance: float | None = None  # a tag that is less likely right goes; None: not estimated
    evidence: tuple[str, ...] = ()  # hashes of the files of scores

    @property
    def key(self) -> str:
        """A name for decisions by these rules; part of the work folder's format."""
        parts = [
            self.clustering.outliers, self.clustering.clusters, self.clustering.seed,
            self.thresholds, self.deviations,
            self.min_regions, self.top, self.protect, self.least_chance, self.evidence,
        ]  # fmt: skip
        return content_stamp(orjson.dumps(parts))


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for one label; arrays are parallel, `reason` 0 keeps the tag.

    A reason has a bit for each kind of evidence (chances.py).
    """

    label: int
    row: Rows
    cluster: NDArray[np.uint8]
    distance: NDArray[np.float32]
    reason: NDArray[np.uint8]
    chance: NDArray[np.float32]  # that the tag is right; NaN where it was not estimated

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with replacing(path) as stream:
            np.savez(stream, **{name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def load(cls, path: Path) -> "Decision":
        """The decision in a file; RunProblem where it cannot be read."""
        try:
            with np.load(path) as arrays:
                return cls(int(arrays["label"]), *(arrays[n] for n in cls.__slots__[1:]))
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise RunProblem(f"{path}: {error}") from error


@dataclass(frozen=True)
class Decisions:
    """The decisions of a work folder by one set of rules."""

    folder: Path
    labels: tuple[int, ...]

    @classmethod
    def current(cls, work: WorkFolder) -> "Decisions":
        """Those of the last `cluster` stage; RunProblem when there are none or some are missing."""
        facts = work.facts("cluster.json", "nothing decided yet; run --stage cluster first")
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


def decide(
    work: WorkFolder,
    index: RegionIndex,
    rules: Rules,
    *,
    part: tuple[int, int] = (0, 1),
    tick: Callable[[], object] = lambda: None,
    chances: Callable[[], Chances] | None = None,
) -> None:
    """Decide on every label that has not been decided on yet.

    `part` (i, n) takes every n-th label; `tick` is called after each and may raise to stop.
    `chances` estimates those of all regions, when the first label is to be decided on.
    """
    labels = chosen_labels(index, rules)
    decisions = Decisions(work.path / "clusters" / rules.key, tuple(labels))
    decisions.folder.mkdir(parents=True, exist_ok=True)
    facts = {"rules": rules.key, "labels": labels}
    write_atomic(work.path / "cluster.json", orjson.dumps(facts) + b"\n")
    estimated: Chances | None = None
    for label in labels[part[0] :: part[1]]:
        path = decisions.path(label)
        if not path.exists():
            if chances is not None and estimated is None:
                estimated = chances()
            decide_label(label, index, rules, estimated).save(path)
        tick()


def chosen_labels(index: RegionIndex, rules: Rules) -> list[int]:
    """The labels with enough regions; with `top` only the most frequent of them."""
    counts = index.counts()
    frequent = sorted(counts, key=lambda label: (-counts[label], label))[: rules.top]
    return sorted(label for label in frequent if counts[label] >= rules.min_regions)


def decide_label(
    label: int, index: RegionIndex, rules: Rules, chances: Chances | None = None
) -> Decision:
    """Cluster a label's regions and apply the rules; `chances` are those of all regions."""
    rows = index.rows(label)
    regions = index.regions(rows)
    cluster, distance = cluster_regions(
        len(rows), lambda places: index.features(rows[places]), rules.clustering
    )
    outlying = farthest(distance, rules.clustering.outliers or 0.0)
    unseen = _not_predicted(label, regions["score"], rules)
    reason = (outlying * OUTLIER + unseen * NOT_PREDICTED).astype(np.uint8)
    chance = np.full(len(rows), np.nan, np.float32)
    if chances is not None and rules.least_chance is not None:
        chance = chances.right[rows]
        reason |= np.where(chance < rules.least_chance, chances.against[rows], 0).astype(np.uint8)
    for protected in rules.protect:
        source, _, number = protected.partition(":")
        is_its = (regions["sources"] & source_bits((source,))) > 0
        reason[is_its & (independent(reason) < int(number or 9))] = 0
    if chances is not None:
        reason[most_probable(chance, rules.min_regions)] = 0
    return Decision(label, rows, cluster, distance, reason, chance)


class Clusters(NamedTuple):
    """The clusters of one tag; arrays are parallel to its regions."""

    cluster: NDArray[np.uint8]
    distance: NDArray[np.float32]  # to the centre of the region's cluster


def cluster_regions(n_regions: int, read: ReadRows, settings: ClusterSettings) -> Clusters:
    """The cluster of each of a tag's regions and its distance to the centre.

    `read(rows)` gives the unit-length features of some rows, (rows, D); they are never held all
    at once. The same seed gives the same clusters.
    """
    centres = _centres(n_regions, read, settings)
    cluster = np.empty(n_regions, np.uint8)
    distance = np.empty(n_regions, np.float32)
    for start in range(0, n_regions, CHUNK):
        rows = np.arange(start, min(start + CHUNK, n_regions))
        # Squared differences in full: the expanded form loses the small distances to rounding.
        gaps = np.linalg.norm(read(rows)[:, None] - centres[None], axis=2)  # (rows, K)
        cluster[rows] = gaps.argmin(1)
        distance[rows] = gaps.min(1)
    return Clusters(cluster, distance)


def _centres(n_regions: int, read: ReadRows, settings: ClusterSettings) -> NDArray[np.float32]:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    rows = np.arange(n_regions)
    if n_regions > FIT_REGIONS:
        random = np.random.default_rng(settings.seed)
        rows = np.sort(random.choice(n_regions, FIT_REGIONS, replace=False))
    sample = read(rows)
    n_distinct = len(np.unique(sample, axis=0))
    means = KMeans(
        min(settings.n_clusters(n_regions), n_distinct),
        init="k-means++",
        n_init=1,
        random_state=settings.seed,
    )
    # Sums over several threads depend on their number; one thread gives the same centres anywhere.
    with threadpool_limits(1):
        means.fit(sample)
    return np.asarray(means.cluster_centers_, np.float32)


def farthest(distance: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """Marks the farthest `share` of regions, rounded down; among equals the later ones first."""
    order = np.lexsort((-np.arange(len(distance)), -distance))
    marked = np.zeros(len(order), bool)
    # The added billionth keeps 0.1 * 30 from becoming 2.
    marked[order[: int(share * len(order) + 1e-9)]] = True
    return marked


def most_probable(score: NDArray[np.float32], number: int) -> NDArray[np.int64]:
    """The places of the `number` highest scores: what a tag keeps, to be learnt at all."""
    return np.argsort(-score, kind="stable")[:number]


def _not_predicted(label: int, score: NDArray[np.float32], rules: Rules) -> NDArray[np.bool_]:
    """Marks the regions of a label on which the baseline does not see it."""
    if rules.deviations is not None:
        return ~(deviations(score) > -rules.deviations)
    if not rules.thresholds:
        return np.zeros(len(score), bool)
    return ~(score > rules.thresholds[label])


def deviations(score: NDArray[np.float32]) -> NDArray[np.float64]:
    """By how many standard deviations each logit is above the mean of the tag's regions.

    The variance is enlarged a little, so that regions that are all alike stay.
    """
    likely = np.clip(score.astype(np.float64), LEAST_SCORE, 1 - LEAST_SCORE)
    logits = np.log(likely) - np.log1p(-likely)
    above: NDArray[np.float64] = (logits - logits.mean()) / np.sqrt(logits.var() + ADDED_VARIANCE)
    return above
