"""The two cleaning rules of the data engine, for the regions of one tag.

Source: RAM sec. 3.3: the regions of a category are clustered (K-Means++), the tags of the outlying
10 % are dropped; tags that the baseline does not predict on their region are dropped too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OUTLIER, NOT_PREDICTED = 1, 2
REASONS = {
    OUTLIER: "outlier",
    NOT_PREDICTED: "not-predicted",
    OUTLIER | NOT_PREDICTED: "outlier+not-predicted",
}
# Centres are found on a sample of this size, so that memory does not grow with the tag.
FIT_REGIONS = 20_000
CHUNK = 8192

ReadRows = Callable[[NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """How regions of a tag are clustered and which of them are outlying."""

    outliers: float = 0.10  # the share that is dropped
    clusters: int | None = None  # None: by the number of regions
    seed: int = 0

    def n_clusters(self, n_regions: int) -> int:
        """Clusters for a tag with `n_regions` regions: one for every 50, 8 at most."""
        wanted = self.clusters or max(1, min(8, n_regions // 50))
        return min(wanted, n_regions)


@dataclass(frozen=True, slots=True)
class Clusters:
    """The clusters of one tag; arrays are parallel to its regions."""

    cluster: NDArray[np.uint8]
    distance: NDArray[np.float32]  # to the centre of the own cluster
    sizes: list[int]


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
    sizes = np.bincount(cluster, minlength=len(centres)).tolist()
    return Clusters(cluster, distance, sizes)


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
    """Marks the farthest `share` of regions, rounded down; of equal ones the later go first."""
    return _first(np.lexsort((-np.arange(len(distance)), -distance)), share)


def lowest(score: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """Marks the `share` of regions with the lowest scores, rounded down; of equal ones the last."""
    return _first(np.lexsort((-np.arange(len(score)), score)), share)


def _first(order: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    marked = np.zeros(len(order), bool)
    # The added billionth keeps 0.1 * 30 from becoming 2.
    marked[order[: int(share * len(order) + 1e-9)]] = True
    return marked
