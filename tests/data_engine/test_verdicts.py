"""`clean --decisions`: a person's word outranks every rule, and what it is about must be there."""

import base64
import json
import os
import shutil

import pytest

from ramctl.records.record import Record
from ramctl.records.verdicts import Verdicts
from tests.support import lines


@pytest.fixture
def decide(tmp_path):
    """Writes decisions (record, tag, verdict) to a file of `tmp_path`."""

    def write(*decisions, name="decisions.jsonl"):
        rows = [
            {"image": record["image"], "tag": tag, "verdict": verdict}
            for record, tag, verdict in decisions
        ]
        (tmp_path / name).write_bytes(lines(rows))
        return name

    return write


def reasons(row) -> dict[str, str]:
    return {entry["tag"]: entry["reason"] for entry in row.get("removed", [])}


def test_a_kept_tag_stays_and_a_removed_one_goes_whatever_the_rules_say_and_they_are_counted(
    clean, decide, photo_records, tmp_path
):
    first, second = photo_records[:2]
    name = decide((first, "horse", "keep"), (second, "sky", "remove"), (second, "boat", "remove"))
    given = lines(photo_records)
    done = clean("--threshold", 1, "--decisions", name, "--stats", "stats.json", stdin=given)
    assert b"decisions: 1 keep, 2 remove\n" in done.stderr
    told = json.loads((tmp_path / "stats.json").read_bytes())
    assert told["decisions"] == {"keep": 1, "remove": 2}
    assert told["removed"]["decision"] == 1
    rows = done.rows
    assert rows[0]["tags"] == ["horse", "red"]
    assert reasons(rows[0]) == {"field": "not-predicted", "sky": "not-predicted"}
    assert reasons(rows[1])["sky"] == "decision"
    rows = clean("--threshold", 0, "--decisions", name, stdin=given).rows
    assert rows[0] == first
    assert rows[1]["tags"] == ["horse", "field", "red"]
    assert list(rows[1]["sources"]) == list(rows[1]["kinds"]) == rows[1]["tags"]
    assert rows[2:] == photo_records[2:]


def test_decisions_outrank_protection_kinds_and_what_the_model_knows(clean, decide, photo_records):
    record = photo_records[0]
    record["tags"].append("no such label")
    record["sources"] = {tag: ["human"] for tag in record["tags"]}
    tags = ("horse", "red", "no such label")
    name = decide(*((record, tag, "remove") for tag in tags))
    row = clean("--threshold", 0, "--decisions", name, stdin=lines(photo_records)).rows[0]
    assert row["tags"] == ["field", "sky"]
    assert reasons(row) == dict.fromkeys(tags, "decision")
    with_region, *without = row["removed"]
    assert len(with_region["box"]) == 4 and 0 < with_region["score"] < 1
    for entry in without:  # neither an attribute nor an unknown tag is looked for
        assert entry == {
            "tag": entry["tag"], "reason": "decision", "box": None, "score": None, "distance": None
        }  # fmt: skip


def test_of_several_decisions_about_one_tag_the_last_counts(clean, decide, photo_records):
    record = photo_records[0]
    files = [
        "--decisions", decide((record, "sky", "remove"), (record, "horse", "keep")),
        "--decisions", decide((record, "sky", "keep"), name="later.jsonl"),
    ]  # fmt: skip
    row = clean("--threshold", 1, *files, stdin=lines(photo_records)).rows[0]
    assert row["tags"] == ["horse", "sky", "red"]


def test_a_decision_is_about_every_record_of_its_photo(clean, decide, photo_records):
    name = decide((photo_records[0], "horse", "remove"))
    given = lines([*photo_records, photo_records[0]])
    rows = clean("--threshold", 0, "--decisions", name, stdin=given).rows
    assert [number for number, row in enumerate(rows) if "removed" in row] == [0, 8]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{oops", "bad JSON"),
        (b'{"tag": "sky", "verdict": "keep"}', "no image field"),
        (b'{"image": 3, "tag": "sky", "verdict": "keep"}', "image is neither a path nor"),
        (b'{"image": "a.jpg", "tag": null, "verdict": "keep"}', "tag is not a string"),
        (b'{"image": "a.jpg", "tag": "sky"}', "verdict is not one of keep, remove, add"),
        (b'{"image": "a.jpg", "tag": "sky", "verdict": ["keep"]}', "verdict is not one of"),
        (b"\xff", "invalid UTF-8"),
    ],
)
def test_a_malformed_line_is_named_and_nothing_is_done(clean, tmp_path, line, why):
    good = b'{"image": "a.jpg", "tag": "sky", "verdict": "keep"}\n'
    (tmp_path / "bad.jsonl").write_bytes(good + b"\n" + line + b"\n")
    done = clean("--decisions", "bad.jsonl", "-o", "out.jsonl", stdin=b"", code=1)
    assert f"bad.jsonl:3: {why}".encode() in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_a_missing_file_and_two_uses_of_stdin_are_named(clean):
    done = clean("--decisions", "gone.jsonl", stdin=b"", code=2)
    assert b"gone.jsonl: no such file" in done.stderr
    done = clean("--decisions", "-", stdin=b"", code=2)
    assert b"cannot both be standard input" in done.stderr


