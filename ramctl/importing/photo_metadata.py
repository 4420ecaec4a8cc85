"""Keywords, captions and names that the owner gave a photo: in its file, and in files beside it."""

import html
import re
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from ramctl.errors import attempt
from ramctl.export import sidecars, text_sidecars
from ramctl.export.sidecar_merge import (
    DESCRIPTION,
    KEYWORDS,
    PROGRAM_TAGS,
    Keywords,
    is_name,
    keyword_paths,
    owner_keywords,
)
from ramctl.export.xmp_document import Property, XmpDocument
from ramctl.labels import normalise
from ramctl.photos.embedded import read_embedded
from ramctl.photos.finding import Neighbours, xmp_names
from ramctl.records.record import BY_TAG, HUMAN, JsonObject, Record, image_name

_TEXTS = (".txt", ".caption")
_NAMES = (  # of faces, and of people anywhere in the picture
    Property("http://www.metadataworkinggroup.com/schemas/regions/", "mwg-rs", "Name"),
    Property("http://ns.microsoft.com/photo/1.2/t/Region#", "MPReg", "PersonDisplayName"),
    Property("http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "Iptc4xmpExt", "PersonInImage"),
)
# Descriptions that cameras and programs write.
_NO_CAPTION = re.compile(
    r"((?-i:[A-Z]{3,}) )*digital (still )?camera|samsung( camera pictures)?|sony dsc|dci[mf]\b.*|"
    r"exif[_ ]jpeg[_ ]?\w*|created with \S+( on a mac)?|processed with vsco.*|lead technologies.*|"
    r"applemark|<.*>|default|untitled|screenshot|(r?hdr(pl)?|sdr|cof|dav|edf|mde|oznor\w*|ptr)(_.*)?",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(an?|the|and|with|in|on|at|of|is|are)\b.*|.*[.!?]", re.IGNORECASE)
_MAX_WORDS = 4  # of a tag in a text
_MAX_TAKEOUT_NAME = 46  # characters; Takeout cuts longer names of its files
_COPY = re.compile(r"(.+)(\(\d+\))(\.\w+)")  # IMG(1).jpg is described in IMG.jpg(1).json


@dataclass(slots=True)
class _Metadata:
    """The metadata of a photo, from all places that hold some."""

    keywords: Keywords
    words: list[str] = field(default_factory=list)  # tags in texts
    captions: list[str] = field(default_factory=list)
    people: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # tags that ramctl wrote and that are still there
    refused: list[str] = field(default_factory=list)
    language: str = ""  # of kept and refused tags; empty: unknown

    def fields(self, *, people: bool) -> Iterator[tuple[str, object]]:
        """The fields of the photo's record; `people` makes names tags, too."""
        tags: dict[str, str] = {}
        parents: dict[str, list[str]] = {}
        names, faces = [*self.people], set(map(normalise, self.people))
        paths = [path.split("|") for path in keyword_paths(self.keywords)]
        for path in [*paths, *([word] for word in self.words)]:
            *above, tag = [*filter(None, map(str.strip, path))] or [""]
            if not tag or normalise([*above, tag][0]) in PROGRAM_TAGS:
                continue
            if is_name([*above, tag]) or normalise(tag) in faces:
                names.append(tag)
            elif tags.setdefault(normalise(tag), tag) == tag and above:
                parents.setdefault(tag, above[::-1])
        for name in names if people else ():
            tags.setdefault(normalise(name), name)
        refused = _distinct(self.refused, tags)
        kept = _distinct(self.kept, {*tags, *map(normalise, refused)})
        if tags:  # with the kept ones: a model would learn that what they name is not there
            yield "tags", [*tags.values(), *kept]
            human = {tag: [HUMAN] for tag in tags.values()}
            yield "sources", human | {tag: [BY_TAG] for tag in kept}
        confirmed = kept if refused else []  # whoever deleted one has looked at the others
        captions = [*dict.fromkeys(" ".join(caption.split()) for caption in self.captions)]
        found = {"parents": parents, "captions": captions, "people": _distinct(names)}
        found |= {"confirmed": confirmed, "refused": refused}
        found |= {"tag_language": self.language} if refused else {}
        yield from ((name, value) for name, value in found.items() if value)


class PhotoReader:
    """Adds the metadata of photos to their records; `people` makes names tags, too."""

    def __init__(self, *, people: bool = False) -> None:
        self._people = people
        self._neighbours, self._texts = Neighbours(), sidecars.TextRecords()

    def __call__(self, record: Record) -> JsonObject:
        """The record with `tags`, `sources`, `parents`, `captions`, `people`, `confirmed` and
        `refused` where the photo has any; RecordProblem for a file that cannot be read.
        """
        name, found = image_name(record.fields), _Metadata({})
        xmp, texts = read_embedded(name, record.base)
        captions = (_captions([text], name) for text in texts.get("description", ()))
        found.captions = next(filter(None, captions), [])
        with suppress(ValueError):  # no program can read it
            _read_xmp(xmp, found, name)
        found.keywords = {**found.keywords, KEYWORDS: texts.get("keywords", [])}
        photo = attempt(sidecars.photo_path, name, record.base)
        if isinstance(photo, Path):  # photos in archives and at URLs have no files beside them
            self._read_beside(photo, found)
        return record.fields | dict(found.fields(people=self._people))

    def _read_beside(self, photo: Path, found: _Metadata) -> None:
        xmp = sidecars.xmp_paths(photo, "full", self._neighbours)
        for path in (*xmp[::-1], *takeout_paths(photo), *map(photo.with_suffix, _TEXTS)):
            with sidecars.problems_of(path, "bad_sidecar"):
                if (content := sidecars.read_sidecar(path)) is None:
                    continue
                if path.suffix == ".xmp":
                    _read_xmp(content, found, photo.name)
                elif path.suffix == ".json":
                    _read_takeout(orjson.loads(content), found, photo.name)
                else:
                    _read_text(text_sidecars.as_text(content), self._texts(path), found)


def _read_xmp(content: bytes | None, found: _Metadata, name: str) -> None:
    """Add the metadata of an XMP document, which outranks those before."""
    document = XmpDocument(content)
    found.people += [text for key in _NAMES for text in document.texts(key)]
    found.keywords, kept, refused, language = owner_keywords(document, found.keywords)
    found.language = language or found.language
    # Without copies: the photo's own description may be newer.
    found.captions = _captions(document.items(DESCRIPTION), name) or found.captions
    found.kept += kept
    found.refused += refused


def _read_takeout(facts: object, found: _Metadata, name: str) -> None:
    """Add a description and people from a file of Google Takeout; other JSON is ignored."""
    if isinstance(facts, dict) and "photoTakenTime" in facts:
        people = facts.get("people")
        for person in people if isinstance(people, list) else []:
            if isinstance(person, dict) and person.get("name"):
                found.people.append(str(person["name"]))
        found.captions += _captions([html.unescape(str(facts.get("description") or ""))], name)


def _read_text(text: str, earlier: JsonObject, found: _Metadata) -> None:
    """Add the tags of a trainer's text, with commas between them, or its captions, one a line."""
    given, refused = text_sidecars.text_decisions(text, earlier)
    found.kept += given
    found.refused += refused
    known = set(map(normalise, given))
    text = text_sidecars.without(text, [earlier.get("trigger", "")])
    text = text.replace(earlier.get("caption", ""), "", 1)  # a model wrote it
    parts = [part.strip() for part in re.split(r",|\n", text) if part.strip()]
    parts = [part for part in parts if normalise(part) not in known]
    short = (part for part in parts if len(part.split()) <= _MAX_WORDS)
    tags = [part for part in short if not _SENTENCE.fullmatch(part)]
    if earlier or (len(parts) > 1 and tags == parts):
        found.words += tags
        found.captions += [part for part in parts if part not in tags]
    else:
        found.captions += filter(str.strip, text.splitlines())


def paths_beside(photo: Path) -> list[Path]:
    """The files beside a photo that are read where they exist."""
    return [*xmp_names(photo), *map(photo.with_suffix, _TEXTS), *takeout_paths(photo)]


def takeout_paths(photo: Path) -> list[Path]:
    """The names that Google Takeout may give the file about a photo."""
    match = _COPY.fullmatch(photo.name)
    name, number = (match[1] + match[3], match[2]) if match else (photo.name, "")
    stems = (f"{name}.supplemental-metadata"[:_MAX_TAKEOUT_NAME], name[:_MAX_TAKEOUT_NAME])
    names = [f"{stem}{number}.json" for stem in stems] + [f"{photo.name}.json"]
    return [photo.with_name(name) for name in dict.fromkeys(names)]


def _captions(texts: Iterable[str], name: str) -> list[str]:
    """The descriptions without those by cameras and those that repeat the file's name."""
    others = (Path(name).name, Path(name).stem)
    texts = [text.strip() for text in texts if any(map(str.isalpha, text))]
    return [text for text in texts if text not in others and not _NO_CAPTION.fullmatch(text)]


def _distinct(words: Iterable[str], excluded: Container[str] = ()) -> list[str]:
    """The words whose normal form is not in `excluded`, each in its first spelling."""
    found: dict[str, str] = {}
    for word in words:
        found.setdefault(normalise(word), word)
    return [word for key, word in found.items() if key and key not in excluded]
