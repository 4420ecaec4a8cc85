"""The classes of an evaluation: their list, and the tags that stand for them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ramctl.errors import RunProblem
from ramctl.labels import Labels, normalise
from ramctl.records.files import read_pairs


@dataclass(frozen=True)
class Classes:
    """The classes in order, and which tags of a prediction count for each.

    `origin` is the file that lists them, or None when they are all tags of the truth. `mapping` has
    the lines of `--map` by class; `tag_system` is the label system of the predictions where its
    synonyms are known.
    """

    system: Labels
    origin: str | None
    mapping: dict[str, list[str]]
    tag_system: Labels | None = None
    _by_tag: dict[str, tuple[int, ...]] = field(default_factory=dict, init=False, compare=False)

    def __len__(self) -> int:
        return len(self.system)

    @property
    def names(self) -> list[str]:
        """The names of the classes in order."""
        return self.system.tags

    @property
    def sha256(self) -> str:
        """The hash of the names, one a line, as `sha256sum` prints it for such a file."""
        return hashlib.sha256("".join(f"{name}\n" for name in self.names).encode()).hexdigest()

    def tags(self, index: int) -> list[str]:
        """The strings that stand for a class: its line of the map, else its name and synonyms."""
        label = self.system[index]
        return self._mapped(index) or [label.tag, *label.synonyms]

    def _mapped(self, index: int) -> list[str] | None:
        name = self.system[index].tag
        return self._mapping.get(name) or self._mapping.get(normalise(name))

    @cached_property
    def _mapping(self) -> dict[str, list[str]]:
        return {normalise(name): tags for name, tags in self.mapping.items()} | self.mapping

    def matching_tag(self, tag: str) -> tuple[int, ...]:
        """The classes that a predicted tag counts for, in order.

        Those whose line of the map names it, and those without a line that it stands for in the
        truth; where the predictions' label system is known, its label's other names count as well.
        """
        if tag not in self._by_tag:
            by_map = {c for name in self._names_of(tag) for c in self._matching(name)}
            self._by_tag[tag] = tuple(sorted(by_map))
        return self._by_tag[tag]

    def _names_of(self, tag: str) -> Iterator[str]:
        yield tag
        system = self.tag_system or Labels(())
        for number in system.ids(tag):
            names = (system[number].tag, *system[number].synonyms)
            # A synonym that is a tag too stands for that tag alone.
            yield from (name for name in names if number in system.ids(name))

    def _matching(self, name: str) -> Iterator[int]:
        exact, loose = self._lines_with
        yield from exact.get(name) or loose.get(normalise(name), [])
        yield from (c for c in self.system.ids(name) if self._mapped(c) is None)

    @cached_property
    def _lines_with(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """The classes whose lines of the map hold a string: as written, and normalised."""
        exact: dict[str, list[int]] = {}
        loose: dict[str, list[int]] = {}
        for c in range(len(self)):
            for tag in self._mapped(c) or ():
                exact.setdefault(tag, []).append(c)
                loose.setdefault(normalise(tag), []).append(c)
        return exact, loose


def read_map(path: Path | None) -> dict[str, list[str]]:
    """The lines `class<TAB>tag|tag` of `--map`; RunProblem naming a line that has another form."""
    mapping: dict[str, list[str]] = {}
    form = "class<TAB>tag|tag"
    for place, name, rest in read_pairs(path, form) if path else ():
        tags = [tag.strip() for tag in rest.split("|") if tag.strip()]
        if not tags:
            raise RunProblem(f"{place}: expected {form}")
        if name in mapping:
            raise RunProblem(f"{place}: {name!r} has a line already")
        mapping[name] = tags
    return mapping
