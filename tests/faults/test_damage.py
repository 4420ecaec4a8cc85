"""Inputs that are torn: what is whole is done."""

import gzip
import json
import random
from pathlib import Path

from tests.records.test_resume import run as run_here
from tests.support import read_rows

ROWS = [json.dumps({"a": number, "text": "ä" * number}).encode() for number in range(20)]


def test_of_a_torn_shard_all_whole_lines_are_done_and_the_last_is_a_reject(tmp_path):
    whole = b"\n".join(ROWS) + b"\n"
    run_here(tmp_path, ROWS, rejects="rejects")
    expected = (tmp_path / "out").read_bytes().splitlines()
    for end in random.Random(0).sample(range(1, len(whole)), 20):
        run_here(tmp_path, whole[:end].split(b"\n"), rejects="rejects")
        out = (tmp_path / "out").read_bytes().splitlines()
        n_whole = whole[:end].count(b"\n")
        is_torn = whole[end - 1 : end + 1].count(b"\n") == 0
        assert out[:n_whole] == expected[:n_whole]
        rejects = read_rows(tmp_path / "rejects")
        assert [row["line"] for row in rejects] == [n_whole + 1] * is_torn


def test_a_torn_gz_shard_is_named_and_leaves_no_output(tmp_path, monkeypatch, ramctl):
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"image": f"{number}.jpg", "tags": ["sky"]}) for number in range(4000)]
    packed = gzip.compress("".join(row + "\n" for row in rows).encode())
    Path("in.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    done = ramctl("export", "in.jsonl.gz", "-f", "jsonl", "-o", "out")
    assert (done.returncode, done.messages.count("\n")) == (1, 1)
    assert done.messages.startswith("ramctl export: in.jsonl.gz: ")
    assert not Path("out").exists()
    Path("in.jsonl.gz").write_bytes(packed)
    done = ramctl("export", "in.jsonl.gz", "-f", "jsonl", "-o", "out")
    assert done.returncode == 0
    assert Path("out").read_bytes().count(b"\n") == 4000
