"""Keywords and captions that the owner gave a photo, in its file and in sidecars beside it."""

from collections.abc import Container, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ramctl.errors import RecordProblem, attempt
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
class PhotoMetadata:
    """The owner's metadata of a photo, from all places that hold some."""

    keywords: Keywords = field(default_factory=dict)
    captions: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # tags that ramctl wrote and that are still there
    refused: list[str] = field(default_factory=list)
    language: str = ""  # of kept and refused tags; empty: unknown

    @classmethod
    def read(cls, name: str, base: Path, neighbours: Neighbours) -> "PhotoMetadata":
        """Of a photo; RecordProblem for it, or a sidecar of it, that cannot be read."""
        xmp, texts = read_embedded(name, base)
        found = cls(captions=texts.get("description", [])[:1])
        with suppress(ValueError):  # no program can read it
            found.add_xmp(xmp)
        found.keywords = {**found.keywords, KEYWORDS: texts.get("keywords", [])}
        photo = attempt(photo_path, name, base)
        if isinstance(photo, Path):  # photos in archives and at URLs have no files beside them
            for path in xmp_paths(photo, "full", neighbours)[::-1]:
                with problems_of(path, "bad_sidecar"):
                    if (content := read_sidecar(path)) is not None:
                        found.add_xmp(content)
        return found

    def add_xmp(self, content: bytes | None) -> None:
        """Add the metadata of an XMP document, which outranks those before."""
        document = XmpDocument(content)
        self.keywords, kept, refused, language = owner_keywords(document, self.keywords)
        self.language = language or self.language
        self.captions = [*filter(str.strip, document.items(DESCRIPTION))] or self.captions
        self.kept += kept
        self.refused += refused

    def tags(self, *, names: bool) -> list[str]:
        """The last words of the keywords, with those of people where `names`."""
        paths = [
            [*filter(None, map(str.strip, p.split("|")))] for p in keyword_paths(self.keywords)
        ]
        return _distinct(
            path[-1]
            for path in paths
            if path and normalise(path[0]) not in PROGRAM_TAGS and (names or not is_name(path))
        )

    def fields(self) -> JsonObject:
        """The fields of the photo's record that have a value."""
        tags, fields = self.tags(names=False), JsonObject()
        known = set(map(normalise, tags))
        refused = _distinct(self.refused, known)
        kept = _distinct(self.kept, known.union(map(normalise, refused)))
        if tags:  # with the kept ones: a model would learn that what they name is not there
            fields["tags"] = [*tags, *kept]
            fields["sources"] = {t: [HUMAN] for t in tags} | {t: [BY_TAG] for t in kept}
        fields["captions"] = [*dict.fromkeys(" ".join(text.split()) for text in self.captions)]
        if refused:  # whoever deleted one has looked at the others
            fields |= {"confirmed": kept, "refused": refused, "tag_language": self.language}
        return {name: value for name, value in fields.items() if value}


def with_owner_keywords(record: Record, fields: JsonObject, neighbours: Neighbours) -> JsonObject:
    """The fields with the keywords that the owner gave the photo among the tags, if readable."""
    found = attempt(PhotoMetadata.read, image_name(fields), record.base, neighbours)
    if isinstance(found, RecordProblem):
        return fields
    known = set(map(normalise, fields["tags"]))
    new = [tag for tag in found.tags(names=True) if normalise(tag) not in known]
    return fields | {"tags": [*fields["tags"], *new]}


def _distinct(words: Iterable[str], excluded: Container[str] = ()) -> list[str]:
    """The words whose normal form is not in `excluded`, each in its first spelling."""
    found: dict[str, str] = {}
    for word in words:
        found.setdefault(normalise(word), word)
    return [word for key, word in found.items() if key and key not in excluded]
