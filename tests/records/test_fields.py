"""The forms of the fields that commands share: what each holds, and what is said of another."""

import io
import json
from pathlib import Path

import pytest

from ramctl.errors import RecordProblem
from ramctl.records.fields import FOR_PHOTOS, FORMS, require_forms, scored_boxes
from ramctl.records.jsonl import dumps, loads, unread_records
from ramctl.records.record import Record
from tests.support import DATA

BOX = [0.1, 0.2, 0.3, 0.4]
RIGHT = {
    "captions": [[], ["a"]],
    "caption": ["", "a"],
    "generated_captions": [[], ["a"]],
    "caption_tags": [[], [[]], [["a"], ["b", "c"]]],
    "generated_caption_tags": [[["a"]]],
    "tags": [[], ["a", "b"]],
    "kinds": [{}, {"a": "object"}],
    "sources": [{}, {"a": []}, {"a": ["human", "parsed"]}],
    "scores": [{}, {"a": 0.5, "b": -3, "c": 1e300}],  # other taggers' may be any numbers
    "salience": [{"a": 0.5}],
    "dense": [[], [0.5, 1]],
    "embedding": ["0123abcd:AAAAAAAA", [0.5, 1.5]],
    "boxes": [{}, {"a": [BOX, 0.5]}, {"a": [BOX, BOX]}, {"a": []}, [["cat", 0.5, *BOX]], []],
    "removed": [[], [{"tag": "a", "reason": "outlier", "box": BOX}]],
    "negatives": [["a"]],
    "uncertain": [[]],
    "confirmed": [["a"]],
    "refused": [["a"]],
}
WRONG = {
    "captions": ["a", [None], {"a": "b"}, 5],
    "caption": [["a"], 5, False],
    "caption_tags": [["a"], [None], [[5]], {"a": ["b"]}],
    "tags": ["a", ["a", 5], {"a": 1}, True],
    "kinds": ["object", ["object"], {"a": 5}, {"a": None}],
    "sources": ["human", {"a": "human"}, {"a": [5]}, [["human"]]],
    "scores": ["high", 5, [0.5], {"a": "high"}, {"a": True}, {"a": None}, {"a": [0.5]}],
    "dense": [5, {"a": 0.5}, ["0.5"], [True], [None], [[0.5]]],
    "embedding": [5, "x", "x:y", "0123abcd:AAAA", {"a": 1}, True],  # no two bytes a number
    "boxes": [
        5, "x", {"a": 5}, {"a": "x"}, {"a": [5, 0.5]}, {"a": [BOX[:3], 0.5]}, {"a": [BOX, "high"]},
        {"a": [[0.3, 0, 0.1, 1], 0.5]}, {"a": [[0, 1, 1, 0]]}, {"a": [[*BOX[:3], None], 0.5]},
    ],
    "removed": ["a", ["a"], [{}], [{"tag": 5}], {"tag": "a"}],
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_field_holds_what_the_reference_says_and_nothing_else(name):
    for value in [*RIGHT[name], None]:
        require_forms(loads(dumps({name: value})))
    likes = {"generated_captions": "captions", "generated_caption_tags": "caption_tags"}
    likes |= dict.fromkeys(("negatives", "uncertain", "confirmed", "refused"), "tags")
    for value in WRONG[likes.get(name, "scores" if name == "salience" else name)]:
        with pytest.raises(RecordProblem, match=f"^{name} is not an? .* \\(got ") as caught:
            require_forms({name: value})
        assert caught.value.code == "bad_field" and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"boxes": 5}, "boxes is not an object of [[x0, y0, x1, y1], score] (got a number)"),
        ({"tags": "a"}, "tags is not a list of strings (got a string)"),
        ({"tags": ["a", 5, None]},
         "tags is not a list of strings (got a list holding a string and a number and null)"),
        ({"scores": {"a": "1"}},
         "scores is not an object of numbers (got an object holding a string)"),
    ],
)  # fmt: skip
def test_the_reason_names_the_field_and_what_is_there(fields, message):
    with pytest.raises(RecordProblem) as caught:
        require_forms({"image": 5, "mine": {"scores": "x"}, **fields})
    assert caught.value.message == message


