"""XMP: tags merged into the keywords of a sidecar, everything else in it untouched.

Which fields programs read: Lightroom and Bridge `dc:subject` and `lr:hierarchicalSubject`,
digiKam and Immich `digiKam:TagsList`, darktable `lr:hierarchicalSubject`. Machine tags carry a
prefix, `auto|dog`, which tells them from the user's own, so that they can be replaced and removed.
"""

import re
from collections.abc import Container, Sequence
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
class _Field:
    namespace: str
    prefix: str
    name: str
    container: str  # of a new list; any of Bag, Seq and Alt is read
    separator: str  # between a tag and its parent


FIELDS = (
    _Field("http://purl.org/dc/elements/1.1/", "dc", "subject", "Bag", "|"),
    _Field("http://ns.adobe.com/lightroom/1.0/", "lr", "hierarchicalSubject", "Bag", "|"),
    _Field("http://www.digikam.org/ns/1.0/", "digiKam", "TagsList", "Seq", "/"),
)


def merge_tags(content: bytes | None, tags: Sequence[str], prefix: str) -> bytes | None:
    """The sidecar with exactly `tags` as its machine tags; None when nothing has to change.

    `content` is the existing sidecar, None for a new one. With an empty prefix tags are only
    added. Raises ValueError, saying why, when `content` is not XMP.
    """
    if content is None and not tags:
        return None
    document = _parse(_EMPTY.encode() if content is None else content)
    changes = [_set_field(document, field, tags, prefix) for field in FIELDS]
    return _checked(document) if any(changes) else None


def remove_tags(content: bytes | None, prefix: str) -> bytes | None:
    """The sidecar without machine tags: None when it had none, empty when nothing else is left.

    Raises ValueError as `merge_tags`.
    """
    if content is None:
        return None
    document = _parse(content)
    changes = [_set_field(document, field, (), prefix) for field in FIELDS]
    if not any(changes):
        return None
    return _checked(document) if _has_content(document) else b""


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


def _checked(document: minidom.Document) -> bytes:
    """The sidecar; ValueError where it could not be read again, which minidom does not check."""
    content = bytes(document.toxml(encoding="UTF-8")) + b"\n"
    again = _parse(content)
    for field in FIELDS:
        if _texts(again, field) != _texts(document, field):
            raise ValueError(f"{field.prefix}:{field.name} would not be read as it was written")
    return content


def _texts(document: minidom.Document, field: _Field) -> list[str]:
    return [_text(item) for item in _items(_find(document, field))]


def _root(document: minidom.Document) -> Any:
    return document.getElementsByTagNameNS(RDF, "RDF")[0]


def _descriptions(document: minidom.Document) -> list[Any]:
    return [node for node in _root(document).childNodes if _is(node, RDF, "Description")]


def _is(node: Any, namespace: str, name: str) -> bool:
    # Only elements are asked for their names: a text node has none.
    is_element: bool = node.nodeType == node.ELEMENT_NODE
    return is_element and (node.namespaceURI, node.localName) == (namespace, name)


def _find(document: minidom.Document, field: _Field) -> Any | None:
    for description in _descriptions(document):
        for node in description.childNodes:
            if _is(node, field.namespace, field.name):
                return node
    return None


def _items(element: Any | None) -> list[Any]:
    return [] if element is None else list(element.getElementsByTagNameNS(RDF, "li"))


def _text(node: Any) -> str:
    kinds = (node.TEXT_NODE, node.CDATA_SECTION_NODE)
    return "".join(child.data for child in node.childNodes if child.nodeType in kinds).strip()


def _set_field(document: minidom.Document, field: _Field, tags: Sequence[str], prefix: str) -> bool:
    """Make the field's machine tags exactly these; whether anything changed."""
    element = _find(document, field)
    present = [(item, _text(item)) for item in _items(element)]
    writable = (_NO_XML.sub(" ", tag).strip() for tag in tags)
    wanted = dict.fromkeys(_item_text(tag, field, prefix) for tag in writable if tag)
    texts = {text for _, text in present}
    missing = [text for text in wanted if text not in texts]
    stale = _stale_items(present, wanted, f"{prefix}{field.separator}") if prefix else []
    for item in stale:
        _drop(item)
    if missing:
        _add_items(document, element, field, missing)
    elif stale and not _items(element):
        _drop(element)
    return bool(stale or missing)


def _stale_items(
    present: Sequence[tuple[Any, str]], wanted: Container[str], machine: str
) -> list[Any]:
    """The machine's own items, known by how they start, that are wanted no longer."""
    return [item for item, text in present if text.startswith(machine) and text not in wanted]


def _item_text(tag: str, field: _Field, prefix: str) -> str:
    if field.name != "subject":
        tag = tag.replace(field.separator, " ")  # there is no way to escape a separator
    return f"{prefix}{field.separator}{tag}" if prefix else tag


def _drop(node: Any) -> None:
    """Remove a node and the white space that indented it."""
    before = node.previousSibling
    if before is not None and before.nodeType == node.TEXT_NODE and not before.data.strip():
        node.parentNode.removeChild(before)
    node.parentNode.removeChild(node)


def _create(document: minidom.Document, field: _Field) -> Any:
    """The field's new element, with the value of an attribute that stood for it."""
    descriptions = _descriptions(document)
    if descriptions:
        parent = descriptions[0]
    else:
        parent = _root(document).appendChild(_rdf_element(document, "Description"))
        parent.setAttributeNS(RDF, _rdf_name(document, "about"), "")
    element = document.createElementNS(field.namespace, f"{field.prefix}:{field.name}")
    # Declared on the element itself: the prefix may mean something else further up.
    element.setAttributeNS(_XMLNS, f"xmlns:{field.prefix}", field.namespace)
    for description in descriptions:  # a property may also be an attribute, with one value
        value = description.getAttributeNS(field.namespace, field.name)
        if value:
            description.removeAttributeNS(field.namespace, field.name)
            element.appendChild(document.createTextNode(value))
    return parent.appendChild(element)


def _container(document: minidom.Document, element: Any, field: _Field) -> Any:
    """The list inside a keyword element; a bare text (a faulty writer's) becomes its first item."""
    for name in ("Bag", "Seq", "Alt"):
        for node in element.childNodes:
            if _is(node, RDF, name):
                return node
    container = _rdf_element(document, field.container)
    text = _text(element)
    for child in list(element.childNodes):
        element.removeChild(child)
    if text:
        _append_item(document, container, text)
    return element.appendChild(container)


def _add_items(
    document: minidom.Document, element: Any | None, field: _Field, texts: Sequence[str]
) -> None:
    element = _create(document, field) if element is None else element
    container = _container(document, element, field)
    for text in texts:
        _append_item(document, container, text)


def _append_item(document: minidom.Document, container: Any, text: str) -> None:
    item = _rdf_element(document, "li")
    item.appendChild(document.createTextNode(text))
    container.appendChild(item)


def _rdf_element(document: minidom.Document, name: str) -> Any:
    return document.createElementNS(RDF, _rdf_name(document, name))


def _rdf_name(document: minidom.Document, name: str) -> str:
    """The name with the prefix that the document itself uses for the RDF namespace."""
    prefix = _root(document).prefix
    return f"{prefix}:{name}" if prefix else name


def _has_content(document: minidom.Document) -> bool:
    """Whether anything but empty descriptions is left."""
    for description in _descriptions(document):
        if any(node.nodeType == node.ELEMENT_NODE for node in description.childNodes):
            return True
        attributes = description.attributes.values()
        if any(a.namespaceURI not in (RDF, _XMLNS) for a in attributes):
            return True
    return False
