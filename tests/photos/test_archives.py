"""The members of an archive: found by one read of its headers, as far as they are whole."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from ramctl.errors import RecordProblem
from ramctl.photos.archives import TarIndex, open_archive
from ramctl.photos.decoding import read_photo
from tests.support import problem_of

CONTENT = {"a.jpg": b"one", "sub/b.jpg": b"second", "caf\udce9.jpg": b"", "z.txt": b"words"}


def write(path: Path, content=None) -> Path:
    with tarfile.open(path, "w") as tar:
        for place, (name, data) in enumerate([*(content or CONTENT).items(), ("a.jpg", b"other")]):
            header = tarfile.TarInfo(name)
            header.size, header.mtime = len(data), place + (0.5 if place == 1 else 0)
            tar.addfile(header, io.BytesIO(data))
    return path


@pytest.fixture
def archive(tmp_path):
    return write(tmp_path / "shard.tar")


def test_an_archive_is_scanned_once_until_it_changes(archive, monkeypatch):
    index = open_archive(archive)
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("scanned again"))
    assert open_archive(archive) is index
    assert list(index.members()) == list(CONTENT)
    assert {name: index.read(name) for name in CONTENT} == CONTENT
    assert (index.stamp("a.jpg"), index.stamp("sub/b.jpg")) == ("3-0.0", "6-1.5")
    for name in ("shard.tar#none.jpg", "none.tar#a.jpg"):
        assert problem_of(read_photo, name, archive.parent).code == "missing_image"
    monkeypatch.undo()
    write(archive, {"new.jpg": b"new", "a.jpg": b"changed"})
    os.utime(archive, ns=(5, 5))
    assert open_archive(archive).read("a.jpg") == b"changed"
    assert problem_of(open_archive(archive).read, "sub/b.jpg").code == "missing_image"


def test_of_a_damaged_archive_what_is_whole_is_read_and_the_damage_told(archive):
    whole = archive.read_bytes()
    second = whole.index(b"sub/b.jpg")
    broken = whole[: second + 100] + b"?" + whole[second + 101 :]
    for content, names in (
        (broken, ["a.jpg"]), (whole[: second + 200], ["a.jpg"]),
        (whole[: second + 515], ["a.jpg", "sub/b.jpg"]), (b"words" * 1000, []),
    ):  # fmt: skip
        archive.write_bytes(content)
        index, found = TarIndex(archive), []
        with pytest.raises(RecordProblem, match="not a readable tar archive") as caught:
            found.extend(iter(index.members().__next__, None))
        assert caught.value.code == "unreadable_image" and list(index._places) == names
    archive.write_bytes(whole[: second + 515])
    index = TarIndex(archive)
    assert index.read("a.jpg") == b"one"
    for name in ("sub/b.jpg", "z.txt"):
        assert problem_of(index.read, name).code == "unreadable_image"
