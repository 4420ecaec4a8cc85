"""The tags that `clean` removes: the rules, the decision on each region, and the records without.

A tag is removed where it is likely to be wrong (evidence.py), where its region is an outlier among
the regions of the tag, or where the model's score of its region is too low: the latter two are the
rules of the paper (RAM sec. 3.3). What a person decided goes before all of them.

Holds a few numbers per region and the features of one tag's sample; features are memory-mapped.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ramctl.data_engine.evidence import (
    NOT_PREDICTED,
    OUTLIER,
    Estimate,
    implied_ids,
    is_of_caption,
    reason,
)
from ramctl.data_engine.outliers import cluster_distances, farthest
from ramctl.data_engine.region_store import Array, RegionIndex, WorkFolder, source_bits
from ramctl.errors import RunProblem
from ramctl.labels import LabelSystem
from ramctl.records.files import replacing, write_atomic
from ramctl.records.jsonl import content_stamp
from ramctl.records.record import HUMAN, JsonObject, Record, listed, object_in, set_tags
from ramctl.records.verdicts import REMOVE, Verdicts

BY_PERSON = "decision"  # the reason in `removed`
UNDECIDED = "nothing decided yet; run --stage cluster first"
VERSION = 2  # of the estimate: decisions of an earlier one are made again

# The decision on a region. `reason` has a bit for each kind of evidence (evidence.py), 0 keeps the
# tag; `probability` is the tag's, of being right.
DECISION = np.dtype([("row", "<i8"), ("reason", "u1"), ("distance", "<f4"), ("probability", "<f4")])


@dataclass(frozen=True, slots=True)
class Rules:
    """The conditions under which a region loses its tag; one that holds is enough."""

    min_probability: float  # a less probable tag is removed, but for `min_regions` of each tag
    outliers: float = 0.0  # the fraction of a tag's regions that is removed
    thresholds: tuple[float, ...] = ()  # (L,) the score that a region must exceed; empty: any
    seed: int = 0
    min_regions: int = 1  # the most probable photos that a tag keeps; one with fewer is left alone
    evidence: tuple[str, ...] = ()  # hashes of the files of scores

    @property
    def key(self) -> str:
        """A name for decisions by these rules; part of the work folder's format."""
        return content_stamp(orjson.dumps([VERSION, *astuple(self)]))


@dataclass(frozen=True)
class Decisions:
    """The decisions of a work folder by one set of rules, a file of `DECISION` for each label."""

    folder: Path
    labels: tuple[int, ...]

    @classmethod
    def current(cls, work: WorkFolder) -> "Decisions":
        """The decisions of the last `cluster` stage; RunProblem if none or not all are there."""
        facts = work.facts("cluster.json", UNDECIDED)
        decisions = cls(work.path / "clusters" / facts["rules"], tuple(facts["labels"]))
        if missing := sum(not decisions.path(label).exists() for label in decisions.labels):
            problem = f"decisions on {missing} tags are missing; run --stage cluster again"
            raise RunProblem(f"{decisions.folder}: {problem}")
        return decisions

    def path(self, label: int) -> Path:
        """The file of one label's decision."""
        return self.folder / f"{label:05d}.npy"

    def __iter__(self) -> Iterator[Array]:
        for path in map(self.path, self.labels):
            try:
                yield np.load(path)
            except (OSError, ValueError, EOFError) as error:
                raise RunProblem(f"{path}: {error}") from error


def decide(
    work: WorkFolder,
    index: RegionIndex,
    rules: Rules,
    estimate: Callable[[], Estimate],
    tick: Callable[[], object] = lambda: None,
) -> None:
    """Decide on every label that has not been decided on yet.

    `tick` is called after each and may raise to stop. `estimate` is called for all regions when the
    first label is to be decided on.
    """
    labels = chosen_labels(index, rules)
    decisions = Decisions(work.path / "clusters" / rules.key, tuple(labels))
    decisions.folder.mkdir(parents=True, exist_ok=True)
    facts = {"rules": rules.key, "labels": labels, "settings": asdict(rules)}
    write_atomic(work.path / "cluster.json", orjson.dumps(facts) + b"\n")
    estimated: Estimate | None = None
    for label in labels:
        path = decisions.path(label)
        if not path.exists():
            estimated = estimated or estimate()
            decided = decide_label(label, index, rules, estimated)
            with replacing(path) as stream:
                np.save(stream, decided)
        tick()


