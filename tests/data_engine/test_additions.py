"""`generate`: what is added, what is reported of it, and that it depends on the photo alone."""

import json
from functools import partial

import numpy as np
import pytest

from ramctl.data_engine.additions import Caption, merge_generated
from ramctl.records.labels import Label, Labels
from tests.data_engine.conftest import LABELS
from tests.support import lines

SYSTEM = Labels(LABELS)
EVERY = np.ones(len(LABELS), bool)
PROBABILITIES = np.array([0.9, 0.61234, 0.2, 0.1, 0.5, 0.3, 0.05, 0.01], np.float32)


def scored(ids, system=SYSTEM, probabilities=PROBABILITIES):
    return {system[index].tag: float(probabilities[index]) for index in ids}


def merged(fields, predicted=(), captions=()):
    return merge_generated(fields, SYSTEM, PROBABILITIES, scored(predicted), captions, EVERY)


def test_tags_are_joined_with_their_sources_kinds_and_scores():
    fields = {
        "image": "a.jpg",
        "tags": ["pony", "unheard of"],
        "kinds": {"pony": "object"},
        "sources": {"pony": ["parsed"]},
        "mine": 1,
    }
    captions = [Caption("a horse stands in a field", ["horse", "stand", "field"])]
    captions.append(Caption("the field", ["field"]))
    assert merged(fields, [0, 1], captions) == {
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
        "generated_captions": ["a horse stands in a field", "the field"],
        "generated_caption_tags": [["horse", "stand", "field"], ["field"]],
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


def test_a_caption_s_tag_that_the_model_does_not_confirm_is_not_added():
    fields = {"tags": ["pony"], "sources": {"pony": ["parsed"]}}
    captions = [Caption("a horse stands in a field", ["horse", "stand", "field"])]
    confirmed = np.array([label.tag == "field" for label in LABELS])
    out = merge_generated(fields, SYSTEM, PROBABILITIES, {}, captions, confirmed)
    assert out["sources"] == {
        "pony": ["parsed", "generated-caption"],
        "field": ["generated-caption"],
    }
    assert out["generated_caption_tags"] == [["horse", "stand", "field"]]


@pytest.fixture
def generate(command, engine_bundle):
    return partial(command, "generate", "--model", engine_bundle)


def test_tags_are_added_never_removed_and_are_counted(generate, photo_records):
    done = generate("--captions", 0, "--threshold", 0.45, stdin=lines(photo_records))
    out = done.rows
    assert [row["id"] for row in out] == [row["id"] for row in photo_records]
    n_added = 0
    for given, row in zip(photo_records, out, strict=True):
        assert row["tags"][: len(given["tags"])] == given["tags"]
        assert row["mine"] == given["mine"]
        for tag in row["tags"]:
            above = row["scores"][tag] > 0.45
            assert above == ("generated-tag" in row["sources"][tag])
        assert set(row["kinds"]) == set(row["sources"]) == set(row["scores"]) == set(row["tags"])
        n_added += len(row["tags"]) - len(given["tags"])
    assert n_added
    summary = f"tags a record: generated-tag {n_added / len(out):.2f}, parsed 4.00"
    assert summary.encode() in done.stderr


def test_precision_decides_how_many_tags_are_added(command, photo_records):
    """By the embedded model, which has a table of thresholds; 0.8 where none is asked for."""
    generate = partial(command, "generate", "--captions", 0, stdin=lines(photo_records))
    added = [generate("--precision", p).stdout.count(b"generated-tag") for p in (0.95, 0.8, 0.6)]
    assert 0 < added[0] < added[1] < added[2]
    assert generate().stdout == generate("--precision", 0.8).stdout
    refused = generate("--precision", 0.8, "--threshold", 0.5, code=2)
    assert b"leave out --threshold" in refused.stderr


def test_captions_do_not_depend_on_the_batch_the_workers_or_the_neighbours(generate, photo_records):
    arguments = ["--captions", 3]
    whole = generate(*arguments, stdin=lines(photo_records)).rows
    for row in whole:
        texts = row["generated_captions"]
        assert 1 <= len(texts) <= 3
        assert len(set(texts)) == len(texts)
        assert len(row["generated_caption_tags"]) == len(texts)
    again = generate(*arguments, "-j", 2, stdin=lines(photo_records[5:])).rows
    assert again == whole[5:]


@pytest.mark.slow
def test_several_devices_give_what_one_gives_and_count_the_same(generate, photo_records, tmp_path):
    rows = [*photo_records[:3], {"image": "none.jpg", "tags": []}, *photo_records[3:]]
    arguments = ["--captions", 2, "--rejects", "r.jsonl"]
    one = generate(*arguments, stdin=lines(rows), code=3)
    several = [*arguments, "--device", "cpu,cpu"]
    two = generate(*several, stdin=lines(rows), code=3)
    assert two.stdout == one.stdout
    assert json.loads((tmp_path / "r.jsonl").read_bytes())["code"] == "missing_image"
    assert generate("--device", "cpu,gpu0", code=2).stdout == b""
