"""Sidecars lose nothing but keywords: bytes, encodings, forms that few programs write, sizes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from ramctl.cli import main
from ramctl.metadata.sidecar_merge import FIELDS, MIRRORS, SUBJECT, merge_tags
from ramctl.metadata.sidecars import SidecarOptions, SidecarWriter
from ramctl.metadata.xmp_document import OURS, RDF, XmpDocument
from tests.conftest import REPOSITORY, SHARED
from tests.support import remove_tags

FOLDER = SHARED / "data" / "sidecars"
# The keyword is an attribute, a bare text, an empty list there: its form is a list's afterwards.
REFORMED = {"subject_attr", "subject_bare", "subject_empty"}
KEYWORDS = {f"{{{f.property.namespace}}}{f.property.name}" for f in (*FIELDS, *MIRRORS)}


def document(fields: str, attributes: str = "", before: str = "") -> bytes:
    """A sidecar with these fields and attributes."""
    return (
        f'{before}<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        ' xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        f' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"{attributes}>{fields}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def subject(*items: str) -> str:
    return f"<dc:subject><rdf:Bag>{''.join(items)}</rdf:Bag></dc:subject>"


def all_but_keywords(content: bytes) -> list[object]:
    """What another parser finds outside of keywords and our record."""

    def rows(element, depth):
        is_record = element.tag.startswith(f"{{{OURS}}}")
        if is_record or element.tag in KEYWORDS:
            return
        attributes = {k: v for k, v in element.attrib.items() if k not in KEYWORDS}
        children = [row for child in element for row in rows(child, depth + 1)]
        is_empty = element.tag == f"{{{RDF}}}Description" and not children
        if not is_empty or set(attributes) - {f"{{{RDF}}}about"}:
            yield depth, element.tag, attributes, (element.text or "").strip()
            yield from children

    return list(rows(ElementTree.fromstring(content.strip(b"\0 \r\n")), 0))


def parsed(content: bytes) -> bytes:
    """Content for a parser that knows no UTF-32, and no UTF-16 that is not marked or declared."""
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        for first in ("\ufeff", "<?xml", "<?xp", "<x:x"):
            if content.startswith(first.encode(encoding)):
                text = content.decode(encoding).removeprefix("\ufeff")
                return re.sub(r' encoding="[^"]*"', "", text, count=1).encode()
    return content


@pytest.mark.shared
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.xmp")), ids=lambda path: path.name)
def test_each_sidecar_keeps_what_an_xml_parser_reads_and_removing_gives_it_back(path):
    before = path.read_bytes()
    tags = ["yellow", "<a & b>", "Anna", "größer 日本"]
    merged = merge_tags(before, tags, "auto")
    assert all_but_keywords(parsed(merged)) == all_but_keywords(parsed(before))
    for field in FIELDS:
        held = XmpDocument(merged).items(field.property)
        assert set(XmpDocument(before).items(field.property)) <= set(held)
        assert any("yellow" in item for item in held)
    assert merge_tags(merged, tags, "auto") is None
    again = merge_tags(merged, ["dog", "yellow"], "auto")
    removed = remove_tags(again)
    assert all_but_keywords(parsed(removed)) == all_but_keywords(parsed(before))
    if path.name.split(".")[0] in REFORMED:
        held = XmpDocument(before).items(SUBJECT.property)
        assert XmpDocument(removed).items(SUBJECT.property) == held
    else:
        assert removed == before


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
def test_exiftool_finds_nothing_changed_but_keywords_in_any_sidecar(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for path in FOLDER.glob("*.xmp"):
        shutil.copyfile(path, Path("photos", path.name))  # what is read-only would stay
        Image.new("RGB", (8, 8)).save(Path("photos", path.stem))
    rows = [
        {"image": str(path), "tags": ["yellow", "dog"]} for path in Path("photos").glob("*.jpg")
    ]
    assert len(rows) == 49
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def export(option: str) -> dict[str, bytes]:
        with pytest.raises(SystemExit) as ended:
            main(["export", "-q", "in.jsonl", option])
        assert not ended.value.code
        return {path.name: path.read_bytes() for path in Path("photos").glob("*.xmp")}

    def compared() -> list[str]:
        command = [sys.executable, FOLDER / "compare.py", FOLDER, "photos"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.stderr == ""
        # A keyword that was an attribute is in a list now, as XMP has it.
        reformed = "subject_attr.jpg.xmp attribute {http://purl.org/dc/elements/1.1/}subject"
        return [line for line in found.stdout.splitlines() if not line.startswith(reformed)]

    merged = export("--xmp")
    assert len(merged) == 49 and compared() == []
    assert export("--xmp") == merged
    assert len(export("--xmp-remove")) == 49
    assert compared() == []


@pytest.mark.parametrize(
    "before",
    [
        document("", ' photoshop:Instructions="line one&#xA;line two&#x9;tab"'),
        document("", " photoshop:Instructions='raw\r\nbreak\tand tab' xmp:Rating = \"3\" "),
        document("<photoshop:Headline>a&#xD;&#xA;b&#xD;c</photoshop:Headline>"),
        document("<photoshop:Headline>&me; <![CDATA[<&]]> ]]&gt;</photoshop:Headline>",
                 before='<!DOCTYPE x:xmpmeta [<!ENTITY me "Anna">]>'),
        document(subject(
            "<rdf:li><rdf:Description><rdf:value>qualified</rdf:value><xmp:note>n</xmp:note>"
            "</rdf:Description></rdf:li>",
            '<rdf:li rdf:parseType="Resource"><rdf:value>resource</rdf:value><xmp:q/></rdf:li>',
        )),
        document(subject("\n  <rdf:li xml:lang='de'> Hund </rdf:li>", "<!-- mine -->\n ")),
        document("<dc:title/>").replace(b"<dc:title/></rdf:Description>", b"</rdf:Description>")
        + b" \n" * 100 + b'<?xpacket end="w"?>\0\0\0',
        document("").replace(b"></rdf:Description>", b"/>"),
        document("").decode().encode("utf-16-le"),
        document("").decode().encode("utf-32-be"),
        document("", before="\ufeff\r\n"),
    ],
    ids=[
        "references in attributes", "breaks in attributes", "references in text", "entities",
        "qualified keywords", "languages and comments", "packet", "a single tag",
        "UTF-16 without a mark", "UTF-32 without a mark", "a mark",
    ],
)  # fmt: skip
def test_not_a_byte_outside_of_keywords_changes(before):
    merged = merge_tags(before, ["yellow"], "auto")
    words = XmpDocument(before).items(SUBJECT.property)
    assert XmpDocument(merged).items(SUBJECT.property) == [*words, "yellow"]
    for field in FIELDS[1:]:  # which some programs read instead
        assert set(words) <= set(XmpDocument(merged).items(field.property))
    again = merge_tags(merged, ["yellow", "cat"], "auto")
    assert remove_tags(again) == before
    assert all_but_keywords(parsed(merged)) == all_but_keywords(parsed(before))


def test_a_sidecar_that_was_there_before_is_never_deleted():
    for before in (document(""), document("<dc:subject><rdf:Bag/></dc:subject>")):
        removed = remove_tags(merge_tags(before, ["yellow"], "auto"))
        assert all_but_keywords(removed) == all_but_keywords(before)
        assert b"dc:subject" in removed or b"dc:subject" not in before
    assert remove_tags(merge_tags(None, ["yellow"], "auto")) == b""


LAUGHS = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
for name, after in zip("abcdefghi", "bcdefghij", strict=True):
    LAUGHS += f'<!ENTITY {after} "{f"&{name};" * 10}">'
LAUGHS += "]>"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (document("<dc:title>&j;</dc:title>", before=LAUGHS), "amplification"),
        (document("<a>" * 100_000 + "</a>" * 100_000), "nested too deeply"),
        (document("<a/>" * 500_000), "too many elements"),
        (document("&s;", before=f'<!DOCTYPE x [<!ENTITY s "{subject("<rdf:li>w</rdf:li>")}">]>'),
         "entity"),
        (document("<dc:title>&file;</dc:title>",
                  before='<!DOCTYPE x [<!ENTITY file SYSTEM "/etc/hostname">]>'), None),
        (b'<?xml version="1.0" encoding="punycode"?><a/>', "not well-formed"),
        (b'<?xml version="1.0" encoding="rot13"?><a/>', "rot13"),
        (b"\xff\xfe\0", "not well-formed"),
    ],
    ids=["laughs", "nesting", "elements", "entity", "a file", "punycode", "rot13", "half a letter"],
)  # fmt: skip
def test_hostile_xml_is_refused_or_stays_as_it_is(content, says):
    if says is None:
        merged = merge_tags(content, ["yellow"], "auto")
        assert b"&file;" in merged and remove_tags(merged) == content
    else:
        with pytest.raises(ValueError, match=says):
            merge_tags(content, ["yellow"], "auto")


LARGE = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))  # seconds; each item by each took 1,000
from tests.export.test_sidecar_bytes import document, merge_tags, remove_tags, subject
words = [f"word {number}" for number in range(20_000)]
item = '<rdf:li xmp:num="1" xmp:params="' + "ab12" * 160 + '"/>'
history = f"<xmp:history><rdf:Seq>{item * 12_000}</rdf:Seq></xmp:history>"
before = document(history + subject(*(f"<rdf:li>{word}</rdf:li>" for word in words)))
assert len(before) > 8_000_000
merged = merge_tags(before, ["yellow", *words[:5]], "auto")
assert remove_tags(merged) == before
many = merge_tags(None, words, "auto")
assert merge_tags(many, words, "auto") is None
"""


@pytest.mark.slow
def test_twenty_thousand_keywords_and_a_long_history_are_no_work():
    subprocess.run([sys.executable, "-c", LARGE], check=True, cwd=REPOSITORY)


def test_what_another_program_has_written_anew_is_taken_out_as_well(tmp_path):
    merged = merge_tags(None, ["yellow"], "auto")
    # As exiv2 does: one description, declarations at its top.
    text = merged.decode().replace("<rdf:Description", '<rdf:Description xmlns:new="urn:new"')
    assert remove_tags(text.encode()) == b""
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.jpg.xmp").write_text(text)
    (written,) = SidecarWriter(SidecarOptions()).with_tags(tmp_path / "a.jpg", ["yellow"])
    assert written.content is None
