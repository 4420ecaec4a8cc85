"""The stage `apply`: records lose the tags that were decided against, each with its reason.

Before the rules come the decisions of persons, the files of `--decisions`.

The page of `--report` shows tags that were removed and tags that were added, sorted by doubt. The
photos of one tag are ranked by how probable the tag is, where it was estimated, else by the model's
score; if that were all there is, the removed ones would be the lowest. A removed one above this
border, or another one below it, is doubtful, the more the farther.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.cluster import DECISION
from ramctl.data_engine.evidence import reason
from ramctl.data_engine.region_store import Array, RegionIndex
from ramctl.pages.review_page import ADDED, KEPT, MAX_JUDGED, REMOVED, Judged, Pictured
from ramctl.records.record import MODELS, Item, JsonObject, Record, listed, object_in, set_tags
from ramctl.records.verdicts import REMOVE, Verdicts

BY_PERSON = "decision"  # the reason in `removed`
MOST_KEPT = 12  # of each tag that photos lost, to compare with: those in the greatest doubt


def removals_of(decisions: Iterable[Array]) -> Array:
    """What decisions remove, `DECISION` by row; few compared with the regions."""
    parts = [decided[decided["reason"] > 0] for decided in decisions]
    return np.sort(np.concatenate([np.zeros(0, DECISION), *parts]), order="row")


@dataclass
class Cleaner:
    """Applies the removals to records, whose `key` is their position in the input."""

    index: RegionIndex
    removals: Array  # `DECISION`, by row
    verdicts: Verdicts = field(default_factory=Verdicts)  # they outrank the removals
    reasons: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)

    def __call__(self, record: Record) -> JsonObject:
        """The record without the tags that it loses; all other fields are unchanged."""
        fields = record.fields
        tags = listed(fields, "tags")
        _count(self.before, fields, tags)
        entries = self.removed(record)
        if entries:
            gone = {entry["tag"] for entry in entries}
            set_tags(fields, [tag for tag in tags if tag not in gone])
            fields["removed"] = [*listed(fields, "removed"), *entries]
            self.reasons.update(entry["reason"] for entry in entries)
        self.verdicts.add(fields)
        _count(self.after, fields, listed(fields, "tags"))
        return fields

    def removed(self, record: Record) -> list[JsonObject]:
        """What `removed` says of the tags that a record loses, those that a person took last."""
        tags, verdicts = listed(record.fields, "tags"), self.verdicts.of(record.fields)
        first, regions = self.index.of_input(int(record.key))
        start, end = np.searchsorted(self.removals["row"], [first, first + len(regions)])
        entries = []
        for removal in self.removals[start:end]:
            region = regions[int(removal["row"]) - first]
            tag = tags[int(region["place"])]
            if tag not in verdicts:
                why, distance = reason(int(removal["reason"])), round(float(removal["distance"]), 4)
                entry = {"tag": tag, "reason": why, **seen(region), "distance": distance}
                if not np.isnan(removal["probability"]):
                    entry["chance"] = round(float(removal["probability"]), 4)
                entries.append(entry)
        by_tag = {tags[int(region["place"])]: region for region in regions} if verdicts else {}
        for tag in dict.fromkeys(tags):
            if verdicts.get(tag) == REMOVE:
                # Nobody has measured how far it is from others, or even looked for its region.
                where = seen(by_tag[tag]) if tag in by_tag else {"box": None, "score": None}
                entries.append({"tag": tag, "reason": BY_PERSON, **where, "distance": None})
        return entries


def seen(region: Any) -> JsonObject:
    """A region (`REGION`) as records tell it."""
    return {
        "box": [round(float(side), 4) for side in region["box"]],
        "score": round(float(region["score"]), 4),
    }


def _count(counter: Counter[str], fields: JsonObject, tags: list[str]) -> None:
    """Count the tags and, where the record tells them, their sources."""
    counter["tags"] += len(tags)
    sources = object_in(fields, "sources")
    for tag in tags:
        counter.update(sources.get(tag, ()))


# What was decided, by row of the regions: a doubt from -1 to 1, and whether the tag was kept but is
# worth a look beside the removed ones. Numbers are NaN where nothing was decided or estimated.
DOUBT = np.dtype([("doubt", "<f4"), ("distance", "<f4"), ("probability", "<f4"), ("compared", "?")])


def doubts_of(decisions: Iterable[Array], index: RegionIndex) -> Array:
    """The `DOUBT` of each region."""
    result = np.zeros(int(index.offsets[-1]), DOUBT)
    result["doubt"] = result["distance"] = result["probability"] = np.nan
    for decided in decisions:
        row, probability, gone = decided["row"], decided["probability"], decided["reason"] > 0
        score = index.regions(row)["score"]
        doubt = doubts(np.where(np.isnan(probability), score, probability), gone)
        result["doubt"][row], result["distance"][row] = doubt, decided["distance"]
        result["probability"][row] = probability
        if gone.any():
            kept = np.flatnonzero(~gone)
            doubtful_first = np.argsort(-doubt[kept], kind="stable")
            result["compared"][row[kept[doubtful_first[:MOST_KEPT]]]] = True
    return result


def doubts(score: NDArray[np.float32], gone: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How far each is on the wrong side of the border, as a fraction of the tag's regions."""
    rank = np.empty(len(score))
    rank[np.argsort(score, kind="stable")] = (np.arange(len(score)) + 0.5) / len(score)
    above = rank - gone.mean()
    return np.where(gone, above, -above).astype(np.float32)


