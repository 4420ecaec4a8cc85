"""Records and tars of photos at URLs, read as they arrive."""

import gzip
from pathlib import Path

import fsspec
import pytest

from ramctl.errors import RunProblem, UsageProblem
from ramctl.photos.finding import PhotoInputs
from ramctl.records.inputs import read_inputs
from tests.support import DATA, read_photo_inputs, web_folder, write_tar

RECORDS = b'{"image":"1.jpg"}\n{oops\n{"image":"2.jpg"}\n'
NAMES = ("kite.jpg", "pasture.jpg")


def test_records_at_a_url_are_those_of_the_file(tmp_path):
    (tmp_path / "records.jsonl").write_bytes(RECORDS)
    (tmp_path / "records.jsonl.gz").write_bytes(gzip.compress(RECORDS))
    fsspec.filesystem("memory").pipe_file("/records.jsonl", RECORDS)
    with web_folder(tmp_path) as web:
        for url in (f"{web}/records.jsonl", f"{web}/records.jsonl.gz", "memory://records.jsonl"):
            found = list(read_inputs([url], None, "parse"))
            assert [item.line for item in found] == [1, 2, 3]
            assert found[0].base == Path() and found[1].code == "bad_json"


def test_photos_of_a_tar_at_a_url_are_tagged_as_those_of_a_file(tmp_path, ramctl):
    photos = {name: (DATA / "photos" / name).read_bytes() for name in NAMES}
    write_tar(tmp_path / "a.tar", **photos, **{"notes.txt": b"words", "bad.jpg": b"no photo"})
    options = ["tag", "-q", "--rejects", "rejects.jsonl"]
    expected = ramctl(*options, "a.tar")
    with web_folder(tmp_path) as web:
        done = ramctl(*options, f"{web}/a.tar")
        image = f"{web}/a.tar#"
    assert (done.returncode, expected.returncode) == (3, 3)
    assert [row.pop("image") for row in done.rows] == [image + name for name in NAMES]
    for row in expected.rows:
        del row["image"]
    assert [row["tags"] for row in done.rows] == [row["tags"] for row in expected.rows]
    assert f"{image}bad.jpg" in (tmp_path / "rejects.jsonl").read_text()


def test_what_cannot_be_read_is_named_in_one_line(tmp_path):
    (tmp_path / "no.tar").write_bytes(b"words" * 1000)
    with web_folder(tmp_path) as web:
        for url in (f"{web}/none.jsonl", "nonsense://x/y.jsonl", "http://127.0.0.1:9/x.jsonl"):
            with pytest.raises(RunProblem, match=rf"^{url}: .+") as problem:
                list(read_inputs([url], None, "parse"))
            assert "\n" not in problem.value.message
        with pytest.raises(RunProblem, match=rf"^{web}/no\.tar: "):
            list(read_photo_inputs(PhotoInputs([f"{web}/no.tar"])))
    with pytest.raises(UsageProblem, match="must be records, or a tar"):
        list(read_photo_inputs(PhotoInputs([f"{web}/a.jpg"])))
