"""Records in Parquet: what comes back, what others read, photos that are in the file."""

import json
from datetime import date
from decimal import Decimal

import pytest

from tests.support import DATA, write_records

pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
from pyarrow import parquet  # noqa: E402

PHOTOS = sorted((DATA / "photos").glob("*.jpg"))
RECORDS = [
    {"image": "a.jpg", "tags": ["dog", "red"], "scores": {"dog": 0.9, "red": 1}, "caption": "é\n"},
    {"image": "b.jpg", "tags": [], "scores": {}, "captions": []},
    {"image": "b.jpg", "tags": ["cat", "sky"], "scores": {"sky": 0.25}, "key": [1, {"a": None}]},
    {"image": "c.jpg", "tags": ["cat", "sky"], "scores": {"sky": 0.1, "cat": 0.2}, "dense": [0.5]},
    {"image": "d.jpg", "tags": ["a,b"], "captions": ["one", "two"], "pi": 3.5},
]


def test_records_come_back_as_they_were(tmp_path, ramctl):
    many = [{"image": f"{number}.jpg", "tags": ["sky"]} for number in range(1200)]  # two groups
    write_records(tmp_path / "in.jsonl", [*RECORDS, *many])
    assert ramctl("export", "in.jsonl", "-f", "parquet", "-o", "x.parquet").returncode == 0
    assert ramctl("export", "x.parquet", "-f", "jsonl").rows == [*RECORDS, *many]
    file = parquet.ParquetFile(tmp_path / "x.parquet")
    rows = file.read_row_group(0).to_pylist()
    assert [file.metadata.row_group(n).num_rows for n in (0, 1)] == [1000, 205]
    assert (rows[0]["tags"], rows[0]["scores"]) == (["dog", "red"], [0.9, 1.0])
    assert rows[2]["scores"] == [None, 0.25]
    assert json.loads(rows[2]["other"]) == {"key": [1, {"a": None}]}


def test_dense_scores_and_embeddings_are_half_floats(tmp_path, ramctl):
    options = ["--dense", "--embedding", "-j1"]
    (tmp_path / "in.jsonl").write_bytes(ramctl("tag", *options, *PHOTOS[:2]).stdout)
    before = [json.loads(line) for line in (tmp_path / "in.jsonl").read_bytes().splitlines()]
    ramctl("export", "in.jsonl", "-f", "parquet", "-o", "x.parquet")
    schema = parquet.read_schema(tmp_path / "x.parquet")
    assert {str(schema.field(n).type.value_type) for n in ("dense", "embedding")} == {"halffloat"}
    after = ramctl("export", "x.parquet", "-f", "jsonl").rows
    for old, new in zip(before, after, strict=True):
        assert new.pop("dense") == pytest.approx(old.pop("dense"), rel=5e-4, abs=1e-7)
        assert new == old
    asked = ["--like", before[0]["image"]]
    answers = [ramctl("search", name, *asked).rows for name in ("in.jsonl", "x.parquet")]
    assert [row["image"] for row in answers[1]] == [row["image"] for row in answers[0]]


@pytest.fixture
def photos(tmp_path):
    """As `datasets` writes photos, two to a row group; one has no name, the last row no photo."""
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in PHOTOS[:3]]
    images[1]["path"] = None
    table = pa.table({"image": [*images, None], "caption": [f"a dog {n}" for n in range(4)]})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=2)


def test_photos_in_a_file_are_tagged(photos, ramctl):
    done = ramctl("tag", "x.parquet", "--rejects", "-")
    tags = [row["tags"] for row in done.rows]
    assert tags == [row["tags"] for row in ramctl("tag", *PHOTOS[:3]).rows]
    assert [(row["image"], row.get("path")) for row in done.rows] == [
        ("x.parquet#0", PHOTOS[0].name), ("x.parquet#1", None), ("x.parquet#2", PHOTOS[2].name),
    ]  # fmt: skip
    assert done.returncode == 3 and "the row has no photo" in done.messages
    (last,) = ramctl("tag", "x.parquet#1").rows
    assert last["tags"] == tags[1]
    for name in ("x.parquet#9", "x.parquet#a", "nowhere.parquet#0"):
        assert "missing_image" in ramctl("tag", name, "--rejects", "-").messages
    captioned = ramctl("parse", "x.parquet").rows
    assert [(row["image"], row["tags"]) for row in captioned[:2]] == [
        ("x.parquet#0", ["dog"]), ("x.parquet#1", ["dog"]),
    ]  # fmt: skip


def test_columns_of_another_program_are_fields(tmp_path, ramctl):
    columns = {
        "image": [str(PHOTOS[0])], "price": [Decimal("1.20")], "day": [date(2020, 2, 29)],
        "words": [["a", "b"]], "nested": [{"a": 1, "b": None}], "raw": [b"bytes"],
        "other": ["no JSON"], "embedding_model": ["m"],  # names of ours
    }  # fmt: skip
    parquet.write_table(pa.table(columns), tmp_path / "in.parquet")
    assert ramctl("tag", "in.parquet", "-f", "parquet", "-o", "x.parquet").returncode == 0
    (row,) = ramctl("export", "x.parquet", "-f", "jsonl").rows
    fields = {"price": "1.20", "day": "2020-02-29", "words": ["a", "b"], "raw": None}
    fields |= {"other": "no JSON", "embedding_model": "m"}
    assert fields.items() <= row.items() and row["nested"]["a"] == 1
    assert row["tags"] == ramctl("tag", PHOTOS[0]).rows[0]["tags"]


def test_what_is_no_parquet_is_said_in_one_line(tmp_path, ramctl):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    for words in (["export", "-f", "jsonl"], ["tag"], ["eval", "--truth", "x.parquet"]):
        done = ramctl(*words, "x.parquet")
        assert done.returncode == 1 and done.messages.count("\n") == 1, done.messages
        assert "x.parquet: " in done.messages
    assert ramctl("tag", "x.parquet#0", "--rejects", "-").returncode == 3
    parquet.write_table(pa.table({"n": [1]}), tmp_path / "n.parquet")
    done = ramctl("parse", "n.parquet")
    assert "no column of captions or tags; it has n (--caption-c" in done.messages
