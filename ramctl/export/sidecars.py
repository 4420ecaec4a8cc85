"""Sidecars, files beside a photo with its tags: XMP for photo managers, text for trainers."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from ramctl.checkpoints.bundle import label_matcher
from ramctl.errors import RecordProblem, RunProblem, UsageProblem, attempt
from ramctl.export import sidecar_merge, text_sidecars
from ramctl.export.text_sidecars import TextCounts, TextOptions, as_text, merged_text, split_tags
from ramctl.export.xmp_document import XmpDocument, writable_text
from ramctl.labels import normalise
from ramctl.photos.archives import facts_of_file, member_of
from ramctl.photos.embedded import read_embedded
from ramctl.photos.finding import Neighbours, is_raw_name, xmp_names
from ramctl.photos.limits import PhotoLimits, TimeLeft, in_time
from ramctl.records.fields import string_list
from ramctl.records.files import NOT_PLAIN, full_disk, is_plain, open_to_append, write_atomic
from ramctl.records.jsonl import MAX_LINE, dumps
from ramctl.records.pipes import mode_of
from ramctl.records.record import (
    HUMAN,
    JsonObject,
    Record,
    encode_name,
    image_name,
    listed,
    object_in,
    set_tags,
    shown_name,
    tag_language,
)
from ramctl.records.remote import base_url
from ramctl.records.state import parsed

if TYPE_CHECKING:
    from ramctl.tagging.tagger import TagResult

TEXT_RECORD = ".ramctl-txt.jsonl"  # in each folder: what was written into its texts, and refused
_ROW = b'{"text":'  # the start of each of its lines
_FOLDERS = 16  # whose records are in memory
_MAX_SECONDS = 60  # to read and merge the sidecars of a photo
NameStyle = Literal["full", "stem"]
_PARENTS = {  # where auto is a car
    "de": "automatisch", "es": "automático", "fr": "automatique", "it": "automatico",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar's new content: None leaves the file as it is, empty bytes delete it."""

    path: Path
    content: bytes | None
    row: JsonObject | None = field(default=None, compare=False)  # of a text, for TextRecords

    def write(self) -> None:
        """Write or delete the file atomically; RecordProblem when that fails."""
        if self.content is None:
            return
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
    text_remove: bool = False  # as xmp_remove
    texts: TextOptions = field(default_factory=TextOptions)
    forget_refused: bool = False  # write again what the owner has deleted
    dry_run: bool = False

    @property
    def are_changed(self) -> bool:
        """Whether sidecars are written at all."""
        return self.xmp or self.text or self.are_removed

    @property
    def are_removed(self) -> bool:
        """Whether tags are removed from sidecars, and none written."""
        return self.xmp_remove or self.text_remove

    def parent(self, language: str) -> str:
        """The parent of machine tags of a language."""
        return _PARENTS.get(language, "auto") if self.prefix is None else self.prefix


