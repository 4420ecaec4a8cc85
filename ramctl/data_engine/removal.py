"""The tags that `clean` removes: the rules, the decision on each region, and the records without.

A tag is removed where it is likely to be wrong (probabilities.py), where its region is an outlier
among the regions of the tag, or where the model's score of its region is too low: the latter two
are the rules of the paper (RAM sec. 3.3). What a person gave stays.
R regions, L labels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.outliers import cluster_distances, farthest
from ramctl.data_engine.region_store import RegionStore
from ramctl.data_engine.tags import implied_ids, is_human, is_of_caption
from ramctl.labels import Labels
from ramctl.records.record import JsonObject, Record, listed, lists_by_tag, removed_from, set_tags

Floats = NDArray[np.float32]
DIGITS = 4  # of numbers in records
# The reasons, each a bit.
OUTLIER, NOT_PREDICTED, IMPROBABLE = 1, 2, 4
NAMES = {OUTLIER: "outlier", NOT_PREDICTED: "not-predicted", IMPROBABLE: "improbable"}


@dataclass(frozen=True, slots=True)
class Rules:
    """The conditions under which a region loses its tag; one that holds is enough."""

    min_probability: float  # a less probable tag is removed, but for the best of each added tag
    outliers: float = 0.0  # the fraction of a tag's regions that is removed
    thresholds: Sequence[float] = ()  # (L,) the score that a region must exceed; empty: any


class Decisions(NamedTuple):
    """The decision on each region."""

    reasons: NDArray[np.uint8] = np.zeros(0, np.uint8)  # (R,) as bits; 0 keeps the tag
    probability: Floats = np.zeros(0, np.float32)  # (R,) of being right
    # (R,) to the centre of its cluster; NaN where outliers are not looked for
    distance: Floats = np.zeros(0, np.float32)


def decide(store: RegionStore, rules: Rules, probability: Floats) -> Decisions:
    """The decision on each region, whose tags are right with this probability (R,)."""
    regions = store.regions
    labels, sources = regions["label"], regions["sources"]
    reasons = np.where(probability < rules.min_probability, IMPROBABLE, 0).astype(np.uint8)
    distance = np.full(len(regions), np.nan, np.float32)
    for rows in store.rows_by_label():
        # Without a photo an added tag could not be learnt at all.
        best = rows[np.argmax(probability[rows])]
        if not is_of_caption(sources[best]):
            reasons[best] = 0
        if rules.outliers:
            distance[rows] = cluster_distances(store.features, rows)
            reasons[rows[farthest(distance[rows], rules.outliers)]] |= OUTLIER
    if rules.thresholds:
        is_low = regions["score"] <= np.array(rules.thresholds, np.float32)[labels]
        reasons[is_low] |= NOT_PREDICTED
    reasons[is_human(sources)] = 0
    return Decisions(reasons, probability, distance)


@dataclass
class Remover:
    """Removes tags from the records of a store, by the decisions on their regions."""

    store: RegionStore
    labels: Labels  # whose parents stay beside them
    decisions: Decisions = field(default_factory=Decisions)
    reasons: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)

    def __call__(self, record: Record) -> JsonObject:
        """The record, whose key is its number, without the tags that it loses."""
        fields = record.fields
        tags = listed(fields, "tags")
        _count(self.before, fields, tags)
        if entries := self._removed(int(record.key), tags):
            gone = {entry["tag"] for entry in entries}
            set_tags(fields, [tag for tag in tags if tag not in gone])
            fields["removed"] = [*removed_from(fields), *entries]
            self.reasons.update(entry["reason"] for entry in entries)
        _count(self.after, fields, listed(fields, "tags"))
        return fields

    def _removed(self, number: int, tags: list[str]) -> list[JsonObject]:
        """The entries in `removed` of the tags that an input loses."""
        rows = self.store.rows_of(number)
        numbers = (array[rows] for array in self.decisions)
        found = zip(self.store.regions[rows], *numbers, strict=True)
        against = [(tags[entry[0]["place"]], *entry) for entry in found if entry[1]]
        lost = {tag for tag, *_ in against}
        implied = implied_ids((tag for tag in tags if tag not in lost), self.labels)
        return [
            {
                "tag": tag,
                "reason": "+".join(name for bit, name in NAMES.items() if reasons & bit),
                "box": [round(float(side), DIGITS) for side in region["box"]],
                "score": round(float(region["score"]), DIGITS),
                "distance": None if np.isnan(distance) else round(float(distance), DIGITS),
                "chance": round(float(probability), DIGITS),
            }
            for tag, region, reasons, probability, distance in against
            if implied.isdisjoint(self.labels.ids(tag))
        ]


def _count(counter: Counter[str], fields: JsonObject, tags: list[str]) -> None:
    """Count the tags and, where the record has them, their sources."""
    counter["tags"] += len(tags)
    sources = lists_by_tag(fields, "sources")
    for tag in tags:
        counter.update(sources.get(tag, ()))
