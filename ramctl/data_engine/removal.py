"""The removal of tags from records, by a rule's decision on each region.

Whatever the rule, a person's tags stay, and tags that others imply. R regions.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.region_store import RegionStore
from ramctl.data_engine.tags import implied_ids
from ramctl.inference.log_odds import sigmoid
from ramctl.records.labels import Labels
from ramctl.records.record import JsonObject, Record, listed, removed_from, set_tags

DIGITS = 4  # of numbers in records
IMPROBABLE, OUTLIER, NOT_PREDICTED = "improbable", "outlier", "not-predicted"


class Decisions(NamedTuple):
    """A rule's decision on each region."""

    reasons: NDArray[np.str_] = np.zeros(0, "U1")  # (R,) why it loses its tag; "": it keeps it
    distance: NDArray[np.float32] = np.zeros(0, np.float32)  # (R,) to its centre; NaN without one


@dataclass
class Remover:
    """Removes tags from the records of a store."""

    store: RegionStore
    labels: Labels  # whose parents stay beside them
    decisions: Decisions = field(default_factory=Decisions)
    reasons: Counter[str] = field(default_factory=Counter)  # of removed tags

    def __call__(self, record: Record) -> JsonObject:
        """The record, whose key is its number, without the tags that it loses."""
        fields, tags = record.fields, listed(record.fields, "tags")
        if entries := self._entries(int(record.key), tags):
            gone = {entry["tag"] for entry in entries}
            set_tags(fields, [tag for tag in tags if tag not in gone])
            fields["removed"] = [*removed_from(fields), *entries]
            self.reasons.update(entry["reason"] for entry in entries)
        return fields

    def _entries(self, number: int, tags: list[str]) -> list[JsonObject]:
        """The entries in `removed` of the tags that an input loses."""
        rows = self.store.rows_of(number)
        regions, (reasons, distances) = self.store.regions[rows], self.decisions
        scores = sigmoid(regions["log_odds"].astype(np.float64))
        lost = {
            tags[region["place"]]: (reason, region["box"], score, distance)
            for region, reason, score, distance in zip(
                regions, reasons[rows], scores, distances[rows], strict=True
            )
            if reason and not region["is_human"]
        }
        implied = implied_ids((tag for tag in tags if tag not in lost), self.labels)
        return [
            {
                "tag": tag,
                "reason": str(reason),
                "box": [round(float(side), DIGITS) for side in box],
                "score": round(float(score), DIGITS),
                "distance": None if np.isnan(distance) else round(float(distance), DIGITS),
            }
            for tag, (reason, box, score, distance) in lost.items()
            if implied.isdisjoint(self.labels.ids(tag))
        ]
