"""Which photos the inputs of `tag` name, in which order, and when one has changed."""

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from ramctl.errors import UsageProblem
from ramctl.photos.decoding import load_photo
from ramctl.photos.finding import PhotoInputs
from tests.support import read_photo_inputs


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
    listed = ["in/a.PNG", "in/b.jpg", "in/link.jpg", "in/sub/c.webp"]
    assert images("in", recursive=True) == listed
    with pytest.raises(UsageProblem, match="-R"):
        images("in")


def test_folders_that_programs_leave_are_passed_over(folder):
    for name in ("@eaDir/b.jpg", "#recycle", "sub/.thumbnails"):
        path = folder / "in" / name / "x.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    (folder / "in/#recycle.jpg").write_bytes(b"")
    listed = ["in/#recycle.jpg", "in/a.PNG", "in/b.jpg", "in/sub/c.webp"]
    assert images("in", recursive=True) == listed
    assert images("in/#recycle", recursive=True) == ["in/#recycle/x.jpg"]  # named by the user


def test_raw_files_and_jpeg_2000_are_photos_in_folders(folder):
    for name in ("IMG_1.CR2", "IMG_2.dng"):
        (folder / name).write_bytes(b"")
    Image.new("RGB", (8, 6)).save(folder / "IMG_3.jp2")
    assert images(".", recursive=True)[:3] == ["./IMG_1.CR2", "./IMG_2.dng", "./IMG_3.jp2"]
    assert load_photo("IMG_3.jp2").size == (8, 6)


def test_named_files_are_photos_whatever_they_are_called(folder):
    assert images("in/notes.txt", "nowhere.jpg") == ["in/notes.txt", "nowhere.jpg"]
    with pytest.raises(UsageProblem, match="no such file"):
        images("nowhere.tar")


def test_a_folder_that_is_not_there_is_wrong_usage(folder):
    with pytest.raises(UsageProblem, match=r"^nowhere: no such file$"):
        images("nowhere", "in", recursive=True)


def test_names_on_standard_input_end_with_newlines_or_nul(folder, monkeypatch):
    lines = b'\xef\xbb\xbfa.jpg\r\nb.jpg\n\n{"image":"c.jpg"}\n'
    assert images("-", stdin=lines, monkeypatch=monkeypatch) == ["a.jpg", "b.jpg", "c.jpg"]
    long = "d" * 200
    names = [f"{i}-{long}.jpg" for i in range(1000)]  # more than one block
    nul = "\0".join(names).encode()
    assert images("-", stdin=nul, monkeypatch=monkeypatch, null=True) == names
    assert images("-", stdin=b"a\n.jpg\0", monkeypatch=monkeypatch, null=True) == ["a\n.jpg"]


def stamp_of(name) -> str:
    return next(iter(read_photo_inputs(PhotoInputs([name])))).stamp


def test_a_photo_has_changed_when_its_time_or_its_size_has(folder):
    path = Path("in/b.jpg")
    stamps = {stamp_of("in/b.jpg")}
    os.utime(path, ns=(1, 1))
    stamps.add(stamp_of("in/b.jpg"))
    path.write_bytes(b"longer than before")
    os.utime(path, ns=(1, 1))
    stamps.add(stamp_of("in/b.jpg"))
    assert len(stamps) == 3
    assert stamp_of("nowhere.jpg") == ""
