"""Files beside a photo that hold its tags: XMP for photo programs, text for image trainers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ramctl.errors import RecordProblem, RunProblem
from ramctl.photos.archives import split_member
from ramctl.records.files import write_atomic
from ramctl.tagging.formats import join_tags
from ramctl.tagging.xmp import merge_tags, remove_tags

XMP_PREFIX = "auto"
NameStyle = Literal["full", "stem"]
Existing = Literal["append", "replace", "keep"]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar's new content: None leaves it as it is, empty bytes delete it."""

    path: Path
    content: bytes | None


def photo_path(name: str, base: Path) -> Path:
    """Where a photo lies on disk; RecordProblem for one inside an archive."""
    if split_member(name) and not (base / name).is_file():
        raise RecordProblem("a photo in an archive has no place for a sidecar", code="write_failed")
    return base / name


def xmp_paths(photo: Path, style: NameStyle) -> list[Path]:
    """The photo's XMP sidecars: those that exist under either naming, else the one to create."""
    full = photo.with_name(photo.name + ".xmp")
    stem = photo.with_suffix(".xmp")
    existing = [path for path in (full, stem) if path.exists()]
    return existing or [full if style == "full" else stem]


def xmp_sidecars(
    photo: Path, tags: Sequence[str], *, prefix: str = XMP_PREFIX, style: NameStyle = "full"
) -> list[Sidecar]:
    """The photo's sidecars with these machine tags, whatever else they hold.

    RecordProblem when one cannot be read or understood; it is then left as it is.
    """
    sidecars = []
    for path in xmp_paths(photo, style):
        content = _read(path)
        try:
            sidecars.append(Sidecar(path, merge_tags(content, tags, prefix)))
        except ValueError as error:
            raise RecordProblem(f"{path}: {error}", code="write_failed") from error
    return sidecars


def xmp_without_tags(photo: Path, *, prefix: str = XMP_PREFIX) -> list[Sidecar]:
    """The photo's sidecars without machine tags; one that holds nothing else is to be deleted."""
    sidecars = []
    for path in xmp_paths(photo, "full"):
        content = _read(path)
        try:
            if content is not None:
                sidecars.append(Sidecar(path, remove_tags(content, prefix)))
        except ValueError as error:
            raise RecordProblem(f"{path}: {error}", code="write_failed") from error
    return sidecars


def text_sidecar(photo: Path, tags: Sequence[str], *, existing: Existing = "append") -> Sidecar:
    """`IMG.txt` with the tags in one line, joined by `, `.

    With `append` tags that a present file lacks come after its own, which stay in their order.
    """
    path = photo.with_suffix(".txt")
    content = _read(path)
    if content is None or existing == "replace":
        line = join_tags(list(tags))
    elif existing == "keep":
        return Sidecar(path, None)
    else:
        try:
            line = content.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise RecordProblem(f"{path}: not UTF-8 text", code="write_failed") from error
        present = {tag.strip() for tag in line.replace("\\,", "\0").split(",")}
        new = [tag for tag in tags if tag.replace(",", "\0") not in present]
        line = ", ".join(part for part in (line, join_tags(new)) if part)
    new_content = f"{line}\n".encode()
    return Sidecar(path, None if new_content == content else new_content)


def write_sidecar(sidecar: Sidecar) -> None:
    """Bring a sidecar to its new content, whole or not at all; RecordProblem when that fails."""
    if sidecar.content is None:
        return
    path = sidecar.path.resolve()
    try:
        if not sidecar.content:
            path.unlink(missing_ok=True)
            return
        mode = path.stat().st_mode if path.exists() else None
        write_atomic(path, sidecar.content)
        if mode is not None:
            path.chmod(mode & 0o7777)
    except RunProblem as problem:
        raise RecordProblem(problem.message, code="write_failed") from problem
    except OSError as error:
        reason = f"{sidecar.path}: {error.strerror or error}"
        raise RecordProblem(reason, code="write_failed") from error


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordProblem(f"{path}: {error.strerror or error}", code="write_failed") from error
