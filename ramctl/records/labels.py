"""The labels: tags with their kinds, synonyms, relations, curves and thresholds, by id.

A label's id is its line number in `labels.jsonl`, from 0. In systems that we build, no string
occurs twice among tags and synonyms; in a converted one it may (Tag2Text's list does), so ids
identify labels and a string stands for all ids that have it. L labels.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property, lru_cache
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.choices import KINDS
from ramctl.records.files import read_text, write_atomic
from ramctl.records.record import JsonObject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABELS = "labels.jsonl"  # its name in a bundle
# Of a tag where neither the model nor the user has another.
DEFAULT_THRESHOLD = 0.5
LISTS = ("synonyms", "parents", "part_of", "descriptions")  # fields of several strings
NUMBERS = ("count", "threshold", "salience", "headroom", "mention_rate", "rate")
NEVER = 1.0  # the threshold of a label that is not given


class Label(msgspec.Struct, frozen=True):
    """One label; `parents` are tags, nearest first.

    A label that is not `validated` has no evidence (never trained, no teacher): it is given only
    when a user names it. Tags that are `part_of` something come behind all whole things.
    """

    tag: str
    kind: str = "object"
    synonyms: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()
    count: int | None = None
    names: dict[str, str] = {}
    descriptions: tuple[str, ...] = ()
    validated: bool = True
    threshold: float | None = None
    # Its probability is sigmoid(slope x logit + offset); None: the plain sigmoid.
    calibration: tuple[float, float] | None = None
    salience: float | None = None  # of a thing: its weight in what captions name first
    headroom: float | None = None  # how much the tag decoder adds to its logit at most
    mention_rate: float | None = None  # P(a dense caption names it | it is there)
    classes: tuple[int, ...] = ()  # of the backbone that are this label
    rate: float | None = None  # the log-odds of its mean probability on photos of all kinds

    def changed(self, **fields: Any) -> "Label":
        """The label with other values of some fields."""
        return msgspec.structs.replace(self, **fields)

    def to_json(self) -> JsonObject:
        """The label as a line of `labels.jsonl`, without empty fields."""
        row: JsonObject = {"tag": self.tag, "kind": self.kind}
        for name in (*LISTS, *NUMBERS, "calibration", "classes", "names"):
            value = getattr(self, name)
            if value not in ((), {}, None):
                row[name] = list(value) if isinstance(value, tuple) else value
        return row if self.validated else row | {"validated": False}


_decoder = msgspec.json.Decoder(Label)


def _checked(label: Label) -> Label:
    """The label; ValueError with a reason when it is none."""
    if not label.tag.strip():
        raise ValueError("no tag")
    if label.kind not in KINDS:
        raise ValueError(f"kind is not one of {', '.join(KINDS)}")
    return label


@lru_cache(50_000)
def normalise(text: str) -> str:
    """The form in which strings are stored, and compared when an exact lookup finds nothing.

    NFC, case-folded, hyphens and underscores as spaces, single spaces.
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(folded.replace("-", " ").replace("_", " ").split())


