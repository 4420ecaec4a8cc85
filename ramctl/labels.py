"""The label system: tags with their kinds, synonyms, relations and thresholds, by id.

A label's id is its line number in `labels.jsonl`, from 0. In systems that we build, no string
occurs twice among tags and synonyms; in a converted one it may (Tag2Text's list does), so ids
identify labels and a string stands for all ids that have it.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import orjson

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.files import read_text, write_atomic
from ramctl.records.record import KINDS, JsonObject

LABELS = "labels.jsonl"  # its name in a bundle
# Of a tag where neither the model nor the user has another.
DEFAULT_THRESHOLD = 0.5
LISTS = ("synonyms", "parents", "one_of", "part_of", "descriptions")  # fields of several strings


@dataclass(frozen=True, slots=True)
class Label:
    """One label; `parents` are tags, nearest first.

    A label that is not `validated` has no evidence (never trained, no teacher): it is given only
    when a user names it. Of the labels of one set in `one_of` (the colours) a photo gets one by
    default; parts of something, one at most, and only beside one of the labels that they are
    `part_of` or a kind of it.
    """

    tag: str
    kind: str = "object"
    synonyms: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    count: int | None = None
    threshold: float | None = None
    names: dict[str, str] = field(default_factory=dict)
    descriptions: tuple[str, ...] = ()
    validated: bool = True
    one_of: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        """The label as a line of `labels.jsonl`, without empty fields."""
        row: JsonObject = {"tag": self.tag, "kind": self.kind}
        for name in (*LISTS, "count", "threshold", "names"):
            value = getattr(self, name)
            if value not in ((), {}, None):
                row[name] = list(value) if isinstance(value, tuple) else value
        return row if self.validated else row | {"validated": False}

    @classmethod
    def from_json(cls, row: JsonObject) -> "Label":
        """The label in one line; ValueError with a reason when a field has the wrong type."""
        tag, kind = row.get("tag"), row.get("kind", "object")
        if not isinstance(tag, str) or not tag.strip():
            raise ValueError("no tag")
        if kind not in KINDS:
            raise ValueError(f"kind is not one of {', '.join(KINDS)}")
        lists = {}
        for name in LISTS:
            value = row.get(name) or []
            if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                raise ValueError(f"{name} is not a list of strings")
            lists[name] = tuple(value)
        count = row.get("count")
        if count is not None and (not isinstance(count, int) or count < 0):
            raise ValueError("count is not a whole number")
        if not isinstance(row.get("names") or {}, dict):
            raise ValueError("names are not a table")
        threshold = row.get("threshold")
        if threshold is not None and not isinstance(threshold, int | float):
            raise ValueError("threshold is not a number")
        return cls(
            tag, kind, count=count, threshold=threshold,
            names=row.get("names") or {}, validated=row.get("validated") is not False, **lists,
        )  # fmt: skip


def normalise(text: str) -> str:
    """The form in which strings are stored, and compared when an exact lookup finds nothing.

    NFC, case-folded, hyphens and underscores as spaces, single spaces.
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(folded.replace("-", " ").replace("_", " ").split())


class Labels(tuple[Label, ...]):
    """Labels in id order, with lookup by string: exact first, then `normalise`d."""

    @property
    def tags(self) -> list[str]:
        """The labels' tags in id order."""
        return [label.tag for label in self]

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
        known = sorted({code for label in self for code in label.names})
        code = (language or "").lower().replace("_", "-")
        if language is not None and code not in known:
            code = code.partition("-")[0]
        if code == "en" and code not in known:
            return ""
        if language is not None and code not in known:
            have = f"names in {', '.join(known)}" if known else "no names in other languages"
            raise UsageProblem(f"language {language!r}: the labels have {have}")
        return code

    def canonical(self, text: str) -> str | None:
        """The tag that a tag or synonym stands for, as stored."""
        ids = self.ids(text)
        return self[ids[0]].tag if ids else None

    def extended(self, others: Iterable[Label]) -> "Labels":
        """The system with the new ones of these labels at its end; existing ids stay."""
        return Labels([*self, *(label for label in others if not self.ids(label.tag))])

    @cached_property
    def sha256(self) -> str:
        """A hash of tags, kinds and synonyms in order, to which a model's outputs refer."""
        digest = hashlib.sha256()
        for label in self:
            digest.update(orjson.dumps([label.tag, label.kind, list(label.synonyms)]) + b"\n")
        return digest.hexdigest()

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
        """The system in a `labels.jsonl`, a bundle's folder or a plain word list (one a line).

        Raises UsageProblem where there is none, RunProblem naming file and line for anything else.
        """
        path = path / LABELS if path.is_dir() else path
        labels = []
        for number, line in enumerate(read_text(path).split("\n"), 1):
            try:
                if line.lstrip().startswith("{"):
                    labels.append(Label.from_json(orjson.loads(line)))
                elif line.strip():
                    labels.append(Label(line.strip()))
            except ValueError as error:
                raise RunProblem(f"{path}:{number}: not a label: {error}") from error
        if not labels:
            raise RunProblem(f"{path}: no labels in it")
        return cls(labels)
