"""A name that ends in `.gz` is read as gzip; other compressions are wrong usage."""

import gzip
from pathlib import Path

import pytest

from ramctl.errors import RunProblem
from ramctl.records.inputs import open_input


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


@pytest.mark.parametrize("words", [["parse"], ["tag"], ["export", "-f", "jsonl"]])
def test_records_are_read(words, ramctl):
    content = b'{"image":"a.jpg","captions":["a horse"],"tags":["horse"]}\n'
    Path("in.jsonl").write_bytes(content)
    Path("in.jsonl.gz").write_bytes(gzip.compress(content))
    assert ramctl(*words, "in.jsonl.gz").stdout == ramctl(*words, "in.jsonl").stdout


@pytest.mark.parametrize(
    "words",
    [
        *([command, "in.jsonl.zst"] for command in ("parse", "tag", "generate", "clean", "train")),
        ["parse", "in.jsonl", "--labels", "x.jsonl.xz"],
        ["eval", "in.jsonl.zst", "--truth", "in.jsonl"],
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
