"""Predictions of other systems, in the forms in which those write them."""

import shutil
from pathlib import Path

import pytest
import torch

from ramctl.errors import RunProblem

DATA = Path(__file__).parents[1] / "data"
PHOTOS = ["photos/pasture.jpg", "photos/ore-train.jpg"]
TRUTH = [{"image": PHOTOS[0], "tags": ["mountain"]}, {"image": PHOTOS[1], "tags": ["train", "sky"]}]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *(("google", 0), ("google-batch.json", 3), ("microsoft.jsonl", 3), ("aws", 0)),
        *(("apple.jsonl", 0), ("fiftyone", 0), ("fiftyone-labels.json", 0)),
    ],
)
def test_a_service_is_evaluated_as_it_answers(evaluate, name, code):
    """Photos are found by the name of the file, tags whatever their case."""
    result = evaluate(None, TRUTH, code, source=DATA / "predictions" / name)
    assert result["photos"]["compared"] == 2
    # mountain and train are right; sky is given to the wrong photo.
    assert (result["OP"], result["OR"]) == pytest.approx((2 / 3, 2 / 3))
    assert result["mAP"] == pytest.approx((1 + 0.5 + 1) / 3)


@pytest.mark.parametrize("name", ["ram/pred.txt", "panoptic.json"])
def test_tags_without_scores_are_decisions(evaluate, tmp_path, name):
    (tmp_path / "map.tsv").write_text("mountain\tmountain-merged|mountain\n")
    source, mapped = DATA / "predictions" / name, Path("map.tsv")
    result = evaluate(None, TRUTH, source=source, map_file=mapped)
    assert result["decided_by"] == "the predictions' own tags"
    assert result["OR"] == pytest.approx(2 / 3)


def test_a_form_that_is_named_is_not_recognised(evaluate, tmp_path):
    """A response without labels says nothing of its service."""
    (tmp_path / "said").mkdir()
    (tmp_path / "said" / "pasture.json").write_text("{}")
    with pytest.raises(RunProblem, match="--from"):
        evaluate(None, TRUTH, source=tmp_path / "said")
    result = evaluate(None, TRUTH, source=tmp_path / "said", source_format="google")
    assert (result["photos"]["compared"], result["OR"]) == (1, 0.0)


def test_the_authors_outputs_are_decided_by_their_own_thresholds(evaluate, tmp_path):
    shutil.copy(DATA / "predictions" / "ram" / "pred.txt", tmp_path)
    table = torch.tensor([[0.75, 0.1, 0.5], [0.0, 0.4, 0.6], [0.1, 0.1, 0.1]])
    torch.save(table, tmp_path / "logits.pth")
    (tmp_path / "taglist.txt").write_text("mountain\nsky\ntrain\n")
    result = evaluate(None, TRUTH, source=tmp_path, classes=Path("taglist.txt"))
    assert result["mAP"] == 1.0
    assert result["decided_by"] == "the predictions' own tags"
    assert (result["OP"], result["OR"]) == pytest.approx((2 / 3, 2 / 3))
    with pytest.raises(RunProblem, match="3 columns are the labels of what list"):
        evaluate(None, TRUTH, source=tmp_path / "logits.pth")
    result = evaluate(None, TRUTH, source=tmp_path, labels=Path("taglist.txt"))
    assert result["mAP"] == 1.0
