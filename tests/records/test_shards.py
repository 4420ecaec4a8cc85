"""`--shard I/N`: every N-th input, from files, folders, archives and pipes."""

import io
import tarfile

import pytest

from ramctl.photos.finding import PhotoInputs, photo_items
from ramctl.records.record import Record
from ramctl.records.shards import Shard
from tests.support import lines

LINES = [{"captions": [f"a {name}"]} for name in ("horse", "boat", "house", "dog", "cat")]


@pytest.mark.parametrize("text", ["4/3", "0/3", "0/0", "half", "1", "-1/4", "1/²"])
def test_a_shard_that_there_is_not_is_wrong_usage_in_one_line(ramctl, text):
    done = ramctl("parse", f"--shard={text}", "in.jsonl")
    assert done.returncode == 2 and "is not a shard" in done.messages
    assert done.stderr.count(b"\n") == 1


def test_shards_of_photos_folders_archives_and_lists_make_up_the_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder/sub").mkdir(parents=True)
    for name in ("b.jpg", "a.png", "sub/c.jpg", "sub/d.jpg"):
        (tmp_path / "folder" / name).write_bytes(b"x")
    with tarfile.open("shard.tar", "w") as archive:
        for name in ("1.jpg", "1.txt", "2.jpg", "3.jpg"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    (tmp_path / "list.jsonl").write_text('{"image":"e.jpg"}\n\n{oops\n{"image":"f.jpg"}\n')
    photos = PhotoInputs(["one.jpg", "folder", "shard.tar", "list.jsonl"], recursive=True)
    whole = [*photo_items(photos)]
    assert len(whole) == 1 + 4 + 3 + 3
    for index in (1, 2, 3):
        own = [*Shard(index, 3).of(photo_items(photos))]
        assert [vars_of(item) for item in own] == [vars_of(item) for item in whole[index - 1 :: 3]]


def vars_of(item) -> object:
    return item.fields if isinstance(item, Record) else item.raw


def test_the_shards_of_parse_make_up_one_run_and_each_is_continued_as_what_it_was(tmp_path, ramctl):
    content = lines(LINES)
    (tmp_path / "in.jsonl").write_bytes(content)
    whole = ramctl("parse", "in.jsonl").rows
    for index in (1, 2):
        assert ramctl("parse", "--shard", f"{index}/2", stdin=content).rows == whole[index - 1 :: 2]
    words = ["parse", "in.jsonl", "-o", "out"]
    assert ramctl(*words, "--shard", "1/2").returncode == 0
    assert "3 done before" in ramctl(*words, "--shard", "1/2", "--resume").messages
    for other in (["--shard", "2/2"], []):
        done = ramctl(*words, *other, "--resume")
        assert done.returncode == 1 and "made with another shard" in done.messages


@pytest.mark.parametrize(
    "arguments", [["parse", "--group"], ["parse", "--build-labels", "labels.jsonl"], ["clean"]]
)
def test_what_needs_all_records_refuses_a_shard(tmp_path, ramctl, arguments):
    (tmp_path / "in.jsonl").write_text('{"captions":["a horse"]}\n')
    done = ramctl(*arguments, "in.jsonl", "--shard", "1/2")
    assert done.returncode == 2 and b"shard" in done.stderr and done.stderr.count(b"\n") == 1
