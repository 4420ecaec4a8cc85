"""Recognise the files that ramctl made; a run replaces or removes no others.

Each kind of output has a mark. If something without it stands in the place of an output, the run is
refused before it does anything.
"""

import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import orjson

from ramctl.errors import UsageProblem
from ramctl.records.files import (
    NOT_PLAIN,
    is_device,
    is_gzip,
    is_new_file,
    is_plain,
    kept_path,
    naming,
    part_path,
    present_state,
    remove_folder,
)

_GENERATOR = b'<meta name="generator" content="ramctl">'  # in the head of each page
_HEAD_BYTES = 2048
_MAX_LINE_BYTES = 1 << 26
_REMEDY = "move it away or name another path"


@dataclass(frozen=True, slots=True)
class Mark:
    """How to recognise outputs of one kind."""

    kind: str  # for messages
    is_on: Callable[[Path], bool]


@dataclass(frozen=True, slots=True)
class FolderMark:
    """An empty file that marks the folders of one kind, which ramctl makes and removes.

    `made` are patterns of the paths that ramctl makes in them; other files stay.
    """

    kind: str
    file: str
    made: tuple[str, ...]

    def is_on(self, folder: Path) -> bool:
        return (folder / self.file).is_file()

    def not_plain(self, folder: Path) -> Iterator[Path]:
        """The links, pipes and devices in the places of files and folders of ramctl."""
        others = set(others_in(folder, self.made))
        others -= {folder / pattern.rpartition("/")[0] for pattern in self.made}
        paths = (path for path in folder.rglob("*") if path not in others)
        return (
            path for path in paths if path.is_symlink() or not (is_plain(path) or path.is_dir())
        )

    def put_on(self, folder: Path) -> None:
        """Make the folder if needed, and mark it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.file).touch()

    def remove(self, folder: Path) -> None:
        """Delete a folder, but for files that ramctl has not made."""
        others = set(others_in(folder, self.made))
        if not others:
            remove_folder(folder)
            return
        (folder / self.file).unlink(missing_ok=True)  # first: a half-deleted folder has no mark
        for path in sorted(folder.rglob("*"), reverse=True):  # content before its folder
            with suppress(OSError):  # a folder with other files
                if path not in others:
                    path.rmdir() if path.is_dir() else path.unlink()


def require_ours(path: Path | None, mark: Mark | FolderMark) -> None:
    """Raise UsageProblem for a file or folder that is neither empty nor has the mark.

    None, pipes and devices pass: they are not replaced.
    """
    if path is None or not os.path.lexists(path) or is_device(path):
        return
    if not path.exists():
        raise UsageProblem(f"{path}: a link to nothing; {_REMEDY}")
    with naming(path):
        if path.is_dir():
            # Processes that share a folder lock their parts before it is marked.
            is_empty = all(file.name.endswith(".part.lock") for file in path.iterdir())
        else:
            is_empty = not _first_line(path)
        if not is_empty and not mark.is_on(path):
            raise UsageProblem(f"{path}: exists, but is not {mark.kind}; {_REMEDY}")
        if isinstance(mark, FolderMark) and (other := next(mark.not_plain(path), None)):
            raise UsageProblem(f"{other}: {NOT_PLAIN}; {_REMEDY}")


def require_our_outputs(output: Path | None, rejects: Path | None) -> None:
    """Check a file of records and the rejects, with their parts and states, by `require_ours`."""
    if rejects is not None:
        require_ours(rejects, REJECTS)
        _require_our_part(part_path(rejects), _PART)
        require_plain(kept_path(part_path(rejects)))
    if output is not None:
        state = present_state(output)
        kind = f"an output of ramctl with its {state.name}"
        mark = Mark(kind, lambda _: is_plain(state) and is_state(state))
        require_ours(output, mark)
        for path in (part_path(output), state):
            _require_our_part(path, mark)
        _require_our_part(kept_path(state), replace(mark, is_on=is_state))
        require_plain(kept_path(part_path(output)))


def require_plain(path: Path) -> None:
    """Raise UsageProblem for a link, pipe, device or folder in the place of a file."""
    if not is_plain(path):
        raise UsageProblem(f"{path}: {NOT_PLAIN}; {_REMEDY}")


def _require_our_part(path: Path, mark: Mark) -> None:
    """Check a file beside an output, which must also be a regular file."""
    require_plain(path)
    require_ours(path, mark)


def others_in(folder: Path, made: Sequence[str]) -> Iterator[Path]:
    """The files and links below a folder that match none of the patterns."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        patterns = [p for p in made if "/" in p or "/" not in name]  # `*` matches a / too
        is_file = path.is_symlink() or not path.is_dir()
        is_ours = is_new_file(path) or any(fnmatchcase(name, pattern) for pattern in patterns)
        if is_file and not is_ours:
            yield path


def _first_line(path: Path) -> bytes:
    """The first line of a file, unpacked; `?` where that fails."""
    try:
        with (gzip.open if is_gzip(path.name) else open)(path, "rb") as stream:
            return stream.readline(_MAX_LINE_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return b"?"


def _is_object(path: Path, *keys: str) -> bool:
    """Whether the first line of a file is a JSON object with these keys."""
    try:
        content = orjson.loads(_first_line(path))
    except (OSError, orjson.JSONDecodeError):
        return False
    return isinstance(content, dict) and set(keys) <= content.keys()


def is_state(path: Path) -> bool:
    """Whether a file is the state of an output."""
    return _is_object(path, "command", "fingerprint")


def _is_page(path: Path) -> bool:
    with (gzip.open if is_gzip(path.name) else open)(path, "rb") as stream:
        return _GENERATOR in stream.read(_HEAD_BYTES)


PAGE = Mark("a page that ramctl wrote", _is_page)
LABEL_FILE = Mark("a label system that ramctl wrote", lambda p: _is_object(p, "tag", "kind"))
REJECTS = Mark("a file of rejects", lambda p: _is_object(p, "source", "stage", "code", "message"))
# A crash may have torn the first line.
_PART = Mark(f"the beginning of {REJECTS.kind}", lambda p: _first_line(p).startswith(b'{"source":'))
