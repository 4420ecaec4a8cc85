"""XMP sidecars: tags beside the owner's keywords, which no program may lose sight of.

Programs read the first keyword field that they know (the README of this room lists them), so a
field that is new in a sidecar first gets what the fields beside it hold. What was written is
recorded in the sidecar, in a namespace of ours: it can be taken out again, and nothing else. A tag
of the record that somebody has taken out is refused: it is never written again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ramctl.export.xmp_document import OURS, Property, XmpDocument, writable_text
from ramctl.labels import normalise

_REFUSED = Property(OURS, "ramctl", "refused")
_SWAPPED = str.maketrans("|/", "/|")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of keywords: plain words, or with a separator paths, such as `people|Anna`."""

    name: str
    property: Property  # where it is in XMP
    separator: str = ""

    def path(self, item: str) -> str:
        """An item of a field of paths, in the words of `lr:hierarchicalSubject`.

        A separator inside a word is written as the other one: `auto|and/or` is `auto/and|or`.
        """
        return item.translate(_SWAPPED) if self.separator == "/" else item

    def words(self, item: str) -> list[str]:
        """The words of an item, in the form in which they are compared."""
        return [normalise(word) for word in self.path(item).split("|")]

    def item(self, path: str) -> str:
        """The item for such a path: the last word of it where the field holds plain words."""
        return self.path(path) if self.separator else path.rsplit("|", 1)[-1]


SUBJECT = Field("Subject", Property("http://purl.org/dc/elements/1.1/", "dc", "subject"))
_LIGHTROOM = Property("http://ns.adobe.com/lightroom/1.0/", "lr", "hierarchicalSubject")
HIERARCHICAL = Field("HierarchicalSubject", _LIGHTROOM, "|")
_DIGIKAM = Property("http://www.digikam.org/ns/1.0/", "digiKam", "TagsList", "Seq")
TAGS_LIST = Field("TagsList", _DIGIKAM, "/")
_MICROSOFT = tuple(  # the namespace is written with a slash at its end, and without
    Field(name, Property(f"http://ns.microsoft.com/photo/1.0{end}", name, "LastKeywordXMP"), "/")
    for name, end in (("MicrosoftPhoto", "/"), ("MicrosoftPhoto_1_", ""))
)
_MEDIAPRO = Property("http://ns.iview-multimedia.com/mediapro/1.0/", "mediapro", "CatalogSets")

#: The fields that are written.
FIELDS = (SUBJECT, HIERARCHICAL, TAGS_LIST)
#: Fields that other programs write as well, digiKam all of them; they are only read, and cleared.
MIRRORS = (*_MICROSOFT, Field("CatalogSets", _MEDIAPRO, "|"))
#: Keywords that a photo holds outside of XMP: IPTC's, and those of Windows.
KEYWORDS = Field("Keywords", Property("", "", "Keywords"))
_READ = (TAGS_LIST, *_MICROSOFT, HIERARCHICAL, MIRRORS[-1], SUBJECT, KEYWORDS)  # digiKam's order

#: The keywords of a sidecar or photo; fields without any are not in it.
Keywords = Mapping[Field, Sequence[str]]


def xmp_keywords(document: XmpDocument) -> Keywords:
    """The keywords of a document."""
    found = ((of, document.items(of.property)) for of in (*FIELDS, *MIRRORS))
    return {field: items for field, items in found if items}


def merge_tags(
    content: bytes | None, tags: Sequence[str], prefix: str, *,
    embedded: Callable[[], Keywords] = dict, forget: bool = False,
) -> bytes | None:  # fmt: skip
    """The sidecar with `tags` as its machine tags; None when nothing has to change.

    Those that its owner has refused are left out, unless that is to be forgotten. `content` is the
    existing sidecar, None for a new one; `embedded` gives the photo's own keywords. Paths begin
    with `prefix`. Empty bytes when nothing is left. Raises ValueError, saying why, when `content`
    is not XMP.
    """
    if content is None and not tags:
        return None
    document = XmpDocument(content)
    before = _state(document)
    refused = {} if forget else _refused(document)
    gone = _take_out(document)
    items = machine_items([tag for tag in tags if normalise(_word(tag)) not in refused], prefix)
    if any(items.values()):
        sidecar = xmp_keywords(document)
        inside = {} if all(field in sidecar for field in FIELDS) else embedded()
        others = _shown_over(sidecar, inside)
        for field in FIELDS:
            present = sidecar.get(field, ())
            new = () if present else map(writable_text, new_items(field, inside, others))
            copied = list(filter(None, new))
            kept = [*present, *(item for item in copied if field.path(item) not in gone)]
            held = set(kept)
            added = [tag for tag in items[field] if tag not in held]
            document.set_items(field.property, [*kept, *added])
            document.set_items(_record("added", field), added)
            document.set_items(_record("copied", field), copied)
    document.set_items(_REFUSED, refused.values())
    return None if _state(document) == before else document.to_bytes()


def remove_tags(content: bytes | None, *, forget: bool = False) -> bytes | None:
    """The sidecar as it was without us: None when it is, empty when nothing else is left."""
    return merge_tags(content, (), "", forget=forget)


def shown_keywords(content: bytes | None) -> list[str]:
    """All keywords of a sidecar, paths as `people|Anna`."""
    found = xmp_keywords(XmpDocument(content or None))
    return list(dict.fromkeys(field.path(item) for field in found for item in found[field]))


