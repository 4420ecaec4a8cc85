"""Lines to records, and the fields that several commands share."""

import io
from pathlib import Path

import pytest

from ramctl.errors import RecordProblem
from ramctl.records.jsonl import read_lines
from ramctl.records.record import (
    barred_tags,
    captions_of,
    image_name,
    is_tagged,
    kinds_of,
    listed,
    listed_names,
    lists_by_tag,
    lists_in,
    numbers_in,
    removed_from,
    scored_boxes,
    set_tags,
    shown_name,
)


def records_of(content: bytes):
    return [*read_lines(io.BytesIO(content), "in.jsonl", Path("data"), "test")]


def test_blank_lines_and_a_byte_order_mark_are_skipped():
    found = records_of(b'\xef\xbb\xbf{"a":1}\n  \r\n\n{"b":2}\n')
    assert [(item.line, item.fields) for item in found] == [(1, {"a": 1}), (4, {"b": 2})]
    assert [item.place for item in found] == ["in.jsonl:1", "in.jsonl:4"]


def test_a_stamp_changes_with_the_content_of_a_line():
    one, same, other = records_of(b'{"a":1}\n{"a":1} \n{"a":2}\n')
    assert one.stamp == same.stamp != other.stamp


def test_captions_win_over_a_caption():
    for fields, captions in [
        ({"captions": ["a"], "caption": "b"}, ["a"]),
        ({"captions": None, "caption": "b"}, ["b"]),
        ({}, []),
    ]:
        assert captions_of(fields) == captions


FORMS = {
    listed: ([["a"], []], ["a", ["a", 3], [None], {"a": 1}]),
    lists_in: ([[["a"], []]], [["a"], [[3]], {"a": ["b"]}]),
    numbers_in: ([{"a": 0.5, "b": -3}, {}], [5, [0.5], {"a": "high"}, {"a": True}, {"a": None}]),
    lists_by_tag: ([{"a": ["b"]}], ["a", {"a": "b"}, {"a": [5]}]),
}


@pytest.mark.parametrize("read", FORMS)
def test_a_field_is_of_its_form_or_absent(read):
    good, bad = FORMS[read]
    assert not read({}, "x") and not read({"x": None}, "x")
    assert all(read({"x": value}, "x") == value for value in good)
    for value in bad:
        with pytest.raises(RecordProblem, match=r"^x is not "):
            read({"x": value}, "x")


def test_names_captions_kinds_and_removed_tags_are_of_their_forms():
    for read, name, values in [
        (image_name, "image", [{"bytes": "/2E="}, "", None, 3]),
        (captions_of, "caption", [5, ["a"]]),
        (kinds_of, "kinds", [{"a": 5}, ["a"]]),
        (removed_from, "removed", [[{}], {"tag": "a"}]),
    ]:
        for value in values:
            with pytest.raises(RecordProblem, match=rf"^{name} is "):
                read({name: value})


def test_boxes_of_other_programs_are_none():
    box = [0.1, 0.2, 0.3, 0.4]
    found = {"a": [box, 0.5], "b": [box, box], "c": [box], "d": [], "e": [[1], 0.5], "f": 5}
    assert scored_boxes({"boxes": found}) == {"a": [box, 0.5]}
    assert scored_boxes({"boxes": [["cat", 0.5, *box]]}) == scored_boxes({"boxes": None}) == {}


def test_what_belongs_to_tags_stays_with_them():
    fields = {"tags": ["a", "b"], "kinds": {"a": "object", "b": "scene"}, "scores": {"b": 0.5},
              "sources": {"a": ["human"], "b": ["parsed"]}}  # fmt: skip
    set_tags(fields, ["b"])
    assert fields == {
        "tags": ["b"], "kinds": {"b": "scene"}, "scores": {"b": 0.5}, "sources": {"b": ["parsed"]},
    }  # fmt: skip


def test_tags_are_barred_or_only_predicted_by_what_stands_beside_them():
    fields = {"removed": [{"tag": "a"}], "negatives": ["b"], "refused": ["c"], "tags": ["d"]}
    assert barred_tags(fields) == ["a", "b", "c"]
    assert is_tagged(fields) and not is_tagged({})
    assert not is_tagged({"tags": [], "scores": {}})
    assert is_tagged({"tags": [], "scores": {}, "sources": {}})


def test_names_are_shown_in_a_line():
    assert shown_name("a\udcff.jpg") == "a\\xff.jpg" and shown_name("é\ud800") == "é\\ud800"
    assert listed_names(["a\nb", "c" * 50]) == f"a b, {'c' * 40}"
    assert listed_names("abcdefghijkl")[-3:] == ", l"
    assert listed_names("abcdefghijklm")[-8:] == ", l, ..."
