"""How a label system is built, and how tags become targets."""

import numpy as np
import pytest

from ramctl.errors import RecordProblem, RunProblem
from ramctl.labels import Label, LabelSystem
from ramctl.records.record import Record
from ramctl.training.data.annotations import Caption, read_annotation, require_tags
from ramctl.training.data.targets import TagCounts, Targets, append_labels, build_labels


def counts_of(records: list[dict]) -> TagCounts:
    counts = TagCounts()
    for fields in records:
        record = Record({"image": "x.jpg", **fields})
        counts.add(record, read_annotation(record))
    return counts


def test_few_records_take_tags_named_twice_most_frequent_first():
    counts = counts_of(
        [{"tags": ["dog", "red"]}, {"tags": ["red", "cat"]}, {"tags": ["cat", "red"]}]
    )
    labels = build_labels(counts)
    assert [(label.tag, label.count) for label in labels] == [("red", 3), ("cat", 2)]


def test_many_records_ask_for_five_mentions():
    counts = counts_of([{"tags": ["dog"]}] * 995 + [{"tags": ["cat"]}] * 4 + [{"tags": []}])
    assert build_labels(counts).tags == ["dog"]
    counts = counts_of([{"tags": ["dog"]}] * 995 + [{"tags": ["cat"]}] * 5)
    assert build_labels(counts).tags == ["dog", "cat"]


def test_spellings_of_a_tag_are_one_label_with_its_most_frequent_kind():
    counts = counts_of(
        [
            {"tags": ["T-Shirt"], "kinds": {"T-Shirt": "object"}},
            {"tags": ["t shirt"], "kinds": {"t shirt": "object"}},
            {"tags": ["t shirt"], "kinds": {"t shirt": "attribute"}},
        ]
    )
    (label,) = build_labels(counts)
    assert (label.tag, label.kind, label.count) == ("t shirt", "object", 3)


def test_at_most_five_thousand_labels_are_built():
    counts = counts_of([{"tags": [f"tag {i}" for i in range(5100)]}] * 2)
    assert len(build_labels(counts)) == 5000


def test_no_tag_often_enough_is_an_error_that_says_so():
    with pytest.raises(RunProblem, match="no tag is named in 2 records"):
        build_labels(counts_of([{"tags": ["dog"]}]))


def test_appended_labels_keep_the_old_ids(tmp_path):
    (tmp_path / "more.txt").write_text("dog\nheron\n")
    labels = append_labels(LabelSystem([Label("cat"), Label("dog")]), tmp_path / "more.txt")
    assert labels.tags == ["cat", "dog", "heron"]


LABELS = LabelSystem(
    [Label("dog", synonyms=("puppy",)), Label("red"), Label("grass"), Label("run")]
)


def target_of(**fields):
    return Targets(LABELS).of(read_annotation(Record({"image": "x.jpg", **fields})))


def test_targets_are_ids_of_tags_and_synonyms_and_leave_others_out():
    target = target_of(tags=["puppy", "Grass", "spaceship", "dog"])
    assert target.present.tolist() == [0, 2]
    assert target.unknown.tolist() == []
    outside = Targets(LABELS).outside(counts_of([{"tags": ["ufo", "dog"]}, {"tags": ["ufo"]}]).tags)
    assert outside == (1, 2)


def test_uncertain_tags_and_tags_beside_verified_negatives_are_unknown():
    assert target_of(tags=["dog"], uncertain=["red", "dog"]).unknown.tolist() == [1]
    assert target_of(tags=["dog"], negatives=["run"]).unknown.tolist() == [1, 2]


def test_tags_of_one_caption_of_several_are_doubtful():
    fields = {"tags": ["dog", "red", "run"], "captions": ["a", "b"]}
    target = target_of(**fields, caption_tags=[["dog", "red"], ["dog"]])
    assert target.doubtful.tolist() == [1]
    assert target_of(**fields).doubtful.tolist() == []


def test_a_caption_that_a_model_wrote_confirms_but_raises_no_doubt():
    fields = {
        "tags": ["dog", "red"],
        "generated_captions": ["c"],
        "generated_caption_tags": [["red"]],
    }
    one = target_of(**fields, captions=["a"], caption_tags=[["dog"]])
    assert one.doubtful.tolist() == []
    two = target_of(**fields, captions=["a", "b"], caption_tags=[["dog"], ["red"]])
    assert two.doubtful.tolist() == [0]


def test_captions_are_guided_by_their_own_tags_that_the_record_still_has():
    annotation = read_annotation(
        Record(
            {
                "image": "x.jpg",
                "tags": ["dog", "grass"],
                "captions": ["a red puppy", "grass"],
                "caption_tags": [["dog", "red"], ["grass"]],
                "generated_captions": ["a dog on grass"],
            }
        )
    )
    assert [(c.text, c.tags) for c in annotation.captions] == [
        ("a red puppy", ("dog",)),
        ("grass", ("grass",)),
        ("a dog on grass", ("dog", "grass")),
    ]
    assert Targets(LABELS).guiding_tags(annotation.captions[2]) == ["dog", "grass"]


def test_guiding_tags_come_as_they_are_named_or_as_the_labels_stand():
    targets = Targets(LabelSystem.from_tags(["grass", "dog", "ball"]))
    caption = Caption("a ball, a dog on grass", ("ball", "dog", "grass", "ball"))
    assert targets.guiding_tags(caption) == ["ball", "dog", "grass"]
    assert targets.guiding_tags(caption, in_label_order=True) == ["grass", "dog", "ball"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tags": ["dog"]}, "missing_field"),
        ({"image": "x.jpg"}, "missing_field"),
        ({"image": "x.jpg", "tags": "dog"}, "bad_field"),
        ({"image": "x.jpg", "tags": [], "captions": ["a"], "caption_tags": []}, "bad_field"),
        ({"image": "x.jpg", "tags": [], "captions": ["a"], "caption_tags": ["b"]}, "bad_field"),
    ],
)
def test_records_that_cannot_teach_are_rejected(fields, code):
    with pytest.raises(RecordProblem) as caught:
        require_tags(read_annotation(Record(fields)))
    assert caught.value.code == code


def test_target_arrays_are_sorted_and_unique():
    assert np.array_equal(target_of(tags=["run", "dog", "run"]).present, [0, 3])
