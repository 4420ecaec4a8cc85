"""Merges machine tags into the keywords of an XMP sidecar, and removes them again.

Programs read the first keyword field that they know (the README of this room lists them), so a
new field first gets the keywords of the fields beside it. A new sidecar begins as the photo's own
XMP packet. It records, in a namespace of ramctl, which keywords were added and copied: these alone
are removed again. A recorded tag that the fields lack was deleted: it is refused, and never written
again.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from ramctl.metadata.xmp_document import OURS, Property, XmpDocument, writable_text
from ramctl.records.labels import normalise

# What a person refused, and the language of the tags.
_REFUSED, _LANGUAGE = (Property(OURS, "ramctl", name) for name in ("refused", "language"))
# Branches whose words are people's names.
PEOPLE = {
    "people", "person", "persons", "faces", "names", "leute", "menschen", "personen", "gesichter",
    "personnes", "visages", "gente", "personas", "persone", "volti", "pessoas", "mensen",
}  # fmt: skip
PROGRAM_TAGS = {"digikam internal tags", "darktable"}  # branches for their own use
_SWAPPED = str.maketrans("|/", "/|")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of keywords: plain words or, with a separator, paths such as `people|Anna`."""

    name: str
    property: Property  # where it is in XMP
    separator: str = ""

    def path(self, item: str) -> str:
        """An item of a field of paths as `lr:hierarchicalSubject` writes it.

        The separators are swapped: `auto/and|or` is `auto|and/or`.
        """
        return item.translate(_SWAPPED) if self.separator == "/" else item

    def words(self, item: str) -> list[str]:
        """The words of an item in normal form."""
        return [normalise(word) for word in self.path(item).split("|")]

    def item(self, path: str) -> str:
        """The item for such a path; its last word where the field holds plain words."""
        return self.path(path) if self.separator else path.rsplit("|", 1)[-1]


_DC = "http://purl.org/dc/elements/1.1/"
DESCRIPTION = Property(_DC, "dc", "description")
SUBJECT = Field("Subject", Property(_DC, "dc", "subject"))
_LIGHTROOM = Property("http://ns.adobe.com/lightroom/1.0/", "lr", "hierarchicalSubject")
HIERARCHICAL = Field("HierarchicalSubject", _LIGHTROOM, "|")
_DIGIKAM = Property("http://www.digikam.org/ns/1.0/", "digiKam", "TagsList", "Seq")
TAGS_LIST = Field("TagsList", _DIGIKAM, "/")
_MICROSOFT = tuple(  # some programs write the namespace without the slash at its end
    Field(name, Property(f"http://ns.microsoft.com/photo/1.0{end}", name, "LastKeywordXMP"), "/")
    for name, end in (("MicrosoftPhoto", "/"), ("MicrosoftPhoto_1_", ""))
)
_MEDIAPRO = Property("http://ns.iview-multimedia.com/mediapro/1.0/", "mediapro", "CatalogSets")

#: The fields that ramctl writes.
FIELDS = (SUBJECT, HIERARCHICAL, TAGS_LIST)
#: Fields into which other programs copy keywords; machine tags are removed from them.
MIRRORS = (*_MICROSOFT, Field("CatalogSets", _MEDIAPRO, "|"))
#: Keywords that a photo holds outside XMP, in IPTC fields and those of Windows.
KEYWORDS = Field("Keywords", Property("", "", "Keywords"))

#: The keywords of a sidecar or photo, by field; fields without any may be missing.
Keywords = Mapping[Field, Collection[str]]


class Embedded(NamedTuple):
    """The content that a new sidecar begins with, and the keywords of the photo's file."""

    start: bytes | None = None
    keywords: Keywords = MappingProxyType({})

    @classmethod
    def of(cls, packet: bytes | None, words: Sequence[str]) -> "Embedded":
        """Of a photo's XMP packet, and its keywords outside of it, which fields of it may lack."""
        words = list(filter(None, map(writable_text, words)))
        document = None
        with suppress(ValueError):  # no program reads what is not XMP
            document = XmpDocument(packet) if packet else None
        if document is None:
            return cls(None, {KEYWORDS: words})
        keywords = {**xmp_keywords(document), KEYWORDS: words}
        for field in (field for field in FIELDS if field in keywords):
            known = {field.words(item)[-1] for item in keywords[field]}
            missing = (field.path(word) for word in words if normalise(word) not in known)
            document.set_items(field.property, [*keywords[field], *missing])
        return cls(document.to_bytes(), keywords)


