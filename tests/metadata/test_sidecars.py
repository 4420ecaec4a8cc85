"""`ramctl export --xmp` and `--txt`: sidecars beside photos, for photo managers and trainers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ramctl import TagResult, write_sidecar
from ramctl.metadata.sidecar_merge import FIELDS, SUBJECT
from ramctl.metadata.xmp_document import RDF, Property, XmpDocument
from tests.metadata.conftest import (
    DARKTABLE,
    needs_exiftool,
    program,
    refused,
    rewritten,
    without,
)
from tests.support import gallery_photos, write_records

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
SIDECAR, TEXT = Path("a.jpg.xmp"), Path("a.txt")


def items(name: Property = SUBJECT.property) -> list[str]:
    return XmpDocument(SIDECAR.read_bytes()).items(name)


@pytest.fixture
def export(command) -> Callable:
    """Runs `ramctl export` for a photo with that packet and tags; what it says."""
    exif = Image.Exif()
    exif[0x9C9E] = "sea\0".encode("utf-16-le")  # keywords of Windows
    Image.new("RGB", (64, 48), "red").save("a.jpg", xmp=PACKET, exif=exif)

    def run(*words: str, tags=("wall", "red"), code: int = 0, **fields) -> str:
        write_records(Path("in.jsonl"), [{"image": "a.jpg", "tags": tags} | fields])
        return command("export", "in.jsonl", *words, code=code).messages

    return run


def test_a_new_one_has_the_photo_s_facts_and_keywords_and_goes_with_the_tags(export):
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
    SIDECAR.chmod(0o640)
    export("--xmp")
    assert items(RATING) == ["1"] and b"Winter" in SIDECAR.read_bytes()
    assert SIDECAR.stat().st_mode & 0o777 == 0o640
    export("--xmp-remove")
    removed, before = XmpDocument(SIDECAR.read_bytes()), XmpDocument(before)
    assert removed.to_bytes() == before.to_bytes()


def test_deleted_tags_stay_deleted_and_hide_nothing_until_the_sidecar_goes(export, command):
    export("--xmp")
    SIDECAR.write_bytes(without(SIDECAR.read_bytes(), "wall", "red"))
    assert command("import", "a.jpg").rows[0]["refused"] == ["wall", "red"]
    assert "2 tags newly refused" in export("--xmp")
    for words in (["--xmp"], ["--xmp-remove"]):
        assert "refused" not in export(*words)
        assert (items(), items(RATING)) == (["family", "sea"], ["4"])
        assert {*items(FIELDS[1].property)} == {"sea", "family"}
        assert refused(SIDECAR.read_bytes()) == ["wall", "red"]
    export("--xmp", "--forget-refused")
    assert items() == ["family", "sea", "wall", "red"]
    content = SIDECAR.read_bytes()  # of which one program knows this field alone
    SIDECAR.write_bytes(rewritten(content, dc_subject=["family", "sea", "red"]))
    assert "1 tags newly refused" in export("--xmp")
    assert items() == ["family", "sea", "red"]
    SIDECAR.unlink()
    export("--xmp")
    assert items() == ["family", "sea", "wall", "red"]


def test_a_dry_run_lists_the_new_tags_and_not_the_keywords_of_the_photo(export, command):
    export("--xmp", "--dry-run")
    done = command("export", "in.jsonl", "--xmp", "--dry-run", "-q")
    assert done.stdout == b"would write a.jpg.xmp: + wall, + red\n"
    assert not SIDECAR.exists()


def test_no_output_has_a_tag_that_a_sidecar_refuses(export, command):
    export("--xmp")
    SIDECAR.write_bytes(without(SIDECAR.read_bytes(), "wall"))  # no export has been run since
    export("--gallery", "page.html", "--txt")
    (row,) = command("export", "in.jsonl", "-f", "jsonl").rows
    assert row == {"image": "a.jpg", "tags": ["red"], "refused": ["wall"]}
    assert "wall" not in gallery_photos(Path("page.html"))[0]["tags"]
    assert TEXT.read_text() == "red\n"
    done = command("export", "in.jsonl", "-f", "text", "--forget-refused", "--xmp")
    assert b"wall" in done.stdout and b"auto|wall" in SIDECAR.read_bytes()
    SIDECAR.write_bytes(without(SIDECAR.read_bytes(), "wall"))
    export("--txt", "--txt-existing", "replace", sources={"wall": ["human"]})
    assert TEXT.read_text() == "wall, red\n"


@pytest.mark.skipif(not shutil.which("darktable-cli"), reason="needs darktable-cli")
@needs_exiftool
def test_darktable_reads_as_much_with_a_new_one_as_before(export, tmp_path):
    core = ["--width", "64", "--core", "--configdir", tmp_path / "config"]
    core += ["--cachedir", tmp_path / "cache", "--library", ":memory:"]
    program("darktable-cli", "a.jpg", "before.jpg", *core)
    export("--xmp")
    program("darktable-cli", "a.jpg", SIDECAR, "after.jpg", *core)
    shown = ["-XMP:Title", "-XMP:Rating"]
    before, after = (program("exiftool", *shown, name) for name in ("before.jpg", "after.jpg"))
    assert before == after and "Sommer" in before


@needs_exiftool
def test_exiftool_reads_it_and_what_it_rewrites_keeps_the_record(export):
    def facts() -> dict:
        (found,) = json.loads(program("exiftool", "-j", "-G1", SIDECAR))
        assert not any("Warning" in name for name in found)
        return {k: v for k, v in found.items() if k.startswith("XMP-") and "XMPToolkit" not in k}

    paths = ["people|Anna", "Bob"]
    SIDECAR.write_bytes(
        rewritten(DARKTABLE, dc_subject=["Anna", "Bob"], lr_hierarchicalSubject=paths)
    )
    before = facts()
    export("--xmp", tags=["sofa"])
    for name, item in (("dc:Subject", "sofa"), ("lr:HierarchicalSubject", "auto|sofa")):
        assert facts()[f"XMP-{name}"] == [*before[f"XMP-{name}"], item]
    assert facts()["XMP-digiKam:TagsList"][-1] == "auto/sofa"
    program("exiftool", "-q", "-overwrite_original", "-XMP-xmp:Rating=2", SIDECAR)
    export("--xmp-remove")
    assert facts() == before | {"XMP-xmp:Rating": 2}


def test_photos_of_one_name_share_none_and_both_names_of_one_are_merged(command):
    names = ["a.jpg", "a.png", "b.jpg", "c.jpg", "c.CR2", "d.jpg"]
    for name in names:
        Path(name).touch()
    write_records(Path("in.jsonl"), [{"image": name, "tags": ["cat"]} for name in names])
    Path("d.xmp").write_bytes(DARKTABLE)  # found, and not written anew under the other name
    command("export", "in.jsonl", "--xmp", "--xmp-name", "stem")
    expected = ["a.jpg.xmp", "a.png.xmp", "b.xmp", "c.jpg.xmp", "c.xmp", "d.xmp"]
    assert sorted(map(str, Path().glob("*.xmp"))) == expected
    Path("b.jpg.xmp").write_bytes(DARKTABLE)
    for words, is_there in (["--xmp"], True), (["--xmp-remove"], False):
        command("export", "in.jsonl", *words)
        found = [b"auto|cat" in path.read_bytes() for path in Path().glob("[bd]*.xmp")]
        assert set(found) == {is_there}


@pytest.mark.parametrize(
    ("words", "name", "content", "mode", "message"),
    [
        (["--xmp"], "a.jpg.xmp", DARKTABLE, 0o444, "a.jpg.xmp: read-only"),
        (["--xmp-remove"], "a.xmp", b"<x", 0o644, "a.xmp: not well-formed XML"),
        (["--txt"], "a.png", b"", 0o644, "a.txt would be the sidecar of a.png as well"),
        (["--txt"], "a.txt", b"\xff", 0o644, "a.txt: 'utf-8' codec can't decode"),
    ],
)
def test_what_cannot_be_merged_rejects_the_photo_and_stays(
    export, words, name, content, mode, message
):
    Path(name).write_bytes(content)
    Path(name).chmod(mode)
    before = sorted(Path().iterdir())
    assert message in export(*words, code=3)
    assert Path(name).read_bytes() == content
    assert {*Path().iterdir()} == {*before, Path("in.jsonl")}


def test_python_writes_what_the_command_writes(export, tmp_path):
    export("--xmp")
    content = SIDECAR.read_bytes()
    SIDECAR.unlink()
    result = TagResult.from_record({"tags": ["wall", "red"], "scores": {}})
    assert write_sidecar("a.jpg", result) == [SIDECAR]
    assert SIDECAR.read_bytes() == content
    assert write_sidecar(tmp_path / "a.jpg", result) == []
    assert result.record == {"tags": ["wall", "red"], "scores": {}}


def test_a_text_has_trigger_and_caption_before_the_tags_and_nothing_empty(export):
    def text(*words: str, **fields) -> str:
        export("--txt", "--txt-trigger", "sks", "--txt-caption", *words, **fields)
        return TEXT.read_text().rstrip("\n")

    assert text(tags=["", "woman", "salt, pepper"]) == "sks, woman, salt\\, pepper"
    replaced = ["--txt-existing", "replace"]
    captions = {"captions": ["she  sits"], "generated_captions": ["a woman, in a field"]}
    assert text(*replaced, tags=["woman"], **captions) == "sks, a woman, in a field, woman"
    assert text(*replaced, tags=[], captions=["she  sits"]) == "sks, she sits"
    TEXT.write_text("smile,my bike\n")
    for _ in range(2):  # it gets what it lacks, and from the same run nothing more
        line = text(tags=["Smile", "field"], captions=["she sits"])
        assert line == "sks, she sits, smile,my bike, field"
    assert text("--txt-existing", "keep", tags=["cat"]) == line
    TEXT.write_text("my sks, sks\n")
    assert text(tags=["cat"]) == "my sks, sks, cat"


@pytest.mark.parametrize(
    "text",
    ["Ohwx, my bike", "Anna laughs. Behind her the sea", "my bike\nwall", "one man and his dog"],
)
def test_a_text_with_a_sentence_or_the_trigger_stays_and_is_counted(text, export):
    TEXT.write_text(text)
    assert "1 texts left as they are" in export("--txt", "--txt-trigger", "ohwx")
    assert TEXT.read_text() == text


def test_captions_alone_are_texts_and_photos_without_one_are_counted(export, command):
    alone = ["--txt", "--txt-caption", "--top", "0"]
    write_records(Path("described.jsonl"), [{"image": "a.jpg", "captions": ["she sits"]}])
    command("export", "described.jsonl", *alone)
    assert TEXT.read_text() == "she sits\n"
    TEXT.unlink()
    assert "1 photos without a caption" in export(*alone)
    assert not TEXT.exists()
