"""The annotation of a record, and the labels that are present, absent or unknown by it.

L labels.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RecordProblem, RunProblem
from ramctl.inference.salience import THINGS
from ramctl.labels import Label, Labels, normalise
from ramctl.records.record import (
    KINDS,
    JsonObject,
    Record,
    captions_of,
    decided_tags,
    image_name,
    is_tagged,
    kinds_of,
    listed,
    lists_in,
)

MAX_LABELS = 5000
FEW_RECORDS = 1000
MIN_MENTIONS = 5  # records that must name a tag for it to become a label
MIN_MENTIONS_IN_FEW = 2  # the same with fewer than FEW_RECORDS records
# Later mentions count less by this power; the first thing alone finds fewer main things.
PLACE_EXPONENT = 3.0

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption, and the record's tags that it names."""

    text: str
    tags: tuple[str, ...]
    generated: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """The content of a record that training uses.

    `is_tagged` is False for records without certain tags, which only a teacher can complete.
    `negatives`, where given, are the only tags known to be absent: unlisted ones are unknown.
    `uncertain` tags count neither way. `main` are the main subjects of the photo, None where
    unknown. Photos of one `group` are alike.
    """

    image: str
    base: Path
    tags: tuple[str, ...]
    captions: tuple[Caption, ...]
    negatives: tuple[str, ...] | None
    uncertain: tuple[str, ...]
    is_tagged: bool = True
    main: tuple[str, ...] | None = None
    group: str | None = None

    def require_tags(self) -> None:
        """RecordProblem for a record without certain tags."""
        if not self.is_tagged:
            lack = "no tags field (ramctl parse writes it), or only a tagger's, beside its scores"
            raise RecordProblem(lack, code="missing_field")


def read_annotation(record: Record) -> Annotation:
    """The annotation of a record; RecordProblem where one is not possible."""
    fields = record.fields
    image = image_name(fields)
    has_tags = is_tagged(fields)
    tags = tuple(listed(fields, "tags")) if has_tags else ()
    written = _captions(captions_of(fields), fields, "caption_tags", tags)
    generated = _captions(
        listed(fields, "generated_captions"), fields, "generated_caption_tags", tags,
        generated=True,
    )  # fmt: skip
    negatives = tuple(listed(fields, "negatives")) if "negatives" in fields else None
    if (decided := decided_tags(fields)) is not None:
        kept, refused = decided
        tags, has_tags = tuple(dict.fromkeys([*tags, *kept])), True
        negatives = (*(negatives or ()), *refused)
    uncertain = tuple(listed(fields, "uncertain"))
    main = tuple(listed(fields, "main")) if "main" in fields else None
    group = fields.get("group")
    return Annotation(
        image, record.base, tags, written + generated, negatives, uncertain,
        has_tags, main, group if isinstance(group, str) else None,
    )  # fmt: skip


def _captions(
    texts: list[str], fields: JsonObject, name: str, tags: tuple[str, ...],
    *, generated: bool = False,
) -> tuple[Caption, ...]:  # fmt: skip
    """Each caption with the tags it names; with all tags where the record does not list them."""
    if fields.get(name) is None:
        return tuple(Caption(text, tags, generated) for text in texts if text.strip())
    by_caption = lists_in(fields, name)
    if len(by_caption) != len(texts):
        raise RecordProblem(f"{name} is not a list parallel to the captions", code="bad_field")
    kept, captions = set(tags), []
    for text, names in zip(texts, by_caption, strict=True):
        if text.strip():
            # `clean` may have removed a tag from the record after the caption was parsed.
            captions.append(Caption(text, tuple(t for t in names if t in kept), generated))
    return tuple(captions)