def test_decisions_may_come_through_a_pipe(clean, photo_records, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(photo_records))
    image = photo_records[0]["image"]
    decision = lines([{"image": image, "tag": "horse", "verdict": "remove"}])
    done = clean("in.jsonl", "--threshold", 0, "--decisions", "-", stdin=decision)
    assert reasons(done.rows[0]) == {"horse": "decision"}


def test_other_decisions_are_another_output(clean, decide, photo_records):
    given = lines(photo_records)
    decide((photo_records[0], "horse", "remove"))
    arguments = ["-o", "out.jsonl", "--decisions", "decisions.jsonl"]
    clean(*arguments, stdin=given)
    decide((photo_records[0], "horse", "remove"), (photo_records[0], "horse", "remove"))
    done = clean(*arguments, "--resume", stdin=given)
    assert b"8 done before" in done.stderr
    decide((photo_records[0], "horse", "keep"))
    done = clean(*arguments, "--resume", stdin=given, code=1)
    assert b"made with another decisions file" in done.stderr
    done = clean("-o", "out.jsonl", "--resume", stdin=given, code=1)
    assert b"made with another decisions file" in done.stderr


def test_photos_of_decisions_that_have_no_record_are_counted(clean, decide, photo_records):
    given, gone = lines(photo_records), {"image": "gone.jpg"}
    name = decide((photo_records[0], "horse", "remove"), (gone, "horse", "remove"))
    message = b"ramctl clean: 1 of 2 photos in decisions.jsonl have no record\n"
    words = ["--decisions", name, "-o", "out.jsonl"]
    assert clean(*words, stdin=given).stderr.endswith(message)
    assert message not in clean(*words, "--resume", stdin=given).stderr
    decide((photo_records[0], "horse", "remove"))
    assert b"no record" not in clean("--decisions", name, stdin=given).stderr


def test_decisions_are_applied_to_regions_that_were_found_before(clean, decide, photo_records):
    given = lines(photo_records)
    clean("--work", "work", "--threshold", 0, stdin=given)
    name = decide((photo_records[0], "horse", "remove"))
    done = clean("--work", "work", "--stage", "apply", "--decisions", name)
    assert done.stdout == clean("--threshold", 0, "--decisions", name, stdin=given).stdout


def test_a_photo_whose_name_is_not_utf8_can_be_decided_on(clean, photo_records, tmp_path):
    name = b"photo-\xff.jpg"
    shutil.copy(photo_records[0]["image"], tmp_path / os.fsdecode(name))
    image = {"bytes": base64.b64encode(name).decode()}
    decision = {"image": image, "tag": "horse", "verdict": "remove"}
    (tmp_path / "d.jsonl").write_bytes(lines([decision]))
    given = lines([{**photo_records[0], "image": image}])
    (row,) = clean("--decisions", "d.jsonl", stdin=given).rows
    assert reasons(row) == {"horse": "decision"}


def test_the_same_decisions_have_the_same_stamp_in_any_order(tmp_path):
    rows = [{"image": name, "tag": "sky", "verdict": "keep"} for name in ("a.jpg", "b.jpg")]
    for name, order in (("one", rows), ("two", rows[::-1])):
        (tmp_path / name).write_bytes(lines(order))
    one, two = (Verdicts.read([tmp_path / name], "clean") for name in ("one", "two"))
    assert one.stamp == two.stamp != Verdicts.read([], "clean").stamp
    assert one.of(Record({"image": "a.jpg"}).fields) == {"sky": "keep"}
