"""What `import` reads is what exiftool wrote; what ramctl wrote is told from what the owner did."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.metadata.conftest import needs_exiftool, program, rewritten

XMP = ["-XMP-dc:Subject=Wiese", "-XMP-dc:Subject=Käse"]
IPTC = ["-IPTC:Keywords=Zoë", "-IPTC:Caption-Abstract=Käse, o weh"]
EXIF = ["-EXIF:XPKeywords=Omar;Päivi", "-EXIF:ImageDescription=Käse"]


def photo(path: str, **options: bytes) -> Path:
    Path(path).parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path, **options)
    return Path(path)


@pytest.fixture
def imported(command):
    """The record of a.jpg, or another photo, without its name."""

    def run(name: str = "a.jpg") -> dict:
        (row,) = command("import", name).rows
        assert row.pop("image") == name
        return row

    return run


@needs_exiftool
@pytest.mark.parametrize(
    ("suffix", "words", "tags", "caption"),
    [
        ("jpg", [*XMP, "-XMP-dc:Description=Hügel"], ["Wiese", "Käse"], "Hügel"),
        ("jpg", [*IPTC, *EXIF, XMP[0]], ["Wiese", "Zoë", "Omar", "Päivi"], "Käse, o weh"),
        ("tif", [*IPTC, "-IPTC:CodedCharacterSet=UTF8"], ["Zoë"], "Käse, o weh"),
        ("tif", [*XMP, *EXIF], ["Wiese", "Käse", "Omar", "Päivi"], "Käse"),
        ("png", [*XMP, "-XMP-dc:Description=Hügel"], ["Wiese", "Käse"], "Hügel"),
        ("webp", [*XMP, "-XMP-dc:Description=Hügel"], ["Wiese", "Käse"], "Hügel"),
        ("heic", [*XMP, "-XMP-dc:Description=Hügel"], ["Wiese", "Käse"], "Hügel"),
    ],
)
def test_keywords_and_captions_in_a_photo_are_those_that_exiftool_wrote(
    imported, suffix, words, tags, caption
):
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path = photo(f"a.{suffix}")
    program("exiftool", "-q", "-overwrite_original", *words, path)
    sources = {tag: ["human"] for tag in tags}
    assert imported(path.name) == {"tags": tags, "sources": sources, "captions": [caption]}


def test_the_last_word_of_a_path_is_a_tag_and_names_are_none(imported):
    photo("a.jpg")
    paths = ["Animals|Pets|Dog", "People|Anna", "Places|Paris", "darktable|format|jpg"]
    words = ["Dog", "Anna", "Pets", "sea"]
    Path("a.jpg.xmp").write_bytes(rewritten(lr_hierarchicalSubject=paths, dc_subject=words))
    assert imported()["tags"] == ["Dog", "Paris", "sea"]


def test_a_sidecar_with_paths_has_the_last_word_and_one_of_words_adds_to_the_photo(imported):
    photo("a.jpg", xmp=rewritten(dc_subject=["old"], lr_hierarchicalSubject=["A|old"]))
    Path("a.xmp").write_bytes(rewritten(dc_subject=["word"]))
    assert imported()["tags"] == ["old", "word"]
    Path("a.jpg.xmp").write_bytes(rewritten(lr_hierarchicalSubject=["B|new"]))
    assert imported()["tags"] == ["new"]


def test_what_was_kept_refused_and_added_is_told_apart(imported, command):
    sidecar = Path(f"{photo('a.jpg')}.xmp")
    sidecar.write_bytes(rewritten(dc_subject=["mine"]))
    line = b'{"image": "a.jpg", "tags": ["red", "yellow", "blue"], "tag_language": "de"}\n'
    command("export", "--xmp", stdin=line)
    untouched = imported()  # nobody may have looked at it
    assert untouched["tags"] == ["mine", "red", "yellow", "blue"]
    assert not {"confirmed", "refused"} & untouched.keys()
    parent = "automatisch"
    words = ["mine", f"{parent}|red", f"{parent}|blue", "colours|green"]
    sidecar.write_bytes(  # as digiKam would
        rewritten(
            sidecar.read_bytes(), dc_subject=[word.split("|")[-1] for word in words],
            lr_hierarchicalSubject=words,
            digiKam_TagsList=[word.replace("|", "/") for word in words],
        )
    )  # fmt: skip
    expected = {
        "tags": ["mine", "green", "red", "blue"],
        "sources": {
            "mine": ["human"], "green": ["human"], "red": ["generated-tag"],
            "blue": ["generated-tag"],
        },
        "confirmed": ["red", "blue"],
        "refused": ["yellow"],
        "tag_language": "de",
    }  # fmt: skip
    assert imported() == expected
    command("export", "--xmp", stdin=line)  # which moves what is refused into its record
    assert imported() == expected
    command("export", "--xmp-remove", "a.jpg")
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
def test_what_cannot_be_read_rejects_its_photo_alone(command, name, content, reason):
    photo("a.jpg")
    Path("b.CR2").write_bytes(b"raw")  # Pillow opens few of these: they have no metadata then
    if content is None:
        Path(name).unlink()
    else:
        Path(name).write_bytes(content)
    done = command("import", "a.jpg", "b.CR2", code=3)
    lines = done.messages.splitlines()
    assert done.stdout == b'{"image":"b.CR2"}\n'
    assert name in lines[0] and reason in lines[0] and len(lines) == 2


def test_a_resumed_run_reads_photos_again_whose_sidecars_changed(command):
    photo("p/a.jpg"), photo("p/b.jpg")
    words = ["import", "-R", "p", "-o", "out.jsonl"]
    command(*words)
    Path("p/b.jpg.xmp").write_bytes(rewritten(dc_subject=["sea"]))
    assert "1 in, 1 out" in command(*words, "--resume").messages
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [(row["image"], row.get("tags")) for row in rows] == [
        ("p/a.jpg", None), ("p/b.jpg", ["sea"]),
    ]  # fmt: skip
