"""`ramctl parse` as people run it: records, label systems, and what is refused."""

import json

import pytest

from ramctl.records.labels import Labels
from tests.support import lines, read_rows

RECORDS = [
    {"image": "a.jpg", "captions": ["Two dogs run on a beach.", "a fire hydrant"], "x": 1},
    {"caption": "A man rides a horse", "tags": ["barn"]},
    {"tags": ["dog", "ride"]},
    {"image": "b.jpg"},
    {"captions": [3]},
    {"captions": ["dog " * 30_000]},
    {"captions": [""]},
]
STDIN = lines(RECORDS)


def test_captions_become_tags_and_bad_records_rejects(ramctl, tmp_path):
    done = ramctl("parse", "--rejects", "r.jsonl", "--stats", "s.json", stdin=STDIN)
    assert done.returncode == 3
    first, second, third, empty = done.rows
    assert first["tags"] == ["dog", "run", "beach", "fire hydrant"]
    assert first["caption_tags"] == [["dog", "run", "beach"], ["fire hydrant"]]
    assert first["kinds"]["beach"] == "scene"
    assert set(first["sources"]) == set(first["kinds"]) == set(first["tags"])
    assert (second["caption"], second["tags"]) == (RECORDS[1]["caption"], ["man", "ride", "horse"])
    assert third["tags"] == ["dog", "ride"]
    assert third["sources"] == {"dog": ["human"], "ride": ["human"]}
    assert third["kinds"] == {"dog": "object", "ride": "action"}
    assert empty["tags"] == []
    assert [(row["line"], row["code"]) for row in read_rows(tmp_path / "r.jsonl")] == [
        (4, "missing_field"), (5, "bad_field"), (6, "too_large"),
    ]  # fmt: skip
    stats = json.loads((tmp_path / "s.json").read_text())
    assert (stats["images"], stats["captions"], stats["tags"]) == (4, 4, 9)


def test_a_label_system_is_built_reviewed_and_used_and_bad_lines_rejected(ramctl, tmp_path):
    row = json.dumps({"captions": ["a dog runs on a beach", "a man with a red ball"]})
    (tmp_path / "in.jsonl").write_text(f"{row}\n" * 6 + "{oops\n{}\n")
    words = ["parse", "in.jsonl", "--build-labels", "l.jsonl", "--review", "r.tsv"]
    done = ramctl(*words, "--rejects", "rejects.jsonl")
    assert (done.returncode, done.stdout) == (3, b"")
    assert [(row["line"], row["code"]) for row in read_rows(tmp_path / "rejects.jsonl")] == [
        (7, "bad_json"), (8, "missing_field"),
    ]  # fmt: skip
    labels = Labels.read(tmp_path / "l.jsonl")
    assert sorted(labels.tags) == ["ball", "beach", "dog", "man", "red", "run"]
    again = ramctl("parse", "in.jsonl", "--labels", "l.jsonl")
    assert [x.count for x in labels] == [
        sum(x in y["tags"] for y in again.rows) for x in labels.tags
    ]
    built = (tmp_path / "l.jsonl").read_bytes()
    more = ramctl(*words, "-j2", "--size", "99")
    assert more.returncode == 3 and "6 labels in l.jsonl: no more are named in 5" in more.messages
    assert (tmp_path / "l.jsonl").read_bytes() == built
    closed = ramctl("parse", "--labels", "l.jsonl", stdin=STDIN)
    assert closed.rows[0]["tags"] == ["dog", "run", "beach"]
    (tmp_path / "classes.txt").write_text("Zebra\nball\nzebra\n")
    assert ramctl(*words, "--size", "3", "--merge", "classes.txt").returncode == 3
    assert sorted(Labels.read(tmp_path / "l.jsonl").tags) == ["ball", "beach", "zebra"]
    assert "zebra\tlabel\t\tobject\t0\tclasses.txt\n" in (tmp_path / "r.tsv").read_text()


def test_the_authors_json_goes_out_and_comes_in(ramctl, tmp_path):
    (tmp_path / "words.txt").write_text("dog\nbeach\nrun\n")
    words = ["parse", "--labels", "words.txt", "-f", "ram", "-o", "ram.json"]
    done = ramctl(*words, stdin=lines(RECORDS[:2]))
    assert (done.returncode, b"1 rejected" in done.stderr) == (3, True)  # it names no photo
    assert json.loads((tmp_path / "ram.json").read_text()) == [
        {
            "image_path": "a.jpg",
            "caption": RECORDS[0]["captions"],
            "union_label_id": [0, 1, 2],
            "parse_label_id": [[0, 1, 2], []],
        }
    ]
    back = ramctl("parse", "--labels", "words.txt", "--keep-tags", "ram.json")
    assert back.rows[0]["sources"]["dog"] == ["parsed", "human"]


