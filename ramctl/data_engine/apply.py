"""The stage `apply`: records lose the tags that were decided against, each with its reason."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.cluster import REASONS, Decision
from ramctl.data_engine.region_store import RegionIndex, Rows
from ramctl.records.record import JsonObject, Record, set_tags, string_list


@dataclass
class Removals:
    """The rows that lose their tag, ascending; few compared with the features."""

    row: Rows
    reason: NDArray[np.uint8]
    distance: NDArray[np.float32]

    @classmethod
    def of(cls, decisions: Iterable[Decision]) -> "Removals":
        """What a series of decisions removes."""
        rows, reasons = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
        distances = [np.zeros(0, np.float32)]
        for decision in decisions:
            gone = np.flatnonzero(decision.reason)
            rows.append(decision.row[gone])
            reasons.append(decision.reason[gone])
            distances.append(decision.distance[gone])
        row = np.concatenate(rows)
        order = np.argsort(row)
        return cls(row[order], np.concatenate(reasons)[order], np.concatenate(distances)[order])

    def between(self, start: int, end: int) -> list[tuple[int, str, float]]:
        """Row, reason and distance of the removals among rows `start` to `end`."""
        first, last = np.searchsorted(self.row, [start, end])
        return [
            (int(self.row[i]), REASONS[int(self.reason[i])], float(self.distance[i]))
            for i in range(first, last)
        ]


@dataclass
class Cleaner:
    """Applies the removals to records, whose `key` is their position in the input."""

    index: RegionIndex
    removals: Removals
    reasons: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)

    def __call__(self, record: Record) -> JsonObject:
        """The record without the tags that it loses; all other fields are unchanged."""
        fields = record.fields
        tags = string_list(fields, "tags")
        _count(self.before, fields, tags)
        entries = self._entries(int(record.key), tags)
        if entries:
            gone = {entry["tag"] for entry in entries}
            set_tags(fields, [tag for tag in tags if tag not in gone])
            earlier = fields.get("removed")
            fields["removed"] = [*(earlier if isinstance(earlier, list) else []), *entries]
            self.reasons.update(entry["reason"] for entry in entries)
        _count(self.after, fields, string_list(fields, "tags"))
        return fields

    def _entries(self, position: int, tags: list[str]) -> list[JsonObject]:
        """What `removed` says of the tags that one input loses."""
        first, regions = self.index.of_input(position)
        entries = []
        for row, reason, distance in self.removals.between(first, first + len(regions)):
            region = regions[row - first]
            entries.append(
                {
                    "tag": tags[int(region["place"])],
                    "reason": reason,
                    "box": [round(float(side), 4) for side in region["box"]],
                    "score": round(float(region["score"]), 4),
                    "distance": round(distance, 4),
                }
            )
        return entries


def _count(counter: Counter[str], fields: JsonObject, tags: list[str]) -> None:
    """Count the tags and, where the record tells them, their sources."""
    counter["tags"] += len(tags)
    sources = fields.get("sources")
    if isinstance(sources, dict):
        for tag in tags:
            named = sources.get(tag)
            counter.update(named if isinstance(named, list) else [])
