"""`--distill scores:FILE`: a tagger's scores as targets."""

from pathlib import Path

import numpy as np
import pytest

from ramctl.errors import RunProblem, UsageProblem
from ramctl.evaluation.tagger_scores import TaggerScores
from ramctl.records.labels import Label, Labels
from ramctl.training.annotations import Annotation
from ramctl.training.data import Targets
from ramctl.training.teachers import ScoresTeacher, SoftTargets, scores_teachers, soft_targets
from tests.training.conftest import write_records

LABELS = Labels([
    Label("dog", synonyms=("hound",), parents=("animal",)), Label("animal"),
    Label("sit", kind="action"), Label("red", kind="attribute"),
])  # fmt: skip


def teacher(folder: Path, *records, text="", **settings):
    path = write_records(folder / f"teacher{len(list(folder.iterdir()))}.jsonl", records)
    path.write_text(path.read_text() + text)
    return ScoresTeacher(path, **settings), TaggerScores.read(path, "train")


def soft_of(taught, rows, labels=LABELS) -> SoftTargets:
    told, scores = taught
    return SoftTargets(told, scores, scores.rows_of(rows), labels)


def photos(*names):
    return list(names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scores:t.jsonl", ScoresTeacher(Path("t.jsonl"))),
        ("scores:a/t.jsonl,weight=0.5", ScoresTeacher(Path("a/t.jsonl"), 0.5)),
        ("scores:t.jsonl,map=m.tsv,weight=2", ScoresTeacher(Path("t.jsonl"), 2.0, Path("m.tsv"))),
    ],
)
def test_the_forms_of_the_option(text, expected):
    assert scores_teachers(["caption", text, "imagenet"]) == [expected]


@pytest.mark.parametrize(
    "text",
    ["scores:", "scores:t,weight=0", "scores:t,weight=much", "scores:t,map=", "scores:t,m=1"],
)
def test_another_form_is_refused(text):
    with pytest.raises(UsageProblem, match=r"expected scores:FILE\[,weight=W\]\[,map=FILE\]"):
        scores_teachers([text])


def test_names_are_labels_by_their_own_name_synonyms_and_the_map(tmp_path):
    mapping = tmp_path / "map.tsv"
    mapping.write_text("sit\tsitting|seated\n")
    scores = teacher(
        tmp_path,
        {"image": "a.jpg", "scores": {"hound": 0.7, "Dog": 0.4, "sitting": 0.3, "seated": 0.9}},
        {"image": "b.jpg", "scores": {"submarine": 0.9}},
        map=mapping,
    )
    soft = soft_of(scores, photos("b.jpg", "c.jpg", "a.jpg"))
    assert [LABELS[i].tag for i in soft.known] == ["dog", "sit"]
    assert soft.of(0).tolist() == [0, 0]  # it knows both, and sees neither
    assert soft.of(1) is None
    np.testing.assert_allclose(soft.of(2), [0.7, 0.9])


def test_several_teachers_are_averaged_by_weight(tmp_path):
    one = teacher(tmp_path, {"image": "a", "scores": {"dog": 0.8, "red": 0.5}})
    two = teacher(tmp_path, {"image": "a", "scores": {"dog": 0.2}}, weight=3.0)
    softs = [soft_of(scores, photos("a")) for scores in (one, two)]
    targets, weights = soft_targets(softs, 0, len(LABELS))
    np.testing.assert_allclose(targets, [(0.8 + 3 * 0.2) / 4, 0, 0, 0.5], rtol=1e-6)
    assert weights.tolist() == [4, 0, 0, 1]


def test_photos_meet_by_base_name_as_in_eval(tmp_path):
    _, scores = teacher(tmp_path, {"image": "elsewhere/a.jpg", "scores": {"dog": 1}})
    assert scores.rows_of(photos("photos.tar#a.jpg", "b.jpg")).tolist() == [0, -1]


def test_tags_without_scores_are_certain(tmp_path):
    scores = teacher(tmp_path, {"image": "a", "tags": ["dog"]})
    assert soft_of(scores, photos("a")).of(0).tolist() == [1]


@pytest.mark.parametrize("line", ["{", '{"image": "a"}\n', '{"image": "a", "scores": [1]}\n'])
def test_a_bad_line_is_named(tmp_path, line):
    with pytest.raises(RunProblem, match=r"teacher0\.jsonl:2: "):
        teacher(tmp_path, {"image": "z", "scores": {"dog": 0.5}}, text=line)


def test_a_teacher_that_names_no_label_is_one_line(tmp_path):
    scores = teacher(tmp_path, {"image": "a", "scores": {"submarine": 0.5}})
    with pytest.raises(RunProblem, match="names none of the labels"):
        soft_of(scores, photos("a"))


def test_records_outrank_teachers_and_teachers_outrank_absence(tmp_path):
    labels = Labels([*LABELS, Label("tree"), Label("puppy", parents=("dog", "animal"))])
    scores = teacher(tmp_path, {"image": "a", "scores": {"dog": 0.2, "red": 0.6}}, weight=2.0)
    soft = soft_of(scores, photos("a", "b"), labels)
    targets = Targets(labels, 0.25, (soft,))

    def row(tags, negatives=None, number=0):
        return targets.row(number, Annotation("a", tags, (), negatives))

    rows = [row(("puppy",)), row(("dog",)), row(("puppy",), number=1), row((), ("red",))]
    # dog, animal, sit, red, tree, puppy
    expected = [
        [0.2, 0, 0, 0.6, 0, 1],
        [1, 0, 0, 0.6, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [0.2, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose([shown for shown, _ in rows], expected, rtol=1e-6)
    assert [weights.tolist() for _, weights in rows] == [
        # The ancestors of a puppy: the teacher knows one, no one the other.
        [2, 0, 0.25, 2, 0.25, 1],
        [1, 0, 0.25, 2, 0.25, 0.25],
        [0, 0, 0.25, 0.25, 0.25, 1],
        [2, 0, 0, 1, 0, 0],  # with verified negatives all else is unknown, but for the teacher
    ]
