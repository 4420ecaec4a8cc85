"""The owner's words as a label system, which `tag --labels` takes."""

import json

import pytest

from ramctl.importing import vocabulary
from ramctl.importing.vocabulary import MAX_PARENTS, Vocabulary
from ramctl.labels import LabelSystem
from tests.importing.test_import import photo, xmp
from tests.support import read_rows

LIGHTROOM = (
    "\ufeffAnimals\n\tDog\n\t\t{hound}\n\t\t{Animals}\n\t\tPoodle\n\t[Wild]\n\t\tfox\n"
    "[People]\n\tAnna\nPersonen\n\tBen\n2019\n"
)


def test_what_somebody_else_wrote_is_not_replaced(ramctl, tmp_path):
    listed, other = tmp_path / "k.txt", tmp_path / "photo.jpg"
    listed.write_text("dog\n")
    other.write_bytes(b"\xff\xd8 a photo")
    done = ramctl("import", listed, "--labels-out", other)
    assert (done.returncode, other.read_bytes()) == (2, b"\xff\xd8 a photo")
    assert "is not a label system" in done.messages
    for _ in range(2):  # its own it replaces
        assert ramctl("import", listed, "--labels-out", tmp_path / "l.jsonl").returncode == 0
    done = ramctl("parse", "--build-labels", other, stdin=b'{"captions": ["a dog"]}\n')
    assert (done.returncode, other.read_bytes()) == (2, b"\xff\xd8 a photo")


def test_lightroom_s_list_gives_words_synonyms_and_parents(ramctl, tmp_path):
    (tmp_path / "Keywords.txt").write_text(LIGHTROOM)
    done = ramctl("import", "Keywords.txt", "--labels-out", "labels.jsonl")
    assert (done.returncode, done.stdout) == (0, b"")
    assert read_rows(tmp_path / "labels.jsonl") == [
        {"tag": "Animals", "kind": "object"},
        {"tag": "Dog", "kind": "object", "synonyms": ["hound"], "parents": ["Animals"]},
        {"tag": "Poodle", "kind": "object", "parents": ["Dog", "Animals"]},
        {"tag": "fox", "kind": "object", "parents": ["Animals"]},
        {"tag": "Personen", "kind": "object"},
    ]
    ramctl("import", "-q", "Keywords.txt", "--labels-out", "labels.jsonl", "--people")
    tags = LabelSystem.read(tmp_path / "labels.jsonl").tags
    assert [tag for tag in tags if tag in ("Anna", "Ben")] == ["Anna", "Ben"]


def test_a_plain_list_is_indented_by_spaces(ramctl, tmp_path):
    (tmp_path / "a.txt").write_text("sport\n  ball game\n    football\n  skiing\nweather\n\n")
    assert ramctl("import", "-q", "a.txt", "--labels-out", "l.jsonl").returncode == 0
    parents = {row["tag"]: row.get("parents", []) for row in read_rows(tmp_path / "l.jsonl")}
    assert parents == {
        "sport": [], "ball game": ["sport"], "football": ["ball game", "sport"],
        "skiing": ["sport"], "weather": [],
    }  # fmt: skip


def test_photos_give_the_words_that_a_person_wrote_and_how_often(ramctl, tmp_path):
    for number, paths in enumerate((["Animals|Dog", "People|Anna"], ["Animals|dog", "2019"])):
        name = f"p/{number}.jpg"
        photo(tmp_path / name)
        (tmp_path / f"{name}.xmp").write_text(xmp(lr_hierarchicalSubject=paths))
    photo(tmp_path / "p/2.jpg")
    ramctl("export", "-q", "--xmp", stdin=b'{"image": "p/2.jpg", "tags": ["sky"]}\n')
    done = ramctl("import", "-R", "p", "--labels-out", "labels.jsonl", "-o", "out.jsonl")
    assert b"2 labels in labels.jsonl" in done.stderr
    assert read_rows(tmp_path / "labels.jsonl") == [
        {"tag": "Animals", "kind": "object"},
        {"tag": "Dog", "kind": "object", "parents": ["Animals"], "count": 2},
    ]
    assert len(read_rows(tmp_path / "out.jsonl")) == 3


def test_tag_gives_only_these_words_and_with_leaf_no_parents(ramctl, tmp_path):
    photo(tmp_path / "a.jpg")
    (tmp_path / "Keywords.txt").write_text(LIGHTROOM)
    ramctl("import", "-q", "Keywords.txt", "--labels-out", "labels.jsonl")
    words = ["tag", "-q", "a.jpg", "--labels", "labels.jsonl", "--threshold", "0", "--leaf"]
    done = ramctl(*words)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["tags"]) == {"Poodle", "fox", "Personen"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["Keywords.txt"], 2, "needs --labels-out"),
        (["none.txt", "--labels-out", "l.jsonl"], 2, "none.txt: no such file"),
        (["empty.txt", "--labels-out", "l.jsonl"], 1, "empty.txt: no keywords in it"),
        (["binary.txt", "--labels-out", "l.jsonl"], 1, "binary.txt: not UTF-8 text"),
        (["a.jpg", "--labels-out", "l.jsonl"], 1, "no keywords were found"),
        (["a.jpg", "--labels-out", "l.jsonl", "--shard", "1/2"], 2, "in one run"),
        (["a.jpg", "--labels-out", "l", "-o", "l"], 2, "are the same file"),
        (["p"], 2, "-R takes the photos"),
    ],
)
def test_what_cannot_be_done_is_one_line(ramctl, tmp_path, words, code, message):
    photo(tmp_path / "a.jpg")
    (tmp_path / "p").mkdir()
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\0")
    (tmp_path / "Keywords.txt").write_text(LIGHTROOM)
    done = ramctl("import", "-q", *words)
    assert (done.returncode, done.stdout) == (code, b"")
    assert message in done.stderr.decode() and done.stderr.count(b"\n") == 1
    assert not (tmp_path / "l.jsonl").exists()


def test_a_deep_hierarchy_is_gone_over_once_for_each_of_its_paths(monkeypatch):
    compared = []
    normalise = vocabulary.normalise
    monkeypatch.setattr(vocabulary, "normalise", lambda w: compared.append(w) or normalise(w))
    depth = 60
    words = [f"word {n}" for n in range(depth)]
    collected = Vocabulary()
    collected.add_record({
        "sources": {word: ["human"] for word in words},
        "parents": {word: words[:n][::-1] for n, word in enumerate(words)},
    })  # fmt: skip
    labels = collected.labels()
    assert [label.parents for label in labels][-1] == tuple(words[:-1][::-1])
    assert len(compared) < 2 * depth**2  # three words of each path for each of its words, before


def test_of_a_path_without_end_a_word_has_the_nearest_parents():
    words = [f"word {n}" for n in range(5000)]
    collected = Vocabulary()
    collected.add_record({"sources": {"leaf": ["human"]}, "parents": {"leaf": words}})
    labels = collected.labels()
    assert (len(labels), labels[-1].parents) == (5001, tuple(words[:MAX_PARENTS]))
    assert max(len(label.parents) for label in labels) == MAX_PARENTS
