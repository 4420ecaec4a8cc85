"""The embedded model gives the same bytes whatever batch and `-j`, digit by digit."""

from pathlib import Path

import pytest

from ramctl.data_engine import additions, cleaning
from ramctl.inference import selection
from ramctl.records import stream
from tests.data_engine.conftest import DATA
from tests.support import lines

DIGITS = 9  # more than single precision has, so that no rounding hides a difference
WAYS = [(1, 2), (7, 1), (4, 2)]  # photos a batch, jobs


@pytest.fixture(autouse=True)
def all_digits(monkeypatch):
    monkeypatch.setattr(additions, "DECIMALS", DIGITS)
    monkeypatch.setattr(cleaning, "DIGITS", DIGITS)
    monkeypatch.setattr(selection, "DECIMALS", DIGITS)


@pytest.fixture
def records(tmp_path) -> Path:
    """Photos with different tags, one that is not there among them."""
    photos = sorted((DATA / "photos").glob("*.jpg"))
    names = [*map(str, photos[:3]), "none.jpg", *map(str, photos[3:])]
    tags = ["animal", "field", "sky", "train", "tree", "person", "outdoor", "water", "grass"]
    path = tmp_path / "in.jsonl"
    rows = ({"image": name, "tags": tags[i : i + 4]} for i, name in enumerate(names))
    path.write_bytes(lines(rows))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["generate", "--threshold", 0.001, "--captions", 2],
        ["clean", "--rule", "paper", "--threshold", 1, "--outliers", 0.5],
        ["tag", "--threshold", 0.001, "--boxes", "--caption"],
    ],
    ids=["generate", "clean", "tag"],
)
def test_records(command, records, words, monkeypatch):
    def output(batch: int, jobs: int) -> bytes:
        monkeypatch.setattr(stream, "BATCH", batch)
        more = [] if words[0] == "clean" else ["-j", jobs]
        return command(*words, records, "--device", "cpu", *more, code=3).stdout

    whole = output(4, 1)
    assert whole.count(b"\n") == 8
    for way in WAYS:
        assert output(*way) == whole, way
