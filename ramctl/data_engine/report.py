"""What the page of a cleaning shows: the labels that lost most, with some of their regions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.cluster import REASONS, Decision
from ramctl.data_engine.region_store import RegionIndex
from ramctl.labels import LabelSystem
from ramctl.pages.cleaning import CleanedLabel, CleaningReport, Region
from ramctl.records.record import Record

LABELS_SHOWN = 60
REGIONS_SHOWN = 12  # removed ones of a label, and as many kept ones


def cleaning_report(
    index: RegionIndex, decisions: Iterable[Decision], labels: LabelSystem, seed: int
) -> CleaningReport:
    """Counts over all decisions, and the labels that lost most; `seed` draws the kept regions."""
    every = sorted(decisions, key=lambda d: (-np.count_nonzero(d.reason), d.label))
    random = np.random.default_rng(seed)
    return CleaningReport(
        n_labels=len(every),
        n_regions=sum(len(decision.row) for decision in every),
        n_removed=sum(int(np.count_nonzero(decision.reason)) for decision in every),
        reasons=list(REASONS.values()),
        labels=[_label(d, index, labels, random) for d in every[:LABELS_SHOWN]],
    )


def _label(
    decision: Decision, index: RegionIndex, labels: LabelSystem, random: np.random.Generator
) -> CleanedLabel:
    removed, kept = np.flatnonzero(decision.reason), np.flatnonzero(decision.reason == 0)
    removed = removed[np.argsort(-decision.distance[removed], kind="stable")]
    if len(removed) > REGIONS_SHOWN:
        # The farthest and the nearest of those removed: the border is where trust is decided.
        half = REGIONS_SHOWN // 2
        removed = np.concatenate([removed[:half], removed[-half:]])
    # A label that lost nothing is only counted.
    kept = np.sort(random.permutation(kept)[:REGIONS_SHOWN]) if len(removed) else kept[:0]
    label = labels[decision.label]
    return CleanedLabel(
        id=decision.label,
        tag=label.tag,
        kind=label.kind,
        n_regions=len(decision.row),
        reasons={
            name: int(np.count_nonzero(decision.reason == reason))
            for reason, name in REASONS.items()
        },
        cluster_sizes=np.bincount(decision.cluster).tolist(),
        removed=_regions(decision, removed, index),
        kept=_regions(decision, kept, index),
    )


def _regions(decision: Decision, places: NDArray[np.intp], index: RegionIndex) -> list[Region]:
    rows = decision.row[places]
    found = index.regions(rows)
    keys = [
        (index.locate(int(row))[0], int(region["input"]))
        for row, region in zip(rows, found, strict=True)
    ]
    records = _records(index, keys)
    return [
        Region(
            records[key],
            tuple(region["box"].tolist()),
            float(region["score"]),
            float(decision.distance[place]),
            REASONS.get(int(decision.reason[place]), ""),
        )
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
