"""How a label system is built, and what a record says about each label."""

from collections import Counter

import numpy as np
import pytest

from ramctl.errors import RunProblem
from ramctl.records.labels import Label, Labels
from ramctl.records.record import kinds_of
from ramctl.training.annotations import TagCounts, build_labels, read_annotation
from ramctl.training.data import ABSENT, DENIED, PRESENT, UNKNOWN, Targets
from tests.support import problem_of

LABELS = Labels([Label("dog", synonyms=("puppy",)), Label("cat"), Label("sky"), Label("sea")])


def read(**fields):
    return read_annotation({"image": "x.jpg", **fields})


def counts_of(records: list[dict]) -> TagCounts:
    counts = TagCounts()
    for fields in records:
        counts.add(read(**fields), kinds_of(fields))
    return counts


def states(*tags: str, **fields) -> list[int]:
    return Targets(LABELS).states(read(tags=list(tags), **fields)).tolist()


def test_many_records_ask_for_five_mentions():
    counts = counts_of([{"tags": ["dog"]}] * 995 + [{"tags": ["cat"]}] * 4 + [{"tags": []}])
    assert build_labels(counts).tags == ["dog"]
    counts = counts_of([{"tags": ["dog"]}] * 995 + [{"tags": ["cat"]}] * 5)
    assert build_labels(counts).tags == ["dog", "cat"]


def test_at_most_five_thousand_labels_are_built():
    counts = counts_of([{"tags": [f"tag {i}" for i in range(5100)]}] * 2)
    assert len(build_labels(counts)) == 5000


def test_no_tag_often_enough_is_an_error_that_says_so():
    with pytest.raises(RunProblem, match="no tag is named in 2 records"):
        build_labels(counts_of([{"tags": ["dog"]}]))


def test_labels_are_built_of_all_spellings_by_frequency_then_name_with_their_commonest_kind():
    tags = [
        ("B-B", "scene"), ("b b", "scene"), ("b b", "object"), ("a", "action"), ("a", "action"),
        ("a", "object"), *[("c", "object")] * 3, ("c", "scene"), ("d", "object"),
    ]  # fmt: skip
    counts = counts_of([{"tags": [tag], "kinds": {tag: kind}} for tag, kind in tags])
    assert [(label.tag, label.kind, label.count) for label in build_labels(counts)] == [
        ("c", "object", 4), ("a", "action", 3), ("b b", "scene", 3),
    ]  # fmt: skip


def test_only_new_labels_are_appended(tmp_path):
    (tmp_path / "more.txt").write_text("puppy\nsky\nyak\n")
    more = Labels.read(tmp_path / "more.txt")
    assert LABELS.extended(more).tags == ["dog", "cat", "sky", "sea", "yak"]


def test_mentions_of_a_label_and_its_synonyms_add_up():
    tags = Counter({"dog": 3, "puppy": 2, "sea": 1, "zebra": 9, "yak": 1})
    counts, *outside = Targets(LABELS).counts(tags)
    np.testing.assert_array_equal(counts, [5, 0, 0, 1])
    assert outside == [2, 10]


def test_labels_are_present_by_tags_and_synonyms_and_absent_where_nothing_is_said():
    assert states("Sky", "puppy", "spaceship", "dog") == [PRESENT, ABSENT, PRESENT, ABSENT]


def test_a_tag_that_is_present_and_uncertain_is_known():
    expected = [PRESENT, UNKNOWN, ABSENT, ABSENT]
    assert states("puppy", uncertain=["dog", "cat", "zebra"]) == expected


def test_beside_negatives_only_what_is_listed_is_known():
    assert states("dog", negatives=["sky"]) == [PRESENT, UNKNOWN, DENIED, UNKNOWN]
    assert states("dog", negatives=[]) == [PRESENT, UNKNOWN, UNKNOWN, UNKNOWN]
    note = read(tags=["dog"], negatives=["sky"])
    assert Targets(LABELS).truth(note).tolist() == [1, -1, 0, -1]


def test_where_a_person_decided_on_a_models_tags_the_others_are_unknown():
    fields = {"scores": {"dog": 0.9, "cat": 0.8, "sea": 0.7}}
    found = states("dog", "cat", "sea", **fields, confirmed=["puppy"], refused=["cat"])
    assert found == [PRESENT, DENIED, UNKNOWN, UNKNOWN]
    # Beside tags of her own, what is not decided is unknown too.
    assert states("sky", refused=["cat"]) == [UNKNOWN, DENIED, PRESENT, UNKNOWN]


def test_captions_are_guided_by_their_own_tags_that_the_record_still_has():
    fields = {
        "tags": ["dog", "sky"], "captions": ["a red puppy", "sky"],
        "caption_tags": [["dog", "red"], ["sky"]], "generated_captions": ["a dog below the sky"],
    }  # fmt: skip
    annotation = read(**fields)
    assert [(c.text, c.tags) for c in annotation.captions] == [
        ("a red puppy", ("dog",)), ("sky", ("sky",)), ("a dog below the sky", ("dog", "sky")),
    ]  # fmt: skip
    assert Targets(LABELS).guiding_tags(annotation.captions[2]) == ["dog", "sky"]
    assert counts_of([fields]).n_captions == 3


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tags": ["dog"]}, "missing_field"),
        ({"image": "x.jpg"}, "missing_field"),
        ({"image": "x.jpg", "tags": [], "captions": ["a"], "caption_tags": []}, "bad_field"),
    ],
)
def test_records_that_cannot_teach_are_rejected(fields, code):
    problem = problem_of(lambda: read_annotation(fields).require_tags())
    assert problem.code == code
