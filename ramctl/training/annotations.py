"""What a record teaches: its tags as targets, its captions with the tags that guide them."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RecordProblem
from ramctl.labels import LabelSystem
from ramctl.records.record import Record, captions_of, image_name, string_list

_REMEMBERED_TAGS = 200_000


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption and those of the record's tags that it names itself."""

    text: str
    tags: tuple[str, ...]
    generated: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """A record as training reads it.

    `negatives`, where present, are the only verified absent tags: unlisted ones are unknown.
    `uncertain` tags count neither way.
    """

    image: str
    base: Path
    tags: tuple[str, ...]
    captions: tuple[Caption, ...]
    negatives: tuple[str, ...] | None
    uncertain: tuple[str, ...]


def read_annotation(record: Record) -> Annotation:
    """The annotation of a record; RecordProblem for missing fields and fields of a wrong type."""
    fields = record.fields
    image = image_name(fields)
    if "tags" not in fields:
        raise RecordProblem("no tags field (ramctl parse writes it)", code="missing_field")
    tags = tuple(string_list(fields, "tags"))
    captions = _captions(captions_of(fields), fields, "caption_tags", tags)
    generated = string_list(fields, "generated_captions")
    written_by_model = _captions(generated, fields, "generated_caption_tags", tags)
    captions += tuple(replace(caption, generated=True) for caption in written_by_model)
    negatives = tuple(string_list(fields, "negatives")) if "negatives" in fields else None
    uncertain = tuple(string_list(fields, "uncertain"))
    return Annotation(image, record.base, tags, captions, negatives, uncertain)


def _captions(
    texts: list[str], fields: dict[str, Any], name: str, tags: tuple[str, ...]
) -> tuple[Caption, ...]:
    """Each caption with its own tags that the record still has; all tags where none are given."""
    if fields.get(name) is None:
        return tuple(Caption(text, tags) for text in texts if text.strip())
    own = fields[name]
    if not isinstance(own, list) or len(own) != len(texts):
        raise RecordProblem(f"{name} is not a list parallel to the captions", code="bad_field")
    kept, captions = set(tags), []
    for text, names in zip(texts, own, strict=True):
        if not isinstance(names, list) or not all(isinstance(tag, str) for tag in names):
            raise RecordProblem(f"{name} is not a list of lists of strings", code="bad_field")
        if text.strip():
            captions.append(Caption(text, tuple(tag for tag in names if tag in kept)))
    return tuple(captions)


@dataclass(frozen=True, slots=True)
class Target:
    """Label ids that are present, those of unknown truth (None: none), and the doubtful ones.

    A present label is doubtful when people wrote several captions and one alone names it. One that
    a model wrote can confirm a label, but its silence is no reason for doubt.
    """

    present: NDArray[np.int64]
    unknown: NDArray[np.int64] | None
    doubtful: NDArray[np.int64]


class Targets:
    """Tags to label ids; tags outside the label system are left out."""

    def __init__(self, labels: LabelSystem) -> None:
        self.labels = labels
        self._ids = lru_cache(_REMEMBERED_TAGS)(labels.ids)

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, annotation: Annotation) -> Target:
        """The training or validation target of a record."""
        present = self._all_ids(annotation.tags)
        if annotation.negatives is not None:
            known = np.union1d(present, self._all_ids(annotation.negatives))
            unknown = np.setdiff1d(np.arange(len(self.labels)), known)
        else:
            unknown = np.setdiff1d(self._all_ids(annotation.uncertain), present)
        return Target(present, unknown if len(unknown) else None, self._doubtful(annotation))

    def _doubtful(self, annotation: Annotation) -> NDArray[np.int64]:
        written = [caption for caption in annotation.captions if not caption.generated]
        if len(written) < 2:
            return np.zeros(0, np.int64)
        named = np.concatenate([self._all_ids(caption.tags) for caption in annotation.captions])
        ids, times = np.unique(named, return_counts=True)
        doubtful: NDArray[np.int64] = ids[times == 1]
        return doubtful

    def guiding_tags(self, caption: Caption) -> list[str]:
        """The caption's tags as the label system spells them, each once."""
        ids = (self._ids(tag) for tag in caption.tags)
        return list(dict.fromkeys(self.labels[found[0]].tag for found in ids if found))

    def outside(self, counts: Counter[str]) -> tuple[int, int]:
        """How many different tags, and how many mentions, the label system does not have."""
        outside = [number for tag, number in counts.items() if not self.labels.ids(tag)]
        return len(outside), sum(outside)

    def counts(self, counts: Counter[str]) -> NDArray[np.int64]:
        """How many records name each label, (L,), of counts by tag."""
        total = np.zeros(len(self), np.int64)
        for tag, number in counts.items():
            total[list(self._ids(tag))] += number
        return total

    def _all_ids(self, tags: tuple[str, ...]) -> NDArray[np.int64]:
        return np.unique(np.array([i for tag in tags for i in self._ids(tag)], np.int64))
