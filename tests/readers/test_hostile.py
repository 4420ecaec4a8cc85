"""Small files that would take all memory."""

import gzip
import subprocess
import sys

import pytest

from tests.photos.test_memory import HIGHEST, needs_linux

pytestmark = needs_linux

READ = HIGHEST + (
    "import resource\n"
    "from ramctl.errors import RunProblem\n"
    "from ramctl.readers import caption_tables, json_lists\n"
    "from ramctl.readers.source import Source\n"
    "from ramctl.records import parquet\n"
    "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
    "name, others = sys.argv[1], lambda source: parquet.json_lines(source.name)\n"
    "read = getattr(json_lists, name, None) or getattr(caption_tables, name, others)\n"
    "try:\n"
    "    print(sum(1 for _ in read(Source(sys.argv[2], Path(), 'parse'))))\n"
    "except RunProblem as problem:\n"
    "    print(problem.message)\n"
    "print(highest())\n"
)


def read(reader: str, path) -> tuple[str, int]:
    """What a reader says, or how many records it gives, and the bytes that this takes."""
    done = subprocess.run(
        [sys.executable, "-c", READ, reader, str(path)], capture_output=True, text=True, check=True
    )
    said, peak = done.stdout.splitlines()
    return said, int(peak)


@pytest.mark.parametrize(
    ("reader", "before", "after"),
    [
        ("read_objects", "[", "]"), ("read_visual_genome", '[{"regions":', "}]"),
        ("read_coco", '{"images":[],"annotations":[{"caption":"[","x":', "}]}"),
        ("read_sbu", '{"a\\\\\\"[":', "}"), ("read_objects", '[{"caption": "]]]]", "x": ', "}]"),
    ],
)  # fmt: skip
def test_json_that_is_nested_without_end_is_not_read(tmp_path, reader, before, after):
    path = tmp_path / "deep.json"
    path.write_text(before + "[" * 100_000 + "]" * 100_000 + after)
    said, peak = read(reader, path)
    assert said == f"{path}: not the expected JSON: nested more than 1024 levels deep"
    assert peak < 400_000_000


def test_json_of_many_shallow_objects_is_read(tmp_path):
    path = tmp_path / "wide.json"
    row = '{"image": "a.jpg", "caption": "[[ \\" { \\\\", "x": [[[[[[{"y": {}}]]]]]]}'
    path.write_text("[" + ",".join([row] * 20_000) + "]")
    assert read("read_objects", path)[0] == "20000"


@pytest.mark.slow
def test_a_text_that_comes_in_many_rows_of_parquet_is_there_once(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
    from pyarrow import parquet

    rows, texts = pa.array([0] * 300, pa.int32()), pa.array(["y" * 5_000_000])
    column = pa.DictionaryArray.from_arrays(rows, texts)
    path = tmp_path / "wide.parquet"
    parquet.write_table(pa.table({"image": ["a.jpg"] * 300, "caption": column}), path)
    assert path.stat().st_size < 6_000_000
    said, peak = read("parquet", path)
    assert (said, peak < 1_000_000_000) == ("300", True), peak


@pytest.mark.parametrize("cell", [b"a" * 1000, b"a,", b'"a\nb",'])
def test_a_row_of_a_table_that_has_no_end_is_not_read(tmp_path, cell):
    path = tmp_path / "a.csv.gz"
    with gzip.open(path, "wb", 1) as packed:
        packed.write(b"image,caption\n")
        for _ in range(100):
            packed.write(cell * (1_000_000 // len(cell)))
    said, peak = read("read_csv", path)
    assert said == f"{path}:2: a row of more than 64000000 characters"
    assert peak < 1 << 30
