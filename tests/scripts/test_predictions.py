"""Predictions of other systems, in the forms in which those write them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from predictions import main

DATA = Path(__file__).parents[1] / "data" / "predictions"
SCORES = [{"mountain": 0.9512, "sky": 0.8401}, {"train": 0.7}]
NATURE = {"Nature": 0.9512, "Outdoors": 0.605, "Mountain": 0.9512, "Peak": 0.9512, "Sky": 0.84}
MKT = {"mountain": 0.0951, "sky": 0.084, "train": -0.012}
PATHS = ("photos/pasture.jpg", "photos/ore-train.jpg")
CAPITALS = [{name.capitalize(): score for name, score in scores.items()} for scores in SCORES]


def named(*names, scores=SCORES):
    return list(zip(names, scores, strict=True))


#: format, file or folder: of each photo the scores or tags, and the number of others
READ = {
    ("google", "google"): (named("ore-train.jpg", "pasture", scores=CAPITALS[::-1]), 0),
    ("google", "google-batch.json"): (
        named(*(f"gs://our-bucket/{p}" for p in PATHS), scores=CAPITALS),
        1,
    ),
    ("microsoft", "microsoft.jsonl"): (named(*PATHS), 1),
    ("aws", "aws"): ([("ore-train", {"Vehicle": 0.7, "Train": 0.7}), ("pasture", NATURE)], 0),
    ("aws", "aws/pasture.json"): ([("pasture", NATURE)], 0),
    ("apple", "apple.jsonl"): (
        named(*PATHS, scores=[SCORES[0] | {"body_of_water": 0.01}, SCORES[1]]),
        0,
    ),
    ("panoptic", "panoptic.json"): (
        [
            ("pasture.jpg", ["mountain-merged", "sky-other-merged"]),
            ("ore-train.jpg", ["train"]),
            ("kite", []),
        ],
        0,
    ),
    ("mkt", "mkt"): ([("ore-train.jpg", {"train": 0.07, "sky": 0.0}), ("pasture", MKT)], 0),
    ("mkt", "mkt/pasture.txt"): ([("pasture", MKT)], 0),
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


def said(rows):
    return [(row["image"], row.get("scores", row.get("tags"))) for row in rows]


@pytest.mark.parametrize(("form", "name"), READ)
def test_a_published_form_is_read(form, name, convert):
    expected, n_bad = READ[form, name]
    status, rows, messages = convert(form, DATA / name)
    assert (status, said(rows), len(messages)) == (3 if n_bad else 0, expected, n_bad)


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


def test_responses_may_stand_in_the_line_itself(convert, tmp_path):
    path = tmp_path / "said.jsonl"
    path.write_text(
        '\ufeff{"image":"a","labelAnnotations":[{"description":"dog","score":9e-1},'
        '{"description":"dog","score":0.8}]}\n\n{"image":"b"}\n',
        "utf-8",
    )
    assert said(convert("google", path)[1]) == [("a", {"dog": 0.9}), ("b", {})]


def test_what_is_no_response_of_the_service_is_said(convert, tmp_path):
    path = tmp_path / "said.jsonl"
    rows = [{"image": "a", "response": one} for one in ({}, [], None, {"tags": [1]})]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, rows, messages = convert("microsoft", path)
    assert (status, rows, len(messages)) == (3, [], 4)
    path.write_text("{")
    status, rows, messages = convert("microsoft", path)
    assert (status, rows, len(messages)) == (1, [], 1)


def test_a_batch_without_names_is_read_only_where_it_has_one_response(convert, tmp_path):
    path = tmp_path / "dog.json"
    path.write_text('{"responses":[{}]}')
    assert said(convert("google", path)[1]) == [("dog", {})]
    path.write_text('{"responses":[{},{"context":{"uri":"b.jpg"}}]}')
    status, rows, messages = convert("google", path)
    assert (status, said(rows), len(messages)) == (3, [("b.jpg", {})], 1)
