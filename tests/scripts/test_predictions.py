"""Predictions of other systems, in the forms in which those write them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from predictions import main

DATA = Path(__file__).parents[1] / "data" / "predictions"
MKT = {"mountain": 0.0951, "sky": 0.084, "train": -0.012}
#: format, file or folder: of each photo the scores or tags
READ = {
    ("panoptic", "panoptic.json"): [
        ("pasture.jpg", ["mountain-merged", "sky-other-merged"]),
        ("ore-train.jpg", ["train"]),
        ("kite", []),
    ],
    ("mkt", "mkt"): [("ore-train.jpg", {"train": 0.07, "sky": 0.0}), ("pasture", MKT)],
    ("mkt", "mkt/pasture.txt"): [("pasture", MKT)],
}


@pytest.fixture
def convert(monkeypatch, capsys):
    """Runs the script: its status, records and messages."""

    def go(*arguments):
        monkeypatch.setattr("sys.argv", ["predictions.py", *map(str, arguments)])
        status = main()
        out, err = capsys.readouterr()
        return status, [json.loads(line) for line in out.splitlines()], err.splitlines()

    return go


@pytest.mark.parametrize(("form", "name"), READ)
def test_a_published_form_is_read(form, name, convert):
    status, rows, messages = convert(form, DATA / name)
    found = [(row["image"], row.get("scores", row.get("tags"))) for row in rows]
    assert (status, found, messages) == (0, READ[form, name], [])


def test_another_file_is_refused(convert, tmp_path):
    (tmp_path / "a.txt").write_text("nothing")
    for form, name in (("mkt", "."), ("panoptic", "a.txt")):
        status, rows, messages = convert(form, tmp_path / name)
        assert (status, rows, len(messages)) == (1, [], 1)


def test_the_authors_logits_are_rows_of_the_photos_in_pred_txt(convert, tmp_path):
    shutil.copy(DATA / "ram" / "pred.txt", tmp_path)
    table = torch.tensor([[0.75, 0.5, 0.0], [0.25, 0.0, 1.0], [0.125, 0.0, 0.0]])
    torch.save(table, tmp_path / "logits.pth")
    (tmp_path / "labels.txt").write_text("mountain\nsky\ntrain\n")
    status, rows, _ = convert("logits", tmp_path, "--labels", tmp_path / "labels.txt")
    names = ["mountain", "sky", "train"]
    assert (status, rows) == (0, [
        {"image": "pasture", "tags": ["mountain", "sky"], "label_names": names,
         "dense": [0.75, 0.5, 0.0]},
        {"image": "ore-train", "tags": ["train"], "dense": [0.25, 0.0, 1.0]},
        {"image": "kite", "tags": [], "dense": [0.125, 0.0, 0.0]},
    ])  # fmt: skip
    status, rows, messages = convert("logits", tmp_path)
    assert (status, rows) == (1, []) and "3 x 3 numbers for 3 photos and 0 labels" in messages[0]
