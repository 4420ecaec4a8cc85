"""What a person should look at after the data engine: tags that were removed, tags that were added.

Sorted by doubt. The photos of one tag are ranked by how probable the tag is, where it was
estimated, else by the model's score; if that were all there is, the removed ones would be the
lowest. A removed one above this border, or another one below it, is doubtful, the more the farther.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.apply import Cleaner, seen
from ramctl.data_engine.region_store import Array, RegionIndex
from ramctl.errors import RecordProblem, attempt
from ramctl.pages.review import ADDED, KEPT, REMOVED, Judged, Pictured
from ramctl.records.record import (
    BY_CAPTION,
    BY_TAG,
    Item,
    JsonObject,
    Record,
    captions_of,
    object_in,
    string_list,
)

GENERATED = {BY_CAPTION, BY_TAG}
MOST_JUDGED = 20_000  # tags; of more, those in the greatest doubt
MOST_KEPT = 12  # of each tag that photos lost, to compare with: those in the greatest doubt


@dataclass(frozen=True)
class Doubts:
    """What was decided, by row of the regions; NaN where nothing was."""

    doubt: NDArray[np.float32]  # -1 to 1
    distance: NDArray[np.float32]
    probability: NDArray[np.float32]  # of being right; NaN also where it was not estimated
    compared: NDArray[np.bool_]  # kept, and worth a look beside the removed ones

    @classmethod
    def of(cls, decisions: Iterable[Array], index: RegionIndex) -> "Doubts":
        """Those of all decisions."""
        n_rows = int(index.offsets[-1])
        unknown = np.full((3, n_rows), np.nan, np.float32)
        result = cls(unknown[0], unknown[1], unknown[2], np.zeros(n_rows, bool))
        for decided in decisions:
            row, probability, gone = decided["row"], decided["probability"], decided["reason"] > 0
            score = index.regions(row)["score"]
            doubt = doubts(np.where(np.isnan(probability), score, probability), gone)
            result.doubt[row] = doubt
            result.distance[row], result.probability[row] = decided["distance"], probability
            kept = np.flatnonzero(~gone) if gone.any() else np.zeros(0, np.intp)
            first = kept[np.argsort(-doubt[kept], kind="stable")[:MOST_KEPT]]
            result.compared[row[first]] = True
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
    doubts: Doubts
    totals: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def judged(self, inputs: Iterable[Item]) -> list[Judged]:
        """The most doubtful of all records, in input order; a record's `key` is its position."""
        every = (one for item in inputs if isinstance(item, Record) for one in self._of(item))
        numbered = enumerate(every)
        most = heapq.nlargest(MOST_JUDGED, numbered, key=lambda pair: pair[1].doubt)
        return [one for _, one in sorted(most, key=lambda pair: pair[0])]

    def _of(self, record: Record) -> Iterator[Judged]:
        """The removed, added and compared tags of one record, and those that were decided on."""
        fields, tags = record.fields, string_list(record.fields, "tags")
        kinds, sources, scores = (object_in(fields, n) for n in ("kinds", "sources", "scores"))
        verdicts, pictured = self.cleaner.verdicts.of(fields), _pictured(record)
        reasons = {entry["tag"]: entry["reason"] for entry in self.cleaner.removed(record)}
        first, regions = self.cleaner.index.of_input(int(record.key))
        rows = {tags[int(region["place"])]: row for row, region in enumerate(regions, first)}
        for tag in dict.fromkeys(tags):
            row, of_tag = rows.get(tag), _strings(sources.get(tag))
            added = of_tag and GENERATED.issuperset(of_tag)
            state = REMOVED if tag in reasons else ADDED if added else KEPT
            self.totals[tag][state] += 1
            compared = tag in verdicts or (row is not None and self.doubts.compared[row])
            if state == KEPT and not compared:
                continue
            facts = (
                _unseen(scores.get(tag)) if row is None else self._seen(row, regions[row - first])
            )
            kind, reason, verdict = str(kinds.get(tag, "")), reasons.get(tag), verdicts.get(tag)
            yield Judged(
                tag, kind, state, record=pictured, sources=of_tag, reason=reason, verdict=verdict,
                **facts,
            )  # fmt: skip

    def _seen(self, row: int, region: Any) -> JsonObject:
        """What is known of a tag with a region."""
        facts, doubt = seen(region), float(self.doubts.doubt[row])
        if np.isnan(doubt):
            return facts | {"doubt": -facts["score"]}
        probability = float(self.doubts.probability[row])
        facts |= {"chance": None if np.isnan(probability) else round(probability, 4)}
        return facts | {"doubt": doubt, "distance": round(float(self.doubts.distance[row]), 4)}


def _unseen(score: object) -> JsonObject:
    """What is known of a tag without a region: at most its score on the whole photo."""
    known = float(score) if isinstance(score, int | float) else None
    return {"score": known, "doubt": -(known or 0.0)}


def _pictured(record: Record) -> Pictured:
    captions = attempt(captions_of, record.fields)
    return Pictured(
        Record({"image": record.fields["image"]}, base=record.base),
        [] if isinstance(captions, RecordProblem) else captions,
        _strings(record.fields.get("generated_captions")),
    )


def _strings(value: object) -> list[str]:
    """The strings of a list in a field that `clean` does not check."""
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
