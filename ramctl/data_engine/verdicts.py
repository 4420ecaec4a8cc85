"""What a person decided about tags of photos: the files of `clean --decisions`.

One decision a line, as the page of `--report` saves them:
{"image": "a.jpg", "tag": "boat", "verdict": "remove"}
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
    string_list,
)
from ramctl.records.report import Report

KEEP, REMOVE = "keep", "remove"
DECISION = "decision"  # the reason in `removed`
NO_PHOTO, NO_TAG = "photos that are not there", "tags that their photos do not have"
GONE = "tags that an earlier run has removed"
NOT_HERE = NO_PHOTO, NO_TAG, GONE


@dataclass(frozen=True)
class Verdicts:
    """What was decided: `keep` or `remove` by tag, by the photo's name."""

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
                    image, tag, verdict = _decision(item)
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
        counts = self.counts(items)
        report.extra["decisions"] = dict(counts)
        missing = "".join(f"; {counts[why]} about {why}" for why in NOT_HERE if counts[why])
        report.say(f"decisions: {counts[KEEP]} keep, {counts[REMOVE]} remove{missing}")

    def counts(self, items: Iterable[Item]) -> Counter[str]:
        """How many decisions there are of each verdict, and how many of each of NOT_HERE."""
        open_ones = {image: dict(tags) for image, tags in self.of_photo.items()}
        counts = Counter(verdict for tags in open_ones.values() for verdict in tags.values())
        seen, gone = set(), set()
        for item in items:
            if not isinstance(item, Record):
                continue
            image = image_name(item.fields)
            if image not in open_ones:
                continue
            seen.add(image)
            for tag in string_list(item.fields, "tags"):
                open_ones[image].pop(tag, None)
            gone |= {(image, tag) for tag in removed_before(item.fields)}
        for image, tags in open_ones.items():
            for tag, verdict in tags.items():
                if image not in seen:
                    counts[NO_PHOTO] += 1
                elif (image, tag) not in gone:
                    counts[NO_TAG] += 1
                elif verdict == KEEP:  # what was to go is gone
                    counts[GONE] += 1
        return counts


def _decision(item: Item) -> tuple[str, str, str]:
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
