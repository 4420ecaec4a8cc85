"""`ramctl train` and `finetune` end to end, on the repository's eight photos."""

import gzip
import json
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from ramctl.checkpoints.bundle import Bundle
from ramctl.inference.calibration import Calibration
from ramctl.inference.thresholds import thresholds_of
from ramctl.training import initial
from tests.command import Ramctl
from tests.conftest import REPOSITORY
from tests.support import DATA, read_rows, write_records
from tests.training.conftest import settings, steps_of, training_records


def assert_same_weights(a: Path, b: Path) -> None:
    one, two = (Bundle.open(path, verify=True).tensors() for path in (a, b))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert np.array_equal(value, two[name]), name


def test_train_writes_a_complete_bundle_into_a_folder_that_it_makes(train, parsed, tmp_path):
    done = train(parsed, "--out", "some/new/x", "--steps", 3)
    assert done.stdout == b""
    bundle = Bundle.open(tmp_path / "some" / "new" / "x", verify=True)
    assert {"labels.jsonl", "model.safetensors", "model.onnx", "tokenizer.json"} <= set(
        bundle.meta["files"]
    )
    assert bundle.labels.tags == ["sky", "field", "building"]
    assert bundle.meta["provenance"]["data"]["records_trained_on"] == 8
    assert bundle.meta["provenance"]["commands"][0].startswith("ramctl train ")
    card = (bundle.path / "README.md").read_text()
    assert "ramctl train" in card and "no counting" in card
    assert not (tmp_path / "some" / "new" / "x.work").exists()
    assert "8 in, 8 out, 0 rejected" in done.messages


@pytest.mark.parametrize(
    ("signum", "backbone"),
    [
        (signal.SIGTERM, ("training.backbone_lr_factor=0.5",)),
        (signal.SIGKILL, ("training.backbone_lr_factor=0.0",)),
        (signal.SIGKILL, ("training.backbone_lr_factor=0.5", "training.frozen_stages=3")),
        pytest.param(signal.SIGKILL, ("training.precision=fp16",), marks=pytest.mark.slow),
    ],
    ids=["whole model", "kept features", "kept features of frozen stages", "fp16"],
)
def test_a_run_that_was_ended_resumes_to_the_same_weights_bit_for_bit(
    train, command, parsed, tiny_options, tmp_path, signum, backbone
):
    arguments = [
        parsed, "--steps", 9,
        *settings("training.batch_size=3", "training.sampled_labels=3",
                  "model.tag_decoder.dropout=0.1", *backbone),
    ]  # fmt: skip
    train(*arguments, "--out", "whole")
    process = start([*arguments, *tiny_options, "--out", "ended"], tmp_path / "ended.work")
    process.send_signal(signum)
    _, errors = process.communicate()
    assert process.returncode == -signum
    assert (b"continue with --resume" in errors) == (signum == signal.SIGTERM)
    done = command("train", "--out", "ended", "--resume")
    assert "continuing after step" in done.messages
    assert_same_weights(tmp_path / "whole", tmp_path / "ended")


SAVE_EACH_STEP = "from ramctl.training import loop; loop.SAVE_EVERY_S = 0"


def start(arguments: list[object], work: Path):
    """Start the real command and wait until it has saved its state."""
    process = Ramctl(work.parent).start("train", *arguments, before=SAVE_EACH_STEP)
    while process.poll() is None and not list(work.glob("checkpoints/step-*.pt")):
        time.sleep(0.005)
    return process


def test_a_missing_and_a_broken_photo_are_rejected_once_and_the_rest_is_trained(train, tmp_path):
    rows = training_records()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    rows.insert(2, {**rows[0], "image": "photos/nowhere.jpg"})
    rows.insert(5, {**rows[0], "image": str(tmp_path / "broken.jpg")})
    path = write_records(tmp_path / "in.jsonl", rows)
    path.write_text(path.read_text() + '{"image": "a.jpg"}\n{oops\n')
    for overrides in ([], ["--set", "training.backbone_lr_factor=0.0"]):
        arguments = ["--out", "x", "--steps", 4, "--rejects", "rejects.jsonl", *overrides]
        done = train(path, *arguments, code=3)
        assert sorted((r["line"], r["code"]) for r in read_rows("rejects.jsonl")) == [
            (3, "missing_image"), (6, "unreadable_image"), (11, "missing_field"), (12, "bad_json"),
        ]  # fmt: skip
        assert "12 in, 8 out, 4 rejected" in done.messages