@dataclass(frozen=True, slots=True)
class SidecarWriter:
    """Writes the sidecars of photos, and returns those that change; a dry run writes none.

    RecordProblem for a photo with a sidecar that cannot be read or written; then none is written.
    """

    options: SidecarOptions
    neighbours: Neighbours = field(default_factory=Neighbours)
    texts: "TextRecords" = field(default_factory=lambda: TextRecords())
    counts: Counter[str] = field(default_factory=Counter)  # as `merge_tags` counts
    text_counts: TextCounts = field(default_factory=TextCounts)

    def write(
        self, record: Record, fields: JsonObject,
        decided: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Sidecar]:  # fmt: skip
        """Bring a photo's sidecars up to date, or remove the machine tags from them.

        They keep `decided`, verdicts by word.
        """
        photo = photo_path(image_name(fields), record.base)
        # All are prepared before the first is written, so that a bad one leaves none changed.
        try:
            prepare = partial(self._prepared, photo, fields, decided)
            sidecars = in_time(prepare, TimeLeft(PhotoLimits(seconds=_MAX_SECONDS)))
        except TimeoutError as error:
            message = f"sidecars not ready after {_MAX_SECONDS} seconds"
            raise RecordProblem(message, code="too_slow") from error
        for sidecar in sidecars:
            with problems_of(sidecar.path):
                _require_writable(sidecar, photo)
        if not self.options.dry_run:
            for sidecar in sidecars:
                sidecar.write()
                self.texts.add(sidecar)
        return [sidecar for sidecar in sidecars if sidecar.content is not None]

    def _prepared(
        self, photo: Path, fields: JsonObject, decided: Mapping[str, str]
    ) -> list[Sidecar]:
        if not self.options.are_removed:
            try:
                facts_of_file(photo)  # it may be gone since it was tagged
            except RecordProblem as problem:
                raise RecordProblem(f"{photo}: {problem.message}", code=problem.code) from problem
        sidecars: list[Sidecar] = []
        if self.options.xmp or self.options.xmp_remove:
            tags = () if self.options.xmp_remove else fields["tags"]
            sidecars += self.with_tags(photo, tags, tag_language(fields), decided)
        if self.options.text or self.options.text_remove:
            sidecars += self.with_text(photo, fields)
        return sidecars

    def with_tags(
        self, photo: Path, tags: Sequence[str], language: str = "",
        decided: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Sidecar]:  # fmt: skip
        """The photo's XMP sidecars with these machine tags, and everything else that they hold.

        With `xmp_remove` those of either name; without tags and anything else they are deleted.
        """
        paths: Sequence[Path] = xmp_names(photo)
        if not self.options.xmp_remove:
            paths = xmp_paths(photo, self.options.style, self.neighbours)
        sidecars: list[Sidecar] = []
        for path in paths:
            with problems_of(path):
                content = sidecar_merge.merge_tags(
                    read_sidecar(path), tags, self.options.parent(language),
                    embedded=partial(photo_keywords, photo, path), decided=decided,
                    language=language, forget=self.options.forget_refused, counts=self.counts,
                )  # fmt: skip
            sidecars.append(Sidecar(path, content))
        return sidecars

    def with_text(self, photo: Path, record: JsonObject) -> list[Sidecar]:
        """The photo's text with the record's tags, and a copy of a person's words that it replaces.

        With `text_remove` the text without what ramctl wrote. RecordProblem for a text of several
        photos.
        """
        path, options = photo.with_suffix(".txt"), self.options.texts
        earlier, removes = self.texts(path), self.options.text_remove
        if (others := self.neighbours(photo)) and not removes:
            message = f"{path} would be the sidecar of {others[0]} as well"
            raise RecordProblem(message, code="write_failed")
        with problems_of(path):
            content = read_sidecar(path)
            if removes:
                record, options = {"tags": []}, TextOptions()
            if removes and (content is None or "existing" not in earlier):
                return []
            if content is not None and options.existing_text == "keep":
                self.text_counts.add(content, earlier)
                return []
            merge = partial(
                merged_text, record=record, options=options, earlier=earlier,
                forget=self.options.forget_refused,
            )  # fmt: skip
            merged, row = merge(None)
            # The same without a row was written before a crash.
            if content is not None and (earlier or merged != content):
                merged, row = merge(content)
            self.text_counts.add(merged, row)
            if removes and not merged.strip():
                merged = b""
            row = {"text": shown_name(path.name)} | row
            text = Sidecar(path, None if merged == content else merged, row)
            lost = text_sidecars.words_of_person(as_text(content), earlier)
            if text.content is None or options.existing_text != "replace" or not lost:
                return [text]
            copy = path.with_name(f"{path.name}.bak")
            return [Sidecar(copy, (read_sidecar(copy) or b"") + f"{lost}\n".encode()), text]


def photo_path(name: str, base: Path) -> Path:
    """The photo's path on disk; RecordProblem for a photo in an archive or at a URL."""
    if base_url(base) or member_of(name, base):
        message = "a photo in an archive, or at a URL, has no place for a sidecar"
        raise RecordProblem(message, code="write_failed")
    if not (base / name).name:
        raise RecordProblem(f"{base / name}: is a directory", code="unreadable_image")
    return base / name


def xmp_paths(photo: Path, style: NameStyle, neighbours: Neighbours | None = None) -> list[Path]:
    """The photo's XMP sidecars: those that exist under either name, else the one to create."""
    full, stem = xmp_names(photo)
    others = (neighbours or Neighbours())(photo)
    # `IMG.xmp` of several photos belongs to the raw file (Adobe).
    if others and (not is_raw_name(photo.name) or any(map(is_raw_name, others))):
        return [full]
    existing = [path for path in (full, stem) if mode_of(path)]
    return existing or [full if style == "full" else stem]


def refused_words(photo: Path, neighbours: Neighbours) -> list[str]:
    """The tags that the owner refused in a photo's XMP sidecars, as far as they can be read."""
    refused: dict[str, str] = {}
    for path in xmp_paths(photo, "full", neighbours):
        with suppress(OSError, ValueError):
            content = read_sidecar(path) or b""
            if b"ramctl" in content.replace(b"\0", b""):  # else it has no record of ours
                refused |= sidecar_merge.refused_tags(content)
    return list(refused.values())


