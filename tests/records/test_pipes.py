"""Inputs that are pipes: each command reads them as it reads files, or says why it cannot."""

import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from ramctl.errors import UsageProblem
from ramctl.readers.caption_formats import unread_any
from ramctl.records.pipes import forget
from ramctl.training.data.record_file import spool
from tests.readers.test_readers import EXPECTED, FILES, shown
from tests.support import DATA

RECORDS = [
    {"image": f"{DATA}/photos/{name}.jpg", "captions": [f"a {tag} in a field"], "tags": [tag],
     "scores": {tag: 0.9}}
    for name, tag in (("kite", "child"), ("steps", "house"), ("tractor", "tractor"))
]  # fmt: skip
CONTENT = "".join(json.dumps(row) + "\n" for row in RECORDS)
TWICE = "can be read once; name a file"
CASES = {
    "parse": (["parse", "FILE"], CONTENT),
    "parse labels": (["parse", "records", "--labels", "FILE"], "child\nhouse\n"),
    "parse by another name": (["parse", "FILE", "--group"], CONTENT),
    "tag": (["tag", "FILE"], CONTENT),
    "tag include": (["tag", RECORDS[0]["image"], "--include", "FILE"], "camp\n"),
    "generate": (["generate", "FILE", "--captions", "0"], CONTENT),
    "clean": (["clean", "FILE"], CONTENT),
    "export": (["export", "FILE", "-f", "csv"], CONTENT),
    "export exclude": (["export", "records", "-f", "csv", "--exclude", "FILE"], "child\n"),
    "import": (["import", "FILE"], CONTENT),
    "eval": (["eval", "FILE", "--truth", "records"], CONTENT),
    "eval truth": (["eval", "records", "--truth", "FILE"], CONTENT),
    "eval classes": (["eval", "records", "--truth", "records", "--classes", "FILE"], "child\n"),
    "eval map": (["eval", "records", "--truth", "records", "--map", "FILE"], "child\thouse\n"),
}  # fmt: skip
REFUSED = {
    "search": (["search", "FILE", "dog"], "search reads its input twice; name a file"),
    "shard": (["export", "FILE", "-f", "csv", "--shard", "1/2"], "--shard reads inputs twice"),
    "parse twice": (["parse", "FILE", "FILE"], TWICE),
    "eval on both sides": (["eval", "FILE", "--truth", "FILE"], TWICE),
    "eval thresholds": (["eval", "records", "--truth", "records", "--threshold", "FILE"],
                        "neither a number nor a file"),
    "parquet": (["parse", "FILE", "--from", "parquet"], "needs a named file"),
    "a folder": (["parse", "FILE", "--from", "txt"], "needs a named file"),
}  # fmt: skip


@contextmanager
def piped(content: str):
    """The name of a pipe that holds this, as a shell's `<(...)` has one."""
    reading, writing = os.pipe()
    forget()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as stream:
            stream.write(content.encode())

    writer = Thread(target=write)
    writer.start()
    try:
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)
        writer.join()


def with_input(words, name):
    return [str(word).replace("FILE", name) for word in words]


@pytest.mark.parametrize("case", CASES)
def test_a_pipe_gives_what_the_file_of_its_content_gives(case, tmp_path, ramctl):
    words, content = CASES[case]
    (tmp_path / "records").write_text(CONTENT)
    (tmp_path / "given.jsonl").write_text(content)
    by_file = ramctl(*with_input(words, "given.jsonl"))
    with piped(content) as name:
        by_pipe = ramctl(*with_input(words, name))
        content = by_pipe.stdout.replace(name.encode(), b"given.jsonl")
    assert (by_pipe.returncode, content) == (by_file.returncode, by_file.stdout)
    assert by_file.returncode == 0, by_file.messages


def test_what_only_this_process_has_open_is_copied_to_be_trained_on(tmp_path):
    """Workers and a run that goes on read the records again, by their places in the file."""
    (tmp_path / "given.jsonl").write_text(CONTENT)
    assert spool(str(tmp_path / "given.jsonl"), tmp_path / "none") is None
    with piped(CONTENT) as name, (tmp_path / "given.jsonl").open() as file:
        for number, source in enumerate((name, f"/dev/fd/{file.fileno()}")):
            copy = spool(source, tmp_path / f"copy{number}")
            assert copy is not None and copy.read_text() == CONTENT


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_read_twice_is_refused_in_a_line(case, tmp_path, ramctl):
    words, message = REFUSED[case]
    (tmp_path / "records").write_text(CONTENT)
    with piped(CONTENT) as name:
        done = ramctl(*with_input(words, name), "-q")
    assert (done.returncode, len(done.messages.splitlines())) == (2, 1), done.messages
    assert message in done.messages


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.endswith((".json", ".jsonl")) or "token" in name]
)
def test_a_format_is_recognised_in_a_pipe_and_no_byte_of_it_is_lost(name):
    form, content = FILES[name]
    labels = ["dog", "cat", "red"] if form == "ram" else []
    with piped(content) as pipe:
        items = [make() for make in unread_any([pipe], None, "parse", labels=labels)]
    assert shown(items) == EXPECTED[name]


