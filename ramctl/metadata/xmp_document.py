"""XMP documents: reads and changes the items of list properties, and leaves all other bytes alone.

expat reports where elements are, and changes are written into the text there. New properties get a
block of their own, so that removing them restores the document byte by byte.
"""

import re
from codecs import lookup
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from xml.parsers.expat import ExpatError, ParserCreate
from xml.sax.saxutils import escape, quoteattr

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
OURS = "urn:ramctl:sidecar:1.0/"  # the namespace of ramctl; exiv2 needs the slash
_ABOUT = ("about", f"{RDF} about")
_BYTES = bytes(range(256))
_LISTS = [f"{RDF} {kind}" for kind in ("Bag", "Seq", "Alt")]
_LI, _DESCRIPTION, _VALUE = (f"{RDF} {name}" for name in ("li", "Description", "value"))
_NO_XML = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")  # white space that it changes too
_PADDING = "\ufeff \t\r\n\0"  # of packets; some writers put it before the XML declaration
_MAX_DEPTH = 200  # of nested elements; programs write about ten
_MAX_ELEMENTS = 500_000  # 20,000 keywords and their record are 120,000
_TAG = re.compile(rb"""<((?:[^\s/>:]+:)?)[^\s/>:]+(?:[^>"']+|"[^"]*"|'[^']*')*+>""")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=/>]+)\s*=\s*("[^"]*"|'[^']*')""")
_REMARK = re.compile(rb"<[!?]")  # a comment or processing instruction
_DECLARED = re.compile(rb"""[\s\0]*<\?xml\s[^>]*?\sencoding\s*=\s*["']([\w.:-]+)""")
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32-le"), (b"\0\0\xfe\xff", "utf-32-be"), (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"),
    (b"<\0", "utf-16-le"), (b"\0<\0", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8"),
)  # fmt: skip
_EMPTY = (
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/">\n<rdf:RDF xmlns:rdf="{RDF}">\n</rdf:RDF>\n</x:xmpmeta>\n'
).encode()
_Edit = tuple[int, int, str]  # start and end in bytes, and the text for these bytes


@dataclass(frozen=True, slots=True)
class Property:
    """A property whose value is a list of texts."""

    namespace: str
    prefix: str
    name: str
    container: str = "Bag"  # or Seq, of a new list; any of Bag, Seq and Alt is read

    def __str__(self) -> str:
        return f"{self.prefix}:{self.name}"

    @property
    def key(self) -> str:
        """Its name in the parser's form."""
        return f"{self.namespace} {self.name}"


@dataclass(slots=True, eq=False)
class _Element:
    """An element; where its start tag begins, and its end tag (without one, what follows)."""

    key: str
    attributes: dict[str, str]
    start: int
    close: int = 0
    texts: list[str] = field(default_factory=list)
    children: list["_Element"] = field(default_factory=list)

    def all(self) -> Iterator["_Element"]:
        """The element and all inside it, in the order of the document."""
        yield self
        for child in self.children:
            yield from child.all()


