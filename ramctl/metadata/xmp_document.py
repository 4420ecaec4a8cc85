"""XMP documents: the items of list properties, read and changed; all other nodes are kept."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from json import detect_encoding  # UTF-8, UTF-16 or UTF-32, by the first bytes
from typing import Any
from xml.dom import XMLNS_NAMESPACE
from xml.dom.minidom import Attr, Element, Text, parseString
from xml.parsers.expat import ExpatError
from xml.sax.saxutils import escape, quoteattr

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
OURS = "urn:ramctl:sidecar:1.0/"  # the namespace of ramctl; exiv2 needs the slash
_NEW = (
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/">\n<rdf:RDF xmlns:rdf="{RDF}">\n'
    '<rdf:Description rdf:about=""/>\n</rdf:RDF>\n</x:xmpmeta>'
).encode()
_NO_XML = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")  # white space that it changes too


@dataclass(frozen=True, slots=True)
class Property:
    """A property whose value is a list of texts."""

    namespace: str
    prefix: str
    name: str
    container: str = "Bag"  # or Seq, of a new list; any of Bag, Seq and Alt is read

    def __str__(self) -> str:
        return f"{self.prefix}:{self.name}"


class XmpDocument:
    """The content of a sidecar, or a new one for None; ValueError for what is not XMP."""

    def __init__(self, content: bytes | None = None) -> None:
        try:
            self._document: Any = _parsed(_NEW if content is None else content)
            root = next(iter(self._document.getElementsByTagNameNS(RDF, "RDF")), None)
        except (ExpatError, LookupError, RecursionError, ValueError) as error:
            raise ValueError(f"not well-formed XML ({error})") from error
        if self._document.doctype:
            raise ValueError("XML with a DOCTYPE, which XMP does not have")
        if root is None:
            raise ValueError("XML, but not XMP (no rdf:RDF)")
        self._descriptions = [*_children(root, RDF, "Description")]
        if not self._descriptions:
            self._descriptions = [self._added(root, RDF, "rdf:Description")]
        self.is_changed = False
        self._texts: dict[Property, list[str]] = {}  # that were read

    def items(self, name: Property) -> list[str]:
        """The texts of a property, in order; none where the document lacks it."""
        if name not in self._texts:
            nodes = self._nodes[name.namespace, name.name]
            texts = (_text(item) for node in nodes for item in _items(node))
            self._texts[name] = list(dict.fromkeys(filter(None, texts)))
        return self._texts[name]

    def set_items(self, name: Property, texts: Iterable[str]) -> None:
        """Set the texts of a property, which must fit XML; without any it is removed.

        Items that stay keep their places, and whatever else is in them.
        """
        texts = dict.fromkeys(texts)
        if texts.keys() == set(self.items(name)):
            return
        self.is_changed = True
        container = None
        for element in self._nodes[name.namespace, name.name]:
            if isinstance(element, Attr):
                parent: Any = element.ownerElement
                parent.removeAttributeNode(element)
                continue
            for item in _items(element):
                text, is_bare = _text(item), item is element
                if text and (text not in texts or is_bare):  # else it holds something else
                    item.parentNode.removeChild(item)
            lists = [node for node in element.getElementsByTagName("*") if _is_list(node)]
            if lists and any(_xml(node).strip() for node in lists[-1].childNodes):
                container = container or lists[0]
            elif lists:
                element.parentNode.removeChild(element)
        del self._nodes, self._texts[name]
        present = set(self.items(name))
        for text in (text for text in texts if text not in present):
            if container is None:
                element = self._added(self._descriptions[-1], name.namespace, str(name))
                container = self._added(element, RDF, f"rdf:{name.container}")
            tag = f"{container.prefix}:li" if container.prefix else "li"
            item = container.appendChild(self._document.createElementNS(RDF, tag))
            item.appendChild(self._document.createTextNode(text))
        del self._nodes, self._texts[name]

    def facts(self, *excluded: Property) -> set[tuple[str, ...]]:
        """All properties of the document but these and ours: namespace, name, value as XML."""
        keys = {(name.namespace, name.name) for name in excluded}
        return {
            (*key, "".join(map(_xml, node.childNodes)))
            for key, nodes in self._nodes.items()
            for node in nodes
            if key[0] not in (None, RDF, OURS, XMLNS_NAMESPACE) and key not in keys
        }

    def to_bytes(self) -> bytes:
        """The document in UTF-8."""
        declaration = ['<?xml version="1.0" encoding="UTF-8"?>'] * bool(self._document.version)
        return "\n".join([*declaration, *map(_xml, self._document.childNodes), ""]).encode()

    @cached_property
    def _nodes(self) -> defaultdict[tuple[str, str], list[Any]]:
        """The attributes, each a property with one value, and elements of each property."""
        found = defaultdict[tuple[str, str], list[Any]](list)
        attributes = (node for d in self._descriptions for node in d.attributes.values())
        for node in chain(attributes, *(d.childNodes for d in self._descriptions)):
            found[node.namespaceURI, node.localName].append(node)
        return found

    def _added(self, parent: Any, namespace: str, tag: str) -> Any:
        """A new element at the end of another, with its namespace unless that is the parent's."""
        element = parent.appendChild(self._document.createElementNS(namespace, tag))
        # The prefix may mean something else further up.
        element.setAttributeNS(XMLNS_NAMESPACE, f"xmlns:{element.prefix}", namespace)
        return element


def writable_text(text: str) -> str:
    """The text without characters that XML cannot hold or would change."""
    return _NO_XML.sub(" ", text).strip()


def _parsed(content: bytes) -> Any:
    encoding = detect_encoding(content)
    if encoding.startswith("utf-8"):  # or as declared
        return parseString(content.lstrip(b"\xef\xbb\xbf \t\r\n").rstrip(b" \t\r\n\0"))
    return parseString(content.decode(encoding).strip("\ufeff \t\r\n\0"))


def _children(parent: Any, namespace: str, name: str) -> Iterator[Any]:
    for node in parent.childNodes:
        if (node.namespaceURI, node.localName) == (namespace, name):
            yield node


def _is_list(node: Any) -> bool:
    return node.namespaceURI == RDF and node.localName in ("Bag", "Seq", "Alt")


def _items(element: Any) -> list[Any]:
    """The list items in an element, of nested ones the innermost; without any, the element."""
    return _innermost(element) or [element]


def _innermost(node: Any) -> list[Any]:
    inner = [x for n in node.childNodes if isinstance(n, Element) for x in _innermost(n)]
    return inner or [node] * (node.localName == "li" and node.namespaceURI == RDF)


def _text(element: Any) -> str:
    """The text of an element, or of the `rdf:value` in it."""
    text = "".join(node.data for node in element.childNodes if isinstance(node, Text)).strip()
    if text or not element.hasChildNodes():
        return text
    inner = (*_children(element, RDF, "value"), *_children(element, RDF, "Description"))
    return next(filter(None, map(_text, inner)), "")


def _xml(node: Any) -> str:
    """A node as XML; minidom itself loses line ends in attributes and carriage returns."""
    if isinstance(node, Text):
        return escape(node.data, {"\r": "&#13;"})
    if not isinstance(node, Element):
        return str(node.toxml())
    attributes = "".join(f" {n.name}={quoteattr(n.value or '')}" for n in node.attributes.values())
    inner = "".join(map(_xml, node.childNodes))
    return f"<{node.tagName}{attributes}>{inner}</{node.tagName}>"
