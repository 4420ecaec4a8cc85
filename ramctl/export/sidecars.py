"""Sidecars: files beside a photo that hold its tags, XMP for photo managers, text for trainers."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.export.xmp import (
    FIELDS,
    KEYWORDS,
    Field,
    Keywords,
    merge_tags,
    new_items,
    remove_tags,
    shown_keywords,
    xmp_keywords,
)
from ramctl.export.xmp_document import XmpDocument
from ramctl.labels import normalise
from ramctl.photos.archives import facts_of_file, member_of
from ramctl.photos.embedded import read_embedded
from ramctl.photos.finding import Neighbours, is_photo_name, is_raw_name
from ramctl.photos.limits import PhotoLimits, TimeLeft, in_time
from ramctl.records.fields import string_list
from ramctl.records.files import NOT_PLAIN, full_disk, is_plain, open_to_append, write_atomic
from ramctl.records.jsonl import MAX_LINE, dumps
from ramctl.records.pipes import mode_of
from ramctl.records.record import JsonObject, Record, image_name, shown_name
from ramctl.records.remote import base_url
from ramctl.records.state import parsed

XMP_PREFIX = "auto"
TEXT_RECORD = ".ramctl-txt.jsonl"  # in each folder: what its texts were given, and lost
_ROW = b'{"text":'  # that each of its lines begins with
_TAKEN = (".xmp", ".jsonl", ".tar")  # extensions of other files than texts
_FOLDERS = 16  # whose records are in memory
_MOST_SECONDS = 60  # that a photo's sidecars may take to be read and merged
NameStyle = Literal["full", "stem"]
Existing = Literal["append", "replace", "keep"]


@dataclass(frozen=True, slots=True)
class TextStyle:
    """How a photo's text is written; the choices are those of sd-scripts' tagger."""

    with_caption: bool = False  # before the tags
    first: str = ""  # tags, with commas between them, that come first where they are given
    separator: str = ", "
    underscores: bool = False  # hot_dog
    extension: str = ".txt"
    trigger: str = ""  # a word that every text begins with

    def check(self) -> None:
        """UsageProblem for an extension that other files have, or no separator."""
        name = f"photo{self.suffix}"
        if is_photo_name(name) or self.suffix in _TAKEN or Path(name).suffix != self.suffix:
            raise UsageProblem(f"--txt-extension {self.extension}: not the name of a text file")
        if not self.separator or "\n" in self.separator:
            raise UsageProblem("--txt-separator is one line, and not empty")

    @property
    def suffix(self) -> str:
        """The extension with its dot."""
        return self.extension if self.extension.startswith(".") else f".{self.extension}"

    def tags(self, tags: Sequence[str]) -> list[str]:
        """The tags in their order and spelling."""
        leading = [tag for tag in map(str.strip, self.first.split(",")) if tag in tags]
        ordered = dict.fromkeys([*leading, *tags])
        return [tag.replace(" ", "_") if self.underscores else tag for tag in ordered]

    def join(self, tags: Sequence[str]) -> str:
        """The tags in one line; a tag's own separator is escaped by a backslash."""
        return self.separator.join(tag.replace(self._mark, f"\\{self._mark}") for tag in tags)

    def split(self, line: str) -> list[str]:
        """The tags of a line that `join` made."""
        # NUL stands for an escaped separator while the line is split at the others.
        parts = line.replace(f"\\{self._mark}", "\0").split(self._mark)
        return [tag.strip().replace("\0", self._mark) for tag in parts if tag.strip()]

    def caption(self, record: JsonObject) -> str:
        """The caption that comes before the tags, empty where none is wanted."""
        return caption_of(record) if self.with_caption else ""

    def line(self, record: JsonObject) -> str:
        """All of a record's text."""
        parts = (self.trigger, self.caption(record), self.join(self.tags(record["tags"])))
        return self.separator.join(filter(None, parts))

    @property
    def _mark(self) -> str:
        return self.separator.strip() or self.separator


