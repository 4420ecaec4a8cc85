"""A new sidecar carries over title, description, creator, rights, rating and colour label.

darktable reads a sidecar in place of the photo's own metadata.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from ramctl.export.sidecar_merge import FACTS, SUBJECT
from ramctl.export.xmp_document import OURS, Property, XmpDocument
from tests.support import write_records

XMP = [
    "-XMP-dc:Title=Sommer", "-XMP-dc:Title-fr=\u00c9t\u00e9", "-XMP-dc:Description=Wir & die See",
    "-XMP-dc:Creator=Anna", "-XMP-dc:Creator=Bob", "-XMP-dc:Rights=(c) Anna", "-XMP-xmp:Rating=4",
    "-XMP-xmp:Label=Red",
]  # fmt: skip
IPTC = [
    "-IPTC:ObjectName=Sommer", "-IPTC:Caption-Abstract=Wir & die See", "-IPTC:By-line=Anna",
    "-IPTC:By-line=Bob", "-IPTC:CopyrightNotice=(c) Anna", "-EXIF:Rating=3",
]  # fmt: skip
EXIF = [
    "-EXIF:ImageDescription=Wir & die See", "-EXIF:Artist=Anna", "-EXIF:Copyright=(c) Anna",
    "-EXIF:Rating=3",
]  # fmt: skip
SHOWN = ["Title", "Description", "Creator", "Rights", "Rating", "Label"]


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"needs {program}")


def run(*words) -> str:
    return subprocess.run(list(map(str, words)), capture_output=True, check=True, text=True).stdout


def assign(*assignments) -> None:
    run("exiftool", "-q", "-overwrite_original", *assignments)


def facts_of(path) -> dict:
    (facts,) = json.loads(run("exiftool", "-j", *(f"-XMP:{name}" for name in SHOWN), path))
    return {name: value for name, value in facts.items() if name != "SourceFile"}


@pytest.fixture
def export(command):
    """Runs `ramctl export` for a photo with two tags."""
    Image.new("RGB", (64, 48), "red").save("a.jpg")
    write_records(Path("in.jsonl"), [{"image": "a.jpg", "tags": ["wall", "red"]}])
    return lambda *words: command("export", "in.jsonl", *words)


@needs("darktable-cli")
@needs("exiftool")
@pytest.mark.parametrize("assignments", [XMP, IPTC, EXIF], ids=["XMP", "IPTC", "Exif"])
def test_darktable_reads_as_much_with_a_new_sidecar_as_before(assignments, export, tmp_path):
    assign(*assignments, "a.jpg")
    core = ["--width", "64", "--core", "--configdir", tmp_path / "config"]
    core += ["--cachedir", tmp_path / "cache", "--library", ":memory:"]
    run("darktable-cli", "a.jpg", "before.jpg", *core)
    export("--xmp")
    run("darktable-cli", "a.jpg", "a.jpg.xmp", "after.jpg", *core)
    before, after = facts_of("before.jpg"), facts_of("after.jpg")
    assert before["Rating"] > 1 and before.pop("Creator") in (after["Creator"], "Anna")
    # Of IPTC darktable reads no title, and one creator; the sidecar has all.
    assert after.items() >= before.items()


@needs("exiftool")
def test_facts_in_xmp_precede_those_in_iptc_and_exif_each_by_itself(export):
    assign(*IPTC, *EXIF, "-XMP-dc:Description=Neu", "a.jpg")
    export("--xmp")
    assert facts_of("a.jpg.xmp") == {
        "Title": "Sommer", "Description": "Neu", "Creator": ["Anna", "Bob"], "Rights": "(c) Anna",
        "Rating": 3,
    }  # fmt: skip


@needs("exiftool")
def test_lines_of_windows_and_blanks_in_a_text_reject_no_photo(export):
    assign("-XMP-dc:Description= Zeile 1\r\n\tZeile 2 \n", "-EXIF:Artist= ", "a.jpg")
    for _ in range(2):
        export("--xmp")
        assert XmpDocument(Path("a.jpg.xmp").read_bytes()).items(FACTS[1].property) == [
            "Zeile 1\nZeile 2"
        ]
    assert "0 sidecars changed" in export("--xmp").messages


@needs("exiftool")
def test_copies_go_with_the_sidecar_and_follow_the_photo(export):
    assign(*XMP, "a.jpg")
    export("--xmp")
    first = Path("a.jpg.xmp").read_bytes()
    assert "0 sidecars changed" in export("--xmp").messages
    languages = XmpDocument(first).languages(FACTS[0].property)
    assert languages == {"Sommer": "x-default", "\u00c9t\u00e9": "fr"}
    text = "Zeile 1\nZeile 2"
    assign("-XMP-dc:Title=Winter", "-XMP-xmp:Rating=", f"-XMP-dc:Description={text}", "a.jpg")
    export("--xmp")
    facts = facts_of("a.jpg.xmp")
    assert (facts["Title"], facts.get("Rating")) == ("Winter", None)
    assert XmpDocument(Path("a.jpg.xmp").read_bytes()).items(FACTS[1].property) == [
        "Zeile 1\nZeile 2"
    ]
    export("--xmp-remove")
    assert not Path("a.jpg.xmp").exists()


@needs("exiftool")
def test_what_a_person_changes_or_deletes_in_the_sidecar_stays_so(export):
    assign(*XMP, "a.jpg")
    export("--xmp")
    assign("-XMP-xmp:Rating=2", "-XMP-dc:Title=", "a.jpg.xmp")
    assert "0 sidecars changed" in export("--xmp").messages
    facts = facts_of("a.jpg.xmp")
    assert (facts["Rating"], facts.get("Title"), facts["Label"]) == (2, None, "Red")
    export("--xmp-remove")  # of what darktable reads from it alone, nothing goes
    assert facts_of("a.jpg.xmp") == facts
    document = XmpDocument(Path("a.jpg.xmp").read_bytes())
    assert not document.items(Property(OURS, "ramctl", "copiedTitle"))
    assert not document.items(SUBJECT.property)


@needs("exiftool")
def test_the_sidecar_of_another_program_gets_no_copies(export):
    assign(*XMP, "a.jpg")
    assign("-XMP-xmp:Rating=1", "a.jpg.xmp")
    before = Path("a.jpg.xmp").read_bytes()
    export("--xmp")
    assert facts_of("a.jpg.xmp") == {"Rating": 1}
    export("--xmp-remove")
    assert Path("a.jpg.xmp").read_bytes() == before


@needs("exiftool")
def test_a_sidecar_of_refusals_alone_hides_nothing(export):
    assign(*XMP, "-XMP-dc:Subject=family", "a.jpg")
    write_records(
        Path("no.jsonl"),
        [{"image": "a.jpg", "tag": tag, "verdict": "remove"} for tag in ("wall", "red")],
    )
    export("--xmp", "--decisions", "no.jsonl")
    for words in (["--xmp"], ["--xmp-remove"]):
        document = XmpDocument(Path("a.jpg.xmp").read_bytes())
        assert document.items(SUBJECT.property) == ["family"]
        assert facts_of("a.jpg.xmp")["Rating"] == 4
        export(*words)
