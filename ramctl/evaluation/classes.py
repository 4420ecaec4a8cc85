"""The classes of an evaluation: their list, and the tags that stand for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ramctl.records.files import read_pairs
from ramctl.records.labels import Labels, normalise


@dataclass(frozen=True)
class Classes:
    """The classes in order, and which tags of a prediction count for each.

    `origin` is the file that lists them, or None when they are all tags of the truth. `mapping` has
    the lines of `--map` by class; `tag_system` is the label system of the predictions where its
    synonyms are known.
    """

    system: Labels
    origin: str | None
    mapping: Mapping[str, list[str]]
    tag_system: Labels | None = None
    _found: dict[str, tuple[int, ...]] = field(default_factory=dict, init=False, compare=False)

    def __len__(self) -> int:
        return len(self.system)

    @property
    def names(self) -> list[str]:
        """The names of the classes in order."""
        return self.system.tags

    def tags(self, index: int) -> list[str]:
        """The strings that stand for a class: its line of the map, else its name and synonyms."""
        label = self.system[index]
        return self._lines[index] or [label.tag, *label.synonyms]

    @cached_property
    def _lines(self) -> list[list[str]]:
        """The line of the map for each class; empty where it has none."""
        lines = {normalise(name): tags for name, tags in self.mapping.items()}
        return [lines.get(normalise(name), []) for name in self.names]

    @cached_property
    def _by_line(self) -> dict[str, list[int]]:
        """The classes whose lines of the map hold a string in normal form."""
        classes: dict[str, list[int]] = {}
        for c, tags in enumerate(self._lines):
            for tag in tags:
                classes.setdefault(normalise(tag), []).append(c)
        return classes

    def matching_tag(self, tag: str) -> tuple[int, ...]:
        """The classes that a predicted tag counts for, in order.

        Those whose line of the map names it, and those without a line that it stands for in the
        truth; where the predictions' label system is known, its label's other names count as well.
        """
        if tag not in self._found:
            names, system = {tag}, self.tag_system or Labels(())
            for number in system.ids(tag):
                others = (system[number].tag, *system[number].synonyms)
                # A synonym that is a tag too stands for that tag alone.
                names.update(name for name in others if number in system.ids(name))
            by_line = {c for name in names for c in self._by_line.get(normalise(name), ())}
            by_name = {c for name in names for c in self.system.ids(name)}
            self._found[tag] = tuple(sorted(by_line | {c for c in by_name if not self._lines[c]}))
        return self._found[tag]


def read_map(path: Path | None) -> dict[str, list[str]]:
    """The lines `class<TAB>tag|tag` of `--map`; RunProblem naming a line that has another form."""
    mapping: dict[str, list[str]] = {}
    for _, name, rest in read_pairs(path, "class<TAB>tag|tag") if path else ():
        mapping.setdefault(name, []).extend(tag.strip() for tag in rest.split("|") if tag.strip())
    return mapping
