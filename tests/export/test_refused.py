"""Tags that the owner took out of a sidecar stay out, whatever program, model or run comes next."""

import json
from pathlib import Path

import pytest
from PIL import Image

from ramctl.export.sidecar_merge import FIELDS, merge_tags, remove_tags
from ramctl.export.sidecars import TEXT_RECORD
from ramctl.export.xmp_document import OURS, Property, XmpDocument
from tests.command import Done
from tests.support import write_records

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


def test_a_tag_that_was_taken_out_of_all_fields_is_never_written_again():
    content = without(merge_tags(None, ["red", "yellow"], "auto"), "yellow")
    content = merge_tags(content, ["red", "yellow"], "auto")
    assert (words(content), refused(content)) == (["red"], ["yellow"])
    assert merge_tags(content, ["red", "yellow"], "auto") is None
    other = merge_tags(content, ["Yellow", "blue"], "machine")
    assert (words(other), refused(other)) == (["blue"], ["yellow"])


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


def test_who_writes_a_word_again_does_not_refuse_it_any_more():
    content = without(merge_tags(None, ["red", "yellow"], "auto"), "yellow")
    content = merge_tags(content, ["red", "yellow"], "auto")
    document = XmpDocument(content)
    document.set_items(SUBJECT, [*document.items(SUBJECT), "yellow"])
    content = merge_tags(document.to_bytes(), ["red", "yellow"], "auto")
    assert refused(content) == []
    assert "yellow" in words(remove_tags(content))


@pytest.fixture
def export(command):
    """Runs `ramctl export` for a photo with these tags."""
    Image.new("RGB", (8, 8)).save("a.jpg")

    def run(tags: str, *options: str) -> Done:
        write_records(Path("in.jsonl"), [{"image": "a.jpg", "tags": tags.split(",")}])
        return command("export", "in.jsonl", *options)

    return run


def text() -> str:
    return Path("a.txt").read_text().rstrip("\n")


def row() -> dict:
    return json.loads(Path(TEXT_RECORD).read_text().splitlines()[-1])


def test_a_word_taken_out_of_a_text_never_comes_back(export):
    export("red,hot dog,yellow", "--txt")
    assert text() == "red, hot dog, yellow"
    Path("a.txt").write_text("my wall, red, hot dog\n")
    for _ in range(2):
        export("red,hot dog,yellow,blue", "--txt")
        assert text() == "my wall, red, hot dog, blue"
    assert row() == {
        "text": "a.txt", "given": ["red", "hot dog", "blue"], "refused": ["yellow"],
        "existing": [],
    }  # fmt: skip
    assert len(Path(TEXT_RECORD).read_text().splitlines()) == 2  # one for each change
    export("Yellow,hot dog", "--txt", "--txt-existing", "replace")
    assert text() == "hot dog"
    Path("a.txt").write_text("")
    export("yellow,hot dog,green", "--txt")
    assert text() == "green"
    export("yellow,hot dog", "--txt", "--forget-refused")
    assert text() == "yellow, hot dog"


def test_a_text_that_is_gone_is_written_again_without_what_was_refused(export):
    export("red,yellow", "--txt")
    Path("a.txt").write_text("red\n")
    export("red,yellow", "--txt")
    Path("a.txt").unlink()
    export("red,yellow", "--txt")
    assert (text(), row()["refused"]) == ("red", ["yellow"])


def test_a_torn_or_foreign_line_of_the_record_is_passed_over(export):
    export("red,yellow", "--txt")
    with Path(TEXT_RECORD).open("ab") as stream:
        stream.write(b'{"text": "a.txt", "given": 5}\n{"text": "a.t')
    Path("a.txt").write_text("red\n")
    export("red,yellow", "--txt")
    assert (text(), row()["refused"]) == ("red", ["yellow"])


def test_refusals_are_forgotten_only_when_that_is_asked_for(export):
    export("red,yellow", "--xmp")
    path = Path("a.jpg.xmp")
    path.write_bytes(without(path.read_bytes(), "yellow"))
    for options, left in (([], ["red"]), (["--forget-refused"], ["red", "yellow"])):
        export("red,yellow", "--xmp", *options)
        assert words(path.read_bytes()) == left


def test_a_refused_tag_that_a_program_writes_back_from_its_database_is_removed_again(
    export, command
):
    export("red,hot dog,yellow", "--xmp")
    path = Path("a.jpg.xmp")
    before = path.read_bytes()
    path.write_bytes(without(before, "yellow"))
    export("red,hot dog,yellow", "--xmp")
    document = XmpDocument(path.read_bytes())  # as darktable does
    document.set_items(HIERARCHICAL, [*document.items(HIERARCHICAL), "auto|yellow"])
    document.set_items(SUBJECT, [*document.items(SUBJECT), "yellow"])
    path.write_bytes(document.to_bytes())
    (record,) = command("import", "a.jpg").rows
    assert record["refused"] == ["yellow"] and "tags" not in record
    assert "1 refused tags that were back" in export("red,hot dog,yellow", "--xmp").messages
    assert (words(path.read_bytes()), refused(path.read_bytes())) == (
        ["hot dog", "red"],
        ["yellow"],
    )
    # By her own hand, it is elsewhere too.
    document.set_items(HIERARCHICAL, [*document.items(HIERARCHICAL), "colours|yellow"])
    path.write_bytes(document.to_bytes())
    export("red,hot dog,yellow", "--xmp")
    assert "yellow" in words(path.read_bytes()) and not refused(path.read_bytes())


DARKTABLE = ((SUBJECT, "darktable"), (HIERARCHICAL, "darktable|format|jpg"))


@pytest.mark.parametrize("others", [DARKTABLE, ()], ids=["its own tags", "no tags"])
def test_tags_that_all_went_at_once_are_written_again(export, others):
    tags = "red,hot dog,yellow"
    export(tags, "--xmp")
    path = Path("a.jpg.xmp")
    path.write_bytes(without(path.read_bytes(), "yellow"))
    export(tags, "--xmp")
    document = XmpDocument(path.read_bytes())  # as darktable writes it from its database
    for name in (SUBJECT, HIERARCHICAL):
        document.set_items(name, [item for of, item in others if of == name])
    path.write_bytes(document.to_bytes())
    export(tags, "--xmp", "--dry-run")
    assert "1 sidecars that had lost all tags" in export(tags, "--xmp").messages
    content = path.read_bytes()
    assert {"red", "hot dog"} <= set(words(content)) and refused(content) == ["yellow"]
    assert "lost" not in export(tags, "--xmp").messages


def test_what_a_program_deleted_is_no_decision_in_an_import(export, command):
    export("red,yellow", "--xmp")
    path = Path("a.jpg.xmp")
    path.write_bytes(without(without(path.read_bytes(), "yellow"), "red"))
    assert json.loads(command("import", "a.jpg").stdout) == {"image": "a.jpg"}


def test_the_summary_counts_newly_refused_tags(export):
    assert "refused" not in export("red,yellow", "--xmp").messages
    path = Path("a.jpg.xmp")
    path.write_bytes(without(path.read_bytes(), "yellow"))
    assert "1 sidecars changed, 1 tags newly refused" in export("red,yellow", "--xmp").messages
    assert "refused" not in export("red,yellow", "--xmp").messages
