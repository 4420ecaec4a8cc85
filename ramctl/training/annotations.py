"""The records of a run: each is checked once, and becomes a line of `records.jsonl`.

From then on it is read by its number, and only its place is in memory. N records.
"""

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import FileIO
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RecordProblem, RunProblem
from ramctl.records import record as record_fields
from ramctl.records.choices import KINDS
from ramctl.records.inputs import photo_base, read_inputs
from ramctl.records.labels import Label, Labels, normalise
from ramctl.records.record import JsonObject, Reject, listed, shown_name
from ramctl.records.report import Rejects
from ramctl.records.signals import raise_if_stopped

MAX_LABELS = 5000
FEW_RECORDS = 1000
MIN_MENTIONS = 5  # records that must name a tag for it to become a label
MIN_MENTIONS_IN_FEW = 2  # the same with fewer than FEW_RECORDS records
# Scores are calibrated by photos that are never trained on: one part of them, or as many parts as
# give a sufficient number.
PARTS = 50  # of the photos, by a hash of their names
MAX_PARTS = 5  # that are held out
SLOTS = 1000  # of a part, by which a large part is cut down
MAX_HELD_OUT = 5000
SUFFICIENT_HELD_OUT = 100
MIN_HELD_OUT = 50  # with fewer photos, curves would be guesses: nothing is held out
NO_SLOT = PARTS * SLOTS  # of photos that are never held out

NO_TAGS = "no tags field (ramctl parse writes it), or only a tagger's, beside its scores"

Ids = NDArray[np.int64]


class Caption(msgspec.Struct, frozen=True, array_like=True):
    """A caption, and the record's tags that it names."""

    text: str
    tags: tuple[str, ...]
    generated: bool = False


class Annotation(msgspec.Struct, frozen=True, array_like=True):
    """The content of a record that training uses; line `line` of the input number `source`.

    `is_tagged` is False for records without certain tags, which only a teacher can complete.
    `negatives`, where given, are the only tags known to be absent: unlisted ones are unknown.
    `uncertain` tags count neither way. `main` are the main subjects, None where unknown.
    """

    image: str
    tags: tuple[str, ...]
    captions: tuple[Caption, ...] = ()
    negatives: tuple[str, ...] | None = None
    uncertain: tuple[str, ...] = ()
    is_tagged: bool = True
    main: tuple[str, ...] | None = None
    source: int = 0
    line: int | None = None


def read_annotation(
    fields: JsonObject, source: int = 0, line: int | None = None, takes_untagged: bool = False
) -> Annotation:
    """The annotation of a record's fields; RecordProblem where one is not possible."""
    image = record_fields.image_name(fields)
    has_tags = record_fields.is_tagged(fields)
    tags = tuple(listed(fields, "tags")) if has_tags else ()
    written = _captions(record_fields.captions_of(fields), fields, "", tags)
    generated = _captions(listed(fields, "generated_captions"), fields, "generated_", tags)
    negatives = tuple(listed(fields, "negatives")) if "negatives" in fields else None
    if (decided := record_fields.decided_tags(fields)) is not None:
        kept, refused = decided
        tags, has_tags = tuple(dict.fromkeys([*tags, *kept])), True
        negatives = (*(negatives or ()), *refused)
    if not (has_tags or takes_untagged):
        raise RecordProblem(NO_TAGS, code="missing_field")
    uncertain = tuple(listed(fields, "uncertain"))
    main = tuple(listed(fields, "main")) if "main" in fields else None
    return Annotation(
        image, tags, written + generated, negatives, uncertain, has_tags, main, source, line
    )


def _captions(
    texts: list[str], fields: JsonObject, origin: str, tags: tuple[str, ...]
) -> tuple[Caption, ...]:
    """Each caption with the tags it names; with all tags where the record does not list them."""
    name, by_caption = f"{origin}caption_tags", [tags] * len(texts)
    if fields.get(name) is not None:
        # `clean` may have removed a tag from the record after the caption was parsed.
        kept, listed_tags = set(tags), record_fields.lists_in(fields, name)
        by_caption = [tuple(tag for tag in names if tag in kept) for names in listed_tags]
    if len(by_caption) != len(texts):
        raise RecordProblem(f"{name} is not a list parallel to the captions", code="bad_field")
    pairs = zip(texts, by_caption, strict=True)
    return tuple(Caption(text, names, bool(origin)) for text, names in pairs if text.strip())


