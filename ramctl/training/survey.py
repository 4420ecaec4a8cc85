"""One pass over the records before training: which are good, their tags, what is held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RunProblem
from ramctl.photos.archives import split_member
from ramctl.records.inputs import ROOT_CHECK_RECORDS, RootCheck
from ramctl.records.record import Record, Reject
from ramctl.training.annotations import read_annotation
from ramctl.training.label_building import TagCounts
from ramctl.training.record_file import RecordFile, Source, flags, is_held_out, scan
from ramctl.training.validation import FEWEST_PHOTOS

HELD_OUT_ONE_IN = 50  # design 2: a 2 % split by a hash of the photo's name


@dataclass(slots=True)
class Survey:
    """The records of a run, and what was learnt in passing."""

    records: RecordFile
    sha256: str
    n_lines: int
    counts: TagCounts
    n_captions: int
    held_out: NDArray[np.bool_]

    @property
    def training_ids(self) -> NDArray[np.int64]:
        """Numbers of the records that are trained on."""
        return np.flatnonzero(~self.held_out)

    @property
    def held_out_ids(self) -> NDArray[np.int64]:
        """Numbers of the records that are only validated on."""
        return np.flatnonzero(self.held_out)


def survey(
    sources: Sequence[Source], on_reject: Callable[[Reject], None], stage: str, *, hold_out: bool
) -> Survey:
    """Read all records once; RunProblem when there is none, or none of the first photos exists.

    With `hold_out` the photos of the split are set aside, unless there are too few for thresholds.
    """
    counts, bits, check = TagCounts(), bytearray(), RootCheck()
    n_captions = 0

    def look(record: Record) -> None:
        nonlocal n_captions
        annotation = read_annotation(record)
        if len(bits) < ROOT_CHECK_RECORDS:
            exists = _exists(annotation.base, annotation.image)
            check.count(annotation.image, exists=exists)
        counts.add(record, annotation)
        n_captions += len(annotation.captions)
        bits.append(hold_out and is_held_out(annotation.image, HELD_OUT_ONE_IN))

    found = scan(sources, look, on_reject, stage)
    if not len(found.records):
        raise RunProblem("no records to train on")
    held_out = flags(bits)
    if held_out.sum() < FEWEST_PHOTOS:
        held_out[:] = False
    return Survey(found.records, found.sha256, found.n_lines, counts, n_captions, held_out)


def _exists(base: Path, image: str) -> bool:
    inside = split_member(image)
    return (base / image).exists() or (inside is not None and (base / inside[0]).exists())
