"""Sidecars lose nothing but keywords: forms that few programs write, and what is refused."""

from itertools import chain
from xml.etree import ElementTree

import pytest

from ramctl.metadata.sidecar_merge import FIELDS, MIRRORS, SUBJECT, merge_tags
from ramctl.metadata.xmp_document import OURS, RDF, XmpDocument
from tests.conftest import SHARED
from tests.support import remove_tags

FOLDER = SHARED / "data" / "sidecars"
REFUSED = {"entities", "entity_attr"}  # they have a DOCTYPE
KEYWORDS = {f"{{{f.property.namespace}}}{f.property.name}" for f in (*FIELDS, *MIRRORS)}


def all_but_keywords(content: bytes) -> list[object]:
    """What another parser finds outside of keywords and our record."""

    def rows(element, depth):
        if element.tag.startswith(f"{{{OURS}}}") or element.tag in KEYWORDS:
            return
        attributes = {k: v for k, v in element.attrib.items() if k not in KEYWORDS}
        yield depth, element.tag, attributes, (element.text or "").strip()
        for child in element:
            yield from rows(child, depth + 1)

    return list(rows(ElementTree.fromstring(XmpDocument(content).to_bytes()), 0))


@pytest.mark.shared
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.xmp")), ids=lambda path: path.name)
def test_each_sidecar_keeps_what_an_xml_parser_reads_and_removing_gives_it_back(path):
    before, tags = path.read_bytes(), ["yellow", "<a & b>", "Anna", "größer 日本"]
    if path.name.split(".")[0] in REFUSED:
        with pytest.raises(ValueError, match="DOCTYPE"):
            merge_tags(before, tags, "auto")
        return
    merged = merge_tags(before, tags, "auto")
    assert all_but_keywords(merged) == all_but_keywords(before)
    attributes = (element.attrib.keys() for element in ElementTree.fromstring(merged).iter())
    assert KEYWORDS.isdisjoint(chain.from_iterable(attributes))  # none stands beside its list
    for field in FIELDS:
        held = XmpDocument(merged).items(field.property)
        assert set(XmpDocument(before).items(field.property)) <= set(held)
        assert any("yellow" in item for item in held)
    assert merge_tags(merged, tags, "auto") is None
    if path.name == "subject_empty.jpg.xmp":  # it holds nothing
        assert remove_tags(merged) == b""
        return
    removed = remove_tags(merge_tags(merged, ["dog", "yellow"], "auto"))
    assert all_but_keywords(removed) == all_but_keywords(before)
    for field in FIELDS:
        held = XmpDocument(before).items(field.property)
        assert sorted(XmpDocument(removed).items(field.property)) == sorted(held)


def document(fields: str) -> bytes:
    """A sidecar with these fields."""
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:p="urn:p" rdf:about="">'
        f"{fields}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


@pytest.mark.parametrize(
    "kept",
    [
        "<p:a>a&#13;\nb <!-- mine --><?mine too?></p:a>",
        '<p:a p:b="line one&#10;line two&#9;tab"></p:a>',
        "<p:a>&lt;&amp;&gt; ]]&gt; größer</p:a>",
        '<dc:subject rdf:resource="urn:x"></dc:subject><p:a>b</p:a>',
        '<dc:subject><rdf:Bag><rdf:li xml:lang="de">Hund</rdf:li><!--c--></rdf:Bag></dc:subject>',
        "<dc:subject><rdf:Bag><rdf:li><rdf:value>w</rdf:value><p:n>n</p:n></rdf:li></rdf:Bag>"
        "</dc:subject>",
    ],
)
def test_removing_gives_back_every_node(kept):
    before = document(kept)
    assert kept.encode() in before
    removed = remove_tags(merge_tags(before, ["yellow"], "auto"))
    assert removed.strip() == before
    words = XmpDocument(before).items(SUBJECT.property)
    merged = merge_tags(before, ["yellow"], "auto")
    assert XmpDocument(merged).items(SUBJECT.property) == [*words, "yellow"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"<a><b></a>", b"<svg/>", b"\xff\xfe\0",
        document("<p:a>" * 100_000 + "</p:a>" * 100_000),
        b'<!DOCTYPE x [<!ENTITY file SYSTEM "/etc/hostname">]>' + document("<p:a>&file;</p:a>"),
    ],
    ids=["empty", "torn", "no XMP", "half a letter", "nesting", "a file"],
)  # fmt: skip
def test_what_is_not_xmp_is_refused(content):
    with pytest.raises(ValueError, match=r"not well-formed|not XMP|DOCTYPE"):
        merge_tags(content, ["yellow"], "auto")
