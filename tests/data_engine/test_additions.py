"""`generate`: what is added, what is reported of it, and that it depends on the photo alone."""

import re
from collections import Counter
from functools import partial

import numpy as np
import pytest

from ramctl.data_engine import additions, cleaning
from ramctl.data_engine.additions import Caption, merge_generated
from ramctl.records import stream
from ramctl.records.labels import Label, Labels
from tests.data_engine.conftest import DATA, LABELS
from tests.support import lines, write_records

SYSTEM = Labels(LABELS)
EVERY = np.ones(len(LABELS), bool)
PROBABILITIES = np.array([0.9, 0.61234, 0.2, 0.1, 0.5, 0.3, 0.05, 0.01], np.float32)


def scored(ids, system=SYSTEM, probabilities=PROBABILITIES):
    return {system[index].tag: float(probabilities[index]) for index in ids}


def merged(fields, predicted=(), captions=(), confirmed=EVERY):
    return merge_generated(fields, SYSTEM, PROBABILITIES, scored(predicted), captions, confirmed)


def test_tags_are_joined_with_their_sources_kinds_and_scores():
    fields = {
        "image": "a.jpg",
        "tags": ["pony", "unheard of"],
        "kinds": {"pony": "object"},
        "sources": {"pony": ["parsed"]},
        "mine": 1,
    }
    captions = [Caption("a horse stands in a field", ["horse", "stand", "field"])]
    captions.append(Caption("the field, a man", ["field", "man"]))
    # A caption's tag that the model does not confirm is not added; one that is there has it.
    confirmed = np.array([label.tag in ("stand", "field") for label in LABELS])
    assert merged(fields, [0, 1], captions, confirmed) == {
        "image": "a.jpg",
        "tags": ["pony", "unheard of", "stand", "field"],
        "kinds": {"pony": "object", "unheard of": "object", "stand": "action", "field": "scene"},
        "sources": {
            "pony": ["parsed", "generated-caption", "generated-tag"],
            "unheard of": ["human"],
            "stand": ["generated-caption"],
            "field": ["generated-caption", "generated-tag"],
        },
        "mine": 1,
        "scores": {"pony": 0.9, "stand": 0.05, "field": 0.6123},
        "generated_captions": ["a horse stands in a field", "the field, a man"],
        "generated_caption_tags": [["horse", "stand", "field"], ["field", "man"]],
    }


@pytest.mark.parametrize("name", ["removed", "negatives", "refused"])
def test_what_was_removed_or_denied_is_not_added_again(name):
    barred = [{"tag": "pony"}, {"tag": "sky"}] if name == "removed" else ["pony", "sky"]
    out = merged({"tags": ["sky"], name: barred}, [0, 2], [Caption("a horse", ["horse"])])
    assert out["tags"] == ["sky"]
    assert out["sources"] == {"sky": ["human", "generated-tag"]}


def test_of_opposites_the_more_probable_is_added_and_none_beside_a_named_one():
    system = Labels.from_tags(["indoor", "outdoor", "dog"])
    probabilities = np.array([0.8, 0.9, 0.7], np.float32)
    every, predicted = np.ones(3, bool), scored([0, 1, 2], system, probabilities)
    for named, expected in (([], ["outdoor", "dog"]), (["indoor"], ["indoor", "dog"])):
        merged = merge_generated({"tags": named}, system, probabilities, predicted, None, every)
        assert merged["tags"] == expected


def test_what_other_tags_imply_is_not_added():
    system = Labels(
        [Label("boy", parents=("person",)), Label("person"), Label("dog", parents=("animal",)),
         Label("animal")]
    )  # fmt: skip
    probabilities, every = np.full(4, 0.9, np.float32), np.ones(4, bool)

    def tags(fields, predicted, named=()):
        captions, given = [Caption("", list(named))], scored(predicted, system, probabilities)
        return merge_generated(fields, system, probabilities, given, captions, every)["tags"]

    assert tags({"tags": ["boy"]}, [1, 2, 3]) == ["boy", "dog"]
    assert tags({"tags": ["boy"]}, [], ["person", "animal"]) == ["boy", "animal"]
    assert tags({"tags": ["person"]}, [0, 1]) == ["person", "boy"]
    assert tags({"tags": [], "removed": [{"tag": "boy"}]}, [0, 1]) == ["person"]


