"""A name that ends in `.gz` is gzip, whichever command reads or writes it; nothing else is."""

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from ramctl.errors import RunProblem
from ramctl.records.inputs import open_input
from tests.records.test_stream import LINES, crash_at, run
from tests.support import DATA, command, gallery_names

__all__ = ["command"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def unpacked(name: str) -> bytes:
    return gzip.decompress(Path(name).read_bytes())


def stream(out: str = "out.gz", lines=LINES, **options):
    return run(Path(), lines, out=out, rejects=f"no-{out}", **options)


def test_the_content_is_that_of_a_plain_file_and_the_bytes_are_the_same_each_time():
    stream("out")
    stream()
    assert unpacked("out.gz") == Path("out").read_bytes()
    assert unpacked("no-out.gz") == Path("no-out").read_bytes()
    before = Path("out.gz").read_bytes()
    Path("out.gz").unlink()
    os.utime(".", (0, 0))
    stream()
    assert Path("out.gz").read_bytes() == before


def test_a_finished_file_is_continued_and_left_alone_where_there_is_nothing_to_do():
    stream(lines=LINES[:3])
    stream(resume=True)
    stream("out")
    assert unpacked("out.gz") == Path("out").read_bytes()
    before = Path("out.gz").stat().st_ino
    assert stream(resume=True).n_skipped == 5
    assert Path("out.gz").stat().st_ino == before
    names = {"out", "no-out", "out.gz", "no-out.gz"}
    states = {".out.state.jsonl", ".out.gz.state.jsonl"}
    assert {path.name for path in Path().iterdir()} == names | states


def test_time_limits_and_pruned_records():
    stream(lines=LINES[:2])
    assert stream(resume=True, max_time=0.0).n_left == 3
    assert unpacked("out.gz").count(b"\n") == 1
    stream(resume=True)
    stream(lines=LINES[:2], resume=True, is_gone=lambda key: key == "2")
    assert [json.loads(line)["a"] for line in unpacked("out.gz").splitlines()] == [1, 3]


def test_a_torn_part_is_cut_as_that_of_a_plain_file_is():
    with pytest.raises(OSError, match="power cut"):
        stream(do=crash_at(3))
    with Path("out.gz.part").open("ab") as part:
        part.write(b'{"half a li')
    stream(resume=True)
    stream("out")
    assert unpacked("out.gz") == Path("out").read_bytes()


def test_what_is_no_whole_gzip_is_named_and_members_are_one_after_the_other():
    one, other = gzip.compress(b'{"a":1}\n'), gzip.compress(b'{"a":2}\n')
    Path("both.GZ").write_bytes(one + other)
    with open_input("both.GZ") as opened:
        assert opened.read() == b'{"a":1}\n{"a":2}\n'
    for content in (one + other[:-6], one[:9], b"", b'{"a":1}\n'):
        Path("bad.gz").write_bytes(content)
        with pytest.raises(RunProblem, match=r"^bad\.gz: "), open_input("bad.gz") as opened:
            opened.read()
    Path("out.gz").write_bytes(b'{"a":1}\n')
    Path(".out.gz.state.jsonl").write_bytes(b'{"format":1,"command":"test","fingerprint":{}}\n')
    with pytest.raises(RunProblem, match=r"out\.gz: Not a gzipped file"):
        stream(resume=True)
    assert Path("out.gz").read_bytes() == b'{"a":1}\n'


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_of_that_name_is_compressed_too():
    from threading import Thread

    os.mkfifo("out.gz")
    found = []
    reader = Thread(target=lambda: found.append(Path("out.gz").read_bytes()))
    reader.start()
    run(Path(), LINES[:1], out="out.gz")
    reader.join()
    stream("out", LINES[:1])
    assert gzip.decompress(found[0]) == Path("out").read_bytes() and Path("out.gz").is_fifo()


def test_parse_reads_what_it_writes(command):
    words = ["parse", "-q", DATA / "captions.jsonl"]
    command(*words, "-o", "plain.jsonl")
    command(*words, "-o", "p.jsonl.gz", "--rejects", "no.jsonl.gz", "--stats", "stats.json.gz")
    assert unpacked("p.jsonl.gz") == Path("plain.jsonl").read_bytes()
    assert unpacked("no.jsonl.gz") == b""
    assert json.loads(unpacked("stats.json.gz"))["out"] == 8
    command("parse", "-q", "p.jsonl.gz", "-o", "again.jsonl.gz")
    assert Path("again.jsonl.gz").read_bytes() == Path("p.jsonl.gz").read_bytes()
    build = ["--build-labels", "labels.jsonl.gz", "--review", "review.tsv.gz"]
    Path("many.jsonl.gz").write_bytes(gzip.compress((DATA / "captions.jsonl").read_bytes() * 20))
    words[-1] = "many.jsonl.gz"  # enough for labels
    command(*words, *build)
    before = unpacked("labels.jsonl.gz"), unpacked("review.tsv.gz")
    command(*words, *build)  # it reads the review
    assert (unpacked("labels.jsonl.gz"), unpacked("review.tsv.gz")) == before
    command(*words, "--labels", "labels.jsonl.gz", "-o", "closed.jsonl.gz")
    assert b'"tags":["horse' in unpacked("closed.jsonl.gz")


def test_tag_and_eval_read_what_they_write(command):
    shutil.copytree(DATA / "photos", "photos")
    tag = ["tag", "-q", "photos/steps.jpg", "photos/horses.jpg"]
    command(*tag, "-f", "csv", "-o", "t.csv.gz")
    assert unpacked("t.csv.gz").splitlines()[1].startswith(b"photos/steps.jpg,")
    command(*tag[:3], "-o", "t.jsonl.gz")
    command(*tag, "-o", "t.jsonl.gz", "--resume")
    command("export", "-q", "t.jsonl.gz", "--gallery", "page.html.gz")
    Path("page.html").write_bytes(unpacked("page.html.gz"))
    assert gallery_names(Path("page.html")) == ["photos/steps.jpg", "photos/horses.jpg"]
    command("tag", "-q", "-R", "photos", "-o", "all.jsonl.gz")
    evaluate = ["eval", "-q", "all.jsonl.gz", "--truth", DATA / "truth.jsonl"]
    command(*evaluate, "-o", "e.json.gz", "--report", "r.csv.gz", "--calibrate", "c.jsonl.gz")
    assert json.loads(unpacked("e.json.gz"))["mAP"] > 0
    command(*evaluate, "--threshold", "c.jsonl.gz", "-o", "e2.json")


@pytest.mark.parametrize(
    "words",
    [
        *(
            [command, "in.jsonl", *output]
            for command in ("parse", "tag", "generate", "clean")
            for output in (["-o", "x.jsonl.zst"], ["--rejects", "x.bz2"], ["--stats", "x.json.xz"])
        ),
        *([command, "in.jsonl.zst"] for command in ("parse", "tag", "generate", "clean", "train")),
        ["parse", "in.jsonl", "--build-labels", "x.jsonl.xz"],
        ["parse", "in.jsonl", "--labels", "x.jsonl.xz"],
        ["export", "in.jsonl", "--gallery", "x.html.bz2"],
        ["eval", "in.jsonl", "--truth", "in.jsonl", "-o", "x.json.zst"],
        ["eval", "in.jsonl.zst", "--truth", "in.jsonl"],
        ["train", "in.jsonl", "--rejects", "x.jsonl.xz"],
        ["train", "in.jsonl", "--events", "x.jsonl.gz"],
    ],
)
def test_other_compressions_are_wrong_usage_before_any_work(words, ramctl):
    for name in ("in.jsonl", "in.jsonl.zst", "x.jsonl.xz"):
        Path(name).write_bytes(b'{"image":"a.jpg","captions":["a horse"],"tags":["horse"]}\n')
    before = sorted(Path().iterdir())
    done = ramctl(*words)
    assert (done.returncode, done.messages.count("\n")) == (2, 1)
    assert "compressed" in done.messages
    assert sorted(Path().iterdir()) == before