def xmp_keywords(document: XmpDocument) -> Keywords:
    """The keywords of a document."""
    found = ((field, document.items(field.property)) for field in (*FIELDS, *MIRRORS))
    return {field: items for field, items in found if items}


def merge_tags(
    content: bytes | None, tags: Sequence[str], prefix: str, *,
    embedded: Callable[[], Embedded] = Embedded, forget: bool = False, language: str = "",
    counts: Counter[str] | None = None,
) -> bytes | None:  # fmt: skip
    """The sidecar with `tags` as its machine tags; None when nothing has to change.

    `content` is the existing sidecar, None for a new one. Tags that its owner has refused, or has
    as keywords of her own, are left out; `forget` deletes the refusals. `embedded` reads the
    photo's own file. Paths begin with `prefix`. `language` is that of the tags. `counts` gains the
    tags newly refused. Empty bytes when nothing is left but what a new sidecar begins with;
    ValueError when `content` is not XMP.
    """
    if content is None and not tags:
        return None
    start = embedded().start if content is None else content
    document = XmpDocument(start)
    records = {name: document.items(name) for name in _RECORDS}
    if not tags and not any(records.values()):
        return None
    earlier = set(map(normalise, records[_REFUSED]))
    refused = {} if forget else refused_tags(document)
    if counts is not None and (new_refused := refused.keys() - earlier):
        counts["tags newly refused"] += len(new_refused)
    hers, deleted = _without_ours(document)
    inside = {} if all(field in hers for field in FIELDS) else embedded().keywords
    others = _all_keywords(hers, inside)
    own = {word for field, items in others.items() for x in items for word in field.words(x)}
    given = [word for word in map(_word, tags) if normalise(word) not in own | refused.keys()]
    is_bare = not given and _is_new(document, hers, embedded().start)
    if is_bare and not refused:
        return None if content is None else b""
    language = language if tags else next(iter(records[_LANGUAGE]), "")
    new: dict[Property, Iterable[str]] = {name: () for name in _RECORDS}
    new |= {field.property: hers.get(field, ()) for field in (*FIELDS, *MIRRORS)}
    # A sidecar with refusals alone hides the photo's keywords, too.
    if given or is_bare:
        items = machine_items(given, prefix)
        for field in FIELDS:
            copies = [] if field in hers else new_items(field, inside, others)
            copies = [*filter(None, map(writable_text, copies))]
            kept = [*hers.get(field, ()), *(x for x in copies if field.path(x) not in deleted)]
            added = [item for item in items[field] if item not in {*kept}]
            new[field.property] = [*kept, *added]
            new[_record("added", field)], new[_record("copied", field)] = added, copies
    new[_LANGUAGE] = [language] if language and (given or refused) else ()
    new[_REFUSED] = refused.values()
    for name, texts in new.items():
        document.set_items(name, texts)
    return document.to_bytes() if document.is_changed else None


def machine_items(tags: Sequence[str], prefix: str) -> dict[Field, list[str]]:
    """The items of each field for the tags: `auto|dog` where it has paths, else `dog`."""
    words = list(filter(None, map(_word, tags)))
    paths = [f"{prefix}|{word}" if prefix else word for word in words]
    return {
        field: list(dict.fromkeys(map(field.item, paths) if field.separator else words))
        for field in FIELDS
    }


def new_items(field: Field, elsewhere: Keywords, others: Keywords) -> list[str]:
    """The items that a new field must start with, so that it hides no keyword.

    `elsewhere` are the keywords that programs read as long as the sidecar has no such field,
    `others` those of the fields beside it.
    """
    same = {SUBJECT: (SUBJECT, KEYWORDS), TAGS_LIST: (TAGS_LIST, *_MICROSOFT)}
    items = [item for name in same.get(field, (field,)) for item in elsewhere.get(name, ())]
    paths = [f.path(text) for f, texts in others.items() if f.separator for text in texts]
    plain = (SUBJECT, KEYWORDS)
    words = [text for f, texts in others.items() if f in plain for text in texts]
    items += map(field.item, paths)
    if not field.separator:
        return list(dict.fromkeys(items + words))
    all_paths = [*paths, *map(field.path, items)]
    # Programs repeat the words of a path as plain words.
    known = {
        word for path in all_paths for word in (path, *path.split("|"), path.replace("|", "/"))
    }
    return list(dict.fromkeys(items + [word for word in words if word not in known]))


