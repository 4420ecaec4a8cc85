"""What other systems say of photos: each published form is recognised and read as records."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ramctl.errors import RunProblem
from ramctl.readers.predictions import FORMS, read_predictions, recognise
from ramctl.records.record import Reject

DATA = Path(__file__).parents[1] / "data" / "predictions"
SCORES = [{"mountain": 0.9512, "sky": 0.8401}, {"train": 0.7}]
NATURE = {"Nature": 0.9512, "Outdoors": 0.605, "Mountain": 0.9512, "Peak": 0.9512, "Sky": 0.84}


def named(*names, scores=SCORES):
    return list(zip(names, scores, strict=True))


def capital(scores):
    return {name.capitalize(): score for name, score in scores.items()}


PATHS = ("photos/pasture.jpg", "photos/ore-train.jpg")
CAPITALS = list(map(capital, SCORES))
#: file or folder: its form, and of each photo the scores or tags, or the code of its reject
READ = {
    "google": ("google", named("ore-train.jpg", "pasture", scores=CAPITALS[::-1])),
    "google-batch.json": (
        "google",
        [*named(*(f"gs://our-bucket/{p}" for p in PATHS), scores=CAPITALS), "bad_field"],
    ),
    "microsoft.jsonl": ("microsoft", [*named(*PATHS), "bad_field"]),
    "aws": ("aws", [("ore-train", {"Vehicle": 0.7, "Train": 0.7}), ("pasture", NATURE)]),
    "aws/pasture.json": ("aws", [("pasture", NATURE)]),
    "apple.jsonl": (
        "apple",
        named(*PATHS, scores=[SCORES[0] | {"body_of_water": 0.01}, SCORES[1]]),
    ),
    "fiftyone": (
        "fiftyone",
        [*named("data/pasture.jpg", "data/ore-train.jpg"), ("data/kite.jpg", {})],
    ),
    "fiftyone-labels.json": ("fiftyone-labels", [*named(*PATHS), ("photos/kite.jpg", {})]),
    "panoptic.json": (
        "panoptic",
        [
            ("pasture.jpg", ["mountain-merged", "sky-other-merged"]),
            ("ore-train.jpg", ["train"]),
            ("kite", []),
        ],
    ),
    "ram/pred.txt": (
        "list",
        [("pasture", ["mountain", "sky"]), ("ore-train", ["train"]), ("kite", [])],
    ),
    "mkt": (
        "mkt",
        [
            ("ore-train.jpg", {"train": 0.07, "sky": 0.0}),
            ("pasture", {"mountain": 0.0951, "sky": 0.084, "train": -0.012}),
        ],
    ),
    "mkt/pasture.txt": ("mkt", [("pasture", {"mountain": 0.0951, "sky": 0.084, "train": -0.012})]),
}


def read(path, form=None, lists=()):
    """(photo, scores or tags) of each record, the code of each reject."""
    return [
        item.code
        if isinstance(item, Reject)
        else (item.fields["image"], item.fields.get("scores", item.fields.get("tags")))
        for item in read_predictions(str(path), "eval", form, lists)
    ]


@pytest.mark.parametrize("name", READ)
def test_a_published_form_is_recognised_and_read(name):
    form, expected = READ[name]
    assert recognise(str(DATA / name)) == form
    assert read(DATA / name) == expected
    assert read(DATA / name, form) == expected


def test_every_form_has_a_sample():
    assert {form for form, _ in READ.values()} | {"jsonl", "logits"} == {*FORMS}


@pytest.fixture
def outputs(tmp_path):
    """The authors' folder of outputs: three photos, three labels."""
    shutil.copy(DATA / "ram" / "pred.txt", tmp_path)
    table = torch.tensor([[0.75, 0.5, 0.0], [0.25, 0.0, 1.0], [0.125, 0.0, 0.0]])
    torch.save(table, tmp_path / "logits.pth")
    return tmp_path


@pytest.mark.parametrize("place", [".", "logits.pth"])
def test_the_authors_logits_are_rows_of_the_photos_in_pred_txt(outputs, place):
    lists = [["a", "b"], ["mountain", "sky", "train"]]
    items = list(read_predictions(str(outputs / place), "eval", None, lists))
    assert [item.fields for item in items] == [
        {
            "image": "pasture",
            "tags": ["mountain", "sky"],
            "label_names": lists[1],
            "dense": [0.75, 0.5, 0.0],
        },
        {"image": "ore-train", "tags": ["train"], "dense": [0.25, 0.0, 1.0]},
        {"image": "kite", "tags": [], "dense": [0.125, 0.0, 0.0]},
    ]


def test_logits_that_fit_no_list_are_an_error(outputs):
    for lists, message in (
        ([["a", "b"]], "3 columns are the labels of what list"),
        ([], "see --classes"),
    ):
        with pytest.raises(RunProblem, match=message):
            read(outputs, None, lists)
    (outputs / "pred.txt").write_text("a\n")
    with pytest.raises(RunProblem, match=r"3 rows for 1 photos in pred\.txt"):
        read(outputs, None, [["a", "b", "c"]])
    (outputs / "logits.pth").write_bytes(b"no table")
    with pytest.raises(RunProblem, match="not a table of numbers"):
        read(outputs)


def test_lines_of_responses_come_from_standard_input_too(monkeypatch):
    with (DATA / "microsoft.jsonl").open("rb") as stream:
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": stream}))
        assert read("-", "microsoft") == READ["microsoft.jsonl"][1]


def test_responses_may_stand_in_the_line_itself(tmp_path):
    path = tmp_path / "said.jsonl"
    path.write_text(
        '\ufeff{"image":"a","labelAnnotations":[{"description":"dog","score":9e-1},'
        '{"description":"dog","score":0.8}]}\n\n{"image":"b"}\nnonsense\n{"response":{}}\n',
        "utf-8",
    )
    assert read(path) == [("a", {"dog": 0.9}), ("b", {}), "bad_json", "missing_field"]


def test_what_is_no_response_of_the_service_is_rejected(tmp_path):
    path = tmp_path / "said.jsonl"
    rows = [
        {"image": str(i), "response": said} for i, said in enumerate([{}, [], None, {"tags": [1]}])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(path, "microsoft") == ["bad_field"] * 4
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text('{"Labels":[]}')
    assert read(tmp_path, "aws") == ["bad_json", ("b", {})]
    with pytest.raises(RunProblem, match="bad JSON"):
        read(tmp_path / "a.json", "aws")


def test_a_batch_without_names_is_read_only_where_it_has_one_response(tmp_path):
    path = tmp_path / "dog.json"
    path.write_text('{"responses":[{}]}')
    assert read(path) == [("dog", {})]
    path.write_text('{"responses":[{},{"context":{"uri":"b.jpg"}}]}')
    assert read(path) == ["missing_field", ("b.jpg", {})]


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


def test_figures_are_no_predictions():
    with pytest.raises(RunProblem, match="figures of CLIP_benchmark"):
        recognise(str(DATA / "clip-benchmark.json"))


def test_a_folder_without_predictions_is_an_error(tmp_path):
    with pytest.raises(RunProblem, match="no predictions that are recognised"):
        recognise(str(tmp_path))
    (tmp_path / "a.txt").write_text("no scores")
    assert read(tmp_path) == ["missing_field"]