class XmpDocument:
    """The content of a sidecar, or a new one for None; ValueError for what is not XMP."""

    def __init__(self, content: bytes | None = None) -> None:
        self._encoding, text = _decoded(_EMPTY if content is None else content)
        self._lead = text[: len(text) - len(text.lstrip(_PADDING))]
        body = text[len(self._lead) :].rstrip(_PADDING)
        self._tail = text[len(self._lead) + len(body) :]
        self._body = body.encode()
        root = next((e for e in _tree(self._body).all() if e.key == f"{RDF} RDF"), None)
        if root is None:
            raise ValueError("XML, but not XMP (no rdf:RDF)")
        self._root = root
        self._descriptions = [child for child in root.children if child.key == _DESCRIPTION]
        self._elements: defaultdict[str, list[_Element]] = defaultdict(list)
        self._texts: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for description in self._descriptions:
            for name, value in description.attributes.items():  # of a property with one value
                if value.strip():
                    self._texts[_key(name)].setdefault(value.strip())
            for element in description.children:
                self._elements[element.key].append(element)
                for item in [*_items(element)] or [element]:
                    if text := _text(item):
                        self._texts[element.key].setdefault(text)
        # The block of new properties has the same `rdf:about` as the others. It is recognised by
        # its start tag, and missing where another program has rewritten the whole document.
        declared = "" if self._tag(root)[1] == b"rdf:" else f' xmlns:rdf="{RDF}"'
        about = quoteattr(next((text for name in _ABOUT for text in self._texts[name]), ""))
        opening = f'<rdf:Description{declared} rdf:about={about} xmlns:ramctl="{OURS}">'
        self._opening = opening.encode()
        blocks = (d for d in self._descriptions if self._body.startswith(self._opening, d.start))
        self._block = next(blocks, None)
        self._changes: dict[Property, dict[str, None]] = {}  # the new texts of properties

    def items(self, name: Property) -> list[str]:
        """The texts of a property, in order; none where the document lacks it."""
        return list(self._changes.get(name, self._texts[name.key]))

    def set_items(self, name: Property, texts: Iterable[str]) -> None:
        """Set the texts of a property, which must fit XML; without any it is removed."""
        self._changes[name] = dict.fromkeys(texts)

    @property
    def is_changed(self) -> bool:
        """Whether `set_items` has given a property other texts, in whatever order."""
        return bool(self._edits())

    def to_bytes(self) -> bytes:
        """The document in its own encoding; empty where nothing is in it, and ramctl made it.

        ValueError where it would not be read as it was written.
        """
        parts, place = [], 0
        for start, end, new in sorted(self._edits()):
            parts += [self._body[place:start].decode(), new]
            place = end
        text = self._lead + "".join([*parts, self._body[place:].decode()]) + self._tail
        again = XmpDocument(content := text.encode(self._encoding))
        for name, texts in self._changes.items():
            if not texts.keys() <= set(again.items(name)):
                raise ValueError(f"{name} would not be read as it was written")
        is_ours = self._block is None or again._body == _EMPTY.strip()
        return b"" if is_ours and not again._root.children else content

    def _edits(self) -> list[_Edit]:
        edits: list[_Edit] = []
        dropped: set[_Element] = set()
        new: list[str] = []
        for name, texts in self._changes.items():
            present = set(self._texts[name.key])
            removed, added = present - texts.keys(), [text for text in texts if text not in present]
            if not removed and not added:
                continue
            for description in self._descriptions:
                for value, edit in self._without_attribute(description, name.key):
                    edits.append(edit)
                    added = [value] * (value in texts) + added
            for element in self._elements[name.key]:
                changes = list(self._changed(element, removed, added))
                dropped.update([element] if self._cut(element) in changes else [])
                edits += changes
                added = []
            if added:
                # Declared on the element itself: the prefix may mean something else further up.
                is_ours = name.namespace == OURS
                declared = "" if is_ours else f' xmlns:{name.prefix}="{name.namespace}"'
                kind, items = name.container, self._listed(added)
                new.append(f"\n<{name}{declared}><rdf:{kind}>{items}</rdf:{kind}></{name}>")
        for description in self._descriptions:
            is_bare = all(_key(name) in _ABOUT for name in description.attributes)
            is_emptied = bool(description.children) and dropped.issuperset(description.children)
            is_used = new and description is self._block
            if is_bare and is_emptied and not is_used and self._is_ours(description):
                start, end, _ = whole = self._cut(description)
                edits = [edit for edit in edits if not start <= edit[0] < end] + [whole]
        if not new:
            return edits
        content, block = "".join(new), self._block
        if block is not None:
            place = self._end(block.children[-1]) if block.children else self._tag(block).end()
            return [*edits, (place, place, content)]
        content = f"{self._opening.decode()}{content}\n</rdf:Description>"
        if not self._descriptions:
            return [*edits, self._filled(self._root, f"\n{content}")]
        start, end, _ = self._cut(last := self._descriptions[-1])
        return [*edits, (end, end, self._body[start : last.start].decode() + content)]

    def _changed(self, element: _Element, removed: set[str], added: list[str]) -> Iterator[_Edit]:
        """The edits that remove items of a property, or its whole element, and add new items."""
        items = list(_items(element))
        doomed = [item for item in items if _text(item) in removed and not item.children]
        if items and doomed == items and not added and self._is_ours(element):
            yield self._cut(element)
            return
        yield from map(self._cut, doomed)
        if not added:
            return
        container = next((e for e in element.all() if e.key in _LISTS), None)
        if items:
            start, end, _ = self._cut(items[-1])
            indent = self._body[start : items[-1].start].decode()
            yield end, end, self._listed(added, items[-1], indent)
        elif container is not None:
            yield self._filled(container, self._listed(added, container))
        elif element.children or any(key.startswith(RDF) for key in element.attributes):
            raise ValueError(f"{element.key.split()[1]} holds something other than words")
        else:  # a bare text, which is not valid XMP, becomes the first item
            words = self._listed(filter(None, [_text(element), *added]))
            new = f'<rdf:Bag xmlns:rdf="{RDF}">{words}</rdf:Bag>'
            start, end, new = self._filled(element, new)
            yield start, max(end, element.close), new

    def _is_ours(self, element: _Element) -> bool:
        """Whether ramctl made an element, or another program has rewritten the whole document."""
        block = self._block
        is_inside = block is None or element is block or element in block.children
        is_inside |= element.key.startswith(OURS)
        return is_inside and not _REMARK.search(self._body, element.start, self._end(element))

    def _tag(self, element: _Element) -> re.Match[bytes]:
        """The start tag of an element; ValueError for one that an entity holds."""
        tag = _TAG.match(self._body, element.start)
        if tag is None:
            raise ValueError("its keywords are in an entity")
        return tag

    def _end(self, element: _Element) -> int:
        end = self._tag(element).end()
        is_single = self._body.startswith(b"/>", end - 2)
        return end if is_single else self._body.index(b">", element.close) + 1

    def _cut(self, element: _Element) -> _Edit:
        """The edit that removes an element and the white space that indents it."""
        start = element.start
        while self._body[start - 1] in b" \t\r\n":
            start -= 1
        return start, self._end(element), ""

    def _filled(self, element: _Element, content: str) -> _Edit:
        """The edit that adds this at the beginning of an element's content."""
        tag = self._tag(element)
        if not tag[0].endswith(b"/>"):
            return tag.end(), tag.end(), content
        name = tag[0][1:-2].split()[0].decode()
        return tag.end() - 2, tag.end(), f">{content}</{name}>"

    def _without_attribute(self, description: _Element, key: str) -> Iterator[tuple[str, _Edit]]:
        """The values of attributes that stand for a property, and the edits that remove them."""
        values = {
            ":".join(name.split()[:0:-1]).encode(): value.strip()
            for name, value in description.attributes.items()
            if _key(name) == key
        }
        tag = self._tag(description)
        for found in _ATTRIBUTE.finditer(self._body, tag.start(), tag.end()):
            if found[1] in values:
                yield values[found[1]], (found.start(), found.end(), "")

    def _listed(self, texts: Iterable[str], like: _Element | None = None, indent: str = "") -> str:
        """List items, with the namespace prefix of another element."""
        prefix, items = self._tag(like)[1].decode() if like else "rdf:", []
        for text in texts:
            items.append(f"{indent}<{prefix}li>{self._escaped(text)}</{prefix}li>")
        return "".join(items)

    def _escaped(self, text: str) -> str:
        # Not all programs can read other encodings, but all can read references.
        encoding = "utf-8" if self._encoding.lower().startswith("utf") else "ascii"
        return escape(text).encode(encoding, "xmlcharrefreplace").decode(encoding)