def chosen_labels(index: RegionIndex, rules: Rules) -> list[int]:
    """The labels with enough regions, in order."""
    return sorted(label for label, n in index.counts().items() if n >= rules.min_regions)


def decide_label(label: int, index: RegionIndex, rules: Rules, estimate: Estimate) -> Array:
    """The `DECISION` on each of a label's regions."""
    rows = index.rows(label)
    regions = index.regions(rows)
    decided = np.zeros(len(rows), DECISION)
    decided["row"] = rows
    # Without `outliers` the distance decides nothing, but `removed` has it all the same.
    decided["distance"] = cluster_distances(
        len(rows), lambda places: index.features(rows[places]), rules.seed
    )
    decided["probability"] = probability = estimate.probability[rows]
    against = estimate.against[rows]
    stays = probability >= rules.min_probability
    # Without a few photos an added tag could not be learnt at all.
    most_probable = np.argsort(-probability, kind="stable")[: rules.min_regions]
    stays[most_probable[~is_of_caption(regions["sources"][most_probable])]] = True
    decided["reason"] = np.where(stays, 0, against)
    decided["reason"][farthest(decided["distance"], rules.outliers)] |= OUTLIER
    if rules.thresholds:
        threshold = np.float32(rules.thresholds[label])
        decided["reason"][regions["score"] <= threshold] |= NOT_PREDICTED
    decided["reason"][(regions["sources"] & source_bits((HUMAN,))) > 0] = 0
    return decided


def removing_rows(decisions: Iterable[Array]) -> Array:
    """The `DECISION` rows that remove a tag, by row; few compared with the regions."""
    parts = [decided[decided["reason"] > 0] for decided in decisions]
    return np.sort(np.concatenate([np.zeros(0, DECISION), *parts]), order="row")


@dataclass
class Cleaner:
    """Removes tags from records, whose `key` is their position in the input."""

    index: RegionIndex
    removals: Array  # `DECISION`, by row
    verdicts: Verdicts = field(default_factory=Verdicts)  # they outrank the removals
    labels: LabelSystem = field(default_factory=LabelSystem)  # whose parents stay beside them
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
        """The entries in `removed` of the tags that a record loses; a person's removals last."""
        tags, verdicts = listed(record.fields, "tags"), self.verdicts.of(record.fields)
        first, regions = self.index.at_input(int(record.key))
        start, end = np.searchsorted(self.removals["row"], [first, first + len(regions)])
        entries = []
        removals = self.removals[start:end]
        judged = [regions[int(row) - first] for row in removals["row"]]
        lost = {tags[int(region["place"])] for region in judged} - verdicts.keys()
        lost |= {tag for tag, verdict in verdicts.items() if verdict == REMOVE}
        implied = implied_ids((tag for tag in tags if tag not in lost), self.labels)
        for removal, region in zip(removals, judged, strict=True):
            tag = tags[int(region["place"])]
            if tag not in verdicts and implied.isdisjoint(self.labels.ids(tag)):
                entries.append({
                    "tag": tag, "reason": reason(int(removal["reason"])), **region_fields(region),
                    "distance": round(float(removal["distance"]), 4),
                    "chance": round(float(removal["probability"]), 4),
                })  # fmt: skip
        by_tag = {tags[int(region["place"])]: region for region in regions} if verdicts else {}
        for tag in dict.fromkeys(tags):
            if verdicts.get(tag) == REMOVE:
                # Nobody has measured how far it is from others, or even looked for its region.
                is_found = tag in by_tag
                where = region_fields(by_tag[tag]) if is_found else {"box": None, "score": None}
                entries.append({"tag": tag, "reason": BY_PERSON, **where, "distance": None})
        return entries


def region_fields(region: Any) -> JsonObject:
    """The box and the score of a region (`REGION`) as records have them."""
    return {
        "box": [round(float(side), 4) for side in region["box"]],
        "score": round(float(region["score"]), 4),
    }


def _count(counter: Counter[str], fields: JsonObject, tags: list[str]) -> None:
    """Count the tags and, where the record has them, their sources."""
    counter["tags"] += len(tags)
    sources = object_in(fields, "sources")
    for tag in tags:
        counter.update(sources.get(tag, ()))
