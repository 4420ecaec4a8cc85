"""Sidecars: merged, never destructive, read back by exiftool."""

import json
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ramctl.errors import RecordProblem
from ramctl.tagging.sidecars import (
    Sidecar,
    text_sidecar,
    write_sidecar,
    xmp_paths,
    xmp_sidecars,
    xmp_without_tags,
)
from ramctl.tagging.xmp import FIELDS, RDF, merge_tags, remove_tags

DARKTABLE = """<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:darktable="http://darktable.sf.net/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
   xmp:Rating="4"
   darktable:history_end="3">
   <!-- made by hand -->
   <dc:title>
    <rdf:Alt><rdf:li xml:lang="x-default">Großmutter &amp; Ich</rdf:li></rdf:Alt>
   </dc:title>
   <dc:subject>
    <rdf:Bag>
     <rdf:li>family</rdf:li>
     <rdf:li>dog</rdf:li>
    </rdf:Bag>
   </dc:subject>
   <lr:hierarchicalSubject>
    <rdf:Seq>
     <rdf:li>people|family</rdf:li>
    </rdf:Seq>
   </lr:hierarchicalSubject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""

ODD_PREFIXES = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<r:Description r:about="" xmlns:foo="http://ns.adobe.com/xap/1.0/" foo:Rating="3"/>'
    '<r:Description r:about="" xmlns:k="http://purl.org/dc/elements/1.1/">'
    "<k:subject><r:Bag><r:li>mine</r:li></r:Bag></k:subject></r:Description>"
    '</r:RDF><?xpacket end="w"?>'
)


def tags_of(content):
    """The items of each keyword field that the sidecar has, by `prefix:name`."""
    root = ElementTree.fromstring(content)
    found = {}
    for field in FIELDS:
        for element in root.iter(f"{{{field.namespace}}}{field.name}"):
            items = [(item.text or "").strip() for item in element.iter(f"{{{RDF}}}li")]
            found[f"{field.prefix}:{field.name}"] = items
    return found


def test_a_new_sidecar_has_all_three_fields():
    content = merge_tags(None, ["dog", "red | blue", "and/or"], "auto")
    assert tags_of(content) == {
        "dc:subject": ["auto|dog", "auto|red | blue", "auto|and/or"],
        "lr:hierarchicalSubject": ["auto|dog", "auto|red   blue", "auto|and/or"],
        "digiKam:TagsList": ["auto/dog", "auto/red | blue", "auto/and or"],
    }


def test_no_tags_make_no_sidecar():
    assert merge_tags(None, [], "auto") is None


def test_what_other_programs_wrote_is_kept():
    content = merge_tags(DARKTABLE.encode(), ["dog"], "auto").decode()
    for kept in (
        'xmp:Rating="4"', 'darktable:history_end="3"', "<!-- made by hand -->",
        "Großmutter &amp; Ich", "x:xmptk=",
    ):  # fmt: skip
        assert kept in content
    assert tags_of(content.encode())["dc:subject"] == ["family", "dog", "auto|dog"]
    assert tags_of(content.encode())["lr:hierarchicalSubject"] == ["people|family", "auto|dog"]


def test_old_machine_tags_are_replaced_and_a_second_time_changes_nothing():
    first = merge_tags(DARKTABLE.encode(), ["cat", "sofa"], "auto")
    second = merge_tags(first, ["sofa", "dog"], "auto")
    assert tags_of(second)["dc:subject"] == ["family", "dog", "auto|sofa", "auto|dog"]
    assert merge_tags(second, ["dog", "sofa"], "auto") is None


def test_removing_gives_back_the_sidecar_as_it_was():
    merged = merge_tags(DARKTABLE.encode(), ["cat"], "auto")
    removed = remove_tags(merged, "auto")
    assert tags_of(removed) == tags_of(DARKTABLE.encode())
    assert "digiKam" not in removed.decode()
    assert remove_tags(removed, "auto") is None
    assert remove_tags(merge_tags(None, ["cat"], "auto"), "auto") == b""


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-8-sig"])
def test_other_encodings_are_understood(encoding):
    name = {"utf-8-sig": "UTF-8"}.get(encoding, encoding.upper())
    text = DARKTABLE.replace('encoding="UTF-8"', f'encoding="{name}"')
    content = merge_tags(text.encode(encoding), ["cat"], "auto")
    assert "Großmutter" in content.decode("utf-8")
    assert tags_of(content)["dc:subject"] == ["family", "dog", "auto|cat"]


def test_odd_prefixes_packets_and_several_descriptions_are_understood():
    content = merge_tags(ODD_PREFIXES.encode(), ["cat"], "auto")
    assert tags_of(content)["dc:subject"] == ["mine", "auto|cat"]
    assert b"xpacket begin" in content
    assert b'foo:Rating="3"' in content
    assert content.count(b"RDF") == 2


def test_a_keyword_written_without_a_list_is_kept():
    text = DARKTABLE.replace("<rdf:Seq>", "").replace("</rdf:Seq>", "")
    text = text.replace("<rdf:li>people|family</rdf:li>", "people|family")
    content = merge_tags(text.encode(), ["cat"], "auto")
    assert tags_of(content)["lr:hierarchicalSubject"] == ["people|family", "auto|cat"]


def test_what_is_not_xmp_is_refused_and_left_alone(tmp_path):
    photo = tmp_path / "a.jpg"
    for content in (b"", b"not xml", b"<a><b></a>", b"<svg/>"):
        (tmp_path / "a.jpg.xmp").write_bytes(content)
        with pytest.raises(RecordProblem) as caught:
            xmp_sidecars(photo, ["cat"])
        assert caught.value.code == "write_failed"
        assert (tmp_path / "a.jpg.xmp").read_bytes() == content


def test_a_sidecar_under_either_name_is_found_and_both_are_merged(tmp_path):
    photo = tmp_path / "a.JPG"
    full, stem = tmp_path / "a.JPG.xmp", tmp_path / "a.xmp"
    assert xmp_paths(photo, "full") == [full]
    assert xmp_paths(photo, "stem") == [stem]
    stem.write_text(DARKTABLE)
    assert xmp_paths(photo, "full") == [stem]
    full.write_text(DARKTABLE)
    for sidecar in xmp_sidecars(photo, ["cat"]):
        write_sidecar(sidecar)
    assert all("auto|cat" in path.read_text() for path in (full, stem))
    for sidecar in xmp_without_tags(photo):
        write_sidecar(sidecar)
    assert not any("auto|" in path.read_text() for path in (full, stem))


def test_a_sidecar_that_cannot_be_written_is_a_problem_of_its_photo(tmp_path):
    (tmp_path / "a.jpg.xmp").mkdir()
    with pytest.raises(RecordProblem, match=r"a\.jpg\.xmp"):
        xmp_sidecars(tmp_path / "a.jpg", ["cat"])
    with pytest.raises(RecordProblem) as caught:
        write_sidecar(Sidecar(tmp_path / "nowhere" / "a.jpg.xmp", b"x"))
    assert caught.value.code == "write_failed"


def test_writing_keeps_mode_and_link(tmp_path):
    real = tmp_path / "real.xmp"
    real.write_text("x")
    real.chmod(0o640)
    (tmp_path / "a.jpg.xmp").symlink_to(real)
    write_sidecar(Sidecar(tmp_path / "a.jpg.xmp", b"y"))
    assert (tmp_path / "a.jpg.xmp").is_symlink()
    assert real.read_bytes() == b"y"
    assert real.stat().st_mode & 0o777 == 0o640


def test_text_sidecars_append_replace_or_keep(tmp_path):
    photo = tmp_path / "a.png"
    assert text_sidecar(photo, ["dog", "salt, pepper"]).content == b"dog, salt\\, pepper\n"
    (tmp_path / "a.txt").write_text("my dog, grass\n")
    appended = text_sidecar(photo, ["grass", "dog"])
    assert appended == Sidecar(tmp_path / "a.txt", b"my dog, grass, dog\n")
    assert text_sidecar(photo, ["dog"], existing="replace").content == b"dog\n"
    assert text_sidecar(photo, ["dog"], existing="keep").content is None
    assert text_sidecar(photo, ["grass"]).content is None


@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
def test_exiftool_reads_back_what_was_written_and_what_was_there(tmp_path):
    path = tmp_path / "a.jpg.xmp"
    path.write_text(DARKTABLE)
    for sidecar in xmp_sidecars(Path(tmp_path / "a.jpg"), ["cat", "sofa"]):
        write_sidecar(sidecar)
    done = subprocess.run(
        ["exiftool", "-j", "-G1", str(path)], capture_output=True, check=True, text=True
    )
    (facts,) = json.loads(done.stdout)
    assert facts["XMP-dc:Subject"] == ["family", "dog", "auto|cat", "auto|sofa"]
    assert facts["XMP-lr:HierarchicalSubject"] == ["people|family", "auto|cat", "auto|sofa"]
    assert facts["XMP-digiKam:TagsList"] == ["auto/cat", "auto/sofa"]
    assert facts["XMP-xmp:Rating"] == 4
    assert facts["XMP-dc:Title"] == "Großmutter & Ich"
    assert "Warning" not in done.stdout


@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
@pytest.mark.parametrize(
    "before",
    [
        ODD_PREFIXES.encode(),
        DARKTABLE.replace('encoding="UTF-8"', 'encoding="UTF-16"').encode("utf-16"),
        DARKTABLE.replace('encoding="UTF-8"', 'encoding="ISO-8859-1"').encode("latin-1"),
    ],
    ids=["odd prefixes", "UTF-16", "Latin-1"],
)
def test_exiftool_finds_all_that_was_there_in_odd_sidecars(before, tmp_path):
    path = tmp_path / "a.jpg.xmp"
    path.write_bytes(before)
    # Compared with the original in UTF-8, so that only our reading of the others counts.
    path_utf8 = tmp_path / "original.xmp"
    path_utf8.write_text(ODD_PREFIXES if before == ODD_PREFIXES.encode() else DARKTABLE)
    for sidecar in xmp_sidecars(tmp_path / "a.jpg", ["cat"]):
        write_sidecar(sidecar)
    command = ["exiftool", "-j", "-G1", str(path_utf8), str(path)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    original, merged = json.loads(done.stdout)
    kept = {k: v for k, v in original.items() if k.startswith("XMP-") and k != "XMP-x:XMPToolkit"}
    assert kept
    for name, value in kept.items():
        values = value if isinstance(value, list) else [value]
        found = merged[name] if isinstance(merged[name], list) else [merged[name]]
        assert found[: len(values)] == values
    assert "auto|cat" in merged["XMP-dc:Subject"]
