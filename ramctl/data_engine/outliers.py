"""Outliers among the regions of a tag (RAM sec. 3.3): far from the centres of its clusters.

The regions of a tag are clustered by K-Means++ on their features. R regions of the tag, D numbers
a feature, K clusters.
"""

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.region_store import Features, Rows

# Centres are fitted to a sample of this size, so that memory does not grow with the tag.
MAX_SAMPLE = 20_000
CHUNK = 8192


def cluster_distances(features: Features, rows: Rows, seed: int = 0) -> NDArray[np.float32]:
    """The distance (R,) of each of a tag's regions to the centre of its cluster.

    `rows` (R,) are the tag's among the `features` of all regions, of unit length, which are read
    piece by piece. There is a cluster per 50 regions, at most 8.
    """
    centres = _centres(features, rows, max(1, min(8, len(rows) // 50)), seed)
    distance = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), CHUNK):
        piece = features[rows[start : start + CHUNK]].astype(np.float32)
        # Squared differences in full: the expanded form loses the small distances to rounding.
        gaps = np.linalg.norm(piece[:, None] - centres[None], axis=2)  # (rows, K)
        distance[start : start + CHUNK] = gaps.min(1)
    return distance


def farthest(distance: NDArray[np.float32], fraction: float) -> NDArray[np.bool_]:
    """Marks (R,) the farthest `fraction`, rounded down; among equals the later ones first."""
    order = np.lexsort((-np.arange(len(distance)), -distance))
    marked = np.zeros(len(order), bool)
    # The added billionth keeps 0.1 * 30 from becoming 2.
    marked[order[: int(fraction * len(order) + 1e-9)]] = True
    return marked


def _centres(features: Features, rows: Rows, clusters: int, seed: int) -> NDArray[np.float32]:
    """At most `clusters` centres (K, D); fewer if features are equal."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if len(rows) > MAX_SAMPLE:
        chosen = np.random.default_rng(seed).choice(len(rows), MAX_SAMPLE, replace=False)
        rows = rows[np.sort(chosen)]
    sample = features[rows].astype(np.float32)
    n_distinct = len(np.unique(sample, axis=0))
    means = KMeans(min(clusters, n_distinct), init="k-means++", n_init=1, random_state=seed)
    # Sums over several threads depend on their number; one thread gives the same centres anywhere.
    with threadpool_limits(1):
        means.fit(sample)
    return np.asarray(means.cluster_centers_, np.float32)
