"""The stage `apply`: records lose the tags that were decided against, each with its reason."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ramctl.data_engine.chances import reason
from ramctl.data_engine.cluster import Decision
from ramctl.data_engine.region_store import Array, RegionIndex
from ramctl.data_engine.verdicts import DECISION, REMOVE, Verdicts
from ramctl.records.record import JsonObject, Record, set_tags, string_list

REMOVAL = np.dtype([("row", "<i8"), ("reason", "u1"), ("distance", "<f4"), ("chance", "<f4")])


def removals_of(decisions: Iterable[Decision]) -> Array:
    """What a series of decisions removes, `REMOVAL` by row; few compared with the features."""
    parts = [np.zeros(0, REMOVAL)]
    for decision in decisions:
        gone = np.flatnonzero(decision.reason)
        part = np.zeros(len(gone), REMOVAL)
        for name in REMOVAL.names or ():
            part[name] = getattr(decision, name)[gone]
        parts.append(part)
    return np.sort(np.concatenate(parts), order="row")


@dataclass
class Cleaner:
    """Applies the removals to records, whose `key` is their position in the input."""

    index: RegionIndex
    removals: Array  # `REMOVAL`
    verdicts: Verdicts = field(default_factory=Verdicts)  # they outrank the removals
    reasons: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)

    def __call__(self, record: Record) -> JsonObject:
        """The record without the tags that it loses; all other fields are unchanged."""
        fields = record.fields
        tags = string_list(fields, "tags")
        _count(self.before, fields, tags)
        entries = self.removed(record)
        if entries:
            gone = {entry["tag"] for entry in entries}
            set_tags(fields, [tag for tag in tags if tag not in gone])
            earlier = fields.get("removed")
            fields["removed"] = [*(earlier if isinstance(earlier, list) else []), *entries]
            self.reasons.update(entry["reason"] for entry in entries)
        _count(self.after, fields, string_list(fields, "tags"))
        return fields

    def removed(self, record: Record) -> list[JsonObject]:
        """What `removed` says of the tags that a record loses, those that a person took last."""
        tags, position = string_list(record.fields, "tags"), int(record.key)
        entries, verdicts = self._entries(position, tags), self.verdicts.of(record.fields)
        if not verdicts:
            return entries
        own = {tags[int(region["place"])]: region for region in self.index.of_input(position)[1]}
        asked = [tag for tag in dict.fromkeys(tags) if verdicts.get(tag) == REMOVE]
        entries = [entry for entry in entries if entry["tag"] not in verdicts]
        return entries + [_decided(tag, own.get(tag)) for tag in asked]

    def _entries(self, position: int, tags: list[str]) -> list[JsonObject]:
        """What `removed` says of the tags that one input loses."""
        first, regions = self.index.of_input(position)
        start, end = np.searchsorted(self.removals["row"], [first, first + len(regions)])
        entries = []
        for removal in self.removals[start:end]:
            region = regions[int(removal["row"]) - first]
            entry = {
                "tag": tags[int(region["place"])],
                "reason": reason(int(removal["reason"])),
                **seen(region),
                "distance": round(float(removal["distance"]), 4),
            }
            if not np.isnan(removal["chance"]):
                entry["chance"] = round(float(removal["chance"]), 4)
            entries.append(entry)
        return entries


def _decided(tag: str, region: Any) -> JsonObject:
    """What `removed` says of a tag that a person removed; nobody has measured its distance."""
    where = {"box": None, "score": None} if region is None else seen(region)
    return {"tag": tag, "reason": DECISION, **where, "distance": None}


def seen(region: Any) -> JsonObject:
    """A region (`REGION`) as records tell it."""
    return {
        "box": [round(float(side), 4) for side in region["box"]],
        "score": round(float(region["score"]), 4),
    }


def _count(counter: Counter[str], fields: JsonObject, tags: list[str]) -> None:
    """Count the tags and, where the record tells them, their sources."""
    counter["tags"] += len(tags)
    sources = fields.get("sources")
    if isinstance(sources, dict):
        for tag in tags:
            named = sources.get(tag)
            counter.update(named if isinstance(named, list) else [])
