"""scripts/reproduce/evidence.py: who judges a generated tag, and what is counted."""

from argparse import Namespace
from pathlib import Path

import evidence
import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.support import lines, read_rows

JUDGED = REPOSITORY / "scripts" / "reproduce" / "judged_generated.jsonl"
VERDICTS = {"right": 221, "wrong": 132, "doubtful": 97}


def test_the_caption_that_the_engine_saw_never_judges(tmp_path):
    rows = [{"image": str(n), "captions": [f"a{n}", f"b{n}", f"c{n}"]} for n in range(9)]
    (tmp_path / "photos.jsonl").write_bytes(lines(rows))
    (tmp_path / "single.jsonl").write_bytes(lines([{"image": "x", "captions": ["y"]}]))
    (tmp_path / "judged.jsonl").write_bytes(lines([{"image": "7", "right": ["t"]}]))
    one, others = tmp_path / "one.jsonl", tmp_path / "others.jsonl"
    photos = [tmp_path / "photos.jsonl", tmp_path / "single.jsonl"]
    judged = tmp_path / "judged.jsonl"
    evidence.draw(Namespace(photos=photos, judged=judged, number=5, seed=3, one=one, others=others))
    seen, judges = map(read_rows, (one, others))
    assert "7" in {row["image"] for row in seen}
    assert 5 <= len({row["image"] for row in seen} - {"x"}) <= 6
    assert seen.pop() == {"image": "x", "captions": ["y"]}  # nothing is left that could judge
    assert [row["image"] for row in seen] == [row["image"] for row in judges]
    for row, judge in zip(seen, judges, strict=True):
        n = row["image"]
        assert (row["captions"], judge["captions"]) == ([f"a{n}"], [f"b{n}", f"c{n}"])


def test_generated_tags_are_judged_and_removals_counted(
    command, engine_bundle, photo_records, tmp_path
):
    for row in photo_records:
        row["sources"]["sky"] = row["sources"]["field"] = ["generated-tag"]
    work = ["--work", "work", "--stage", "detect"]
    command("clean", "--model", engine_bundle, *work, stdin=lines(photo_records))
    judged, captions = tmp_path / "judged.jsonl", tmp_path / "captions.jsonl"
    names = [row["image"] for row in photo_records]
    verdicts = zip(names, ["right", "wrong", "doubtful", "right"], strict=False)
    judged.write_bytes(lines({"image": n, v: ["sky"]} for n, v in verdicts))
    captions.write_bytes(lines([{"image": names[0], "tags": ["sky", "horse"]}]))
    told = evidence.measure(
        Namespace(
            work=tmp_path / "work", model=str(engine_bundle), evidence=[], judged=judged,
            captions=captions,
        )
    )  # fmt: skip
    assert told["regions"] == 4 * len(photo_records)
    assert told["looked at"]["tags"] == 3 and told["looked at"]["right"] == pytest.approx(0.667)
    assert told["looked at"]["own score"]["auc"] in (0, 0.5, 1)
    assert told["other captions"]["tags"] == 2 and told["other captions"]["right"] == 0.5
    assert told["other captions"]["named by the caption"]["go"] == 0
    truth, gone = np.array([1, 0, 0, 1, -1]), np.array([0, 1, 1, 1, 1], bool)
    assert evidence.shares(truth, gone, truth >= 0) == {
        "go": 3, "right of those that go": 0.333, "right of those that stay": 1.0,
    }  # fmt: skip


def test_the_judged_sample_is_what_the_documents_say():
    rows = read_rows(JUDGED)
    assert len({row["image"] for row in rows}) == len(rows)
    tags = {v: [(row["image"], tag) for row in rows for tag in row.get(v, ())] for v in VERDICTS}
    assert {v: len(some) for v, some in tags.items()} == VERDICTS
    assert len(set().union(*tags.values())) == 450
    assert not any(Path(row["image"]).is_absolute() for row in rows)
