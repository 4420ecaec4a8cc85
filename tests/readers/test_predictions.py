"""What taggers say of photos: each form is recognised and read as records."""

from pathlib import Path

import pytest

from ramctl.readers.predictions import read_predictions, recognise

DATA = Path(__file__).parents[1] / "data" / "predictions"
TAGS = [("pasture", ["mountain", "sky"]), ("ore-train", ["train"]), ("kite", [])]


@pytest.mark.parametrize("form", [None, "list"])
def test_the_authors_lists_are_recognised_and_read(form):
    path = str(DATA / "ram" / "pred.txt")
    assert recognise(path) == "list"
    found = [
        (item.fields["image"], item.fields["tags"]) for item in read_predictions(path, "eval", form)
    ]
    assert found == TAGS


def test_other_files_are_records():
    assert recognise("tagged.json") == recognise("-") == recognise("tagged.jsonl.gz") == "jsonl"
