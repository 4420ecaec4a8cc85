"""What removes a tag, and what becomes of the record: rules and removals on made-up regions."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from ramctl.data_engine import removals
from ramctl.data_engine.additions import merge_generated, thresholds_to_add
from ramctl.data_engine.evidence import (
    NOT_PREDICTED,
    OUTLIER,
    SCORES,
    Estimate,
    implied_ids,
)
from ramctl.data_engine.region_store import REGION, source_bits
from ramctl.data_engine.removals import (
    DECISION,
    Cleaner,
    Rules,
    decide,
    decide_label,
    removing_rows,
)
from ramctl.errors import UsageProblem
from ramctl.labels import Label, LabelSystem
from ramctl.records.record import Record
from ramctl.records.verdicts import Verdicts


class Regions:
    """Regions of one label in memory, as `RegionIndex` gives them."""

    def __init__(self, scores, sources=None, features=None, counts=None):
        self.table = np.zeros(len(scores), REGION)
        self.table["score"] = scores
        self.table["sources"] = source_bits(["parsed"])
        for place, names in (sources or {}).items():
            self.table["sources"][place] = source_bits(names)
        self.vectors = np.eye(len(scores), 4, dtype=np.float32) if features is None else features
        self._counts = counts

    def counts(self):
        return self._counts

    def rows(self, label):
        return np.arange(len(self.table)) + 100

    def regions(self, rows):
        return self.table[rows - 100]

    def features(self, rows):
        return self.vectors[rows - 100]


# Of all rows of the index, of which a label's come behind 100 others.
ALL_RIGHT = Estimate(np.ones(110, np.float32), np.zeros(110, np.uint8))


def reasons(regions, **rules) -> list[int]:
    return decide_label(0, regions, Rules(0.2, **rules), ALL_RIGHT)["reason"].tolist()


def test_a_region_keeps_its_tag_only_above_the_threshold():
    regions = Regions([0.4, 0.5, 0.6])
    assert reasons(regions, thresholds=(0.5,)) == [NOT_PREDICTED, NOT_PREDICTED, 0]


def test_outliers_and_unseen_regions_have_their_own_reasons():
    features = np.array([[1, 0], [1, 0.01], [1, -0.01], [0, 1]], np.float32)
    regions = Regions([0.9, 0.1, 0.9, 0.1], features=features)
    found = reasons(regions, outliers=0.25, thresholds=(0.5,))
    assert found == [0, NOT_PREDICTED, 0, OUTLIER | NOT_PREDICTED]


def test_tags_of_persons_stay():
    regions = Regions([0.1, 0.1, 0.1], sources={1: ["human", "parsed"], 2: ["generated-tag"]})
    assert reasons(regions, thresholds=(0.5,)) == [NOT_PREDICTED, 0, NOT_PREDICTED]


def test_what_one_caption_names_goes_where_it_is_improbable_even_from_a_tag_s_best_photo():
    estimate = Estimate(np.full(105, 0.1, np.float32), np.full(105, NOT_PREDICTED, np.uint8))
    estimate.probability[102] = 0.3
    sources = {0: ["generated-tag"], 3: ["parsed", "human"]}
    decided = decide_label(0, Regions([0.1] * 5, sources=sources), Rules(0.2), estimate)
    assert decided["reason"].tolist() == [NOT_PREDICTED, NOT_PREDICTED, 0, 0, NOT_PREDICTED]
    assert decided["probability"].tolist() == pytest.approx([0.1, 0.1, 0.3, 0.1, 0.1])
    one = decide_label(0, Regions([0.1]), Rules(0.2), estimate)
    assert one["reason"].tolist() == [NOT_PREDICTED]


def test_the_likeliest_regions_of_a_tag_stay_that_it_can_be_learnt():
    regions = Regions([0.1] * 4, sources={place: ["generated-tag"] for place in range(4)})
    right = np.r_[np.zeros(100), 0.02, 0.15, 0.01, 0.15].astype(np.float32)
    estimate = Estimate(right, np.full(104, SCORES, np.uint8))

    def removed(**rules) -> list[int]:
        return np.flatnonzero(decide_label(0, regions, Rules(**rules), estimate)["reason"]).tolist()

    assert removed(min_probability=0.2, min_regions=1) == [0, 2, 3]
    assert removed(min_probability=0.2, min_regions=3) == [2]
    assert removed(min_probability=0.2, min_regions=4) == []
    # A rule that was asked for does what it says.
    assert reasons(regions, thresholds=(0.5,), min_regions=4) == [NOT_PREDICTED] * 4


def test_what_is_decided_is_not_decided_again(tmp_path, monkeypatch):
    regions = Regions([0.9] * 5, counts={1: 5, 2: 5, 3: 5})
    rules = Rules(0.2)
    decided = []
    plain = removals.decide_label
    monkeypatch.setattr(
        removals, "decide_label", lambda label, *rest: decided.append(label) or plain(label, *rest)
    )
    work = SimpleNamespace(path=tmp_path)

    with pytest.raises(KeyboardInterrupt):
        decide(work, regions, rules, lambda: ALL_RIGHT, Mock(side_effect=KeyboardInterrupt))
    assert decided == [1]
    decide(work, regions, rules, lambda: ALL_RIGHT)
    assert decided == [1, 2, 3]


def test_a_tag_goes_by_any_of_the_rules():
    features = np.array([[1, 0], [1, 0.01], [1, -0.01], [0, 1]], np.float32)
    sources = {place: ["generated-tag"] for place in range(4)}
    regions = Regions([0.1, 0.9, 0.9, 0.9], sources=sources, features=features)
    right = np.r_[np.zeros(100), 0.9, 0.1, 0.9, 0.1].astype(np.float32)
    estimate = Estimate(right, np.full(104, SCORES, np.uint8))
    rules = Rules(0.2, outliers=0.25, thresholds=(0.5,))
    found = decide_label(0, regions, rules, estimate)["reason"].tolist()
    assert found == [NOT_PREDICTED, SCORES, 0, SCORES | OUTLIER]


def decision(rows, reason, distance=0.25, probability=0.5) -> np.ndarray:
    decided = np.zeros(len(rows), DECISION)
    decided["row"], decided["reason"], decided["distance"] = rows, reason, distance
    decided["probability"] = probability
    return decided


def test_removals_are_those_with_a_reason_in_order_of_rows():
    removals = removing_rows(
        [decision([3, 9], [OUTLIER, 0]), decision([1, 5], [NOT_PREDICTED, OUTLIER])]
    )
    assert removals["row"].tolist() == [1, 3, 5]
    assert removals["reason"].tolist() == [NOT_PREDICTED, OUTLIER, OUTLIER]
    assert removals["distance"].tolist() == [0.25] * 3
    assert len(removing_rows([])) == 0


PEOPLE = LabelSystem(
    [
        Label("boy", parents=("child", "person")),
        Label("child", parents=("person",)),
        Label("person"),
        Label("sky"),
    ]
)


@pytest.mark.parametrize(
    ("lost", "verdicts", "stays"),
    [
        (["person", "sky"], {}, ["boy", "child", "person"]),
        (["child", "person"], {}, ["boy", "child", "person", "sky"]),
        (["boy", "person"], {}, ["child", "person", "sky"]),  # by the child
        (["boy", "child", "person"], {}, ["sky"]),
        (["person"], {"person": "remove"}, ["boy", "child", "sky"]),
        (["person"], {"boy": "remove", "child": "remove"}, ["sky"]),
        (["boy", "child", "person"], {"boy": "keep"}, ["boy", "child", "person", "sky"]),
    ],
)
def test_what_other_tags_imply_stays_beside_them(lost, verdicts, stays):
    tags = ["boy", "child", "person", "sky"]
    regions = np.zeros(4, REGION)
    regions["place"] = range(4)
    index = SimpleNamespace(at_input=lambda position: (0, regions))
    rows = [tags.index(tag) for tag in lost]
    by_image = Verdicts({"a.jpg": verdicts})
    cleaner = Cleaner(index, removing_rows([decision(rows, [16] * len(rows))]), by_image, PEOPLE)
    cleaned = cleaner(Record({"image": "a.jpg", "tags": list(tags)}, key="0"))
    assert cleaned["tags"] == stays
    reasons = (
        {entry["tag"]: entry["reason"] for entry in cleaned["removed"]} if stays != tags else {}
    )
    assert set(reasons) == set(tags) - set(stays)
    assert {reasons[tag] for tag in reasons if tag not in verdicts} <= {"improbable"}


def test_labels_without_parents_have_those_of_the_embedded_model(monkeypatch):
    built = LabelSystem.from_tags(["boy", "person"])  # as `train` builds them of tags
    monkeypatch.setattr("ramctl.data_engine.evidence.known_labels", lambda: PEOPLE)
    assert implied_ids(["boy"], built) == {1}
    assert implied_ids(["person", "unheard of"], built) == set()


def test_a_record_loses_its_tags_with_reasons_and_keeps_earlier_ones():
    regions = np.zeros(2, REGION)
    regions["place"], regions["score"] = [0, 2], [0.75, 0.123456]
    index = SimpleNamespace(at_input=lambda position: (10 * position, regions))
    # Of rows 10 and 11 it is the last one; 9 and 12 are of others, and 20 is the next one's first.
    cleaner = Cleaner(index, removing_rows([decision([9, 11, 12, 20], [OUTLIER] * 4, 0.33335)]))
    fields = {
        "tags": ["horse", "sky", "tree"],
        "sources": {"horse": ["parsed"], "sky": ["parsed"], "tree": ["parsed", "generated-tag"]},
        "removed": [{"tag": "old"}],
    }
    cleaned = cleaner(Record(fields, key="1"))
    assert cleaned["tags"] == ["horse", "sky"]
    assert list(cleaned["sources"]) == ["horse", "sky"]
    assert [entry["tag"] for entry in cleaned["removed"]] == ["old", "tree"]
    assert cleaned["removed"][1] == {
        "tag": "tree", "reason": "outlier", "box": [0.0] * 4, "score": 0.1235,
        "distance": pytest.approx(0.3334, abs=1.1e-4), "chance": 0.5,
    }  # fmt: skip
    assert cleaner.reasons == {"outlier": 1}
    assert cleaner.before == {"tags": 3, "parsed": 3, "generated-tag": 1}
    assert cleaner.after == {"tags": 2, "parsed": 2}
    assert cleaner(Record({"tags": ["a", "b", "c"]}, key="2"))["tags"] == ["b", "c"]
    assert "removed" not in cleaner(Record({"tags": ["a", "b", "c"]}, key="3"))


LABELS = LabelSystem([
    Label("horse", synonyms=("pony",)), Label("field", "scene"),
    Label("train"), Label("train", "action"),
])  # fmt: skip
PROBABILITIES = np.array([0.9, 0.8, 0.3, 0.7], np.float32)


def test_a_string_with_several_ids_scores_their_maximum():
    merged = merge_generated({"tags": ["train"]}, LABELS, PROBABILITIES, (), None, None)
    assert merged["scores"] == {"train": 0.7}


def test_thresholds_are_numbers_files_or_the_model_s_own(tmp_path):
    facts = {"labels": LABELS, "threshold": 0.4, "thresholds": [0.4] * 4}
    bundle = SimpleNamespace(**facts, has=lambda name: False)
    path = tmp_path / "thresholds.jsonl"
    path.write_text('{"tag": "horse", "threshold": 0.9}\n')
    assert thresholds_to_add(None, None, bundle) == [0.4] * 4
    assert thresholds_to_add(str(path), None, bundle) == [0.9, 0.4, 0.4, 0.4]
    for text in ("0", "1"):
        assert thresholds_to_add(text, None, bundle) == [float(text)] * 4
    with pytest.raises(UsageProblem, match="not between 0 and 1"):
        thresholds_to_add("1.5", None, bundle)