@dataclass(slots=True)
class TagCounts:
    """How many records name each tag, and as which kind; how many records and captions."""

    n_records: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    n_captions: int = 0

    def add(self, note: Annotation, kinds: dict[str, str]) -> None:
        """Count a record with the kinds of its tags."""
        self.n_records += 1
        self.n_captions += len(note.captions)
        known = self.tags
        # Several spellings of one tag count once a record; the last one looks up the kind.
        spellings = {t if t in known else normalise(t): t for t in note.tags if t.strip()}
        for tag, spelling in spellings.items():
            known[tag] += 1
            if (kind := kinds.get(spelling)) in KINDS:
                self.kinds[tag, kind] += 1


@dataclass(frozen=True)
class Records:
    """The annotations of a run by number, in a file. Safe in forked worker processes."""

    path: Path
    inputs: Sequence[tuple[str, Path]]  # name, and base of its relative photo names
    offsets: Ids  # (N + 1,) of the lines in the file
    held_out: NDArray[np.bool_]  # (N,) only validated on
    counts: TagCounts
    n_lines: int  # of the inputs, good or bad
    rejected: set[int] = field(default_factory=set)  # reported once, not in every epoch

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Annotation:
        start, end = self.offsets[index : index + 2].tolist()
        line = os.pread(self._file.fileno(), end - start, start)
        return msgspec.json.decode(line, type=Annotation)

    def base(self, note: Annotation) -> Path:
        """The folder of an annotation's photo, if its name is relative."""
        return self.inputs[note.source][1]

    def reject(self, problems: Mapping[int, RecordProblem], rejects: Rejects) -> None:
        """Report records that cannot be used, by their numbers, each once a run."""
        for index in sorted(problems.keys() - self.rejected):
            note, why = self[index], problems[index]
            record = {"image": note.image, "tags": list(note.tags)}
            name, stage = shown_name(self.inputs[note.source][0]), rejects.report.command
            rejects.add(Reject(name, note.line, stage, why.code, why.message, record))
        self.rejected.update(problems)

    @cached_property
    def _file(self) -> FileIO:
        return FileIO(self.path)


def read_records(
    path: Path, inputs: Sequence[str], root: str | None, on_reject: Callable[[Reject], None],
    stage: str, *, hold_out: bool = False, takes_untagged: bool = False,
) -> Records:  # fmt: skip
    """Read all inputs once, and write their annotations to `path`.

    With `hold_out`, 2 to 10 % of the photos are set aside, 5,000 at most, unless these are too few
    to choose thresholds on. With `takes_untagged`, records without tags are trained on too.
    RunProblem when there is no record.
    """
    places = [(name, photo_base(name, root)) for name in inputs]
    counts = TagCounts()
    offsets, slots, n_lines = array("q", [0]), array("H"), 0
    with path.open("wb") as file:
        for source, name in enumerate(inputs):
            for item in read_inputs([name], root, stage):
                raise_if_stopped()
                n_lines += 1
                if isinstance(item, Reject):
                    on_reject(item)
                    continue
                try:
                    note = read_annotation(item.fields, source, item.line, takes_untagged)
                    kinds = record_fields.kinds_of(item.fields)
                except RecordProblem as problem:
                    on_reject(Reject.of(item, problem, stage))
                    continue
                offsets.append(offsets[-1] + file.write(msgspec.json.encode(note) + b"\n"))
                counts.add(note, kinds)
                slots.append(_slot(note.image) if note.is_tagged else NO_SLOT)
    if not slots:
        raise RunProblem(f"no usable records in {', '.join(map(shown_name, inputs[:3]))}")
    held_out = np.zeros(len(slots), bool)
    if hold_out:
        held_out = _held_out(np.frombuffer(slots, np.uint16))
    return Records(path, places, np.frombuffer(offsets, np.int64), held_out, counts, n_lines)


def _held_out(slots: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Which records (N,) are held out: those of the first few parts of the photos."""
    limits = range(SLOTS, MAX_PARTS * SLOTS + 1, SLOTS)
    numbers = [(int((slots < limit).sum()), limit) for limit in limits]
    number, limit = next((x for x in numbers if x[0] >= SUFFICIENT_HELD_OUT), numbers[-1])
    if number > MAX_HELD_OUT:
        limit = int(np.partition(slots, MAX_HELD_OUT)[MAX_HELD_OUT])
    return slots < (limit if number >= MIN_HELD_OUT else 0)


def _slot(image: str) -> int:
    """The slot of a photo, by a hash of its name: it stays on its side when records are added."""
    digest = hashlib.blake2b(image.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    slot, part = divmod(int.from_bytes(digest, "little"), PARTS)
    return part * SLOTS + slot % SLOTS


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
