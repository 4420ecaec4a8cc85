"""Predictions read by several processes, each a part of the file at a time."""

import mmap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RecordProblem
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.matching import Photo
from ramctl.evaluation.predictions import PredictionTable, Rows, ScoreReader
from ramctl.evaluation.reading import Intake, PhotoList
from ramctl.evaluation.thresholds import Cut
from ramctl.readers.predictions import read_predictions, recognise
from ramctl.records.inputs import open_input
from ramctl.records.jsonl import unread_records
from ramctl.records.record import Item, Reject, image_name, shown_name
from ramctl.records.workers import ordered_workers

PART_BYTES = 1 << 23


def read_table(
    name: str,
    classes: Classes,
    cut: Cut,
    intake: Intake,
    *,
    n_expected: int = 0,
    form: str | None = None,
    jobs: int = 1,
    part_bytes: int = PART_BYTES,
) -> PredictionTable:
    """The predictions of a file or, for `-`, of standard input, of about so many photos.

    `form` is one of `ramctl.readers.predictions`; None: it is recognised. Of a file of JSON lines
    that is not packed, several `jobs` read a part of about so many bytes at a time; the table is
    the same.
    """
    table = PredictionTable(ScoreReader(classes, cut), n_expected)
    _fill(table, name, intake, form, jobs, part_bytes)
    table.photos.close()
    return table


def _fill(
    table: PredictionTable, name: str, intake: Intake, form: str | None, jobs: int, part_bytes: int
) -> None:
    classes, cut = table.reader.classes, table.reader.cut
    form = form or recognise(name)
    path = Path(name)
    is_cut = form == "jsonl" and path.is_file() and path.suffix != ".gz"
    if jobs == 1 or not is_cut or path.stat().st_size < 2 * part_bytes:
        table.take(read_predictions(name, intake.stage, form, classes.lists), intake)
        return
    file = _File(name, intake.stage)
    file.read_labels(table.reader)
    parts = file.parts(part_bytes)
    with ordered_workers(jobs, _start_worker, file, classes, cut) as run:
        for part, found in run(_read_in_worker, ((part, part) for part in parts)):
            if found.names_labels:
                table.take(file.items(part._replace(stop=parts[-1].stop)), intake)
                break
            if not found.is_whole or not table.photos.add_all(found.photos):
                table.take(file.items(part), intake)
                continue
            intake.count(found.n_in, found.rejects)
            table.rows.extend(found.rows)
            table.reader.matched |= found.matched


class _Part(NamedTuple):
    """Whole lines of a file: where they start and end, and the number of the first."""

    start: int
    stop: int
    first: int


@dataclass(frozen=True, slots=True)
class _File:
    """A file of JSON lines, and who reads it."""

    name: str
    stage: str

    def parts(self, size: int) -> list[_Part]:
        """All of it, in parts of about so many bytes."""
        found, start, line = [], 0, 1
        with (
            Path(self.name).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            while start < len(content):
                stop = content.find(b"\n", start + size) + 1 or len(content)
                found.append(_Part(start, stop, line))
                line += content[start:stop].count(b"\n")
                start = stop
        return found

    def items(self, part: _Part) -> Iterator[Item]:
        """The records of a part."""
        base = Path(self.name).parent
        with open_input(self.name) as stream:
            stream.seek(part.start)
            for make in unread_records(
                stream, shown_name(self.name), base, self.stage, first=part.first, stop=part.stop
            ):
                yield make(stamped=False)

    def read_labels(self, reader: ScoreReader) -> None:
        """Have a reader know the labels that the first line names."""
        for item in self.items(_Part(0, 1, 1)):
            if not isinstance(item, Reject):
                with suppress(RecordProblem):  # it is rejected where its part is read
                    reader.read(item.fields)


@dataclass(slots=True)
class _Found:
    """What there is in a part of a file.

    `names_labels` where a line that is not the file's first names labels: those after it may mean
    others than their readers know.
    """

    rows: Rows
    matched: NDArray[np.bool_]
    photos: PhotoList
    rejects: list[Reject] = field(default_factory=list)
    names_labels: bool = False
    is_whole: bool = True  # no photo is there twice
    n_in: int = 0


_worker: tuple[_File, ScoreReader] | None = None


def _start_worker(file: _File, classes: Classes, cut: Cut) -> None:
    global _worker
    reader = ScoreReader(classes, cut)
    file.read_labels(reader)
    _worker = file, reader


def _read_in_worker(part: _Part) -> _Found:
    if _worker is None:
        raise RuntimeError("the worker has no file")
    file, reader = _worker
    table = PredictionTable(reader)
    found = _Found(table.rows, reader.matched, table.photos)
    for item in file.items(part):
        found.n_in += 1
        if isinstance(item, Reject):
            found.rejects.append(item)
            continue
        if item.line != 1 and item.fields.get("label_names") is not None:
            found.names_labels = True
            break
        try:
            prediction = reader.read(item.fields)
            photo = Photo(image_name(item.fields), item.base)
        except RecordProblem as problem:
            found.rejects.append(Reject.of(item, problem, file.stage))
            continue
        try:
            found.photos.add(photo, item)
        except RecordProblem:
            found.is_whole = False  # who knows all parts says so
            break
        table.keep(prediction)
    table.store_kept()
    table.rows.scores.close()
    return found
