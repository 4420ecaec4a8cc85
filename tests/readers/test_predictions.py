"""What other programs say of photos: each form is recognised and read as records."""

import json
from pathlib import Path

import pytest

from ramctl.errors import RunProblem
from ramctl.readers.predictions import FORMS, read_predictions, recognise
from ramctl.records.record import Reject

DATA = Path(__file__).parents[1] / "data" / "predictions"
SCORES = [{"mountain": 0.9512, "sky": 0.8401}, {"train": 0.7}]


def named(*names):
    return list(zip(names, SCORES, strict=True))


#: file or folder: its form, and of each photo the scores or tags
READ = {
    "fiftyone": (
        "fiftyone",
        [*named("data/pasture.jpg", "data/ore-train.jpg"), ("data/kite.jpg", {})],
    ),
    "fiftyone-labels.json": (
        "fiftyone-labels",
        [*named("photos/pasture.jpg", "photos/ore-train.jpg"), ("photos/kite.jpg", {})],
    ),
    "ram/pred.txt": (
        "list",
        [("pasture", ["mountain", "sky"]), ("ore-train", ["train"]), ("kite", [])],
    ),
}


def read(path, form=None):
    """(photo, scores or tags) of each record, the code of each reject."""
    return [
        item.code
        if isinstance(item, Reject)
        else (item.fields["image"], item.fields.get("scores", item.fields.get("tags")))
        for item in read_predictions(str(path), "eval", form)
    ]


@pytest.mark.parametrize("name", READ)
def test_a_published_form_is_recognised_and_read(name):
    form, expected = READ[name]
    assert recognise(str(DATA / name)) == form
    assert read(DATA / name) == expected
    assert read(DATA / name, form) == expected


def test_every_form_has_a_sample():
    assert {form for form, _ in READ.values()} | {"jsonl"} == {*FORMS}


def test_records_of_our_own_are_no_response(tmp_path):
    path = tmp_path / "tagged.json"
    for row in ({"image": "a", "tags": []}, {"image": "a", "scores": {"Labels": 0.5}}):
        path.write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
        assert recognise(str(path)) == "jsonl"


def test_a_dataset_with_two_fields_of_predictions_names_them(tmp_path):
    label = {"_cls": "Classification", "label": "dog", "confidence": 0.5}
    sample = {"filepath": "a.jpg", "one": label, "two": label}
    path = tmp_path / "samples.json"
    path.write_text(json.dumps({"samples": [sample]}))
    with pytest.raises(RunProblem, match="several: one, two"):
        read(path)
    path.write_text(json.dumps({"samples": [{"filepath": "a.jpg"}]}))
    with pytest.raises(RunProblem, match="found none"):
        read(path)
    path.write_text(json.dumps({"samples": [sample | {"two": None}, {}]}))
    assert read(path) == [("a.jpg", {"dog": 0.5}), "bad_field"]


def test_labels_without_confidences_are_tags(tmp_path):
    path = tmp_path / "labels.json"
    labels = {"a.jpg": 1, "b.jpg": ["dog", {"label": "cat", "confidence": 0.5}], "c.jpg": [2]}
    path.write_text(json.dumps({"labels": labels, "classes": ["cat", "dog"]}))
    assert read(path) == [("a.jpg", ["dog"]), ("b.jpg", ["dog", "cat"]), "bad_field"]


def test_a_folder_without_predictions_is_an_error(tmp_path):
    with pytest.raises(RunProblem, match="no predictions that are recognised"):
        recognise(str(tmp_path))