def items_of(content: bytes) -> list:
    return [make() for make in unread_records(io.BytesIO(content), "in.jsonl", Path(), "parse")]


def test_a_reject_holds_the_record_as_it_was_and_can_be_tried_again():
    line = b'{"mine":1.1,"tags":["a",5]}\n'
    (reject,) = items_of(line)
    assert (reject.line, reject.code, reject.record) == (1, "bad_field", loads(line))
    assert dumps(reject.to_json()).endswith(b'"record":' + line.strip() + b"}\n")
    (again,) = items_of(dumps(reject.to_json()))  # the wrapped record is looked at as well
    assert again.code == "bad_field"
    (mended,) = items_of(dumps(reject.to_json() | {"record": {"tags": ["a"]}}))
    assert mended.fields == {"tags": ["a"]}


def test_of_records_that_name_photos_only_what_is_read_has_a_form():
    fields = {"salience": "high", "tags": "a b", "boxes": 5, "generated_captions": ["a"]}
    require_forms(fields, FOR_PHOTOS)
    with pytest.raises(RecordProblem, match="generated_captions"):
        require_forms(fields | {"generated_captions": 5}, FOR_PHOTOS)


def test_boxes_of_other_programs_are_none_of_a_tagger():
    found = {"a": [BOX, 0.5], "b": [BOX, BOX], "c": [BOX], "d": []}
    assert scored_boxes({"boxes": found}) == {"a": [BOX, 0.5]}
    assert scored_boxes({"boxes": [["cat", 0.5, *BOX]]}) == scored_boxes({"boxes": None}) == {}


@pytest.mark.shared
def test_records_of_other_origins_are_no_rejects(shared):
    paths = [*(shared / "data").rglob("*.jsonl"), DATA / "captions.jsonl", DATA / "truth.jsonl"]
    for path in paths:
        if "gold" in path.parts:  # whose `tags` are objects, which no command has ever read
            continue
        lines = path.read_bytes().splitlines(keepends=True)[:: 1 + path.stat().st_size // 10**6]
        items = items_of(b"".join(lines))
        assert items and all(isinstance(item, Record) for item in items), path


def test_names_that_other_projects_use_are_looked_at_when_they_have_ours(ramctl, tmp_path):
    rows = [{"text": "a dog", "caption": ["not ours"]}, {"text": ["a cat", 5]}, {"text": "a cow"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = ramctl("parse", "in.jsonl", "--caption-column", "text")
    assert [row["tags"] for row in done.rows] == [["dog"], ["cow"]]
    assert "in.jsonl:2: captions is not a list of strings" in done.messages
    assert done.returncode == 3


def test_fields_that_a_command_does_not_read_are_anybody_s(ramctl, tmp_path):
    """`tag -f csv` has texts in its columns; annotators and data sets have fields of our names."""
    (tmp_path / "own.csv").write_text("image,caption,scores,sources\na.jpg,A kite,0.9 0.8,web\n")
    assert ramctl("parse", "own.csv").rows[0]["tags"] == ["kite"]
    odd = {"image": "a.jpg", "tags": ["kite"], "negatives": ["dog"]}
    odd |= {"sources": "annotator-2", "dense": "A kite.", "salience": True, "embedding": 5}
    (tmp_path / "odd.jsonl").write_text(json.dumps(odd) + "\n")
    predicted = {"image": "a.jpg", "tags": ["kite"], "scores": {"kite": 0.9, "dog": 0.2}}
    (tmp_path / "p.jsonl").write_text(json.dumps(predicted) + "\n")
    assert ramctl("eval", "p.jsonl", "--truth", "odd.jsonl").returncode == 0
    assert ramctl("export", "odd.jsonl", "-f", "text").stdout == b"a.jpg\tkite\n"


def test_a_caption_of_null_is_as_good_as_none(ramctl):
    line = b'{"image": "a.jpg", "caption": null, "text": "A kite"}\n'
    assert ramctl("parse", stdin=line).rows[0]["tags"] == ["kite"]