@dataclass(frozen=True)
class Review:
    """Finds what there is to judge; `totals` counts by tag what was done, when that is over."""

    cleaner: Cleaner
    doubts: Array  # `DOUBT`, by row
    totals: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def judged(self, inputs: Iterable[Item]) -> list[Judged]:
        """The most doubtful of all records, in input order; a record's `key` is its position."""
        every = (one for item in inputs if isinstance(item, Record) for one in self._of(item))
        most = heapq.nlargest(MAX_JUDGED, enumerate(every), key=lambda pair: pair[1].doubt)
        return [one for _, one in sorted(most, key=lambda pair: pair[0])]

    def _of(self, record: Record) -> Iterator[Judged]:
        """The removed, added and compared tags of one record, and those that were decided on."""
        fields, tags = record.fields, listed(record.fields, "tags")
        kinds, sources, scores = (object_in(fields, n) for n in ("kinds", "sources", "scores"))
        verdicts = self.cleaner.verdicts.of(fields)
        pictured = Pictured.of(record, listed(fields, "generated_captions"))
        reasons = {entry["tag"]: entry["reason"] for entry in self.cleaner.removed(record)}
        first, regions = self.cleaner.index.of_input(int(record.key))
        rows = {tags[int(region["place"])]: row for row, region in enumerate(regions, first)}
        for tag in dict.fromkeys(tags):
            row, of_tag = rows.get(tag), sources.get(tag, ())
            added = of_tag and MODELS.issuperset(of_tag)
            state = REMOVED if tag in reasons else ADDED if added else KEPT
            self.totals[tag][state] += 1
            compared = tag in verdicts or (row is not None and self.doubts["compared"][row])
            if state == KEPT and not compared:
                continue
            if row is not None:
                facts = self._seen(row, regions[row - first])
            else:  # nothing is known but its score on the whole photo
                facts = {"score": scores.get(tag), "doubt": -scores.get(tag, 0.0)}
            kind, reason, verdict = str(kinds.get(tag, "")), reasons.get(tag), verdicts.get(tag)
            yield Judged(
                tag, kind, state, record=pictured, sources=of_tag, reason=reason, verdict=verdict,
                **facts,
            )  # fmt: skip

    def _seen(self, row: int, region: Any) -> JsonObject:
        facts = seen(region)
        doubt, distance, probability, _ = self.doubts[row].tolist()
        if math.isnan(doubt):
            return facts | {"doubt": -facts["score"]}
        facts |= {"probability": None if math.isnan(probability) else round(probability, 4)}
        return facts | {"doubt": doubt, "distance": round(distance, 4)}