def writable_text(text: str) -> str:
    """The text without characters that XML cannot hold or would change."""
    return _NO_XML.sub(" ", text).strip()


def _decoded(content: bytes) -> tuple[str, str]:
    """The encoding, by the first bytes or as declared, and the text; ValueError for other bytes."""
    declared = _DECLARED.match(content)
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    try:
        if encoding is None and declared:
            encoding = declared[1].decode()
            # Programs that read XMP do not know encodings with several bytes a character.
            if lookup(encoding).name != "utf-8" and len(_BYTES.decode(encoding, "replace")) != 256:
                raise ValueError(f"encoding {encoding}")
        encoding = encoding or "utf-8"
        text = content.decode(encoding)
        if text.encode(encoding) != content:
            raise ValueError(f"not {encoding}")
    except (LookupError, ValueError) as error:
        raise ValueError(f"not well-formed XML ({error})") from error
    return encoding, text


def _tree(body: bytes) -> _Element:
    """The elements of an XML text, below a root without a name."""
    parser = ParserCreate("UTF-8", " ")
    parser.namespace_prefixes = parser.buffer_text = True
    open_elements, numbers = [top := _Element("", {}, 0)], count()

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(open_elements) > _MAX_DEPTH or next(numbers) > _MAX_ELEMENTS:
            raise ValueError("not XMP (too many elements, or nested too deeply)")
        element = _Element(_key(name), attributes, parser.CurrentByteIndex)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_: str) -> None:
        open_elements.pop().close = parser.CurrentByteIndex

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda text: open_elements[-1].texts.append(text)
    try:
        parser.Parse(body, True)
    except ExpatError as error:
        raise ValueError(f"not well-formed XML ({error})") from error
    return top


def _key(name: str) -> str:
    """A parser's name, `namespace local prefix`, without the prefix."""
    return " ".join(name.split(" ")[:2])


def _items(element: _Element) -> Iterator[_Element]:
    """The list items in an element; of nested ones the innermost."""
    for child in element.children:
        inner = list(_items(child))
        yield from inner or ([child] if child.key == _LI else [])


def _text(element: _Element) -> str:
    """The text of an element, or of the `rdf:value` in it."""
    inner = (_text(child) for child in element.children if child.key in (_VALUE, _DESCRIPTION))
    return "".join(element.texts).strip() or next(filter(None, inner), "")