def caption_of(record: JsonObject) -> str:
    """A record's first caption, of those that a model wrote or its own; empty without any."""
    captions = record.get("generated_captions") or record.get("captions") or [""]
    return " ".join(str(captions[0]).split())


def require_caption(_: Record, fields: JsonObject) -> None:
    """RecordProblem for a record that has no caption."""
    if not caption_of(fields):
        message = "no caption for --txt-caption; --caption writes one"
        raise RecordProblem(message, code="missing_field")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar's new content: None leaves the file as it is, empty bytes delete it."""

    path: Path
    content: bytes | None
    row: JsonObject | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SidecarOptions:
    """Which sidecars are written, and how."""

    xmp: bool = False
    prefix: str = XMP_PREFIX  # of machine tags in XMP; empty: none
    style: NameStyle = "full"  # name of a new XMP file: IMG.JPG.xmp, or IMG.xmp for `stem`
    text: bool = False
    existing_text: Existing = "append"
    text_style: TextStyle = field(default_factory=TextStyle)
    forget_refused: bool = False  # write again what the owner has taken out
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class SidecarWriter:
    """Writes the sidecars of photos, and gives those that change; a dry run writes none.

    RecordProblem for a photo with a sidecar that cannot be read or written; then none is.
    """

    options: SidecarOptions
    neighbours: Neighbours = field(default_factory=Neighbours)
    texts: "TextRecords" = field(default_factory=lambda: TextRecords())

    def write(self, record: Record, fields: JsonObject) -> list[Sidecar]:
        """Bring a tagged photo's sidecars up to date."""
        photo = photo_path(image_name(fields), record.base)
        try:
            facts_of_file(photo)  # the record is an earlier run's
        except RecordProblem as problem:
            raise RecordProblem(f"{photo}: {problem.message}", code=problem.code) from problem

        def prepare() -> list[Sidecar]:
            sidecars = []
            if self.options.xmp:
                sidecars += self.with_tags(photo, fields["tags"])
            if self.options.text:
                sidecars.append(self.with_text(photo, fields))
            return sidecars

        return self._write(photo, prepare)

    def remove(self, record: Record, fields: JsonObject) -> list[Sidecar]:
        """Take the machine tags out of a photo's XMP sidecars."""
        photo = photo_path(image_name(fields), record.base)
        return self._write(photo, partial(self.without_tags, photo))

    def with_tags(self, photo: Path, tags: Sequence[str]) -> list[Sidecar]:
        """The photo's XMP sidecars with these machine tags and everything else they hold."""

        def edit(path: Path, content: bytes | None) -> bytes | None:
            return merge_tags(
                content, tags, self.options.prefix, embedded=lambda: photo_keywords(photo, path),
                forget=self.options.forget_refused,
            )  # fmt: skip

        return _edited(xmp_paths(photo, self.options.style, self.neighbours), edit)

    def without_tags(self, photo: Path) -> list[Sidecar]:
        """Its XMP sidecars without machine tags; those with nothing else are to be deleted."""
        forget = self.options.forget_refused
        return _edited(xmp_names(photo), lambda _, content: remove_tags(content, forget=forget))

    def with_text(self, photo: Path, record: JsonObject) -> Sidecar:
        """`IMG.txt` with the record's tags on one line, after its caption where the style has it.

        `append` keeps an existing file's line and puts what it lacks after it. What a text was
        given and does not hold any more is refused: it never comes back.
        """
        style, existing = self.options.text_style, self.options.existing_text
        path = photo.with_suffix(style.suffix)
        if others := self.neighbours(photo):
            message = f"{path} would be the sidecar of {others[0]} as well"
            raise RecordProblem(message, code="write_failed")
        earlier = {} if self.options.forget_refused else self.texts(path)
        with problems_of(path):
            content = read_sidecar(path)
            if content is not None and existing == "keep":
                return Sidecar(path, None)
            text = as_text(content)
        given, refused = earlier.get("given", []), earlier.get("refused", [])
        if content is not None:
            given, refused = text_decisions(text, earlier, style)
        left_out = set(map(normalise, refused))
        tags = [tag for tag in style.tags(record["tags"]) if normalise(tag) not in left_out]
        old = text if existing == "append" else ""
        present = set(map(normalise, style.split(old)))
        caption = style.caption(record)
        new = [tag for tag in tags if normalise(tag) not in present]
        trigger = "" if normalise(style.trigger) in present else style.trigger
        parts = (trigger, old, "" if caption in old else caption, style.join(new))
        new_content = f"{style.separator.join(filter(None, parts))}\n".encode()
        given = [*dict.fromkeys([*given, *tags] if old else tags)]
        row = {"text": shown_name(path.name), "separator": style.separator, "given": given}
        row["refused"] = [*dict.fromkeys(refused)]
        of_model = (caption if record.get("generated_captions") else "") or earlier.get("caption")
        if of_model and of_model in new_content.decode():
            row["caption"] = of_model
        return Sidecar(path, None if new_content == content else new_content, row)

    def _write(self, photo: Path, prepare: Callable[[], list[Sidecar]]) -> list[Sidecar]:
        # All are prepared before the first is written: a bad one leaves the others alone too.
        try:
            sidecars = in_time(prepare, TimeLeft(PhotoLimits(seconds=_MOST_SECONDS)))
        except TimeoutError as error:
            message = f"sidecars not ready after {_MOST_SECONDS} seconds"
            raise RecordProblem(message, code="too_slow") from error
        for sidecar in sidecars:
            with problems_of(sidecar.path):
                _require_writable(sidecar, photo)
        if not self.options.dry_run:
            for sidecar in sidecars:
                write_sidecar(sidecar)
                self.texts.add(sidecar)
        return [sidecar for sidecar in sidecars if sidecar.content is not None]


