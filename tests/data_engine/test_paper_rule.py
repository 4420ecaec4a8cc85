"""The paper's rule: clusters of each tag's regions, the farthest of them, and thresholds."""

import numpy as np

from ramctl.data_engine.paper_rule import cluster_distances, farthest, unlike_tags
from ramctl.data_engine.region_store import REGION, RegionStore
from ramctl.records.record import Record


def blobs(n: int, seed: int = 0) -> np.ndarray:
    """Two tight groups and, in the last tenth, points that belong to neither."""
    random = np.random.default_rng(seed)
    centres = np.eye(8, dtype=np.float32)[[0, 1]]
    points = centres[np.arange(n) % 2] + 0.05 * random.standard_normal((n, 8))
    n_far = n // 10
    points[n - n_far :] = np.eye(8)[5] + 0.3 * random.standard_normal((n_far, 8))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float16)


def test_distances_are_to_the_nearest_centre_that_scikit_learn_finds():
    from sklearn.cluster import KMeans

    points, rows = blobs(300), np.arange(0, 300, 2)
    distance = cluster_distances(points, rows, seed=3)  # three clusters
    chosen = points[rows].astype(np.float32)
    means = KMeans(3, n_init=1, random_state=3).fit(chosen)
    np.testing.assert_allclose(distance, means.transform(chosen).min(1), atol=1e-5)


def test_fractions_are_rounded_down_and_ties_are_broken_by_order():
    distance = np.array([1, 3, 3, 2, 3, 0, 0, 0, 0, 0], np.float32)
    assert np.flatnonzero(farthest(distance, 0.29)).tolist() == [2, 4]
    assert not farthest(distance, 0.09).any()
    assert farthest(np.arange(30, dtype=np.float32), 0.1).sum() == 3
    assert np.flatnonzero(farthest(-distance, 0.2)).tolist() == [8, 9]


def test_outliers_are_those_of_each_label_and_only_a_higher_score_is_a_prediction():
    regions = np.zeros(8, REGION)
    regions["label"], regions["log_odds"] = [0] * 4 + [1] * 4, [1, 0, 1, -1] * 2
    features = np.array([[1, 0], [1, 0.01], [1, -0.01], [0, 1]] * 2, np.float16)
    store = RegionStore()
    store.add(Record({}), regions, features)
    found = unlike_tags(store, np.array([0.5, 0.1]), 0.25)
    low, out = "not-predicted", "outlier"
    assert found.reasons.tolist() == ["", low, "", out, "", "", "", out]
    assert np.isfinite(found.distance).all()
    found = unlike_tags(store, np.array([0.5, 0.1]), 0.0)
    assert found.reasons.tolist() == ["", low, "", low, "", "", "", ""]
    assert np.isnan(found.distance).all()  # no clusters where they decide nothing