def keyword_paths(keywords: Keywords) -> list[str]:
    """All keywords as `people|Anna`, paths first; without plain words that only repeat a path's."""
    return new_items(HIERARCHICAL, {}, keywords)


def is_name(path: Sequence[str]) -> bool:
    """Whether the last word of a path is in a branch of people's names."""
    return any(normalise(word) in PEOPLE for word in path[:-1])


def owner_keywords(
    document: XmpDocument, inside: Keywords
) -> tuple[Keywords, list[str], list[str], str]:
    """The owner's keywords of a photo, in a sidecar and in its file (`inside`).

    Also the machine tags that are still in the sidecar, those that the owner refused, and their
    language.
    """
    refused = refused_tags(document)
    added = [*_machine_paths(document), *map(_word, document.items(_record("added", SUBJECT)))]
    words = dict.fromkeys(path.rsplit("|", 1)[-1] for path in added)
    kept = [word for word in words if normalise(word) not in refused]
    hers, deleted = _without_ours(document)
    shown = _all_keywords(hers, inside)
    owner = {
        field: [x for x in items if field.path(x) not in deleted] for field, items in shown.items()
    }
    return owner, kept, [*refused.values()], next(iter(document.items(_LANGUAGE)), "")


def _all_keywords(sidecar: Keywords, inside: Keywords) -> Keywords:
    """The keywords that programs find in a sidecar and in the photo's file (`inside`).

    Paths of a photo manager in the sidecar outrank all keywords in the file. Any other sidecar
    outranks only those of the fields that it has.
    """
    is_complete = HIERARCHICAL in sidecar or TAGS_LIST in sidecar
    return sidecar if is_complete else {**inside, **sidecar}


def _word(tag: str) -> str:
    """A tag as one word of a path."""
    return writable_text(tag).replace("|", "/")


def refused_tags(document: XmpDocument) -> dict[str, str]:
    """The words that the sidecar's owner has deleted, by their normal form.

    They were written to a field before, and are now missing in it: not every program knows all
    fields. A word that the owner adds again is no longer refused.
    """
    words = {
        field: {word for item in items for word in field.words(item)}
        for field, items in xmp_keywords(document).items()
    }
    present = set().union(*words.values())
    refused = {normalise(x): x for x in document.items(_REFUSED) if normalise(x) not in present}
    for field in FIELDS:
        found = words.get(field, set())
        for path in map(field.path, document.items(_record("added", field))):
            word = path.rsplit("|", 1)[-1]
            if normalise(word) not in found:
                refused.setdefault(normalise(word), word)
    return refused


def _without_ours(document: XmpDocument) -> tuple[Keywords, set[str]]:
    """The keywords without what was written before; what must not be copied, as paths.

    These are copies that somebody has deleted since, and the prefix, which darktable and others
    repeat as a plain word.
    """
    hers: dict[Field, list[str]] = {}
    machine = _machine_paths(document)
    ever_copied = {x for field in FIELDS for x in document.items(_record("copied", field))}
    deleted = {word for path in machine for word in path.split("|")[:-1]} - ever_copied
    for field in (*FIELDS, *MIRRORS):
        present = document.items(field.property)
        copied = {*document.items(_record("copied", field))}
        added = {*document.items(_record("added", field))}
        if field in MIRRORS:
            added.update(map(field.item, machine))
        others = [item for item in present if item not in added]
        deleted.update(field.path(item) for item in copied.difference(present) if present)
        # A field to which nobody else has added goes with the copies in it.
        if not copied.issuperset(others):
            hers[field] = others
    return hers, deleted


def _is_new(document: XmpDocument, hers: Keywords, start: bytes | None) -> bool:
    """Whether there is nothing but what a new sidecar begins with."""
    new, fields = XmpDocument(start), [field.property for field in (*FIELDS, *MIRRORS)]
    return hers == xmp_keywords(new) and document.facts(*fields) == new.facts(*fields)


def _machine_paths(document: XmpDocument) -> list[str]:
    """The machine tags that were added to fields of paths, as `auto|dog`."""
    return [
        field.path(item)
        for field in (HIERARCHICAL, TAGS_LIST)
        for item in document.items(_record("added", field))
    ]


def _record(what: str, field: Field) -> Property:
    """The property that records what was `added` to a field, or `copied` into a new one."""
    return Property(OURS, "ramctl", f"{what}{field.name}")


_RECORDS = (
    _REFUSED, _LANGUAGE, *(_record(what, f) for what in ("added", "copied") for f in FIELDS),
)  # fmt: skip
