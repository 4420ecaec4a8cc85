"""`--distill scores:FILE`: a tagger's scores as targets, and missing mentions as evidence."""

from pathlib import Path

import numpy as np
import pytest

from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import Label, LabelSystem
from ramctl.model.preset import load_preset
from ramctl.tagger_scores import TaggerScores
from ramctl.training.data.targets import Annotation, Caption, Targets
from ramctl.training.data.teachers import (
    MentionRates,
    ScoresTeacher,
    SoftTargets,
    TagTargets,
    fit_mention_rates,
    if_unmentioned,
    scores_teachers,
    soft_targets,
)
from tests.training.conftest import write_records

LABELS = LabelSystem([
    Label("dog", synonyms=("hound",), parents=("animal",)), Label("animal"),
    Label("sit", kind="action"), Label("red", kind="attribute"),
])  # fmt: skip


def teacher(folder: Path, *records, text="", **settings):
    path = write_records(folder / f"teacher{len(list(folder.iterdir()))}.jsonl", records)
    path.write_text(path.read_text() + text)
    return ScoresTeacher(path, **settings), TaggerScores.read(path, "train")


def soft_of(taught, rows, labels=LABELS) -> SoftTargets:
    told, scores = taught
    return SoftTargets(told, scores, labels, scores.rows_of(rows))


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


def test_captions_outrank_teachers_and_teachers_outrank_absence(tmp_path):
    labels = LabelSystem([*LABELS, Label("tree"), Label("puppy", parents=("dog", "animal"))])
    scores = teacher(tmp_path, {"image": "a", "scores": {"dog": 0.2, "red": 0.6}}, weight=2.0)
    soft = soft_of(scores, photos("a", "b"), labels)
    targets = Targets(labels)
    config = load_preset("mini", ["training.absent_weight=0.25"]).training
    rates = MentionRates.neutral(len(labels))
    rates.by_captions[1] = 0.5  # of several captions, that is

    def row(tags, negatives=None, number=0, n_human_captions=0):
        captions = (Caption("a", ()),) * n_human_captions
        annotation = Annotation("a", Path(), tags, captions, negatives, ())
        return TagTargets(targets, config, (soft,), rates).row(number, annotation)

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
    captioned = np.array([row(("puppy",), n_human_captions=n)[0] for n in (1, 2)])
    # Half of the captions would have named the red; none is silent on the dog that is a puppy.
    expected = [[0.2, 0.6], [0.2, 0.3 / 0.7]]
    np.testing.assert_allclose(captioned[:, [0, 3]], expected, rtol=1e-6)
    rates.by_teachers[3] = 0.2
    assert row(())[1][3] == 2  # it has seen the red
    scores = teacher(tmp_path, {"image": "a", "scores": {"dog": 0.2, "red": 0.05}}, weight=2.0)
    soft = soft_of(scores, photos("a"), labels)
    # Between a teacher's weight and that of mere absence.
    assert row(())[1][3] == pytest.approx(0.25 + 0.2 * (2 - 0.25))


def test_rates_are_found_where_scores_are_true():
    """Labels are drawn as shown by their scores, then named at known rates."""
    random = np.random.default_rng(0)
    true = np.array([0.95, 0.5, 0.1], np.float32)
    cells = random.integers(0, 3, 60_000)
    scores = random.random(60_000).astype(np.float32)
    is_shown = random.random(60_000) < scores
    is_named = is_shown & (random.random(60_000) < true[cells])
    np.testing.assert_allclose(fit_mention_rates(scores, cells, is_named, 3), true, atol=0.02)


def test_a_label_with_few_photos_takes_the_rate_of_all():
    scores, cells = np.full(1001, 0.99, np.float32), np.array([0] * 1000 + [1])
    is_named = np.arange(1001) < 800
    rates = fit_mention_rates(scores, cells, is_named, 3)
    assert rates[2] == pytest.approx(rates[0], abs=0.02)
    assert rates[1] > 0.6  # one photo that does not name it says little


def test_a_missing_mention_counts_by_how_often_the_label_is_named():
    """By Bayes' rule: 0.9 * 0.05 / (0.9 * 0.05 + 0.1)."""
    shown = np.array([0.9, 0.9, 0.9, 1, 0], np.float32)
    rates = np.array([0, 0.95, 1, 1, 0.5], np.float32)
    np.testing.assert_allclose(
        if_unmentioned(shown, rates), [0.9, 0.045 / 0.145, 0, 0, 0], atol=1e-6
    )


def test_rates_come_from_written_captions_that_name_the_label_itself(tmp_path):
    """Whether captions would name the parent of what they name is anyone's guess."""
    labels = LabelSystem([Label("dog"), Label("puppy", parents=("dog",)), Label("sky")])
    records = [{"image": str(i), "scores": {"dog": 0.9, "sky": 0.9}} for i in range(200)]
    taught = soft_of(teacher(tmp_path, *records), photos(*map(str, range(200))), labels)

    def note(index, generated=False):
        tags = ("puppy",) if index % 2 else ("dog",)
        written = (Caption("a dog", tags, generated),) * (1 if index < 100 else 2)
        return index, Annotation(str(index), Path(), tags, written, None, ())

    rates = MentionRates.learn(map(note, range(200)), Targets(labels), [taught]).by_captions
    assert rates.shape == (2, 3)
    assert (rates[:, 0] > 0.9).all() and (rates[:, 2] < 0.1).all()
    unheard = MentionRates.learn((note(i, True) for i in range(200)), Targets(labels), [taught])
    assert not unheard.by_captions.any()  # what a model leaves out says nothing


def test_a_teacher_that_overlooks_a_label_is_found_out(tmp_path):
    labels = LabelSystem([Label("dog"), Label("hat")])
    scores = [{"dog": 0.9, "hat": 0.9 if i < 10 else 0.05} for i in range(100)]
    records = [{"image": str(i), "scores": own} for i, own in enumerate(scores)]
    taught = soft_of(teacher(tmp_path, *records), photos(*map(str, range(100))), labels)
    tags = ("dog", "hat")
    note = Annotation("", Path(), tags, (Caption("", tags),), None, ())
    learnt = MentionRates.learn(((i, note) for i in range(100)), Targets(labels), [taught])
    # 100 of 100 and 10 of 100, each with five photos of the mean, 0.55.
    np.testing.assert_allclose(learnt.by_teachers, [102.75 / 105, 12.75 / 105], rtol=1e-5)