@pytest.fixture
def generate(command, engine_bundle):
    return partial(command, "generate", "--model", engine_bundle)


def test_tags_and_captions_are_added_none_is_removed_and_they_are_counted(generate, photo_records):
    done = generate("--captions", 3, "--threshold", 0.45, stdin=lines(photo_records))
    out, n_by = done.rows, Counter()
    assert [row["id"] for row in out] == [row["id"] for row in photo_records]
    for given, row in zip(photo_records, out, strict=True):
        assert row["tags"][: len(given["tags"])] == given["tags"]
        assert row["mine"] == given["mine"]
        assert re.fullmatch(r"\S+ [0-9a-f]{12}", row["generator"])
        for tag in row["tags"]:
            above = row["scores"][tag] > 0.45
            assert above == ("generated-tag" in row["sources"][tag])
        assert set(row["kinds"]) == set(row["sources"]) == set(row["scores"]) == set(row["tags"])
        n_by.update(max(names) for names in row["sources"].values())
        texts = row["generated_captions"]
        assert 1 <= len(texts) <= 3 and len(set(texts)) == len(texts)
        assert len(row["generated_caption_tags"]) == len(texts)
    assert n_by["generated-tag"]
    shares = ", ".join(f"{name} {n / len(out):.2f}" for name, n in sorted(n_by.items()))
    assert f"tags a record: {shares}\n" in done.messages


def test_precision_decides_how_many_tags_are_added(command, photo_records):
    """By the embedded model, which has a table of thresholds; 0.8 where none is asked for."""
    generate = partial(command, "generate", "--captions", 0, stdin=lines(photo_records))
    added = [generate("--precision", p).stdout.count(b"generated-tag") for p in (0.95, 0.8, 0.6)]
    assert 0 < added[0] < added[1] < added[2]
    assert generate().stdout == generate("--precision", 0.8).stdout
    refused = generate("--precision", 0.8, "--threshold", 0.5, code=2)
    assert b"leave out --threshold" in refused.stderr


WAYS = [(1, 2), (7, 1), (4, 2)]  # photos a batch, jobs


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["generate", "--threshold", 0.001, "--captions", 2],
        ["clean", "--rule", "paper", "--threshold", 1, "--outliers", 0.5],
    ],
    ids=lambda words: words[0],
)
def test_bytes_depend_on_the_photo_alone_digit_by_digit(command, tmp_path, words, monkeypatch):
    """By the embedded model, whatever batch and `-j`; a photo is missing."""
    monkeypatch.setattr(additions, "DECIMALS", 9)  # more than single precision has
    monkeypatch.setattr(cleaning, "DIGITS", 9)
    photos = sorted((DATA / "photos").glob("*.jpg"))
    names = [*map(str, photos[:3]), "none.jpg", *map(str, photos[3:])]
    tags = ["animal", "field", "sky", "train", "tree", "person", "outdoor", "water", "grass"]
    records = ({"image": name, "tags": tags[i : i + 4]} for i, name in enumerate(names))
    path = write_records(tmp_path / "in.jsonl", records)

    def output(batch: int, jobs: int) -> bytes:
        monkeypatch.setattr(stream, "BATCH", batch)
        more = [] if words[0] == "clean" else ["-j", jobs]
        return command(*words, path, "--device", "cpu", *more, code=3).stdout

    whole = output(4, 1)
    assert whole.count(b"\n") == 8
    for way in WAYS:
        assert output(*way) == whole, way
