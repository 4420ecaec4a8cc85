"""Lines to records and back, fields that several commands share, and the folder of photos."""

import io
import os
from pathlib import Path

import pytest

from ramctl.errors import RecordProblem, UsageProblem
from ramctl.records.inputs import read_inputs
from ramctl.records.jsonl import read_lines
from ramctl.records.record import (
    captions_of,
    image_name,
    kinds_of,
    listed,
    lists_by_tag,
    lists_in,
    numbers_in,
    removed_from,
    scored_boxes,
    set_tags,
)
from tests.records.test_stream import run


def records_of(content: bytes):
    return [*read_lines(io.BytesIO(content), "in.jsonl", Path("data"), "test")]


def test_blank_lines_and_a_byte_order_mark_are_skipped():
    found = records_of(b'\xef\xbb\xbf{"a":1}\n  \r\n\n{"b":2}\n')
    assert [(item.line, item.fields) for item in found] == [(1, {"a": 1}), (4, {"b": 2})]
    assert [item.place for item in found] == ["in.jsonl:1", "in.jsonl:4"]


def test_what_is_no_object_is_a_reject_with_its_reason():
    codes = [(r.code, r.message) for r in records_of(b'[1]\n{"a":"\xff"}\nnull\n{x\n')]
    assert codes[0] == ("bad_json", "bad JSON: not a JSON object")
    assert codes[1] == ("bad_utf8", "invalid UTF-8 at byte 6")
    assert [code for code, _ in codes[2:]] == ["bad_json", "bad_json"]


def test_a_stamp_changes_with_the_content_of_a_line():
    one, same, other = records_of(b'{"a":1}\n{"a":1} \n{"a":2}\n')
    assert one.stamp == same.stamp != other.stamp


def test_the_root_replaces_the_folder_of_the_input(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"a":1}\n')
    assert next(read_inputs([str(path)], None, "test")).base == tmp_path
    assert next(read_inputs([str(path)], "photos", "test")).base == Path("photos")


def test_captions_win_over_a_caption():
    assert captions_of({"captions": ["a"], "caption": "b"}) == ["a"]
    assert captions_of({"caption": "b"}) == ["b"]
    assert captions_of({"captions": None, "caption": "b"}) == ["b"]
    assert captions_of({}) == []


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


def test_kinds_removed_tags_and_boxes_are_of_their_forms():
    for read, name, value in ((kinds_of, "kinds", {"a": 5}), (removed_from, "removed", [{}])):
        with pytest.raises(RecordProblem, match=rf"^{name} is not "):
            read({name: value})
    box = [0.1, 0.2, 0.3, 0.4]
    found = {"a": [box, 0.5], "b": [box, box], "c": [box], "d": [], "e": [[1], 0.5], "f": 5}
    assert scored_boxes({"boxes": found}) == {"a": [box, 0.5]}
    assert scored_boxes({"boxes": [["cat", 0.5, *box]]}) == scored_boxes({"boxes": None}) == {}


def test_a_fifo_is_read_as_it_comes(tmp_path, ramctl):
    os.mkfifo(tmp_path / "fifo")
    run = ramctl.start("parse", "fifo", "-q")
    with (tmp_path / "fifo").open("w") as stream:
        stream.write('{"captions":["a dog"]}\n' * 3)
    out, _ = run.communicate(timeout=60)
    assert (run.returncode, len(out.splitlines())) == (0, 3)


def test_a_name_is_a_text():
    for value in ({"bytes": "/2E="}, "", None, 3):
        with pytest.raises(RecordProblem):
            image_name({"image": value})


def test_what_belongs_to_tags_stays_with_them():
    fields = {"tags": ["a", "b"], "kinds": {"a": "object", "b": "scene"}, "scores": {"b": 0.5},
              "sources": {"a": ["human"], "b": ["parsed"]}}  # fmt: skip
    set_tags(fields, ["b"])
    assert fields == {
        "tags": ["b"], "kinds": {"b": "scene"}, "scores": {"b": 0.5}, "sources": {"b": ["parsed"]},
    }  # fmt: skip


def test_batches_have_the_size_that_was_asked_for(tmp_path):
    sizes = []

    def stage(batches):
        for batch in batches:
            sizes.append(len(batch))
            yield [record.fields for record in batch]

    run(tmp_path, [b"{}"] * 7, stage=stage, batch=3)
    assert sizes == [3, 3, 1]


def test_another_command_or_model_is_noticed(tmp_path):
    run(tmp_path, [b'{"a":1}'], fingerprint={"model": "x", "labels": "l"})
    with pytest.raises(UsageProblem, match="another command"):
        run(tmp_path, [], command="other", resume=True)
    with pytest.raises(UsageProblem, match="another labels, model"):
        run(tmp_path, [], resume=True, fingerprint={"model": "y"})