@pytest.mark.parametrize("arguments", [["-f", "ram"], ["--build-labels", "l", "--labels", "m"]])
def test_options_that_do_not_go_together_are_usage(ramctl, arguments, tmp_path):
    (tmp_path / "m").write_text("dog\n")
    assert ramctl("parse", *arguments, stdin=b"").returncode == 2


def test_given_tags_stay_without_captions_and_on_request_with_kinds_and_scores(ramctl, tmp_path):
    given = {"tags": ["barn", "dog", "dusk"], "kinds": {"barn": "scene"}}
    rows = [given, {**given, "caption": "a dog", "scores": {"cat": 0.2, "dog": 0.9}}]
    text = lines(rows)
    alone, replaced = ramctl("parse", stdin=text).rows
    assert alone["kinds"] == {"barn": "scene", "dog": "object", "dusk": "scene"}
    assert alone["caption_tags"] == []
    assert (replaced["sources"], replaced["scores"]) == ({"dog": ["parsed"]}, {"dog": 0.9})
    _, kept = ramctl("parse", "--keep-tags", stdin=text).rows
    assert kept["sources"] == {"dog": ["parsed", "human"], "barn": ["human"], "dusk": ["human"]}
    (tmp_path / "l.jsonl").write_text('{"tag": "Dusk", "kind": "attribute"}\n')
    alone, _ = ramctl("parse", "--labels", "l.jsonl", stdin=text).rows
    assert alone["kinds"]["dusk"] == "attribute"


def test_explain_names_the_caption_the_words_the_rule_and_compounds(ramctl):
    text = b'{"captions": ["a cat", "A girl runs with two tall dogs on a brick road"]}\n'
    (row,) = ramctl("parse", "--explain", stdin=text).rows
    assert row["explain"]["dog"] == [{"caption": 1, "words": "dogs", "rule": "noun"}]
    assert row["explain"]["road"][0]["compounds"] == ["brick road"]


def test_empty_captions_and_other_languages_are_counted_and_refused_when_strict(ramctl, tmp_path):
    rows = [{"captions": ["a dog", ""]}, {"image": "b.jpg", "captions": ["Un chat", "a cat"]}]
    text = lines(rows)
    done = ramctl("parse", stdin=text)
    assert done.returncode == 0
    assert "1 empty captions, 1 captions not in English, " in done.messages
    for words in ([], ["--build-labels", "l.jsonl"]):
        strict = ramctl("parse", "--strict", "--rejects", "r.jsonl", *words, stdin=text)
        assert strict.returncode == 1
        assert "-:2: not in English: 'Un chat' (--strict)\n" in strict.messages
        assert [row["code"] for row in read_rows(tmp_path / "r.jsonl")] == ["other_language"]
        (tmp_path / "r.jsonl").unlink()


def test_a_label_system_without_labels_does_not_replace_another(ramctl, tmp_path):
    build = ["parse", "--build-labels", "l.jsonl"]
    assert ramctl(*build, stdin=b'{"captions":["a dog"]}\n' * 5).returncode == 0
    done = ramctl(*build, stdin=b'{"captions":["a cat"]}\n' * 4)
    assert done.returncode == 1 and "no tag is named in 5 captions" in done.messages
    assert Labels.read(tmp_path / "l.jsonl").tags == ["dog"]


def test_tags_alone_are_written(ramctl):
    done = ramctl("parse", "-f", "tags", stdin=STDIN.split(b"\n")[0])
    assert done.rows == [{"image": "a.jpg", "tags": ["dog", "run", "beach", "fire hydrant"]}]


def test_by_default_more_than_one_batch_is_parsed_by_all_cores(ramctl):
    rows = b"".join(b'{"captions": ["a dog and %d cats"]}\n' % n for n in range(600))
    both = [ramctl("parse", "-q", *words, stdin=rows).stdout for words in ([], ["-j", "1"])]
    assert both[0] == both[1] and both[0].count(b"\n") == 600