def test_a_hundred_records_without_a_photo_ask_for_the_root(train, tmp_path):
    rows = [{**training_records()[0], "image": f"nowhere/{n}.jpg"} for n in range(120)]
    done = train(write_records(tmp_path / "in.jsonl", rows), "--out", "x", "--steps", 1, code=1)
    assert "--root" in done.messages and "Traceback" not in done.messages


def test_finetune_keeps_what_train_set_and_its_own_settings_are_of_one_run(
    train, parsed, command, tmp_path
):
    frozen, fast = settings("training.backbone_lr_factor=0.0"), settings("training.lr=0.5")
    train(parsed, "--out", "x", "--steps", 1, *frozen)
    command("finetune", parsed, "--root", DATA, "--model", "x/", "--steps", 1, *fast)
    preset = Bundle.open(tmp_path / "model-finetuned").preset
    assert (preset.training.backbone_lr_factor, preset.training.lr) == (0.0, 0.5)
    assert preset.finetuning == Bundle.open(tmp_path / "x").preset.finetuning
    assert preset.finetuning.lr != 0.5 and preset.finetuning.steps != 1


def test_what_a_few_photos_do_not_show_is_not_forgotten(train, parsed, command, tmp_path):
    train(parsed, "--out", "x", "--steps", 2)
    before = Bundle.open(tmp_path / "x")
    rows = read_rows(parsed)[:2]
    shown = {tag for row in rows for tag in row["tags"]}
    write_records(tmp_path / "some.jsonl", rows)
    words = ["--model", "x/", "some.jsonl", "--root", DATA, "--steps", 1, "--distill", "none"]
    done = command("finetune", *words, *settings("training.fewest_positives=1", "training.lr=1e-4"))
    assert "thresholds: those of x stay as they are" in done.messages
    after = Bundle.open(tmp_path / "model-finetuned")
    assert thresholds_of(after) == thresholds_of(before)
    assert after.has("axes.safetensors") == before.has("axes.safetensors")
    own = [bundle.tensors(["labels.own"])["labels.own"].astype(float) for bundle in (before, after)]
    others = [index for index, label in enumerate(before.labels) if label.tag not in shown]
    assert others and np.allclose(own[0][others], own[1][others], atol=1e-3)
    photos = sorted((DATA / "photos").glob("*.jpg"))
    for row, was in zip(
        *(command("tag", "--model", m, *photos).rows for m in ("model-finetuned/", "x/")),
        strict=True,
    ):
        assert len(row["tags"]) <= len(was["tags"]) + 2


def test_finetune_keeps_labels_and_appends_new_ones(train, parsed, command, tmp_path):
    train(parsed, "--out", "x", "--steps", 2)
    (tmp_path / "more.txt").write_text("chicken\nsky\n")
    command(
        "finetune", "--model", "x/", parsed, "--root", DATA, "--labels", "+more.txt",
        "--steps", 2,
    )  # fmt: skip
    before, after = Bundle.open(tmp_path / "x"), Bundle.open(tmp_path / "model-finetuned")
    assert after.labels.tags == [*before.labels.tags, "chicken"]
    assert after.meta["provenance"]["parent"] == before.fingerprint
    old, new = (b.tensors(["labels.text"])["labels.text"] for b in (before, after))
    assert np.array_equal(new[: len(old)], old)
    assert np.linalg.norm(new[-1].astype(float)) == pytest.approx(1, abs=1e-2)


CAPTIONS_ALONE = settings("training.tag_weight=0", "training.backbone_lr_factor=0")
NEEDS_A_TAGGER = "it needs a tagger with these labels to start from"


def test_without_a_weight_on_tags_captions_alone_are_learnt(train, parsed, command, tmp_path):
    train(parsed, "--out", "x", "--steps", 2)
    train(parsed, "--out", "y", "--model", "x/", "--steps", 2, *CAPTIONS_ALONE)
    before, after = (Bundle.open(tmp_path / name) for name in "xy")
    old, new = before.tensors(), after.tensors()
    changed = {name.split(".")[0] for name in old if not np.array_equal(old[name], new[name])}
    assert changed == {"captioning"}
    assert list(after.labels) == list(before.labels)
    photo = DATA / "photos" / "kite.jpg"
    tagged = [command("tag", "--model", f"{name}/", "--dense", photo).stdout for name in "xy"]
    assert tagged[0] == tagged[1] != ""


