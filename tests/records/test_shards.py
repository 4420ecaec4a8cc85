"""`--shard I/N`: which inputs are whose, and that the joined outputs are those of one run."""

import io
import tarfile
from functools import partial
from itertools import chain

import click
import pytest

from ramctl.commands.options import read_shard
from ramctl.errors import RunProblem, UsageProblem
from ramctl.photos.finding import PhotoInputs, unread_photo_inputs
from ramctl.records.inputs import unread_inputs
from ramctl.records.record import Record
from ramctl.records.shards import ALL, Shard, shard_of
from tests.support import DATA, lines, read_photo_inputs, read_rows

LINES = [
    {"captions": [f"a {colour} {thing}"]} | extra
    for colour in ("red", "blue", "old")
    for thing, extra in (("horse", {}), ("boat", {"n": 1.50}), ("house", {"captions": 7}))
]


@pytest.mark.parametrize("number", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("total", [0, 1, 2, 6, 7, 8, 99, 1000])
def test_every_input_is_in_one_shard_and_shards_are_even(number, total):
    own = [Shard(index, number).positions(total) for index in range(1, number + 1)]
    assert list(chain.from_iterable(own)) == list(range(total))
    assert max(map(len, own)) - min(map(len, own)) <= 1
    assert len(own[0]) > 0 or total == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("4/3", "'4/3': shards count from 1/3 to 3/3"),
        ("0/3", "'0/3': shards count from 1/3 to 3/3"),
        ("0/0", "shards count from"),
        ("half", "'half' is not a shard such as 1/4"),
        ("1", "is not a shard"),
        ("-1/4", "is not a shard"),
        ("1/²", "is not a shard"),
    ],
)
def test_a_shard_that_there_is_not_is_wrong_usage_in_one_line(ramctl, text, says):
    with pytest.raises(click.BadParameter, match="shard"):
        read_shard(text)
    if text in ("4/3", "0/3", "half"):
        done = ramctl("parse", "--shard", text, "in.jsonl")
        assert done.returncode == 2
        assert says in done.stderr.decode() and done.stderr.count(b"\n") == 1


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Names of photos in every place where photos are found; none is looked at."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder/sub").mkdir(parents=True)
    for name in ("b.jpg", "a.png", "sub/c.jpg", "sub/d.jpg"):
        (tmp_path / "folder" / name).write_bytes(b"x")
    with tarfile.open("shard.tar", "w") as archive:
        for name in ("1.jpg", "1.txt", "2.jpg", "3.jpg"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    (tmp_path / "list.jsonl").write_text('{"image":"e.jpg"}\n\n{oops\n{"image":"f.jpg"}\n')
    return PhotoInputs(["one.jpg", "folder", "shard.tar", "list.jsonl"], recursive=True)


@pytest.mark.parametrize("number", [2, 3, 5])
def test_shards_of_photos_folders_archives_and_lists_make_up_the_input(photos, number):
    whole = list(read_photo_inputs(photos))
    assert len(whole) == 1 + 4 + 3 + 3
    shards = [Shard(index, number) for index in range(1, number + 1)]
    read = partial(unread_photo_inputs, photos)
    assert [item for one in shards for item in shard_of(one, photos.names, read)[0]] == whole


def test_photos_of_other_shards_are_not_looked_at(photos, monkeypatch):
    looked_at = []
    note = lambda name, base: looked_at.append(name) or ""  # noqa: E731
    monkeypatch.setattr("ramctl.photos.finding.photo_stamp", note)
    items, _ = shard_of(Shard(2, 5), photos.names, partial(unread_photo_inputs, photos))
    named = [item.fields["image"] for item in items if isinstance(item, Record)]
    assert looked_at == named == ["folder/sub/c.jpg", "folder/sub/d.jpg"]


def test_standard_input_is_shared_where_it_is_a_file(tmp_path, ramctl):
    (tmp_path / "in.jsonl").write_bytes(lines(LINES[:2]))
    done = ramctl.process("parse", "-q", "--shard", "1/2", stdin=b'{"captions":["a horse"]}\n')
    assert done.returncode == 2
    assert b"name a file, or redirect one" in done.stderr and done.stderr.count(b"\n") == 1
    with (tmp_path / "in.jsonl").open("rb") as stream:
        stream.readline()
        source = io.TextIOWrapper(stream)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdin", source)
            stream.seek(0)
            items, _ = shard_of(Shard(2, 2), ["-"], partial(unread_inputs, ["-"], None, "test"))
            assert [item.fields["captions"] for item in items] == [["a red boat"]]


def test_a_pipe_that_has_a_name_is_refused(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    names = [str(tmp_path / "pipe")]
    with pytest.raises(UsageProblem, match="pipe is not a file"):
        shard_of(Shard(1, 2), names, partial(unread_inputs, names, None, "test"))
    assert shard_of(ALL, names, lambda: iter(()))[1] == {}


def test_an_input_that_becomes_shorter_meanwhile_ends_the_run(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"a":1}\n' * 4)
    names = [str(path)]
    items, _ = shard_of(Shard(2, 2), names, partial(unread_inputs, names, None, "test"))
    path.write_text('{"a":1}\n' * 3)
    with pytest.raises(RunProblem, match="1 of the inputs have gone"):
        list(items)


def parsed(ramctl, *arguments: object, code: int = 3):
    done = ramctl("parse", "in.jsonl", *arguments)
    assert done.returncode == code, done.stderr
    return done


def test_the_shards_of_parse_joined_are_one_run(tmp_path, ramctl):
    """Rejects by the reader and by the stage, and an interrupted shard that is continued."""
    (tmp_path / "in.jsonl").write_bytes(b"{oops\n" + lines(LINES))
    parsed(ramctl, "-o", "whole", "--rejects", "rejects")
    for index in (3, 1, 2):
        own = ["--shard", f"{index}/3", "-o", f"out.{index}", "--rejects", f"rejects.{index}"]
        parsed(ramctl, *own, "-j", index)
        (tmp_path / f"out.{index}").rename(tmp_path / f"out.{index}.part")
        parsed(ramctl, *own, "--resume")
    for name, whole in (("out", "whole"), ("rejects", "rejects")):
        joined = b"".join((tmp_path / f"{name}.{index}").read_bytes() for index in (1, 2, 3))
        assert joined == (tmp_path / whole).read_bytes()
    assert joined.count(b"\n") == 4


def test_a_shard_is_continued_as_what_it_was(tmp_path, ramctl):
    (tmp_path / "in.jsonl").write_bytes(lines(LINES[:1]) * 4)
    parsed(ramctl, "-o", "out", "--shard", "1/2", code=0)
    done = parsed(ramctl, "-o", "out", "--shard", "1/2", "--resume", code=0)
    assert b"2 done before" in done.stderr
    for other in (["--shard", "2/2"], []):
        done = parsed(ramctl, "-o", "out", *other, "--resume", code=1)
        assert b"the earlier part was made with another shard" in done.stderr
    (tmp_path / "in.jsonl").write_bytes(lines(LINES[:1]) * 8)
    done = parsed(ramctl, "-o", "out", "--shard", "1/2", "--resume", code=1)
    assert b"another shard" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["parse", "--group"],
        ["parse", "--build-labels", "labels.jsonl"],
        ["parse", "-f", "ram", "--labels", "words.txt"],
        ["export", "-f", "coco"],
        ["clean"],
    ],
)
def test_what_needs_all_records_refuses_a_shard(tmp_path, ramctl, arguments):
    (tmp_path / "words.txt").write_text("horse\n")
    (tmp_path / "in.jsonl").write_text('{"captions":["a horse"]}\n')
    done = ramctl(*arguments, "in.jsonl", "--shard", "1/2")
    assert done.returncode == 2 and b"shard" in done.stderr and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_the_shards_of_tag_joined_are_one_run(tmp_path, ramctl, form):
    common = ["tag", "-q", "-R", DATA / "photos", "-f", form, "-j1", "--threads", "1"]
    whole = ramctl(*common).stdout
    shards = [ramctl(*common, "--shard", f"{index}/3", "-b1").stdout for index in (1, 2, 3)]
    assert b"".join(shards) == whole and all(shards)


def test_the_shards_of_generate_joined_are_one_run(tmp_path, ramctl, tiny_bundle):
    records = read_rows(DATA / "captions.jsonl")[:5]
    records.insert(2, {"image": "none.jpg"})
    (tmp_path / "in.jsonl").write_bytes(lines({"tags": [], **record} for record in records))
    common = ["generate", "in.jsonl", "--model", tiny_bundle, "--root", DATA, "--threads", "1"]
    common += ["--rejects", "-"]
    done = ramctl(*common, "-q")
    shards = [ramctl(*common, "-q", "--shard", f"{index}/2") for index in (1, 2)]
    assert b"".join(shard.stdout for shard in shards) == done.stdout
    assert b"".join(shard.stderr for shard in shards) == done.stderr
    assert done.stdout.count(b"\n") == 5 and done.stderr.count(b"\n") == 1
