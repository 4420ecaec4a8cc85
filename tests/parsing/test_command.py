"""`ramctl parse` as people run it."""

import json

import pytest

from ramctl.checkpoints.bundle import embedded_bundle
from ramctl.labels import LabelSystem

RECORDS = [
    {"image": "a.jpg", "captions": ["Two dogs run on a beach.", "a fire hydrant"], "x": 1},
    {"caption": "A man rides a horse", "tags": ["barn"]},
    {"tags": ["dog", "ride"]},
    {"image": "b.jpg"},
    {"captions": [3]},
    {"captions": ["dog " * 30_000]},
    {"captions": [""]},
]
STDIN = b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS)


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_captions_become_tags_and_bad_records_rejects(ramctl, tmp_path):
    done = ramctl("parse", "--rejects", "r.jsonl", "--stats", "s.json", stdin=STDIN)
    assert done.returncode == 3
    first, second, third, empty = lines(done)
    assert first["tags"] == ["dog", "run", "beach", "fire hydrant"]
    assert first["caption_tags"] == [["dog", "run", "beach"], ["fire hydrant"]]
    assert first["kinds"]["beach"] == "scene"
    assert set(first["sources"]) == set(first["kinds"]) == set(first["tags"])
    assert second["tags"] == ["man", "ride", "horse"]
    assert third["tags"] == ["dog", "ride"]
    assert third["sources"] == {"dog": ["human"], "ride": ["human"]}
    assert third["kinds"] == {"dog": "object", "ride": "action"}
    assert empty["tags"] == []
    rejects = [json.loads(line) for line in (tmp_path / "r.jsonl").open()]
    assert [(r["line"], r["code"]) for r in rejects] == [
        (4, "missing_field"), (5, "bad_field"), (6, "too_large"),
    ]  # fmt: skip
    stats = json.loads((tmp_path / "s.json").read_text())
    assert (stats["images"], stats["captions"], stats["tags"]) == (4, 4, 9)


@pytest.fixture
def captions(tmp_path):
    rows = [{"captions": ["a dog runs on a beach", "a man with a red ball"]}] * 6
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_label_system_is_built_reviewed_and_used(ramctl, tmp_path, captions):
    done = ramctl("parse", "--build-labels", "l.jsonl", "--review", "r.tsv", captions)
    assert (done.returncode, done.stdout) == (0, b"")
    rows = [json.loads(line) for line in (tmp_path / "l.jsonl").open()]
    assert {row["tag"] for row in rows} == {"dog", "run", "beach", "man", "red", "ball"}
    built = (tmp_path / "l.jsonl").read_bytes()
    again = ramctl("parse", "--build-labels", "l.jsonl", "--review", "r.tsv", "-j2", captions)
    assert again.returncode == 0
    assert (tmp_path / "l.jsonl").read_bytes() == built
    closed = ramctl("parse", "--labels", "l.jsonl", stdin=STDIN)
    assert lines(closed)[0]["tags"] == ["dog", "run", "beach"]


def test_what_a_label_system_leaves_out_is_in_the_rejects(ramctl, tmp_path, captions):
    captions.write_text(captions.read_text() + "{oops\n{}\n")
    done = ramctl("parse", "--build-labels", "l.jsonl", "--rejects", "rejects.jsonl", captions)
    assert done.returncode == 3
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").open()]
    assert [(row["line"], row["code"]) for row in rejects] == [
        (7, "bad_json"), (8, "missing_field"),
    ]  # fmt: skip


def test_the_authors_json_goes_out_and_comes_in(ramctl, tmp_path):
    (tmp_path / "words.txt").write_text("dog\nbeach\nrun\n")
    one = json.dumps(RECORDS[0]).encode()
    done = ramctl("parse", "--labels", "words.txt", "-f", "ram", "-o", "ram.json", stdin=one)
    assert done.returncode == 0
    assert json.loads((tmp_path / "ram.json").read_text()) == [
        {
            "image_path": "a.jpg",
            "caption": RECORDS[0]["captions"],
            "union_label_id": [0, 1, 2],
            "parse_label_id": [[0, 1, 2], []],
        }
    ]
    back = ramctl("parse", "--labels", "words.txt", "--keep-tags", "ram.json")
    assert lines(back)[0]["sources"]["dog"] == ["parsed", "human"]


def test_labels_are_those_of_a_bundle_known_by_its_name_too(ramctl, tmp_path):
    bundle = LabelSystem.read(embedded_bundle())
    done = ramctl("parse", "--labels", "mini", stdin=STDIN)
    assert done.stdout == ramctl("parse", "--labels", embedded_bundle(), stdin=STDIN).stdout
    tags = [tag for row in lines(done) for tag in row["tags"]]
    assert tags and all(bundle.ids(tag) for tag in tags)
    missing = ramctl("parse", "--labels", "nothing", stdin=STDIN)
    assert (missing.returncode, missing.stdout) == (2, b"")
    assert "nothing: no such file" in missing.messages
    (tmp_path / "mini").write_text("dog\n")  # a file of that name is that file
    own = ramctl("parse", "--labels", "mini", stdin=STDIN)
    assert lines(own)[0]["tags"] == ["dog"]


def test_what_is_known_of_a_photo_besides_its_tags_stays(ramctl):
    known = {"image": "a.jpg", "captions": ["a dog"], "chances": {"cat": 0.25, "sky": 1}}
    (row,) = lines(ramctl("parse", stdin=json.dumps(known).encode()))
    assert row["chances"] == known["chances"]


def test_captions_of_a_photo_are_grouped(ramctl, tmp_path):
    (tmp_path / "x.token.txt").write_text("a.jpg#0\ta dog\nb.jpg#0\ta cat\na.jpg#1\ta ball\n")
    done = ramctl("parse", "--group", "x.token.txt")
    assert [(r["image"], r["tags"]) for r in lines(done)] == [
        ("a.jpg", ["dog", "ball"]), ("b.jpg", ["cat"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [["--review", "r.tsv"], ["-f", "ram"], ["--build-labels", "l", "--labels", "m"]],
    ids=" ".join,
)
def test_options_that_do_not_go_together_are_usage(ramctl, arguments):
    assert ramctl("parse", *arguments, stdin=b"").returncode == 2


def test_a_ram_record_without_a_photo_is_rejected(ramctl, tmp_path):
    (tmp_path / "words.txt").write_text("man\n")
    done = ramctl(
        "parse", "--labels", "words.txt", "-f", "ram", stdin=json.dumps(RECORDS[1]).encode()
    )
    assert done.returncode == 3
    assert json.loads(done.stdout) == []