def test_a_tagger_that_is_to_see_photos_at_another_size_is_calibrated_anew(train, tmp_path):
    path = write_records(tmp_path / "in.jsonl", training_records())
    judged = ("--val", path, "--steps", 3, *settings("precision=0.3", "training.lr=0.01"))
    train(path, "--out", "x", *judged)
    size = settings("preprocess.size=96")
    train(path, "--out", "y", "--model", "x/", *judged, *size, *CAPTIONS_ALONE)
    before, after = (Bundle.open(tmp_path / name) for name in "xy")
    old, new = before.tensors(), after.tensors()
    changed = {name for name in old if (old[name] != new[name]).any()}
    assert {name for name in changed if "captioning" not in name} <= {"labels.bias"}
    biases = [tensors["labels.bias"][:, 0].astype(float) for tensors in (old, new)]
    calibration = Calibration.from_bundle(after)
    shifts = calibration.shifts - Calibration.from_bundle(before).shifts
    np.testing.assert_allclose(biases[1] - biases[0], shifts, atol=2e-2)
    wanted = calibration.thresholds(0.3, salient=True)
    assert thresholds_of(after) == pytest.approx(wanted.tolist(), abs=2e-3)
    commands = after.meta["provenance"]["commands"]
    assert len(commands) == 2 and commands[:1] == before.meta["provenance"]["commands"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "nowhere.txt"], "nowhere.txt"),
        (["--steps", 1, "--epochs", 1], "--steps or --epochs: give one of them"),
        (settings("training.encoder=nosuch"), "nosuch: neither a file nor a timm model"),
        (settings("model.encoder.backbone=nosuch"), "Unknown model (nosuch)"),
        (settings("model.encoder.width=7"), "model.encoder.width is 7, test_efficientnet has 256"),
        (settings("training.frozen_stages=99"), "training.frozen_stages = 99: "),
        (settings("model.prior.classes=10"), "for the prior"),
        (["--distill", "imagenet"], "without model.prior.classes"),
        (["--distill", "oracle"], "imagenet, scores:FILE, none"),
        (["--distill", "clip"], "need a folder"),
        (settings("model.labels.kind=learnt", "model.prior.classes=9"), "have no text"),
        (settings("training.loss=ram-official", "training.caption_weight=0"),
         "needs the captioning branch"),
        (CAPTIONS_ALONE, NEEDS_A_TAGGER),
        ([*CAPTIONS_ALONE[:2], "--model", "old/"], NEEDS_A_TAGGER),
        ([*CAPTIONS_ALONE, "--model", "old/", "--labels", "+more.txt"], NEEDS_A_TAGGER),
        ([*CAPTIONS_ALONE, "--model", "old/", "--set=training.caption_weight=0"], NEEDS_A_TAGGER),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_is_one_line_and_does_not_stand_in_the_way(
    train, parsed, tiny_bundle, arguments, message
):
    Path("old").symlink_to(tiny_bundle)
    Path("more.txt").write_text("zeppelin\n")
    done = train(parsed, "--out", "x", "--steps", 1, *arguments, code=2)
    assert message in done.messages and done.messages.splitlines()[-1].startswith("ramctl train: ")
    assert not Path("x.work").exists()


def test_an_unfinished_run_goes_on_by_its_own_settings_alone(
    train, command, stopped, parsed, tmp_path
):
    train(parsed, "--out", "x", "--steps", 1)
    first = Bundle.open(tmp_path / "x").fingerprint
    assert "stopped after step 1, 1 left; continue with --resume" in stopped(
        parsed, "--out", "x", "--steps", 2
    )
    assert Bundle.open(tmp_path / "x", verify=True).fingerprint == first
    assert "x.work holds an unfinished run" in train(parsed, "--out", "x", code=2).messages
    for words, named in (
        (["--steps", 3], "settings"), ([__file__], "the records"),
        (["--labels", "other.txt"], "--labels"), (["--root", tmp_path], "--root"),
    ):  # fmt: skip
        done = command("train", *words, "--out", "x", "--resume", code=2)
        assert f"the unfinished run differs in {named}" in done.messages
    done = train(parsed, "--out", "x", "--steps", 2, "--resume")
    assert "continuing after step 1 of 2" in done.messages
    assert Bundle.open(tmp_path / "x", verify=True).fingerprint != first
    assert "x is complete: nothing to resume" in train("--out", "x", "--resume").messages


