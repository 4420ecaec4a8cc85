"""Sidecars, files beside a photo with its tags: XMP for photo managers, text for trainers."""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from ramctl.errors import RecordProblem, RunProblem, attempt
from ramctl.metadata.embedded import read_embedded
from ramctl.metadata.sidecar_merge import (
    FIELDS,
    Embedded,
    merge_tags,
    new_items,
    owner_keywords,
    refused_tags,
)
from ramctl.metadata.text_sidecars import TextOptions, as_text, caption_of, merged_text, split_tags
from ramctl.metadata.xmp_document import XmpDocument
from ramctl.photos.archives import member_of
from ramctl.photos.finding import Neighbours, xmp_names
from ramctl.photos.raw import is_raw_name
from ramctl.records.files import exists, is_file, write_atomic
from ramctl.records.labels import normalise
from ramctl.records.record import (
    HUMAN,
    JsonObject,
    Record,
    image_name,
    listed,
    lists_by_tag,
    set_tags,
    tag_language,
)

NameStyle = Literal["full", "stem"]
_PARENTS = {  # where auto is a car
    "de": "automatisch", "es": "automático", "fr": "automatique", "it": "automatico",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar's new content: None leaves the file as it is, empty bytes delete it."""

    path: Path
    content: bytes | None

    def write(self) -> None:
        """Write or delete the file atomically; RecordProblem when that fails."""
        with problems_of(self.path):
            if not self.content:
                self.path.unlink(missing_ok=True)
                return
            mode = self.path.stat().st_mode if self.path.exists() else None
            write_atomic(self.path, self.content)
            if mode is not None:
                self.path.chmod(mode & 0o7777)


@dataclass(frozen=True, slots=True)
class SidecarOptions:
    """Which sidecars are written, and how."""

    xmp: bool = False
    xmp_remove: bool = False  # the tags, instead of all others
    prefix: str | None = None  # parent of machine tags in XMP; empty: none; None: by language
    style: NameStyle = "full"  # name of a new XMP file: IMG.JPG.xmp, or IMG.xmp for `stem`
    text: bool = False
    texts: TextOptions = field(default_factory=TextOptions)
    forget_refused: bool = False  # write again what the owner has deleted
    dry_run: bool = False

    @property
    def are_changed(self) -> bool:
        """Whether sidecars are written at all."""
        return self.xmp or self.text or self.xmp_remove

    def parent(self, language: str) -> str:
        """The parent of machine tags of a language."""
        return _PARENTS.get(language, "auto") if self.prefix is None else self.prefix


@dataclass(frozen=True, slots=True)
class SidecarWriter:
    """Writes the sidecars of photos, and returns those that change; a dry run writes none.

    RecordProblem for a photo with a sidecar that cannot be read or written.
    """

    options: SidecarOptions
    neighbours: Neighbours = field(default_factory=Neighbours)
    counts: Counter[str] = field(default_factory=Counter)  # for the closing line

    def write(self, record: Record, fields: JsonObject) -> list[Sidecar]:
        """Bring a photo's sidecars up to date, or remove the machine tags from them."""
        options, photo = self.options, photo_path(image_name(fields), record.base)
        if not options.xmp_remove and not is_file(photo):  # it may be gone since it was tagged
            raise RecordProblem(f"{photo}: no such file", code="missing_image")
        sidecars: list[Sidecar] = []
        if options.xmp or options.xmp_remove:
            tags = () if options.xmp_remove else fields["tags"]
            sidecars += self.with_tags(photo, tags, tag_language(fields))
        if options.text:
            sidecars.append(self.with_text(photo, fields))
        sidecars = [sidecar for sidecar in sidecars if sidecar.content is not None]
        for sidecar in () if options.dry_run else sidecars:
            sidecar.write()
        return sidecars

    def with_tags(self, photo: Path, tags: Sequence[str], language: str = "") -> list[Sidecar]:
        """The photo's XMP sidecars with these machine tags, and everything else that they hold.

        With `xmp_remove` those of either name; without tags and anything else they are deleted.
        """
        paths: Sequence[Path] = xmp_names(photo)
        if not self.options.xmp_remove:
            paths = xmp_paths(photo, self.options.style, self.neighbours)
        sidecars: list[Sidecar] = []
        for path in paths:
            with problems_of(path):
                before = read_sidecar(path)
                if before is not None and not path.stat().st_mode & 0o222:
                    raise ValueError("read-only")
                content = merge_tags(
                    before, tags, self.options.parent(language),
                    embedded=cache(partial(embedded_in, str(photo))), language=language,
                    forget=self.options.forget_refused, counts=self.counts,
                )  # fmt: skip
            sidecars.append(Sidecar(path, content))
        return sidecars

    def with_text(self, photo: Path, record: JsonObject) -> Sidecar:
        """The photo's text with the record's tags; RecordProblem for a text of several photos."""
        path = photo.with_suffix(".txt")
        if others := self.neighbours(photo):
            message = f"{path} would be the sidecar of {others[0]} as well"
            raise RecordProblem(message, code="write_failed")
        with problems_of(path):
            before = read_sidecar(path)
            content = merged_text(before, record, self.options.texts)
        if before and content is None:
            self.counts["texts left as they are"] += 1
        if self.options.texts.with_caption and not caption_of(record):
            self.counts["photos without a caption"] += 1
        return Sidecar(path, content)


def photo_path(name: str, base: Path) -> Path:
    """The photo's path on disk; RecordProblem for a photo in an archive, or a name of none."""
    if member_of(name, base) or not (base / name).name:
        message = f"{name}: in an archive, or no file; there is no place for a sidecar"
        raise RecordProblem(message, code="write_failed")
    return base / name


def xmp_paths(photo: Path, style: NameStyle, neighbours: Neighbours | None = None) -> list[Path]:
    """The photo's XMP sidecars: those that exist under either name, else the one to create."""
    full, stem = xmp_names(photo)
    others = (neighbours or Neighbours())(photo)
    # `IMG.xmp` of several photos belongs to the raw file (Adobe).
    if others and (not is_raw_name(photo.name) or any(map(is_raw_name, others))):
        return [full]
    existing = [path for path in (full, stem) if exists(path)]
    return existing or [full if style == "full" else stem]


def planned(sidecar: Sidecar) -> str:
    """The line of a dry run: `would write a.jpg.xmp: + dog, - cat`."""

    def words(content: bytes | None) -> list[str]:
        if sidecar.path.suffix == ".xmp":
            return owner_keywords(XmpDocument(content or None), {})[1]
        return split_tags(as_text(content))

    old, new = words(read_sidecar(sidecar.path)), words(sidecar.content)
    changes = [f"+ {t}" for t in new if t not in old] + [f"- {t}" for t in old if t not in new]
    verb = "write" if sidecar.content else "delete"
    return f"would {verb} {sidecar.path}" + (f": {', '.join(changes)}" if changes else "")


def embedded_in(name: str, base: Path = Path()) -> Embedded:
    """The metadata in a photo's own file, as far as it can be read."""
    with suppress(RecordProblem):
        packet, texts = read_embedded(name, base)
        return Embedded.of(packet, texts.get("keywords", []))
    return Embedded()


def missing_keywords(name: str, base: Path) -> dict[str, list[str]]:
    """The items that keyword fields must start with that the photo's file lacks, by their names."""
    inside = embedded_in(name, base).keywords
    return {f.name: new_items(f, inside, inside) for f in FIELDS if f not in inside}


def read_sidecar(path: Path) -> bytes | None:
    """The content of a sidecar, None for a missing one."""
    return path.read_bytes() if exists(path) else None


def write_sidecar(photo: str | os.PathLike[str], result: Any) -> list[Path]:
    """Write the tags of `Tagger.tag` as `export --xmp` does; return the sidecars that changed.

    RecordProblem for a photo that is not there, or a sidecar that cannot be read or written.
    """
    record = Record({**result.record, "image": os.fspath(photo)})
    writer = SidecarWriter(SidecarOptions(xmp=True))
    return [sidecar.path for sidecar in writer.write(record, record.fields)]


@contextmanager
def problems_of(path: Path, code: str = "write_failed") -> Iterator[None]:
    """Turn errors of the block, but for a full disk, into a RecordProblem with the sidecar."""
    try:
        yield
    except RunProblem as error:  # of `write_atomic`
        if getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise RecordProblem(error.message, code=code) from error
    except (OSError, ValueError) as error:
        message = f"{path}: {getattr(error, 'strerror', None) or error}"
        raise RecordProblem(message, code=code) from error


def without_refused(neighbours: Neighbours) -> Callable[[Record, JsonObject], None]:
    """A function that leaves out the tags that the photo's sidecars refuse, and lists them."""

    def leave_out(record: Record, fields: JsonObject) -> None:
        photo = attempt(photo_path, image_name(fields), record.base)
        if isinstance(photo, RecordProblem):
            return
        words: set[str] = set()
        for path in xmp_paths(photo, "full", neighbours):
            with suppress(OSError, ValueError):  # as far as they can be read
                content = read_sidecar(path) or b""
                if b"ramctl" in content.replace(b"\0", b""):  # else it has no record of ours
                    words.update(refused_tags(XmpDocument(content)))
        tags, sources = listed(fields, "tags"), lists_by_tag(fields, "sources")
        refused = [t for t in tags if normalise(t) in words and HUMAN not in sources.get(t, ())]
        if refused:
            fields["refused"] = list(dict.fromkeys([*listed(fields, "refused"), *refused]))
            set_tags(fields, [tag for tag in tags if tag not in refused])

    return leave_out
