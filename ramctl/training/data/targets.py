"""Tags to label ids: the label system of a run, and what each record says about its labels."""

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RunProblem
from ramctl.labels import Label, LabelSystem, normalise
from ramctl.records.record import KINDS, Record
from ramctl.training.data.annotations import Annotation, Caption

MOST_LABELS = 5000
FEW_RECORDS = 1000
FEWEST_MENTIONS = 5  # records that must name a tag for it to become a label
FEWEST_MENTIONS_OF_FEW = 2  # the same with fewer than FEW_RECORDS records
REMEMBERED_TAGS = 200_000

Ids = NDArray[np.int64]


@dataclass(slots=True)
class TagCounts:
    """How many records name each tag, and as which kind; how many records and captions."""

    n_records: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    n_captions: int = 0

    def add(self, record: Record, annotation: Annotation) -> None:
        """Count one record."""
        self.n_records += 1
        self.n_captions += len(annotation.captions)
        kinds = record.fields.get("kinds")
        known = self.tags
        # Several spellings of one tag count once a record; the last one looks up the kind.
        spellings = {t if t in known else normalise(t): t for t in annotation.tags if t.strip()}
        for tag, spelling in spellings.items():
            known[tag] += 1
            kind = kinds.get(spelling) if isinstance(kinds, dict) else None
            if kind in KINDS:
                self.kinds[tag, kind] += 1

    def merge(self, others: "TagCounts") -> None:
        """Add the counts of other records."""
        self.n_records += others.n_records
        self.tags.update(others.tags)
        self.kinds.update(others.kinds)
        self.n_captions += others.n_captions


def build_labels(counts: TagCounts) -> LabelSystem:
    """The tags that enough records name, most frequent first, at most 5,000.

    Raises RunProblem when there is none.
    """
    few = counts.n_records < FEW_RECORDS
    fewest = FEWEST_MENTIONS_OF_FEW if few else FEWEST_MENTIONS
    named = [(tag, n) for tag, n in counts.tags.items() if n >= fewest]
    if not named:
        raise RunProblem(
            f"no tag is named in {fewest} records or more: nothing to learn "
            "(has `ramctl parse` run over the captions?)"
        )
    named.sort(key=lambda item: (-item[1], item[0]))
    return LabelSystem(
        Label(tag, max(KINDS, key=lambda kind: counts.kinds[tag, kind]), count=n)
        for tag, n in named[:MOST_LABELS]
    )


def append_labels(labels: LabelSystem, path: Path) -> LabelSystem:
    """The label system with the file's new labels at its end; existing ids stay."""
    added = [label for label in LabelSystem.read(path) if not labels.ids(label.tag)]
    return LabelSystem([*labels, *added])


@dataclass(frozen=True, slots=True)
class Target:
    """What a record says about the labels: ids of present, unknown and doubtful ones.

    A present label is doubtful when a photo has several human-written captions and only one
    caption names the label, or when only the data engine's model gave it. A generated caption can
    confirm a label, but its silence casts no doubt: models leave out more than people do.
    """

    present: Ids
    unknown: Ids
    doubtful: Ids
    implied: Ids  # ancestors of the present labels, unless they are present too
    denied: Ids  # known to be absent


class Targets:
    """Translates tags to label ids; tags outside the label system are dropped."""

    def __init__(self, labels: LabelSystem) -> None:
        self.labels = labels
        self._ids = lru_cache(REMEMBERED_TAGS)(labels.ids)

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, annotation: Annotation) -> Target:
        """The training or validation target of a record."""
        present, denied = self._all_ids(annotation.tags), np.zeros(0, np.int64)
        if annotation.negatives is not None:
            denied = np.setdiff1d(self._all_ids(annotation.negatives), present)
            known = np.union1d(present, denied)
            unknown = np.setdiff1d(np.arange(len(self.labels)), known)
        else:
            unknown = np.setdiff1d(self._all_ids(annotation.uncertain), present)
        ancestors = tuple(tag for i in present.tolist() for tag in self.labels[i].parents)
        implied = np.setdiff1d(self._all_ids(ancestors), present)
        return Target(present, unknown, self._doubtful(annotation), implied, denied)

    def _doubtful(self, annotation: Annotation) -> Ids:
        told = tuple(tag for tag in annotation.tags if tag not in annotation.guessed)
        guessed = np.setdiff1d(self._all_ids(annotation.guessed), self._all_ids(told))
        if annotation.n_written < 2:
            return guessed
        named = np.concatenate([self._all_ids(caption.tags) for caption in annotation.captions])
        ids, times = np.unique(named, return_counts=True)
        return np.union1d(guessed, ids[times == 1])

    def guiding_tags(self, caption: Caption, *, in_label_order: bool = False) -> list[str]:
        """The caption's tags as the label system spells them, each once."""
        ids = [found[0] for tag in caption.tags if (found := self._ids(tag))]
        ordered = sorted(ids) if in_label_order else ids
        return list(dict.fromkeys(self.labels[index].tag for index in ordered))

    def outside(self, counts: Counter[str]) -> tuple[int, int]:
        """(distinct tags, mentions) that the label system does not have."""
        outside = [number for tag, number in counts.items() if not self.labels.ids(tag)]
        return len(outside), sum(outside)

    def counts(self, counts: Counter[str]) -> Ids:
        """How many records name each label (L,), from counts by tag."""
        total = np.zeros(len(self), np.int64)
        for tag, number in counts.items():
            total[list(self._ids(tag))] += number
        return total

    def _all_ids(self, tags: tuple[str, ...]) -> Ids:
        return np.unique(np.array([i for tag in tags for i in self._ids(tag)], np.int64))
