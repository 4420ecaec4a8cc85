"""A name that ends in `.gz` is read as gzip."""

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