def photo_path(name: str, base: Path) -> Path:
    """The photo's path on disk; RecordProblem when it is inside an archive."""
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
    # `IMG.xmp` of several photos is the raw file's (Adobe).
    if others and (not is_raw_name(photo.name) or any(map(is_raw_name, others))):
        return [full]
    existing = [path for path in (full, stem) if mode_of(path)]
    return existing or [full if style == "full" else stem]


def photo_keywords(photo: Path, sidecar: Path) -> Keywords:
    """The keywords that programs find without the photo's XMP sidecar.

    They are in the photo, and in an `IMG.xmp` that counts as long as there is no `IMG.JPG.xmp`.
    """
    found = embedded_keywords(str(photo))
    stem = photo.with_suffix(".xmp")
    if sidecar == stem:
        return found
    with problems_of(stem):
        content = read_sidecar(stem)
        without = remove_tags(content)
        return found | _keywords(content if without is None else without)


def embedded_keywords(name: str, base: Path = Path()) -> dict[Field, Sequence[str]]:
    """The keywords in the photo's own file, `name` as `load_photo` takes it, if it can be read."""
    with suppress(RecordProblem):
        xmp, words, _ = read_embedded(name, base)
        return _keywords(xmp) | ({KEYWORDS: words} if words else {})
    return {}


def _keywords(content: bytes | None) -> dict[Field, Sequence[str]]:
    with suppress(ValueError):  # what no program can read hides nothing
        return dict(xmp_keywords(XmpDocument(content)))
    return {}


def xmp_names(photo: Path) -> tuple[Path, Path]:
    """Both names of a photo's XMP sidecar."""
    return photo.with_name(photo.name + ".xmp"), photo.with_suffix(".xmp")


def _edited(
    paths: Sequence[Path], edit: Callable[[Path, bytes | None], bytes | None]
) -> list[Sidecar]:
    sidecars = []
    for path in paths:
        with problems_of(path):
            sidecars.append(Sidecar(path, edit(path, read_sidecar(path))))
    return sidecars


def planned(sidecar: Sidecar, style: TextStyle) -> str:
    """What would happen to a sidecar: `would write a.jpg.xmp: + auto|dog, - auto|cat`."""
    is_xmp = sidecar.path.suffix == ".xmp"
    words = shown_keywords if is_xmp else lambda content: style.split(as_text(content))
    old, new = words(read_sidecar(sidecar.path)), words(sidecar.content)
    changes = [f"+ {t}" for t in new if t not in old] + [f"- {t}" for t in old if t not in new]
    verb = "write" if sidecar.content else "delete"
    return f"would {verb} {sidecar.path}" + (f": {', '.join(changes)}" if changes else "")


