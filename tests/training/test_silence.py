"""What captions' silence says: mention rates learnt from photos that a teacher saw."""

import json
from pathlib import Path

import numpy as np
import pytest

from ramctl.evaluation.matching import Photo
from ramctl.evaluation.tagger_scores import TaggerScores
from ramctl.labels import Label, LabelSystem
from ramctl.training.data.annotations import Annotation, Caption
from ramctl.training.data.silence import Silence, mention_rates, unsaid
from ramctl.training.data.targets import Targets
from ramctl.training.data.teacher_scores import ScoresTeacher, SoftTargets


def test_rates_are_found_where_scores_are_true():
    """Labels are drawn as shown by their scores, then named at known rates."""
    random = np.random.default_rng(0)
    true = np.array([0.95, 0.5, 0.1], np.float32)
    cells = random.integers(0, 3, 60_000)
    scores = random.random(60_000).astype(np.float32)
    is_shown = random.random(60_000) < scores
    is_named = is_shown & (random.random(60_000) < true[cells])
    np.testing.assert_allclose(mention_rates(scores, cells, is_named, 3), true, atol=0.02)


def test_a_label_with_few_photos_takes_the_rate_of_all():
    scores, cells = np.full(1001, 0.99, np.float32), np.array([0] * 1000 + [1])
    is_named = np.arange(1001) < 800
    rates = mention_rates(scores, cells, is_named, 3)
    assert rates[2] == pytest.approx(rates[0], abs=0.02)
    assert rates[1] > 0.6  # one photo that does not name it says little


def test_silence_counts_by_how_often_the_label_is_named():
    """By Bayes' rule: 0.9 * 0.05 / (0.9 * 0.05 + 0.1)."""
    shown = np.array([0.9, 0.9, 0.9, 1, 0], np.float32)
    rates = np.array([0, 0.95, 1, 1, 0.5], np.float32)
    np.testing.assert_allclose(unsaid(shown, rates), [0.9, 0.045 / 0.145, 0, 0, 0], atol=1e-6)


def test_rates_come_from_written_captions_that_name_the_label_itself(tmp_path):
    """Whether captions would name the parent of what they name is anyone's guess."""
    labels = LabelSystem([Label("dog"), Label("puppy", parents=("dog",)), Label("sky")])
    path = tmp_path / "teacher.jsonl"
    records = [{"image": str(i), "scores": {"dog": 0.9, "sky": 0.9}} for i in range(200)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    scores = TaggerScores.read(path, "train")
    photos = [Photo(str(i), Path()) for i in range(200)]
    teacher = SoftTargets(ScoresTeacher(path), scores, labels, scores.rows_of(photos))

    def note(index, generated=False):
        tags = ("puppy",) if index % 2 else ("dog",)
        written = (Caption("a dog", tags, generated),) * (1 if index < 100 else 2)
        return index, Annotation(str(index), Path(), tags, written, None, ())

    rates = Silence.learn(map(note, range(200)), Targets(labels), [teacher]).mentioned
    assert rates.shape == (2, 3)
    assert (rates[:, 0] > 0.9).all() and (rates[:, 2] < 0.1).all()
    unheard = Silence.learn((note(i, True) for i in range(200)), Targets(labels), [teacher])
    assert not unheard.mentioned.any()  # what a model leaves out says nothing


def test_a_teacher_that_overlooks_a_label_is_found_out(tmp_path):
    labels = LabelSystem([Label("dog"), Label("hat")])
    path = tmp_path / "teacher.jsonl"
    records = [
        {"image": str(i), "scores": {"dog": 0.9, "hat": 0.9 if i < 10 else 0.05}}
        for i in range(100)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    scores = TaggerScores.read(path, "train")
    rows = scores.rows_of([Photo(str(i), Path()) for i in range(100)])
    teacher = SoftTargets(ScoresTeacher(path), scores, labels, rows)
    tags = ("dog", "hat")
    note = Annotation("", Path(), tags, (Caption("", tags),), None, ())
    learnt = Silence.learn(((i, note) for i in range(100)), Targets(labels), [teacher])
    # 100 of 100 and 10 of 100, each with five photos of the mean, 0.55.
    np.testing.assert_allclose(learnt.noticed, [102.75 / 105, 12.75 / 105], rtol=1e-5)
