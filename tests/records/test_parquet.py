"""Records in Parquet: what comes back, what others read, photos that are in the file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pytest

from ramctl.photos.parquet_photos import ParquetPhotos
from ramctl.records.inputs import read_inputs
from ramctl.records.jsonl import MAX_LINE
from ramctl.records.record import Record
from tests.support import DATA, traced, write_records

pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
from pyarrow import parquet  # noqa: E402

PHOTOS = sorted((DATA / "photos").glob("*.jpg"))
RECORDS = [
    {"image": "a.jpg", "tags": ["dog", "red"], "scores": {"dog": 0.9, "red": 1}, "caption": "é\n"},
    {"image": "b.jpg", "tags": [], "scores": {}, "captions": []},
    {"image": "b.jpg", "tags": ["cat", "sky"], "scores": {"sky": 0.25}, "key": [1, {"a": None}]},
    {"image": "c.jpg", "tags": ["cat", "sky"], "scores": {"sky": 0.1, "cat": 0.2}, "dense": [0.5]},
    {"image": "d.jpg", "tags": ["a,b"], "captions": ["one", "two"], "pi": 3.14159265358979312},
]


def test_records_come_back_as_they_were(tmp_path, ramctl):
    write_records(tmp_path / "in.jsonl", RECORDS)
    assert ramctl("export", "in.jsonl", "-f", "parquet", "-o", "x.parquet").returncode == 0
    assert ramctl("export", "x.parquet", "-f", "jsonl").rows == RECORDS
    (batch,) = parquet.ParquetFile(tmp_path / "x.parquet").iter_batches()
    rows = batch.to_pylist()
    assert (rows[0]["tags"], rows[0]["scores"]) == (["dog", "red"], [0.9, 1.0])
    assert rows[2]["scores"] == [None, 0.25]
    assert json.loads(rows[2]["other"]) == {"key": [1, {"a": None}]}
    assert str(batch.schema.field("dense").type.value_type) == "halffloat"


@pytest.mark.slow
def test_a_hundred_thousand_records_come_back_in_row_groups(tmp_path, ramctl):
    fields = {"tags": ["dog", "sky"], "scores": {"dog": 0.5, "sky": 0.25}, "sources": {"dog": "x"}}
    records = [{"image": f"{n}.jpg", "captions": [f"dog {n}"], **fields} for n in range(100_000)]
    write_records(tmp_path / "in.jsonl", records)
    assert ramctl("export", "in.jsonl", "-f", "parquet", "-o", "x.parquet").returncode == 0
    assert parquet.ParquetFile(tmp_path / "x.parquet").num_row_groups > 2
    assert ramctl("export", "x.parquet", "-f", "jsonl").rows == records


def test_dense_scores_and_embeddings_are_half_floats(tmp_path, ramctl):
    options = ["--dense", "--embedding", "-j1", "--threads", "1"]
    (tmp_path / "in.jsonl").write_bytes(ramctl("tag", *options, *PHOTOS[:2]).stdout)
    before = [json.loads(line) for line in (tmp_path / "in.jsonl").read_bytes().splitlines()]
    ramctl("export", "in.jsonl", "-f", "parquet", "-o", "x.parquet")
    after = ramctl("export", "x.parquet", "-f", "jsonl").rows
    for old, new in zip(before, after, strict=True):
        assert new.pop("dense") == pytest.approx(old.pop("dense"), rel=5e-4, abs=1e-7)
        assert new == old
    for asked in (before[0]["tags"][:1], ["--like", before[0]["image"]]):
        answers = [ramctl("search", name, *asked).rows for name in ("in.jsonl", "x.parquet")]
        assert [row["image"] for row in answers[1]] == [row["image"] for row in answers[0]]
        assert answers[1][0]["tags"] == answers[0][0]["tags"]


def test_duckdb_reads_what_is_write_records(tmp_path, ramctl):
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb")
    write_records(tmp_path / "in.jsonl", RECORDS)
    ramctl("export", "in.jsonl", "-f", "parquet", "-o", "x.parquet")
    query = f"""
        SELECT tag, max(score) FROM (
            SELECT unnest(tags) AS tag, unnest(scores) AS score FROM '{tmp_path}/x.parquet'
        ) GROUP BY tag ORDER BY tag
    """
    assert duckdb.sql(query).fetchall() == [
        ("a,b", None), ("cat", 0.2), ("dog", 0.9), ("red", 1.0), ("sky", 0.25),
    ]  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    """As `datasets` writes photos, two to a row group; the last row has none."""
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in PHOTOS[:3]]
    table = pa.table({"image": [*images, None], "caption": [f"a dog {n}" for n in range(4)]})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    return tmp_path / "x.parquet"


def test_photos_in_a_file_are_tagged(photos, ramctl):
    done = ramctl("tag", "x.parquet", "--rejects", "-")
    tags = [row["tags"] for row in done.rows]
    assert tags == [row["tags"] for row in ramctl("tag", *PHOTOS[:3]).rows]
    assert [(row["image"], row["path"]) for row in done.rows] == [
        (f"x.parquet#{n}", PHOTOS[n].name) for n in range(3)
    ]
    assert done.returncode == 3 and "the row has no photo" in done.messages
    (last,) = ramctl("tag", "x.parquet#1").rows
    assert last["tags"] == tags[1]
    for name in ("x.parquet#9", "x.parquet#a", "nowhere.parquet#0"):
        assert "missing_image" in ramctl("tag", name, "--rejects", "-").messages


TYPED = {
    "sku": (pa.int32(), [7, None, 2**31 - 1]),
    "big": (pa.uint64(), [2**64 - 1, 0, 1]),
    "price": (pa.decimal128(9, 2), [Decimal("1.20"), None, Decimal("-3.00")]),
    "when": (pa.timestamp("us"), [datetime(2020, 1, 2, 3, 4, 5, 678), None, datetime(1999, 1, 1)]),
    "zone": (pa.timestamp("ms", "UTC"), [datetime(2020, 1, 2, 3, tzinfo=UTC), None, None]),
    "day": (pa.date32(), [date(2020, 2, 29), None, date(1960, 1, 1)]),
    "ok": (pa.bool_(), [True, False, None]),
    "ratio": (pa.float32(), [0.5, None, -2.25]),
    "words": (pa.list_(pa.string()), [["a", "b"], [], None]),
    "title": (pa.string(), ["a,b", "", None]),
}
NESTED = [{"a": 1, "t": datetime(2020, 1, 1)}, None, {"a": 2, "t": None}]


def test_tags_stand_beside_the_columns_of_the_input_with_their_types(tmp_path, ramctl):
    columns = {name: pa.array(values, kind) for name, (kind, values) in TYPED.items()}
    columns["color"] = pa.array(["red", "red", None]).dictionary_encode()
    columns |= {"image": [str(path) for path in PHOTOS[:3]], "nested": NESTED, "tags": [["x"]] * 3}
    parquet.write_table(pa.table(columns), tmp_path / "in.parquet")
    done = ramctl("tag", "in.parquet", "-f", "parquet", "-o", "x.parquet", "--progress")
    assert done.returncode == 0 and " 3/3 images [" in done.messages
    tagged = parquet.read_table(tmp_path / "x.parquet")
    for name, (kind, values) in TYPED.items():
        assert (tagged.schema.field(name).type, tagged[name].to_pylist()) == (kind, values)
    assert tagged["color"].to_pylist() == ["red", "red", None]
    assert json.loads(tagged["other"][0].as_py())["nested"]["a"] == 1
    as_lines = ramctl("tag", "in.parquet").rows
    assert tagged["tags"].to_pylist() == [row["tags"] for row in as_lines]
    back = ramctl("export", "x.parquet", "-f", "jsonl").rows
    assert [row["scores"] for row in back] == [row["scores"] for row in as_lines]
    for words in (["-o", "x.parquet", "--resume"], ["-o", "y.parquet", "-f", "jsonl"]):
        assert ramctl("tag", "in.parquet", "-f", "parquet", *words).returncode == 2


def test_files_whose_columns_have_other_types_lose_nothing(tmp_path, ramctl):
    for number, key in enumerate((5, "five")):
        table = pa.table({"image": [str(PHOTOS[number])], "key": [key]})
        parquet.write_table(table, tmp_path / f"{number}.parquet")
    ramctl("tag", "0.parquet", "1.parquet", "-f", "parquet", "-o", "x.parquet")
    rows = ramctl("export", "x.parquet", "-f", "jsonl").rows
    assert [row["key"] for row in rows] == [5, "five"]


def test_a_photo_without_a_name_gets_none(tmp_path, ramctl):
    images = [{"bytes": PHOTOS[0].read_bytes(), "path": None}]
    parquet.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    (row,) = ramctl("tag", "x.parquet").rows
    assert row["image"] == "x.parquet#0" and "path" not in row


def test_a_small_file_that_unfolds_to_gigabytes_is_not_unfolded(tmp_path, ramctl):
    rows = pa.DictionaryArray.from_arrays(
        pa.array([0] * 300, pa.int32()), pa.array([bytes(20_000_000)], pa.binary())
    )
    captions = pa.array(["a dog"] * 300)
    parquet.write_table(pa.table({"image": rows, "caption": captions}), tmp_path / "many.parquet")
    held = ParquetPhotos(tmp_path / "many.parquet")
    before = pa.total_allocated_bytes()
    assert held.read("299") == bytes(20_000_000)
    assert pa.total_allocated_bytes() - before < 100_000_000


@contextmanager
def arrow_memory() -> Iterator[list[int]]:
    """The most bytes that pyarrow held within, as the one item of what it gives."""
    pool, usual, most = pa.proxy_memory_pool(pa.system_memory_pool()), pa.default_memory_pool(), []
    pa.set_memory_pool(pool)
    try:
        yield most
    finally:
        pa.set_memory_pool(usual)
        most.append(pool.max_memory())


def many(text: str, number: int) -> "pa.DictionaryArray":
    return pa.DictionaryArray.from_arrays(pa.array([0] * number, pa.int32()), pa.array([text]))


def four_lists(values: "pa.Array") -> "pa.ListArray":
    n = len(values) // 4
    return pa.ListArray.from_arrays(pa.array([0, n, 2 * n, 3 * n, 4 * n], pa.int32()), values)


FOUR = pa.array(["a dog"] * 4)
BOMBS = {
    "zeros in one row": lambda: pa.ListArray.from_arrays(
        pa.array([0, 1, 50_000_000, 50_000_001, 50_000_001], pa.int32()),
        pa.array(np.zeros(50_000_001, np.uint8)),
    ),
    "a text of half a gigabyte": lambda: pa.array(["a", "b" * 500_000_000, "c", None]),
    "texts in lists": lambda: four_lists(many("x" * 1_000_000, 5000)),
    "texts in tables": lambda: pa.StructArray.from_arrays([many("x" * 70_000_000, 4)], ["part"]),
    "large texts": lambda: many("x" * 70_000_000, 4).cast(pa.large_string()),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_few_bytes_that_stand_for_gigabytes_are_not_unfolded(name, tmp_path):
    table = pa.table({"caption": FOUR, "big": BOMBS[name]()})
    path = tmp_path / "x.parquet"
    parquet.write_table(table, path, compression="zstd", store_schema=False)
    del table
    assert path.stat().st_size < 100_000
    with arrow_memory() as most:
        items, _, peak = traced(lambda: list(read_inputs([str(path)], None, "parse")))
    assert most[0] < 400_000_000
    assert peak < 5 * MAX_LINE
    assert len(items) == 4
    for item in items:
        if isinstance(item, Record):  # without the column
            assert item.fields == {"caption": "a dog"}
        else:
            assert item.code == "too_large"


def test_a_column_that_is_left_out_is_named_and_a_row_that_is_too_large_rejected(tmp_path, ramctl):
    large = pa.array(["x", "x" * MAX_LINE, "y", "z"])
    zeros = BOMBS["zeros in one row"]()
    table = pa.table({"captions": FOUR, "large": large, "zeros": zeros})
    parquet.write_table(table, tmp_path / "x.parquet")
    done = ramctl("parse", "x.parquet", "--rejects", "bad.jsonl")
    assert (done.returncode, [row["large"] for row in done.rows]) == (3, ["x", "y", "z"])
    assert done.messages.count("x.parquet: column 'zeros.list.element' left out") == 1
    (bad,) = map(json.loads, (tmp_path / "bad.jsonl").read_text().splitlines())
    assert (bad["line"], bad["code"]) == (2, "too_large")


def test_rows_are_read_a_few_at_a_time_however_large_their_group_is(tmp_path):
    n = 4000
    rows = {"image": [f"{row}.jpg" for row in range(n)], "list": [[row] * 300 for row in range(n)]}
    parquet.write_table(pa.table(rows), tmp_path / "x.parquet", row_group_size=n)
    del rows
    with arrow_memory() as most:
        items = read_inputs([str(tmp_path / "x.parquet")], None, "parse")
        n_values, _, peak = traced(lambda: sum(len(item.fields["list"]) for item in items))
    assert n_values == 300 * n
    assert most[0] < 5_000_000  # 9.6 MB of numbers
    assert peak < 5_000_000


def times(values: list, kind: "pa.DataType") -> "pa.Array":
    return pa.array(values, pa.int64()).cast(kind)


ODD = {
    "a time beyond Python's": (
        times([0, 10**18], pa.timestamp("us")),
        ["1970-01-01T00:00:00", "<value out of range: 1000000000000000000>"],
    ),
    "a date beyond Python's": (
        pa.array([0, 10**8], pa.int32()).cast(pa.date32()),
        ["1970-01-01", "<value out of range: 100000000>"],
    ),
    "an unknown zone": (
        times([0, 10**6], pa.timestamp("us", tz="Mars/Base")),
        [None, None],
    ),
    "times in lists": (
        pa.array([[0], [10**18, 1]], pa.list_(pa.timestamp("us"))),
        [["1970-01-01T00:00:00"], None],
    ),
    "times in tables": (
        pa.array([{"at": 0}, {"at": 10**18}], pa.struct({"at": pa.timestamp("us")})),
        [{"at": "1970-01-01T00:00:00"}, None],
    ),
    "durations": (times([0, 86400], pa.duration("s")), ["0:00:00", "1 day, 0:00:00"]),
    "numbers with a point": (pa.array([1, 2]).cast(pa.decimal256(60, 2)), ["1.00", "2.00"]),
    "what is no UTF-8": (pa.array([b"a\xff", b"b"]).view(pa.string()), ["a\\xff", "b"]),
    "bytes in tables": (pa.array([{"a": b"\xff", "b": 1}, {"a": b"x", "b": 2}]),
                        [{"b": 1}, {"b": 2}]),
    "pairs": (pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())), [[["a", 1]], []]),
    "no number": (pa.array([float("nan"), float("inf")]), [None, None]),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_a_value_without_a_form_in_json_loses_no_record(name, tmp_path):
    column, expected = ODD[name]
    table = pa.table({"captions": [["a dog"]] * 2, "odd": column})
    parquet.write_table(table, tmp_path / "x.parquet")
    rows = [item.fields for item in read_inputs([str(tmp_path / "x.parquet")], None, "parse")]
    assert rows == [{"captions": ["a dog"], "odd": value} for value in expected]


def test_finer_times_than_python_s_are_texts(tmp_path):
    kinds = {"at": pa.timestamp("ns"), "hour": pa.time64("ns"), "length": pa.duration("ns")}
    table = pa.table({name: times([1], kind) for name, kind in kinds.items()})
    parquet.write_table(table, tmp_path / "x.parquet")
    (record,) = read_inputs([str(tmp_path / "x.parquet")], None, "parse")
    assert all(isinstance(record.fields[name], str) for name in kinds)
    assert record.fields["at"] == "1970-01-01 00:00:00.000000001"


def test_columns_that_have_the_names_of_ours_are_those_of_others(tmp_path):
    other = {"other": ["no JSON", None], "embedding_model": ["m", None]}
    parquet.write_table(pa.table({"image": ["a", "b"], **other}), tmp_path / "x.parquet")
    rows = [item.fields for item in read_inputs([str(tmp_path / "x.parquet")], None, "parse")]
    assert rows[0] == {"image": "a", "other": "no JSON", "embedding_model": "m"}
    assert rows[1] == {"image": "b"}


def test_captions_beside_photos_are_parsed_and_trained_on(photos, ramctl, tmp_path):
    rows = ramctl("parse", "x.parquet").rows
    assert [(row["image"], row["tags"]) for row in rows[:2]] == [
        ("x.parquet#0", ["dog"]), ("x.parquet#1", ["dog"]),
    ]  # fmt: skip
    write_records(tmp_path / "p.jsonl", rows[:3])
    ramctl("export", "p.jsonl", "-f", "parquet", "-o", "p.parquet")
    words = ["--preset", "tiny", "--steps", "1", "--distill", "none", "--out", "m"]
    assert "3 in, 3 out" in ramctl("train", "p.parquet", *words).messages


def test_lines_are_not_written_under_the_name_of_parquet(tmp_path, ramctl):
    for words in (["tag", PHOTOS[0]], ["parse", "in.jsonl"], ["export", "in.jsonl", "-f", "csv"]):
        done = ramctl(*words, "-o", "x.parquet")
        assert done.returncode == 2 and "export -f parquet" in done.messages, done.messages
    assert not (tmp_path / "x.parquet.part").exists()


def test_what_is_no_parquet_is_said_in_one_line(tmp_path, ramctl):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    for words in (["parse"], ["export", "-f", "jsonl"], ["tag"], ["eval", "--truth", "x.parquet"]):
        done = ramctl(*words, "x.parquet")
        assert done.returncode == 1 and done.messages.count("\n") == 1, done.messages
        assert "x.parquet: " in done.messages
    assert ramctl("tag", "x.parquet#0", "--rejects", "-").returncode == 3
    parquet.write_table(pa.table({"n": [1]}), tmp_path / "n.parquet")
    assert "no column that can be captions; it has n" in ramctl("parse", "n.parquet").messages