@pytest.mark.parametrize("name", FILES)
def test_a_format_that_was_named_is_read_from_a_pipe(name):
    form, content = FILES[name]
    labels = ["dog", "cat", "red"] if form == "ram" else []
    with piped(content) as pipe:
        items = [make() for make in unread_any([pipe], None, "parse", form=form, labels=labels)]
    assert shown(items) == EXPECTED[name]


def test_what_is_longer_than_what_recognises_it_is_read_whole(tmp_path):
    lines = "".join(f'{{"image":"{n}.jpg","captions":["a dog"]}}\n' for n in range(10_000))
    with piped(lines) as pipe:
        items = [make() for make in unread_any([pipe], None, "parse")]
    assert [item.fields["image"] for item in items] == [f"{n}.jpg" for n in range(10_000)]


def test_inputs_some_of_which_are_pipes_keep_their_order(tmp_path, ramctl):
    rows = [f'{{"image":"{n}.jpg","captions":["a dog"]}}\n' for n in range(4)]
    (tmp_path / "a.jsonl").write_text(rows[0])
    with piped(rows[1]) as first, piped(rows[2]) as second:
        done = ramctl("parse", "a.jsonl", first, second, "-", stdin=rows[3].encode())
    assert [row["image"] for row in done.rows] == [f"{n}.jpg" for n in range(4)]


def test_names_of_photos_come_from_any_pipe(tmp_path, ramctl):
    name = RECORDS[0]["image"]
    for command in ("tag", "import"):
        with piped(f"{name}\n") as pipe:
            assert ramctl(command, pipe).stdout == ramctl(command, "-", stdin=name.encode()).stdout
    with piped("GIF89a;") as pipe:
        done = ramctl("tag", pipe)
    assert (done.returncode, f"{pipe} is not text" in done.messages) == (2, True)


def test_labels_that_a_pipe_names_after_they_are_used_are_not_sought_in_it(tmp_path, ramctl):
    """It would lose the lines that are still to come."""
    rows = [{"image": "a.jpg", "labels": "x", "dense": [0.5]},
            {"image": "b.jpg", "labels": "x", "label_names": ["dog"], "dense": [0.5]}]  # fmt: skip
    (tmp_path / "truth").write_text(
        "".join(f'{{"image":"{name}.jpg","tags":["dog"]}}\n' for name in "ab")
    )
    with piped("".join(json.dumps(row) + "\n" for row in rows)) as pipe:
        done = ramctl("eval", pipe, "--truth", "truth", "--rejects", "rejects")
    (reject,) = map(json.loads, (tmp_path / "rejects").read_text().splitlines())
    assert (reject["code"], done.rows[0]["photos"]["compared"]) == ("missing_field", 1)


def test_photos_of_a_pipe_are_relative_to_the_folder_that_the_command_runs_in(tmp_path, ramctl):
    (tmp_path / "a.jpg").write_bytes(Path(RECORDS[0]["image"]).read_bytes())
    with piped('{"image":"a.jpg","tags":["x"]}\n') as pipe:
        assert ramctl("export", pipe, "--txt").returncode == 0
    assert (tmp_path / "a.txt").read_text() == "x\n"


def test_a_fifo_is_opened_once(tmp_path, ramctl):
    """Opened again it would wait for another writer."""
    os.mkfifo(tmp_path / "fifo")
    run = ramctl.start("parse", "fifo", "-q")
    with (tmp_path / "fifo").open("w") as stream:
        stream.write(CONTENT)
    out, _ = run.communicate(timeout=60)
    assert (run.returncode, len(out.splitlines())) == (0, 3)


@pytest.mark.parametrize("is_file", [False, True])
def test_standard_input_has_a_name_too(is_file, tmp_path, ramctl):
    (tmp_path / "given").write_text(CONTENT)
    with (tmp_path / "given").open("rb") as file:
        run = ramctl.start("parse", "/dev/stdin", "-q", **({"stdin": file} if is_file else {}))
        out, err = run.communicate(*([] if is_file else [CONTENT.encode()]), timeout=60)
    assert (run.returncode, len(out.splitlines()), err) == (0, 3, b"")


def test_a_pipe_is_continued_as_standard_input_is(tmp_path, ramctl):
    for _ in range(2):
        with piped(CONTENT) as pipe:
            done = ramctl("parse", pipe, "-o", "out", "--resume")
        assert done.returncode == 0
    assert len((tmp_path / "out").read_text().splitlines()) == 3
    assert "0 in, 0 out" in done.messages


def test_a_second_reader_of_a_pipe_is_told_that_nothing_is_left():
    with piped(CONTENT) as pipe:
        items = unread_any([pipe, pipe], None, "parse")
        assert [next(items) for _ in range(3)]
        with pytest.raises(UsageProblem, match="can be read once"):
            next(items)


def test_what_a_shell_s_file_holds_stays(tmp_path, ramctl):
    (tmp_path / "log").write_text("before\n")
    with (tmp_path / "log").open("a") as log:
        words = ("-q", "-", "no.jpg", "-f", "text", "-o", "/dev/stdout", "--rejects", "/dev/stderr")
        ramctl.start("tag", *words, stdout=log, stderr=log).communicate(timeout=60)
    first, *rest = (tmp_path / "log").read_text().splitlines()
    assert (first, [json.loads(line)["code"] for line in rest]) == ("before", ["missing_image"])
