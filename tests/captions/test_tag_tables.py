"""Predictions of taggers: each form is recognised and read as records."""

import gzip
from pathlib import Path

import pytest

from ramctl.captions.caption_formats import read_predictions
from ramctl.records.record import Record

DATA = Path(__file__).parents[1] / "data" / "predictions"
TAGS = [("pasture", ["mountain", "sky"]), ("ore-train", ["train"]), ("kite", [])]


def test_the_authors_lists_are_recognised_and_read():
    path = str(DATA / "ram" / "pred.txt")
    found = [(item.fields["image"], item.fields["tags"]) for item in read_predictions(path, "eval")]
    assert found == TAGS


def test_other_files_are_records(tmp_path):
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"image": "a,b", "tags": []}\n'))
    (item,) = read_predictions(str(tmp_path / "x.jsonl.gz"), "eval")
    assert item.fields == {"image": "a,b", "tags": []}


SCORES = [("a", None, {"cat": 0.9, "dog": 0.25}), ("b", None, {"dog": 1e-5})]
DECIDED = [("a", ["cat", "dog"], {"cat": 0.9, "dog": 0.25}), ("b", [], {})]
TAGGED = [("a", ["cat", "dog"], {"cat": 1, "dog": 1}), ("b", [], {})]
TABLES = {
    'image,tags,scores\na,"cat, dog","0.9, 0.25"\nb,,\n': DECIDED,
    "image,tags\na,cat;dog\nb,\n": TAGGED,
    "\ufeffFilename;Tags\r\na;cat, dog\r\nb;\r\n": TAGGED,
    "image,label,score\nb,dog,1e-5\na,dog,0.25\na,cat,0.9\na,cat,0.1\n": SCORES,
    "image,cat,dog\na,0.9,0.25\nb,,1e-5\n": SCORES,
    "ID\tcat\tdog\t\na\t0.9\t0.25\t\nb\tnan\t0.00001\t\n": SCORES,
    "image,label\na,cat\na,dog\nb,\n": TAGGED,
    "path,label,cat,file\na,0.5,0.9,0\n": [("a", None, {"label": 0.5, "cat": 0.9, "file": 0})],
    'image,tags,scores\na,"x\\, y, z","0.5, 0.25"\n': [
        ("a", ["x, y", "z"], {"x, y": 0.5, "z": 0.25})
    ],
    "image,cat,dog\na,1,0\nb,0,0\n": [
        ("a", ["cat"], {"cat": 1, "dog": 0}),
        ("b", [], {"cat": 0, "dog": 0}),
    ],
    "": [],
    "image,tags\n": [],
}


@pytest.mark.parametrize("text", TABLES)
def test_tables_with_a_header_are_read(text, tmp_path):
    (tmp_path / "x.csv").write_bytes(text.encode())
    records = (item.fields for item in read_predictions(str(tmp_path / "x.csv"), "eval"))
    found = [(row["image"], row.get("tags"), row["scores"]) for row in records]
    assert sorted(found) == TABLES[text]


def test_labels_that_are_not_in_a_table_of_zeros_and_ones_are_unknown(tmp_path):
    text = "ImageID,Source,LabelName,Confidence\na,v,cat,1\na,v,dog,0\nb,v,dog,1\n"
    (tmp_path / "x.csv").write_text(text)
    records = [item.fields for item in read_predictions(str(tmp_path / "x.csv"), "eval")]
    assert [(row["tags"], row["negatives"]) for row in records] == [
        (["cat"], ["dog"]),
        (["dog"], []),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a,cat,0.9\n", "a;cat;dog\n", 'a,"cat, dog"\n', ",cat\na,0.9\n", "image;cat\na;0,9\n",
        "image,tags\na,cat,dog\n", "image,tags,scores\na,cat;dog,0.9;1;2\n",
        "image,label,score\na,b,x\n", "image,label,score\na,b,inf\n",
        "image,width,caption\na,640,a dog\n",
    ],
)  # fmt: skip
def test_rows_of_another_form_are_rejects(text, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    items = list(read_predictions(str(tmp_path / "x.csv"), "eval"))
    assert "bad_field" in [item.code for item in items if not isinstance(item, Record)]