def test_records_from_a_pipe_train_and_resume_without_the_pipe(command, stopped, tmp_path):
    lines = [json.dumps({**row, "image": str(DATA / row["image"])}) for row in training_records()]
    stopped("--out", "x", "--steps", 2, stdin="\n".join(lines).encode())
    assert (tmp_path / "x.work" / "records.jsonl").is_file()
    command("train", "--out", "x", "--resume")
    assert (tmp_path / "x" / "bundle.json").is_file()


def test_captions_are_learnt_and_given_without_their_prompt(train, command, tmp_path):
    rows = training_records()
    text = "one small photo of outdoor things in grey colours from here"
    for row in rows:
        row |= {"captions": [text], "caption_tags": [[]]}
    path = write_records(tmp_path / "in.jsonl", rows)
    change = ("training.augment.flip=0", "training.label_smoothing=0.0", "training.lr=5e-3")
    train(path, "--out", "x", "--steps", 100, *settings(*change, "model.captioning.prompt=[CLS]"))
    done = command("tag", "--model", "x/", "--caption", DATA / "photos" / "kite.jpg")
    assert json.loads(done.stdout)["generated_captions"] == [text]


# Losses of the first steps of `tiny` on the repository's photos; they change only with the model,
# the losses, the data order or the initial weights.
GOLDEN = [  # tag, caption, distill caption
    [0.577003, 5.624602, 0.829623],
    [0.76778, 5.650045, 0.807572],
    [0.616302, 5.582075, 0.763437],
    [0.492746, 5.501368, 0.838452],
]


def test_the_first_steps_have_the_losses_that_they_had_before(train, parsed):
    small = settings("training.batch_size=4")
    train(parsed, "--out", "x", "--steps", 4, "--events", "log.jsonl", *small)
    steps = steps_of("log.jsonl")
    assert [event["photos"] for event in steps] == [4, 4, 4, 4]
    assert all(step["rate_img_s"] > 0 and 0 <= step["wait_share"] <= 1 for step in steps)
    losses = [list(event["losses"].values()) for event in steps]
    assert np.allclose(losses, GOLDEN, rtol=2e-4), losses


@pytest.mark.slow
def test_eight_photos_are_learnt_to_a_map_of_one_and_their_captions_by_heart(
    train, parsed, tmp_path
):
    rows = [{**row, "captions": row["captions"][1:], "caption_tags": row["caption_tags"][1:]}
            for row in training_records()]  # fmt: skip
    path = write_records(tmp_path / "in.jsonl", rows)
    train(
        path, "--out", "x", "--val", path, "--steps", 150, "--events", "log.jsonl",
        *settings("training.augment.flip=0", "training.label_smoothing=0.0",
                  "training.lr=5e-3", "training.gamma_neg=2.0"),
    )  # fmt: skip
    assert Bundle.open(tmp_path / "x").meta["provenance"]["measured"]["validation_mAP"] == 1.0
    last = steps_of("log.jsonl")[-1]["losses"]
    assert last["caption"] < 0.1 and last["tag"] < 0.1


def test_without_a_readable_photo_nothing_is_written(train, command, parsed, tmp_path):
    train(parsed, "--out", "x", "--steps", 1)
    before = (tmp_path / "x" / "model.safetensors").read_bytes()
    done = command("train", parsed, "--preset", "tiny", "--out", "x", "--steps", 1, code=1)
    assert "no photo could be read" in done.messages
    assert (tmp_path / "x" / "model.safetensors").read_bytes() == before


