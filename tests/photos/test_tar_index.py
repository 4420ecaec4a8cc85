"""The members of an archive that is opened again and again: right, and scanned no third time."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from ramctl.errors import RecordProblem
from ramctl.photos import archives
from ramctl.photos.archives import TarIndex, open_archive

LIMIT = 1000
CONTENT = {"a.jpg": b"one", "sub/b.jpg": b"second", "caf\udce9.jpg": b"", "z.txt": b"words"}


def write(path: Path, content=None) -> Path:
    with tarfile.open(path, "w") as tar:
        for place, (name, data) in enumerate([*(content or CONTENT).items(), ("a.jpg", b"other")]):
            header = tarfile.TarInfo(name)
            header.size, header.mtime = len(data), place + (0.5 if place == 1 else 0)
            tar.addfile(header, io.BytesIO(data))
    return path


def opened(path: Path, times: int = 1):
    """The archive, as if many others had been open after each of the times before."""
    for _ in range(times):
        archives._index.cache_clear()
        found = open_archive(path)
    return found


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_members", {})
    (tmp_path / "photos").mkdir()
    return write(tmp_path / "photos" / "shard.tar")


def facts(index):
    return {name: (index.read(name, LIMIT), index.stamp(name)) for name in CONTENT}


def test_an_archive_that_is_opened_again_is_not_scanned_again(archive, monkeypatch):
    expected = facts(opened(archive))
    assert expected["a.jpg"] == (b"one", "3-0.0") and expected["sub/b.jpg"][1] == "6-1.5"
    assert list(opened(archive).members()) == list(CONTENT)
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("scanned again"))
    again = opened(archive)
    assert facts(again) == expected
    with pytest.raises(RecordProblem, match="no such member") as caught:
        again.read("none.jpg", LIMIT)
    assert caught.value.code == "missing_image"


def test_what_another_thread_has_read_on_meanwhile_is_found(archive, monkeypatch):
    read_on, names = TarIndex._read_on, list(TarIndex(archive).members())

    def late(index, *arguments):
        while read_on(index, len(index._names)):  # another thread comes to the end first
            pass
        return read_on(index, *arguments)

    monkeypatch.setattr(TarIndex, "_read_on", late)
    assert TarIndex(archive).stamp(names[-1]) and list(TarIndex(archive).members()) == names


def test_a_changed_archive_is_scanned_anew(archive):
    opened(archive, 2)
    write(archive, {"new.jpg": b"new", "a.jpg": b"changed"})
    os.utime(archive, ns=(5, 5))
    for _ in range(3):
        assert opened(archive).read("a.jpg", LIMIT) == b"changed"
    with pytest.raises(RecordProblem, match="no such member"):
        opened(archive).read("sub/b.jpg", LIMIT)


def test_nothing_is_kept_of_a_damaged_archive(archive):
    good, bad = tarfile.TarInfo("a.jpg"), tarfile.TarInfo("b.jpg")
    good.size, bad.size = 3, 1 << 40
    archive.write_bytes(good.tobuf() + b"one" + bytes(509) + bad.tobuf())
    for _ in range(3):
        assert opened(archive).read("a.jpg", LIMIT) == b"one"
    assert not any(archives._members.values())