class TextRecords:
    """What each folder remembers of its texts, which cannot tell who wrote a word.

    A line of its file is `{"text", "separator", "given", "refused"}`, with `caption` where a model
    wrote one; the last of a text counts.
    """

    def __init__(self) -> None:
        self._rows = lru_cache(_FOLDERS)(_text_rows)

    def __call__(self, path: Path) -> JsonObject:
        """What is known of a text; empty for one that is new."""
        return self._rows(path.parent).get(shown_name(path.name), {})

    def add(self, sidecar: Sidecar) -> None:
        """Record what a sidecar brings, once it is written: a crash between refuses nothing."""
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
            raise ValueError("not what ramctl keeps here of the texts; move it away")
    for line in content.splitlines(keepends=True):
        row = parsed(line) or {}
        with suppress(RecordProblem):  # torn, or somebody else's
            lists = {name: string_list(row, name) for name in ("given", "refused")}
            name, separator = str(row.get("text")), str(row.get("separator") or ", ")
            rows[name] = {"text": name, "separator": separator, **lists}
            rows[name] |= {"caption": str(row["caption"])} if "caption" in row else {}
    return rows


def text_decisions(
    text: str, earlier: JsonObject, style: TextStyle = TextStyle()
) -> tuple[list[str], list[str]]:
    """The words that a text was given and holds, and those that somebody has refused."""
    then = replace(style, separator=earlier.get("separator", style.separator))
    held = set(map(normalise, then.split(text)))
    given, refused = earlier.get("given", []), earlier.get("refused", [])
    refused = [word for word in [*refused, *given] if normalise(word) not in held]
    return [word for word in given if normalise(word) in held], refused


def as_text(content: bytes | None) -> str:
    """A text without what surrounds it; ValueError for what is not UTF-8."""
    return (content or b"").decode("utf-8-sig").strip()


def _require_writable(sidecar: Sidecar, photo: Path) -> None:
    """ValueError for a sidecar that would be the photo itself, or that is read-only."""
    path = sidecar.path
    if path == photo:
        raise ValueError("this is the photo itself, not a sidecar")
    if sidecar.content is None or not path.exists():
        return
    # Root may write what is read-only; its owner has still asked that nobody does.
    if not (os.access(path, os.W_OK) and path.stat().st_mode & 0o222):
        raise ValueError("read-only")


def write_sidecar(sidecar: Sidecar) -> None:
    """Write or delete a sidecar atomically; RecordProblem when that fails."""
    if sidecar.content is None:
        return
    path = sidecar.path
    with problems_of(path):
        if not sidecar.content:
            path.unlink(missing_ok=True)
            return
        mode = path.stat().st_mode if path.exists() else None
        write_atomic(path, sidecar.content)
        if mode is not None:
            path.chmod(mode & 0o7777)


def missing_keywords(name: str, base: Path) -> dict[str, list[str]]:
    """By field, what the photo's own must first hold where it lacks the field."""
    inside = embedded_keywords(name, base)
    new = [field for field in FIELDS if field not in inside]
    return {field.name: new_items(field, inside, inside) for field in new}


def read_sidecar(path: Path) -> bytes | None:
    """A sidecar's content, None where there is none; ValueError for what is no plain file.

    No link is followed: the folder may be a stranger's, and lead to any file of the user's.
    """
    if not is_plain(path):
        raise ValueError(NOT_PLAIN)
    if not is_plain(path, MAX_LINE):
        raise ValueError(f"larger than {MAX_LINE // 10**6} MB")
    return path.read_bytes() if mode_of(path) else None


@contextmanager
def problems_of(path: Path, code: str = "write_failed") -> Iterator[None]:
    """Make what goes wrong with a sidecar the RecordProblem of its photo, with this reject code.

    A full disk is no photo's own: it is a RunProblem, or a resumed run would leave out the rest.
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
