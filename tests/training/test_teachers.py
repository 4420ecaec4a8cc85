"""Teachers: a tagger's scores as targets, CLIP's image features."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ramctl.errors import RunProblem
from ramctl.evaluation.tagger_scores import TaggerScores
from ramctl.model.preset import load_preset
from ramctl.records.labels import Label, Labels
from ramctl.training.annotations import Annotation
from ramctl.training.data import Targets
from ramctl.training.teachers import (
    ClipTeacher,
    SoftTargets,
    soft_targets,
)
from tests.training.conftest import write_records

LABELS = Labels([
    Label("dog", synonyms=("hound",), parents=("animal",)), Label("animal"),
    Label("sit", kind="action"), Label("red", kind="attribute"),
])  # fmt: skip


def teacher(folder: Path, *records) -> TaggerScores:
    path = write_records(folder / f"teacher{len(list(folder.iterdir()))}.jsonl", records)
    return TaggerScores.read(path, "train")


def soft_of(scores: TaggerScores, *photos, labels=LABELS) -> SoftTargets:
    return SoftTargets(scores, scores.rows_of(photos), labels)


def test_names_are_labels_by_their_own_name_and_synonyms(tmp_path):
    scores = teacher(
        tmp_path,
        {"image": "a.jpg", "scores": {"hound": 0.7, "Dog": 0.4, "sit": 0.9}},
        {"image": "b.jpg", "scores": {"submarine": 0.9}},
    )
    soft = soft_of(scores, "b.jpg", "c.jpg", "a.jpg")
    assert [LABELS[i].tag for i in soft.known] == ["dog", "sit"]
    assert soft.of(0).tolist() == [0, 0]  # it knows both, and sees neither
    assert soft.of(1) is None
    np.testing.assert_allclose(soft.of(2), [0.7, 0.9])


def test_several_teachers_are_averaged_and_one_named_twice_counts_twice(tmp_path):
    one = teacher(tmp_path, {"image": "a", "scores": {"dog": 0.8, "red": 0.5}})
    two = teacher(tmp_path, {"image": "a", "scores": {"dog": 0.2}})
    softs = [soft_of(scores, "a") for scores in (one, two, two, two)]
    targets, weights = soft_targets(softs, 0, len(LABELS))
    np.testing.assert_allclose(targets, [(0.8 + 3 * 0.2) / 4, 0, 0, 0.5], rtol=1e-6)
    assert weights.tolist() == [4, 0, 0, 1]


def test_a_teacher_that_names_no_label_is_one_line(tmp_path):
    scores = teacher(tmp_path, {"image": "a", "scores": {"submarine": 0.5}})
    with pytest.raises(RunProblem, match="names none of the labels"):
        soft_of(scores, "a")


def test_records_outrank_teachers_and_teachers_outrank_absence(tmp_path):
    labels = Labels([*LABELS, Label("tree"), Label("puppy", parents=("dog", "animal"))])
    scores = teacher(tmp_path, {"image": "a", "scores": {"dog": 0.2, "red": 0.6}})
    soft = soft_of(scores, "a", "b", labels=labels)
    targets = Targets(labels, 0.25, (soft, soft))

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


def test_the_teacher_sees_the_student_s_crop_in_its_own_normalisation(clip):
    from transformers import CLIPModel

    preprocess = load_preset("tiny").preprocess
    teacher = ClipTeacher(clip, preprocess)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
    given = teacher.photo_features((pixels - mean) / std)
    clip_mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    clip_std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    model = CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=(pixels - clip_mean) / clip_std).pooler_output
        expected = model.visual_projection(pooled)
    assert torch.allclose(given, expected, atol=1e-5)
