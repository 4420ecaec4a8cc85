"""XMP documents: the items of list properties, read and changed, everything else untouched."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from xml.dom import minidom
from xml.parsers.expat import ExpatError

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_META = "adobe:ns:meta/"
_XMLNS = "http://www.w3.org/2000/xmlns/"
_NO_XML = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")  # and white space it changes
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_EMPTY = (
    f'<x:xmpmeta xmlns:x="{_META}"><rdf:RDF xmlns:rdf="{RDF}">'
    '<rdf:Description rdf:about=""/></rdf:RDF></x:xmpmeta>'
)


@dataclass(frozen=True, slots=True)
class Property:
    """A property whose value is a list of texts."""

    namespace: str
    prefix: str
    name: str
    container: str = "Bag"  # of a new list; any of Bag, Seq and Alt is read

    def __str__(self) -> str:
        return f"{self.prefix}:{self.name}"


class XmpDocument:
    """The content of a sidecar, or a new one for None; ValueError says why it is not XMP."""

    def __init__(self, content: bytes | None = None) -> None:
        self._document = _parse(_EMPTY.encode() if content is None else content)
        self._changed: set[Property] = set()

    def items(self, name: Property) -> list[str]:
        """The texts of a property, in order; none where the document lacks it."""
        element = self._find(name)
        listed = [_text(item) for item in _items(element)]
        bare = [_text(element)] if element is not None and not listed else []
        return [text for text in [*self._attributes(name), *listed, *bare] if text]

    def set_items(self, name: Property, texts: Iterable[str]) -> None:
        """Give a property these texts, which XML can hold; without any it is removed.

        Items that stay keep their place and attributes, new ones come last.
        """
        wanted = dict.fromkeys(texts)
        present = self.items(name)
        if set(wanted) == set(present):
            return
        self._changed.add(name)
        element = self._find(name)
        if not wanted:
            self._drop_attributes(name)
            if element is not None:
                _drop(element)
            return
        container = self._container(self._create(name) if element is None else element, name)
        for item in _items(container):
            if _text(item) not in wanted:
                _drop(item)
        for text in wanted:
            if text not in present:
                self._append_item(container, text)

    def to_bytes(self) -> bytes:
        """The document in UTF-8, empty when it holds nothing.

        ValueError where it could not be read again, which minidom does not check.
        """
        if not self._has_content():
            return b""
        content = bytes(self._document.toxml(encoding="UTF-8")) + b"\n"
        again = XmpDocument(content)
        for name in self._changed:
            if again.items(name) != self.items(name):
                raise ValueError(f"{name} would not be read as it was written")
        return content

    @property
    def _root(self) -> Any:
        return self._document.getElementsByTagNameNS(RDF, "RDF")[0]

    @property
    def _descriptions(self) -> list[Any]:
        return [node for node in self._root.childNodes if _is(node, RDF, "Description")]

    def _find(self, name: Property) -> Any | None:
        for description in self._descriptions:
            for node in description.childNodes:
                if _is(node, name.namespace, name.name):
                    return node
        return None

    def _attributes(self, name: Property) -> list[str]:
        """The values of attributes that stand for the property, which has one value then."""
        values = (d.getAttributeNS(name.namespace, name.name) for d in self._descriptions)
        return [value.strip() for value in values]

    def _drop_attributes(self, name: Property) -> None:
        for description in self._descriptions:
            if description.hasAttributeNS(name.namespace, name.name):
                description.removeAttributeNS(name.namespace, name.name)

    def _create(self, name: Property) -> Any:
        """The property's new element, with the values of attributes that stood for it."""
        descriptions = self._descriptions
        if descriptions:
            parent = descriptions[0]
        else:
            parent = self._root.appendChild(self._rdf_element("Description"))
            parent.setAttributeNS(RDF, self._rdf_name("about"), "")
        element = self._document.createElementNS(name.namespace, str(name))
        # Declared on the element itself: the prefix may mean something else further up.
        element.setAttributeNS(_XMLNS, f"xmlns:{name.prefix}", name.namespace)
        container = element.appendChild(self._rdf_element(name.container))
        for value in filter(None, self._attributes(name)):
            self._append_item(container, value)
        self._drop_attributes(name)
        return parent.appendChild(element)

    def _container(self, element: Any, name: Property) -> Any:
        """The list in a property's element; a bare text (a faulty writer's) becomes its first."""
        for kind in ("Bag", "Seq", "Alt"):
            for node in element.childNodes:
                if _is(node, RDF, kind):
                    return node
        container = self._rdf_element(name.container)
        text = _text(element)
        for child in list(element.childNodes):
            element.removeChild(child)
        if text:
            self._append_item(container, text)
        return element.appendChild(container)

    def _append_item(self, container: Any, text: str) -> None:
        item = self._rdf_element("li")
        item.appendChild(self._document.createTextNode(text))
        container.appendChild(item)

    def _rdf_element(self, name: str) -> Any:
        return self._document.createElementNS(RDF, self._rdf_name(name))

    def _rdf_name(self, name: str) -> str:
        """The name with the prefix that the document itself uses for the RDF namespace."""
        prefix = self._root.prefix
        return f"{prefix}:{name}" if prefix else name

    def _has_content(self) -> bool:
        """Whether there is anything but empty descriptions."""
        for description in self._descriptions:
            if any(node.nodeType == node.ELEMENT_NODE for node in description.childNodes):
                return True
            attributes = description.attributes.values()
            if any(a.namespaceURI not in (RDF, _XMLNS) for a in attributes):
                return True
        return False


def writable_text(text: str) -> str:
    """The text without what XML cannot hold or would change, such as control characters."""
    return _NO_XML.sub(" ", text).strip()


def _parse(content: bytes) -> minidom.Document:
    if not content.startswith(_UTF16):
        # Packets are padded, and some writers put white space before the XML declaration.
        content = content.strip(b" \t\r\n\0")
    try:
        document = minidom.parseString(content)
    except (ExpatError, LookupError, ValueError) as error:
        raise ValueError(f"not well-formed XML ({error})") from error
    if not document.getElementsByTagNameNS(RDF, "RDF"):
        raise ValueError("XML, but not XMP (no rdf:RDF)")
    return document


def _is(node: Any, namespace: str, name: str) -> bool:
    # Only elements are asked for their names: a text node has none.
    is_element: bool = node.nodeType == node.ELEMENT_NODE
    return is_element and (node.namespaceURI, node.localName) == (namespace, name)


def _items(element: Any | None) -> list[Any]:
    return [] if element is None else list(element.getElementsByTagNameNS(RDF, "li"))


def _text(node: Any) -> str:
    kinds = (node.TEXT_NODE, node.CDATA_SECTION_NODE)
    return "".join(child.data for child in node.childNodes if child.nodeType in kinds).strip()


def _drop(node: Any) -> None:
    """Remove a node and the white space that indented it."""
    before = node.previousSibling
    if before is not None and before.nodeType == node.TEXT_NODE and not before.data.strip():
        node.parentNode.removeChild(before)
    node.parentNode.removeChild(node)