def planned(sidecar: Sidecar) -> str:
    """The line of a dry run: `would write a.jpg.xmp: + auto|dog, - auto|cat`."""
    is_xmp = sidecar.path.suffix == ".xmp"
    words = sidecar_merge.shown_keywords if is_xmp else lambda content: split_tags(as_text(content))
    old, new = words(read_sidecar(sidecar.path)), words(sidecar.content)
    changes = [f"+ {t}" for t in new if t not in old] + [f"- {t}" for t in old if t not in new]
    verb = "write" if sidecar.content else "delete"
    return f"would {verb} {sidecar.path}" + (f": {', '.join(changes)}" if changes else "")


def photo_keywords(photo: Path, sidecar: Path) -> sidecar_merge.Keywords:
    """The keywords that programs find when the photo has no such XMP sidecar.

    They are in the photo, and in an `IMG.xmp` that counts as long as there is no `IMG.JPG.xmp`.
    """
    found = embedded_keywords(str(photo))
    stem = photo.with_suffix(".xmp")
    if sidecar == stem:
        return found
    with problems_of(stem):
        content = read_sidecar(stem)
        without = sidecar_merge.remove_tags(content)
        return found | _keywords(content if without is None else without)


def embedded_keywords(name: str, base: Path = Path()) -> dict[sidecar_merge.Field, Collection[str]]:
    """The keywords and FACTS in the photo's own file, `name` as for `load_photo`, if it can be
    read; of each fact those in XMP, else one of IPTC, else of Exif.
    """
    with suppress(RecordProblem):
        xmp, texts = read_embedded(name, base)
        found: dict[sidecar_merge.Field, Collection[str]] = {}
        for fact in sidecar_merge.FACTS:
            values = [*map(_writable_lines, texts.get(fact.name.lower(), ()))]
            found[fact] = values if fact.property.container == "Seq" else values[:1]
        found |= _keywords(xmp) | {sidecar_merge.KEYWORDS: texts.get("keywords", ())}
        return {field: items for field, items in found.items() if any(items)}
    return {}


def missing_keywords(name: str, base: Path) -> dict[str, list[str]]:
    """The items that keyword fields must start with that the photo's file lacks, by their names."""
    inside = embedded_keywords(name, base)
    new = [field for field in sidecar_merge.FIELDS if field not in inside]
    return {field.name: sidecar_merge.new_items(field, inside, inside) for field in new}


def _keywords(content: bytes | None) -> dict[sidecar_merge.Field, Collection[str]]:
    with suppress(ValueError):  # no program reads keywords that are not XMP
        document = XmpDocument(content)
        found: dict[sidecar_merge.Field, Collection[str]] = {}
        for fact in sidecar_merge.FACTS:
            texts = document.languages(fact.property)
            found[fact] = {_writable_lines(text): texts[text] for text in texts}
        return {f: x for f, x in found.items() if x} | dict(sidecar_merge.xmp_keywords(document))
    return {}


def _writable_lines(text: str) -> str:
    return "\n".join(map(writable_text, text.splitlines())).strip()


class TextRecords:
    """The records that folders keep of their texts.

    A line is `{"text", "given", "refused", "existing"}`, with the other texts that were written:
    TEXTS_OF_ROW. The last line of a text counts.
    """

    def __init__(self) -> None:
        self._rows = lru_cache(_FOLDERS)(_text_rows)

    def __call__(self, path: Path) -> JsonObject:
        """The row of a text; empty for a new one."""
        return self._rows(path.parent).get(shown_name(path.name), {})

    def add(self, sidecar: Sidecar) -> None:
        """Record what was written; after writing, so that a crash in between refuses nothing."""
        if sidecar.row is None or self(sidecar.path) == sidecar.row:
            return
        path = sidecar.path.with_name(TEXT_RECORD)
        with problems_of(path), open_to_append(path) as stream:
            stream.seek(max(stream.tell() - 1, 0))
            torn = b"" if stream.read() in (b"", b"\n") else b"\n"  # by a crash
            stream.write(torn + dumps(sidecar.row))
        self._rows(path.parent)[sidecar.row["text"]] = sidecar.row


def _text_rows(folder: Path) -> dict[str, JsonObject]:
    path, rows = folder / TEXT_RECORD, {}
    with problems_of(path):
        content = read_sidecar(path) or b""
        if not content.startswith(_ROW[: len(content)]):
            raise ValueError("not a file of ramctl, which keeps its record of texts there; move it")
    for line in content.splitlines(keepends=True):
        row = parsed(line) or {}
        with suppress(RecordProblem):  # a torn line, or another program's
            name = str(row.get("text"))
            rows[name] = {"text": name} | {
                key: string_list(row, key) for key in ("given", "refused", "existing") if key in row
            }
            rows[name] |= {key: str(row[key]) for key in text_sidecars.TEXTS_OF_ROW if key in row}
    return rows


