"""The label system of a training run: given, taken over, appended to, or built from the tags."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ramctl.errors import RunProblem
from ramctl.labels import Label, LabelSystem, normalise
from ramctl.records.record import KINDS, Record
from ramctl.training.annotations import Annotation

MOST_LABELS = 5000
FEW_RECORDS = 1000
FEWEST_MENTIONS = 5  # records that must name a tag
FEWEST_MENTIONS_OF_FEW = 2  # the same when there are fewer than FEW_RECORDS records


@dataclass(slots=True)
class TagCounts:
    """How many records name each tag, and as which kind."""

    n_records: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, record: Record, annotation: Annotation) -> None:
        """Count one record."""
        self.n_records += 1
        kinds = record.fields.get("kinds")
        for tag in {normalise(tag): tag for tag in annotation.tags if tag.strip()}.items():
            self.tags[tag[0]] += 1
            kind = kinds.get(tag[1]) if isinstance(kinds, dict) else None
            if kind in KINDS:
                self.kinds[tag[0], kind] += 1


def build_labels(counts: TagCounts) -> LabelSystem:
    """The tags that enough records name, most frequent first, 5,000 at most.

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
    return LabelSystem(Label(tag, _kind(tag, counts), count=n) for tag, n in named[:MOST_LABELS])


def _kind(tag: str, counts: TagCounts) -> str:
    return max(KINDS, key=lambda kind: counts.kinds[tag, kind])


def append_labels(labels: LabelSystem, path: Path) -> LabelSystem:
    """The system with the file's labels that it does not have yet at its end; ids stay."""
    added = [label for label in LabelSystem.read(path) if not labels.ids(label.tag)]
    return LabelSystem([*labels, *added])
