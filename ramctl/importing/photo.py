"""What the owner says of a photo: in its file, in its sidecars, in texts beside it."""

import html
import re
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from ramctl.errors import attempt
from ramctl.export import sidecars
from ramctl.export.xmp import KEYWORDS, Keywords, keyword_paths, own_keywords
from ramctl.export.xmp_document import Property, XmpDocument
from ramctl.importing.vocabulary import is_name
from ramctl.labels import normalise
from ramctl.photos.embedded import read_embedded
from ramctl.photos.finding import Neighbours
from ramctl.records.record import BY_TAG, HUMAN, JsonObject, Record, image_name

_TEXTS = (".txt", ".caption")
_DESCRIPTION = Property("http://purl.org/dc/elements/1.1/", "dc", "description", "Alt")
_NAMES = (  # of faces, and of people anywhere in the picture
    Property("http://www.metadataworkinggroup.com/schemas/regions/", "mwg-rs", "Name"),
    Property("http://ns.microsoft.com/photo/1.2/t/Region#", "MPReg", "PersonDisplayName"),
    Property("http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "Iptc4xmpExt", "PersonInImage"),
)
_OF_PROGRAMS = {"digikam internal tags", "darktable"}  # branches that they keep for themselves
# What cameras and programs write where a description belongs.
_NO_CAPTION = re.compile(
    r"((?-i:[A-Z]{3,}) )*digital (still )?camera|samsung( camera pictures)?|sony dsc|dci[mf]\b.*|"
    r"exif[_ ]jpeg[_ ]?\w*|created with \S+( on a mac)?|processed with vsco.*|lead technologies.*|"
    r"applemark|<.*>|default|untitled|screenshot|(r?hdr(pl)?|sdr|cof|dav|edf|mde|oznor\w*|ptr)(_.*)?",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(an?|the|and|with|in|on|at|of|is|are)\b.*|.*[.!?]", re.IGNORECASE)
_MOST_WORDS = 4  # of a tag in a text
_TAKEOUT_NAME = 46  # characters, after which Takeout cuts the names of its files
_TWICE = re.compile(r"(.+)(\(\d+\))(\.\w+)")  # IMG(1).jpg, whose facts are in IMG.jpg(1).json


@dataclass(slots=True)
class _Said:
    """What is said of a photo, from as many places as say something."""

    keywords: Keywords
    words: list[str] = field(default_factory=list)  # of texts
    captions: list[str] = field(default_factory=list)
    people: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # of the tags that ramctl wrote
    refused: list[str] = field(default_factory=list)

    def fields(self, *, people: bool) -> Iterator[tuple[str, object]]:
        """The fields of a record that say this; `people` takes names for tags, too."""
        tags: dict[str, str] = {}
        parents: dict[str, list[str]] = {}
        names, faces = [*self.people], set(map(normalise, self.people))
        paths = [path.split("|") for path in keyword_paths(self.keywords)]
        for path in [*paths, *([word] for word in self.words)]:
            *above, tag = [*filter(None, map(str.strip, path))] or [""]
            if not tag or normalise([*above, tag][0]) in _OF_PROGRAMS:
                continue
            if is_name([*above, tag]) or normalise(tag) in faces:
                names.append(tag)
            elif tags.setdefault(normalise(tag), tag) == tag and above:
                parents.setdefault(tag, above[::-1])
        for name in names if people else ():
            tags.setdefault(normalise(name), name)
        refused = _distinct(self.refused, tags)
        kept = _distinct(self.kept, {*tags, *map(normalise, refused)})
        if tags:  # without ours a photo would teach that it does not show what she kept
            yield "tags", [*tags.values(), *kept]
            of_owner = {tag: [HUMAN] for tag in tags.values()}
            yield "sources", of_owner | {tag: [BY_TAG] for tag in kept}
        confirmed = kept if refused else []  # who took one out has looked at the others
        captions = [*dict.fromkeys(" ".join(caption.split()) for caption in self.captions)]
        found = {"parents": parents, "captions": captions, "people": _distinct(names)}
        found |= {"confirmed": confirmed, "refused": refused}
        yield from ((name, value) for name, value in found.items() if value)


class PhotoReader:
    """Adds to records what their photos' owner says; `people` takes names for tags, too."""

    def __init__(self, *, people: bool = False) -> None:
        self._people = people
        self._neighbours, self._texts = Neighbours(), sidecars.TextRecords()

    def __call__(self, record: Record) -> JsonObject:
        """The record with those of `tags`, `sources`, `parents`, `captions`, `people`, `confirmed`
        and `refused` that are said; RecordProblem for what cannot be read.
        """
        name, said = image_name(record.fields), _Said({})
        xmp, words, texts = read_embedded(name, record.base)
        said.captions = next(filter(None, (_captions([text], name) for text in texts)), [])
        with suppress(ValueError):  # what no program can read says nothing
            _read_xmp(xmp, said, name)
        said.keywords = {**said.keywords, KEYWORDS: words}
        photo = attempt(sidecars.photo_path, name, record.base)
        if isinstance(photo, Path):  # nothing lies beside one in an archive, or at a URL
            self._read_beside(photo, said)
        return record.fields | dict(said.fields(people=self._people))

    def _read_beside(self, photo: Path, said: _Said) -> None:
        xmp = sidecars.xmp_paths(photo, "full", self._neighbours)
        for path in (*xmp[::-1], *takeout_paths(photo), *map(photo.with_suffix, _TEXTS)):
            with sidecars.problems_of(path, "bad_sidecar"):
                if (content := sidecars.read_sidecar(path)) is None:
                    continue
                if path.suffix == ".xmp":
                    _read_xmp(content, said, photo.name)
                elif path.suffix == ".json":
                    _read_takeout(orjson.loads(content), said, photo.name)
                else:
                    _read_text(sidecars.as_text(content), self._texts(path), said)


def _read_xmp(content: bytes | None, said: _Said, name: str) -> None:
    """An XMP document, which counts for more than those before."""
    document = XmpDocument(content)
    said.captions = _captions(document.items(_DESCRIPTION), name) or said.captions
    said.people += [text for of in _NAMES for text in document.texts(of)]
    said.keywords, kept, refused = own_keywords(document, said.keywords)
    said.kept += kept
    said.refused += refused


def _read_takeout(facts: object, said: _Said, name: str) -> None:
    """Google Takeout's: a description, and who is in the picture. Others' are passed over."""
    if isinstance(facts, dict) and "photoTakenTime" in facts:
        people = facts.get("people")
        for one in people if isinstance(people, list) else []:
            said.people += [str(one["name"])] if isinstance(one, dict) and one.get("name") else []
        said.captions += _captions([html.unescape(str(facts.get("description") or ""))], name)


def _read_text(text: str, earlier: JsonObject, said: _Said) -> None:
    """The text of a trainer: tags with commas between them, or captions, one a line."""
    given, refused = sidecars.text_decisions(text, earlier)
    said.kept += given
    said.refused += refused
    known = set(map(normalise, given))
    text = text.replace(earlier.get("caption", ""), "", 1)  # a model's
    separator = re.escape(earlier.get("separator", ",").strip()) or " "
    parts = [part.strip() for part in re.split(rf"{separator}|\n", text) if part.strip()]
    parts = [part for part in parts if normalise(part) not in known]
    short = (part for part in parts if len(part.split()) <= _MOST_WORDS)
    tags = [part for part in short if not _SENTENCE.fullmatch(part)]
    if earlier or (len(parts) > 1 and tags == parts):
        said.words += tags
        said.captions += [part for part in parts if part not in tags]
    else:
        said.captions += filter(str.strip, text.splitlines())


def paths_beside(photo: Path) -> list[Path]:
    """The files that may say something of a photo, whether they are there or not."""
    return [*sidecars.xmp_names(photo), *map(photo.with_suffix, _TEXTS), *takeout_paths(photo)]


def takeout_paths(photo: Path) -> list[Path]:
    """The names that Google Takeout has for the facts of a photo."""
    match = _TWICE.fullmatch(photo.name)
    name, number = (match[1] + match[3], match[2]) if match else (photo.name, "")
    stems = (f"{name}.supplemental-metadata"[:_TAKEOUT_NAME], name[:_TAKEOUT_NAME])
    names = [f"{stem}{number}.json" for stem in stems] + [f"{photo.name}.json"]
    return [photo.with_name(one) for one in dict.fromkeys(names)]


def _captions(texts: Iterable[str], name: str) -> list[str]:
    """The descriptions that a person wrote, and neither a camera nor for the file's name."""
    others = (Path(name).name, Path(name).stem)
    texts = [text.strip() for text in texts if any(map(str.isalpha, text))]
    return [text for text in texts if text not in others and not _NO_CAPTION.fullmatch(text)]


def _distinct(words: Iterable[str], but: Container[str] = ()) -> list[str]:
    """The words that are not in `but`, normalised, each in its first spelling."""
    found: dict[str, str] = {}
    for word in words:
        found.setdefault(normalise(word), word)
    return [word for key, word in found.items() if key and key not in but]
