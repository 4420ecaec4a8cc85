"""The tags that the page of `clean --review` shows: removed and added ones, sorted by doubt.

The photos of a tag are ranked by its probability. If n photos lose the tag, the border lies above
the n lowest. A removed tag above the border, or a kept one below it, is doubtful: the farther from
the border, the more.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.region_store import Array, RegionIndex
from ramctl.data_engine.removals import Cleaner, region_fields
from ramctl.pages.review_page import ADDED, KEPT, MAX_JUDGED, REMOVED, Judged, Pictured
from ramctl.records.record import MODELS, Item, JsonObject, Record, listed, object_in

MAX_KEPT = 12  # of each tag that photos lost, to compare with: those in the greatest doubt

# Of a region: the doubt about its decision, from -1 to 1, and whether the tag was kept but is worth
# a look beside the removed ones. Numbers are NaN where nothing was decided.
DOUBT = np.dtype([("doubt", "<f4"), ("distance", "<f4"), ("probability", "<f4"), ("compared", "?")])


def region_doubts(decisions: Iterable[Array], index: RegionIndex) -> Array:
    """The `DOUBT` of each region."""
    result = np.zeros(int(index.offsets[-1]), DOUBT)
    result["doubt"] = result["distance"] = result["probability"] = np.nan
    for decided in decisions:
        row, probability, gone = decided["row"], decided["probability"], decided["reason"] > 0
        doubt = doubts(probability, gone)
        result["doubt"][row], result["distance"][row] = doubt, decided["distance"]
        result["probability"][row] = probability
        if gone.any():
            kept = np.flatnonzero(~gone)
            doubtful_first = np.argsort(-doubt[kept], kind="stable")
            result["compared"][row[kept[doubtful_first[:MAX_KEPT]]]] = True
    return result


def doubts(probability: NDArray[np.float32], gone: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How far each is on the wrong side of the border, as a fraction of the tag's regions."""
    n = len(probability)
    rank = np.empty(n)
    rank[np.argsort(probability, kind="stable")] = (np.arange(n) + 0.5) / n
    above = rank - gone.mean()
    return np.where(gone, above, -above).astype(np.float32)


@dataclass(frozen=True)
class Review:
    """Finds the tags to judge; afterwards `totals` counts the states by tag."""

    cleaner: Cleaner
    doubts: Array  # `DOUBT`, by row
    totals: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def judged(self, inputs: Iterable[Item]) -> list[Judged]:
        """The most doubtful of all records, in input order; a record's `key` is its position."""
        every = (tag for item in inputs if isinstance(item, Record) for tag in self._judge(item))
        most = heapq.nlargest(MAX_JUDGED, enumerate(every), key=lambda pair: pair[1].doubt)
        return [tag for _, tag in sorted(most, key=lambda pair: pair[0])]

    def _judge(self, record: Record) -> Iterator[Judged]:
        """The removed, added and compared tags of one record, and those that were decided on."""
        fields, tags = record.fields, listed(record.fields, "tags")
        kinds, sources, scores = (object_in(fields, n) for n in ("kinds", "sources", "scores"))
        verdicts = self.cleaner.verdicts.of(fields)
        pictured = Pictured.of(record, listed(fields, "generated_captions"))
        reasons = {entry["tag"]: entry["reason"] for entry in self.cleaner.removed(record)}
        first, regions = self.cleaner.index.at_input(int(record.key))
        rows = {tags[int(region["place"])]: row for row, region in enumerate(regions, first)}
        for tag in dict.fromkeys(tags):
            row, tag_sources = rows.get(tag), sources.get(tag, ())
            added = tag_sources and MODELS.issuperset(tag_sources)
            state = REMOVED if tag in reasons else ADDED if added else KEPT
            self.totals[tag][state] += 1
            compared = tag in verdicts or (row is not None and self.doubts["compared"][row])
            if state == KEPT and not compared:
                continue
            if row is not None:
                facts = self._facts(row, regions[row - first])
            else:  # without a region there is only its score on the whole photo
                facts = {"score": scores.get(tag), "doubt": -scores.get(tag, 0.0)}
            kind, reason, verdict = str(kinds.get(tag, "")), reasons.get(tag), verdicts.get(tag)
            yield Judged(
                tag, kind, state, record=pictured, sources=tag_sources, reason=reason,
                verdict=verdict, **facts,
            )  # fmt: skip

    def _facts(self, row: int, region: Any) -> JsonObject:
        facts = region_fields(region)
        doubt, distance, probability, _ = self.doubts[row].tolist()
        if math.isnan(doubt):
            return facts | {"doubt": -facts["score"]}
        numbers = {"probability": round(probability, 4), "distance": round(distance, 4)}
        return facts | {"doubt": doubt, **numbers}