def machine_items(tags: Sequence[str], prefix: str) -> dict[Field, list[str]]:
    """What each field says of the tags: `auto|dog` where it has paths, else `dog`."""
    words = list(filter(None, map(_word, tags)))
    paths = [f"{prefix}|{word}" if prefix else word for word in words]
    return {
        field: list(dict.fromkeys(map(field.item, paths) if field.separator else words))
        for field in FIELDS
    }


def new_items(field: Field, elsewhere: Keywords, others: Keywords) -> list[str]:
    """What a field that is to be created must first hold.

    `elsewhere` are the keywords that programs read as long as there is no such field here,
    `others` those of the fields beside it.
    """
    same = {SUBJECT: (SUBJECT, KEYWORDS), TAGS_LIST: (TAGS_LIST, *_MICROSOFT)}
    items = [item for of in same.get(field, (field,)) for item in elsewhere.get(of, ())]
    paths = [of.path(text) for of, texts in others.items() if of.separator for text in texts]
    words = [text for of, texts in others.items() if not of.separator for text in texts]
    items += map(field.item, paths)
    if not field.separator:
        return list(dict.fromkeys(items + words))
    held = [*paths, *map(field.path, items)]
    # Programs repeat the words of a path as plain words.
    known = {word for path in held for word in (path, *path.split("|"), path.replace("|", "/"))}
    return list(dict.fromkeys(items + [word for word in words if word not in known]))


def keyword_paths(keywords: Keywords) -> list[str]:
    """All keywords as `people|Anna`, paths first; no plain words that only repeat a path's."""
    return new_items(HIERARCHICAL, {}, {of: keywords[of] for of in _READ if of in keywords})


def own_keywords(document: XmpDocument, inside: Keywords) -> tuple[Keywords, list[str], list[str]]:
    """A photo's keywords that are not ours, with those in the file, `inside`, and a sidecar.

    With them the tags that were written for its owner and are still there, and those that she
    refused. Ours is taken out of the document.
    """
    refused = _refused(document)
    added = [field.path(x) for field in FIELDS for x in document.items(_record("added", field))]
    words = {path.rsplit("|", 1)[-1]: None for path in added}
    gone = _take_out(document)
    shown = _shown_over(xmp_keywords(document), inside)
    own = {of: [x for x in items if of.path(x) not in gone] for of, items in shown.items()}
    return own, [word for word in words if normalise(word) not in refused], [*refused.values()]


def _shown_over(sidecar: Keywords, inside: Keywords) -> Keywords:
    """The keywords of a photo with those in the file and in a sidecar.

    A sidecar with the paths that photo managers write is their last word; any other leaves a
    program those fields of the photo that it does not have itself.
    """
    is_complete = HIERARCHICAL in sidecar or TAGS_LIST in sidecar
    return sidecar if is_complete else {**inside, **sidecar}


def _word(tag: str) -> str:
    """A tag as one word of a path."""
    return writable_text(tag).replace("|", "/")


def _refused(document: XmpDocument) -> dict[str, str]:
    """What the sidecar's owner has refused, by its form for comparisons.

    That is what was added before and is now in no field, or missing in one that has paths: not
    every program knows all of them. Whoever adds a word again does not refuse it any more.
    """
    fields = xmp_keywords(document)
    words = {of: {word for item in fields[of] for word in of.words(item)} for of in fields}
    held = {word for of in fields for word in words[of]}
    refused = {normalise(word): word for word in document.items(_REFUSED)}
    refused = {key: word for key, word in refused.items() if key not in held}
    for field in FIELDS:
        for item in document.items(_record("added", field)):
            key = field.words(item)[-1]
            if key not in held or (field.separator and key not in words.get(field, held)):
                refused.setdefault(key, field.path(item).rsplit("|", 1)[-1])
    return refused


def _take_out(document: XmpDocument) -> set[str]:
    """Take out what was written before; the copied keywords that somebody else took out since."""
    gone: set[str] = set()
    machine: set[str] = set()
    ever_copied: set[str] = set()
    for field in FIELDS:
        added, copied = ({*document.items(_record(what, field))} for what in ("added", "copied"))
        ever_copied.update(copied)
        if field.separator:
            machine.update(map(field.path, added))
        present = xmp_keywords(document).get(field, ())
        if present:
            gone.update(map(field.path, copied.difference(present)))
        own = [item for item in present if item not in added]
        # A field that nobody else added to is not one of the owner's.
        document.set_items(field.property, [] if copied.issuperset(own) else own)
        for what in ("added", "copied"):
            document.set_items(_record(what, field), ())
    for field, items in xmp_keywords(document).items():
        if field in MIRRORS:
            kept = [item for item in items if field.path(item) not in machine]
            document.set_items(field.property, kept)
    # darktable and others repeat the words of a path as plain ones: the prefix is no keyword.
    parents = {word for path in machine for word in path.split("|")[:-1]}
    return gone | (parents - ever_copied)


def _record(what: str, field: Field) -> Property:
    """Where a sidecar says what we added to a field or, when it was new, copied into it."""
    return Property(OURS, "ramctl", f"{what}{field.name}")


def _state(document: XmpDocument) -> object:
    records = [_record(what, field) for what in ("added", "copied") for field in FIELDS]
    recorded = {name: frozenset(document.items(name)) for name in (*records, _REFUSED)}
    return recorded, {field: frozenset(items) for field, items in xmp_keywords(document).items()}
