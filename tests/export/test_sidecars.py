"""Sidecars: merged, never destructive, read back by exiftool, exiv2 and darktable."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from ramctl import TagResult, write_sidecar
from ramctl.metadata.sidecar_merge import FIELDS, KEYWORDS, MIRRORS, Embedded, merge_tags
from ramctl.metadata.sidecars import (
    Sidecar,
    SidecarOptions,
    SidecarWriter,
    xmp_paths,
)
from ramctl.metadata.xmp_document import RDF, XmpDocument
from tests.support import DATA, remove_tags

BY_NAME = {f"{f.property.prefix}_{f.property.name}": f for f in (*FIELDS, *MIRRORS)}
PROPERTIES = {name: of.property for name, of in BY_NAME.items()}
BY_NAME["IPTC"] = KEYWORDS


def writer(**options) -> SidecarWriter:
    """As `ramctl export --xmp` has it, which remembers no folder yet."""
    return SidecarWriter(SidecarOptions(**options))


def without_tags(photo: Path) -> list[Sidecar]:
    return writer(xmp_remove=True).with_tags(photo, [])


DARKTABLE = (DATA / "darktable.xmp").read_text("utf-8")


def tags_of(content):
    """The items of each keyword field that the sidecar has, by `prefix:name`."""
    root = ElementTree.fromstring(content)
    found = {}
    for field in FIELDS:
        for element in root.iter(f"{{{field.property.namespace}}}{field.property.name}"):
            items = [(item.text or "").strip() for item in element.iter(f"{{{RDF}}}li")]
            found[str(field.property)] = items
    return found


def sidecar(**fields) -> bytes:
    """A sidecar of another program, with these items in these fields (`dc_subject`)."""
    bare = re.sub("<(dc:subject|lr:hier.*)>.*?</\\1>", "", DARKTABLE, flags=re.DOTALL)
    document = XmpDocument(bare.encode())
    for name, property_ in PROPERTIES.items():
        document.set_items(property_, fields.get(name, ()))
    return document.to_bytes()


def test_a_new_field_first_holds_what_the_others_hold():
    content = merge_tags(sidecar(dc_subject=["Anna", "family"]), ["dirt"], "auto")
    assert tags_of(content) == {
        "dc:subject": ["Anna", "family", "dirt"],
        "lr:hierarchicalSubject": ["Anna", "family", "auto|dirt"],
        "digiKam:TagsList": ["Anna", "family", "auto/dirt"],
    }
    content = merge_tags(sidecar(lr_hierarchicalSubject=["people|Anna", "a/b|c"]), ["dirt"], "auto")
    assert tags_of(content)["dc:subject"] == ["Anna", "c", "dirt"]
    assert tags_of(content)["digiKam:TagsList"] == ["people/Anna", "a|b/c", "auto/dirt"]
    # What repeats a path, in whole or in part, is no keyword of its own.
    words = ["people|Anna", "people/Bob", "people", "Carla"]
    paths, items = ["people|Anna", "people|Bob"], ["people/Anna", "people/Bob"]
    content = merge_tags(sidecar(lr_hierarchicalSubject=paths, dc_subject=words), ["x"], "auto")
    assert tags_of(content)["digiKam:TagsList"] == [*items, "Carla", "auto/x"]
    content = merge_tags(sidecar(digiKam_TagsList=items, dc_subject=words), ["x"], "auto")
    assert tags_of(content)["lr:hierarchicalSubject"] == [*paths, "Carla", "auto|x"]
    content = merge_tags(sidecar(MicrosoftPhoto_LastKeywordXMP=["people/Anna"]), ["x"], "auto")
    assert tags_of(content)["digiKam:TagsList"] == ["people/Anna", "auto/x"]


def rewritten(content: bytes, **changes) -> bytes:
    """The sidecar after another program gave these fields other items."""
    document = XmpDocument(content)
    for name, items in changes.items():
        document.set_items(PROPERTIES[name], items)
    return document.to_bytes()


def test_what_another_program_adds_or_removes_afterwards_counts():
    ours = merge_tags(sidecar(dc_subject=["Anna"]), ["sofa"], "auto")
    # darktable knows two fields only, and repeats the words of paths as plain ones
    darktable = rewritten(
        ours, dc_subject=["Bob", "auto", "sofa"], lr_hierarchicalSubject=["Bob", "auto|sofa"]
    )
    again = merge_tags(darktable, ["sofa"], "auto")
    assert tags_of(again)["digiKam:TagsList"] == ["auto/sofa", "Bob"]
    assert tags_of(again)["lr:hierarchicalSubject"] == ["auto|sofa", "Bob"]
    assert merge_tags(again, ["sofa"], "auto") is None
    # digiKam also writes fields that we do not
    digikam = rewritten(
        ours,
        digiKam_TagsList=["Anna", "Bob", "auto/sofa"],
        MicrosoftPhoto_LastKeywordXMP=["Anna", "Bob", "auto/sofa"],
    )
    removed = XmpDocument(remove_tags(digikam))
    assert removed.items(PROPERTIES["digiKam_TagsList"]) == ["Anna", "Bob"]
    assert removed.items(PROPERTIES["MicrosoftPhoto_LastKeywordXMP"]) == ["Anna", "Bob"]


def first_of(*names):
    """What a program reads that takes the first field which holds anything."""
    return lambda found: next((set(found[name]) for name in names if found.get(name)), set())


def all_of(*names):
    return lambda found: {item for name in names for item in found.get(name, ())}


# The reading rules that the README of the room states, with their sources.
PROGRAMS = {
    "digiKam": first_of(
        "digiKam_TagsList", "MicrosoftPhoto_LastKeywordXMP", "lr_hierarchicalSubject",
        "mediapro_CatalogSets", "dc_subject", "IPTC",
    ),
    "Immich": first_of("digiKam_TagsList", "lr_hierarchicalSubject", "IPTC"),
    "darktable": first_of("lr_hierarchicalSubject", "dc_subject"),
    "Lightroom": all_of("lr_hierarchicalSubject", "dc_subject"),
    "PhotoPrism": all_of("dc_subject"),
}  # fmt: skip


def seen_by(program, content, embedded) -> set[str]:
    """The last words of the keywords that the program shows; darktable takes a sidecar whole."""
    document = XmpDocument(content)
    beside = {name: document.items(of) for name, of in PROPERTIES.items() if document.items(of)}
    inside = {} if program == "darktable" and content else embedded
    return {re.split(r"[|/]", item)[-1] for item in PROGRAMS[program]({**inside, **beside})}


def test_no_program_loses_sight_of_a_keyword():
    dice = random.Random(1)
    items = {"/": ["Anna", "people/Bob"], "|": ["Anna", "people|Carla"], "": ["Dora", "Bob"]}

    def fields(names):
        chosen = [name for name in names if dice.random() < 0.4]
        return {n: dice.sample(items[BY_NAME[n].separator], dice.randint(1, 2)) for n in chosen}

    for _ in range(60):
        before = sidecar(**fields(PROPERTIES)) if dice.random() < 0.7 else None
        embedded = fields(BY_NAME)
        own = Embedded(None, {BY_NAME[name]: items for name, items in embedded.items()})
        after = merge_tags(before, ["sofa"], "auto", embedded=lambda own=own: own)
        removed = remove_tags(after) or None
        assert merge_tags(after, ["sofa"], "auto", embedded=lambda own=own: own) is None
        for program in PROGRAMS:
            known, shown = (seen_by(program, content, embedded) for content in (before, after))
            assert "sofa" in shown and known <= shown, (program, before, embedded)
            assert seen_by(program, removed, embedded) == known, (program, before, embedded)


def test_a_sidecar_under_either_name_is_found_and_both_are_merged(tmp_path):
    photo = tmp_path / "a.JPG"
    full, stem = tmp_path / "a.JPG.xmp", tmp_path / "a.xmp"
    assert xmp_paths(photo, "full") == [full]
    assert xmp_paths(photo, "stem") == [stem]
    stem.write_text(DARKTABLE)
    assert xmp_paths(photo, "full") == [stem]
    full.write_text(DARKTABLE)
    for written in writer().with_tags(photo, ["cat"]):
        written.write()
    assert all("auto|cat" in path.read_text() for path in (full, stem))
    for written in without_tags(photo):
        written.write()
    assert not any("auto|" in path.read_text() for path in (full, stem))


def test_photos_of_one_name_do_not_share_a_sidecar(tmp_path):
    for name in ("a.jpg", "a.png", "b.jpg", "c.jpg", "c.CR2"):
        (tmp_path / name).touch()

    def paths(name, style="stem"):
        return [path.name for path in xmp_paths(tmp_path / name, style)]

    assert [paths(name) for name in ("a.jpg", "a.png", "b.jpg", "c.jpg", "c.CR2")] == [
        ["a.jpg.xmp"], ["a.png.xmp"], ["b.xmp"], ["c.jpg.xmp"], ["c.xmp"],
    ]  # fmt: skip


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"needs {program}")


def run(*words) -> str:
    return subprocess.run(list(map(str, words)), capture_output=True, check=True, text=True).stdout


def exiftool_facts(*paths) -> list[dict]:
    return json.loads(run("exiftool", "-j", "-G1", *paths))


def photo_with_keywords(path, *assignments) -> Path:
    Image.new("RGB", (64, 48), "red").save(path)
    if assignments:
        run("exiftool", "-q", "-overwrite_original", *assignments, path)
    return path


@needs("exiftool")
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_new_sidecar_holds_the_keywords_in_the_photo(suffix, tmp_path):
    photo = photo_with_keywords(
        tmp_path / f"a.{suffix}",
        "-XMP-dc:Subject=Anna",
        "-XMP-lr:HierarchicalSubject=people|Bob",
        *(["-IPTC:Keywords=Zoë"] if suffix in ("jpg", "tif") else []),
        *(["-XPKeywords=Omar;Päivi"] if suffix == "jpg" else []),
    )
    (written,) = writer().with_tags(photo, ["sofa"])
    found = tags_of(written.content)
    words = ["Zoë"] if suffix in ("jpg", "tif") else []
    words += ["Omar", "Päivi"] if suffix == "jpg" else []
    assert found["dc:subject"] == ["Anna", *words, "sofa"]
    assert found["lr:hierarchicalSubject"] == ["people|Bob", *words, "auto|sofa"]
    assert sorted(found["digiKam:TagsList"]) == sorted(["people/Bob", "Anna", *words, "auto/sofa"])
    written.write()
    assert [removed.content for removed in without_tags(photo)] == [b"", None]


@needs("exiftool")
def test_exiftool_reads_sidecars_and_those_that_it_rewrites_keep_their_record(tmp_path):
    path = tmp_path / "a.jpg.xmp"
    path.write_bytes(sidecar(dc_subject=["Anna"]))
    (before,) = exiftool_facts(path)
    path.write_bytes(merge_tags(path.read_bytes(), ["sofa"], "auto"))
    (merged,) = exiftool_facts(path)
    assert merged["XMP-dc:Subject"] == ["Anna", "sofa"]
    assert merged["XMP-lr:HierarchicalSubject"] == ["Anna", "auto|sofa"]
    assert merged["XMP-digiKam:TagsList"] == ["Anna", "auto/sofa"]
    assert not any("Warning" in name for name in merged)
    run("exiftool", "-q", "-overwrite_original", "-XMP-xmp:Rating=2", path)
    path.write_bytes(remove_tags(path.read_bytes()))
    (after,) = exiftool_facts(path)

    def written(facts):
        return {k: v for k, v in facts.items() if k.startswith("XMP-") and "XMPToolkit" not in k}

    assert written(after) == written(before) | {"XMP-xmp:Rating": 2}


def test_python_writes_what_the_command_writes(tmp_path, ramctl):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "a.jpg")
    record = {"image": "one/a.jpg", "tags": ["dog", "sofa"], "scores": {"dog": 0.9, "sofa": 0.8}}
    content = json.dumps(record).encode()
    assert ramctl("export", "--xmp", "-", stdin=content).returncode == 0
    result, photo = TagResult.from_record(record), tmp_path / "two" / "a.jpg"
    path = tmp_path / "two" / "a.jpg.xmp"
    assert write_sidecar(photo, result) == [path]
    assert path.read_bytes() == (tmp_path / "one" / "a.jpg.xmp").read_bytes()
    assert write_sidecar(str(photo), result) == []
    assert result.record == record
