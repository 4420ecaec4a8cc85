"""Keywords and captions that the owner gave a photo, in its file and in sidecars beside it."""

from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ramctl.errors import attempt
from ramctl.metadata.embedded import read_embedded
from ramctl.metadata.sidecar_merge import (
    DESCRIPTION,
    KEYWORDS,
    PROGRAM_TAGS,
    Keywords,
    is_name,
    keyword_paths,
    owner_keywords,
)
from ramctl.metadata.sidecars import photo_path, problems_of, read_sidecar, xmp_paths
from ramctl.metadata.xmp_document import XmpDocument
from ramctl.photos.finding import Neighbours
from ramctl.records.labels import normalise
from ramctl.records.record import BY_TAG, HUMAN, JsonObject, Record, image_name


@dataclass(slots=True)
class _Metadata:
    """The metadata of a photo, from all places that hold some."""

    keywords: Keywords
    captions: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # tags that ramctl wrote and that are still there
    refused: list[str] = field(default_factory=list)
    language: str = ""  # of kept and refused tags; empty: unknown

    def read_xmp(self, content: bytes | None) -> None:
        """Add the metadata of an XMP document, which outranks those before."""
        document = XmpDocument(content)
        self.keywords, kept, refused, language = owner_keywords(document, self.keywords)
        self.language = language or self.language
        self.captions = [*filter(str.strip, document.items(DESCRIPTION))] or self.captions
        self.kept += kept
        self.refused += refused

    def fields(self) -> Iterator[tuple[str, object]]:
        """The fields of the photo's record."""
        tags: dict[str, str] = {}
        for path in keyword_paths(self.keywords):
            words = [*filter(None, map(str.strip, path.split("|")))]
            if words and normalise(words[0]) not in PROGRAM_TAGS and not is_name(words):
                tags.setdefault(normalise(words[-1]), words[-1])
        refused = _distinct(self.refused, tags)
        kept = _distinct(self.kept, {*tags, *map(normalise, refused)})
        if tags:  # with the kept ones: a model would learn that what they name is not there
            yield "tags", [*tags.values(), *kept]
            human = {tag: [HUMAN] for tag in tags.values()}
            yield "sources", human | {tag: [BY_TAG] for tag in kept}
        captions = [*dict.fromkeys(" ".join(caption.split()) for caption in self.captions)]
        confirmed = kept if refused else []  # whoever deleted one has looked at the others
        found: JsonObject = {"captions": captions, "confirmed": confirmed, "refused": refused}
        found |= {"tag_language": self.language} if refused else {}
        yield from ((name, value) for name, value in found.items() if value)


class PhotoReader:
    """Adds the metadata of photos to their records."""

    def __init__(self) -> None:
        self._neighbours = Neighbours()

    def __call__(self, record: Record) -> JsonObject:
        """The record with `tags`, `sources`, `captions`, `confirmed` and `refused` where the photo
        has any; RecordProblem for a file that cannot be read.
        """
        name = image_name(record.fields)
        xmp, texts = read_embedded(name, record.base)
        found = _Metadata({}, texts.get("description", [])[:1])
        with suppress(ValueError):  # no program can read it
            found.read_xmp(xmp)
        found.keywords = {**found.keywords, KEYWORDS: texts.get("keywords", [])}
        photo = attempt(photo_path, name, record.base)
        if isinstance(photo, Path):  # photos in archives and at URLs have no files beside them
            for path in xmp_paths(photo, "full", self._neighbours)[::-1]:
                with problems_of(path, "bad_sidecar"):
                    if (content := read_sidecar(path)) is not None:
                        found.read_xmp(content)
        return record.fields | dict(found.fields())


def _distinct(words: Iterable[str], excluded: Container[str]) -> list[str]:
    """The words whose normal form is not in `excluded`, each in its first spelling."""
    found: dict[str, str] = {}
    for word in words:
        found.setdefault(normalise(word), word)
    return [word for key, word in found.items() if key and key not in excluded]
