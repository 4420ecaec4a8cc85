"""A label system from the keywords of photos, or from a list of keywords."""

from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from ramctl.errors import RunProblem
from ramctl.export.sidecar_merge import PEOPLE
from ramctl.labels import Label, LabelSystem, normalise
from ramctl.records.fields import string_list
from ramctl.records.files import read_lines
from ramctl.records.record import HUMAN, JsonObject, object_in

MAX_PARENTS = 100  # of a word, the nearest: a path of n words has n * n / 2 in all


class Vocabulary:
    """Collects words with the parents of their first path; `people` includes names."""

    def __init__(self, *, people: bool = False) -> None:
        self._people = people
        self._labels: dict[str, Label] = {}  # by their words, normalised

    def add_record(self, fields: JsonObject) -> None:
        """Add the tags of a record that a person gave, with their parents.

        RecordProblem for fields of the wrong type.
        """
        sources, parents = object_in(fields, "sources"), object_in(fields, "parents")
        for tag in (tag for tag in sources if HUMAN in string_list(sources, tag)):
            if label := self._add([*string_list(parents, tag)[::-1], tag]):
                label = replace(label, count=(label.count or 0) + 1)
                self._labels[normalise(tag)] = label

    def add_list(self, path: Path) -> None:
        """Add a list of keywords of Lightroom or darktable, or any indented list.

        A word is below the last one with less indentation. `{word}` is a synonym of the word above,
        and `[word]` is no keyword, but has keywords below it. RunProblem for a list without any.
        """
        above: list[tuple[int, str]] = []  # indents and words
        hidden: set[str] = set()
        for line in read_lines(path):
            if not (text := line.strip().lstrip("~")):  # darktable's mark for an unsorted branch
                continue
            indent = len(line) - len(line.lstrip())
            while above and above[-1][0] >= indent:
                above.pop()
            word = text[1:-1].strip()
            if text[0] + text[-1] == "{}":
                if label := self._add([word for _, word in above], hidden):
                    label = replace(label, synonyms=(*label.synonyms, word))
                    self._labels[normalise(label.tag)] = label
                continue
            if text[0] + text[-1] == "[]":
                hidden.add(text := word)
            above.append((indent, text))
            self._add([word for _, word in above], hidden)
        if not self._labels:
            raise RunProblem(f"{path}: no keywords in it")

    def _add(self, path: Sequence[str], hidden: Container[str] = ()) -> Label | None:
        """Add the missing words of a path; the label of the last, if it is a keyword."""
        label, is_excluded = None, False
        above: list[tuple[str, str]] = []  # words, and the form in which they are compared
        for tag in path:
            key, label = normalise(tag), None
            is_hidden = tag in hidden
            is_keyword = any(map(str.isalpha, tag)) and not (is_excluded or is_hidden)
            if is_keyword and not (label := self._labels.get(key)):
                nearest = [word for word, other in above[: -MAX_PARENTS - 1 : -1] if other != key]
                label = self._labels[key] = Label(tag, parents=tuple(nearest))
            above += [] if is_hidden else [(tag, key)]
            is_excluded |= key in PEOPLE and not self._people
        return label

    def labels(self) -> LabelSystem:
        """The label system, words in order of appearance; no string is in it twice."""
        labels, taken = [], set(self._labels)
        for label in self._labels.values():
            free = {normalise(word): word for word in label.synonyms}
            free = {key: word for key, word in free.items() if key not in taken}
            taken.update(free)
            labels.append(replace(label, synonyms=tuple(free.values())))
        return LabelSystem(labels)
