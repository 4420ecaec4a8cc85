"""The decisions of people about tags: the files of `--decisions`.

One decision a line, as the review pages save them:
{"image": "a.jpg", "tag": "boat", "verdict": "remove"}
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ramctl.errors import RecordProblem, RunProblem
from ramctl.records.inputs import read_inputs
from ramctl.records.jsonl import content_stamp
from ramctl.records.record import (
    HUMAN,
    JsonObject,
    Reject,
    image_name,
    listed,
    object_in,
    set_tags,
    tag_language,
)
from ramctl.records.report import Report

# A function that returns whether a tag in a language has the label of one of some words.
Matcher = Callable[[Sequence[str]], Callable[[str, str], bool]]
KEEP, REMOVE, ADD = VERDICTS = ("keep", "remove", "add")


@dataclass(frozen=True)
class Verdicts:
    """`keep`, `remove` or `add`, by photo and tag."""

    by_photo: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    matcher: Matcher | None = None
    source: str = ""  # the files' names
    used: set[str] = field(default_factory=set, compare=False)  # photos that had a record

    @classmethod
    def read(cls, paths: Sequence[Path], stage: str, matcher: Matcher | None = None) -> "Verdicts":
        """Read files of decisions; the last one about a tag of a photo counts.

        RunProblem for any other line.
        """
        by_photo: dict[str, dict[str, str]] = {}
        for item in read_inputs([*map(str, paths)], None, stage):
            if isinstance(item, Reject):
                raise RunProblem(f"{item.place}: {item.message}")
            tag, verdict = item.fields.get("tag"), item.fields.get("verdict")
            try:
                image = image_name(item.fields)
            except RecordProblem as problem:
                raise RunProblem(f"{item.place}: {problem.message}") from problem
            if not isinstance(tag, str):
                raise RunProblem(f"{item.place}: tag is not a string")
            if verdict not in VERDICTS:
                raise RunProblem(f"{item.place}: verdict is not one of {', '.join(VERDICTS)}")
            by_photo.setdefault(image, {})[tag] = verdict
        return cls(by_photo, matcher, ", ".join(map(str, paths)))

    def of(self, fields: JsonObject) -> Mapping[str, str]:
        """The decisions about the photo of a record, by tag, under the record's names for them."""
        image = image_name(fields) if self.by_photo else ""
        verdicts = self.by_photo.get(image, {})
        if verdicts:
            self.used.add(image)
        if self.matcher is None:
            return verdicts
        tags, language = listed(fields, "tags"), tag_language(fields)
        others = [tag for tag in tags if tag not in verdicts]
        found: dict[str, str] = {}
        for word, verdict in verdicts.items():
            matches = self.matcher([word] if others and word not in tags else ())
            same = [tag for tag in others if matches(tag, language)]
            found |= dict.fromkeys(same or [word], verdict)
        return found

    @property
    def stamp(self) -> str:
        """A hash that changes when a decision does."""
        return content_stamp(json.dumps(self.by_photo, sort_keys=True).encode())

    def report_unused(self, report: Report) -> None:
        """Report how many photos had no record, unless the run left out records."""
        n_unused, n_photos = len(self.by_photo.keys() - self.used), len(self.by_photo)
        if n_unused and not (report.n_skipped or report.time_is_up):
            report.notify(f"{n_unused} of {n_photos} photos in {self.source} have no record")

    def apply(self, fields: JsonObject) -> None:
        """Apply the decisions to a record: add and remove tags, and list both kinds.

        `refused` and `confirmed` gain the predicted tags with a verdict. Added tags are in neither:
        no model predicted them.
        """
        self.add(fields)
        verdicts, tags = self.of(fields), listed(fields, "tags")
        for name, verdict in (("confirmed", KEEP), ("refused", REMOVE)):
            if decided := [tag for tag in tags if verdicts.get(tag) == verdict]:
                fields[name] = list(dict.fromkeys([*listed(fields, name), *decided]))
        if REMOVE in verdicts.values():
            set_tags(fields, [tag for tag in tags if verdicts.get(tag) != REMOVE])

    def add(self, fields: JsonObject) -> None:
        """Append the tags that a person added."""
        tags = listed(fields, "tags")
        verdicts = self.of(fields).items()
        new = [tag for tag, verdict in verdicts if verdict == ADD and tag not in tags]
        if new:
            set_tags(fields, [*tags, *new])
            fields["sources"] = object_in(fields, "sources") | {tag: [HUMAN] for tag in new}