def test_held_out_photos_that_cannot_be_used_are_reported_in_a_line(train, parsed, tmp_path):
    row = training_records()[0]
    missing = write_records(tmp_path / "missing.jsonl", [{**row, "image": "nowhere.jpg"}])
    events = ["--events", "log.jsonl"]
    done = train(parsed, "--out", "x", "--val", missing, "--epochs", 2, *events, code=3)
    assert "nan" not in done.messages.lower()
    assert "none of 1 validation photos can be used: they cannot be read" in done.messages
    bundle, told = Bundle.open(tmp_path / "x"), "none: the photos held out cannot be used"
    assert bundle.meta["provenance"]["measured"] == {"validation": told}
    assert bundle.threshold == 0.5
    other = write_records(tmp_path / "other.jsonl", [{**row, "tags": ["zeppelin"]}])
    done = train(parsed, "--out", "x", "--val", other, "--steps", 1)
    assert "nan" not in done.messages.lower()
    assert "none of 1 validation photos can be used: their tags were not trained" in done.messages


def test_map_without_untrained_labels_comes_first_and_the_other_is_told(train, parsed, tmp_path):
    rare = ["--set", "training.fewest_positives=3"]
    done = train(parsed, "--out", "x", "--val", parsed, "--steps", 2, *rare)
    bundle = Bundle.open(tmp_path / "x")
    measured = bundle.meta["provenance"]["measured"]
    n_trained = measured["validation_labels"]
    assert 0 < n_trained < measured["validation_labels_with_untrained"] == 3
    assert Calibration.from_bundle(bundle).curve  # of eight photos, but told by them
    first, both = measured["validation_mAP"], measured["validation_mAP_with_untrained"]
    assert f"mAP {first:.4f} over {n_trained} labels ({both:.4f} over all 3)" in done.messages
    card = (bundle.path / "README.md").read_text()
    facts = yaml.safe_load(card.split("---")[1])  # as the hub reads them
    assert facts["library_name"] == "ramctl"
    (shown,) = facts["model-index"][0]["results"]
    assert shown["metrics"] == [{"type": "mAP", "value": float(first)}]
    assert card.index(f"validation mAP: {first}") < card.index(f"with untrained: {both}")


def test_a_prior_without_text_embedding_is_refused_by_its_own_name(train, parsed, monkeypatch):
    package = SimpleNamespace(is_installed=True, project="weights")
    monkeypatch.setattr(initial.packages, "PACKAGED", {"test_efficientnet": package})
    head = torch.zeros(9, 256), torch.zeros(9)
    monkeypatch.setattr(initial, "load_encoder", lambda *_: (head, "the package weights"))
    changes = "model.labels.kind=learnt", "model.prior.classes=9", "training.distill=[]"
    done = train(parsed, "--out", "x", "--steps", 1, *settings(*changes), code=2)
    assert "learnt label queries have no text for the ImageNet classes" in done.messages


def test_photos_to_validate_on_may_be_packed(train, parsed, tmp_path):
    (tmp_path / "records.jsonl.gz").write_bytes(gzip.compress(parsed.read_bytes()))
    # Both are copied, and neither is taken for the other.
    train("records.jsonl.gz", "--val", "records.jsonl.gz", "--out", "x", "--steps", 2)
    train(parsed, "--val", parsed, "--out", "y", "--steps", 2)
    assert_same_weights(Path("x"), Path("y"))


def test_the_manuals_preset_of_another_backbone_trains_and_tags(command, parsed, tmp_path):
    manual = REPOSITORY / "ramctl" / "training" / "README.md"
    (text,) = re.findall(r"```toml\n(.*?)```", manual.read_text("utf-8"), re.DOTALL)
    (tmp_path / "mobilenet.toml").write_text(text)
    small = settings("training.encoder=", "preprocess.size=64", "training.batch_size=4")
    options = ["--root", DATA, "--out", "x", "--steps", 1, *small]
    command("train", parsed, "--preset", "mobilenet.toml", *options)
    done = command("tag", "--model", "x/", "--threshold", 0, DATA / "photos" / "horses.jpg")
    assert json.loads(done.stdout)["tags"]


def test_features_and_captions_report_their_progress(train, parsed, monkeypatch):
    monkeypatch.setattr("ramctl.training.train_bundle.LOG_EVERY_S", 0.0)
    frozen = settings("training.backbone_lr_factor=0")
    done = train(parsed, "--out", "x", "--steps", 1, *frozen)
    assert "features: 8/8, 0 min left" in done.messages
    assert "captions: 8/8, 0 min left" in done.messages
