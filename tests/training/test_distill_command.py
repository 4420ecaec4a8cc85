"""`train --distill scores:FILE` and `--set precision`, from records to what `tag` gives."""

import json
from pathlib import Path

import pytest

from ramctl.calibration import Calibration
from ramctl.checkpoints.bundle import Bundle
from tests.training.conftest import DATA, training_records, write_records

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
    assert done.returncode == 0, done.messages
    bundle = Bundle.open(tmp_path / "m", verify=True)
    assert set(bundle.labels.tags) == {"horse", "grass"}  # what it gives with more than 0.5
    assert bundle.meta["provenance"]["data"]["records_trained_on"] == 8
    assert f"{teacher}: scores of 8 of 8 photos" in done.messages


def test_photos_that_nobody_knows_are_rejected(train, teacher):
    seen, unseen = training_records()[:5], bare(training_records()[5:])
    rows = [*seen, *unseen]
    path = write_records(Path("in.jsonl"), rows)
    some = write_records(
        Path("some.jsonl"), [json.loads(line) for line in teacher.read_text().splitlines()[:6]]
    )
    done = train(
        path, "--distill", f"scores:{some}", "--out", "m", "--steps", 1, "--rejects", "r.jsonl"
    )
    assert done.returncode == 3, done.messages
    rejects = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert [(r["code"], r["line"]) for r in rejects] == [("missing_field", 7), ("missing_field", 8)]


def test_a_tagger_s_tags_are_not_learnt_as_certain(train):
    """Tags with scores and without sources: without a teacher, nothing is left to learn."""
    drop = ("captions", "caption_tags", "kinds")
    tagged = bare(training_records(), drop=drop, scores={"horse": 0.9})
    path = write_records(Path("in.jsonl"), tagged)
    done = train(path, "--out", "m", "--steps", 1)
    assert (done.returncode, "no records to train on" in done.messages) == (1, True)
    generated = write_records(Path("g.jsonl"), [r | {"sources": {}} for r in tagged])
    assert train(generated, "--out", "m", "--steps", 1).returncode == 0


def test_a_resumed_run_notices_other_scores(train, teacher):
    path = write_records(Path("in.jsonl"), training_records())
    options = [path, "--distill", f"scores:{teacher}", "--out", "m", "--steps", 3]
    assert train(*options, "--max-time", "0s").returncode == 4
    teacher.write_text(teacher.read_text().replace("0.6", "0.7"))
    done = train("--resume", "--out", "m")
    assert done.returncode == 1, done.messages
    assert "the records or the teachers' scores changed since the run began" in done.messages


def test_a_model_that_scores_taught_is_trained_on_without_their_file(train, command, teacher):
    path = write_records(Path("in.jsonl"), training_records())
    assert train(path, "--distill", f"scores:{teacher}", "--out", "m", "--steps", 1).returncode == 0
    teacher.unlink()
    done = command(
        "train", path, "--init", "m/", "--out", "n", "--steps", 1, "--root", DATA, "--threads", 1
    )
    assert done.returncode == 0, done.messages


def test_labels_without_evidence_are_given_only_when_asked_for(train, command, teacher, tmp_path):
    labels = Path("labels.txt")
    labels.write_text("horse\ngrass\nzeppelin\nunicorn\ntractor\nsky\n")
    done = train(
        write_records(Path("in.jsonl"), training_records()), "--labels", labels, "--out", "m",
        "--steps", 2, "--distill", f"scores:{teacher}", "--set", "training.fewest_positives=5",
    )  # fmt: skip
    assert done.returncode == 0, done.messages
    known = {label.tag: label.validated for label in Bundle.open(tmp_path / "m").labels}
    assert known == {
        "horse": True, "grass": True, "zeppelin": True,  # the teacher knows them
        "sky": True,  # no tag of these is named more often
        "unicorn": False, "tractor": False,  # nobody names it; too few captions do
    }  # fmt: skip
    photo = DATA / "photos" / "kite.jpg"
    usual = json.loads(command("tag", photo, "--model", "m/", "--dense").stdout)
    assert not {"unicorn", "tractor"} & set(usual["tags"])
    assert len(usual["dense"]) == 6
    everything = json.loads(command("tag", photo, "--model", "m/", "--threshold", 0).stdout)
    assert {"unicorn", "tractor"} <= set(everything["tags"])
    Path("asked.txt").write_text("unicorn\n")
    asked = command("tag", photo, "--model", "m/", "--labels", "asked.txt", "--dense")
    score = json.loads(asked.stdout)["dense"][0]
    assert json.loads(asked.stdout)["tags"] == (["unicorn"] if score > 0.5 else [])


def test_precision_chooses_thresholds_and_travels_with_the_bundle(train, command, tmp_path):
    path = write_records(Path("in.jsonl"), training_records())
    done = train(
        path, "--val", path, "--out", "m", "--steps", 20, "--set", "precision=0.5",
        "--set", "training.lr=0.01",
    )  # fmt: skip
    assert done.returncode == 0, done.messages
    bundle = Bundle.open(tmp_path / "m", verify=True)
    calibration = Calibration.read(bundle.path / "calibration.json")
    expected = calibration.thresholds(0.5)
    assert bundle.thresholds == pytest.approx(expected.tolist(), abs=2e-3)
    photos = [DATA / r["image"] for r in training_records()]
    few, many = (
        sum(
            len(json.loads(line)["tags"])
            for line in command(
                "tag", *photos, "--model", "m/", "--precision", p
            ).stdout.splitlines()
        )
        for p in (calibration.curve[0].precision * 0.999, 0.2)
    )
    assert few < many


def test_a_precision_that_cannot_be_had_costs_no_training(train, command, tmp_path):
    path = write_records(Path("in.jsonl"), training_records())
    done = train(path, "--val", path, "--out", "m", "--steps", 1, "--set", "precision=0.99")
    assert done.returncode == 0, done.messages
    assert "thresholds: no threshold reaches precision 0.99" in done.messages
    photo = DATA / training_records()[0]["image"]
    done = command("tag", "--model", "m/", "--precision", "0.99", photo)
    assert (done.returncode, "no threshold reaches precision 0.99" in done.messages) == (1, True)


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (["--precision", 0.9, "--threshold", 0.5], "leave out --threshold", 2),
        (["--precision", 0.9], "does not know what its scores are worth", 1),
    ],
)
def test_precision_is_refused_in_one_line(command, tiny_bundle, options, message, code):
    done = command("tag", DATA / "photos" / "kite.jpg", "--model", tiny_bundle, *options)
    assert (done.returncode, message in done.messages) == (code, True), done.messages
