"""The stage `apply`: records lose the tags that were decided against, each with its reason.

Before the rules come the decisions of persons, the files of `--decisions`. One decision a line, as
the page of `--report` saves them:
{"image": "a.jpg", "tag": "boat", "verdict": "remove"}
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ramctl.data_engine.cluster import DECISION
from ramctl.data_engine.evidence import reason
from ramctl.data_engine.region_store import Array, RegionIndex
from ramctl.errors import RecordProblem, RunProblem
from ramctl.records.inputs import open_input
from ramctl.records.jsonl import content_stamp, read_records
from ramctl.records.record import (
    Item,
    JsonObject,
    Record,
    Reject,
    image_name,
    removed_before,
    set_tags,
    string_list,
)
from ramctl.records.report import Report

KEEP, REMOVE = "keep", "remove"
BY_PERSON = "decision"  # the reason in `removed`
NO_PHOTO, NO_TAG = "photos that are not there", "tags that their photos do not have"
GONE = "tags that an earlier run has removed"


@dataclass(frozen=True)
class Verdicts:
    """What persons decided: `keep` or `remove` by tag, by the photo's name."""

    of_photo: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, paths: Sequence[Path]) -> "Verdicts":
        """The decisions of some files; of several about one tag of one photo the last counts.

        RunProblem names the file and the line of anything else.
        """
        of_photo: dict[str, dict[str, str]] = {}
        for path in paths:
            with open_input(str(path)) as stream:
                for item in read_records(stream, str(path), Path(), "clean"):
                    image, tag, verdict = _verdict(item)
                    of_photo.setdefault(image, {})[tag] = verdict
        return cls(of_photo)

    def of(self, fields: JsonObject) -> Mapping[str, str]:
        """What was decided about a record's photo, by tag."""
        return self.of_photo.get(image_name(fields), {}) if self.of_photo else {}

    @property
    def stamp(self) -> str:
        """A hash that changes when a decision does."""
        return content_stamp(json.dumps(self.of_photo, sort_keys=True).encode())

    def tell(self, report: Report, items: Iterable[Item]) -> None:
        """Say how many decisions there are, and how many are about nothing among the items."""
        left = {image: dict(tags) for image, tags in self.of_photo.items()}
        counts = Counter(verdict for tags in left.values() for verdict in tags.values())
        seen, gone = set(), set()
        for item in items:
            if isinstance(item, Record) and (image := image_name(item.fields)) in left:
                seen.add(image)
                for tag in string_list(item.fields, "tags"):
                    left[image].pop(tag, None)
                gone |= {(image, tag) for tag in removed_before(item.fields)}
        for image, tags in left.items():
            for tag, verdict in tags.items():
                if image not in seen:
                    counts[NO_PHOTO] += 1
                elif (image, tag) not in gone:
                    counts[NO_TAG] += 1
                elif verdict == KEEP:  # what was to go is gone
                    counts[GONE] += 1
        report.extra["decisions"] = dict(counts)
        nowhere = "".join(
            f"; {counts[why]} about {why}" for why in (NO_PHOTO, NO_TAG, GONE) if counts[why]
        )
        report.say(f"decisions: {counts[KEEP]} keep, {counts[REMOVE]} remove{nowhere}")


def _verdict(item: Item) -> tuple[str, str, str]:
    """Photo, tag and verdict of one line."""
    if isinstance(item, Reject):
        raise RunProblem(f"{item.place}: {item.message}")
    tag, verdict = item.fields.get("tag"), item.fields.get("verdict")
    try:
        image = image_name(item.fields)
    except RecordProblem as problem:
        raise RunProblem(f"{item.place}: {problem.message}") from problem
    if not isinstance(tag, str):
        raise RunProblem(f"{item.place}: tag is not a string")
    if verdict not in (KEEP, REMOVE):
        raise RunProblem(f"{item.place}: verdict is neither {KEEP} nor {REMOVE}")
    return image, tag, str(verdict)


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
        tags, verdicts = string_list(record.fields, "tags"), self.verdicts.of(record.fields)
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
    sources = fields.get("sources")
    if isinstance(sources, dict):
        for tag in tags:
            of_tag = sources.get(tag)
            counter.update(of_tag if isinstance(of_tag, list) else [])
