"""What taggers say of photos: each form is recognised and read as records."""

import gzip
from pathlib import Path

import pytest

from ramctl.readers.caption_formats import read_predictions

DATA = Path(__file__).parents[1] / "data" / "predictions"
TAGS = [("pasture", ["mountain", "sky"]), ("ore-train", ["train"]), ("kite", [])]


@pytest.mark.parametrize("form", [None, "list"])
def test_the_authors_lists_are_recognised_and_read(form):
    path = str(DATA / "ram" / "pred.txt")
    found = [
        (item.fields["image"], item.fields["tags"]) for item in read_predictions(path, "eval", form)
    ]
    assert found == TAGS


@pytest.mark.parametrize("name", ["tagged.json", "tagged.jsonl.gz"])
def test_other_files_are_records(name, tmp_path):
    pack = gzip.compress if name.endswith(".gz") else bytes
    (tmp_path / name).write_bytes(pack(b'{"image": "a,b", "tags": []}\n'))
    (item,) = read_predictions(str(tmp_path / name), "eval")
    assert item.fields == {"image": "a,b", "tags": []}
