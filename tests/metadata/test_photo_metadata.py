"""What `import` reads is what exiftool reads; what ramctl wrote is told from what the owner did."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from ramctl.metadata.sidecar_merge import FIELDS
from ramctl.metadata.xmp_document import XmpDocument

EXIFTOOL = shutil.which("exiftool")
exiftool_there = pytest.mark.skipif(EXIFTOOL is None, reason="needs exiftool")
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/" '
    'xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/">%s</rdf:Description>'
    "</rdf:RDF></x:xmpmeta>"
)


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def xmp(**properties: list[str]) -> str:
    """An XMP document of lists, `dc_subject=[...]`."""
    bags = {
        name.replace("_", ":"): "".join(f"<rdf:li>{item}</rdf:li>" for item in items)
        for name, items in properties.items()
    }
    return XMP % "".join(f"<{of}><rdf:Bag>{items}</rdf:Bag></{of}>" for of, items in bags.items())


def exiftool(*words: str | Path) -> str:
    done = subprocess.run([EXIFTOOL, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def imported(ramctl, tmp_path):
    """The record of a photo, without its name."""

    def run(name: str = "a.jpg", *options: str) -> dict:
        done = ramctl("import", name, *options)
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout)
        assert row.pop("image") == name
        return row

    return run


@exiftool_there
@pytest.mark.parametrize("suffix", ["jpg", "tif", "png", "webp", "heic"])
def test_keywords_and_captions_in_a_photo_are_those_that_exiftool_wrote(imported, tmp_path, suffix):
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path = photo(tmp_path / f"a.{suffix}")
    words = ["-XMP-dc:Subject=Wiese", "-XMP-dc:Subject=Käse", "-XMP-dc:Description=Käse, o weh"]
    exiftool("-q", "-overwrite_original", *words, path)
    assert imported(path.name) == {
        "tags": ["Wiese", "Käse"],
        "sources": {"Wiese": ["human"], "Käse": ["human"]},
        "captions": ["Käse, o weh"],
    }


def test_the_last_word_of_a_path_is_a_tag_and_names_are_none(imported, tmp_path):
    photo(tmp_path / "a.jpg")
    paths = ["Animals|Pets|Dog", "People|Anna", "Places|Paris", "darktable|format|jpg"]
    content = xmp(lr_hierarchicalSubject=paths, dc_subject=["Dog", "Anna", "Pets", "sea"])
    (tmp_path / "a.jpg.xmp").write_text(content)
    assert imported()["tags"] == ["Dog", "Paris", "sea"]


@exiftool_there
def test_a_sidecar_with_paths_has_the_last_word_and_one_of_words_adds_to_the_photo(
    imported, tmp_path
):
    words = ["-XMP-dc:Subject=old", "-XMP-lr:HierarchicalSubject=A|old"]
    exiftool("-q", "-overwrite_original", *words, photo(tmp_path / "a.jpg"))
    (tmp_path / "a.xmp").write_text(xmp(dc_subject=["word"]))
    assert imported()["tags"] == ["old", "word"]
    (tmp_path / "a.jpg.xmp").write_text(xmp(lr_hierarchicalSubject=["B|new"]))
    assert imported()["tags"] == ["new"]


def test_what_was_kept_refused_and_added_is_told_apart(imported, ramctl, tmp_path):
    photo(tmp_path / "a.jpg")
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_text(xmp(dc_subject=["mine"]))
    lines = b'{"image": "a.jpg", "tags": ["red", "yellow", "blue"]}\n'
    assert ramctl("export", "--xmp", stdin=lines).returncode == 0
    untouched = imported()  # nobody may have looked at it
    assert untouched["tags"] == ["mine", "red", "yellow", "blue"]
    assert "confirmed" not in untouched
    document = XmpDocument(sidecar.read_bytes())
    for field in FIELDS:  # as digiKam would
        kept = [item for item in document.items(field.property) if "yellow" not in item]
        document.set_items(field.property, [*kept, field.item("colours|green")])
    sidecar.write_bytes(document.to_bytes())
    expected = {
        "tags": ["mine", "green", "red", "blue"],
        "sources": {
            "mine": ["human"], "green": ["human"], "red": ["generated-tag"],
            "blue": ["generated-tag"],
        },
        "confirmed": ["red", "blue"],
        "refused": ["yellow"],
    }  # fmt: skip
    assert imported() == expected
    ramctl("export", "--xmp", stdin=lines)  # which moves what is refused into its record
    assert imported() == expected
    ramctl("export", "--xmp-remove", "a.jpg")
    row = imported()
    assert (row["tags"], row["refused"]) == (["mine", "green"], ["yellow"])
    assert "confirmed" not in row


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jpg.xmp", b"<x", "not well-formed XML"), ("a.xmp", b"", "not well-formed XML"),
        ("a.jpg", b"text", "not a photo"), ("a.jpg", None, "no such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_rejects_its_photo_alone(ramctl, tmp_path, name, content, reason):
    photo(tmp_path / "a.jpg"), photo(tmp_path / "b.jpg")
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    done = ramctl("import", "a.jpg", "b.jpg")
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (3, b'{"image":"b.jpg"}\n')
    assert name in lines[0] and reason in lines[0] and len(lines) == 2


def test_a_resumed_run_reads_photos_again_whose_sidecars_changed(ramctl, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / "p" / name)
    words = ["import", "-R", "p", "-o", "out.jsonl"]
    assert ramctl(*words).returncode == 0
    (tmp_path / "p" / "b.jpg.xmp").write_text(xmp(dc_subject=["sea"]))
    done = ramctl(*words, "--resume")
    assert b"1 in, 1 out" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert [(row["image"], row.get("tags")) for row in rows] == [
        ("p/a.jpg", None), ("p/b.jpg", ["sea"]),
    ]  # fmt: skip
