"""Which photos inputs name, in which order, and when one has changed; records and tars at URLs."""

import gzip
import io
import os
from pathlib import Path

import fsspec
import pytest

from ramctl.errors import RunProblem, UsageProblem
from ramctl.photos.finding import PhotoInputs
from ramctl.records.inputs import read_inputs
from tests.support import DATA, read_photo_inputs, web_folder, write_tar

RECORDS = b'{"image":"1.jpg"}\n{oops\n{"image":"2.jpg"}\n'
NAMES = ("kite.jpg", "pasture.jpg")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of a folder and one below; only their names matter."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in/sub").mkdir(parents=True)
    for name in ("b.jpg", "a.PNG", ".hidden.jpg", "notes.txt", "sub/c.webp", "sub/d.json"):
        (tmp_path / "in" / name).write_bytes(name.encode())
    return tmp_path


def images(*names, stdin=b"", monkeypatch=None, **options) -> list:
    if monkeypatch:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    return [item.fields["image"] for item in read_photo_inputs(PhotoInputs(names, **options))]


def test_a_folder_s_photos_come_by_name_without_hidden_and_other_files_and_linked_folders(folder):
    (folder / "in/link").symlink_to(folder / "in/sub")
    (folder / "in/link.jpg").symlink_to(folder / "in/b.jpg")
    for name in ("#recycle", "@eaDir", "sub/.thumbnails"):  # which programs leave
        (folder / "in" / name).mkdir()
        (folder / "in" / name / "x.jpg").write_bytes(b"")
    for name in ("in/IMG.CR2", "in/IMG.jp2"):
        (folder / name).write_bytes(b"")
    listed = ["in/IMG.CR2", "in/IMG.jp2", "in/a.PNG", "in/b.jpg", "in/link.jpg", "in/sub/c.webp"]
    assert images("in", recursive=True) == listed
    assert images("in/#recycle", recursive=True) == ["in/#recycle/x.jpg"]  # named by the user
    with pytest.raises(UsageProblem, match="-R"):
        images("in")


def test_named_files_are_photos_whatever_they_are_called(folder):
    assert images("in/notes.txt", "nowhere.jpg") == ["in/notes.txt", "nowhere.jpg"]
    for names in (["nowhere.tar"], ["nowhere", "in"]):
        with pytest.raises(UsageProblem, match=rf"^{names[0]}: no such file$"):
            images(*names, recursive=len(names) > 1)


def test_names_on_standard_input_end_with_newlines_or_nul(folder, monkeypatch):
    lines = b'\xef\xbb\xbfa.jpg\r\nb.jpg\n\n{"image":"c.jpg"}\n'
    assert images("-", stdin=lines, monkeypatch=monkeypatch) == ["a.jpg", "b.jpg", "c.jpg"]
    names = ["a\n.jpg", *(f"{i}-{'d' * 200}.jpg" for i in range(1000))]  # more than one block
    nul = "\0".join(names).encode()
    assert images("-", stdin=nul, monkeypatch=monkeypatch, null=True) == names


def test_a_photo_has_changed_when_its_time_or_its_size_has(folder):
    stamps = []
    for content, time in ((b"photo", 1), (b"photo", 2), (b"another", 2)):
        (folder / "b.jpg").write_bytes(content)
        os.utime("b.jpg", ns=(time, time))
        stamps += [item.stamp for item in read_photo_inputs(PhotoInputs(["b.jpg", "nowhere.jpg"]))]
    assert len(set(stamps)) == 4 and stamps[1::2] == [""] * 3


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
    with web_folder(tmp_path) as web:
        found = [ramctl("tag", name) for name in ("a.tar", f"{web}/a.tar")]
    assert all("3 in, 2 out, 1 rejected" in done.messages for done in found)
    rows = [[(row["image"].split("#")[1], row["tags"]) for row in done.rows] for done in found]
    assert rows[0] == rows[1] and len(rows[0]) == 2
    assert found[1].rows[0]["image"] == f"{web}/a.tar#{NAMES[0]}"


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
