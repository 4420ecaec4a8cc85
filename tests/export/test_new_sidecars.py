"""A new sidecar begins as the photo's own XMP packet, with its other keywords.

darktable reads a sidecar in place of the photo's own metadata.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from ramctl.metadata.sidecar_merge import FIELDS, SUBJECT
from ramctl.metadata.xmp_document import RDF, Property, XmpDocument
from tests.support import write_records

DC, XMP = "http://purl.org/dc/elements/1.1/", "http://ns.adobe.com/xap/1.0/"
PACKET = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">
<rdf:Description rdf:about="" xmlns:dc="{DC}" xmlns:xmp="{XMP}" xmp:Rating="4">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Sommer</rdf:li></rdf:Alt></dc:title>
<dc:subject><rdf:Bag><rdf:li>family</rdf:li></rdf:Bag></dc:subject>
</rdf:Description></rdf:RDF></x:xmpmeta>
{" " * 200}
<?xpacket end="w"?>""".encode()
RATING = Property(XMP, "xmp", "Rating")
SIDECAR = Path("a.jpg.xmp")


def items(name: Property = SUBJECT.property) -> list[str]:
    return XmpDocument(SIDECAR.read_bytes()).items(name)


def save_photo(packet: bytes) -> None:
    exif = Image.Exif()
    exif[0x9C9E] = "sea\0".encode("utf-16-le")  # keywords of Windows
    Image.new("RGB", (64, 48), "red").save("a.jpg", xmp=packet, exif=exif)


@pytest.fixture
def export(command):
    """Runs `ramctl export` for a photo with that packet and two tags."""
    save_photo(PACKET)
    write_records(Path("in.jsonl"), [{"image": "a.jpg", "tags": ["wall", "red"]}])
    return lambda *words: command("export", "in.jsonl", *words).messages


def test_it_has_the_photo_s_facts_and_keywords_and_goes_with_the_tags(export):
    export("--xmp")
    assert b"<?xpacket begin" in SIDECAR.read_bytes() and items(RATING) == ["4"]
    assert items() == ["family", "sea", "wall", "red"]
    for field in FIELDS[1:]:
        paths = [field.item(f"auto|{tag}") for tag in ("wall", "red")]
        assert sorted(items(field.property)) == sorted(["sea", "family", *paths])
    assert "0 sidecars changed" in export("--xmp")
    export("--xmp-remove")
    assert not SIDECAR.exists()


def test_what_a_person_changes_in_it_stays(export):
    export("--xmp")
    SIDECAR.write_bytes(SIDECAR.read_bytes().replace(b'Rating="4"', b'Rating="2"'))
    assert "0 sidecars changed" in export("--xmp")
    export("--xmp-remove")
    assert (items(), items(RATING)) == (["family", "sea"], ["2"])


def test_the_sidecar_of_another_program_gets_no_facts_and_is_never_deleted(export):
    before = PACKET.replace(b'Rating="4"', b'Rating="1"').replace(b"Sommer", b"Winter")
    for content in (before, PACKET):
        SIDECAR.write_bytes(content)
        assert "0 sidecars changed" in export("--xmp-remove")
    SIDECAR.write_bytes(before)
    export("--xmp")
    assert items(RATING) == ["1"] and b"Winter" in SIDECAR.read_bytes()
    export("--xmp-remove")
    removed, before = XmpDocument(SIDECAR.read_bytes()), XmpDocument(before)
    assert removed.to_bytes() == before.to_bytes()


def test_a_sidecar_of_refusals_alone_hides_nothing(export):
    export("--xmp")
    document = XmpDocument(SIDECAR.read_bytes())
    for field in FIELDS:
        kept = [x for x in document.items(field.property) if not x.endswith(("wall", "red"))]
        document.set_items(field.property, kept)
    SIDECAR.write_bytes(document.to_bytes())
    for words in (["--xmp"], ["--xmp-remove"]):
        export(*words)
        assert (items(), items(RATING)) == (["family", "sea"], ["4"])
        assert {*items(FIELDS[1].property)} == {"sea", "family"}


@pytest.mark.skipif(not shutil.which("darktable-cli"), reason="needs darktable-cli")
@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
def test_darktable_reads_as_much_with_it_as_before(export, tmp_path):
    def run(*words) -> str:
        words = [*map(str, words)]
        return subprocess.run(words, capture_output=True, check=True, text=True).stdout

    core = ["--width", "64", "--core", "--configdir", tmp_path / "config"]
    core += ["--cachedir", tmp_path / "cache", "--library", ":memory:"]
    run("darktable-cli", "a.jpg", "before.jpg", *core)
    export("--xmp")
    run("darktable-cli", "a.jpg", SIDECAR, "after.jpg", *core)
    shown = ["-XMP:Title", "-XMP:Rating"]
    before, after = (run("exiftool", *shown, name) for name in ("before.jpg", "after.jpg"))
    assert before == after and "Sommer" in before
