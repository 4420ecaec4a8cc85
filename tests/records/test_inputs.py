"""Inputs: files that are packed, damaged or endless, their folder, and `--shard I/N`."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from ramctl.errors import RunProblem
from ramctl.photos.finding import PhotoInputs, photo_items
from ramctl.records.inputs import Shard, open_input, read_inputs
from ramctl.records.record import Record
from tests.support import DATA, lines

LINES = [{"captions": [f"a {name}"]} for name in ("horse", "boat", "house", "dog", "cat")]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_what_is_no_whole_gzip_is_named_and_members_are_one_after_the_other():
    one, other = gzip.compress(b'{"a":1}\n'), gzip.compress(b'{"a":2}\n')
    Path("both.GZ").write_bytes(one + other)
    with open_input("both.GZ") as opened:
        assert opened.read() == b'{"a":1}\n{"a":2}\n'
    for content in (one + other[:-6], one[:9], b'{"a":1}\n'):
        Path("bad.gz").write_bytes(content)
        with pytest.raises(RunProblem, match=r"^bad\.gz: "), open_input("bad.gz") as opened:
            opened.read()


def test_a_packed_file_is_read_and_a_torn_one_leaves_no_output(ramctl):
    rows = lines({"image": f"{number}.jpg", "tags": ["sky"]} for number in range(4000))
    packed = gzip.compress(rows)
    words = ["export", "in.jsonl.gz", "-f", "jsonl", "-o", "out"]
    Path("in.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    done = ramctl(*words)
    assert (done.returncode, done.messages.count("\n")) == (1, 1)
    assert done.messages.startswith("ramctl export: in.jsonl.gz: ") and not Path("out").exists()
    Path("in.jsonl.gz").write_bytes(packed)
    assert ramctl(*words).returncode == 0
    assert Path("out").read_bytes().count(b"\n") == 4000


def test_a_packed_list_of_photos_is_read(ramctl):
    Path("in.jsonl.gz").write_bytes(gzip.compress(lines([{"image": "kite.jpg"}])))
    (row,) = ramctl("tag", "in.jsonl.gz", "--root", DATA / "photos").rows
    assert row["image"] == "kite.jpg" and row["tags"]


def test_the_root_replaces_the_folder_of_the_input():
    Path("in").mkdir()
    Path("in/in.jsonl").write_text('{"a":1}\n')
    for root, base in ((None, Path("in")), ("photos", Path("photos"))):
        assert next(read_inputs(["in/in.jsonl"], root, "test")).base == base


def test_a_fifo_is_read_as_it_comes(ramctl):
    os.mkfifo("fifo")
    run = ramctl.start("export", "fifo", "-f", "jsonl", "-q")
    with Path("fifo").open("w") as stream:
        stream.write('{"image":"a.jpg","tags":[]}\n' * 3)
    out, _ = run.communicate(timeout=60)
    assert (run.returncode, len(out.splitlines())) == (0, 3)


def test_after_a_damaged_header_an_archive_of_captions_is_a_reject(ramctl):
    info = tarfile.TarInfo("a.txt")
    info.size = 7
    good = info.tobuf() + b"a horse" + bytes(505)
    Path("a.tar").write_bytes(good + b"\1" * 512 + good + bytes(1024))
    done = ramctl("parse", "a.tar")
    assert (done.returncode, [row["tags"] for row in done.rows]) == (3, [["horse"]])
    assert "not a readable tar archive: invalid header" in done.messages


def test_shards_of_photos_folders_archives_and_lists_make_up_the_input():
    Path("folder/sub").mkdir(parents=True)
    for name in ("b.jpg", "a.png", "sub/c.jpg", "sub/d.jpg"):
        Path("folder", name).write_bytes(b"x")
    with tarfile.open("shard.tar", "w") as archive:
        for name in ("1.jpg", "1.txt", "2.jpg", "3.jpg"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    Path("list.jsonl").write_text('{"image":"e.jpg"}\n\n{oops\n{"image":"f.jpg"}\n')
    photos = PhotoInputs(["one.jpg", "folder", "shard.tar", "list.jsonl"], recursive=True)
    whole = [content_of(item) for item in photo_items(photos)]
    assert len(whole) == 1 + 4 + 3 + 3
    for index in (1, 2, 3):
        own = [content_of(item) for item in Shard(index, 3).of(photo_items(photos))]
        assert own == whole[index - 1 :: 3]


def content_of(item) -> object:
    return item.fields if isinstance(item, Record) else item.raw


def test_the_shards_of_grouped_records_have_whole_photos(ramctl):
    rows = [{"image": f"{n % 5}.jpg", "captions": [f"a dog {n}"]} for n in range(20)]
    whole = ramctl("parse", "--group", stdin=lines(rows)).rows
    words = ["parse", "--group", "--shard"]
    parts = [ramctl(*words, f"{n}/2", stdin=lines(rows)).rows for n in (1, 2)]
    assert all(parts)
    assert sorted([*parts[0], *parts[1]], key=lambda row: row["image"]) == whole


def test_the_shards_of_parse_make_up_one_run_and_each_is_continued_as_what_it_was(ramctl):
    content = lines(LINES)
    Path("in.jsonl").write_bytes(content)
    whole = ramctl("parse", "in.jsonl").rows
    for index in (1, 2):
        assert ramctl("parse", "--shard", f"{index}/2", stdin=content).rows == whole[index - 1 :: 2]
    words = ["parse", "in.jsonl", "-o", "out"]
    assert ramctl(*words, "--shard", "1/2").returncode == 0
    assert "3 done before" in ramctl(*words, "--shard", "1/2", "--resume").messages
    for other in (["--shard", "2/2"], []):
        done = ramctl(*words, *other, "--resume")
        assert done.returncode == 2 and "made with another --shard" in done.messages


@pytest.mark.parametrize(
    "words",
    [
        *(["parse", f"--shard={text}"] for text in ("4/3", "0/3", "half", "1", "1/²")),
        ["parse", "--build-labels", "labels.jsonl", "--shard", "1/2"],
        ["clean", "--shard", "1/2"],  # which needs all records
    ],
)
def test_a_shard_that_there_is_not_is_wrong_usage(words, ramctl):
    Path("in.jsonl").write_text(json.dumps(LINES[0]) + "\n")
    done = ramctl(*words, "in.jsonl")
    assert (done.returncode, done.messages.count("\n")) == (2, 1)
    assert "shard" in done.messages and not done.stdout
