"""`train --distill scores:FILE`, from records to what `tag` gives."""

from functools import partial
from pathlib import Path

import pytest

from ramctl.checkpoints.bundle import Bundle
from tests.training.conftest import DATA, read_rows, training_records, write_records

TEACHER = {"horse": 0.9, "grass": 0.6, "boat": 0.1, "zeppelin": 0.02}


@pytest.fixture
def teacher(tmp_path) -> Path:
    """What a tagger says of the eight photos: the same of each."""
    rows = [{"image": r["image"], "scores": TEACHER} for r in training_records()]
    return write_records(tmp_path / "teacher.jsonl", rows)


def bare(records, *, drop=("tags", "captions", "caption_tags", "kinds"), **fields):
    return [{k: v for k, v in r.items() if k not in drop} | fields for r in records]


def test_photos_that_only_a_teacher_knows_are_trained_on(train, teacher, tmp_path):
    done = train(teacher, "--distill", f"scores:{teacher}", "--out", "m", "--steps", 2)
    bundle = Bundle.open(tmp_path / "m")
    assert set(bundle.labels.tags) == {"horse", "grass"}  # what it gives with more than 0.5
    assert bundle.meta["provenance"]["data"]["records_trained_on"] == 8
    assert f"{teacher}: scores of 8 of 8 photos" in done.messages


def test_photos_that_nobody_knows_are_rejected(train, teacher):
    seen, unseen = training_records()[:5], bare(training_records()[5:])
    path = write_records(Path("in.jsonl"), [*seen, *unseen])
    some = write_records(Path("some.jsonl"), read_rows(teacher)[:6])
    options = ["--distill", f"scores:{some}", "--out", "m", "--steps", 1, "--rejects", "r.jsonl"]
    train(path, *options, code=3)
    rejects = [(row["code"], row["line"]) for row in read_rows("r.jsonl")]
    assert rejects == [("missing_field", 7), ("missing_field", 8)]


def test_a_tagger_s_tags_are_not_learnt_as_certain(train):
    """Tags with scores and without sources: without a teacher, nothing is left to learn."""
    drop = ("captions", "caption_tags", "kinds")
    tagged = bare(training_records(), drop=drop, scores={"horse": 0.9})
    path = write_records(Path("in.jsonl"), tagged)
    done = train(path, "--out", "m", "--steps", 1, code=1)
    assert done.messages.splitlines()[-1] == "ramctl train: no usable records in in.jsonl"
    generated = write_records(Path("g.jsonl"), [r | {"sources": {}} for r in tagged])
    train(generated, "--out", "m", "--steps", 1)


def test_a_model_that_scores_taught_is_trained_on_without_their_file(
    train, command, parsed, teacher
):
    train(parsed, "--distill", f"scores:{teacher}", "--out", "m", "--steps", 1)
    teacher.unlink()
    options = ["--out", "n", "--steps", 1, "--root", DATA]
    command("train", parsed, "--model", "m/", *options)


def test_labels_without_evidence_are_given_only_where_they_are_listed(
    train, command, parsed, teacher
):
    Path("labels.txt").write_text("horse\ngrass\nzeppelin\nunicorn\ntractor\nsky\n")
    train(
        parsed, "--labels", "labels.txt", "--out", "m", "--steps", 2,
        "--distill", f"scores:{teacher}", "--set", "training.fewest_positives=5",
    )  # fmt: skip
    bundle = Bundle.open(Path("m"))
    known = {label.tag: label.validated for label in bundle.labels}
    assert known == {
        "horse": True, "grass": True, "zeppelin": True,  # the teacher knows them
        "sky": True,  # no tag of these is named more often
        "unicorn": False, "tractor": False,  # nobody names it; too few captions do
    }  # fmt: skip
    tag = partial(command, "tag", DATA / "photos" / "kite.jpg", "--model", "m/")
    (usual,) = tag("--dense").rows
    assert not {"unicorn", "tractor"} & set(usual["tags"])
    assert len(usual["dense"]) == 6
    (everything,) = tag("--threshold", 0).rows
    assert set(everything["tags"]) == {"horse", "grass", "zeppelin", "sky"}
    Path("asked.txt").write_text("unicorn\n")
    (asked,) = tag("--labels", "asked.txt", "--dense").rows
    assert asked["tags"] == (["unicorn"] if asked["dense"][0] > 0.5 else [])
