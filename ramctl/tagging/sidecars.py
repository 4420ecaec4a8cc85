"""Sidecars: files beside a photo that hold its tags, XMP for photo managers, text for trainers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ramctl.errors import RecordProblem, RunProblem
from ramctl.photos.archives import split_member
from ramctl.photos.decoding import photo_size
from ramctl.records.files import write_atomic
from ramctl.records.record import JsonObject, Record, image_name
from ramctl.records.stream import Outcome
from ramctl.tagging.formats import join_tags
from ramctl.tagging.xmp import merge_tags, remove_tags

XMP_PREFIX = "auto"
NameStyle = Literal["full", "stem"]
Existing = Literal["append", "replace", "keep"]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar's new content: None leaves the file as it is, empty bytes delete it."""

    path: Path
    content: bytes | None


@dataclass(frozen=True, slots=True)
class SidecarOptions:
    """Which sidecars are written, and how."""

    xmp: bool = False
    prefix: str = XMP_PREFIX  # of machine tags in XMP; empty: none
    style: NameStyle = "full"  # name of a new XMP file: IMG.JPG.xmp, or IMG.xmp for `stem`
    text: bool = False
    existing_text: Existing = "append"
    dry_run: bool = False


class SidecarWriter:
    """Writes a tagged photo's sidecars before its record is written."""

    def __init__(self, options: SidecarOptions, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say

    def __call__(self, record: Record, outcome: Outcome) -> Outcome:
        """The outcome, or the RecordProblem of a sidecar that cannot be written."""
        if isinstance(outcome, RecordProblem):
            return outcome
        options, tags = self._options, outcome["tags"]
        try:
            photo = photo_path(image_name(outcome), record.base)
            sidecars = []
            # All are prepared before the first is written: a bad one leaves the others alone too.
            if options.xmp:
                sidecars += xmp_sidecars(photo, tags, prefix=options.prefix, style=options.style)
            if options.text:
                sidecars.append(text_sidecar(photo, tags, existing=options.existing_text))
            self._write(sidecars)
        except RecordProblem as problem:
            return problem
        return outcome

    def remove(self, record: Record) -> JsonObject:
        """The unchanged record, once its photo's XMP sidecars hold no machine tags."""
        photo = photo_path(image_name(record.fields), record.base)
        self._write(xmp_without_tags(photo, prefix=self._options.prefix))
        return record.fields

    def _write(self, sidecars: Sequence[Sidecar]) -> None:
        for sidecar in sidecars:
            if not self._options.dry_run:
                write_sidecar(sidecar)
            elif sidecar.content is not None:
                self._say(f"would {'write' if sidecar.content else 'delete'} {sidecar.path}")


def photo_path(name: str, base: Path) -> Path:
    """The photo's path on disk; RecordProblem when it is inside an archive."""
    if split_member(name) and not (base / name).is_file():
        raise _problem("a photo in an archive has no place for a sidecar")
    return base / name


def xmp_paths(photo: Path, style: NameStyle) -> list[Path]:
    """The photo's XMP sidecars: those that exist under either name, else the one to create."""
    full = photo.with_name(photo.name + ".xmp")
    stem = photo.with_suffix(".xmp")
    existing = [path for path in (full, stem) if path.exists()]
    return existing or [full if style == "full" else stem]


def xmp_sidecars(
    photo: Path, tags: Sequence[str], *, prefix: str = XMP_PREFIX, style: NameStyle = "full"
) -> list[Sidecar]:
    """The photo's sidecars with these machine tags and everything else they hold.

    Raises RecordProblem when one cannot be read or understood; it is then left as it is.
    """
    return _edited(photo, style, lambda content: merge_tags(content, tags, prefix))


def xmp_without_tags(photo: Path, *, prefix: str = XMP_PREFIX) -> list[Sidecar]:
    """The photo's sidecars without machine tags; those that hold nothing else are to be deleted."""
    return _edited(photo, "full", lambda content: remove_tags(content, prefix))


def _edited(
    photo: Path, style: NameStyle, edit: Callable[[bytes | None], bytes | None]
) -> list[Sidecar]:
    sidecars = []
    for path in xmp_paths(photo, style):
        content = _read(path)
        try:
            sidecars.append(Sidecar(path, edit(content)))
        except ValueError as error:
            raise _problem(f"{path}: {error}") from error
    return sidecars


def text_sidecar(photo: Path, tags: Sequence[str], *, existing: Existing = "append") -> Sidecar:
    """`IMG.txt` with the tags on one line, joined by `, `.

    `append` keeps an existing file's tags in their order and puts the ones it lacks after them.
    """
    path = photo.with_suffix(".txt")
    content = _read(path)
    if content is None or existing == "replace":
        line = join_tags(tags)
    elif existing == "keep":
        return Sidecar(path, None)
    else:
        try:
            line = content.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise _problem(f"{path}: not UTF-8 text") from error
        # NUL stands for an escaped comma while the line is split at the others.
        present = {tag.strip() for tag in line.replace("\\,", "\0").split(",")}
        new = [tag for tag in tags if tag.replace(",", "\0") not in present]
        line = ", ".join(part for part in (line, join_tags(new)) if part)
    new_content = f"{line}\n".encode()
    return Sidecar(path, None if new_content == content else new_content)


def write_sidecar(sidecar: Sidecar) -> None:
    """Write or delete a sidecar atomically; RecordProblem when that fails."""
    if sidecar.content is None:
        return
    path = sidecar.path.resolve()  # a link stays one: its target is replaced
    try:
        if not sidecar.content:
            path.unlink(missing_ok=True)
            return
        mode = path.stat().st_mode if path.exists() else None
        write_atomic(path, sidecar.content)
        if mode is not None:
            path.chmod(mode & 0o7777)
    except RunProblem as problem:
        raise _problem(problem.message) from problem
    except OSError as error:
        raise _problem(f"{sidecar.path}: {error.strerror or error}") from error


def add_photo_size(record: Record, outcome: Outcome) -> Outcome:
    """The outcome with the photo's own `image_size`, [width, height], which kohya's rows hold."""
    if not isinstance(outcome, RecordProblem):
        try:
            outcome["image_size"] = list(photo_size(image_name(outcome), record.base))
        except RecordProblem as problem:
            return problem
    return outcome


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _problem(f"{path}: {error.strerror or error}") from error


def _problem(message: str) -> RecordProblem:
    return RecordProblem(message, code="write_failed")
