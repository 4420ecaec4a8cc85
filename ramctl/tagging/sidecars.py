"""Sidecars: files beside a photo that hold its tags, XMP for photo managers, text for trainers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ramctl.errors import RecordProblem, RunProblem
from ramctl.photos.archives import split_member
from ramctl.photos.decoding import photo_size
from ramctl.records.files import write_atomic
from ramctl.records.record import JsonObject, Record, image_name
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


@dataclass(frozen=True, slots=True)
class SidecarWriter:
    """Writes the sidecars of photos; told by `say` what it would do where nothing is written."""

    options: SidecarOptions
    say: Callable[[str], None]

    def write(self, record: Record, fields: JsonObject) -> None:
        """Write a tagged photo's sidecars; RecordProblem for one that cannot be written."""
        options, tags = self.options, fields["tags"]
        photo = photo_path(image_name(fields), record.base)
        sidecars = []
        # All are prepared before the first is written: a bad one leaves the others alone too.
        if options.xmp:
            sidecars += xmp_sidecars(photo, tags, prefix=options.prefix, style=options.style)
        if options.text:
            sidecars.append(text_sidecar(photo, tags, existing=options.existing_text))
        self._write(sidecars)

    def remove(self, record: Record) -> JsonObject:
        """The unchanged record, once its photo's XMP sidecars hold no machine tags."""
        photo = photo_path(image_name(record.fields), record.base)
        self._write(xmp_without_tags(photo, prefix=self.options.prefix))
        return record.fields

    def _write(self, sidecars: Sequence[Sidecar]) -> None:
        for sidecar in sidecars:
            if not self.options.dry_run:
                write_sidecar(sidecar)
            elif sidecar.content is not None:
                self.say(f"would {'write' if sidecar.content else 'delete'} {sidecar.path}")


def photo_path(name: str, base: Path) -> Path:
    """The photo's path on disk; RecordProblem when it is inside an archive."""
    if split_member(name) and not (base / name).is_file():
        message = "a photo in an archive has no place for a sidecar"
        raise RecordProblem(message, code="write_failed")
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
        with _problems_of(path):
            sidecars.append(Sidecar(path, edit(_read(path))))
    return sidecars


def text_sidecar(photo: Path, tags: Sequence[str], *, existing: Existing = "append") -> Sidecar:
    """`IMG.txt` with the tags on one line, joined by `, `.

    `append` keeps an existing file's tags in their order and puts the ones it lacks after them.
    """
    path = photo.with_suffix(".txt")
    with _problems_of(path):
        content = _read(path)
        if content is not None and existing == "keep":
            return Sidecar(path, None)
        old = (content or b"").decode("utf-8-sig").strip() if existing == "append" else ""
    # NUL stands for an escaped comma while the line is split at the others.
    present = {tag.strip() for tag in old.replace("\\,", "\0").split(",")}
    new = [tag for tag in tags if tag.replace(",", "\0") not in present]
    line = ", ".join(part for part in (old, join_tags(new)) if part)
    new_content = f"{line}\n".encode()
    return Sidecar(path, None if new_content == content else new_content)


def write_sidecar(sidecar: Sidecar) -> None:
    """Write or delete a sidecar atomically; RecordProblem when that fails."""
    if sidecar.content is None:
        return
    path = sidecar.path.resolve()  # a link stays one: its target is replaced
    with _problems_of(sidecar.path):
        if not sidecar.content:
            path.unlink(missing_ok=True)
            return
        mode = path.stat().st_mode if path.exists() else None
        write_atomic(path, sidecar.content)
        if mode is not None:
            path.chmod(mode & 0o7777)


def add_photo_size(record: Record, fields: JsonObject) -> None:
    """Add the photo's own `image_size`, [width, height], which kohya's rows hold."""
    fields["image_size"] = list(photo_size(image_name(fields), record.base))


def _read(path: Path) -> bytes | None:
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    return path.read_bytes() if path.exists() else None


@contextmanager
def _problems_of(path: Path) -> Iterator[None]:
    """Make what goes wrong with a sidecar the RecordProblem of its photo."""
    try:
        yield
    except (RunProblem, OSError, ValueError) as error:
        message = f"{path}: {getattr(error, 'strerror', None) or error}"
        if isinstance(error, RunProblem):
            message = error.message
        elif isinstance(error, UnicodeDecodeError):
            message = f"{path}: not UTF-8 text"
        raise RecordProblem(message, code="write_failed") from error
