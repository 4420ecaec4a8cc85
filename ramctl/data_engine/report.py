"""The page on which a person decides whether to trust a cleaning: removed and kept regions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.cluster import REASONS, Decision
from ramctl.data_engine.region_store import RegionIndex
from ramctl.errors import RecordProblem
from ramctl.labels import LabelSystem
from ramctl.pages.render import Thumbnail, render, thumbnail
from ramctl.records.record import JsonObject, Record

LABELS_SHOWN = 60
REGIONS_SHOWN = 12  # removed ones of a label, and as many kept ones
THUMBNAIL_PX = 132  # the longer side; style.css knows it as a figure's width
QUALITY = 70


def cleaning_page(
    index: RegionIndex, decisions: Iterable[Decision], labels: LabelSystem, seed: int
) -> str:
    """A self-contained HTML page: counts over all decisions, and the labels that lost most.

    `seed` draws the kept regions. The photos are read again; one that no longer can be is left out.
    """
    every = sorted(decisions, key=lambda d: (-np.count_nonzero(d.reason), d.label))
    random = np.random.default_rng(seed)
    return render(
        "cleaning.html",
        n_labels=len(every),
        n_regions=sum(len(decision.row) for decision in every),
        n_removed=sum(int(np.count_nonzero(decision.reason)) for decision in every),
        reasons=list(REASONS.values()),
        labels=[_label(d, index, labels, random) for d in every[:LABELS_SHOWN]],
        thumbnail=_thumbnail,
    )


def _label(
    decision: Decision, index: RegionIndex, labels: LabelSystem, random: np.random.Generator
) -> JsonObject:
    """What the page says of one label: how many regions it has, and those to be shown."""
    removed, kept = np.flatnonzero(decision.reason), np.flatnonzero(decision.reason == 0)
    n_removed = len(removed)
    removed = removed[np.argsort(-decision.distance[removed], kind="stable")]
    if n_removed > REGIONS_SHOWN:
        # The farthest and the nearest of those removed: the border is where trust is decided.
        half = REGIONS_SHOWN // 2
        removed = np.concatenate([removed[:half], removed[-half:]])
    # A label that lost nothing is only counted.
    kept = np.sort(random.permutation(kept)[:REGIONS_SHOWN]) if n_removed else kept[:0]
    counts = {why: int(np.count_nonzero(decision.reason == bits)) for bits, why in REASONS.items()}
    return {
        "id": decision.label,
        "label": labels[decision.label],
        "n_regions": len(decision.row),
        "n_removed": n_removed,
        "reasons": counts,
        "cluster_sizes": np.bincount(decision.cluster).tolist(),
        "removed": _regions(decision, removed, index),
        "kept": _regions(decision, kept, index),
    }


def _regions(decision: Decision, places: NDArray[np.intp], index: RegionIndex) -> list[JsonObject]:
    rows = decision.row[places]
    found = index.regions(rows)
    keys = list(zip(index.shards_of(rows).tolist(), found["input"].tolist(), strict=True))
    records = _records(index, keys)
    return [
        {
            "record": records[key],
            "box": region["box"].tolist(),
            "score": float(region["score"]),
            "distance": float(decision.distance[place]),
            "reason": REASONS.get(int(decision.reason[place]), ""),
        }
        for key, region, place in zip(keys, found, places, strict=True)
    ]


def _records(index: RegionIndex, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Record]:
    """The records at some places (shard, input in it); a shard's inputs are read once."""
    wanted: dict[int, set[int]] = defaultdict(set)
    for shard, place in keys:
        wanted[shard].add(place)
    return {
        (shard, place): item
        for shard, places in wanted.items()
        for place, item in enumerate(index.shards[shard].inputs())
        if place in places and isinstance(item, Record)
    }


def _thumbnail(record: Record) -> Thumbnail | None:
    try:
        return thumbnail(record, THUMBNAIL_PX, QUALITY)
    except RecordProblem:
        return None
