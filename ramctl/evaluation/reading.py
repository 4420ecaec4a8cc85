"""Records of truth and predictions: JSONL, or the RAM authors' lists `id,tag,tag`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ramctl.errors import RecordProblem, RunProblem
from ramctl.evaluation.matching import Photo
from ramctl.records.inputs import open_input, read_inputs
from ramctl.records.record import Record, Reject, image_name, json_type, string_list
from ramctl.records.report import Rejects, Report

LIST_SUFFIXES = (".txt", ".csv")


@dataclass(slots=True)
class Intake:
    """Where records that cannot be used go: counted, told, written to `--rejects`."""

    report: Report
    rejects: Rejects

    def reject(self, reject: Reject) -> None:
        """Count and write a reject; RunProblem with `--strict`."""
        self.report.n_in += 1
        self.rejects.add(reject)

    def refuse(self, record: Record, problem: RecordProblem) -> None:
        """Reject a record for the reason that a RecordProblem gives."""
        self.reject(Reject.of(record, problem, self.report.command))

    def records(self, name: str) -> Iterator[Record]:
        """The records of a file or, for `-`, of standard input; what is none is rejected."""
        if name.endswith(LIST_SUFFIXES):
            yield from _read_list(name)
            return
        for item in read_inputs([name], None, self.report.command):
            if isinstance(item, Reject):
                self.reject(item)
            else:
                yield item


@dataclass(slots=True)
class PhotoList:
    """The photos of one side in order, each once."""

    photos: list[Photo] = field(default_factory=list)
    _seen: dict[str, str] = field(default_factory=dict)

    def new(self, record: Record) -> Photo:
        """The photo of a record, not yet added; RecordProblem when it is there already."""
        name = image_name(record.fields)
        if name in self._seen:
            message = f"image {name!r} is there already ({self._seen[name]})"
            raise RecordProblem(message, code="bad_field")
        return Photo(name, record.base)

    def add(self, photo: Photo, record: Record) -> None:
        """Take the photo of a record that was good."""
        self._seen[photo.name] = record.place
        self.photos.append(photo)


def tag_scores(fields: dict[str, Any]) -> dict[str, float]:
    """The scores by tag of a prediction; tags without scores have 1.

    Raises RecordProblem when there is neither, and for a score that is not a number.
    """
    if fields.get("scores") is None:
        if fields.get("tags") is None:
            raise RecordProblem("no dense, scores or tags field", code="missing_field")
        return dict.fromkeys(string_list(fields, "tags"), 1.0)
    scores = fields["scores"]
    if not isinstance(scores, dict):
        raise RecordProblem(f"scores is not an object (got {json_type(scores)})", code="bad_field")
    for tag, score in scores.items():
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if not is_number or not math.isfinite(score):
            raise RecordProblem(f"the score of {tag!r} is not a number", code="bad_field")
    return scores


def _read_list(name: str) -> Iterator[Record]:
    """The lines `id,tag,tag` of the authors' annotation and prediction files."""
    with open_input(name) as stream:
        for number, line in enumerate(stream, 1):
            try:
                image, *tags = line.decode("utf-8-sig").rstrip("\r\n").split(",")
            except UnicodeDecodeError as error:
                raise RunProblem(f"{name}:{number}: not UTF-8 text") from error
            if image.strip():
                fields = {"image": image, "tags": [tag for tag in tags if tag]}
                yield Record(fields, name, number, Path(name).parent)
