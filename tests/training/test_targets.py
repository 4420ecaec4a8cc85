"""What a record says about each label, and how many records name it."""

from collections import Counter
from pathlib import Path

import numpy as np

from ramctl.labels import Label, LabelSystem
from ramctl.records.record import Record
from ramctl.training.data.annotations import Annotation, Caption, read_annotation
from ramctl.training.data.targets import TagCounts, Targets, append_labels, build_labels

LABELS = LabelSystem([Label("dog", synonyms=("puppy",)), Label("cat"), Label("sky"), Label("sea")])


def target(tags=(), captions=(), negatives=None, uncertain=()):
    return Targets(LABELS).of(
        Annotation("x.jpg", Path(), tuple(tags), tuple(captions), negatives, tuple(uncertain))
    )


def written(*tags, generated=False) -> Caption:
    return Caption("text", tags, generated)


def test_a_tag_that_is_present_and_uncertain_is_known():
    found = target(["puppy"], uncertain=["dog", "cat", "zebra"])
    assert found.present.tolist() == [0]
    assert found.unknown.tolist() == [1]
    assert target(["dog"]).unknown.tolist() == []


def test_beside_negatives_only_what_is_listed_is_known():
    assert target(["dog"], negatives=("sky",)).unknown.tolist() == [1, 3]
    assert target(["dog"], negatives=()).unknown.tolist() == [1, 2, 3]


def test_a_label_in_one_of_several_written_captions_is_doubtful():
    both = [written("dog", "sky"), written("puppy", "cat")]
    assert target(captions=both).doubtful.tolist() == [1, 2]
    assert target(captions=both[:1]).doubtful.tolist() == []
    confirmed = [*both, written("cat", generated=True)]
    assert target(captions=confirmed).doubtful.tolist() == [2]
    one = [written("dog"), written("cat", generated=True)]
    assert target(captions=one).doubtful.tolist() == []


def test_a_label_that_only_the_data_engine_gave_is_doubtful():
    sources = {"dog": ["parsed"], "cat": ["generated-tag"], "sky": ["generated-caption", "parsed"]}
    fields = {"image": "x.jpg", "tags": ["dog", "cat", "sky", "sea"], "sources": sources}

    def doubtful(**more):
        record = Record({**fields, **more})
        return Targets(LABELS).of(read_annotation(record)).doubtful.tolist()

    assert doubtful() == [1]
    captions = {"captions": ["a", "b"], "caption_tags": [["dog", "sky"], ["dog"]]}
    assert doubtful(**captions) == [1, 2]
    assert doubtful(sources="of another program") == []
    assert doubtful(tags=["dog", "puppy"], sources={"puppy": ["generated-tag"]}) == []


def test_mentions_of_a_label_and_its_synonyms_add_up():
    counts = Targets(LABELS).counts(Counter({"dog": 3, "puppy": 2, "sea": 1, "zebra": 9}))
    np.testing.assert_array_equal(counts, [5, 0, 0, 1])
    assert Targets(LABELS).outside(Counter({"dog": 3, "zebra": 9, "yak": 1})) == (2, 10)


def test_labels_are_built_by_frequency_then_name_with_their_commonest_kind():
    kinds = Counter({("b", "scene"): 2, ("b", "object"): 1, ("a", "action"): 1})
    built = build_labels(TagCounts(10, Counter(a=2, b=2, c=3, d=1), kinds))
    assert [(label.tag, label.kind, label.count) for label in built] == [
        ("c", "object", 3), ("a", "action", 2), ("b", "scene", 2),
    ]  # fmt: skip


def test_only_new_labels_are_appended(tmp_path):
    (tmp_path / "more.txt").write_text("puppy\nyak\n")
    assert append_labels(LABELS, tmp_path / "more.txt").tags == ["dog", "cat", "sky", "sea", "yak"]