def read_sidecar(path: Path) -> bytes | None:
    """The content of a sidecar, None for a missing one; ValueError for what is no regular file.

    Links are not followed: in a stranger's folder they may lead to any file of the user.
    """
    if not is_plain(path):
        raise ValueError(NOT_PLAIN)
    if not is_plain(path, MAX_LINE):
        raise ValueError(f"larger than {MAX_LINE // 10**6} MB")
    return path.read_bytes() if mode_of(path) else None


def _require_writable(sidecar: Sidecar, photo: Path) -> None:
    """ValueError for a sidecar that would be the photo itself, or that is read-only."""
    path = sidecar.path
    if path == photo:
        raise ValueError("this is the photo itself, not a sidecar")
    if sidecar.content is None or not path.exists():
        return
    # Root can write read-only files, but their owner does not want them changed.
    if not (os.access(path, os.W_OK) and path.stat().st_mode & 0o222):
        raise ValueError("read-only")


def write_sidecar(photo: str | os.PathLike[str], result: "TagResult") -> list[Path]:
    """Write a photo's tags as `export --xmp` does; return the sidecars that changed.

    RecordProblem for a photo that is not there, or a sidecar that cannot be read or written.
    """
    if os.fspath(photo).lower().endswith(".xmp"):
        raise UsageProblem(f"{photo}: a sidecar; give the photo's path")
    record = Record({**result.record, "image": encode_name(os.fspath(photo))})
    writer = SidecarWriter(SidecarOptions(xmp=True))
    without_refused(writer.neighbours)(record, record.fields)
    return [sidecar.path for sidecar in writer.write(record, record.fields)]


@contextmanager
def problems_of(path: Path, code: str = "write_failed") -> Iterator[None]:
    """Turn errors of the block into a RecordProblem with the sidecar's name and this reject code.

    A full disk is a RunProblem: a resumed run would otherwise leave out all remaining photos.
    """
    try:
        yield
    except (RunProblem, OSError, ValueError) as error:
        if reason := full_disk(error):
            raise RunProblem(f"{path}: {reason}") from error
        message = f"{path}: {getattr(error, 'strerror', None) or error}"
        if isinstance(error, RunProblem):
            message = error.message
        elif isinstance(error, UnicodeDecodeError):
            message = f"{path}: not UTF-8 text"
        raise RecordProblem(message, code=code) from error


def without_refused(neighbours: Neighbours) -> Callable[[Record, JsonObject], None]:
    """A function that leaves out the tags that the photo's sidecars refuse, and lists them."""

    def leave_out(record: Record, fields: JsonObject) -> None:
        photo = attempt(photo_path, image_name(fields), record.base)
        words = refused_words(photo, neighbours) if isinstance(photo, Path) else []
        matches, sources = label_matcher(words), object_in(fields, "sources")
        tags, language = listed(fields, "tags"), tag_language(fields)
        refused = [t for t in tags if matches(t, language) and HUMAN not in sources.get(t, ())]
        if refused:
            fields["refused"] = list(dict.fromkeys([*listed(fields, "refused"), *refused]))
            set_tags(fields, [tag for tag in tags if tag not in refused])

    return leave_out


def with_owner_keywords(
    record: Record, fields: JsonObject, neighbours: Neighbours, *, people: bool
) -> JsonObject:
    """The fields with the keywords that the owner gave the photo among the tags.

    They are read from its file and its sidecars, as far as possible; names only with `people`.
    """
    photo = attempt(photo_path, image_name(fields), record.base)
    if isinstance(photo, RecordProblem):
        return fields
    found: sidecar_merge.Keywords = embedded_keywords(str(photo))
    for path in xmp_paths(photo, "full", neighbours)[::-1]:
        with suppress(OSError, ValueError):
            found = sidecar_merge.owner_keywords(XmpDocument(read_sidecar(path)), found)[0]
    paths = [path.split("|") for path in sidecar_merge.keyword_paths(found)]
    paths = [path for path in paths if normalise(path[0]) not in sidecar_merge.PROGRAM_TAGS]
    words = [path[-1] for path in paths if people or not sidecar_merge.is_name(path)]
    known = {*map(normalise, fields["tags"])}
    new = [word for word in dict.fromkeys(words) if normalise(word) not in known]
    return fields | {"tags": [*fields["tags"], *new]}
