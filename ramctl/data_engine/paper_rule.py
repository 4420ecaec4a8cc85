"""The rule `paper`: a tag goes where its region is an outlier or the model does not predict it.

The regions of a tag are clustered by K-Means++ on their features; the farthest from the centres of
their clusters are outliers. Source: RAM sec. 3.3.
R regions, of all tags or of one, F numbers a feature, K clusters, L labels.
"""

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.region_store import (
    NOT_PREDICTED,
    OUTLIER,
    Decisions,
    Features,
    RegionStore,
    Rows,
)
from ramctl.inference.log_odds import Floats, sigmoid

OUTLIERS = 0.1  # the fraction that goes; RAM sec. 3.3
# Centres are fitted to a sample of this size, so that memory does not grow with the tag.
MAX_SAMPLE = 20_000
CHUNK = 8192


def unlike_tags(store: RegionStore, thresholds: Floats, outliers: float) -> Decisions:
    """The decision on each region.

    The fraction `outliers` of each tag's regions goes, and regions whose probability is not above
    their label's threshold (L,).
    """
    regions = store.regions
    probability = sigmoid(regions["log_odds"].astype(np.float64))
    is_predicted = probability > thresholds[regions["label"]]
    reasons = np.where(is_predicted, "", NOT_PREDICTED)
    distance = np.full(len(regions), np.nan, np.float32)
    for rows in store.rows_by_label() if outliers else ():
        distance[rows] = cluster_distances(store.features, rows)
        reasons[rows[farthest(distance[rows], outliers)]] = OUTLIER
    return Decisions(reasons, distance)


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
    """At most `clusters` centres (K, F); fewer if features are equal."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if len(rows) > MAX_SAMPLE:
        chosen = np.random.default_rng(seed).choice(len(rows), MAX_SAMPLE, replace=False)
        rows = rows[np.sort(chosen)]
    sample = features[rows].astype(np.float32)
    n_distinct = len(np.unique(sample, axis=0))
    means = KMeans(min(clusters, n_distinct), n_init=1, random_state=seed)  # k-means++
    # Sums over several threads depend on their number; one thread gives the same centres anywhere.
    with threadpool_limits(1):
        means.fit(sample)
    return np.asarray(means.cluster_centers_, np.float32)