@dataclass(slots=True)
class TagCounts:
    """How many records name each tag, and as which kind; how many records and captions."""

    n_records: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    n_captions: int = 0

    def add(self, record: Record, annotation: Annotation) -> None:
        self.n_records += 1
        self.n_captions += len(annotation.captions)
        kinds = kinds_of(record.fields)
        known = self.tags
        # Several spellings of one tag count once a record; the last one looks up the kind.
        spellings = {t if t in known else normalise(t): t for t in annotation.tags if t.strip()}
        for tag, spelling in spellings.items():
            known[tag] += 1
            if (kind := kinds.get(spelling)) in KINDS:
                self.kinds[tag, kind] += 1


def build_labels(counts: TagCounts) -> Labels:
    """The tags that enough records name, most frequent first, at most 5,000.

    Raises RunProblem when there is none.
    """
    min_records = MIN_MENTIONS_IN_FEW if counts.n_records < FEW_RECORDS else MIN_MENTIONS
    frequent = [(tag, n) for tag, n in counts.tags.items() if n >= min_records]
    if not frequent:
        raise RunProblem(
            f"no tag is named in {min_records} records or more: nothing to learn "
            "(has `ramctl parse` run over the captions?)"
        )
    frequent.sort(key=lambda item: (-item[1], item[0]))
    return Labels(
        Label(tag, max(KINDS, key=lambda kind: counts.kinds[tag, kind]), count=n)
        for tag, n in frequent[:MAX_LABELS]
    )


@dataclass(frozen=True, slots=True)
class Target:
    """Ids of the labels that are present in a photo by its record, absent, or unknown."""

    present: Ids
    unknown: Ids
    implied: Ids  # ancestors of the present labels, unless they are present too
    denied: Ids  # known to be absent


class Targets:
    """Translates tags to label ids; tags outside the label system are dropped."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, annotation: Annotation) -> Target:
        """The training or validation target of a record."""
        present, denied = self._all_ids(annotation.tags), np.zeros(0, np.int64)
        if annotation.negatives is not None:
            denied = np.setdiff1d(self._all_ids(annotation.negatives), present)
            unknown = np.setdiff1d(np.arange(len(self.labels)), np.union1d(present, denied))
        else:
            unknown = np.setdiff1d(self._all_ids(annotation.uncertain), present)
        ancestors = tuple(tag for i in present.tolist() for tag in self.labels[i].parents)
        implied = np.setdiff1d(self._all_ids(ancestors), present)
        return Target(present, unknown, implied, denied)

    def guiding_tags(self, caption: Caption, *, in_label_order: bool = False) -> list[str]:
        """The caption's tags as the label system spells them, each once."""
        ids = [ids[0] for ids in map(self.labels.ids, caption.tags) if ids]
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
            total[list(self.labels.ids(tag))] += number
        return total

    def _all_ids(self, tags: tuple[str, ...]) -> Ids:
        return np.unique(np.array([i for tag in tags for i in self.labels.ids(tag)], np.int64))


def things_in_order(caption: Caption, targets: Targets) -> list[int]:
    """The labels of the things in a caption, in its order."""
    ids = (targets.labels.ids(tag)[:1] for tag in caption.tags)
    indices = dict.fromkeys(index for label_ids in ids for index in label_ids)
    return [index for index in indices if targets.labels[index].kind in THINGS]


def main_things(annotation: Annotation, targets: Targets) -> list[int]:
    """The labels of a photo's main things: its record's, else what its captions name first."""
    if annotation.main is not None:
        return [index for tag in annotation.main for index in targets.labels.ids(tag)]
    by_caption = (things_in_order(c, targets) for c in annotation.captions if not c.generated)
    return [things[0] for things in by_caption if things]


def mentions(annotation: Annotation, targets: Targets) -> NDArray[np.float32]:
    """How early and often people's captions name each label (L,): 1, 1/8, 1/27, ... by place."""
    weights = np.zeros(len(targets), np.float32)
    for caption in annotation.captions:
        if not caption.generated:
            for place, index in enumerate(things_in_order(caption, targets), 1):
                weights[index] += place**-PLACE_EXPONENT
    return weights
