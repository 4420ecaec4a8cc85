"""The stage `cluster`: for every tag, which of its regions lose it and why.

By default those whose tag is estimated to be wrong (evidence.py), or by the paper's rules (RAM sec.
3.3): the regions of a category are clustered (K-Means++) and the tags of the outlying 10 % are
dropped; tags that the baseline does not predict on their region are too.

Holds a few numbers per region and the features of one tag's sample; features are memory-mapped.
"""

from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.data_engine.evidence import NOT_PREDICTED, OUTLIER, Estimate, independent
from ramctl.data_engine.region_store import Array, RegionIndex, Rows, WorkFolder, source_bits
from ramctl.errors import RunProblem
from ramctl.records.files import replacing, write_atomic
from ramctl.records.jsonl import content_stamp
from ramctl.records.record import HUMAN, PARSED

# Centres are fitted to a sample of this size, so that memory does not grow with the tag.
FIT_REGIONS = 20_000
CHUNK = 8192
# Kinds of evidence that must speak against a tag that a caption names: two can hardly both err.
AGAINST_PARSED = 2

# What was decided on a region. `reason` has a bit for each kind of evidence (evidence.py), 0 keeps
# the tag; `probability` is that of the tag being right, NaN where it was not estimated.
DECISION = np.dtype([("row", "<i8"), ("reason", "u1"), ("distance", "<f4"), ("probability", "<f4")])
ReadRows = Callable[[Rows], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes a region lose its tag: the estimate, or the paper's two rules."""

    min_probability: float | None = None  # a less probable tag goes; None: the paper's rules
    outliers: float = 0.0  # the fraction of a tag's regions that is dropped
    threshold: float | None = None  # the score that a region must exceed; None: any will do
    seed: int = 0
    min_regions: int = 1  # the most probable photos that a tag keeps; one with fewer is left alone
    evidence: tuple[str, ...] = ()  # hashes of the files of scores

    @property
    def key(self) -> str:
        """A name for decisions by these rules; part of the work folder's format."""
        return content_stamp(orjson.dumps(astuple(self)))


@dataclass(frozen=True)
class Decisions:
    """The decisions of a work folder by one set of rules, a file of `DECISION` for each label."""

    folder: Path
    labels: tuple[int, ...]

    @classmethod
    def current(cls, work: WorkFolder) -> "Decisions":
        """Those of the last `cluster` stage; RunProblem when there are none or some are missing."""
        facts = work.facts("cluster.json", "nothing decided yet; run --stage cluster first")
        decisions = cls(work.path / "clusters" / facts["rules"], tuple(facts["labels"]))
        if missing := sum(not decisions.path(label).exists() for label in decisions.labels):
            problem = f"decisions on {missing} tags are missing; run --stage cluster again"
            raise RunProblem(f"{decisions.folder}: {problem}")
        return decisions

    def path(self, label: int) -> Path:
        """The file of one label's decision."""
        return self.folder / f"{label:05d}.npy"

    def __iter__(self) -> Iterator[Array]:
        for path in map(self.path, self.labels):
            try:
                yield np.load(path)
            except (OSError, ValueError, EOFError) as error:
                raise RunProblem(f"{path}: {error}") from error


def decide(
    work: WorkFolder,
    index: RegionIndex,
    rules: Rules,
    estimate: Callable[[], Estimate],
    tick: Callable[[], object] = lambda: None,
) -> None:
    """Decide on every label that has not been decided on yet.

    `tick` is called after each and may raise to stop. `estimate` is called for all regions when the
    first label is to be decided on, unless the rules are the paper's.
    """
    labels = chosen_labels(index, rules)
    decisions = Decisions(work.path / "clusters" / rules.key, tuple(labels))
    decisions.folder.mkdir(parents=True, exist_ok=True)
    facts = {"rules": rules.key, "labels": labels}
    write_atomic(work.path / "cluster.json", orjson.dumps(facts) + b"\n")
    estimated: Estimate | None = None
    for label in labels:
        path = decisions.path(label)
        if not path.exists():
            if rules.min_probability is not None and estimated is None:
                estimated = estimate()
            decided = decide_label(label, index, rules, estimated)
            with replacing(path) as stream:
                np.save(stream, decided)
        tick()


def chosen_labels(index: RegionIndex, rules: Rules) -> list[int]:
    """The labels with enough regions, in order."""
    return sorted(label for label, n in index.counts().items() if n >= rules.min_regions)


def decide_label(
    label: int, index: RegionIndex, rules: Rules, estimate: Estimate | None = None
) -> Array:
    """The `DECISION` on each of a label's regions; without an estimate by the paper's rules."""
    rows = index.rows(label)
    regions = index.regions(rows)
    decided = np.zeros(len(rows), DECISION)
    decided["row"] = rows
    # Of an estimated tag the distance decides nothing, but `removed` tells it all the same.
    decided["distance"] = cluster_distances(
        len(rows), lambda places: index.features(rows[places]), rules.seed
    )
    if estimate is None or rules.min_probability is None:
        decided["probability"] = np.nan
        decided["reason"] = np.where(farthest(decided["distance"], rules.outliers), OUTLIER, 0)
        if rules.threshold is not None:
            is_seen = regions["score"] > np.float32(rules.threshold)
            decided["reason"] |= np.where(is_seen, 0, NOT_PREDICTED).astype(np.uint8)
    else:
        decided["probability"] = probability = estimate.probability[rows]
        against = estimate.against[rows]
        is_parsed = (regions["sources"] & source_bits((PARSED,))) > 0
        stays = probability >= rules.min_probability
        stays |= is_parsed & (independent(against) < AGAINST_PARSED)
        # Without a few photos left the tag could not be learnt at all.
        stays[np.argsort(-probability, kind="stable")[: rules.min_regions]] = True
        decided["reason"] = np.where(stays, 0, against)
    decided["reason"][(regions["sources"] & source_bits((HUMAN,))) > 0] = 0
    return decided


def cluster_distances(n_regions: int, read: ReadRows, seed: int = 0) -> NDArray[np.float32]:
    """The distance of each of a tag's regions to the centre of its cluster.

    `read(rows)` gives the unit-length features of some rows, (rows, D); they are never held all
    at once. There is a cluster per 50 regions, at most 8.
    """
    centres = _centres(n_regions, read, max(1, min(8, n_regions // 50)), seed)
    distance = np.empty(n_regions, np.float32)
    for start in range(0, n_regions, CHUNK):
        rows = np.arange(start, min(start + CHUNK, n_regions))
        # Squared differences in full: the expanded form loses the small distances to rounding.
        gaps = np.linalg.norm(read(rows)[:, None] - centres[None], axis=2)  # (rows, K)
        distance[rows] = gaps.min(1)
    return distance


def _centres(n_regions: int, read: ReadRows, clusters: int, seed: int) -> NDArray[np.float32]:
    """At most so many centres (K, D), fewer where features are equal."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    rows = np.arange(n_regions)
    if n_regions > FIT_REGIONS:
        rows = np.sort(np.random.default_rng(seed).choice(n_regions, FIT_REGIONS, replace=False))
    sample = read(rows)
    n_distinct = len(np.unique(sample, axis=0))
    means = KMeans(min(clusters, n_distinct), init="k-means++", n_init=1, random_state=seed)
    # Sums over several threads depend on their number; one thread gives the same centres anywhere.
    with threadpool_limits(1):
        means.fit(sample)
    return np.asarray(means.cluster_centers_, np.float32)


def farthest(distance: NDArray[np.float32], fraction: float) -> NDArray[np.bool_]:
    """Marks the farthest `fraction` of regions, rounded down; among equals the later ones first."""
    order = np.lexsort((-np.arange(len(distance)), -distance))
    marked = np.zeros(len(order), bool)
    # The added billionth keeps 0.1 * 30 from becoming 2.
    marked[order[: int(fraction * len(order) + 1e-9)]] = True
    return marked
