"""Tags that the owner took out of a sidecar stay out, whatever program, model or run comes next."""

import json
from pathlib import Path

import pytest
from PIL import Image

from ramctl.metadata.sidecar_merge import FIELDS, merge_tags
from ramctl.metadata.xmp_document import OURS, Property, XmpDocument
from tests.command import Done
from tests.support import gallery_photos, remove_tags, write_records

SUBJECT, HIERARCHICAL, TAGS_LIST = (field.property for field in FIELDS)
REFUSED = Property(OURS, "ramctl", "refused")


def without(content: bytes, word: str, *properties: Property) -> bytes:
    """The sidecar after a program took a word out of these fields, of all if none is named."""
    document = XmpDocument(content)
    for name in properties or (SUBJECT, HIERARCHICAL, TAGS_LIST):
        items = document.items(name)
        document.set_items(name, [item for item in items if not item.endswith(word)])
    return document.to_bytes()


def words(content: bytes) -> list[str]:
    """All words of a sidecar's keyword fields, sorted."""
    document = XmpDocument(content or None)
    items = (item for name in (SUBJECT, HIERARCHICAL, TAGS_LIST) for item in document.items(name))
    return sorted({item.replace("|", "/").rsplit("/", 1)[-1] for item in items})


def refused(content: bytes) -> list[str]:
    return XmpDocument(content or None).items(REFUSED)


@pytest.mark.parametrize(
    "shown", [(SUBJECT, HIERARCHICAL), (TAGS_LIST,)], ids=["darktable", "Immich"]
)
def test_a_program_that_knows_some_of_the_fields_is_enough_to_take_a_tag_out(shown):
    content = without(merge_tags(None, ["red", "yellow"], "auto"), "yellow", *shown)
    content = merge_tags(content, ["red", "yellow"], "auto")
    assert (words(content), refused(content)) == (["red"], ["yellow"])


def test_what_a_model_does_not_give_any_more_is_not_refused():
    content = merge_tags(None, ["red", "yellow"], "auto")
    content = merge_tags(content, ["red"], "auto")
    content = merge_tags(content, ["red", "yellow"], "auto")
    assert (words(content), refused(content)) == (["red", "yellow"], [])


def test_a_deleted_tag_whose_word_the_owner_has_herself_stays_deleted():
    document = XmpDocument(merge_tags(None, ["red", "yellow"], "auto"))
    document.set_items(SUBJECT, ["red", "yellow", "mine"])
    document.set_items(HIERARCHICAL, ["auto|red", "colours|yellow"])
    document.set_items(TAGS_LIST, ["auto/red"])
    content = merge_tags(document.to_bytes(), ["red", "yellow"], "auto")
    for _ in range(2):
        assert XmpDocument(content).items(HIERARCHICAL) == ["auto|red", "colours|yellow"]
        content = merge_tags(content, ["red", "yellow"], "auto") or content


def test_a_refused_tag_that_the_owner_adds_again_is_no_longer_refused():
    content = without(merge_tags(None, ["red", "yellow"], "auto"), "yellow")
    document = XmpDocument(merge_tags(content, ["red", "yellow"], "auto"))
    document.set_items(SUBJECT, ["red", "yellow"])
    assert refused(merge_tags(document.to_bytes(), ["red", "yellow"], "auto")) == []


def test_moving_a_tag_below_another_or_writing_it_differently_refuses_nothing():
    content = merge_tags(None, ["red", "caf\u00e9", "hot-dog"], "auto")
    document = XmpDocument(content)
    document.set_items(SUBJECT, ["RED", "cafe\u0301", "hot dog"])
    document.set_items(HIERARCHICAL, ["colours|Red", "auto|cafe\u0301", "auto|hot dog"])
    document.set_items(TAGS_LIST, ["colours/Red", "auto/cafe\u0301", "auto/hot dog"])
    content = merge_tags(document.to_bytes(), ["red"], "auto")
    assert refused(content) == []
    assert "colours|Red" in XmpDocument(content).items(HIERARCHICAL)


def test_removing_machine_tags_keeps_the_refusals_and_forgetting_drops_them():
    content = without(merge_tags(None, ["red", "yellow"], "auto"), "yellow")
    removed = remove_tags(content)
    assert (words(removed), refused(removed)) == ([], ["yellow"])
    assert remove_tags(removed) is None
    assert words(merge_tags(removed, ["red", "yellow"], "auto")) == ["red"]
    again = merge_tags(removed, ["red", "yellow"], "auto", forget=True)
    assert (words(again), refused(again)) == (["red", "yellow"], [])
    assert merge_tags(removed, (), "", forget=True) == b""


@pytest.fixture
def export(command):
    """Runs `ramctl export` for a photo with these tags."""
    Image.new("RGB", (8, 8)).save("a.jpg")

    def run(tags: str, *options: str, **fields) -> Done:
        write_records(Path("in.jsonl"), [{"image": "a.jpg", "tags": tags.split(",")} | fields])
        return command("export", "in.jsonl", *options)

    return run


SIDECAR = Path("a.jpg.xmp")


def take_out(*gone: str) -> None:
    """Delete words from all keyword fields, as a photo manager does."""
    for word in gone:
        SIDECAR.write_bytes(without(SIDECAR.read_bytes(), word))


def test_tags_that_are_all_gone_are_refused_and_without_our_list_all_start_anew(export, command):
    export("red,yellow", "--xmp")
    take_out("yellow", "red")
    assert command("import", "a.jpg").rows == [{"image": "a.jpg", "refused": ["red", "yellow"]}]
    assert "2 tags newly refused" in export("red,yellow", "--xmp").messages
    assert (words(SIDECAR.read_bytes()), refused(SIDECAR.read_bytes())) == ([], ["red", "yellow"])
    SIDECAR.unlink()
    export("red,yellow", "--xmp")
    assert words(SIDECAR.read_bytes()) == ["red", "yellow"]


def test_no_output_has_a_tag_that_a_sidecar_refuses(export):
    tags = "dog,tree,white"
    export(tags, "--xmp")
    take_out("tree")  # no export has been run since
    row = json.loads(export(tags, "-f", "jsonl").stdout)
    assert row == {"image": "a.jpg", "tags": ["dog", "white"], "refused": ["tree"]}
    export(tags, "--gallery", "page.html", "--txt")
    assert list(gallery_photos(Path("page.html"))[0]["tags"]) == ["dog", "white"]
    assert Path("a.txt").read_text() == "dog, white\n"
    assert b"tree" in export(tags, "-f", "text", "--forget-refused", "--xmp").stdout
    take_out("tree")
    done = export(tags, "-f", "jsonl", sources={"tree": ["human"]})
    assert json.loads(done.stdout)["tags"] == tags.split(",")
