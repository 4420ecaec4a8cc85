"""Which files and folders below a folder are passed over."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.files import read_lines

IGNORE_FILE = ".ramctlignore"
# Thumbnails and what was deleted, where network drives, systems and archivers put it. Hidden names,
# such as .thumbnails and .Trash-1000, are passed over besides.
_LEFT_BY_PROGRAMS = frozenset({
    "@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "$RECYCLE.BIN",
    "System Volume Information", "lost+found", "__MACOSX",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ignored:
    """What is passed over in a folder: patterns as in `.gitignore`, of the user and of its files.

    `parts` lead to the folder from the named one.
    """

    parts: tuple[str, ...] = ()
    # Patterns, and how many of the parts lead to their folder; those that decide come first.
    asked: tuple[tuple[int, Any], ...] = ()
    found: tuple[tuple[int, Any], ...] = ()

    @classmethod
    def of(cls, patterns: Sequence[str]) -> Self:
        """What is passed over in a named folder; UsageProblem for what is no pattern."""
        try:
            return cls(asked=((0, _spec(patterns)),) if patterns else ())
        except ValueError as error:
            raise UsageProblem(f"--ignore: {error}") from error

    def __call__(self, name: str, *, is_folder: bool) -> bool:
        """Whether a file or folder is passed over."""
        if name.startswith(".") or (is_folder and name in _LEFT_BY_PROGRAMS):
            return True
        path = (*self.parts, name)
        for depth, spec in (*self.asked, *self.found):
            decision = spec.check_file("/".join(path[depth:]) + "/" * is_folder).include
            if decision is not None:
                return bool(decision)
        return False

    def inside(self, name: str) -> Self:
        """What is passed over in a folder of this folder."""
        return replace(self, parts=(*self.parts, name))

    def with_file(self, folder: Path) -> Self:
        """The same with the patterns in the folder's own file; RunProblem for one that is bad."""
        path = folder / IGNORE_FILE
        if not path.is_file():
            return self
        lines = read_lines(path)
        for number, line in enumerate(lines, 1):
            try:
                _spec([line])
            except ValueError as error:
                raise RunProblem(f"{path}:{number}: {error}") from error
        return replace(self, found=((len(self.parts), _spec(lines)), *self.found))


def _spec(patterns: Sequence[str]) -> Any:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(patterns)