class Labels(tuple[Label, ...]):
    """Labels in id order, with lookup by string: exact first, then `normalise`d.

    `rows` are a model's input of each label, where a model is opened: (L, W), or (L, M, E) where
    the photo weighs a label's descriptions.
    """

    rows: "NDArray[np.float32] | None" = None

    @classmethod
    def with_rows(cls, labels: Iterable[Label], rows: "NDArray[np.float32]") -> "Labels":
        """Labels with a model's input of each."""
        made = cls(labels)
        made.rows = rows
        return made

    @property
    def tags(self) -> list[str]:
        """The labels' tags in id order."""
        return [label.tag for label in self]

    @cached_property
    def curves(self) -> "NDArray[np.float64]":
        """The slope and offset (L, 2) of each label; 1 and 0 for a plain sigmoid."""
        import numpy as np

        return np.array([label.calibration or (1.0, 0.0) for label in self], np.float64)

    def numbers(self, name: str, otherwise: float) -> "NDArray[np.float64]":
        """A field of all labels (L,), with a value for those that lack it."""
        import numpy as np

        found = (getattr(label, name) for label in self)
        return np.array([otherwise if x is None else x for x in found], np.float64)

    def with_numbers(self, name: str, values: "NDArray[np.float64]", digits: int) -> "Labels":
        """The labels with a field of each (L,); without it where the value is not finite."""
        fields: list[dict[str, Any]] = [
            {name: round(value, digits) if isfinite(value) else None} for value in values.tolist()
        ]
        return Labels(label.changed(**given) for label, given in zip(self, fields, strict=True))

    def thresholds(self, usual: float) -> "NDArray[np.float64]":
        """The thresholds (L,): a label's own, else the usual one; never without evidence."""
        import numpy as np

        own = self.numbers("threshold", usual)
        return np.where([label.validated for label in self], own, NEVER)

    @cached_property
    def _exact(self) -> dict[str, tuple[int, ...]]:
        return self._index(str)

    @cached_property
    def _loose(self) -> dict[str, tuple[int, ...]]:
        return self._index(normalise)

    def _index(self, form: Callable[[str], str]) -> dict[str, tuple[int, ...]]:
        tags: dict[str, list[int]] = {}
        synonyms: dict[str, list[int]] = {}
        for index, label in enumerate(self):
            tags.setdefault(form(label.tag), []).append(index)
            for synonym in label.synonyms:
                synonyms.setdefault(form(synonym), []).append(index)
        return {text: tuple(ids) for text, ids in (synonyms | tags).items()}

    def ids(self, text: str) -> tuple[int, ...]:
        """All ids that a string stands for; empty when the system does not contain it."""
        return self._exact.get(text) or self._loose.get(normalise(text), ())

    @cached_property
    def _names(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """The ids by language and name, as it is and in normal form."""
        found: dict[tuple[str, str], tuple[int, ...]] = {}
        for index, label in enumerate(self):
            for language, name in label.names.items():
                for text in {name, normalise(name)}:
                    found[language, text] = (*found.get((language, text), ()), index)
        return found

    def by_name(self, text: str, language: str = "") -> tuple[int, ...]:
        """All ids of a name in this language, else of a tag or synonym."""
        exact = self._names.get((language, text)) or self._exact.get(text)
        return exact or self._names.get((language, normalise(text))) or self.ids(text)

    def language_code(self, language: str | None) -> str:
        """The code of a language that labels have names in (`de` for `DE-at`); empty for English.

        UsageProblem for a language without names.
        """
        if language is None:
            return ""
        known = sorted({code for label in self for code in label.names})
        code = language.lower().replace("_", "-")
        if code not in known:
            code = code.partition("-")[0]
        if code == "en" and code not in known:
            return ""
        if code not in known:
            have = f"names in {', '.join(known)}" if known else "no names in other languages"
            raise UsageProblem(f"language {language!r}: the labels have {have}")
        return code

    def extended(self, others: Iterable[Label]) -> "Labels":
        """The labels with the new ones of these at their end; existing ids stay."""
        return Labels([*self, *(label for label in others if not self.ids(label.tag))])

    @cached_property
    def sha256(self) -> str:
        """A hash of tags, kinds and synonyms in order, to which a model's outputs refer."""
        rows = ([label.tag, label.kind, list(label.synonyms)] for label in self)
        return hashlib.sha256(b"".join(orjson.dumps(row) + b"\n" for row in rows)).hexdigest()

    def to_bytes(self) -> bytes:
        """The content of `labels.jsonl`."""
        return b"".join(orjson.dumps(label.to_json()) + b"\n" for label in self)

    def write(self, path: Path) -> None:
        """Write `labels.jsonl`, whole or not at all."""
        write_atomic(path, self.to_bytes())

    @classmethod
    def from_tags(cls, tags: Iterable[str]) -> "Labels":
        """A system of bare tags."""
        return cls(map(Label, tags))

    @classmethod
    def read(cls, path: Path) -> "Labels":
        """The labels of a `labels.jsonl`, a bundle's folder or a plain word list (one a line).

        In a word list `#` begins a comment. Raises UsageProblem where there is none, RunProblem
        naming file and line for anything else.
        """
        path = path / LABELS if path.is_dir() else path
        labels, text = [], read_text(path)
        if text.startswith("{"):
            with suppress(ValueError, TypeError):  # whose line is found below
                return cls(map(_checked, _decoder.decode_lines(text)))
        for number, line in enumerate(text.split("\n"), 1):
            try:
                if line.lstrip().startswith("{"):
                    labels.append(_checked(_decoder.decode(line)))
                elif (word := line.strip()) and not word.startswith("#"):
                    labels.append(Label(word))
            except (ValueError, TypeError) as error:
                raise RunProblem(f"{path}:{number}: not a label: {error}") from error
        if not labels:
            raise RunProblem(f"{path}: no labels in it")
        return cls(labels)
